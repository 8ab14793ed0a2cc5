//! Replacing the content of a file.
//!
//! Content goes to the blocks that the file has; what is missing is taken from free space. Blocks past a new,
//! nearer end stay with the file, as XFS allows. A file whose extents are a tree keeps them as they are.

use filesystem::{FileKind, FileSystemMut, Inode, Timestamp};
use ondisk::{Error, Result};

use super::free_space::{Owner, check_space, take};
use super::sharing::first_shared;
use super::staging::Staging;
use crate::Xfs;
use crate::extent::{Extent, LONGEST, encode_list};
use crate::inode::{CRC_AT, DiskInode, Format, flags, flags2};
use crate::log::State;
use crate::mapping::{Place, inline_extents, run_at};
use crate::number::wide;
use crate::span::{put, put_crc};

impl FileSystemMut for Xfs {
    fn replace(&self, file: Inode, content: &[u8], now: Timestamp) -> Result<()> {
        let _one_at_a_time = self.lock_for_writing();
        check_file_system(self)?;
        let inode = DiskInode::read(self, file.0)?;
        check_inode(&inode)?;
        let mut staging = Staging::new(self);
        let blocks = self.superblock.geometry.blocks_for(wide(content.len()));
        let changed = match inode.data_fork()?.format {
            Format::Extents => provide(&mut staging, &inode, blocks)?,
            Format::Btree => Changed { extents: written_extents(self, &inode, blocks)?, fork: None },
            Format::Local | Format::Device => {
                let found = inode.core.di_format;
                return Err(inode.span().corrupt("di_format", "extents or btree", found).into());
            }
        };
        refuse_shared(&staging, &changed.extents, blocks)?;
        stage_content(&mut staging, &changed.extents, content);
        stage_inode(&mut staging, inode, changed.fork, wide(content.len()), now);
        staging.commit()?;
        *self.cached_leaf() = None;
        Ok(())
    }
}

/// Reasons that hold for every file.
fn check_file_system(xfs: &Xfs) -> Result<()> {
    let refuse = |feature: &str| Err(Error::unsupported("XFS", feature));
    match xfs.log {
        State::Clean | State::Settled => {}
        State::Dirty => return refuse("writing before the log is replayed"),
        State::External => return refuse("writing with an external log"),
    }
    if xfs.superblock.in_progress {
        return refuse("writing while mkfs.xfs or xfs_repair has not finished");
    }
    match xfs.superblock.features.reason_against_writing() {
        Some(reason) => Err(Error::unsupported("superblock", reason)),
        None => Ok(()),
    }
}

/// Reasons that lie in the inode.
fn check_inode(inode: &DiskInode) -> Result<()> {
    if inode.kind() != FileKind::Regular {
        return Err(inode.span().corrupt("di_mode", "a regular file", inode.core.di_mode.get()).into());
    }
    let flags = inode.core.di_flags.get();
    let reason = if flags & flags::REALTIME != 0 {
        "writing a file on the realtime device"
    } else if flags & flags::IMMUTABLE != 0 {
        "writing an immutable file"
    } else if flags & flags::APPEND != 0 {
        "rewriting an append-only file"
    } else if inode.flags2() & !flags2::KNOWN != 0 {
        return Err(Error::unsupported("inode", format!("writing with di_flags2 {:#x}", inode.flags2())));
    } else {
        return Ok(());
    };
    Err(Error::unsupported("inode", reason))
}

/// What changes beside content and times.
struct Changed {
    /// All extents of the file that hold content.
    extents: Vec<Extent>,
    /// The new list for the inode and the number of blocks that were added.
    fork: Option<(Vec<Extent>, u64)>,
}

/// Makes file blocks `0..blocks` written ones.
fn provide(staging: &mut Staging<'_>, inode: &DiskInode, blocks: u64) -> Result<Changed> {
    let xfs = staging.xfs;
    let fork = inode.data_fork()?;
    let old = inline_extents(xfs, &fork)?;
    let there: u64 = old.iter().map(|extent| extent.end().min(blocks).saturating_sub(extent.start)).sum();
    check_space(staging, inode.number, blocks.saturating_sub(there))?;
    let mut new = Vec::with_capacity(old.len());
    let mut at = 0;
    let mut added = 0;
    for extent in &old {
        added = fill(staging, inode, &mut new, at..extent.start.min(blocks), added)?;
        at = extent.end();
        push_written(xfs, &mut new, *extent, blocks)?;
    }
    added = fill(staging, inode, &mut new, at..blocks, added)?;
    let new = join(new);
    if wide(new.len()) > fork.extent_capacity() {
        let room = fork.extent_capacity();
        let feature = format!("a list of {} extents, where the inode has room for {room}", new.len());
        return Err(Error::unsupported("inode", feature));
    }
    let fork = (new != old).then(|| (new.clone(), added));
    Ok(Changed { extents: new.into_iter().filter(|extent| extent.start < blocks).collect(), fork })
}

