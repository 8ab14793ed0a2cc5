//! From a passphrase to the cipher of the data.

use blockdev::BlockDevice;

use crate::kdf::{Digest, Limits, MAX_FILLED, MAX_ITERATIONS};
use crate::{CipherError, Header, KeySlot, Secret, SectorCipher};

/// Why the data stays closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Locked {
    /// There is no passphrase to try.
    #[error("a passphrase is needed")]
    NoPassphrase,
    /// No key slot opens with this passphrase.
    #[error("no key slot opens with this passphrase")]
    WrongPassphrase,
    /// The header holds no key slot that can be used.
    #[error("no key slot is in use")]
    NoKeySlot,
    /// The header asks for so much work that it can only be meant to stop us.
    #[error("the header asks for {0}")]
    TooMuchWork(String),
    /// A key slot asks for more memory than is allowed, or than there is.
    #[error("a key slot asks for {wanted} KiB of memory; the limit is {limit} KiB")]
    TooMuchMemory {
        /// KiB.
        wanted: u32,
        /// KiB.
        limit: u32,
    },
    /// Numbers that the key derivation does not take.
    #[error("a key slot has impossible parameters: {0}")]
    Parameters(String),
    /// The data cannot be read, whatever the key.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The cipher is not known here.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// Key material cannot be read.
    #[error(transparent)]
    Read(#[from] ondisk::Error),
}

/// Opens the first key slot that takes `passphrase`. The header lies at byte `at` of `device`.
///
/// # Errors
/// [`Locked`].
pub fn unlock(
    header: &Header,
    device: &dyn BlockDevice,
    at: u64,
    passphrase: &[u8],
) -> Result<SectorCipher, Locked> {
    let limits = Limits::default();
    let (_, key) = volume_key(&header.key_slots, &header.digest, device, at, passphrase, limits)?;
    Ok(SectorCipher::new(&header.cipher, &header.mode, &key)?)
}

/// The volume key, and the number of the slot that gave it.
pub(crate) fn volume_key(
    slots: &[KeySlot],
    digest: &Digest,
    device: &dyn BlockDevice,
    at: u64,
    passphrase: &[u8],
    limits: Limits,
) -> Result<(u32, Secret), Locked> {
    if slots.is_empty() {
        return Err(Locked::NoKeySlot);
    }
    let (iterations, filled) = work(slots, digest);
    if iterations > MAX_ITERATIONS {
        return Err(Locked::TooMuchWork(format!("{iterations} iterations")));
    }
    if filled > MAX_FILLED {
        return Err(Locked::TooMuchWork(format!("{filled} KiB to be filled")));
    }
    // A slot that is damaged or asks too much must not hide one that opens.
    let mut obstacle = None;
    for slot in slots {
        match slot.open(digest, device, at, passphrase, limits) {
            Ok(Some(key)) => return Ok((slot.number, key)),
            Ok(None) => {}
            Err(error) => obstacle = Some(error),
        }
    }
    Err(obstacle.unwrap_or(Locked::WrongPassphrase))
}

/// What trying all slots costs at most: iterations of PBKDF2, and KiB that Argon2 fills.
pub(crate) fn work(slots: &[KeySlot], digest: &Digest) -> (u64, u64) {
    slots.iter().fold((0_u64, 0_u64), |(iterations, filled), slot| {
        let (more, fill) = slot.kdf.work();
        let more = more.saturating_add(u64::from(digest.iterations));
        (iterations.saturating_add(more), filled.saturating_add(fill))
    })
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;
    use crate::header::tests::{bytes, mutated};

    #[test]
    fn a_header_cannot_ask_for_hours() {
        let mut image = bytes();
        // The iterations of the slot in use.
        image[0xd0 + 2 * 48 + 4] = 0xff;
        let device = MemoryDevice::new(image);
        let header = Header::read(&device, 0).unwrap();
        let error = unlock(&header, &device, 0, b"x").unwrap_err();
        assert!(matches!(error, Locked::TooMuchWork(_)), "{error}");
    }

    #[test]
    fn no_mutation_panics_or_hangs() {
        let mut opened = 0;
        for number in 0..20_000 {
            let device = MemoryDevice::new(mutated(number));
            let Ok(header) = Header::read(&device, 0) else { continue };
            opened += 1;
            // Deriving keys is what costs; a few show that the way there holds.
            let is_cheap =
                header.digest.iterations < 100 && header.key_slots.iter().all(|slot| slot.kdf.work().0 < 100);
            if number % 200 == 0 && is_cheap {
                drop(unlock(&header, &device, 0, b"x"));
            }
        }
        assert!(opened > 2000, "{opened}");
    }
}
