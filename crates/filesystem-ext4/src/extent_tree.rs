//! Extent tree: the map from file blocks to blocks of the file system, in runs.
//!
//! Linux `Documentation/filesystems/ext4/ifork.rst`, "Extent Tree". Little-endian. The root fills the 60 bytes
//! of `i_block`; every other node is one block, which ends with a checksum where metadata is protected.

use std::ops::Range;

use ondisk::{Corrupt, Result, crc32c_raw, le};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::Disk;
use crate::inode::Inode;
use crate::mapping::{Piece, Run};
use crate::superblock::Superblock;
use crate::units::{BlockSize, FsBlock, halves, to_usize, widen};

/// `eh_magic`.
pub const MAGIC: u16 = 0xf30a;

/// File blocks are counted in 32 bits.
pub const MAX_FILE_BLOCKS: u64 = 1 << 32;

/// More levels than this map more than 2^32 blocks at any block size.
const MAX_DEPTH: u16 = 5;

/// Blocks of one extent; a longer length marks one that was reserved but not written, and is this much too
/// large.
const MAX_LENGTH: u16 = 32768;

/// Entries of the root.
const ROOT_ENTRIES: usize = 4;

const STRUCTURE: &str = "extent tree node";

/// The head of each node.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    pub eh_magic: le::U16,      // 0x0
    pub eh_entries: le::U16,    // 0x2
    pub eh_max: le::U16,        // 0x4 room for entries
    pub eh_depth: le::U16,      // 0x6 0: the entries are extents
    pub eh_generation: le::U32, // 0x8
}

/// An entry of a node above the leaves.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawIndex {
    pub ei_block: le::U32,   // 0x0 first file block below
    pub ei_leaf_lo: le::U32, // 0x4
    pub ei_leaf_hi: le::U16, // 0x8
    pub ei_unused: le::U16,  // 0xa
}

/// An entry of a leaf.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawExtent {
    pub ee_block: le::U32,    // 0x0
    pub ee_len: le::U16,      // 0x4 blocks
    pub ee_start_hi: le::U16, // 0x6
    pub ee_start_lo: le::U32, // 0x8
}

const ENTRY: usize = size_of::<RawExtent>();
const _: () = assert!(size_of::<RawHeader>() == ENTRY && size_of::<RawIndex>() == ENTRY && ENTRY == 12);

/// A node whose entries ascend within the bounds that its parent gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// First file block and place of each child.
    Index(Vec<(u64, FsBlock)>),
    /// The runs of a leaf.
    Leaf(Vec<Run>),
}

/// What a node must fit to.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The file blocks that it may map.
    pub range: Range<u64>,
    /// Its level; `None` for the root, which may have any.
    pub depth: Option<u16>,
}

impl Node {
    /// Judges the node in `bytes`, which begins at byte `offset` of the device; returns it with its depth.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(
        superblock: &Superblock,
        bytes: &[u8],
        offset: u64,
        bounds: &Bounds,
    ) -> Result<(Self, u16), Corrupt> {
        let corrupt =
            |field, expected: String, found: u64| Corrupt::new(STRUCTURE, offset, field, expected, found);
        let (header, _) = RawHeader::read_from_prefix(bytes)
            .map_err(|_| corrupt("length", format!("at least {ENTRY}"), widen(bytes.len())))?;
        if header.eh_magic != MAGIC {
            return Err(corrupt("eh_magic", MAGIC.to_string(), header.eh_magic.get().into()));
        }
        let (room, max) = (capacity(bytes.len()), usize::from(header.eh_max));
        if max > room {
            return Err(corrupt("eh_max", format!("up to {room}"), header.eh_max.get().into()));
        }
        if usize::from(header.eh_entries) > max {
            return Err(corrupt("eh_entries", format!("up to {max}"), header.eh_entries.get().into()));
        }
        let depth = header.eh_depth.get();
        if bounds.depth.map_or(depth > MAX_DEPTH, |expected| depth != expected) {
            let expected = bounds.depth.map_or(format!("up to {MAX_DEPTH}"), |depth| depth.to_string());
            return Err(corrupt("eh_depth", expected, depth.into()));
        }
        let entries =
            bytes.get(ENTRY..).unwrap_or_default().chunks_exact(ENTRY).take(header.eh_entries.get().into());
        if depth == 0 {
            Ok((Self::Leaf(decode_leaf(superblock, entries, offset, &bounds.range)?), depth))
        } else {
            Ok((Self::Index(decode_index(superblock, entries, offset, &bounds.range)?), depth))
        }
    }
}

