//! Bitmaps of blocks and inodes, with the counters that go with them.

use std::collections::BTreeMap;
use std::ops::Range;

use blockdev::Overlay;
use ondisk::{Corrupt, Error, Result};

use crate::checksum::Checksums;
use crate::disk::Disk;
use crate::group_descriptor::{BLOCK_UNINIT, GroupDescriptor, INODE_UNINIT, ITABLE_ZEROED};
use crate::inode;
use crate::recover::write;
use crate::units::{FsBlock, to_usize};
use crate::writer::allocator::{initial_bitmap, is_set, set};

/// The bitmaps of the groups that were touched.
#[derive(Debug)]
pub(super) struct Bitmaps<'a> {
    disk: &'a Disk,
    groups: BTreeMap<u32, Group>,
    /// Blocks that a later change will put into use, and that are not to be given away until then.
    reserved: Vec<Range<u64>>,
    /// The groups below this one have no free block.
    full: u32,
}

#[derive(Debug)]
struct Group {
    descriptor: GroupDescriptor,
    /// The first block, and how many there are.
    first: FsBlock,
    count: u64,
    blocks: Vec<u8>,
    inodes: Vec<u8>,
    is_changed: bool,
}

impl<'a> Bitmaps<'a> {
    pub(super) fn new(disk: &'a Disk, mut reserved: Vec<Range<u64>>) -> Self {
        reserved.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in reserved {
            match merged.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => merged.push(range),
            }
        }
        Self { disk, groups: BTreeMap::new(), reserved: merged, full: 0 }
    }

    fn group(&mut self, number: u32) -> Result<&mut Group> {
        if !self.groups.contains_key(&number) {
            let group = Group::read(self.disk, number)?;
            self.groups.insert(number, group);
        }
        self.groups
            .get_mut(&number)
            .ok_or_else(|| Corrupt::new("group descriptor", 0, "group", "one that was read", number).into())
    }

    /// Says that blocks are in use, or that they are not.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for blocks outside the groups, and for a damaged group.
    pub(super) fn mark(&mut self, first: FsBlock, length: u64, is_used: bool) -> Result<()> {
        let mut at = first;
        let end = first.after(length);
        if !is_used {
            self.full = 0;
        }
        while at < end {
            let number = self
                .disk
                .superblock
                .group_of(at)
                .ok_or_else(|| Corrupt::new("fast commit", 0, "blocks", "within a block group", at))?;
            let group = self.group(number)?;
            let within = at.0.saturating_sub(group.first.0);
            let count = group.count.saturating_sub(within).min(end.0.saturating_sub(at.0)).max(1);
            group.mark(within..within.saturating_add(count), is_used);
            at = at.after(count);
        }
        Ok(())
    }

    /// Takes the first free block from the group of `goal` on.
    ///
    /// # Errors
    /// `Unsupported` when there is none.
    pub(super) fn allocate(&mut self, goal: u32) -> Result<FsBlock> {
        let groups = self.disk.superblock.groups;
        let start = if goal < groups { goal.max(self.full) } else { self.full };
        for number in (start..groups).chain(0..start) {
            if self.disk.group(number)?.free_blocks() == 0 && !self.groups.contains_key(&number) {
                continue;
            }
            let reserved = std::mem::take(&mut self.reserved);
            let found = self.group(number).map(|group| group.first_free(&reserved));
            self.reserved = reserved;
            if let Some(block) = found? {
                self.mark(block, 1, true)?;
                return Ok(block);
            }
            if number == self.full {
                self.full = self.full.saturating_add(1);
            }
        }
        Err(Error::unsupported("fast commit", "a change that needs more blocks than are free"))
    }

    /// Says that an inode is in use, or that it is not.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a number that no inode has, and for a damaged group.
    pub(super) fn mark_inode(&mut self, overlay: &Overlay, number: u32, is_used: bool) -> Result<()> {
        let superblock = &self.disk.superblock;
        let (number_of_group, within) = inode::place(superblock, number).ok_or_else(|| {
            let expected = format!("1..={}", superblock.inodes);
            Corrupt::new(inode::STRUCTURE, 0, "number", expected, number)
        })?;
        let (per_group, size) = (superblock.inodes_per_group.get(), u64::from(superblock.inode_size));
        let has_unused = superblock.checksums != Checksums::None;
        let index = u32::try_from(within.checked_div(size).unwrap_or(0)).unwrap_or(u32::MAX);
        let disk = self.disk;
        let group = self.group(number_of_group)?;
        if is_set(&group.inodes, index.into()) == is_used {
            return Ok(());
        }
        set(&mut group.inodes, index.into(), is_used);
        group.is_changed = true;
        let free = group.descriptor.free_inodes();
        group.descriptor.set_free_inodes(if is_used {
            free.saturating_sub(1)
        } else {
            free.saturating_add(1)
        });
        if is_used && has_unused {
            let flags = group.descriptor.raw.bg_flags.get();
            let unused = if flags & INODE_UNINIT == 0 { group.descriptor.unused_inodes() } else { per_group };
            let first_unused = per_group.saturating_sub(unused);
            if flags & ITABLE_ZEROED == 0 {
                // What lies between was never written, and counts from now on.
                let table = disk.offset_of(group.descriptor.inode_table());
                for skipped in first_unused..index {
                    let at = table.saturating_add(u64::from(skipped).saturating_mul(size));
                    write(overlay, at, &vec![0; to_usize(size)])?;
                }
            }
            let left = per_group.saturating_sub(index).saturating_sub(1);
            group.descriptor.set_unused_inodes(unused.min(left));
            group.descriptor.raw.bg_flags.set(flags & !INODE_UNINIT);
        }
        Ok(())
    }

    /// Counts a directory that came or went.
    ///
    /// # Errors
    /// As [`mark_inode`](Self::mark_inode).
    pub(super) fn count_directory(&mut self, number: u32, is_new: bool) -> Result<()> {
        let group = inode::place(&self.disk.superblock, number).map_or(0, |(group, _)| group);
        let group = self.group(group)?;
        let count = group.descriptor.used_directories();
        group.descriptor.set_used_directories(if is_new {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        });
        group.is_changed = true;
        Ok(())
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// `Write`.
    pub(super) fn finish(mut self, overlay: &Overlay) -> Result<()> {
        let superblock = &self.disk.superblock;
        for group in self.groups.values_mut().filter(|group| group.is_changed) {
            group.descriptor.stamp_block_bitmap(superblock, &group.blocks);
            group.descriptor.stamp_inode_bitmap(superblock, &group.inodes);
            write(overlay, self.disk.offset_of(group.descriptor.block_bitmap()), &group.blocks)?;
            write(overlay, self.disk.offset_of(group.descriptor.inode_bitmap()), &group.inodes)?;
            write(overlay, group.descriptor.offset, &group.descriptor.encode(superblock.checksums))?;
        }
        Ok(())
    }
}

