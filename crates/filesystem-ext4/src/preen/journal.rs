//! The journal: what the program does about it before anything else, also in a file system that is marked clean.

use std::sync::Arc;

use blockdev::{BlockDeviceMut, Overlay};
use filesystem::FileKind;
use ondisk::crc32c_raw;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::opening::{Opened, decode, has_journal};
use super::state::{Findings, Stop};
use crate::features::incompat;
use crate::inode::{Inode, flags};
use crate::journal::superblock::RawSuperblock as RawJournal;
use crate::mapping;
use crate::recover;
use crate::superblock::{RawSuperblock, STATE_ERROR, STATE_VALID};
use crate::units::{FsBlock, to_usize};

/// The inode that every journal has had for twenty years.
const NUMBER: u32 = 8;

/// `s_jnl_backup_type`: a copy of the map.
const COPY_OF_MAP: u8 = 1;

/// No journal is shorter, in blocks.
const MIN_BLOCKS: u64 = 1024;

/// `h_magic`.
const MAGIC: u32 = 0xc03b_3998;

/// Bits of the journal's `s_feature_incompat` that the program knows.
const KNOWN_INCOMPAT: u32 = 0x3f;

/// Bits of `s_feature_incompat`: two kinds of checksums of blocks, and fast commits.
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;

/// What has become of the file system.
pub(super) struct Followed {
    pub(super) opened: Opened,
    /// Something was corrected, which makes a check necessary.
    pub(super) is_check_forced: bool,
}

/// Looks at the journal, and replays it if that is to be done.
pub(super) fn follow(opened: Opened, findings: &mut Findings) -> Result<Followed, Stop> {
    let mut followed = Followed { opened, is_check_forced: false };
    judge(&mut followed, findings)?;
    findings.settle()?;
    let opened = &followed.opened;
    if followed.opened.is_journal_gone || !opened.disk.superblock.features.has_incompat(incompat::RECOVER) {
        return Ok(followed);
    }
    let replayed = recover::replay(opened.disk.device.clone())
        .map_err(|error| Stop::unknown(format!("the journal cannot be replayed: {error:#}")))?;
    let raw =
        RawSuperblock::read(&*replayed.device)?.ok_or_else(|| Stop::unknown("no superblock after replay"))?;
    let mut again =
        Followed { opened: decode(replayed.device, raw)?, is_check_forced: followed.is_check_forced };
    judge(&mut again, findings)?;
    findings.settle()?;
    Ok(again)
}

fn judge(followed: &mut Followed, findings: &mut Findings) -> Result<(), Stop> {
    let raw = &followed.opened.raw;
    let is_recovering = followed.opened.disk.superblock.features.has_incompat(incompat::RECOVER);
    let is_external = raw.s_journal_uuid != [0; 16];
    if !has_journal(&followed.opened)
        && !is_recovering
        && !is_external
        && raw.s_journal_inum.get() == 0
        && raw.s_journal_dev.get() == 0
    {
        return Ok(());
    }
    if is_external {
        return Err(Stop::unknown("a journal on another device"));
    }
    let number = raw.s_journal_inum.get();
    if number == 0 && !is_recovering && !has_journal(&followed.opened) {
        return Ok(());
    }
    if followed.opened.place(number).is_none() {
        take_away(followed);
        return Ok(());
    }
    let Some(first) = find(followed, number, findings)? else {
        take_away(followed);
        return Ok(());
    };
    judge_superblock(followed, first, findings)?;
    if number != NUMBER && !followed.opened.is_journal_gone {
        return Err(findings.unknown(format!("a journal in inode {number}")));
    }
    Ok(())
}

/// The journal is deleted: what is left of it goes in the check that follows.
fn take_away(followed: &mut Followed) {
    let opened = &mut followed.opened;
    opened.is_journal_gone = true;
    opened.raw.s_journal_inum.set(0);
    opened.raw.s_state.set(opened.raw.s_state.get() & !STATE_VALID);
    followed.is_check_forced = true;
}

