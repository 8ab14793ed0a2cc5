//! The trees of an allocation group, changed without moving a block.
//!
//! XFS Algorithms & Data Structures, "Short Format B+trees". A change that would split or merge blocks is
//! refused: it would have to allocate or free blocks of the very group that is being changed.

use ondisk::{Error, Result};

use super::allocation_group::Root;
use super::staging::Staging;
use crate::geometry::AgBlock;
use crate::span::{Checked, Span, put, put_crc};
use crate::stamp::Stamp;

/// Length of the longest key: that of the reverse map.
const LONGEST_KEY: usize = 20;
/// The bit of a reverse map offset that says "unwritten"; keys leave it out.
const UNWRITTEN: u64 = 1 << 61;
/// The bit of a reverse map offset that says "block of an extent tree".
const TREE_BLOCK: u64 = 1 << 62;
/// The bits of a reverse map offset that count.
const OFFSET: u64 = (1 << 54) - 1;

/// One of the four kinds of tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free extents (start, count) by start.
    FreeByBlock,
    /// Free extents (start, count) by count, then start.
    FreeBySize,
    /// Owners of extents (start, count, owner, offset) by start, owner, offset. Its nodes also know the
    /// highest key below each pointer.
    ReverseMap,
    /// Shared extents (start, count, references) by start.
    ReferenceCounts,
}

/// A key in an order that compares as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; LONGEST_KEY]);

impl Key {
    /// Not before any other.
    pub(super) const LAST: Self = Self([0xff; LONGEST_KEY]);
}

impl Kind {
    fn structure(self) -> &'static str {
        match self {
            Self::FreeByBlock => "free space btree block (by block)",
            Self::FreeBySize => "free space btree block (by size)",
            Self::ReverseMap => "reverse map btree block",
            Self::ReferenceCounts => "reference count btree block",
        }
    }

    fn magic(self, crc: bool) -> [u8; 4] {
        *match (self, crc) {
            (Self::FreeByBlock, false) => b"ABTB",
            (Self::FreeByBlock, true) => b"AB3B",
            (Self::FreeBySize, false) => b"ABTC",
            (Self::FreeBySize, true) => b"AB3C",
            (Self::ReverseMap, _) => b"RMB3",
            (Self::ReferenceCounts, _) => b"R3FC",
        }
    }

    /// Bytes in a record.
    fn record(self) -> usize {
        match self {
            Self::FreeByBlock | Self::FreeBySize => 8,
            Self::ReverseMap => 24,
            Self::ReferenceCounts => 12,
        }
    }

    /// Bytes of one key in a node.
    fn key(self) -> usize {
        match self {
            Self::FreeByBlock | Self::FreeBySize => 8,
            Self::ReverseMap => LONGEST_KEY,
            Self::ReferenceCounts => 4,
        }
    }

    /// Bytes of all keys of one pointer in a node.
    fn keys(self) -> usize {
        if self == Self::ReverseMap { LONGEST_KEY * 2 } else { self.key() }
    }

    /// The order of a key as nodes store it.
    fn order(self, key: &[u8]) -> Key {
        let mut order = Key([0; LONGEST_KEY]);
        let (start, rest) = key.split_at_checked(4).unwrap_or_default();
        let (first, second) = match self {
            Self::FreeByBlock => (start, &[][..]),
            Self::FreeBySize => (rest, start),
            Self::ReverseMap | Self::ReferenceCounts => (start, rest),
        };
        for (to, from) in order.0.iter_mut().zip(first.iter().chain(second)) {
            *to = *from;
        }
        // Some kernels left the "unwritten" bit in keys; it never decided the order.
        if self == Self::ReverseMap {
            let [.., offset, _, _, _, _, _, _, _] = &mut order.0;
            *offset &= !UNWRITTEN.to_be_bytes()[0];
        }
        order
    }

    /// The key of a record as nodes store it.
    fn low_key(self, record: &[u8]) -> Vec<u8> {
        match self {
            Self::FreeByBlock | Self::FreeBySize => record.to_vec(),
            Self::ReferenceCounts => record.iter().copied().take(4).collect(),
            Self::ReverseMap => Owned::decode(record).low_key(),
        }
    }

    /// The highest key that a record covers, where nodes store such.
    fn high_key(self, record: &[u8]) -> Vec<u8> {
        match self {
            Self::ReverseMap => Owned::decode(record).high_key(),
            _ => Vec::new(),
        }
    }

    /// The order of a record.
    pub(super) fn order_of(self, record: &[u8]) -> Key {
        self.order(&self.low_key(record))
    }
}

