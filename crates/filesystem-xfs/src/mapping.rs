//! From file blocks to device blocks: extent lists in the inode, and trees of them.
//!
//! XFS Algorithms & Data Structures, "Data Extents". A tree's root sits in the inode without a header; its
//! other blocks are ordinary long-pointer btree blocks. A walk goes down once, with the bounds that the keys
//! above give, so a loop on disk ends as damage: the level of a block must be one less than its parent's,
//! and its records must lie within its bounds.

use std::ops::Range;
use std::sync::Arc;

use ondisk::{Result, read_bytes};

use crate::Xfs;
use crate::extent::{Extent, FILE_BLOCKS, RECORD, decode_list};
use crate::geometry::FsBlock;
use crate::inode::{Fork, Format, Which};
use crate::span::{Checked, Span};
use crate::stamp::Stamp;

const STRUCTURE: &str = "extent btree block";
const MAGIC: [u8; 4] = *b"BMAP";
const MAGIC_CRC: [u8; 4] = *b"BMA3";
/// Higher than the tree of any file that fits 2^54 blocks.
const MAX_LEVEL: u16 = 20;

/// What holds a run of file blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing: reads as zeros.
    Hole,
    /// Blocks that were allocated but never written: reads as zeros.
    Unwritten(FsBlock),
    /// Blocks from this one on.
    Written(FsBlock),
}

/// A run of file blocks in one place, from the block that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Blocks, at least 1. The next run may continue this one.
    pub(crate) count: u64,
    pub(crate) place: Place,
}

/// All extents of `bounds`, and nothing is known outside.
#[derive(Debug)]
struct Leaf {
    bounds: Range<u64>,
    extents: Vec<Extent>,
}

impl Leaf {
    /// The run at file block `at`, which lies in `bounds`.
    fn run_at(&self, at: u64) -> Run {
        let next = self.extents.partition_point(|extent| extent.end() <= at);
        match self.extents.get(next) {
            Some(extent) if extent.start <= at => {
                let block = extent.block_at(at);
                let place = if extent.unwritten { Place::Unwritten(block) } else { Place::Written(block) };
                Run { count: extent.end().saturating_sub(at), place }
            }
            next => {
                let end = next.map_or(self.bounds.end, |extent| extent.start);
                Run { count: end.saturating_sub(at), place: Place::Hole }
            }
        }
    }
}

/// The leaf of an extent tree that was read last; sequential reads stay in it for thousands of blocks.
#[derive(Debug)]
pub(crate) struct CachedLeaf {
    inode: u64,
    which: Which,
    leaf: Arc<Leaf>,
}

/// The run of `fork` that starts at file block `at`, which is below 2^54.
pub(crate) fn run_at(xfs: &Xfs, fork: &Fork<'_>, at: u64) -> Result<Run> {
    match fork.format {
        Format::Extents => Ok(list(xfs, fork)?.run_at(at)),
        Format::Btree => Ok(leaf_for(xfs, fork, at)?.run_at(at)),
        Format::Local | Format::Device => {
            Err(fork.span.corrupt("di_format", "extents or btree", format_args!("{:?}", fork.format)).into())
        }
    }
}

/// The extents of a fork that keeps them in the inode.
pub(crate) fn inline_extents(xfs: &Xfs, fork: &Fork<'_>) -> Result<Vec<Extent>> {
    Ok(list(xfs, fork)?.extents)
}

fn list(xfs: &Xfs, fork: &Fork<'_>) -> Checked<Leaf> {
    let bounds = 0..FILE_BLOCKS;
    let extents = decode_list(&fork.span, 0, fork.extents, bounds.clone(), &xfs.superblock.geometry)?;
    Ok(Leaf { bounds, extents })
}

fn leaf_for(xfs: &Xfs, fork: &Fork<'_>, at: u64) -> Result<Arc<Leaf>> {
    let is_hit = |cached: &&CachedLeaf| {
        cached.inode == fork.inode && cached.which == fork.which && cached.leaf.bounds.contains(&at)
    };
    let hit = xfs.cached_leaf().as_ref().filter(is_hit).map(|cached| cached.leaf.clone());
    if let Some(leaf) = hit {
        return Ok(leaf);
    }
    let leaf = Arc::new(descend(xfs, fork, at)?);
    *xfs.cached_leaf() = Some(CachedLeaf { inode: fork.inode, which: fork.which, leaf: leaf.clone() });
    Ok(leaf)
}

/// Keys and pointers of one block above the leaves.
struct Node<'a> {
    span: Span<'a>,
    keys_at: usize,
    pointers_at: usize,
    count: usize,
}

/// Where a walk goes on.
enum Step {
    /// Into this block, which holds exactly `bounds`.
    Down { block: FsBlock, bounds: Range<u64> },
    /// Nowhere: no key covers the block, and none does in all of `bounds`.
    Nothing { bounds: Range<u64> },
}

