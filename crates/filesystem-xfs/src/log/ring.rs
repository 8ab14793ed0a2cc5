//! The log's blocks: a ring of 512-byte basic blocks, whatever the sector size.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, be, read_bytes};
use zerocopy::FromBytes;

use super::record;

/// Bytes in a basic block.
pub(super) const BASIC_BLOCK: usize = 512;
/// The same as a length on the device.
pub(super) const BASIC_BLOCK_BYTES: u64 = 512;

/// An internal log, as basic blocks.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    pub(super) device: &'a dyn BlockDevice,
    /// First byte on the device.
    pub(super) offset: u64,
    /// Basic blocks, at least 1.
    pub(super) blocks: u64,
}

impl Ring<'_> {
    /// `block` counted on past the end, as a block of the ring.
    pub(super) fn wrap(&self, block: u64) -> u64 {
        block.checked_rem(self.blocks).unwrap_or_default()
    }

    /// First byte of `block` on the device; counting goes on at the start after the last block.
    pub(super) fn byte(&self, block: u64) -> u64 {
        self.offset.saturating_add(self.wrap(block).saturating_mul(BASIC_BLOCK_BYTES))
    }

    /// One basic block.
    pub(super) fn read(&self, block: u64) -> Result<Vec<u8>> {
        read_bytes(self.device, self.byte(block), BASIC_BLOCK)
    }

    /// `count` blocks from `block` on, over the end of the ring; at most all blocks.
    pub(super) fn read_run(&self, block: u64, count: u64) -> Result<Vec<u8>> {
        let count = count.min(self.blocks);
        let first = count.min(self.blocks.saturating_sub(self.wrap(block)));
        let mut bytes = read_bytes(self.device, self.byte(block), bytes_of(first))?;
        if first < count {
            bytes.extend(read_bytes(self.device, self.offset, bytes_of(count.saturating_sub(first)))?);
        }
        Ok(bytes)
    }

    /// The cycle that wrote `block`.
    pub(super) fn cycle(&self, block: u64) -> Result<u32> {
        Ok(cycle_of(&self.read(block)?))
    }

    pub(super) fn corrupt(
        &self,
        block: u64,
        field: &'static str,
        expected: &str,
        found: impl std::fmt::Display,
    ) -> Corrupt {
        Corrupt::new("log", self.byte(block), field, expected, found)
    }
}

fn bytes_of(blocks: u64) -> usize {
    usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(BASIC_BLOCK)
}

/// The cycle in a basic block: its first word, or the second of a record header.
pub(super) fn cycle_of(block: &[u8]) -> u32 {
    let word = |at: usize| {
        block
            .get(at..)
            .and_then(|rest| be::U32::read_from_prefix(rest).ok())
            .map_or(0, |(word, _)| word.get())
    };
    if word(0) == record::MAGIC { word(4) } else { word(0) }
}
