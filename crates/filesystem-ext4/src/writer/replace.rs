//! Replacing the whole content of a regular file.

use blockdev::Device;
use filesystem::{FileKind, Timestamp};
use ondisk::{Corrupt, Parsed, Result, read_value};
use zerocopy::IntoBytes;

use super::allocator::{Allocator, Blocks};
use super::changes::Changes;
use super::refusal::{judge_allocation, judge_file_system, judge_inode, refused};
use crate::bytes::copy_common;
use crate::disk::Disk;
use crate::features::{incompat, ro_compat};
use crate::inode::{self, Inode, flags};
use crate::mapping::{self, Piece, Run};
use crate::superblock::{PRIMARY, RawSuperblock};
use crate::units::{FsBlock, halves, to_usize, widen};
use crate::{block_map, extent_tree, xattr};

/// Longer content needs a feature flag (`large_file`) that may not be set.
const MAX_LENGTH: u64 = 1 << 31;

/// Replaces the content of inode `number`; see [`filesystem::FileSystemMut::replace`].
pub(crate) fn replace(device: &Device, number: u32, content: &[u8], now: Timestamp) -> Result<()> {
    // Read anew: counters may have changed since the file system was opened.
    let Parsed { value: disk, problems } = Disk::open(device.clone())?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let mut raw: RawSuperblock = read_value(&**device, PRIMARY)?;
    let journal = judge_file_system(&disk, &raw)?;
    let mut inode = disk.inode_of_kind(number, FileKind::Regular, "a regular file")?;
    judge_inode(&disk, &raw, &inode)?;
    if widen(content.len()) >= MAX_LENGTH {
        return Err(refused("content of 2 GiB or more"));
    }
    let mut allocator = Allocator::new(&disk, journal.as_ref())?;
    let mut changes = Changes::default();
    if !store_inline(&mut inode, content)? {
        store_mapped(&disk, &mut inode, content, &mut allocator, &mut changes)?;
    }
    inode.set_size(widen(content.len()));
    inode.touch(now);
    inode.raw.i_flags.set(inode.raw.i_flags.get() & !flags::EOFBLOCKS);
    changes.write(inode.offset, inode.encode());
    if !allocator.is_unchanged() {
        judge_allocation(&disk)?;
        let balance = allocator.finish(&mut changes);
        let free = raw.free_blocks_count();
        let counted = free.checked_add_signed(balance).filter(|free| *free <= disk.superblock.blocks);
        let counted = counted.ok_or_else(|| {
            let expected = format!("a count that can change by {balance}");
            Corrupt::new("superblock", PRIMARY, "s_free_blocks_count", expected, free)
        })?;
        raw.set_free_blocks_count(counted);
        raw.stamp();
        changes.write(PRIMARY, raw.as_bytes().to_vec());
    }
    changes.apply(device)
}

/// Keeps the content in the inode, if that is where it was and there is room; else makes a mapped file of it.
fn store_inline(inode: &mut Inode, content: &[u8]) -> Result<bool> {
    if !inode.has_flag(flags::INLINE_DATA) {
        return Ok(false);
    }
    let (first, rest) = content.split_at(content.len().min(inode.raw.i_block.len()));
    if !xattr::set_inline_data(inode, Some(rest))? {
        return Ok(false);
    }
    let mut block = [0; 60];
    copy_common(&mut block, first);
    inode.raw.i_block = block;
    Ok(true)
}

/// What a file occupies.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Layout {
    /// Its content, ascending.
    runs: Vec<Run>,
    /// The blocks of its map.
    nodes: Vec<FsBlock>,
}

impl Layout {
    fn read(disk: &Disk, inode: &Inode) -> Result<Self> {
        let mut layout = Self::default();
        mapping::walk(disk, inode, 0..u64::MAX, &mut |piece| {
            match piece {
                Piece::Run(run) => layout.runs.push(run),
                Piece::Node(block) => layout.nodes.push(block),
            }
            Ok(())
        })?;
        Ok(layout)
    }

    fn blocks(&self) -> Vec<Blocks> {
        let runs = self.runs.iter().map(|run| (run.physical, run.length));
        runs.chain(self.nodes.iter().map(|node| (*node, 1))).collect()
    }

    /// How many blocks that is.
    fn count(&self) -> u64 {
        self.blocks().iter().map(|(_, length)| length).sum()
    }
}