impl Node<'_> {
    /// Finds the child that covers file block `at`; all keys are checked on the way.
    fn step(&self, at: u64, bounds: Range<u64>) -> Checked<Step> {
        let mut found: Option<(usize, u64)> = None;
        let mut least = bounds.start;
        let mut end = bounds.end;
        for slot in 0..self.count {
            let key = self.span.u64(entry(self.keys_at, slot), "bb_key")?;
            if key < least || key >= bounds.end {
                let expected = format!("an ascending block within {least}..{}", bounds.end);
                return Err(self.span.corrupt("bb_key", expected, key));
            }
            if key > at {
                end = end.min(key);
            } else {
                found = Some((slot, key));
            }
            least = key.saturating_add(1);
        }
        match found {
            None => Ok(Step::Nothing { bounds: bounds.start..end }),
            Some((slot, key)) => {
                let block = FsBlock(self.span.u64(entry(self.pointers_at, slot), "bb_ptr")?);
                Ok(Step::Down { block, bounds: key..end })
            }
        }
    }
}

/// Byte of the 8-byte entry `slot` of an array at byte `start`; far too far when there is no such byte.
fn entry(start: usize, slot: usize) -> usize {
    slot.saturating_mul(8).saturating_add(start)
}

/// Reads the leaf that covers file block `at`.
fn descend(xfs: &Xfs, fork: &Fork<'_>, at: u64) -> Result<Leaf> {
    let (root, mut level) = root(fork)?;
    let mut step = root.step(at, 0..FILE_BLOCKS)?;
    loop {
        let (block, bounds) = match step {
            Step::Nothing { bounds } => return Ok(Leaf { bounds, extents: Vec::new() }),
            Step::Down { block, bounds } => (block, bounds),
        };
        level = level.saturating_sub(1);
        let (offset, bytes) = read_block(xfs, fork, block)?;
        let span = Span::new(STRUCTURE, offset, &bytes);
        let (count, header) = check_header(xfs, fork, &span, level)?;
        if level == 0 {
            let geometry = &xfs.superblock.geometry;
            let extents = decode_list(&span, header, u64::from(count), bounds.clone(), geometry)?;
            return Ok(Leaf { bounds, extents });
        }
        let node = Node {
            span,
            keys_at: header,
            pointers_at: entry(header, capacity(&span, header)),
            count: usize::from(count),
        };
        step = node.step(at, bounds)?;
    }
}

/// Entries that fit a block after its header: leaf records and key-pointer pairs are 16 bytes alike.
fn capacity(span: &Span<'_>, header: usize) -> usize {
    span.bytes.len().saturating_sub(header) / RECORD
}

/// The root in the inode: level, count, then keys and pointers for as many entries as the fork has room for.
fn root<'a>(fork: &Fork<'a>) -> Checked<(Node<'a>, u16)> {
    let (level, count) = (fork.span.u16(0, "bb_level")?, fork.span.u16(2, "bb_numrecs")?);
    if level == 0 || level > MAX_LEVEL {
        return Err(fork.span.corrupt("bb_level", format_args!("1..={MAX_LEVEL}"), level));
    }
    let room = capacity(&fork.span, 4);
    let count = usize::from(count);
    if count == 0 || count > room {
        return Err(fork.span.corrupt("bb_numrecs", format_args!("1..={room}"), count));
    }
    Ok((Node { span: fork.span, keys_at: 4, pointers_at: entry(4, room), count }, level))
}

fn read_block(xfs: &Xfs, fork: &Fork<'_>, block: FsBlock) -> Result<(u64, Vec<u8>)> {
    let geometry = &xfs.superblock.geometry;
    let offset = geometry
        .byte(block)
        .ok_or_else(|| fork.span.corrupt("bb_ptr", "a block within the device", block))?;
    Ok((offset, read_bytes(&*xfs.device, offset, geometry.block_size())?))
}

/// Checks a block below the root; returns its record count and the length of its header.
fn check_header(xfs: &Xfs, fork: &Fork<'_>, span: &Span<'_>, level: u16) -> Checked<(u16, usize)> {
    let crc = xfs.superblock.features.crc;
    let (magic, header) = if crc { (MAGIC_CRC, 72) } else { (MAGIC, 24) };
    let found: [u8; 4] = span.value(0, "bb_magic")?;
    if found != magic {
        return Err(span.corrupt("bb_magic", magic.escape_ascii(), found.escape_ascii()));
    }
    if crc {
        Stamp::LONG_BTREE.check(span, xfs.superblock.meta_uuid, fork.inode)?;
    }
    let (found_level, count) = (span.u16(4, "bb_level")?, span.u16(6, "bb_numrecs")?);
    if found_level != level {
        return Err(span.corrupt("bb_level", level, found_level));
    }
    let room = capacity(span, header);
    if count == 0 || usize::from(count) > room {
        return Err(span.corrupt("bb_numrecs", format_args!("1..={room}"), count));
    }
    Ok((count, header))
}