impl Group {
    fn read(disk: &Disk, number: u32) -> Result<Self> {
        let superblock = &disk.superblock;
        let mut descriptor = disk.group(number)?;
        disk.judge_group(&descriptor)?;
        let (first, count) = superblock.group_blocks(number);
        let flags = descriptor.raw.bg_flags.get();
        let has_flags = superblock.checksums != Checksums::None;
        let blocks = if has_flags && flags & BLOCK_UNINIT != 0 {
            descriptor.raw.bg_flags.set(flags & !BLOCK_UNINIT);
            initial_bitmap(disk, &descriptor, (first, count))
        } else {
            let blocks = disk.block(descriptor.block_bitmap())?;
            descriptor.verify_block_bitmap(superblock, &blocks)?;
            blocks
        };
        let inodes = if has_flags && flags & INODE_UNINIT != 0 {
            let mut inodes = vec![0xff; superblock.block_size.length()];
            for bit in 0..superblock.inodes_per_group.get() {
                set(&mut inodes, bit.into(), false);
            }
            inodes
        } else {
            disk.block(descriptor.inode_bitmap())?
        };
        Ok(Self { descriptor, first, count, blocks, inodes, is_changed: false })
    }

    fn mark(&mut self, bits: Range<u64>, is_used: bool) {
        let mut changed: u32 = 0;
        for bit in bits {
            if is_set(&self.blocks, bit) != is_used {
                set(&mut self.blocks, bit, is_used);
                changed = changed.saturating_add(1);
            }
        }
        let free = self.descriptor.free_blocks();
        let free = if is_used { free.saturating_sub(changed) } else { free.saturating_add(changed) };
        self.descriptor.set_free_blocks(free);
        self.is_changed |= changed > 0;
    }

    fn first_free(&self, reserved: &[Range<u64>]) -> Option<FsBlock> {
        let is_reserved = |block: u64| {
            let after = reserved.partition_point(|range| range.start <= block);
            let last = after.checked_sub(1).and_then(|last| reserved.get(last));
            last.is_some_and(|range| range.end > block)
        };
        let bit = (0..self.count)
            .find(|bit| !is_set(&self.blocks, *bit) && !is_reserved(self.first.after(*bit).0))?;
        Some(self.first.after(bit))
    }
}
