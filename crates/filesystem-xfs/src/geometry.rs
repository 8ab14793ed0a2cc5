//! Where blocks and inodes are: the arithmetic of allocation groups.
//!
//! XFS Algorithms & Data Structures, "Allocation Groups" and "Inode Numbers". The device is divided into
//! equal groups, the last one possibly shorter. Block and inode numbers carry the group in their high bits,
//! so the numbers of neighbouring groups are not contiguous.

use std::fmt;

use crate::number::wide;

/// A block number as stored: group number above `ag_block_log` bits, block within the group below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FsBlock(pub(crate) u64);

impl fmt::Display for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {:#x}", self.0)
    }
}

/// A block by its group: what the trees of an allocation group store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AgBlock {
    /// The allocation group, from 0.
    pub(crate) ag: u32,
    /// The block within the group.
    pub(crate) block: u32,
}

/// Sizes that the superblock has been checked for; all arithmetic here is exact because of these checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// log2 of the block size in bytes, 9..=16.
    pub(crate) block_log: u8,
    /// log2 of the sector size in bytes, 9..=15, at most `block_log`.
    pub(crate) sector_log: u8,
    /// log2 of the inode size in bytes, 8..=11, at most `block_log`.
    pub(crate) inode_log: u8,
    /// log2 of the blocks in a directory block; with `block_log` at most 16.
    pub(crate) dir_block_log: u8,
    /// Bits of a block number that count within the group, at most 31.
    pub(crate) ag_block_log: u8,
    /// Blocks in every group but the last.
    pub(crate) ag_blocks: u32,
    /// Groups, at least 1.
    pub(crate) ag_count: u32,
    /// Blocks of the data device: within the last group.
    pub(crate) blocks: u64,
}

impl Geometry {
    /// Bytes in a block.
    pub(crate) fn block_size(&self) -> usize {
        1_usize << self.block_log
    }

    /// Bytes in a sector, the unit of the headers of an allocation group.
    pub(crate) fn sector_size(&self) -> usize {
        1_usize << self.sector_log
    }

    /// Bytes in an inode.
    pub(crate) fn inode_size(&self) -> usize {
        1_usize << self.inode_log
    }

    /// Bytes in a directory block.
    pub(crate) fn dir_block_size(&self) -> usize {
        self.block_size() << self.dir_block_log
    }

