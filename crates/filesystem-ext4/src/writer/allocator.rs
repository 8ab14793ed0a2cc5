//! Which blocks are free, and the bitmaps and counters that say so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use ondisk::{Corrupt, Result};

use super::changes::Changes;
use super::refusal::refused;
use crate::checksum::Checksums;
use crate::disk::Disk;
use crate::group_descriptor::{self, BLOCK_UNINIT, GroupDescriptor, base_blocks};
use crate::journal::Journal;
use crate::units::{FsBlock, to_usize, widen};

/// Blocks side by side: the first, and how many.
pub(crate) type Blocks = (FsBlock, u64);

/// The block bitmaps as they will be. Changes stay here until [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct Allocator<'a> {
    disk: &'a Disk,
    /// The groups that have changed.
    changed: BTreeMap<u32, Group>,
    /// The blocks of superblocks, descriptors, bitmaps, inode tables and journal: ascending, not overlapping.
    metadata: Vec<Range<u64>>,
    /// Blocks that were freed, less those that were allocated.
    balance: i64,
}

#[derive(Debug, Clone)]
struct Group {
    descriptor: GroupDescriptor,
    bitmap: Vec<u8>,
    /// The first block, and how many there are.
    blocks: Blocks,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(disk: &'a Disk, journal: Option<&Journal<'_>>) -> Result<Self> {
        let mut ranges = metadata(disk)?;
        for run in journal.iter().flat_map(|journal| journal.runs()) {
            ranges.push(run.physical.0..run.physical.after(run.length).0);
        }
        let metadata = merged(ranges);
        Ok(Self { disk, changed: BTreeMap::new(), metadata, balance: 0 })
    }

    /// Whether nothing was allocated or freed.
    pub(super) fn is_unchanged(&self) -> bool {
        self.changed.is_empty()
    }

    /// Refuses blocks that cannot belong to a file, or that the file has twice.
    ///
    /// # Errors
    /// `Corrupt`; `offset` is where the file's inode lies.
    pub(super) fn judge_file_blocks(&self, blocks: &[Blocks], offset: u64) -> Result<(), Corrupt> {
        let mut sorted = blocks.to_vec();
        sorted.sort_unstable();
        let mut end = 0;
        for (first, length) in sorted {
            let corrupt = |expected: &str| Corrupt::new("block map", offset, "blocks", expected, first);
            if first.0 < end {
                return Err(corrupt("each block once"));
            }
            end = first.after(length).0;
            if self.is_metadata(first.0..end) {
                return Err(corrupt("no block of the file system's own"));
            }
        }
        Ok(())
    }

    fn is_metadata(&self, blocks: Range<u64>) -> bool {
        let after = self.metadata.partition_point(|range| range.start < blocks.end);
        let last = after.checked_sub(1).and_then(|last| self.metadata.get(last));
        last.is_some_and(|range| range.end > blocks.start)
    }

    /// Takes `count` blocks below block `limit`: behind `goal` if they are free there, else the first run of
    /// that length from there on, else as few runs as possible.
    ///
    /// # Errors
    /// `Unsupported` when there is not enough space; `Corrupt` when bitmaps call metadata free.
    pub(super) fn allocate(&mut self, count: u64, goal: FsBlock, limit: u64) -> Result<Vec<Blocks>> {
        let Some(chosen) = self.choose(count, goal, limit)? else {
            return Err(refused(format!("content that needs {count} more blocks than are free")));
        };
        for (first, length) in &chosen {
            let corrupt = |expected: &str| {
                let offset = self.disk.offset_of(*first);
                Corrupt::new("block bitmap", offset, "free blocks", expected, *first)
            };
            if self.is_metadata(first.0..first.after(*length).0) {
                return Err(corrupt("no block of the file system's own").into());
            }
        }
        for (first, length) in &chosen {
            self.mark(*first, *length, true)?;
        }
        Ok(chosen)
    }

    /// Gives blocks back.
    ///
    /// # Errors
    /// `Corrupt` when a bitmap calls them free already.
    pub(super) fn free(&mut self, (first, length): Blocks) -> Result<()> {
        self.mark(first, length, false)
    }

    fn choose(&self, count: u64, goal: FsBlock, limit: u64) -> Result<Option<Vec<Blocks>>> {
        let start = self.disk.superblock.group_of(goal).unwrap_or(0);
        if let Some(group) = self.usable(start, count)?
            && let Some(run) = group.free_runs(limit).find_map(|run| part_from(run, goal, count))
        {
            return Ok(Some(vec![run]));
        }
        for number in (start..self.disk.superblock.groups).chain(0..start) {
            if let Some(group) = self.usable(number, count)?
                && let Some((first, _)) = group.free_runs(limit).find(|(_, length)| *length >= count)
            {
                return Ok(Some(vec![(first, count)]));
            }
        }
        self.choose_largest(count, limit)
    }

