//! Tree blocks: nodes with pointers to others, and leaves with items.
//!
//! On-disk format documentation, "B-trees"; `struct btrfs_header`, `struct btrfs_item`,
//! `struct btrfs_key_ptr`. Little-endian. Items grow from the front of a leaf, their data from its end.

use ondisk::{Corrupt, Guid, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Kind};
use crate::key::{Key, RawKey};
use crate::number::{index, wide};

pub(crate) const STRUCTURE: &str = "tree block";

/// The highest level that a root may have.
pub(crate) const MAX_LEVEL: u8 = 7;

/// `struct btrfs_header`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) csum: [u8; 32],            // 0x00 of 0x20..nodesize
    pub(crate) fsid: [u8; 16],            // 0x20
    pub(crate) bytenr: le::U64,           // 0x30 logical, of this block
    pub(crate) flags: le::U64,            // 0x38
    pub(crate) chunk_tree_uuid: [u8; 16], // 0x40
    pub(crate) generation: le::U64,       // 0x50
    pub(crate) owner: le::U64,            // 0x58 the tree it was made for
    pub(crate) nritems: le::U32,          // 0x60
    pub(crate) level: u8,                 // 0x64 0 for leaves
}
pub(crate) const HEADER: usize = size_of::<RawHeader>();
const _: () = assert!(HEADER == 0x65);

/// `struct btrfs_item`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawItem {
    key: RawKey,     // 0x00
    offset: le::U32, // 0x11 from the end of the header
    size: le::U32,   // 0x15
}
const _: () = assert!(size_of::<RawItem>() == 25);

/// `struct btrfs_key_ptr`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPointer {
    key: RawKey,         // 0x00
    blockptr: le::U64,   // 0x11 logical
    generation: le::U64, // 0x19
}
const _: () = assert!(size_of::<RawPointer>() == 33);

/// What all tree blocks of a file system have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) checksum: Kind,
    /// The UUID that tree blocks carry.
    pub(crate) fsid: Guid,
    /// Bytes.
    pub(crate) node_size: u32,
    /// Bytes.
    pub(crate) sector_size: u32,
}

/// A tree block whose own fields agree with each other.
#[derive(Debug)]
pub(crate) struct Node {
    bytes: Vec<u8>,
    /// Where it was read from, on its device.
    pub(crate) at: u64,
    pub(crate) level: u8,
    pub(crate) generation: u64,
    pub(crate) owner: u64,
    count: usize,
}

/// One item of a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) key: Key,
    pub(crate) data: &'a [u8],
    /// Where the data is on its device.
    pub(crate) at: u64,
}

/// A pointer to a node one level below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointer {
    pub(crate) key: Key,
    pub(crate) bytenr: u64,
    pub(crate) generation: u64,
}

impl Node {
    /// Decodes the block with logical address `bytenr` that was read from byte `at` of its device.
    pub(crate) fn decode(bytes: Vec<u8>, shape: &Shape, bytenr: u64, at: u64) -> Result<Self, Corrupt> {
        let corrupt =
            |field, expected: String, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
        let Ok((raw, _)) = RawHeader::ref_from_prefix(&bytes) else {
            return Err(corrupt("size", format!("at least {HEADER}"), bytes.len().to_string()));
        };
        let computed = shape.checksum.of(bytes.get(checksum::RESERVED..).unwrap_or_default());
        match shape.checksum.stored(&raw.csum) {
            Some(stored) if stored == computed => {}
            stored => {
                let stored = stored.map(|sum| sum.to_string()).unwrap_or_default();
                return Err(corrupt("csum", computed.to_string(), stored));
            }
        }
        if raw.bytenr.get() != bytenr {
            return Err(corrupt("bytenr", bytenr.to_string(), raw.bytenr.to_string()));
        }
        let fsid = Guid::from_bytes(raw.fsid);
        if fsid != shape.fsid {
            return Err(corrupt("fsid", shape.fsid.to_string(), fsid.to_string()));
        }
        if raw.level > MAX_LEVEL {
            return Err(corrupt("level", format!("0..={MAX_LEVEL}"), raw.level.to_string()));
        }
        let entry = if raw.level == 0 { size_of::<RawItem>() } else { size_of::<RawPointer>() };
        let count = index(raw.nritems.get());
        let most = bytes.len().saturating_sub(HEADER).checked_div(entry).unwrap_or(0);
        if count > most || (count == 0 && raw.level > 0) {
            return Err(corrupt("nritems", format!("at most {most}"), count.to_string()));
        }
        let (level, generation, owner) = (raw.level, raw.generation.get(), raw.owner.get());
        let node = Self { bytes, at, level, generation, owner, count };
        node.check_order()?;
        if level == 0 {
            node.check_items()?;
        } else {
            node.check_pointers(shape)?;
        }
        Ok(node)
    }