    /// Length of the data device in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.blocks << self.block_log
    }

    /// Bytes of `blocks` blocks; meant for counts that were checked against the device.
    pub(crate) fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(wide(self.block_size()))
    }

    /// Blocks that `bytes` bytes need.
    pub(crate) fn blocks_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(wide(self.block_size()).max(1))
    }

    /// Blocks in group `ag`, `None` past the last group.
    pub(crate) fn ag_length(&self, ag: u32) -> Option<u32> {
        let last = self.ag_count.checked_sub(1)?;
        match ag.cmp(&last) {
            std::cmp::Ordering::Less => Some(self.ag_blocks),
            std::cmp::Ordering::Equal => {
                let before = u64::from(last).checked_mul(u64::from(self.ag_blocks))?;
                self.blocks.checked_sub(before)?.try_into().ok()
            }
            std::cmp::Ordering::Greater => None,
        }
    }

    /// First byte of group `ag`, `None` past the last group.
    pub(crate) fn ag_byte(&self, ag: u32) -> Option<u64> {
        self.byte_in_ag(AgBlock { ag, block: 0 })
    }

    /// First byte of a block of a group, `None` where the group has no such block.
    pub(crate) fn byte_in_ag(&self, at: AgBlock) -> Option<u64> {
        if at.block >= self.ag_length(at.ag)? {
            return None;
        }
        let before = u64::from(at.ag).checked_mul(u64::from(self.ag_blocks))?;
        before.checked_add(u64::from(at.block))?.checked_shl(u32::from(self.block_log))
    }

    /// Takes a block number apart; `None` when no group has such a block.
    pub(crate) fn split(&self, block: FsBlock) -> Option<AgBlock> {
        let ag = u32::try_from(block.0 >> self.ag_block_log).ok()?;
        let within = block.0 & (1_u64 << self.ag_block_log).wrapping_sub(1);
        let at = AgBlock { ag, block: u32::try_from(within).ok()? };
        (at.block < self.ag_length(ag)?).then_some(at)
    }

    /// The number of a block of a group.
    pub(crate) fn join(&self, at: AgBlock) -> FsBlock {
        FsBlock(u64::from(at.ag) << self.ag_block_log | u64::from(at.block))
    }

    /// First byte of a block, `None` when no group has such a block.
    pub(crate) fn byte(&self, block: FsBlock) -> Option<u64> {
        self.byte_in_ag(self.split(block)?)
    }

    /// Whether `count` blocks from `block` on lie within one group, as every extent does.
    pub(crate) fn holds(&self, block: FsBlock, count: u64) -> bool {
        let Some(at) = self.split(block) else { return false };
        let Some(length) = self.ag_length(at.ag) else { return false };
        u64::from(at.block).checked_add(count).is_some_and(|end| end <= u64::from(length))
    }

    /// log2 of the inodes in a block.
    pub(crate) fn inodes_per_block_log(&self) -> u8 {
        self.block_log.saturating_sub(self.inode_log)
    }

    /// The group that an inode number lies in, and its first byte; `None` when no group has such a place.
    pub(crate) fn inode_byte(&self, number: u64) -> Option<u64> {
        let within = self.inodes_per_block_log();
        let block = self.byte(FsBlock(number >> within))?;
        let slot = number & (1_u64 << within).wrapping_sub(1);
        block.checked_add(slot << self.inode_log)
    }

    /// The group that an inode lies in.
    pub(crate) fn inode_ag(&self, number: u64) -> Option<u32> {
        self.split(FsBlock(number >> self.inodes_per_block_log())).map(|at| at.ag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four groups of 100 blocks of 4 KiB, the last one of 70.
    const SMALL: Geometry = Geometry {
        block_log: 12,
        sector_log: 9,
        inode_log: 9,
        dir_block_log: 0,
        ag_block_log: 7,
        ag_blocks: 100,
        ag_count: 4,
        blocks: 370,
    };

    #[test]
    fn numbers_of_groups_are_not_contiguous() {
        assert_eq!(SMALL.byte(FsBlock(99)), Some(99 * 4096));
        assert_eq!(SMALL.byte(FsBlock(100)), None);
        assert_eq!(SMALL.byte(FsBlock(128)), Some(100 * 4096));
        assert_eq!(SMALL.byte(FsBlock(3 << 7 | 69)), Some(369 * 4096));
        assert_eq!(SMALL.byte(FsBlock(3 << 7 | 70)), None);
        assert_eq!(SMALL.byte(FsBlock(4 << 7)), None);
        assert_eq!(SMALL.byte(FsBlock(u64::MAX)), None);
        for number in [0, 99, 128, 3 << 7 | 69] {
            assert_eq!(SMALL.join(SMALL.split(FsBlock(number)).unwrap()), FsBlock(number));
        }
    }

    #[test]
    fn extents_stay_in_their_group() {
        assert!(SMALL.holds(FsBlock(0), 100));
        assert!(!SMALL.holds(FsBlock(0), 101));
        assert!(SMALL.holds(FsBlock(3 << 7), 70));
        assert!(!SMALL.holds(FsBlock(3 << 7), 71));
        assert!(!SMALL.holds(FsBlock(1), u64::MAX));
    }

    #[test]
    fn inodes_share_blocks() {
        assert_eq!(SMALL.inode_byte(128), Some(16 * 4096));
        assert_eq!(SMALL.inode_byte(131), Some(16 * 4096 + 3 * 512));
        assert_eq!(SMALL.inode_byte(1 << 10), Some(100 * 4096));
        assert_eq!(SMALL.inode_ag(1 << 10), Some(1));
        assert_eq!(SMALL.inode_byte(800), None);
        assert_eq!(SMALL.inode_byte(u64::MAX), None);
    }
}