    /// The fewest runs that are enough together, ascending; the last taken may be used in part.
    fn choose_largest(&self, count: u64, limit: u64) -> Result<Option<Vec<Blocks>>> {
        let mut largest: BinaryHeap<Reverse<(u64, FsBlock)>> = BinaryHeap::new();
        let mut total: u64 = 0;
        for number in 0..self.disk.superblock.groups {
            let Some(group) = self.usable(number, 1)? else { continue };
            for (first, length) in group.free_runs(limit) {
                largest.push(Reverse((length, first)));
                total = total.saturating_add(length);
                // What the larger ones make unnecessary goes at once, so the heap stays small.
                while let Some(Reverse((smallest, _))) = largest.peek()
                    && total.saturating_sub(*smallest) >= count
                {
                    total = total.saturating_sub(*smallest);
                    largest.pop();
                }
            }
        }
        if total < count {
            return Ok(None);
        }
        let mut surplus = total.saturating_sub(count);
        let mut chosen: Vec<Blocks> = Vec::new();
        for Reverse((length, first)) in largest.into_sorted_vec().into_iter().rev() {
            // The smallest is longer than the surplus, or it would be gone.
            chosen.push((first, length.saturating_sub(surplus)));
            surplus = 0;
        }
        chosen.sort_unstable();
        Ok(Some(chosen))
    }

    /// A group that has at least `count` free blocks and whose bitmap can be trusted.
    fn usable(&self, number: u32, count: u64) -> Result<Option<Group>> {
        let descriptor = match self.changed.get(&number) {
            Some(group) => group.descriptor.clone(),
            None => self.disk.group(number)?,
        };
        if u64::from(descriptor.free_blocks()) < count {
            return Ok(None);
        }
        match self.group(number) {
            Ok(group) => Ok(Some(group)),
            Err(ondisk::Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn group(&self, number: u32) -> Result<Group> {
        self.changed.get(&number).map_or_else(|| Group::read(self.disk, number), |group| Ok(group.clone()))
    }

    /// Sets or clears the bits of blocks, which must all be the other way, and counts.
    fn mark(&mut self, first: FsBlock, length: u64, is_used: bool) -> Result<()> {
        let mut at = first;
        let mut left = length;
        while left > 0 {
            let number = self
                .disk
                .superblock
                .group_of(at)
                .ok_or_else(|| Corrupt::new("block map", 0, "blocks", "within a block group", at))?;
            let mut group = self.group(number)?;
            let (start, size) = group.blocks;
            let within = at.0.saturating_sub(start.0);
            let count = size.saturating_sub(within).min(left).max(1);
            group.mark(self.disk, within..within.saturating_add(count), is_used)?;
            self.changed.insert(number, group);
            at = at.after(count);
            left = left.saturating_sub(count);
        }
        let count = i64::try_from(length).unwrap_or(i64::MAX);
        self.balance = self.balance.saturating_add(if is_used { count.saturating_neg() } else { count });
        Ok(())
    }

    /// Notes the new bitmaps and descriptors; returns how many more blocks are free than before.
    pub(super) fn finish(mut self, changes: &mut Changes<'_>) -> i64 {
        let superblock = &self.disk.superblock;
        for group in self.changed.values_mut() {
            group.descriptor.stamp_block_bitmap(superblock, &group.bitmap);
            changes.write(
                superblock.block_size.offset_of(group.descriptor.block_bitmap()),
                std::mem::take(&mut group.bitmap),
            );
            changes.write(group.descriptor.offset, group.descriptor.encode(superblock.checksums));
        }
        self.balance
    }
}

/// `count` blocks from `goal` on, if they all lie in this run.
fn part_from((first, length): Blocks, goal: FsBlock, count: u64) -> Option<Blocks> {
    let skipped = goal.0.checked_sub(first.0)?;
    (length.checked_sub(skipped)? >= count).then_some((goal, count))
}

/// The blocks of superblocks, descriptors, bitmaps and inode tables, in no order.
fn metadata(disk: &Disk) -> Result<Vec<Range<u64>>> {
    let superblock = &disk.superblock;
    let mut ranges = Vec::new();
    let mut add = |first: FsBlock, count: u64| ranges.push(first.0..first.after(count).0);
    for number in 0..superblock.groups {
        let descriptor = disk.group(number)?;
        add(superblock.group_blocks(number).0, base_blocks(superblock, number));
        add(descriptor.block_bitmap(), 1);
        add(descriptor.inode_bitmap(), 1);
        add(descriptor.inode_table(), disk.inode_table_blocks());
    }
    // The boot block, and a superblock that lies outside group 0.
    add(FsBlock(0), superblock.own_block().after(1).0);
    Ok(ranges)
}

/// The same blocks as ranges that ascend and do not touch.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl Group {
    /// Reads a group whose descriptor and bitmap agree.
    fn read(disk: &Disk, number: u32) -> Result<Self> {
        let superblock = &disk.superblock;
        let descriptor = disk.group(number)?;
        descriptor.verify_checksum(superblock.checksums)?;
        let blocks = superblock.group_blocks(number);
        let is_unwritten =
            superblock.checksums != Checksums::None && descriptor.raw.bg_flags.get() & BLOCK_UNINIT != 0;
        if !superblock.holds(descriptor.block_bitmap(), 1) {
            let expected = format!("within {} blocks", superblock.blocks);
            let (structure, offset) = (group_descriptor::STRUCTURE, descriptor.offset);
            let found = descriptor.block_bitmap();
            return Err(Corrupt::new(structure, offset, "bg_block_bitmap", expected, found).into());
        }
        let bitmap = if is_unwritten {
            initial_bitmap(disk, &descriptor, blocks)
        } else {
            let bitmap = disk.block(descriptor.block_bitmap())?;
            descriptor.verify_block_bitmap(superblock, &bitmap)?;
            bitmap
        };
        let group = Self { descriptor, bitmap, blocks };
        let free: u64 = group.free_runs(u64::MAX).map(|(_, length)| length).sum();
        if free != u64::from(group.descriptor.free_blocks()) {
            let (structure, offset) = (group_descriptor::STRUCTURE, group.descriptor.offset);
            let found = group.descriptor.free_blocks();
            return Err(Corrupt::new(structure, offset, "bg_free_blocks_count", free, found).into());
        }
        Ok(group)
    }

    /// The runs of free blocks below block `limit`, ascending.
    fn free_runs(&self, limit: u64) -> impl Iterator<Item = Blocks> {
        let (first, count) = self.blocks;
        let end = count.min(limit.saturating_sub(first.0));
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = next_bit(&self.bitmap, at, false).min(end);
            at = next_bit(&self.bitmap, start, true).min(end);
            (start < at).then(|| (first.after(start), at.saturating_sub(start)))
        })
    }

