//! When a file must not be replaced, said before anything is written.

use std::collections::HashSet;

use ondisk::{Corrupt, Error, Result, le};

use crate::disk::Disk;
use crate::features::{incompat, ro_compat};
use crate::inode::{self, Inode, flags};
use crate::journal::Journal;
use crate::mmp;
use crate::superblock::{PRIMARY, RawSuperblock, STATE_ERROR, STATE_VALID};
use crate::units::FsBlock;

/// An error that gives the reason.
pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::unsupported("replacing a file", reason)
}

/// Refuses a file system that is not clean, or that this code cannot keep clean. Returns its journal, whose
/// blocks must not be touched either.
pub(super) fn judge_file_system<'a>(disk: &'a Disk, raw: &RawSuperblock) -> Result<Option<Journal<'a>>> {
    let features = disk.superblock.features;
    if features.has_incompat(incompat::RECOVER) {
        return Err(refused("a journal that was not replayed (needs_recovery)"));
    }
    if raw.s_state.get() & STATE_ERROR != 0 {
        return Err(refused("a file system in which the kernel has met damage (s_state)"));
    }
    if raw.s_state.get() & STATE_VALID == 0 {
        return Err(refused("a file system that was not unmounted and has no journal (s_state)"));
    }
    let unwritable = features.unwritable();
    if !unwritable.is_empty() {
        return Err(refused(format!("the feature {}", unwritable.join(", "))));
    }
    if features.has_incompat(incompat::MMP) {
        let block = FsBlock(raw.s_mmp_block.get());
        if !disk.superblock.holds(block, 1) {
            let expected = format!("within {} blocks", disk.superblock.blocks);
            return Err(Corrupt::new("superblock", PRIMARY, "s_mmp_block", expected, block).into());
        }
        if mmp::is_in_use(&*disk.device, disk.offset_of(block))? {
            return Err(refused("a file system that is in use (mmp)"));
        }
    }
    let journal = disk.superblock.journal_inode.map(|number| Journal::open(disk, number)).transpose()?;
    if journal.as_ref().is_some_and(|journal| !journal.is_empty()) {
        return Err(refused("a journal with transactions, although it needs no recovery"));
    }
    Ok(journal)
}

/// Refuses a file that is not an ordinary one.
pub(super) fn judge_inode(disk: &Disk, raw: &RawSuperblock, inode: &Inode) -> Result<()> {
    let quotas = [raw.s_usr_quota_inum, raw.s_grp_quota_inum, raw.s_prj_quota_inum].map(le::U32::get);
    let own = [disk.superblock.journal_inode, disk.superblock.orphan_inode];
    if inode.number < disk.superblock.first_inode
        || quotas.contains(&inode.number)
        || own.contains(&Some(inode.number))
        || inode.has_flag(flags::EA_INODE)
    {
        return Err(refused("a file that belongs to the file system itself"));
    }
    let reasons = [
        (flags::IMMUTABLE, "an immutable file"),
        (flags::APPEND, "an append-only file"),
        (flags::ENCRYPT, "an encrypted file"),
        (flags::VERITY, "a file with fs-verity"),
    ];
    if let Some((_, reason)) = reasons.iter().find(|(flag, _)| inode.has_flag(*flag)) {
        return Err(refused(*reason));
    }
    if inode.raw.i_links_count.get() == 0 {
        return Err(refused("a deleted file"));
    }
    if is_orphan(disk, raw, inode.number)? {
        return Err(refused("a file that the kernel will truncate at the next mount (orphan)"));
    }
    Ok(())
}

/// Whether the list that begins in the superblock names this inode. `i_dtime` holds the next number.
fn is_orphan(disk: &Disk, raw: &RawSuperblock, number: u32) -> Result<bool> {
    let mut next = raw.s_last_orphan.get();
    let mut seen = HashSet::new();
    while next != 0 {
        if next == number {
            return Ok(true);
        }
        let orphan = disk.inode(next)?;
        if !seen.insert(next) {
            let (structure, offset) = (inode::STRUCTURE, orphan.offset);
            return Err(Corrupt::new(structure, offset, "i_dtime", "an end of the orphan list", next).into());
        }
        next = orphan.raw.i_dtime.get();
    }
    Ok(false)
}

/// Refuses to change how many blocks files have, where somebody else keeps count.
pub(super) fn judge_allocation(disk: &Disk) -> Result<()> {
    if disk.superblock.features.has_ro_compat(ro_compat::QUOTA) {
        return Err(refused("another number of blocks with the feature quota"));
    }
    Ok(())
}