/// A record of the reverse map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) start: u32,
    pub(super) count: u32,
    /// An inode number, or a code for metadata.
    pub(super) owner: u64,
    /// File block, with flags in the high bits.
    pub(super) offset: u64,
}

impl Owned {
    pub(super) fn decode(record: &[u8]) -> Self {
        let span = Span::new("reverse map record", 0, record);
        Self {
            start: span.u32(0, "rm_startblock").unwrap_or_default(),
            count: span.u32(4, "rm_blockcount").unwrap_or_default(),
            owner: span.u64(8, "rm_owner").unwrap_or_default(),
            offset: span.u64(16, "rm_offset").unwrap_or_default(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (start, count) = (self.start.to_be_bytes(), self.count.to_be_bytes());
        [&start[..], &count, &self.owner.to_be_bytes(), &self.offset.to_be_bytes()].concat()
    }

    fn key(start: u32, owner: u64, offset: u64) -> Vec<u8> {
        let offset = offset & !UNWRITTEN;
        [&start.to_be_bytes()[..], &owner.to_be_bytes(), &offset.to_be_bytes()].concat()
    }

    fn low_key(&self) -> Vec<u8> {
        Self::key(self.start, self.owner, self.offset)
    }

    /// The key of the last block: offsets count only in files, and not for the blocks of their trees.
    fn high_key(&self) -> Vec<u8> {
        let last = self.count.saturating_sub(1);
        let start = self.start.saturating_add(last);
        let is_file = self.owner >> 63 == 0 && self.offset & TREE_BLOCK == 0;
        let within = (self.offset & OFFSET).saturating_add(if is_file { u64::from(last) } else { 0 });
        Self::key(start, self.owner, self.offset & !OFFSET | within & OFFSET)
    }
}

/// One block of a tree, with its checks passed.
struct Block {
    offset: u64,
    bytes: Vec<u8>,
    kind: Kind,
    is_leaf: bool,
    header: usize,
    count: usize,
}

impl Block {
    fn span(&self) -> Span<'_> {
        Span::new(self.kind.structure(), self.offset, &self.bytes)
    }

    /// Records or pointers that fit.
    fn capacity(&self) -> usize {
        let entry = if self.is_leaf { self.kind.record() } else { self.kind.keys().saturating_add(4) };
        self.bytes.len().saturating_sub(self.header).checked_div(entry).unwrap_or_default()
    }

    /// Bytes of one record, or of the keys of one pointer.
    fn stride(&self) -> usize {
        if self.is_leaf { self.kind.record() } else { self.kind.keys() }
    }

    /// Record `slot` of a leaf, keys `slot` of a node.
    fn entry(&self, slot: usize) -> Checked<&[u8]> {
        let at = slot.saturating_mul(self.stride()).saturating_add(self.header);
        self.span().slice(at, self.stride(), "bb_numrecs")
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let start = self.header.min(self.bytes.len());
        let (_, body) = self.bytes.split_at(start);
        body.chunks_exact(self.stride()).take(self.count)
    }

    /// Byte of pointer `slot` of a node.
    fn pointer_at(&self, slot: usize) -> usize {
        let keys = self.capacity().saturating_mul(self.kind.keys());
        slot.saturating_mul(4).saturating_add(keys).saturating_add(self.header)
    }

    fn order(&self, entry: &[u8]) -> Key {
        if self.is_leaf { self.kind.order_of(entry) } else { self.kind.order(self.low_part(entry)) }
    }

    fn low_part<'e>(&self, keys: &'e [u8]) -> &'e [u8] {
        keys.get(..self.kind.key()).unwrap_or(keys)
    }

    /// What the parent of this block stores for it.
    fn keys_for_parent(&self) -> Vec<u8> {
        let low = |entry: &[u8]| match self.is_leaf {
            true => self.kind.low_key(entry),
            false => self.low_part(entry).to_vec(),
        };
        let high = |entry: &[u8]| match self.is_leaf {
            true => self.kind.high_key(entry),
            false => entry.get(self.kind.key()..).unwrap_or_default().to_vec(),
        };
        let mut keys = self.entries().next().map(low).unwrap_or_default();
        if self.kind == Kind::ReverseMap {
            keys.extend(self.entries().map(high).max_by_key(|key| self.kind.order(key)).unwrap_or_default());
        }
        keys
    }

    /// Entries must ascend, or every search in them is wrong.
    fn check_order(&self) -> Checked<()> {
        // Extents that start together differ in owner or offset, so no two keys are the same.
        let orders: Vec<Key> = self.entries().map(|entry| self.order(entry)).collect();
        match orders.is_sorted_by(|a, b| a < b) {
            true => Ok(()),
            false => Err(self.span().corrupt("bb_numrecs", "ascending entries", "entries out of order")),
        }
    }

    /// Replaces the records of a leaf.
    fn set_records(&mut self, records: &[Vec<u8>]) {
        self.count = records.len();
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        put(&mut self.bytes, 6, &count.to_be_bytes());
        put(&mut self.bytes, self.header, &records.concat());
    }

    fn stage(mut self, staging: &mut Staging<'_>) {
        if staging.xfs.superblock.features.crc {
            put_crc(&mut self.bytes, Stamp::SHORT_BTREE.crc_at());
        }
        staging.write(self.offset, self.bytes);
    }
}