    fn mark(&mut self, disk: &Disk, bits: Range<u64>, is_used: bool) -> Result<(), Corrupt> {
        if let Some(bit) = bits.clone().find(|bit| is_set(&self.bitmap, *bit) == is_used) {
            let offset = disk.offset_of(self.descriptor.block_bitmap());
            let block = self.blocks.0.after(bit);
            let expected = if is_used { "free" } else { "in use" };
            return Err(Corrupt::new("block bitmap", offset, "a block of a file", expected, block));
        }
        for bit in bits.clone() {
            set(&mut self.bitmap, bit, is_used);
        }
        let count = u32::try_from(bits.end.saturating_sub(bits.start)).unwrap_or(u32::MAX);
        let free = self.descriptor.free_blocks();
        let free = if is_used { free.saturating_sub(count) } else { free.saturating_add(count) };
        self.descriptor.set_free_blocks(free);
        let flags = self.descriptor.raw.bg_flags.get();
        if disk.superblock.checksums != Checksums::None {
            self.descriptor.raw.bg_flags.set(flags & !BLOCK_UNINIT);
        }
        Ok(())
    }
}

/// The bitmap of a group in which no block was ever allocated: what the group needs itself is in use, and so
/// is what the bitmap has beyond the end of the group.
pub(crate) fn initial_bitmap(disk: &Disk, descriptor: &GroupDescriptor, (first, count): Blocks) -> Vec<u8> {
    let superblock = &disk.superblock;
    let mut bitmap = vec![0; superblock.block_size.length()];
    let own = [
        (first, base_blocks(superblock, descriptor.group)),
        (descriptor.block_bitmap(), 1),
        (descriptor.inode_bitmap(), 1),
        (descriptor.inode_table(), disk.inode_table_blocks()),
    ];
    for (start, length) in own {
        // With flex_bg they may lie in another group, whose bitmap was written then.
        for block in start.0..start.after(length).0 {
            if let Some(bit) = block.checked_sub(first.0).filter(|bit| *bit < count) {
                set(&mut bitmap, bit, true);
            }
        }
    }
    for bit in count..widen(bitmap.len()).saturating_mul(8) {
        set(&mut bitmap, bit, true);
    }
    bitmap
}

/// The first bit from `from` on that is set, or that is not; the end of the bitmap when there is none.
fn next_bit(bitmap: &[u8], from: u64, is_used: bool) -> u64 {
    let end = widen(bitmap.len()).saturating_mul(8);
    let skip = if is_used { 0 } else { 0xff };
    let mut at = from;
    while at < end {
        if at.is_multiple_of(8) && bitmap.get(to_usize(at / 8)) == Some(&skip) {
            at = at.saturating_add(8);
        } else if is_set(bitmap, at) == is_used {
            return at;
        } else {
            at = at.saturating_add(1);
        }
    }
    end
}

/// Whether a bit is set; bits that do not exist are.
pub(crate) fn is_set(bitmap: &[u8], bit: u64) -> bool {
    bitmap.get(to_usize(bit / 8)).is_none_or(|byte| byte & mask(bit) != 0)
}

pub(crate) fn set(bitmap: &mut [u8], bit: u64, is_used: bool) {
    if let Some(byte) = bitmap.get_mut(to_usize(bit / 8)) {
        *byte = if is_used { *byte | mask(bit) } else { *byte & !mask(bit) };
    }
}

fn mask(bit: u64) -> u8 {
    1_u8.wrapping_shl(u32::try_from(bit % 8).unwrap_or(0))
}
