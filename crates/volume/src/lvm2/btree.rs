//! The trees and arrays that thin pools and caches keep their metadata in.
//!
//! Kernel `drivers/md/persistent-data`: blocks of 4096 bytes, each with its own number and a CRC-32C that is xored
//! with a constant of its kind; little-endian. A tree's keys are 64-bit numbers; an array is a tree of blocks of
//! values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use ondisk::{Corrupt, Result, crc32c_raw, le, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
const NODE_XOR: u32 = 121_107;
const ARRAY_XOR: u32 = 595_846_735;
/// More levels than the largest metadata device has blocks for, at the smallest fan-out.
const MAX_DEPTH: usize = 24;
/// Nodes that are kept: 2 MiB.
const MAX_KEPT: usize = 512;

/// A node's header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawNode {
    /// 0x00 CRC-32C of the block from 0x04 on, xored with 121107.
    csum: le::U32,
    /// 0x04 1: values are blocks of the next level; 2: values are values.
    flags: le::U32,
    /// 0x08 this block.
    blocknr: le::U64,
    /// 0x10 keys.
    nr_entries: le::U32,
    /// 0x14 room for keys; values begin behind it.
    max_entries: le::U32,
    /// 0x18 bytes of a value.
    value_size: le::U32,
    /// 0x1c
    padding: le::U32,
}
const _: () = assert!(size_of::<RawNode>() == 32);
const KEYS_START: usize = 32;

/// An array block's header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawArrayBlock {
    /// 0x00 CRC-32C of the block from 0x04 on, xored with 595846735.
    csum: le::U32,
    /// 0x04 room for values.
    max_entries: le::U32,
    /// 0x08 values.
    nr_entries: le::U32,
    /// 0x0c bytes of a value.
    value_size: le::U32,
    /// 0x10 this block.
    blocknr: le::U64,
}
const _: () = assert!(size_of::<RawArrayBlock>() == 24);
const VALUES_START: usize = 24;
/// Values of 8 bytes in a full array block.
const ARRAY_VALUES: usize = 509;

/// A node whose checksum, place and counts are right.
#[derive(Debug)]
pub(crate) struct Node {
    is_leaf: bool,
    count: usize,
    max: usize,
    value_size: usize,
    bytes: Vec<u8>,
}

impl Node {
    fn decode(bytes: Vec<u8>, block: u64) -> Result<Self, Corrupt> {
        let at = block.saturating_mul(BLOCK);
        let corrupt = |field, expected: String, found: String| {
            Corrupt::new("persistent-data tree node", at, field, expected, found)
        };
        let raw = RawNode::read_from_prefix(&bytes);
        let Ok((raw, _)) = raw else {
            return Err(corrupt("block", "4096 bytes".into(), bytes.len().to_string()));
        };
        let computed = checksum(&bytes, NODE_XOR);
        if computed != raw.csum.get() {
            return Err(Corrupt::checksum("persistent-data tree node", at, computed, raw.csum.get()));
        }
        if raw.blocknr.get() != block {
            return Err(corrupt("blocknr", block.to_string(), raw.blocknr.to_string()));
        }
        let is_leaf = match raw.flags.get() {
            1 => false,
            2 => true,
            other => return Err(corrupt("flags", "1 or 2".into(), other.to_string())),
        };
        let number = |field: le::U32| usize::try_from(field.get()).unwrap_or(usize::MAX);
        let (count, max, value_size) =
            (number(raw.nr_entries), number(raw.max_entries), number(raw.value_size));
        let entry = value_size.saturating_add(8);
        let room = max.saturating_mul(entry).saturating_add(KEYS_START);
        if room > bytes.len() || (!is_leaf && value_size != 8) {
            let found = format!("{max} of {value_size} bytes");
            return Err(corrupt("max_entries", "entries that fit the block".into(), found));
        }
        if count > max {
            return Err(corrupt("nr_entries", format!("at most {max}"), count.to_string()));
        }
        let node = Self { is_leaf, count, max, value_size, bytes };
        if (1..count).any(|index| node.key(index) <= node.key(index.saturating_sub(1))) {
            return Err(corrupt("keys", "ascending".into(), "others".into()));
        }
        Ok(node)
    }

    /// The key at `index`, which must be below the count.
    pub(crate) fn key(&self, index: usize) -> u64 {
        self.word(KEYS_START.saturating_add(index.saturating_mul(8)))
    }