/// The first block of the journal and the length of it; `None` for an inode that cannot be one. A copy of the map
/// may stand in for it.
fn find(
    followed: &mut Followed,
    number: u32,
    findings: &mut Findings,
) -> Result<Option<(FsBlock, u64)>, Stop> {
    let opened = &followed.opened;
    let superblock = &opened.disk.superblock;
    let has_copy = opened.raw.s_jnl_backup_type == COPY_OF_MAP;
    let Some(bytes) = opened.inode_bytes(number)? else {
        if !superblock.features.has_incompat(incompat::RECOVER) {
            findings.by_hand("the inode table with the journal lies beyond the device")?;
            return Err(Stop::ByHand);
        }
        return Err(Stop::unknown("the inode of the journal lies beyond the device"));
    };
    let inode = match Inode::decode(superblock, number, 0, bytes) {
        Ok(inode) => Some(inode),
        Err(corrupt) if corrupt.field != "checksum" => {
            return Err(Stop::unknown(format!("the journal: {corrupt}")));
        }
        Err(_) if !has_copy => {
            findings
                .by_hand("the inode of the journal is damaged, and the superblock has no copy of its map")?;
            return Err(Stop::ByHand);
        }
        Err(_) => None,
    };
    if let Some(inode) = &inode
        && let Some(found) = first_block(opened, inode)?
    {
        return Ok(Some(found));
    }
    let copy = opened.raw.s_jnl_blocks;
    let (map, size) = copy.as_bytes().split_at_checked(60).unwrap_or_default();
    // The program takes the copy for a block map, and a copy of an extent tree makes no sense as that.
    if !has_copy || crate::extent_tree::is_root(map) {
        return Ok(None);
    }
    if superblock.checksums.seed().is_some() || number != NUMBER {
        return Err(Stop::unknown("a copy of the journal's map, and checksums"));
    }
    let Some(mut restored) = opened.inode_bytes(number)? else { return Ok(None) };
    let mut base = crate::inode::RawInode::new_zeroed();
    base.i_block.copy_from_slice(map);
    let word =
        |at: usize| size.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    base.i_size_high = word(0).into();
    base.i_size_lo = word(4).into();
    base.i_links_count.set(1);
    base.i_mode.set(0o100_600);
    crate::bytes::copy_common(&mut restored, base.as_bytes());
    let Ok(inode) = Inode::decode(superblock, number, 0, restored.clone()) else {
        return Err(Stop::unknown("the copy of the journal's map"));
    };
    let Some(found) = first_block(opened, &inode)? else { return Ok(None) };
    restore(followed, number, &restored)?;
    Ok(Some(found))
}

/// Writes the inode of the journal as the program does.
fn restore(followed: &mut Followed, number: u32, bytes: &[u8]) -> Result<(), Stop> {
    let opened = &mut followed.opened;
    let Some((group, index)) = opened.place(number) else { return Ok(()) };
    let Some(group) = opened.groups.get(to_usize(group)) else { return Ok(()) };
    let within = u64::from(index).saturating_mul(opened.disk.superblock.inode_size.into());
    let offset = opened.disk.offset_of(group.inode_table).saturating_add(within);
    let overlay = Arc::new(Overlay::new(opened.disk.device.clone()));
    overlay.write_all_at(bytes, offset).map_err(|_| Stop::unknown("the inode of the journal"))?;
    opened.disk.device = overlay;
    Ok(())
}

fn first_block(opened: &Opened, inode: &Inode) -> Result<Option<(FsBlock, u64)>, Stop> {
    let superblock = &opened.disk.superblock;
    let blocks = superblock.block_size.split(inode.size).0;
    if inode.raw.i_links_count.get() == 0
        || inode.kind() != FileKind::Regular
        || inode.has_flag(flags::ENCRYPT)
        || blocks < MIN_BLOCKS
    {
        return Ok(None);
    }
    if inode.has_flag(flags::INLINE_DATA) {
        return Err(Stop::unknown("the journal is said to lie in its inode"));
    }
    let mut first = None;
    let mut next = 0;
    let end = superblock.block_size.blocks_for(inode.size);
    mapping::runs(&opened.disk, inode, 0..end, &mut |run| {
        if run.logical == 0 {
            first = Some(run.physical);
        }
        if run.logical == next {
            next = run.end();
        }
        Ok(())
    })
    .map_err(|error| Stop::unknown(format!("the map of the journal: {error:#}")))?;
    Ok(first.filter(|_| next >= end).map(|first| (first, blocks)))
}