/// Takes free blocks for the file blocks of `hole`; returns `added` with their number.
fn fill(
    staging: &mut Staging<'_>,
    inode: &DiskInode,
    extents: &mut Vec<Extent>,
    hole: std::ops::Range<u64>,
    mut added: u64,
) -> Result<u64> {
    let mut start = hole.start;
    while start < hole.end {
        if staging.xfs.superblock.counts_quota {
            return Err(Error::unsupported("XFS", "growing a file while quota is counted"));
        }
        // Each piece is one more record, and a list that does not fit is refused in the end.
        if wide(extents.len()) > inode.data_fork()?.extent_capacity() {
            return Err(Error::unsupported("free space", "growing into so many pieces"));
        }
        let owner = Owner { inode: inode.number, start };
        let taken = take(staging, owner, hole.end.saturating_sub(start))?;
        extents.push(Extent { start, count: taken.count, block: taken.block, unwritten: false });
        start = start.saturating_add(taken.count);
        added = added.saturating_add(taken.count);
    }
    Ok(added)
}

/// Adds an extent that was there; its part below `blocks` becomes written.
fn push_written(xfs: &Xfs, extents: &mut Vec<Extent>, extent: Extent, blocks: u64) -> Result<()> {
    if !extent.unwritten || extent.start >= blocks {
        extents.push(extent);
        return Ok(());
    }
    if xfs.superblock.features.has_reverse_map() {
        return Err(Error::unsupported("inode", "writing preallocated blocks with a reverse map"));
    }
    let end = extent.end().min(blocks);
    let written = end.saturating_sub(extent.start);
    extents.push(Extent { count: written, unwritten: false, ..extent });
    if end < extent.end() {
        let count = extent.count.saturating_sub(written);
        extents.push(Extent { start: end, count, block: extent.block_at(end), unwritten: true });
    }
    Ok(())
}

/// Joins extents that continue each other, as the kernel does.
fn join(extents: Vec<Extent>) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match joined.last_mut() {
            Some(last)
                if last.end() == extent.start
                    && last.block_at(last.end()) == extent.block
                    && last.unwritten == extent.unwritten
                    && last.count.saturating_add(extent.count) <= LONGEST =>
            {
                last.count = last.count.saturating_add(extent.count);
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// The extents of file blocks `0..blocks` of a file whose extents are a tree; all must be written ones.
fn written_extents(xfs: &Xfs, inode: &DiskInode, blocks: u64) -> Result<Vec<Extent>> {
    let fork = inode.data_fork()?;
    let mut extents = Vec::new();
    let mut start = 0;
    while start < blocks {
        let run = run_at(xfs, &fork, start)?;
        let Place::Written(block) = run.place else {
            return Err(Error::unsupported("inode", "adding blocks to a tree of extents"));
        };
        let count = run.count.min(blocks.saturating_sub(start));
        extents.push(Extent { start, count, block, unwritten: false });
        start = start.saturating_add(count);
    }
    Ok(extents)
}

fn refuse_shared(staging: &Staging<'_>, extents: &[Extent], blocks: u64) -> Result<()> {
    for extent in extents {
        let count = extent.end().min(blocks).saturating_sub(extent.start);
        if let Some(block) = first_shared(staging, extent.block, count)? {
            return Err(Error::unsupported("inode", format!("writing {block}, which another file shares")));
        }
    }
    Ok(())
}

/// Stages the content, with zeros up to the end of its last block.
fn stage_content(staging: &mut Staging<'_>, extents: &[Extent], content: &[u8]) {
    let geometry = staging.xfs.superblock.geometry;
    for extent in extents {
        let start = usize::try_from(geometry.bytes(extent.start)).unwrap_or(usize::MAX);
        let length = usize::try_from(geometry.bytes(extent.count)).unwrap_or(usize::MAX);
        let rest = content.get(start..).unwrap_or_default();
        let mut bytes = rest.get(..length).unwrap_or(rest).to_vec();
        bytes.resize(bytes.len().next_multiple_of(geometry.block_size()), 0);
        if let Some(offset) = geometry.byte(extent.block).filter(|_| !bytes.is_empty()) {
            staging.write(offset, bytes);
        }
    }
}

/// Stages the inode: size, times, change counter, and the list of extents if it changed.
fn stage_inode(
    staging: &mut Staging<'_>,
    inode: DiskInode,
    fork: Option<(Vec<Extent>, u64)>,
    size: u64,
    now: Timestamp,
) {
    let time = inode.encode_time(now);
    let (range, has_wide_counts) = (inode.data_fork_range(), inode.has_wide_counts());
    let change_count = inode.extension.as_ref().map(|extension| extension.di_changecount.get());
    let allocated = inode.core.di_nblocks.get();
    let (offset, mut bytes) = (inode.offset, inode.bytes);
    put(&mut bytes, 0x28, &time);
    put(&mut bytes, 0x30, &time);
    put(&mut bytes, 0x38, &size.to_be_bytes());
    if let Some((extents, added)) = fork {
        put(&mut bytes, 0x40, &allocated.saturating_add(added).to_be_bytes());
        let count = wide(extents.len());
        match u32::try_from(count) {
            Ok(count) if !has_wide_counts => put(&mut bytes, 0x4c, &count.to_be_bytes()),
            _ => put(&mut bytes, 0x18, &count.to_be_bytes()),
        }
        let mut list = encode_list(&extents);
        list.resize(range.len(), 0);
        put(&mut bytes, range.start, &list);
    }
    if let Some(count) = change_count {
        put(&mut bytes, 0x68, &count.wrapping_add(1).to_be_bytes());
        put_crc(&mut bytes, CRC_AT);
    }
    staging.write(offset, bytes);
}