fn decode_leaf<'a>(
    superblock: &Superblock,
    entries: impl Iterator<Item = &'a [u8]>,
    offset: u64,
    range: &Range<u64>,
) -> Result<Vec<Run>, Corrupt> {
    let mut runs = Vec::new();
    let mut next = range.start;
    for raw in entries.filter_map(|bytes| RawExtent::read_from_bytes(bytes).ok()) {
        let run = run_of(&raw);
        let Run { logical, length, .. } = run;
        if length == 0 {
            return Err(Corrupt::new(STRUCTURE, offset, "ee_len", "at least 1", 0));
        }
        if logical < next || run.end() > range.end {
            let expected = format!("{length} blocks within {next}..{}", range.end);
            return Err(Corrupt::new(STRUCTURE, offset, "ee_block", expected, logical));
        }
        if !superblock.holds(run.physical, length) {
            let expected = format!("{length} blocks within {}", superblock.blocks);
            return Err(Corrupt::new(STRUCTURE, offset, "ee_start", expected, run.physical));
        }
        next = run.end();
        runs.push(run);
    }
    Ok(runs)
}

/// Whether these bytes, those of an `i_block`, begin as a tree does.
pub(crate) fn is_root(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

/// The run that an extent stands for, whatever it says.
pub(crate) fn run_of(raw: &RawExtent) -> Run {
    let stored = raw.ee_len.get();
    let is_written = stored <= MAX_LENGTH;
    Run {
        logical: raw.ee_block.get().into(),
        length: if is_written { stored } else { stored.saturating_sub(MAX_LENGTH) }.into(),
        physical: FsBlock::from_halves(raw.ee_start_lo, raw.ee_start_hi.get().into()),
        is_written,
    }
}

fn decode_index<'a>(
    superblock: &Superblock,
    entries: impl Iterator<Item = &'a [u8]>,
    offset: u64,
    range: &Range<u64>,
) -> Result<Vec<(u64, FsBlock)>, Corrupt> {
    let mut children = Vec::new();
    let mut next = range.start;
    for raw in entries.filter_map(|bytes| RawIndex::read_from_bytes(bytes).ok()) {
        let logical = u64::from(raw.ei_block);
        let child = FsBlock::from_halves(raw.ei_leaf_lo, raw.ei_leaf_hi.get().into());
        if !(next..range.end).contains(&logical) {
            let expected = format!("within {next}..{}", range.end);
            return Err(Corrupt::new(STRUCTURE, offset, "ei_block", expected, logical));
        }
        if !superblock.holds(child, 1) {
            let expected = format!("within {} blocks", superblock.blocks);
            return Err(Corrupt::new(STRUCTURE, offset, "ei_leaf", expected, child));
        }
        next = logical.saturating_add(1);
        children.push((logical, child));
    }
    // Only the root of an empty file has no entries; anything else would let a small tree repeat for ever.
    if children.is_empty() {
        return Err(Corrupt::new(STRUCTURE, offset, "eh_entries", "at least 1 above the leaves", 0));
    }
    Ok(children)
}

/// How many entries fit behind the header.
fn capacity(length: usize) -> usize {
    length.saturating_sub(ENTRY).checked_div(ENTRY).unwrap_or(0)
}

/// Walks the tree of `inode` where it maps file blocks in `range`; see [`crate::mapping::walk`].
///
/// # Errors
/// As there.
pub fn walk(
    disk: &Disk,
    inode: &Inode,
    range: &Range<u64>,
    visit: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let bounds = Bounds { range: 0..MAX_FILE_BLOCKS, depth: None };
    // `i_block` lies 0x28 into the inode.
    let offset = inode.offset.saturating_add(0x28);
    let (root, depth) = Node::decode(&disk.superblock, &inode.raw.i_block, offset, &bounds)?;
    walk_node(disk, inode, &root, depth, &bounds.range, range, visit)
}

fn walk_node(
    disk: &Disk,
    inode: &Inode,
    node: &Node,
    depth: u16,
    own: &Range<u64>,
    range: &Range<u64>,
    visit: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let children = match node {
        Node::Leaf(runs) => {
            let mut inside = runs.iter().filter(|run| run.logical < range.end && run.end() > range.start);
            return inside.try_for_each(|run| visit(Piece::Run(*run)));
        }
        Node::Index(children) => children,
    };
    let ends = children.iter().skip(1).map(|(start, _)| *start).chain([own.end]);
    for ((start, block), end) in children.iter().zip(ends) {
        if *start >= range.end || end <= range.start {
            continue;
        }
        visit(Piece::Node(*block))?;
        let bytes = disk.metadata_block(*block)?;
        let offset = disk.offset_of(*block);
        // Depths fall from the root's, at most 5, so this ends.
        let bounds = Bounds { range: *start..end, depth: depth.checked_sub(1) };
        let (child, depth) = Node::decode(&disk.superblock, &bytes, offset, &bounds)?;
        verify_checksum(inode, &bytes, offset)?;
        walk_node(disk, inode, &child, depth, &bounds.range, range, visit)?;
    }
    Ok(())
}

/// The checksum follows the room for entries and covers everything before it.
fn checksum_place(bytes: &[u8]) -> Option<(&[u8], Range<usize>)> {
    let (header, _) = RawHeader::read_from_prefix(bytes).ok()?;
    let start = usize::from(header.eh_max.get()).checked_add(1)?.checked_mul(ENTRY)?;
    Some((bytes.get(..start)?, start..start.checked_add(4)?))
}