    /// The first 8 bytes of the value at `index`.
    pub(crate) fn value(&self, index: usize) -> u64 {
        let values = KEYS_START.saturating_add(self.max.saturating_mul(8));
        self.word(values.saturating_add(index.saturating_mul(self.value_size)))
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn word(&self, at: usize) -> u64 {
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// How many keys are at or below `key`.
    fn keys_up_to(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) <= key {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Where a key is, or would be.
#[derive(Debug)]
pub(crate) struct Found {
    /// The leaf.
    pub(crate) node: Arc<Node>,
    /// The entry with the key.
    pub(crate) index: Option<usize>,
    /// The smallest key above it that may be in the tree; `u64::MAX` when there is none.
    pub(crate) next: u64,
}

/// The blocks of one metadata device.
#[derive(Debug)]
pub(crate) struct Blocks {
    device: Device,
    kept: Mutex<HashMap<u64, Arc<Node>>>,
}

impl Blocks {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, kept: Mutex::new(HashMap::new()) }
    }

    /// How many whole blocks the device has.
    pub(crate) fn count(&self) -> u64 {
        self.device.size().checked_div(BLOCK).unwrap_or(0)
    }

    pub(crate) fn read(&self, block: u64) -> Result<Vec<u8>> {
        if block >= self.count() {
            let expected = format!("below {}", self.count());
            return Err(Corrupt::new("persistent-data block", 0, "blocknr", expected, block).into());
        }
        read_bytes(self.device.as_ref(), block.saturating_mul(BLOCK), 4096)
    }

    fn node(&self, block: u64) -> Result<Arc<Node>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = kept().get(&block) {
            return Ok(node.clone());
        }
        let node = Arc::new(Node::decode(self.read(block)?, block)?);
        let mut kept = kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(block, node.clone());
        Ok(node)
    }

    /// Looks `key` up in the tree at block `root`, whose values are `value_size` bytes, at least 8.
    pub(crate) fn lookup(&self, root: u64, key: u64, value_size: usize) -> Result<Found> {
        let mut block = root;
        let mut next = u64::MAX;
        for _ in 0..MAX_DEPTH {
            let node = self.node(block)?;
            let below = node.keys_up_to(key);
            if below < node.count {
                next = next.min(node.key(below));
            }
            let index = below.checked_sub(1);
            if node.is_leaf {
                if node.value_size != value_size {
                    let at = block.saturating_mul(BLOCK);
                    let found = node.value_size;
                    return Err(Corrupt::new(
                        "persistent-data tree node",
                        at,
                        "value_size",
                        value_size,
                        found,
                    )
                    .into());
                }
                let index = index.filter(|index| node.key(*index) == key);
                return Ok(Found { node, index, next });
            }
            match index {
                Some(index) => block = node.value(index),
                // Below the first key: the kernel looks no further.
                None => return Ok(Found { node, index: None, next }),
            }
        }
        let at = root.saturating_mul(BLOCK);
        Err(Corrupt::new("persistent-data tree node", at, "level", format!("at most {MAX_DEPTH}"), "more")
            .into())
    }

    /// The value of 8 bytes at `key`.
    pub(crate) fn get(&self, root: u64, key: u64) -> Result<Option<u64>> {
        let found = self.lookup(root, key, 8)?;
        Ok(found.index.map(|index| found.node.value(index)))
    }

    /// The first `count` values, of 8 bytes, of the array at block `root`.
    pub(crate) fn array(&self, root: u64, count: u64) -> Result<Vec<u64>> {
        let corrupt = |block: u64, field, expected: String, found: String| {
            let at = block.saturating_mul(BLOCK);
            Corrupt::new("persistent-data array block", at, field, expected, found)
        };
        // Each block holds at most this many, so a larger array cannot be there.
        let most = self.count().saturating_mul(512);
        let Some(count) = usize::try_from(count).ok().filter(|_| count <= most) else {
            return Err(corrupt(root, "nr_entries", format!("at most {most}"), count.to_string()).into());
        };
        let mut values = Vec::with_capacity(count);
        let mut index = 0_u64;
        while values.len() < count {
            let Some(block) = self.get(root, index)? else {
                return Err(corrupt(root, "index", format!("a block {index}"), "none".into()).into());
            };
            let bytes = self.read(block)?;
            let Ok((raw, rest)) = RawArrayBlock::read_from_prefix(&bytes) else {
                return Err(corrupt(block, "block", "4096 bytes".into(), bytes.len().to_string()).into());
            };
            let computed = checksum(&bytes, ARRAY_XOR);
            if computed != raw.csum.get() {
                let at = block.saturating_mul(BLOCK);
                return Err(
                    Corrupt::checksum("persistent-data array block", at, computed, raw.csum.get()).into()
                );
            }
            if raw.blocknr.get() != block || raw.value_size.get() != 8 {
                let found = format!("{} with values of {} bytes", raw.blocknr, raw.value_size);
                return Err(corrupt(block, "blocknr", format!("{block} with values of 8"), found).into());
            }
            let wanted = count.saturating_sub(values.len()).min(ARRAY_VALUES);
            if usize::try_from(raw.nr_entries.get()).is_ok_and(|found| found < wanted) {
                return Err(
                    corrupt(block, "nr_entries", wanted.to_string(), raw.nr_entries.to_string()).into()
                );
            }
            let words =
                rest.chunks_exact(8).filter_map(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
            values.extend(words.take(wanted));
            index = index.saturating_add(1);
        }
        Ok(values)
    }
}

const _: () = assert!(VALUES_START + ARRAY_VALUES * 8 == 4096);

/// The checksum of a block whose first four bytes hold it.
pub(crate) fn checksum(block: &[u8], xor: u32) -> u32 {
    crc32c_raw(!0, block.get(4..).unwrap_or_default()) ^ xor
}
