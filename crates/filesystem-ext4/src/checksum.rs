//! How this file system protects its metadata.
//!
//! Linux `Documentation/filesystems/ext4/checksums.rst`. CRC-32C without inversions, chained from a seed that
//! stands for the file system; before that existed, CRC-16 over group descriptors alone.

use ondisk::crc32c_raw;

/// The scheme and its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Nothing is protected.
    None,
    /// `uninit_bg`: CRC-16 in group descriptors, seeded with the UUID.
    GroupsOnly {
        /// The UUID of the file system.
        uuid: [u8; 16],
    },
    /// `metadata_csum`: CRC-32C in every metadata structure.
    All {
        /// CRC-32C of the UUID, or the seed stored in its place.
        seed: u32,
    },
}

impl Checksums {
    /// The seed, if every structure is protected.
    pub fn seed(self) -> Option<u32> {
        match self {
            Self::All { seed } => Some(seed),
            Self::None | Self::GroupsOnly { .. } => None,
        }
    }
}

/// The seed of everything that belongs to one inode.
pub(crate) fn inode_seed(seed: u32, number: u32, generation: u32) -> u32 {
    crc32c_raw(crc32c_raw(seed, &number.to_le_bytes()), &generation.to_le_bytes())
}

/// CRC-16 with the reflected polynomial 0xa001, no inversion: Linux' `crc16`.
pub(crate) fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |state, byte| {
        (0..8).fold(
            state ^ u16::from(*byte),
            |state, _| if state & 1 == 1 { state >> 1 ^ 0xa001 } else { state >> 1 },
        )
    })
}

const CRC32_BE: [u32; 256] = crc32_be_table();

#[expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, where an overflow is a build error"
)]
const fn crc32_be_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut state = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 0x8000_0000 != 0 { state << 1 ^ 0x04c1_1db7 } else { state << 1 };
            bit += 1;
        }
        table[index] = state;
        index += 1;
    }
    table
}

/// CRC-32 with the IEEE polynomial, most significant bit first, no inversion: the journal's first checksum.
pub(crate) fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |state, byte| {
        let index = (state >> 24 ^ u32::from(*byte)) & 0xff;
        let step = CRC32_BE.get(crate::units::to_usize(index)).expect("the index has eight bits");
        state << 8 ^ step
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        // The catalogue's check values for "123456789": CRC-16/MODBUS (initial value 0xffff), CRC-16/ARC (0),
        // and CRC-32/MPEG-2.
        assert_eq!(crc16(0xffff, b"123456789"), 0x4b37);
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
    }
}