/// A tree of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    pub(super) kind: Kind,
    pub(super) ag: u32,
    pub(super) root: Root,
}

/// The way from the root to a leaf.
struct Path {
    /// Nodes, and the entry that was taken in each.
    nodes: Vec<(Block, usize)>,
    leaf: Block,
}

/// The records of one leaf, and where the next leaf begins.
pub(super) struct Records {
    pub(super) records: Vec<Vec<u8>>,
    /// The key of the next leaf, `None` in the last one.
    pub(super) next: Option<Key>,
}

impl Tree {
    /// The records of the leaf that covers `key`.
    pub(super) fn records(&self, staging: &Staging<'_>, key: Key) -> Result<Records> {
        let path = self.path(staging, key)?;
        let records = path.leaf.entries().map(<[u8]>::to_vec).collect();
        Ok(Records { records, next: path.next()? })
    }

    /// Adds a record.
    pub(super) fn insert(&self, staging: &mut Staging<'_>, record: &[u8]) -> Result<()> {
        let path = self.path(staging, self.kind.order_of(record))?;
        if path.leaf.count >= path.leaf.capacity() {
            return Err(self.refuse("splitting a full block"));
        }
        self.change(staging, path, None, Some(record))
    }

    /// Takes a record away.
    pub(super) fn remove(&self, staging: &mut Staging<'_>, record: &[u8]) -> Result<()> {
        let path = self.path(staging, self.kind.order_of(record))?;
        if !path.nodes.is_empty() && path.leaf.count <= path.leaf.capacity() / 2 {
            return Err(self.refuse("merging a half-empty block"));
        }
        self.change(staging, path, Some(record), None)
    }

    /// Puts `new` for `old`; in their order, `new` does not come after `old`.
    pub(super) fn replace(&self, staging: &mut Staging<'_>, old: &[u8], new: &[u8]) -> Result<()> {
        let path = self.path(staging, self.kind.order_of(old))?;
        let first = path.leaf.entries().next().map(|record| self.kind.order_of(record));
        let is_leftmost = path.nodes.iter().all(|(_, slot)| *slot == 0);
        if is_leftmost || first.is_some_and(|first| first <= self.kind.order_of(new)) {
            return self.change(staging, path, Some(old), Some(new));
        }
        self.remove(staging, old)?;
        self.insert(staging, new)
    }

    fn refuse(&self, what: &str) -> Error {
        Error::unsupported(self.kind.structure(), what)
    }

