//! The names in a directory, whichever way it stores them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use ondisk::{Corrupt, Result, le};
use zerocopy::FromBytes;

use crate::dir_block::{self, Entry, Rules};
use crate::disk::Disk;
use crate::features::compat;
use crate::inode::{self, Inode, flags};
use crate::mapping;
use crate::units::FsBlock;
use crate::{dir_index, xattr};

/// Blocks of a directory that are read at once.
const AT_ONCE: u64 = 16;

/// Calls `visit` with every entry but `.` and `..`, in on-disk order, until it breaks.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(crate) fn walk(
    disk: &Disk,
    inode: &Inode,
    visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let mut named = |entry: Entry<'_>| match entry.name {
        b"." | b".." => ControlFlow::Continue(()),
        _ => visit(entry),
    };
    if inode.has_flag(flags::INLINE_DATA) {
        walk_inline(disk, inode, &mut named)
    } else {
        walk_blocks(disk, inode, &mut named)
    }
}

fn rules(disk: &Disk, inode: &Inode) -> Rules {
    Rules { inodes: disk.superblock.inodes, is_encrypted: inode.has_flag(flags::ENCRYPT) }
}

/// Linux `Documentation/filesystems/ext4/inlinedata.rst`: the number of the parent, then entries to the end of
/// `i_block`, and more in the value of the attribute `system.data`.
fn walk_inline(
    disk: &Disk,
    inode: &Inode,
    visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let (_parent, in_inode) = le::U32::read_from_prefix(&inode.raw.i_block)
        .map_err(|_| Corrupt::new("inode", inode.offset, "i_block", "at least 4 bytes", 0))?;
    let more = xattr::inline_data(inode)?;
    // `i_block` lies 0x28 into the inode; where in it the value lies is not known any more.
    for (bytes, offset) in [(in_inode, inode.offset.saturating_add(0x2c)), (&more, inode.attribute_offset())]
    {
        for entry in dir_block::decode(bytes, offset, rules(disk, inode))? {
            if visit(entry).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn walk_blocks(
    disk: &Disk,
    inode: &Inode,
    visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let blocks = disk.superblock.block_size.blocks_for(inode.size);
    if blocks == 0 {
        let expected = "at least one block";
        return Err(Corrupt::new(inode::STRUCTURE, inode.offset, "i_size", expected, inode.size).into());
    }
    let mut seen = HashSet::new();
    let mut next = 0;
    let mut is_done = false;
    let hole = |number: u64| {
        let expected = format!("all {blocks} blocks");
        Corrupt::new("directory", inode.offset, "mapped blocks", expected, format_args!("none at {number}"))
    };
    mapping::runs(disk, inode, 0..blocks, &mut |run| {
        if is_done {
            return Ok(());
        }
        if run.logical != next || !run.is_written {
            return Err(hole(next).into());
        }
        next = run.end();
        let mut index = 0;
        while index < run.length {
            let count = run.length.saturating_sub(index).min(AT_ONCE);
            let first = run.physical.after(index);
            let bytes = disk.blocks(first, count)?;
            for (part, number) in bytes.chunks(disk.superblock.block_size.length()).zip(0..) {
                let block = first.after(number);
                if !seen.insert(block) {
                    let offset = disk.offset_of(block);
                    let structure = dir_block::STRUCTURE;
                    return Err(Corrupt::new(structure, offset, "use", "once in a directory", "twice").into());
                }
                let number = run.logical.saturating_add(index).saturating_add(number);
                if walk_block(disk, inode, part, block, number, visit)?.is_break() {
                    is_done = true;
                    return Ok(());
                }
            }
            index = index.saturating_add(count);
        }
        Ok(())
    })?;
    if next == blocks || is_done { Ok(()) } else { Err(hole(next).into()) }
}

fn walk_block(
    disk: &Disk,
    inode: &Inode,
    bytes: &[u8],
    block: FsBlock,
    number: u64,
    visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let offset = disk.offset_of(block);
    let is_indexed = inode.has_flag(flags::INDEX) && disk.superblock.features.has_compat(compat::DIR_INDEX);
    let entries = if is_indexed && dir_index::is_index_block(bytes, number) {
        dir_index::verify_checksum(bytes, offset, inode, number)?;
        bytes
    } else {
        dir_block::without_tail(bytes, offset, inode)?
    };
    for entry in dir_block::decode(entries, offset, rules(disk, inode))? {
        if visit(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
