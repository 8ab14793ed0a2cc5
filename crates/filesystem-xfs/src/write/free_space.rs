//! Taking free blocks.
//!
//! XFS Algorithms & Data Structures, "AG Free Space B+trees". Blocks are taken from the end of the longest
//! free extent of a group: its record then keeps its place in the tree by block, and while something of it is
//! left, the new extent does not continue one that is in use.

use ondisk::{Corrupt, Error, Result};

use super::allocation_group::Agf;
use super::btree::{self, Key, Kind, Owned, Tree};
use super::staging::Staging;
use crate::extent::LONGEST;
use crate::geometry::{AgBlock, FsBlock};
use crate::span::{Span, put, put_crc};
use crate::superblock;

/// Free blocks that are left in every group, for the trees that later changes will grow.
const RESERVE: u32 = 64;
/// The part of a group that the kernel keeps free for reverse map and reference counts is less than this.
const RESERVE_PART: u32 = 64;
/// Groups that are looked at; a file system with more of them has space in one of these.
const MOST_GROUPS: usize = 256;
/// Free extents of a group that are tried.
const MOST_TRIALS: usize = 32;

/// New blocks for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) block: FsBlock,
    /// At least 1.
    pub(super) count: u64,
}

/// Whose blocks they will be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) inode: u64,
    /// The first file block that they will hold.
    pub(super) start: u64,
}

/// Refuses to look for more blocks than there are.
pub(super) fn check_space(staging: &Staging<'_>, inode: u64, wanted: u64) -> Result<()> {
    if wanted == 0 {
        return Ok(());
    }
    let groups = groups(staging, inode, u32::MAX)?;
    let there: u64 = groups.iter().map(|agf| u64::from(available(staging, agf))).sum();
    match there.checked_sub(wanted) {
        Some(_) => Ok(()),
        None => Err(full()),
    }
}

fn full() -> Error {
    Error::unsupported("free space", "growing on a full file system")
}

/// Takes up to `wanted` blocks in one piece, if possible near the inode and all in one.
pub(super) fn take(staging: &mut Staging<'_>, owner: Owner, wanted: u64) -> Result<Taken> {
    let wanted = u32::try_from(wanted.min(LONGEST)).unwrap_or(u32::MAX);
    let mut reason = full();
    for agf in groups(staging, owner.inode, wanted)? {
        match take_in_group(staging, &agf, owner, wanted) {
            Ok(taken) => return Ok(taken),
            Err(unsupported @ Error::Unsupported { .. }) => reason = unsupported,
            Err(error) => return Err(error),
        }
    }
    Err(reason)
}

/// The groups that have blocks to give, best first: those that have all in one extent, from the group of the
/// inode on, then those with the longest extents.
fn groups(staging: &Staging<'_>, inode: u64, wanted: u32) -> Result<Vec<Agf>> {
    let geometry = &staging.xfs.superblock.geometry;
    let (count, first) = (geometry.ag_count, geometry.inode_ag(inode).unwrap_or_default());
    let mut found = Vec::new();
    for ag in (first..count).chain(0..first).take(MOST_GROUPS) {
        let agf = Agf::read(staging, ag)?;
        if available(staging, &agf) > 0 {
            found.push(agf);
        }
    }
    // Stable, so equals stay in the order of distance.
    found.sort_by_key(|agf| std::cmp::Reverse(agf.longest.min(available(staging, agf)).min(wanted)));
    Ok(found)
}

/// Blocks of the group that may be taken.
fn available(staging: &Staging<'_>, agf: &Agf) -> u32 {
    let superblock = &staging.xfs.superblock;
    let length = superblock.geometry.ag_length(agf.ag).unwrap_or_default();
    let grows_more = superblock.features.has_reverse_map() || superblock.features.has_reflink();
    let reserve = RESERVE.saturating_add(if grows_more { length / RESERVE_PART } else { 0 });
    agf.free_blocks.saturating_sub(reserve)
}

/// Tries the longest extents of the group, the longest first: another one may fit the trees where that does
/// not.
fn take_in_group(staging: &mut Staging<'_>, agf: &Agf, owner: Owner, wanted: u32) -> Result<Taken> {
    let mut reason = full();
    for free in longest(staging, agf)? {
        let mut trial = staging.clone();
        match take_from(&mut trial, agf.clone(), free, owner, wanted) {
            Ok(taken) => {
                *staging = trial;
                return Ok(taken);
            }
            Err(unsupported @ Error::Unsupported { .. }) => reason = unsupported,
            Err(error) => return Err(error),
        }
    }
    Err(reason)
}