/// Stores the content in blocks: those that the file has, as far as it needs them, and new ones in its holes
/// and behind its end. What it does not need any more is freed.
fn store_mapped<'a>(
    disk: &Disk,
    inode: &mut Inode,
    content: &'a [u8],
    allocator: &mut Allocator<'_>,
    changes: &mut Changes<'a>,
) -> Result<()> {
    let size = disk.superblock.block_size;
    let needed = size.blocks_for(widen(content.len()));
    let was_inline = inode.has_flag(flags::INLINE_DATA);
    if was_inline {
        stop_inline(disk, inode)?;
    }
    let old = if was_inline { Layout::default() } else { Layout::read(disk, inode)? };
    allocator.judge_file_blocks(&old.blocks(), inode.offset)?;
    let is_extents = inode.has_flag(flags::EXTENTS);
    // Block maps count in 32 bits, extents in 48.
    let limit = if is_extents { 1 << 48 } else { 1 << 32 };

    let (kept, surplus) = split(&old.runs, needed);
    for blocks in surplus {
        allocator.free(blocks)?;
    }
    let mut new = Layout { runs: fill(disk, inode, &kept, needed, limit, allocator)?, nodes: Vec::new() };
    if new.runs != old.runs || was_inline {
        let wanted = if is_extents {
            extent_tree::nodes_needed(&new.runs, size)
        } else {
            block_map::nodes_needed(needed, size)
                .ok_or_else(|| refused("content longer than a block map reaches"))?
        };
        new.nodes = settle_nodes(disk, inode, &old.nodes, wanted, limit, allocator)?;
        // Where a bitmap calls blocks of this file free, it has them twice now.
        allocator.judge_file_blocks(&new.blocks(), inode.offset)?;
        store_map(disk, inode, &new, changes)?;
        count_blocks(disk, inode, &old, &new)?;
    }
    for run in &new.runs {
        write_run(disk, run, content, changes);
    }
    Ok(())
}

/// Makes an empty mapped file of one whose content was in the inode.
fn stop_inline(disk: &Disk, inode: &mut Inode) -> Result<()> {
    if !xattr::set_inline_data(inode, None)? {
        return Err(refused("extended attributes that do not fit where they are"));
    }
    let mut bits = inode.raw.i_flags.get() & !flags::INLINE_DATA;
    if disk.superblock.features.has_incompat(incompat::EXTENTS) {
        bits |= flags::EXTENTS;
    }
    inode.raw.i_flags.set(bits);
    Ok(())
}

/// Splits runs at file block `needed`: those before it, which will all be written, and the blocks after it.
fn split(runs: &[Run], needed: u64) -> (Vec<Run>, Vec<Blocks>) {
    let mut kept: Vec<Run> = Vec::new();
    let mut surplus = Vec::new();
    for run in runs {
        let length = needed.saturating_sub(run.logical).min(run.length);
        if length > 0 {
            push(&mut kept, Run { length, is_written: true, ..*run });
        }
        if length < run.length {
            surplus.push((run.physical.after(length), run.length.saturating_sub(length)));
        }
    }
    (kept, surplus)
}

/// The runs of a file of `needed` blocks without holes: those it has, and new ones between and behind them.
fn fill(
    disk: &Disk,
    inode: &Inode,
    kept: &[Run],
    needed: u64,
    limit: u64,
    allocator: &mut Allocator<'_>,
) -> Result<Vec<Run>> {
    let mut filled: Vec<Run> = Vec::new();
    let starts = kept.iter().map(|run| run.logical).chain([needed]);
    let ends = std::iter::once(0).chain(kept.iter().map(Run::end));
    for (index, (mut logical, start)) in ends.zip(starts).enumerate() {
        let missing = start.saturating_sub(logical);
        if missing > 0 {
            let goal = filled.last().map_or_else(|| home(disk, inode), |run| run.physical.after(run.length));
            for (physical, length) in allocator.allocate(missing, goal, limit)? {
                push(&mut filled, Run { logical, length, physical, is_written: true });
                logical = logical.saturating_add(length);
            }
        }
        if let Some(run) = kept.get(index) {
            push(&mut filled, *run);
        }
    }
    Ok(filled)
}

fn push(runs: &mut Vec<Run>, run: Run) {
    if !runs.last_mut().is_some_and(|last| last.join(&run)) {
        runs.push(run);
    }
}