fn verify_checksum(inode: &Inode, bytes: &[u8], offset: u64) -> Result<(), Corrupt> {
    let Some(seed) = inode.seed else { return Ok(()) };
    let Some((covered, stored)) = checksum_place(bytes)
        .and_then(|(covered, place)| Some((covered, le::U32::read_from_bytes(bytes.get(place)?).ok()?)))
    else {
        return Err(Corrupt::new(STRUCTURE, offset, "eh_max", "room for a checksum", "none"));
    };
    let computed = crc32c_raw(seed, covered);
    if computed == stored.get() {
        return Ok(());
    }
    Err(Corrupt::checksum(STRUCTURE, offset, computed, stored.get()))
}

/// A whole tree, ready to be stored.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The root, for `i_block`.
    pub root: [u8; 60],
    /// The other nodes.
    pub nodes: Vec<(FsBlock, Vec<u8>)>,
}

/// How many nodes besides the root a tree over these runs has.
pub fn nodes_needed(runs: &[Run], block_size: BlockSize) -> usize {
    let per_node = capacity(block_size.length());
    let mut entries: usize = runs.iter().map(|run| to_usize(run.length.div_ceil(longest(run)))).sum();
    let mut nodes: usize = 0;
    while entries > ROOT_ENTRIES {
        entries = entries.div_ceil(per_node.max(2));
        nodes = nodes.saturating_add(entries);
    }
    nodes
}

/// Blocks that one extent of this run can have: the mark of an unwritten one takes one away.
fn longest(run: &Run) -> u64 {
    let longest = if run.is_written { MAX_LENGTH } else { MAX_LENGTH.saturating_sub(1) };
    longest.into()
}

/// Builds the tree over `runs`, which ascend, with its nodes in `blocks`: as many as
/// [`nodes_needed`] says. `None` when that does not hold, or when a run cannot be expressed.
pub fn build(runs: &[Run], block_size: BlockSize, seed: Option<u32>, blocks: &[FsBlock]) -> Option<Tree> {
    let mut entries: Vec<(u32, [u8; ENTRY])> = Vec::new();
    for run in runs {
        split_run(run, &mut entries)?;
    }
    let mut free = blocks.iter();
    let mut nodes = Vec::new();
    let mut depth = 0_u16;
    let per_node = capacity(block_size.length()).max(2);
    while entries.len() > ROOT_ENTRIES {
        let mut parents = Vec::new();
        for chunk in entries.chunks(per_node) {
            let block = free.next()?;
            let mut bytes = vec![0; block_size.length()];
            encode_node(&mut bytes, depth, per_node, chunk)?;
            stamp(&mut bytes, seed);
            let (low, high) = halves(block.0);
            let (first, _) = chunk.first()?;
            let index = RawIndex {
                ei_block: (*first).into(),
                ei_leaf_lo: low.into(),
                ei_leaf_hi: u16::try_from(high).ok()?.into(),
                ei_unused: 0.into(),
            };
            parents.push((*first, zerocopy::transmute!(index)));
            nodes.push((*block, bytes));
        }
        entries = parents;
        depth = depth.checked_add(1)?;
    }
    let mut root = [0; 60];
    encode_node(&mut root, depth, ROOT_ENTRIES, &entries)?;
    free.next().is_none().then_some(Tree { root, nodes })
}

/// A run as extents, each short enough.
fn split_run(run: &Run, entries: &mut Vec<(u32, [u8; ENTRY])>) -> Option<()> {
    let mut done = 0;
    while done < run.length {
        let length = run.length.saturating_sub(done).min(longest(run));
        let marked = if run.is_written { length } else { length.saturating_add(MAX_LENGTH.into()) };
        let (low, high) = halves(run.physical.after(done).0);
        let logical = u32::try_from(run.logical.checked_add(done)?).ok()?;
        let extent = RawExtent {
            ee_block: logical.into(),
            ee_len: u16::try_from(marked).ok()?.into(),
            ee_start_hi: u16::try_from(high).ok()?.into(),
            ee_start_lo: low.into(),
        };
        entries.push((logical, zerocopy::transmute!(extent)));
        done = done.saturating_add(length);
    }
    Some(())
}

fn encode_node(bytes: &mut [u8], depth: u16, max: usize, entries: &[(u32, [u8; ENTRY])]) -> Option<()> {
    let mut header = RawHeader::new_zeroed();
    header.eh_magic.set(MAGIC);
    header.eh_entries.set(u16::try_from(entries.len()).ok()?);
    header.eh_max.set(u16::try_from(max).ok()?);
    header.eh_depth.set(depth);
    header.write_to_prefix(bytes).ok()?;
    for (place, (_, entry)) in bytes.chunks_exact_mut(ENTRY).skip(1).zip(entries) {
        place.copy_from_slice(entry);
    }
    Some(())
}

fn stamp(bytes: &mut [u8], seed: Option<u32>) {
    let Some((covered, place)) = checksum_place(bytes) else { return };
    let Some(seed) = seed else { return };
    let computed = crc32c_raw(seed, covered);
    if let Some(field) = bytes.get_mut(place) {
        field.copy_from_slice(&computed.to_le_bytes());
    }
}
