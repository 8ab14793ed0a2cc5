//! The hash index of a directory: every block is named once, by a hash that fits its names.

use super::hash::{Hasher, Version};
use super::opening::Opened;
use crate::features::incompat;
use crate::units::{to_usize, widen};

/// Bits of `s_flags`: names are of unsigned characters.
const UNSIGNED_HASH: u32 = 0x2;

/// The low bits of an entry's block that count.
const BLOCK_MASK: u32 = 0x0fff_ffff;

/// More levels than any index has.
const MAX_LEVELS: u16 = 300;

/// What an index block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Unseen,
    Root,
    Node,
    Leaf,
}

/// What is known of one block of an indexed directory.
#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: Kind,
    is_named: bool,
    is_named_twice: bool,
    is_first: bool,
    is_last: bool,
    parent: u32,
    previous: u32,
    min: u32,
    max: u32,
    node_min: u32,
    node_max: u32,
}

/// The index of one directory.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<Slot>,
    hasher: Hasher,
    depth: u16,
    levels: u8,
}

impl Index {
    /// An index over `blocks` blocks.
    pub(super) fn new(opened: &Opened, blocks: usize) -> Self {
        let slot = Slot {
            kind: Kind::Unseen,
            is_named: false,
            is_named_twice: false,
            is_first: false,
            is_last: false,
            parent: 0,
            previous: 0,
            min: 0,
            max: 0,
            node_min: 0,
            node_max: 0,
        };
        let hasher = Hasher {
            version: Version::HalfMd4,
            is_unsigned: opened.raw.s_flags.get() & UNSIGNED_HASH != 0,
            seed: opened.raw.s_hash_seed.map(ondisk::le::U32::get),
        };
        let is_large = opened.disk.superblock.features.has_incompat(incompat::LARGE_DIR);
        Self { slots: vec![slot; blocks], hasher, depth: 0, levels: if is_large { 3 } else { 2 } }
    }

    /// Levels above the leaves.
    pub(super) fn depth(&self) -> u16 {
        self.depth
    }

    fn slot_mut(&mut self, logical: u64) -> Option<&mut Slot> {
        self.slots.get_mut(to_usize(logical))
    }