    fn check_order(&self) -> Result<(), Corrupt> {
        let mut last: Option<Key> = None;
        for slot in 0..self.count {
            let key = self.key(slot);
            if let (Some(last), Some(key)) = (last, key)
                && last >= key
            {
                return Err(self.corrupt("key", format!("more than {last}"), key.to_string()));
            }
            last = key;
        }
        Ok(())
    }

    /// Data lies without gaps, from the end of the block towards the items.
    fn check_items(&self) -> Result<(), Corrupt> {
        let mut end = self.bytes.len().saturating_sub(HEADER);
        let floor = self.count.saturating_mul(size_of::<RawItem>());
        for slot in 0..self.count {
            let Some(raw) = self.entry::<RawItem>(slot) else { break };
            let (offset, size) = (index(raw.offset.get()), index(raw.size.get()));
            if offset.checked_add(size) != Some(end) || offset < floor {
                let found = format!("{size} bytes at {offset} in slot {slot}");
                return Err(self.corrupt("item", format!("data that ends at {end}"), found));
            }
            end = offset;
        }
        Ok(())
    }

    fn check_pointers(&self, shape: &Shape) -> Result<(), Corrupt> {
        for slot in 0..self.count {
            let Some(pointer) = self.pointer(slot) else { break };
            if pointer.bytenr == 0 || !pointer.bytenr.is_multiple_of(u64::from(shape.sector_size)) {
                return Err(self.corrupt(
                    "blockptr",
                    "whole sectors, not 0".into(),
                    pointer.bytenr.to_string(),
                ));
            }
        }
        Ok(())
    }

