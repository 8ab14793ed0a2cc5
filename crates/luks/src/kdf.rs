//! From a passphrase to the key of a slot.

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::{Hash, Locked, Secret};

/// Iterations of PBKDF2 that a header may ask for in all: a minute of work, ten times what tools ask for. The number
/// is the image's.
pub(crate) const MAX_ITERATIONS: u64 = 100_000_000;

/// KiB that Argon2 may fill in all, passes times memory over all slots: a few minutes of work.
pub(crate) const MAX_FILLED: u64 = 128 << 20;

/// What a header may ask of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// KiB of memory for Argon2. cryptsetup asks for 1 GiB at most unless it is told otherwise.
    pub memory: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 1 << 20 }
    }
}

/// How the key of a slot follows from a passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kdf {
    /// PBKDF2 (RFC 8018) with HMAC.
    Pbkdf2 {
        /// The hash function.
        hash: Hash,
        /// At least 1.
        iterations: u32,
        /// From the header.
        salt: Vec<u8>,
    },
    /// Argon2 (RFC 9106), version 1.3.
    Argon2 {
        /// Argon2id, else Argon2i.
        is_id: bool,
        /// Passes.
        time: u32,
        /// KiB.
        memory: u32,
        /// Lanes.
        lanes: u32,
        /// From the header.
        salt: Vec<u8>,
    },
}

impl Kdf {
    /// The name that headers use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pbkdf2 { .. } => "pbkdf2",
            Self::Argon2 { is_id: true, .. } => "argon2id",
            Self::Argon2 { is_id: false, .. } => "argon2i",
        }
    }

    /// Iterations of PBKDF2, and KiB that Argon2 fills.
    pub(crate) fn work(&self) -> (u64, u64) {
        match self {
            Self::Pbkdf2 { iterations, .. } => (u64::from(*iterations), 0),
            Self::Argon2 { time, memory, .. } => (0, u64::from(*time).saturating_mul(u64::from(*memory))),
        }
    }

    /// Fills `key`.
    pub(crate) fn derive(&self, passphrase: &[u8], limits: Limits, key: &mut [u8]) -> Result<(), Locked> {
        match self {
            Self::Pbkdf2 { hash, iterations, salt } => {
                hash.pbkdf2(passphrase, salt, *iterations, key);
                Ok(())
            }
            Self::Argon2 { is_id, time, memory, lanes, salt } => {
                if *memory > limits.memory {
                    return Err(Locked::TooMuchMemory { wanted: *memory, limit: limits.memory });
                }
                let bad = |error: argon2::Error| Locked::Parameters(error.to_string());
                let params = Params::new(*memory, *time, *lanes, Some(key.len())).map_err(bad)?;
                let count = params.block_count();
                let mut blocks = Vec::new();
                if blocks.try_reserve_exact(count).is_err() {
                    return Err(Locked::TooMuchMemory { wanted: *memory, limit: limits.memory });
                }
                blocks.resize(count, Block::new());
                let algorithm = if *is_id { Algorithm::Argon2id } else { Algorithm::Argon2i };
                let argon2 = Argon2::new(algorithm, Version::V0x13, params);
                argon2.hash_password_into_with_memory(passphrase, salt, key, &mut blocks).map_err(bad)
            }
        }
    }
}

/// What proves a volume key: its PBKDF2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) hash: Hash,
    /// At least 1.
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Digest {
    pub(crate) fn proves(&self, key: &Secret) -> bool {
        let mut computed = vec![0; self.value.len()];
        self.hash.pbkdf2(key, &self.salt, self.iterations, &mut computed);
        computed == self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parameters of RFC 9106, §5.3, without its secret and associated data; the tag is that of the reference
    /// implementation, `argon2 somesalt -id -t 2 -k 256 -p 1 -l 32` over "password".
    #[test]
    fn argon2id() {
        let kdf = Kdf::Argon2 { is_id: true, time: 2, memory: 256, lanes: 1, salt: b"somesalt".to_vec() };
        let mut key = [0; 32];
        kdf.derive(b"password", Limits::default(), &mut key).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
        assert_eq!((kdf.name(), kdf.work()), ("argon2id", (0, 512)));
    }

    #[test]
    fn memory_has_a_ceiling() {
        let kdf = Kdf::Argon2 { is_id: false, time: 1, memory: u32::MAX, lanes: 1, salt: vec![1; 32] };
        let error = kdf.derive(b"x", Limits::default(), &mut [0; 32]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a key slot asks for 4294967295 KiB of memory; the limit is 1048576 KiB"
        );
        let kdf = Kdf::Argon2 { is_id: false, time: 1, memory: 1, lanes: 1, salt: vec![1; 32] };
        assert!(matches!(kdf.derive(b"x", Limits::default(), &mut [0; 32]), Err(Locked::Parameters(_))));
    }
}
