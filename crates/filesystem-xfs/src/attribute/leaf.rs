//! Attribute leaf: entries sorted by hash, names and values packed at the end of the block.
//!
//! XFS Algorithms & Data Structures, "Leaf Attributes" and "Node Attributes". An entry points to its name,
//! which carries a small value with it or says where a large one is.

use ondisk::Result;

use super::{Entry, LONGEST_VALUE, Value, flags};
use crate::Xfs;
use crate::inode::Fork;
use crate::span::{Checked, Span};
use crate::stamp::Stamp;

const LEAF: u16 = 0xfbee;
const LEAF_CRC: u16 = 0x3bee;
const NODE: u16 = 0xfebe;
const NODE_CRC: u16 = 0x3ebe;

/// A leaf whose header fits its block.
pub(super) struct Leaf<'a> {
    span: Span<'a>,
    entries_at: usize,
    count: u16,
    /// The next leaf in hash order, 0 after the last.
    pub(super) next: u32,
}

impl<'a> Leaf<'a> {
    pub(super) fn decode(xfs: &Xfs, fork: &Fork<'_>, span: Span<'a>) -> Checked<Self> {
        let (magic, count_at, entries_at) = match xfs.superblock.features.crc {
            true => (LEAF_CRC, 56, 80),
            false => (LEAF, 12, 32),
        };
        check_magic(&span, magic)?;
        if xfs.superblock.features.crc {
            Stamp::DA_BTREE.check(&span, xfs.superblock.meta_uuid, fork.inode)?;
        }
        let count = span.u16(count_at, "count")?;
        Ok(Self { span, entries_at, count, next: span.u32(0, "forw")? })
    }

    /// Shows `add` every attribute of the leaf.
    pub(super) fn for_each(&self, mut add: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        for slot in 0..usize::from(self.count) {
            add(self.entry(slot)?)?;
        }
        Ok(())
    }

    fn entry(&self, slot: usize) -> Checked<Entry<'a>> {
        let at = slot.saturating_mul(8).saturating_add(self.entries_at);
        let name_at = usize::from(self.span.u16(at.saturating_add(4), "nameidx")?);
        let flags = self.span.u8(at.saturating_add(6), "flags")?;
        if flags & flags::LOCAL == 0 { self.remote(flags, name_at) } else { self.local(flags, name_at) }
    }

    /// Value length, name length, name, value.
    fn local(&self, flags: u8, at: usize) -> Checked<Entry<'a>> {
        let value_length = usize::from(self.span.u16(at, "valuelen")?);
        let name = self.name(at.saturating_add(2))?;
        let value_at = at.saturating_add(3).saturating_add(name.len());
        let value = self.span.slice(value_at, value_length, "valuelen")?;
        Ok(Entry { flags, name, value: Value::Here(value) })
    }

    /// First block of the value, value length, name length, name.
    fn remote(&self, flags: u8, at: usize) -> Checked<Entry<'a>> {
        let block = self.span.u32(at, "valueblk")?;
        let length = self.span.u32(at.saturating_add(4), "valuelen")?;
        let name = self.name(at.saturating_add(8))?;
        if length > LONGEST_VALUE {
            return Err(self.span.corrupt("valuelen", format_args!("at most {LONGEST_VALUE}"), length));
        }
        Ok(Entry { flags, name, value: Value::Remote { block, length } })
    }

    /// A name after its length in one byte.
    fn name(&self, at: usize) -> Checked<&'a [u8]> {
        let length = usize::from(self.span.u8(at, "namelen")?);
        self.span.slice(at.saturating_add(1), length, "namelen")
    }
}

/// The first child of a node, or `None` for a leaf.
pub(super) fn first_child(xfs: &Xfs, fork: &Fork<'_>, span: &Span<'_>) -> Checked<Option<u32>> {
    let crc = xfs.superblock.features.crc;
    let (leaf, node) = if crc { (LEAF_CRC, NODE_CRC) } else { (LEAF, NODE) };
    if span.u16(8, "magic")? == leaf {
        return Ok(None);
    }
    check_magic(span, node)?;
    if crc {
        Stamp::DA_BTREE.check(span, xfs.superblock.meta_uuid, fork.inode)?;
    }
    // The first entry is a hash, then a block.
    let (count_at, before_at) = if crc { (56, 68) } else { (12, 20) };
    if span.u16(count_at, "count")? == 0 {
        return Err(span.corrupt("count", "at least 1", 0));
    }
    Ok(Some(span.u32(before_at, "before")?))
}

fn check_magic(span: &Span<'_>, expected: u16) -> Checked<()> {
    let found = span.u16(8, "magic")?;
    if found == expected {
        return Ok(());
    }
    Err(span.corrupt("magic", format_args!("{expected:#06x}"), format_args!("{found:#06x}")))
}