    fn entry<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self, slot: usize) -> Option<&T> {
        if slot >= self.count {
            return None;
        }
        let at = slot.checked_mul(size_of::<T>())?.checked_add(HEADER)?;
        T::ref_from_prefix(self.bytes.get(at..)?).ok().map(|(raw, _)| raw)
    }

    /// How many items or pointers there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes in memory.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn key(&self, slot: usize) -> Option<Key> {
        let key = if self.level == 0 {
            &self.entry::<RawItem>(slot)?.key
        } else {
            &self.entry::<RawPointer>(slot)?.key
        };
        Some(key.into())
    }

    pub(crate) fn item(&self, slot: usize) -> Option<Item<'_>> {
        let raw = self.entry::<RawItem>(slot).filter(|_| self.level == 0)?;
        let start = HEADER.checked_add(index(raw.offset.get()))?;
        let data = self.bytes.get(start..start.checked_add(index(raw.size.get()))?)?;
        Some(Item { key: (&raw.key).into(), data, at: self.at.saturating_add(wide(start)) })
    }

    pub(crate) fn pointer(&self, slot: usize) -> Option<Pointer> {
        let raw = self.entry::<RawPointer>(slot).filter(|_| self.level > 0)?;
        let (bytenr, generation) = (raw.blockptr.get(), raw.generation.get());
        Some(Pointer { key: (&raw.key).into(), bytenr, generation })
    }

    /// The first slot whose key is not less than `key`.
    pub(crate) fn lower_bound(&self, key: &Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle).is_some_and(|found| found < *key) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    pub(crate) fn corrupt(&self, field: &'static str, expected: String, found: String) -> Corrupt {
        Corrupt::new(STRUCTURE, self.at, field, expected, found)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SHAPE: Shape =
        Shape { checksum: Kind::Crc32c, fsid: Guid([3; 16]), node_size: 4096, sector_size: 4096 };

    /// A leaf or node with the keys (n, 1, 0) for n from 1; items of 10 bytes.
    fn block(level: u8, count: u32) -> Vec<u8> {
        let header = RawHeader {
            csum: [0; 32],
            fsid: [3; 16],
            bytenr: (1 << 20).into(),
            flags: 1.into(),
            chunk_tree_uuid: [4; 16],
            generation: 9.into(),
            owner: 5.into(),
            nritems: count.into(),
            level,
        };
        let mut bytes = header.as_bytes().to_vec();
        for number in 1..=u64::from(count) {
            let key = RawKey { objectid: number.into(), kind: 1, offset: 0.into() };
            if level == 0 {
                let offset = 4096 - HEADER as u32 - 10 * number as u32;
                bytes.extend_from_slice(RawItem { key, offset: offset.into(), size: 10.into() }.as_bytes());
            } else {
                let pointer = RawPointer { key, blockptr: (number << 16).into(), generation: 8.into() };
                bytes.extend_from_slice(pointer.as_bytes());
            }
        }
        bytes.resize(4096, 0);
        bytes
    }

    fn decode(mut bytes: Vec<u8>) -> Result<Node, Corrupt> {
        let sum = ondisk::crc32c(&bytes[32..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        Node::decode(bytes, &SHAPE, 1 << 20, 7)
    }

    #[test]
    fn a_leaf_and_a_node() {
        let leaf = decode(block(0, 20)).unwrap();
        assert_eq!((leaf.count(), leaf.level, leaf.owner, leaf.generation), (20, 0, 5, 9));
        let item = leaf.item(3).unwrap();
        assert_eq!((item.key, item.data.len(), item.at), (Key::new(4, 1, 0), 10, 7 + 4096 - 40));
        assert_eq!(leaf.lower_bound(&Key::new(4, 0, 0)), 3);
        assert_eq!(leaf.lower_bound(&Key::new(4, 1, 1)), 4);
        assert_eq!(leaf.lower_bound(&Key::new(99, 1, 1)), 20);
        assert!(leaf.item(20).is_none() && leaf.pointer(0).is_none());
        let node = decode(block(2, 121)).unwrap();
        let pointer = node.pointer(120).unwrap();
        assert_eq!((pointer.key, pointer.bytenr, pointer.generation), (Key::new(121, 1, 0), 121 << 16, 8));
        assert!(node.item(0).is_none());
    }

    #[test]
    fn damage_is_named() {
        let text = |level: u8, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = block(level, 20);
            change(&mut bytes);
            decode(bytes).map(|_| ()).unwrap_err().to_string()
        };
        type Case<'a> = (u8, &'a dyn Fn(&mut Vec<u8>), &'a str);
        let cases: [Case<'_>; 8] = [
            (0, &|b| b[0x30] = 1, "bytenr is 1048577, expected 1048576"),
            (0, &|b| b[0x20] = 1, "fsid is 01030303-0303-0303-0303-030303030303, expected 0303"),
            (0, &|b| b[0x64] = 8, "level is 8, expected 0..=7"),
            (0, &|b| b[0x61] = 1, "nritems is 276, expected at most 159"),
            (1, &|b| b[0x60] = 0, "nritems is 0, expected at most 121"),
            (0, &|b| b[0x65 + 25] = 1, "key is (1 1 0), expected more than (1 1 0)"),
            (
                0,
                &|b| b[0x65 + 0x15] = 11,
                "item is 11 bytes at 3985 in slot 0, expected data that ends at 3995",
            ),
            (1, &|b| b[0x65 + 0x11] = 1, "blockptr is 65537, expected whole sectors, not 0"),
        ];
        for (level, change, expected) in cases {
            let text = text(level, change);
            assert!(text.starts_with(&format!("tree block at byte 7: {expected}")), "{text}");
        }
        let text = Node::decode(block(0, 1), &SHAPE, 1 << 20, 7).map(|_| ()).unwrap_err().to_string();
        assert!(text.starts_with("tree block at byte 7: csum is 0x00000000, expected 0x"), "{text}");
    }
}