fn judge_superblock(
    followed: &mut Followed,
    (first, blocks): (FsBlock, u64),
    findings: &mut Findings,
) -> Result<(), Stop> {
    let opened = &followed.opened;
    let offset = opened.disk.offset_of(first);
    if offset.saturating_add(opened.disk.superblock.block_size.bytes()) > opened.disk.device.size() {
        return Err(Stop::unknown("the journal lies beyond the device"));
    }
    let bytes = opened.disk.block(first)?;
    let Ok((mut raw, _)) = RawJournal::read_from_prefix(&bytes) else { return Ok(()) };
    if raw.s_header.h_magic.get() != MAGIC {
        take_away(followed);
        return Ok(());
    }
    let mut is_bad = false;
    match raw.s_header.h_blocktype.get() {
        3 => {
            raw.s_feature_compat.set(0);
            raw.s_feature_incompat.set(0);
            raw.s_feature_ro_compat.set(0);
        }
        4 => {}
        1 | 2 | 5 => is_bad = true,
        other => findings.by_hand(format!("the journal's superblock is of the unknown type {other}"))?,
    }
    let incompat = raw.s_feature_incompat.get();
    if !is_bad && (incompat & !KNOWN_INCOMPAT != 0 || raw.s_feature_ro_compat.get() != 0) {
        let ro_compat = raw.s_feature_ro_compat.get();
        findings.by_hand(format!(
            "the program does not know the journal's features incompat:{incompat:#x} ro_compat:{ro_compat:#x}"
        ))?;
    }
    findings.settle()?;
    if !is_bad {
        let size = opened.disk.superblock.block_size.bytes();
        is_bad = has_bad_checksums(&raw)
            || u64::from(raw.s_blocksize.get()) != size
            || u64::from(raw.s_maxlen.get()) > blocks
            || has_bad_fast_commits(&raw);
    }
    if is_bad && !has_journal(opened) {
        take_away(followed);
        return Ok(());
    }
    if is_bad {
        // Reset: the log counts as empty.
        followed.is_check_forced = true;
        let opened = &mut followed.opened;
        opened.disk.superblock.features.incompat &= !incompat::RECOVER;
        return Ok(());
    }
    if !has_journal(opened) {
        take_away(followed);
        return Ok(());
    }
    let is_recovering = opened.disk.superblock.features.has_incompat(incompat::RECOVER);
    if is_recovering {
        return Ok(());
    }
    if raw.s_start.get() != 0 {
        findings.by_hand("the journal is not empty, and the superblock says that it is")?;
    }
    if raw.s_errno.get() != 0 {
        let state = &mut followed.opened.raw.s_state;
        state.set(state.get() | STATE_ERROR);
        followed.is_check_forced = true;
    }
    Ok(())
}

fn has_bad_checksums(raw: &RawJournal) -> bool {
    let features = raw.s_feature_incompat.get() & (CSUM_V2 | CSUM_V3);
    if features == 0 {
        return false;
    }
    let mut zeroed = raw.clone();
    zeroed.s_checksum.set(0);
    features == CSUM_V2 | CSUM_V3
        || raw.s_feature_compat.get() & 1 != 0
        || raw.s_checksum_type != 4
        || crc32c_raw(!0, zeroed.as_bytes()) != raw.s_checksum.get()
}

fn has_bad_fast_commits(raw: &RawJournal) -> bool {
    if raw.s_feature_incompat.get() & FAST_COMMIT == 0 {
        return false;
    }
    let blocks = if raw.s_num_fc_blks.get() == 0 { 256 } else { raw.s_num_fc_blks.get() };
    // The program's subtraction may wrap, which then counts as enough.
    u64::from(raw.s_maxlen.get().wrapping_sub(blocks)) < MIN_BLOCKS
}
