//! Extent record: which blocks of the device hold a run of a file's blocks.
//!
//! XFS Algorithms & Data Structures, "Extent List". 128 bits, big-endian, packed: 1 bit state (1 = allocated
//! but never written), 54 bits file block, 52 bits device block, 21 bits count.

use crate::geometry::{FsBlock, Geometry};
use crate::number::wide;
use crate::span::{Checked, Span};

/// Bytes in a record.
pub(crate) const RECORD: usize = 16;
/// One more than the largest file block that a record can hold.
pub(crate) const FILE_BLOCKS: u64 = 1 << 54;
/// The largest count that a record can hold.
pub(crate) const LONGEST: u64 = (1 << 21) - 1;

/// One extent, which lies within one allocation group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block within the file.
    pub(crate) start: u64,
    /// Blocks, at least 1.
    pub(crate) count: u64,
    /// First block on the device.
    pub(crate) block: FsBlock,
    /// Allocated but never written: reads as zeros.
    pub(crate) unwritten: bool,
}

impl Extent {
    /// Unpacks a record; whether its fields make sense is for [`decode_list`] to say.
    fn unpack(raw: u128) -> Self {
        let field = |shift: u32, bits: u32| {
            let value = raw.wrapping_shr(shift) & 1_u128.wrapping_shl(bits).wrapping_sub(1);
            u64::try_from(value).unwrap_or(u64::MAX)
        };
        Self {
            unwritten: field(127, 1) == 1,
            start: field(73, 54),
            block: FsBlock(field(21, 52)),
            count: field(0, 21),
        }
    }

    /// The record of this extent.
    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let raw = u128::from(self.unwritten) << 127
            | (u128::from(self.start) & ((1 << 54) - 1)) << 73
            | (u128::from(self.block.0) & ((1 << 52) - 1)) << 21
            | u128::from(self.count) & ((1 << 21) - 1);
        raw.to_be_bytes()
    }

    /// One past the last file block.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.count)
    }

    /// The device block of file block `at`, which lies in this extent.
    pub(crate) fn block_at(&self, at: u64) -> FsBlock {
        FsBlock(self.block.0.saturating_add(at.saturating_sub(self.start)))
    }
}

/// Decodes `count` records from byte `at` of `span`; they must be ascending, apart, and within `lower..upper`.
pub(crate) fn decode_list(
    span: &Span<'_>,
    at: usize,
    count: u64,
    bounds: std::ops::Range<u64>,
    geometry: &Geometry,
) -> Checked<Vec<Extent>> {
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(RECORD));
    let bytes = span.slice(at, length.unwrap_or(usize::MAX), "extent count")?;
    let mut extents = Vec::with_capacity(bytes.len() / RECORD);
    let mut least = bounds.start;
    for raw in bytes.as_chunks::<RECORD>().0 {
        let extent = Extent::unpack(u128::from_be_bytes(*raw));
        if extent.start < least || extent.end() > bounds.end || extent.count == 0 {
            let found = format!("blocks {}..{}", extent.start, extent.end());
            let expected = format!("a run within blocks {least}..{}", bounds.end);
            return Err(span.corrupt("br_startoff", expected, found));
        }
        if !geometry.holds(extent.block, extent.count) {
            let found = format!("{} blocks at {}", extent.count, extent.block);
            return Err(span.corrupt("br_startblock", "a run within one allocation group", found));
        }
        least = extent.end();
        extents.push(extent);
    }
    Ok(extents)
}

/// The records of `extents`.
pub(crate) fn encode_list(extents: &[Extent]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(extents.len().saturating_mul(RECORD));
    for extent in extents {
        bytes.extend_from_slice(&extent.encode());
    }
    debug_assert_eq!(wide(bytes.len()) % 16, 0, "records have one size");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        block_log: 12,
        sector_log: 9,
        inode_log: 9,
        dir_block_log: 0,
        ag_block_log: 7,
        ag_blocks: 100,
        ag_count: 4,
        blocks: 370,
    };

    fn extent(start: u64, block: u64, count: u64) -> Extent {
        Extent { start, count, block: FsBlock(block), unwritten: false }
    }

    fn field(extents: &[Extent]) -> &'static str {
        let bytes = encode_list(extents);
        let span = Span::new("test", 0, &bytes);
        decode_list(&span, 0, extents.len() as u64, 10..100, &GEOMETRY).unwrap_err().field
    }

    #[test]
    fn packing_is_reversible() {
        let widest = Extent {
            start: (1 << 54) - 1,
            count: (1 << 21) - 1,
            block: FsBlock((1 << 52) - 1),
            unwritten: true,
        };
        assert_eq!(widest.encode(), [0xff; 16]);
        for extent in [widest, extent(0, 0, 1), extent(1, 2, 3), Extent { unwritten: false, ..widest }] {
            assert_eq!(Extent::unpack(u128::from_be_bytes(extent.encode())), extent);
        }
        // xfs_db: `u3.bmx[0] = [startoff,startblock,blockcount,extentflag] 0:[0,13,1,0]`.
        let raw = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xa0, 0, 1];
        assert_eq!(Extent::unpack(u128::from_be_bytes(raw)), extent(0, 13, 1));
    }

    #[test]
    fn lists_are_ordered_and_within_bounds() {
        let sound = [extent(10, 5, 3), extent(13, 128, 7), extent(99, 300, 1)];
        let bytes = encode_list(&sound);
        let span = Span::new("test", 0, &bytes);
        assert_eq!(decode_list(&span, 0, 3, 10..100, &GEOMETRY).unwrap(), sound);
        assert_eq!(decode_list(&span, 0, 4, 10..100, &GEOMETRY).unwrap_err().field, "extent count");
        assert_eq!(decode_list(&span, 0, u64::MAX, 10..100, &GEOMETRY).unwrap_err().field, "extent count");
        assert_eq!(field(&[extent(9, 5, 1)]), "br_startoff");
        assert_eq!(field(&[extent(99, 5, 2)]), "br_startoff");
        assert_eq!(field(&[extent(20, 5, 2), extent(21, 50, 2)]), "br_startoff");
        assert_eq!(field(&[extent(20, 5, 0)]), "br_startoff");
        assert_eq!(field(&[extent(20, 99, 2)]), "br_startblock");
        assert_eq!(field(&[extent(20, 4 << 7, 1)]), "br_startblock");
    }
}