/// Takes blocks from the end of one free extent.
fn take_from(
    staging: &mut Staging<'_>,
    mut agf: Agf,
    free: FreeExtent,
    owner: Owner,
    wanted: u32,
) -> Result<Taken> {
    let count = wanted.min(free.count).min(available(staging, &agf));
    let rest = free.count.saturating_sub(count);
    let (old, new) = (free.encode(), FreeExtent { count: rest, ..free }.encode());
    for kind in [Kind::FreeByBlock, Kind::FreeBySize] {
        match rest {
            0 => btree::remove(staging, &mut agf, kind, &old)?,
            _ => btree::replace(staging, &mut agf, kind, &old, &new)?,
        }
    }
    let start = free.start.saturating_add(rest);
    if staging.xfs.superblock.features.has_reverse_map() {
        own(staging, &mut agf, Owned { start, count, owner: owner.inode, offset: owner.start })?;
    }
    agf.free_blocks = agf.free_blocks.saturating_sub(count);
    agf.longest = free_by_size(staging, &agf)?.last().map_or(0, |free| free.count);
    let block = staging.xfs.superblock.geometry.join(AgBlock { ag: agf.ag, block: start });
    agf.write(staging);
    take_from_superblock(staging, u64::from(count))?;
    Ok(Taken { block, count: u64::from(count) })
}

/// A record of the free space trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FreeExtent {
    start: u32,
    count: u32,
}

impl FreeExtent {
    fn decode(record: &[u8]) -> Self {
        let span = Span::new("free extent", 0, record);
        Self {
            start: span.u32(0, "ar_startblock").unwrap_or_default(),
            count: span.u32(4, "ar_blockcount").unwrap_or_default(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        [self.start.to_be_bytes(), self.count.to_be_bytes()].concat()
    }
}

/// The longest free extents, ascending: the last leaf of the tree by size.
fn free_by_size(staging: &Staging<'_>, agf: &Agf) -> Result<Vec<FreeExtent>> {
    let records = Tree::of(agf, Kind::FreeBySize)?.records(staging, Key::LAST)?.records;
    Ok(records.iter().map(|record| FreeExtent::decode(record)).collect())
}

/// The longest free extents, descending; all lie within the group, and the first is as long as the AGF says.
fn longest(staging: &Staging<'_>, agf: &Agf) -> Result<Vec<FreeExtent>> {
    let length = staging.xfs.superblock.geometry.ag_length(agf.ag).unwrap_or_default();
    let mut found = free_by_size(staging, agf)?;
    let is_within = |free: &FreeExtent| {
        let end = free.start.checked_add(free.count);
        free.start > 0 && free.count > 0 && end.is_some_and(|end| end <= length)
    };
    if let Some(wrong) = found.iter().find(|free| !is_within(free)) {
        let expected = format!("a run within blocks 1..{length}");
        return Err(agf.span().corrupt("agf_cnt_root", expected, format_args!("{wrong:?}")).into());
    }
    let first = found.last().map_or(0, |free| free.count);
    if first != agf.longest {
        return Err(agf.span().corrupt("agf_longest", first, agf.longest).into());
    }
    found.reverse();
    found.truncate(MOST_TRIALS);
    Ok(found)
}

/// Adds a record to the reverse map.
fn own(staging: &mut Staging<'_>, agf: &mut Agf, owned: Owned) -> Result<()> {
    let record = owned.encode();
    let kind = Kind::ReverseMap;
    let near = Tree::of(agf, kind)?.records(staging, kind.order_of(&record))?;
    let end = owned.start.saturating_add(owned.count);
    for found in near.records.iter().map(|record| Owned::decode(record)) {
        let found_end = found.start.saturating_add(found.count);
        if found.start < end && owned.start < found_end {
            let (free, used) = (owned.start..end, found.start..found_end);
            let place = format!("blocks {used:?} with an owner");
            let expected = format!("free blocks {free:?} without one");
            return Err(Corrupt::new("reverse map", 0, "rm_startblock", expected, place).into());
        }
        if owned.is_continued_by(&found) || found.is_continued_by(&owned) {
            return Err(Error::unsupported("reverse map", "joining two records"));
        }
    }
    btree::insert(staging, agf, kind, &record)
}

/// The counter of the superblock, which the kernel trusts after a clean unmount.
fn take_from_superblock(staging: &mut Staging<'_>, count: u64) -> Result<()> {
    let superblock = &staging.xfs.superblock;
    let mut sector = staging.read(0, superblock.geometry.sector_size())?;
    let span = Span::new("superblock", 0, &sector);
    let free = span.u64(superblock::FREE_BLOCKS_AT, "sb_fdblocks")?;
    let rest = free.checked_sub(count).ok_or_else(|| {
        span.corrupt("sb_fdblocks", format_args!("at least the {count} free blocks of one group"), free)
    })?;
    put(&mut sector, superblock::FREE_BLOCKS_AT, &rest.to_be_bytes());
    if superblock.features.crc {
        put_crc(&mut sector, superblock::CRC_AT);
    }
    staging.write(0, sector);
    Ok(())
}
