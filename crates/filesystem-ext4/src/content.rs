//! The bytes of a file: mapped blocks, or data kept in the inode.
//!
//! Linux `Documentation/filesystems/ext4/inlinedata.rst` for the latter: the first 60 bytes fill `i_block`, the
//! rest is the value of the attribute `system.data`.

use ondisk::{Corrupt, Error, Result};

use crate::bytes::copy_common;
use crate::disk::Disk;
use crate::inode::{Inode, flags};
use crate::mapping;
use crate::units::{to_usize, widen};
use crate::xattr;

/// Reads from byte `offset` of what `inode` stores; returns how many bytes were filled. Holes, and blocks that
/// were reserved but not written, read as zeros.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(crate) fn read_at(disk: &Disk, inode: &Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
    let left = inode.size.saturating_sub(offset);
    let count = widen(buf.len()).min(left);
    let Some(buf) = buf.get_mut(..to_usize(count)).filter(|buf| !buf.is_empty()) else { return Ok(0) };
    if inode.has_flag(flags::INLINE_DATA) {
        let content = inline(inode)?;
        let stored = content.get(to_usize(offset)..).unwrap_or_default();
        buf.fill(0);
        copy_common(buf, stored);
        return Ok(buf.len());
    }
    let size = disk.superblock.block_size;
    let end = offset.saturating_add(count);
    let range = size.split(offset).0..size.blocks_for(end);
    let mut done = 0;
    mapping::runs(disk, inode, range, &mut |run| {
        if !run.is_written {
            return Ok(());
        }
        // Where run and buffer overlap, in bytes of the file.
        let start = run.logical.saturating_mul(size.bytes());
        let from = start.max(offset);
        let to = run.end().saturating_mul(size.bytes()).min(end);
        let place = to_usize(from.saturating_sub(offset))..to_usize(to.saturating_sub(offset));
        if let Some(hole) = buf.get_mut(done..place.start) {
            hole.fill(0);
        }
        done = place.end;
        let Some(part) = buf.get_mut(place) else { return Ok(()) };
        let at = disk.offset_of(run.physical).saturating_add(from.saturating_sub(start));
        let length = widen(part.len());
        let read = disk.device.read_exact_at(part, at);
        read.map_err(|source| Error::Io { offset: at, length, source })
    })?;
    if let Some(hole) = buf.get_mut(done..) {
        hole.fill(0);
    }
    Ok(buf.len())
}

/// Data kept in the inode: all that is stored. A file may be longer, the rest is a hole; or shorter.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn inline(inode: &Inode) -> Result<Vec<u8>, Corrupt> {
    let mut content = inode.raw.i_block.to_vec();
    content.extend(xattr::inline_data(inode)?);
    Ok(content)
}
