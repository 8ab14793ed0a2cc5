//! Block arithmetic: the only place where offsets are shifted and masked.
//!
//! The disk is cut into blocks; 2^23 sectors are a chunk, whose sector bitmap fills one block of 1 MiB. In the
//! table, the entry of a chunk's sector bitmap follows those of the chunk's blocks.

use std::io;
use std::ops::Range;

use ondisk::Corrupt;

/// The unit of every place in the file, in bytes.
pub(super) const MIB: u64 = 1 << 20;

/// Bytes of file identifier, headers and region tables, where nothing else may lie.
pub(super) const HEADER_SECTION: u64 = MIB;

/// Bytes that the log writes at once.
pub(super) const SECTOR: u64 = 4096;

/// The same, as the length of a buffer.
pub(super) const SECTOR_SIZE: usize = 4096;

/// Bits of a sector bitmap in that.
pub(super) const SECTOR_BITS: u64 = 8 * SECTOR;

/// log2 of the sectors that one sector bitmap block speaks of.
const CHUNK_SECTOR_BITS: u32 = 23;

/// The longest disk in bytes.
pub(super) const MAX_DISK: u64 = 64 << 40;

/// How the disk is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// log2 of the bytes in a block: 20 to 28.
    block_bits: u32,
    /// log2 of the bytes in a logical sector: 9 or 12.
    sector_bits: u32,
    /// Length of the disk in bytes, at most 64 TiB.
    size: u64,
    /// Whether blocks may lie in another file.
    has_parent: bool,
}

/// What an entry of the table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// The block with this number.
    Payload(u64),
    /// The sector bitmap of the chunk with this number.
    Bitmap(u64),
}

#[expect(clippy::arithmetic_side_effects, reason = "shifts are below 64, and all numbers are below 2^47")]
impl Geometry {
    /// `None` for sizes that the specification does not allow.
    pub(super) fn new(block_size: u64, sector_size: u32, size: u64, has_parent: bool) -> Option<Self> {
        let is_block = block_size.is_power_of_two() && (MIB..=256 * MIB).contains(&block_size);
        let is_sector = matches!(sector_size, 512 | 4096);
        if !is_block || !is_sector || size > MAX_DISK || !size.is_multiple_of(u64::from(sector_size)) {
            return None;
        }
        Some(Self { block_bits: block_size.ilog2(), sector_bits: sector_size.ilog2(), size, has_parent })
    }

    pub(super) fn size(self) -> u64 {
        self.size
    }

    pub(super) fn has_parent(self) -> bool {
        self.has_parent
    }

    /// Bytes in a block.
    pub(super) fn block_size(self) -> u64 {
        1 << self.block_bits
    }

    /// Bytes in a logical sector.
    pub(super) fn sector_size(self) -> u64 {
        1 << self.sector_bits
    }

    /// The number of the block that holds byte `offset` of the disk.
    pub(super) fn block(self, offset: u64) -> u64 {
        offset >> self.block_bits
    }

    /// The position of byte `offset` within its block.
    pub(super) fn within_block(self, offset: u64) -> u64 {
        offset & (self.block_size() - 1)
    }

    /// How many blocks the disk has.
    pub(super) fn blocks(self) -> u64 {
        self.size.div_ceil(self.block_size())
    }

    /// The bytes of the disk in block `number`; the last block may be cut short.
    pub(super) fn guest(self, number: u64) -> Range<u64> {
        let start = number.saturating_mul(self.block_size()).min(self.size);
        start..start.saturating_add(self.block_size()).min(self.size)
    }

    /// log2 of the blocks in a chunk: 4 to 15.
    fn chunk_bits(self) -> u32 {
        CHUNK_SECTOR_BITS + self.sector_bits - self.block_bits
    }

    /// The number of the chunk of block `number`.
    pub(super) fn chunk(self, number: u64) -> u64 {
        number >> self.chunk_bits()
    }

    /// The bytes of the disk in chunk `number`.
    pub(super) fn chunk_guest(self, number: u64) -> Range<u64> {
        let bits = CHUNK_SECTOR_BITS + self.sector_bits;
        let start = (number << bits).min(self.size);
        start..(start + (1 << bits)).min(self.size)
    }

    /// The index of the table entry for block `number`.
    pub(super) fn payload_index(self, number: u64) -> u64 {
        number + self.chunk(number)
    }

    /// The index of the table entry for the sector bitmap of chunk `number`.
    pub(super) fn bitmap_index(self, number: u64) -> u64 {
        ((number + 1) << self.chunk_bits()) + number
    }

    /// How many table entries the disk needs.
    pub(super) fn entries(self) -> u64 {
        match self.blocks().checked_sub(1) {
            None => 0,
            Some(last) if self.has_parent => self.bitmap_index(self.chunk(last)) + 1,
            Some(last) => self.payload_index(last) + 1,
        }
    }

