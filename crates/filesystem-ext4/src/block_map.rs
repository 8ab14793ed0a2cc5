//! Block map: the map from file blocks to blocks of the file system, one pointer each, of ext2 and ext3.
//!
//! Linux `Documentation/filesystems/ext4/blockmap.rst`. `i_block` holds 15 little-endian 32-bit pointers: 12 to
//! data, then one each to a block of pointers to data, to such blocks, and to blocks of those. 0 is a hole.
//! Nothing here has a checksum.

use std::ops::Range;

use ondisk::{Corrupt, Result, le};
use zerocopy::{FromBytes, IntoBytes};

use crate::disk::Disk;
use crate::inode::Inode;
use crate::mapping::{Piece, Run};
use crate::units::{BlockSize, FsBlock, to_usize, widen};

/// Pointers in `i_block` that lead straight to data.
const DIRECT: u64 = 12;

/// Levels of indirection: `i_block` has one pointer for each.
const LEVELS: u32 = 3;

/// What lies where in a tree that a pointer leads into.
struct Subtree {
    /// 0: the pointer leads to data.
    level: u32,
    /// The first file block below.
    first: u64,
}

/// Walks the map of `inode` where it maps file blocks in `range`; see [`crate::mapping::walk`].
///
/// # Errors
/// As there.
pub fn walk(
    disk: &Disk,
    inode: &Inode,
    range: &Range<u64>,
    visit: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    // `i_block` lies 0x28 into the inode.
    let offset = inode.offset.saturating_add(0x28);
    let mut first = 0;
    for (index, pointer) in pointers(&inode.raw.i_block).enumerate() {
        let level = u32::try_from(widen(index).saturating_sub(DIRECT.saturating_sub(1))).unwrap_or(LEVELS);
        let subtree = Subtree { level, first };
        walk_pointer(disk, pointer, offset, &subtree, range, visit)?;
        first = first.saturating_add(span(disk.superblock.block_size, level));
    }
    Ok(())
}

fn walk_pointer(
    disk: &Disk,
    pointer: u32,
    holder: u64,
    subtree: &Subtree,
    range: &Range<u64>,
    visit: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let size = disk.superblock.block_size;
    let end = subtree.first.saturating_add(span(size, subtree.level));
    if pointer == 0 || subtree.first >= range.end || end <= range.start {
        return Ok(());
    }
    let block = FsBlock(pointer.into());
    if !disk.superblock.holds(block, 1) {
        let expected = format!("within {} blocks", disk.superblock.blocks);
        return Err(Corrupt::new("block map", holder, "pointer", expected, block).into());
    }
    let Some(level) = subtree.level.checked_sub(1) else {
        let run = Run { logical: subtree.first, length: 1, physical: block, is_written: true };
        return visit(Piece::Run(run));
    };
    visit(Piece::Node(block))?;
    let bytes = disk.metadata_block(block)?;
    let mut first = subtree.first;
    for pointer in pointers(&bytes) {
        // Each level is one less than that above, at most 3, so this ends.
        walk_pointer(disk, pointer, disk.offset_of(block), &Subtree { level, first }, range, visit)?;
        first = first.saturating_add(span(size, level));
    }
    Ok(())
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).filter_map(|bytes| le::U32::read_from_bytes(bytes).ok()).map(le::U32::get)
}

/// File blocks below a pointer of this level.
fn span(size: BlockSize, level: u32) -> u64 {
    per_block(size).saturating_pow(level)
}

fn per_block(size: BlockSize) -> u64 {
    size.bytes() >> 2
}

/// A whole map, ready to be stored.
#[derive(Debug, Clone)]
pub struct Map {
    /// For `i_block`.
    pub root: [u8; 60],
    /// The blocks of pointers.
    pub nodes: Vec<(FsBlock, Vec<u8>)>,
}

/// How many blocks of pointers a map of `blocks` data blocks without holes has; `None` when no map is so large.
pub fn nodes_needed(blocks: u64, size: BlockSize) -> Option<usize> {
    let mut left = blocks.saturating_sub(DIRECT);
    let mut nodes: u64 = 0;
    for level in 1..=LEVELS {
        let below = left.min(span(size, level));
        left = left.saturating_sub(below);
        // One node for each span of every lower level that is begun.
        for lower in 1..=level {
            nodes = nodes.saturating_add(below.div_ceil(span(size, lower)));
        }
    }
    if left == 0 { Some(to_usize(nodes)) } else { None }
}

/// Builds the map of a file without holes over `data`, with its blocks of pointers in `blocks`: as many as
/// [`nodes_needed`] says. `None` when that does not hold, or when a block number has more than 32 bits.
pub fn build(data: &[FsBlock], size: BlockSize, blocks: &[FsBlock]) -> Option<Map> {
    let mut free = blocks.iter();
    let mut nodes = Vec::new();
    let (direct, mut rest) = data.split_at(data.len().min(to_usize(DIRECT)));
    let mut root = direct.iter().map(|block| pointer(*block)).collect::<Option<Vec<_>>>()?;
    root.resize(to_usize(DIRECT), 0.into());
    for level in 1..=LEVELS {
        let (below, after) = rest.split_at(rest.len().min(to_usize(span(size, level))));
        root.push(build_subtree(below, level, size, &mut free, &mut nodes)?);
        rest = after;
    }
    let root = root.as_bytes().try_into().ok()?;
    (rest.is_empty() && free.next().is_none()).then_some(Map { root, nodes })
}

/// Stores pointers to `data` in blocks of this level; returns the pointer to the topmost.
fn build_subtree(
    data: &[FsBlock],
    level: u32,
    size: BlockSize,
    free: &mut std::slice::Iter<'_, FsBlock>,
    nodes: &mut Vec<(FsBlock, Vec<u8>)>,
) -> Option<le::U32> {
    let Some(lower) = level.checked_sub(1) else { return pointer(*data.first()?) };
    if data.is_empty() {
        return Some(0.into());
    }
    let block = *free.next()?;
    let mut pointers = Vec::new();
    for chunk in data.chunks(to_usize(span(size, lower)).max(1)) {
        pointers.push(build_subtree(chunk, lower, size, free, nodes)?);
    }
    pointers.resize(to_usize(per_block(size)), 0.into());
    nodes.push((block, pointers.as_bytes().to_vec()));
    pointer(block)
}

fn pointer(block: FsBlock) -> Option<le::U32> {
    u32::try_from(block.0).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_maps_use_as_many_blocks_as_foretold() {
        let size = BlockSize::from_log(0).unwrap();
        for blocks in [0, 1, 12, 13, 268, 269, 524, 525, 12 + 256 + 65536, 12 + 256 + 65536 + 1, 70_000] {
            let data: Vec<FsBlock> = (0..blocks).map(|number| FsBlock(1000 + number)).collect();
            let needed = nodes_needed(blocks, size).unwrap();
            let spare: Vec<FsBlock> = (0..needed as u64).map(|number| FsBlock(1_000_000 + number)).collect();
            let map = build(&data, size, &spare).unwrap();
            assert_eq!(map.nodes.len(), needed, "{blocks} blocks");
            assert!(needed == 0 || build(&data, size, &spare[1..]).is_none());
        }
        assert_eq!(nodes_needed(12 + 256 + 65536 + (1 << 24) + 1, size), None);
    }
}
