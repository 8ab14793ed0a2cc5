//! Cluster arithmetic: the only place where offsets are shifted and masked.

pub(crate) use crate::arithmetic::{length_of, overflow, to_index};

/// log2 of the cluster size in bytes: 9 to 21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterBits(u32);

#[expect(clippy::arithmetic_side_effects, reason = "the shift is 9 to 21, and no result exceeds its operand")]
impl ClusterBits {
    /// `None` outside 9..=21, the bounds of the specification and of QEMU.
    pub(crate) const fn new(bits: u32) -> Option<Self> {
        if 9 <= bits && bits <= 21 { Some(Self(bits)) } else { None }
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Bytes in a cluster.
    pub(crate) const fn size(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a cluster, as the length of a buffer.
    pub(crate) const fn buffer_size(self) -> usize {
        1 << self.0
    }

    /// The number of the cluster that holds byte `offset`.
    pub(crate) const fn number(self, offset: u64) -> u64 {
        offset >> self.0
    }

    /// The position of byte `offset` within its cluster.
    pub(crate) const fn within(self, offset: u64) -> u64 {
        offset & (self.size() - 1)
    }

    /// The first byte of the cluster that holds byte `offset`.
    pub(crate) const fn start(self, offset: u64) -> u64 {
        offset & !(self.size() - 1)
    }

    pub(crate) const fn is_aligned(self, offset: u64) -> bool {
        self.within(offset) == 0
    }

    /// How many clusters `length` bytes need.
    pub(crate) const fn count(self, length: u64) -> u64 {
        length.div_ceil(self.size())
    }

    /// The first byte of cluster `number`; `None` past 2^64.
    pub(crate) const fn offset(self, number: u64) -> Option<u64> {
        number.checked_mul(self.size())
    }
}