/// Where a file without blocks gets its first ones: in the group of its inode.
fn home(disk: &Disk, inode: &Inode) -> FsBlock {
    let group = inode::place(&disk.superblock, inode.number).map_or(0, |(group, _)| group);
    disk.superblock.group_blocks(group).0
}

/// The blocks of a map that has `wanted` of them: those it has, new ones, and less what it does not need.
fn settle_nodes(
    disk: &Disk,
    inode: &Inode,
    old: &[FsBlock],
    wanted: usize,
    limit: u64,
    allocator: &mut Allocator<'_>,
) -> Result<Vec<FsBlock>> {
    let (kept, surplus) = old.split_at(old.len().min(wanted));
    for block in surplus {
        allocator.free((*block, 1))?;
    }
    let mut nodes = kept.to_vec();
    let missing = wanted.saturating_sub(nodes.len());
    if missing > 0 {
        for (first, length) in allocator.allocate(widen(missing), home(disk, inode), limit)? {
            nodes.extend((0..length).map(|index| first.after(index)));
        }
    }
    Ok(nodes)
}

/// Notes the map of a file, and puts its root in the inode.
fn store_map(disk: &Disk, inode: &mut Inode, layout: &Layout, changes: &mut Changes<'_>) -> Result<()> {
    let size = disk.superblock.block_size;
    let (root, nodes) = if inode.has_flag(flags::EXTENTS) {
        let tree = extent_tree::build(&layout.runs, size, inode.seed, &layout.nodes);
        tree.map(|tree| (tree.root, tree.nodes))
    } else {
        let each = |run: &Run| {
            (0..run.length).map({
                let first = run.physical;
                move |index| first.after(index)
            })
        };
        let data: Vec<FsBlock> = layout.runs.iter().flat_map(each).collect();
        block_map::build(&data, size, &layout.nodes).map(|map| (map.root, map.nodes))
    }
    .ok_or_else(|| refused("a block number that its map cannot hold"))?;
    inode.raw.i_block = root;
    for (block, bytes) in nodes {
        changes.write(disk.offset_of(block), bytes);
    }
    Ok(())
}

/// Corrects the inode's count of its blocks, which covers its attributes too.
fn count_blocks(disk: &Disk, inode: &mut Inode, old: &Layout, new: &Layout) -> Result<()> {
    let unit = inode.allocation_unit(&disk.superblock);
    let units = |blocks: u64| {
        blocks.saturating_mul(disk.superblock.block_size.bytes()).checked_div(unit).unwrap_or(0)
    };
    let before = inode.allocated_units(&disk.superblock);
    let others = before.checked_sub(units(old.count())).ok_or_else(|| {
        let expected = format!("at least {}", units(old.count()));
        Corrupt::new(inode::STRUCTURE, inode.offset, "i_blocks", expected, before)
    })?;
    let (low, high) = halves(others.saturating_add(units(new.count())));
    let high = u16::try_from(high)
        .ok()
        .filter(|high| *high == 0 || disk.superblock.features.has_ro_compat(ro_compat::HUGE_FILE))
        .ok_or_else(|| refused("more blocks than the inode can count"))?;
    inode.raw.i_blocks_lo.set(low);
    if disk.superblock.features.has_ro_compat(ro_compat::HUGE_FILE) {
        inode.raw.l_i_blocks_high.set(high);
    }
    Ok(())
}

/// Notes the content of a run; the rest of the last block becomes zeros.
fn write_run<'a>(disk: &Disk, run: &Run, content: &'a [u8], changes: &mut Changes<'a>) {
    let size = disk.superblock.block_size;
    let start = to_usize(run.logical.saturating_mul(size.bytes()));
    let end = content.len().min(to_usize(run.end().saturating_mul(size.bytes())));
    let part = content.get(start..end).unwrap_or_default();
    let (whole_blocks, left) = size.split(widen(part.len()));
    let (whole, tail) = part.split_at(part.len().saturating_sub(to_usize(left)));
    if !whole.is_empty() {
        changes.write(disk.offset_of(run.physical), whole);
    }
    if !tail.is_empty() {
        let mut last = tail.to_vec();
        last.resize(size.length(), 0);
        changes.write(disk.offset_of(run.physical.after(whole_blocks)), last);
    }
}
