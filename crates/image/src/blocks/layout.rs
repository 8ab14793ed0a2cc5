//! Where the blocks of one image are: the arithmetic of table entries.
//!
//! An entry is the number of a place in the file. A block there has a lead, which is no guest data (the sector
//! bitmap of VHD, the extra data of VDI), and then its bytes of the disk.

use std::ops::Range;

use ondisk::Corrupt;

/// Bytes of the smallest part of a block that is kept track of.
pub(crate) const SECTOR: u64 = 512;

/// The entry of a block that is not in the file, in both formats.
pub(crate) const ABSENT: u32 = u32::MAX;

/// log2 of the block size in bytes: 9 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockSize(u32);

#[expect(clippy::arithmetic_side_effects, reason = "the shift is 9 to 31, and no result exceeds its operand")]
impl BlockSize {
    /// `None` for what is not a power of two, or less than a sector.
    pub(crate) const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 512 { Some(Self(bytes.trailing_zeros())) } else { None }
    }

    pub(crate) const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The number of the block that holds byte `offset` of the disk.
    pub(crate) const fn number(self, offset: u64) -> u64 {
        offset >> self.0
    }

    /// The position of byte `offset` of the disk within its block.
    pub(crate) const fn within(self, offset: u64) -> u64 {
        offset & (self.bytes() - 1)
    }

    /// The first byte of block `number` of the disk.
    pub(crate) const fn start(self, number: u64) -> u64 {
        number.saturating_mul(self.bytes())
    }

    /// How many blocks `length` bytes need.
    pub(crate) const fn count(self, length: u64) -> u64 {
        length.div_ceil(self.bytes())
    }
}

/// What the bits in the lead of a block, one for each sector, mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bitmaps {
    /// There are none.
    None,
    /// A reader does not need them; a writer sets them.
    Kept,
    /// A sector whose bit is 0 is in the layer below.
    Decide,
}

/// The words for damage.
#[derive(Debug)]
pub(crate) struct Names {
    /// The structure that maps a block.
    pub(crate) entry: &'static str,
    /// What it maps to.
    pub(crate) block: &'static str,
    /// The bits of its sectors.
    pub(crate) bitmap: &'static str,
}

/// Everything that turns a byte of the disk into a byte of the file.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) names: &'static Names,
    pub(crate) is_big_endian: bool,
    /// First byte of the table.
    pub(crate) table_offset: u64,
    /// Entries in the table, all of them within the file; at least as many as the disk needs.
    pub(crate) entries: u32,
    pub(crate) block_size: BlockSize,
    /// The place that entry 0 means.
    pub(crate) base: u64,
    /// Bytes from one place to the next.
    pub(crate) unit: u64,
    /// Bytes of a block before its data.
    pub(crate) lead: u64,
    /// The entry of a block of zeros, if there is one.
    pub(crate) zero: Option<u32>,
    pub(crate) bitmaps: Bitmaps,
    /// Parts of the file that hold the image's own structures.
    pub(crate) reserved: Vec<Range<u64>>,
}

/// What an entry says of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Not in this file.
    Absent,
    /// Zeros.
    Zero,
    /// In the file: where its lead starts.
    Host(u64),
}

impl Layout {
    /// Bytes that one block takes in the file.
    pub(crate) fn footprint(&self) -> u64 {
        self.lead.saturating_add(self.block_size.bytes())
    }

    /// First byte of the block with this entry, lead included.
    pub(crate) fn place(&self, entry: u32) -> u64 {
        self.base.saturating_add(self.unit.saturating_mul(u64::from(entry)))
    }

    /// First byte in the file of the entry for block `number`.
    pub(crate) fn entry_offset(&self, number: u64) -> u64 {
        self.table_offset.saturating_add(number.saturating_mul(4))
    }

    pub(crate) fn decode(&self, stored: [u8; 4]) -> u32 {
        if self.is_big_endian { u32::from_be_bytes(stored) } else { u32::from_le_bytes(stored) }
    }

    pub(crate) fn encode(&self, entry: u32) -> [u8; 4] {
        if self.is_big_endian { entry.to_be_bytes() } else { entry.to_le_bytes() }
    }

    /// What the entry of block `number` says, unless it points at the image's own structures.
    pub(crate) fn content(&self, number: u64, entry: u32) -> Result<Content, Corrupt> {
        if entry == ABSENT {
            return Ok(Content::Absent);
        }
        if self.zero == Some(entry) {
            return Ok(Content::Zero);
        }
        let start = self.place(entry);
        let end = start.saturating_add(self.footprint());
        if self.reserved.iter().any(|range| range.start < end && start < range.end) {
            let expected = "a place that no other structure occupies";
            let found = format!("{entry:#x}");
            let at = self.entry_offset(number);
            return Err(Corrupt::new(self.names.entry, at, "place of the block", expected, found));
        }
        Ok(Content::Host(start))
    }

    /// The bytes of a disk of `size` bytes that block `number` holds.
    pub(crate) fn guest(&self, number: u64, size: u64) -> Range<u64> {
        let start = self.block_size.start(number).min(size);
        start..start.saturating_add(self.block_size.bytes()).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert!(
            BlockSize::new(256).is_none() && BlockSize::new(513).is_none() && BlockSize::new(0).is_none()
        );
        let layout = Layout {
            names: &Names { entry: "entry", block: "block", bitmap: "bitmap" },
            is_big_endian: true,
            table_offset: 1536,
            entries: 3,
            block_size: BlockSize::new(1 << 20).unwrap(),
            base: 0,
            unit: 512,
            lead: 512,
            zero: None,
            bitmaps: Bitmaps::Decide,
            reserved: vec![0..512, 512..1536, 1536..1548],
        };
        assert_eq!(layout.content(2, ABSENT), Ok(Content::Absent));
        assert_eq!(layout.content(2, 4), Ok(Content::Host(2048)));
        assert_eq!(
            layout.content(2, 3).unwrap_err().to_string(),
            "entry at byte 1544: place of the block is 0x3, expected a place that no other structure occupies"
        );
        assert_eq!(layout.guest(2, (2 << 20) + 5), 2 << 20..(2 << 20) + 5);
        assert_eq!(layout.guest(3, (2 << 20) + 5), (2 << 20) + 5..(2 << 20) + 5);
        assert_eq!(layout.decode(layout.encode(0x1234_5678)), 0x1234_5678);
    }
}
