//! The trees of an allocation group.
//!
//! XFS Algorithms & Data Structures, "Short Format B+trees". A full block is split, with a block of the group's
//! free list. A change that would merge blocks is refused: there is always another extent to take blocks from.

use ondisk::{Error, Result};

use super::allocation_group::{Agf, Root};
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

    /// Whether the kernel would have stored `next` and this as one record.
    pub(super) fn is_continued_by(&self, next: &Self) -> bool {
        self.owner == next.owner
            && self.start.checked_add(self.count) == Some(next.start)
            && self.offset.checked_add(u64::from(self.count)) == Some(next.offset)
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

/// No block: what siblings point to at both ends of a level.
const NO_BLOCK: u32 = u32::MAX;
/// Bytes of `bb_leftsib` and `bb_rightsib`.
const LEFT_AT: usize = 8;
const RIGHT_AT: usize = 12;

/// One block of a tree, with its checks passed.
#[derive(Clone)]
struct Block {
    /// Within the group.
    number: u32,
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

    /// All entries, ready to be changed.
    fn to_items(&self) -> Checked<Vec<Item>> {
        let item = |(slot, entry): (usize, &[u8])| {
            let child = match self.is_leaf {
                true => None,
                false => Some(self.span().u32(self.pointer_at(slot), "bb_ptr")?),
            };
            Ok(Item { bytes: entry.to_vec(), child })
        };
        self.entries().enumerate().map(item).collect()
    }

    /// Replaces all entries; there is room for them.
    fn set_items(&mut self, items: &[Item]) {
        self.count = items.len();
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        put(&mut self.bytes, 6, &count.to_be_bytes());
        for (slot, item) in items.iter().enumerate() {
            let at = slot.saturating_mul(self.stride()).saturating_add(self.header);
            put(&mut self.bytes, at, &item.bytes);
            if let Some(child) = item.child {
                let at = self.pointer_at(slot);
                put(&mut self.bytes, at, &child.to_be_bytes());
            }
        }
    }

    /// The entry of this block in its parent.
    fn to_item(&self) -> Item {
        Item { bytes: self.keys_for_parent(), child: Some(self.number) }
    }

    /// Makes this a block of its own at another place: number, address, neighbours and level.
    fn move_to(&mut self, number: u32, offset: u64, neighbours: (u32, u32), level: u32, crc: bool) {
        (self.number, self.offset) = (number, offset);
        put(&mut self.bytes, 4, &u16::try_from(level).unwrap_or(u16::MAX).to_be_bytes());
        put(&mut self.bytes, LEFT_AT, &neighbours.0.to_be_bytes());
        put(&mut self.bytes, RIGHT_AT, &neighbours.1.to_be_bytes());
        if crc {
            put(&mut self.bytes, 16, &(offset >> 9).to_be_bytes());
        }
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
    kind: Kind,
    ag: u32,
    root: Root,
}

/// One entry of a block: a record, or the keys of a child and its number.
#[derive(Clone, PartialEq, Eq)]
struct Item {
    bytes: Vec<u8>,
    child: Option<u32>,
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
    /// A tree of the group that `agf` describes.
    pub(super) fn of(agf: &Agf, kind: Kind) -> Result<Self> {
        let root =
            agf.root(kind).ok_or_else(|| Error::unsupported(kind.structure(), "a tree that is not there"))?;
        Ok(Self { kind, ag: agf.ag, root })
    }

    /// The records of the leaf that covers `key`.
    pub(super) fn records(&self, staging: &Staging<'_>, key: Key) -> Result<Records> {
        let path = self.path(staging, key)?;
        let records = path.leaf.entries().map(<[u8]>::to_vec).collect();
        Ok(Records { records, next: path.next()? })
    }

    fn refuse(&self, what: &str) -> Error {
        Error::unsupported(self.kind.structure(), what)
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
        let (kind, is_leaf) = (self.kind, level == 0);
        let block = Block { number: at, offset, bytes, kind, is_leaf, header, count: 0 };
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

/// Adds a record to a tree of the group.
pub(super) fn insert(staging: &mut Staging<'_>, agf: &mut Agf, kind: Kind, record: &[u8]) -> Result<()> {
    let tree = Tree::of(agf, kind)?;
    let path = tree.path(staging, kind.order_of(record))?;
    tree.change(staging, agf, path, None, Some(record))
}

/// Takes a record away from a tree of the group.
pub(super) fn remove(staging: &mut Staging<'_>, agf: &mut Agf, kind: Kind, record: &[u8]) -> Result<()> {
    let tree = Tree::of(agf, kind)?;
    let path = tree.path(staging, kind.order_of(record))?;
    if !path.nodes.is_empty() && path.leaf.count <= path.leaf.capacity() / 2 {
        return Err(tree.refuse("merging half-empty blocks"));
    }
    tree.change(staging, agf, path, Some(record), None)
}

/// Puts `new` for `old`, which does not come before it in the order of the tree.
pub(super) fn replace(
    staging: &mut Staging<'_>,
    agf: &mut Agf,
    kind: Kind,
    old: &[u8],
    new: &[u8],
) -> Result<()> {
    let tree = Tree::of(agf, kind)?;
    let path = tree.path(staging, kind.order_of(old))?;
    let first = path.leaf.entries().next().map(|record| kind.order_of(record));
    let is_leftmost = path.nodes.iter().all(|(_, slot)| *slot == 0);
    if is_leftmost || first.is_some_and(|first| first <= kind.order_of(new)) {
        return tree.change(staging, agf, path, Some(old), Some(new));
    }
    remove(staging, agf, kind, old)?;
    insert(staging, agf, kind, new)
}

impl Tree {
    /// Changes the records of the leaf at the end of `path`, and what stands above it.
    fn change(
        &self,
        staging: &mut Staging<'_>,
        agf: &mut Agf,
        path: Path,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<()> {
        let Path { mut nodes, leaf } = path;
        let mut items = leaf.to_items()?;
        if let Some(old) = old {
            let slot = items.iter().position(|item| item.bytes == old).ok_or_else(|| {
                leaf.span().corrupt("bb_numrecs", format_args!("a record {old:02x?}"), "none")
            })?;
            items.remove(slot);
        }
        if let Some(new) = new {
            let order = self.kind.order_of(new);
            let slot = items.partition_point(|item| self.kind.order_of(&item.bytes) < order);
            if items.get(slot).is_some_and(|item| self.kind.order_of(&item.bytes) == order) {
                let expected = format!("no record {new:02x?}");
                return Err(leaf.span().corrupt("bb_numrecs", expected, "one").into());
            }
            items.insert(slot, Item { bytes: new.to_vec(), child: None });
        }
        let mut block = leaf;
        let mut level = 0_u32;
        loop {
            let (left, right) = self.store(staging, agf, block, &items, level)?;
            level = level.saturating_add(1);
            let Some((parent, slot)) = nodes.pop() else {
                return match right {
                    None => Ok(()),
                    Some(right) => self.grow_root(staging, agf, &left, &right, level),
                };
            };
            items = parent.to_items()?;
            let Some(item) = items.get_mut(slot) else { return Ok(()) };
            if *item == left.to_item() && right.is_none() {
                return Ok(());
            }
            *item = left.to_item();
            if let Some(right) = right {
                items.insert(slot.saturating_add(1), right.to_item());
            }
            block = parent;
        }
    }

    /// Stores the entries of a block, in two if they do not fit one.
    fn store(
        &self,
        staging: &mut Staging<'_>,
        agf: &mut Agf,
        mut block: Block,
        items: &[Item],
        level: u32,
    ) -> Result<(Block, Option<Block>)> {
        if items.len() <= block.capacity() {
            block.set_items(items);
            block.clone().stage(staging);
            return Ok((block, None));
        }
        let (low, high) = items.split_at(items.len().div_ceil(2));
        let crc = staging.xfs.superblock.features.crc;
        let (number, offset) = self.new_block(staging, agf)?;
        let after = block.span().u32(RIGHT_AT, "bb_rightsib")?;
        let mut right = block.clone();
        right.move_to(number, offset, (block.number, after), level, crc);
        right.set_items(high);
        block.set_items(low);
        put(&mut block.bytes, RIGHT_AT, &number.to_be_bytes());
        if after != NO_BLOCK {
            let mut neighbour = self.block(staging, after, level)?;
            let left = neighbour.span().u32(LEFT_AT, "bb_leftsib")?;
            if left != block.number {
                return Err(neighbour.span().corrupt("bb_leftsib", block.number, left).into());
            }
            put(&mut neighbour.bytes, LEFT_AT, &number.to_be_bytes());
            neighbour.stage(staging);
        }
        block.clone().stage(staging);
        right.clone().stage(staging);
        Ok((block, Some(right)))
    }

    /// Puts a new root above the two halves of the old one.
    fn grow_root(
        &self,
        staging: &mut Staging<'_>,
        agf: &mut Agf,
        left: &Block,
        right: &Block,
        level: u32,
    ) -> Result<()> {
        let (number, offset) = self.new_block(staging, agf)?;
        let mut root = Block { is_leaf: false, ..left.clone() };
        let crc = staging.xfs.superblock.features.crc;
        root.move_to(number, offset, (NO_BLOCK, NO_BLOCK), level, crc);
        root.set_items(&[left.to_item(), right.to_item()]);
        root.stage(staging);
        agf.set_root(self.kind, Root { block: number, levels: level.saturating_add(1) })
    }

    /// A block for this tree: its number in the group and its first byte.
    fn new_block(&self, staging: &Staging<'_>, agf: &mut Agf) -> Result<(u32, u64)> {
        let number = agf.take_tree_block(staging, self.kind)?;
        let at = AgBlock { ag: self.ag, block: number };
        let offset = staging.xfs.superblock.geometry.byte_in_ag(at);
        let offset = offset.ok_or_else(|| agf.span().corrupt("agfl_bno", "a block of the group", number))?;
        Ok((number, offset))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_keys() {
        let free = |start: u32, count: u32| [start.to_be_bytes(), count.to_be_bytes()].concat();
        let by_size = |start, count| Kind::FreeBySize.order_of(&free(start, count));
        assert!(by_size(9, 1) < by_size(1, 2) && by_size(1, 2) < by_size(2, 2));
        let by_block = |start, count| Kind::FreeByBlock.order_of(&free(start, count));
        assert!(by_block(1, 9) < by_block(2, 1));
        assert_eq!(by_block(1, 9), by_block(1, 8));
        assert!(by_size(u32::MAX, u32::MAX) < Key::LAST);
    }

    #[test]
    fn keys_of_the_reverse_map_leave_the_state_out() {
        let owned = Owned { start: 5, count: 3, owner: 131, offset: UNWRITTEN | 10 };
        assert_eq!(Owned::decode(&owned.encode()), owned);
        let written = Owned { offset: 10, ..owned };
        assert_eq!(owned.low_key(), written.low_key());
        assert_eq!(
            Kind::ReverseMap.order(&Owned::key(5, 131, 10)),
            Kind::ReverseMap.order_of(&owned.encode())
        );
        assert_eq!(owned.high_key(), Owned::key(7, 131, 12));
        // Blocks of an extent tree, and of the group itself, have no place in a file that could advance.
        assert_eq!(Owned { offset: TREE_BLOCK, ..owned }.high_key(), Owned::key(7, 131, TREE_BLOCK));
        let group = Owned { owner: 5_u64.wrapping_neg(), offset: 0, ..owned };
        assert_eq!(group.high_key(), Owned::key(7, group.owner, 0));
    }

    #[test]
    fn neighbours_that_are_one_run() {
        let left = Owned { start: 5, count: 3, owner: 131, offset: 10 };
        let right = Owned { start: 8, count: 1, owner: 131, offset: 13 };
        assert!(left.is_continued_by(&right) && !right.is_continued_by(&left));
        for other in [
            Owned { start: 9, ..right },
            Owned { owner: 132, ..right },
            Owned { offset: 14, ..right },
            Owned { offset: UNWRITTEN | 13, ..right },
        ] {
            assert!(!left.is_continued_by(&other));
        }
    }
}
