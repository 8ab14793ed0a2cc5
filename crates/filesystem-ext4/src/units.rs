//! Numbers with a unit: blocks of the file system, their size, and lossless widening.

use std::fmt;
use std::num::NonZeroU64;

use ondisk::le;

/// A block of the file system, counted from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsBlock(pub u64);

impl FsBlock {
    /// From the two halves that on-disk structures keep apart.
    pub(crate) fn from_halves(low: le::U32, high: u32) -> Self {
        Self(join(low.get(), high))
    }

    /// The block `count` further on; saturates, which no device reaches.
    pub(crate) fn after(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// Bytes per block: a power of two, 1024..=65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize(NonZeroU64);

impl BlockSize {
    /// From the logarithm that the superblock stores: 0 is 1024 bytes, 6 the largest.
    pub fn from_log(log: u32) -> Option<Self> {
        let bytes = 1024_u64.checked_shl(log).filter(|_| log <= 6)?;
        NonZeroU64::new(bytes).map(Self)
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0.get()
    }

    /// In bytes, as a length in memory.
    pub fn length(self) -> usize {
        to_usize(self.0.get())
    }

    /// The first byte of `block`; saturates, which no device reaches.
    pub fn offset_of(self, block: FsBlock) -> u64 {
        block.0.saturating_mul(self.0.get())
    }

    /// How many blocks hold `bytes` bytes.
    pub fn blocks_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.0.get())
    }

    /// The block that byte `offset` lies in, and the position within it.
    pub fn split(self, offset: u64) -> (u64, u64) {
        (offset / self.0, offset % self.0)
    }
}

/// `high` in the upper 32 bits.
pub(crate) fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The lower and the upper 32 bits.
#[expect(clippy::as_conversions, reason = "each half is meant to be cut off")]
pub(crate) fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// The lower and the upper 16 bits.
#[expect(clippy::as_conversions, reason = "each half is meant to be cut off")]
pub(crate) fn halves16(value: u32) -> (u16, u16) {
    (value as u16, (value >> 16) as u16)
}

/// A length in memory as a length on a device.
pub(crate) fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A bounded length on a device as a length in memory; one that the host cannot address saturates, and no
/// slice has an element there.
pub(crate) fn to_usize(length: impl TryInto<usize>) -> usize {
    length.try_into().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes() {
        assert_eq!(BlockSize::from_log(0).unwrap().bytes(), 1024);
        assert_eq!(BlockSize::from_log(6).unwrap().length(), 65536);
        assert_eq!(BlockSize::from_log(7), None);
        assert_eq!(BlockSize::from_log(u32::MAX), None);
        let four = BlockSize::from_log(2).unwrap();
        assert_eq!((four.blocks_for(0), four.blocks_for(1), four.blocks_for(4097)), (0, 1, 2));
        assert_eq!(four.split(4097), (1, 1));
        assert_eq!(four.offset_of(FsBlock(u64::MAX)), u64::MAX);
    }
}