    /// Changes the records of the leaf at the end of `path`, and the keys above it.
    fn change(
        &self,
        staging: &mut Staging<'_>,
        path: Path,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<()> {
        let mut leaf = path.leaf;
        let mut records: Vec<Vec<u8>> = leaf.entries().map(<[u8]>::to_vec).collect();
        if let Some(old) = old {
            let slot = records.iter().position(|record| record == old).ok_or_else(|| {
                leaf.span().corrupt("bb_numrecs", format_args!("a record {old:02x?}"), "none")
            })?;
            records.remove(slot);
        }
        if let Some(new) = new {
            let order = self.kind.order_of(new);
            let slot = records.partition_point(|record| self.kind.order_of(record) < order);
            if records.get(slot).is_some_and(|record| self.kind.order_of(record) == order) {
                let expected = format!("no record {new:02x?}");
                return Err(leaf.span().corrupt("bb_numrecs", expected, "one").into());
            }
            records.insert(slot, new.to_vec());
        }
        leaf.set_records(&records);
        let mut keys = leaf.keys_for_parent();
        leaf.stage(staging);
        for (mut node, slot) in path.nodes.into_iter().rev() {
            if node.entry(slot)? == keys {
                break;
            }
            let at = slot.saturating_mul(node.stride()).saturating_add(node.header);
            put(&mut node.bytes, at, &keys);
            keys = node.keys_for_parent();
            node.stage(staging);
        }
        Ok(())
    }

    /// Goes down to the leaf that covers `key`: in every node, the last entry that is not after it.
    fn path(&self, staging: &Staging<'_>, key: Key) -> Result<Path> {
        let mut nodes: Vec<(Block, usize)> = Vec::new();
        let mut at = self.root.block;
        let mut level = self.root.levels.saturating_sub(1);
        loop {
            let block = self.block(staging, at, level)?;
            if let Some((parent, slot)) = nodes.last() {
                check_keys(parent, *slot, &block)?;
            }
            if level == 0 {
                return Ok(Path { nodes, leaf: block });
            }
            let after = block.entries().take_while(|entry| block.order(entry) <= key).count();
            let slot = after.saturating_sub(1);
            at = block.span().u32(block.pointer_at(slot), "bb_ptr")?;
            level = level.saturating_sub(1);
            nodes.push((block, slot));
        }
    }

    fn block(&self, staging: &Staging<'_>, at: u32, level: u32) -> Result<Block> {
        let superblock = &staging.xfs.superblock;
        let geometry = &superblock.geometry;
        let place = AgBlock { ag: self.ag, block: at };
        let offset = geometry.byte_in_ag(place).ok_or_else(|| {
            let expected = "a block of the group";
            ondisk::Corrupt::new(self.kind.structure(), 0, "bb_ptr", expected, at)
        })?;
        let bytes = staging.read(offset, geometry.block_size())?;
        let crc = superblock.features.crc;
        let header = if crc { 56 } else { 16 };
        let block = Block { offset, bytes, kind: self.kind, is_leaf: level == 0, header, count: 0 };
        let count = self.check_header(&block, level, crc)?;
        if crc {
            Stamp::SHORT_BTREE.check(&block.span(), superblock.meta_uuid, u64::from(self.ag))?;
        }
        let block = Block { count, ..block };
        block.check_order()?;
        Ok(block)
    }

    /// Checks magic number and level; returns the checked count of entries.
    fn check_header(&self, block: &Block, level: u32, crc: bool) -> Checked<usize> {
        let span = block.span();
        let (magic, found) = (self.kind.magic(crc), span.value::<[u8; 4]>(0, "bb_magic")?);
        if found != magic {
            return Err(span.corrupt("bb_magic", magic.escape_ascii(), found.escape_ascii()));
        }
        let found = u32::from(span.u16(4, "bb_level")?);
        if found != level {
            return Err(span.corrupt("bb_level", level, found));
        }
        let count = usize::from(span.u16(6, "bb_numrecs")?);
        // Only a root that is a leaf may be empty.
        let least = usize::from(self.root.levels > 1);
        if count < least || count > block.capacity() {
            return Err(span.corrupt("bb_numrecs", format_args!("{least}..={}", block.capacity()), count));
        }
        Ok(count)
    }
}

/// A parent must say of a child what the child says of itself, or a changed child would get wrong keys.
fn check_keys(parent: &Block, slot: usize, child: &Block) -> Checked<()> {
    let stored = parent.entry(slot)?;
    let first = child.entry(0)?;
    if parent.order(stored) == child.order(first) {
        return Ok(());
    }
    let (expected, found) = (format!("{:02x?}", parent.low_part(stored)), format!("{first:02x?}"));
    Err(child.span().corrupt("first entry", expected, found))
}

impl Path {
    /// The key where the next leaf begins.
    fn next(&self) -> Checked<Option<Key>> {
        for (node, slot) in self.nodes.iter().rev() {
            let after = slot.saturating_add(1);
            if after < node.count {
                return Ok(Some(node.order(node.entry(after)?)));
            }
        }
        Ok(None)
    }
}