    /// What the table entry with this index is for.
    pub(super) fn kind(self, index: u64) -> EntryKind {
        let with_bitmap = (1 << self.chunk_bits()) + 1;
        let (chunk, within) = (index / with_bitmap, index % with_bitmap);
        match within >> self.chunk_bits() {
            0 => EntryKind::Payload((chunk << self.chunk_bits()) + within),
            _ => EntryKind::Bitmap(chunk),
        }
    }

    /// Logical sectors in a block.
    pub(super) fn sectors_in_block(self) -> u64 {
        1 << (self.block_bits - self.sector_bits)
    }

    /// The bit of the first sector of block `number` in the sector bitmap of its chunk.
    pub(super) fn first_bit(self, number: u64) -> u64 {
        let within_chunk = number & ((1 << self.chunk_bits()) - 1);
        within_chunk << (self.block_bits - self.sector_bits)
    }

    /// Where in its sector bitmap the 4 KiB start that hold bit `bit`, in bytes.
    pub(super) fn bitmap_piece(bit: u64) -> u64 {
        bit / SECTOR_BITS * SECTOR
    }

    /// The number of the logical sector that holds byte `offset`.
    pub(super) fn sector(self, offset: u64) -> u64 {
        offset >> self.sector_bits
    }

    /// The first byte of the logical sector that holds byte `offset`.
    pub(super) fn sector_start(self, offset: u64) -> u64 {
        offset & !(self.sector_size() - 1)
    }

    /// The first byte behind the logical sectors that hold everything before byte `offset`.
    pub(super) fn sector_end(self, offset: u64) -> u64 {
        offset.next_multiple_of(self.sector_size())
    }

    /// Bytes in `sectors` logical sectors.
    pub(super) fn sector_bytes(self, sectors: u64) -> u64 {
        sectors << self.sector_bits
    }
}

/// The length of a buffer as an offset is counted.
pub(super) fn length_of<T>(buf: &[T]) -> u64 {
    u64::try_from(buf.len()).unwrap_or(u64::MAX)
}

/// A length that must fit in memory, as an index.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`], only where addresses have fewer than 64 bits.
pub(super) fn to_index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The failure of arithmetic on offsets that were checked before.
pub(super) fn overflow() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an offset in the image exceeds 2^64")
}

/// Damage that hides bytes, as the error of a read.
pub(super) fn damaged(corrupt: Corrupt) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, ondisk::Error::from(corrupt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_kinds_agree() {
        for (block_size, sector_size, ratio) in
            [(MIB, 512, 4096), (32 * MIB, 512, 128), (256 * MIB, 512, 16), (MIB, 4096, 32_768)]
        {
            let geometry = Geometry::new(block_size, sector_size, MAX_DISK, true).unwrap();
            let mut expected = 0;
            for block in 0..3 * ratio {
                assert_eq!(geometry.payload_index(block), expected);
                assert_eq!(geometry.kind(expected), EntryKind::Payload(block));
                expected += 1;
                if (block + 1) % ratio == 0 {
                    let chunk = block / ratio;
                    assert_eq!(geometry.chunk(block), chunk);
                    assert_eq!(geometry.bitmap_index(chunk), expected);
                    assert_eq!(geometry.kind(expected), EntryKind::Bitmap(chunk));
                    expected += 1;
                }
            }
            assert_eq!(geometry.first_bit(ratio - 1) + geometry.sectors_in_block(), 1 << 23);
            assert_eq!(geometry.chunk_guest(1).start, geometry.guest(ratio).start);
        }
    }

    #[test]
    fn counts_of_entries_are_those_of_the_specification() {
        let entries = |size, has_parent| Geometry::new(32 * MIB, 512, size, has_parent).unwrap().entries();
        assert_eq!([0, 512, 32 * MIB, 32 * MIB + 512].map(|size| entries(size, false)), [0, 1, 1, 2]);
        assert_eq!(entries(4 << 30, false), 128);
        assert_eq!(entries((4 << 30) + 512, false), 130);
        assert_eq!([0, 512, 4 << 30, (4 << 30) + 512].map(|size| entries(size, true)), [0, 129, 129, 258]);
        assert_eq!(entries(MAX_DISK, false), 2 * 1024 * 1024 + 16 * 1024 - 1);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (block_size, sector_size, size) in [
            (MIB / 2, 512, 0),
            (512 * MIB, 512, 0),
            (3 * MIB, 512, 0),
            (0, 512, 0),
            (MIB, 1024, 0),
            (MIB, 0, 0),
            (MIB, 512, 1),
            (MIB, 4096, 512),
            (MIB, 512, MAX_DISK + 512),
        ] {
            assert_eq!(Geometry::new(block_size, sector_size, size, false), None);
        }
    }
}
