//! The checksum of a file system: one kind for its superblocks, tree blocks and data.

use std::fmt;

use blake2::Blake2b;
use sha2::{Digest, Sha256};

use crate::xxhash::xxh64;

/// Bytes reserved for a checksum in superblocks and tree blocks.
pub(crate) const RESERVED: usize = 32;

/// `csum_type` of the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Crc32c,
    Xxhash64,
    Sha256,
    Blake2b,
}

/// A checksum, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    bytes: [u8; RESERVED],
    length: usize,
}

impl Kind {
    pub(crate) fn decode(kind: u16) -> Option<Self> {
        [Self::Crc32c, Self::Xxhash64, Self::Sha256, Self::Blake2b].get(usize::from(kind)).copied()
    }

    /// As `btrfs inspect-internal dump-super` prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Xxhash64 => "xxhash64",
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
        }
    }

    /// Bytes that one checksum of data takes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => 32,
        }
    }

    pub(crate) fn of(self, bytes: &[u8]) -> Sum {
        match self {
            Self::Crc32c => Sum::new(&ondisk::crc32c(bytes).to_le_bytes()),
            Self::Xxhash64 => Sum::new(&xxh64(bytes).to_le_bytes()),
            Self::Sha256 => Sum::new(&Sha256::digest(bytes)),
            Self::Blake2b => Sum::new(&Blake2b::<blake2::digest::consts::U32>::digest(bytes)),
        }
    }

    /// The checksum at the start of `stored`.
    pub(crate) fn stored(self, stored: &[u8]) -> Option<Sum> {
        stored.get(..self.size()).map(Sum::new)
    }
}

impl Sum {
    fn new(bytes: &[u8]) -> Self {
        let mut sum = Self { bytes: [0; RESERVED], length: bytes.len().min(RESERVED) };
        for (to, from) in sum.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        sum
    }
}

impl fmt::Display for Sum {
    /// In the order of the bytes, as btrfs-progs print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.bytes.iter().take(self.length).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(Kind::Crc32c.of(b"123456789").to_string(), "0x839206e3");
        assert_eq!(Kind::Xxhash64.of(b"").to_string(), "0x99e9d85137db46ef");
        assert!(Kind::Sha256.of(b"abc").to_string().starts_with("0xba7816bf8f01cfea"));
        assert!(Kind::Blake2b.of(b"abc").to_string().starts_with("0xbddd813c634239723171"));
        assert_eq!(Kind::decode(4), None);
    }
}