    /// Begins with a block; returns whether it is a node, or `None` when the index is taken away for it.
    pub(super) fn enter(&mut self, logical: u64, bytes: &[u8], has_checksums: bool) -> Option<bool> {
        let kind = if logical == 0 {
            let info = bytes.get(24..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
            let [zero_0, zero_1, zero_2, zero_3, version, length, levels, _] = info;
            if [zero_0, zero_1, zero_2, zero_3] != [0; 4] || length < 8 || levels >= self.levels {
                return None;
            }
            self.hasher.version = Version::decode(version)?;
            self.depth = u16::from(levels).saturating_add(1);
            Kind::Root
        } else if is_node(bytes, has_checksums) {
            Kind::Node
        } else {
            Kind::Leaf
        };
        let slot = self.slot_mut(logical)?;
        slot.kind = kind;
        slot.min = u32::MAX;
        slot.max = 0;
        if kind == Kind::Root {
            (slot.is_first, slot.is_last) = (true, true);
        }
        Some(kind != Kind::Leaf)
    }

    /// Takes a name of a block in.
    pub(super) fn add(&mut self, logical: u64, name: &[u8]) {
        let hash = self.hasher.hash(name);
        if let Some(slot) = self.slot_mut(logical) {
            slot.min = slot.min.min(hash);
            slot.max = slot.max.max(hash);
        }
    }

    /// Takes the entries of a node in. An error says what is wrong, if the repair of that is asked for.
    pub(super) fn add_node(
        &mut self,
        logical: u64,
        bytes: &[u8],
        has_failed: bool,
        has_checksums: bool,
    ) -> Result<(), Option<&'static str>> {
        if has_failed {
            return Err(None);
        }
        let start = if logical == 0 {
            24_usize.saturating_add(bytes.get(29).copied().unwrap_or(8).into())
        } else {
            8
        };
        let tail = if has_checksums { 8 } else { 0 };
        let limit = bytes.len().saturating_sub(start).saturating_sub(tail) / 8;
        let words: Vec<(u32, u32)> = bytes
            .get(start..)
            .unwrap_or_default()
            .chunks_exact(8)
            .filter_map(|bytes| bytes.first_chunk::<8>())
            .map(|[a, b, c, d, e, f, g, h]| {
                (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]))
            })
            .collect();
        let head = words.first().map_or(0, |(head, _)| *head);
        let count = to_usize(head >> 16);
        if to_usize(head & 0xffff) != limit || count > limit {
            return Err(None);
        }
        let (mut min, mut max, mut hash) = (u32::MAX, 0, 0);
        for (index, (stored, block)) in words.iter().take(count).enumerate() {
            let before = hash;
            hash = if index == 0 { 0 } else { stored & !1 };
            let block = block & BLOCK_MASK;
            let following =
                index.checked_add(1).filter(|next| *next < count).and_then(|next| words.get(next));
            let previous = index.checked_sub(1).and_then(|index| words.get(index));
            let Some(slot) = self.slot_mut(block.into()) else {
                return Err(Some("its index names a block that the directory has not"));
            };
            if hash < before {
                return Err(None);
            }
            slot.is_named_twice |= slot.is_named;
            if !slot.is_named {
                slot.is_named = true;
                slot.parent = u32::try_from(logical).unwrap_or(0);
            }
            slot.previous = previous.map_or(0, |(_, block)| block & BLOCK_MASK);
            slot.node_min = hash;
            slot.node_max = following.map_or(0xffff_fffe, |(hash, _)| hash & !1);
            slot.is_last |= following.is_none();
            slot.is_first |= index == 0;
            min = min.min(hash);
            max = max.max(hash);
        }
        if let Some(slot) = self.slot_mut(logical) {
            (slot.min, slot.max) = (min, max);
        }
        Ok(())
    }

    /// What does not fit, after all blocks were taken in.
    pub(super) fn judge(&mut self) -> Option<&'static str> {
        if let Some(root) = self.slots.first_mut() {
            root.is_named_twice |= root.is_named;
            root.is_named = true;
        }
        self.pass_up(Kind::Leaf);
        self.pass_up(Kind::Node);
        let depth = self.depth;
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            if !slot.is_first && slot.min < slot.node_min {
                Some("a name has a smaller hash than its block")
            } else if slot.kind == Kind::Leaf && self.levels_above(slot) != depth {
                Some("a block lies at the wrong level of its index")
            } else if index > 0 && slot.max > slot.node_max {
                Some("a name has a larger hash than its block")
            } else if !slot.is_named {
                Some("its index leaves a block out")
            } else if slot.is_named_twice {
                Some("its index names a block twice")
            } else {
                None
            }
        })
    }

    /// The hashes of the first and last blocks of this kind become those of the nodes above them.
    fn pass_up(&mut self, kind: Kind) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index).copied().filter(|slot| slot.kind == kind) else {
                continue;
            };
            if slot.is_first {
                let parent = self.slot_mut(slot.parent.into()).map(|parent| {
                    parent.min = slot.min;
                    parent.previous
                });
                if let Some(previous) = parent.filter(|previous| *previous != 0)
                    && let Some(previous) = self.slot_mut(previous.into())
                {
                    previous.node_max = slot.min;
                }
            }
            if slot.is_last
                && let Some(parent) = self.slot_mut(slot.parent.into())
            {
                parent.max = slot.max;
            }
        }
    }

    fn levels_above(&self, slot: &Slot) -> u16 {
        let mut levels = 0;
        let mut slot = *slot;
        while slot.kind != Kind::Root && levels < MAX_LEVELS {
            let Some(parent) = self.slots.get(to_usize(slot.parent)) else { return MAX_LEVELS };
            slot = *parent;
            levels = levels.saturating_add(1);
        }
        levels
    }
}

/// Whether a block looks like a node: one free entry over all of it, and the room for entries.
fn is_node(bytes: &[u8], has_checksums: bool) -> bool {
    let Some([a, b, c, d, low, high, name, _, limit_low, limit_high]) = bytes.first_chunk::<10>() else {
        return false;
    };
    let length = crate::dir_block::record_length(u16::from_le_bytes([*low, *high]), bytes.len());
    let room = bytes.len().saturating_sub(if has_checksums { 16 } else { 8 }) / 8;
    [*a, *b, *c, *d] == [0; 4]
        && length == bytes.len()
        && *name == 0
        && u64::from(u16::from_le_bytes([*limit_low, *limit_high])) == widen(room)
}
