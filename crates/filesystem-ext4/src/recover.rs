//! What the kernel does to a file system before it uses it, done in memory.

use std::sync::Arc;

use blockdev::{BlockDeviceMut, Device, Overlay};
use filesystem::Replayed;
use ondisk::{Corrupt, Error, Result, read_value};
use zerocopy::IntoBytes;

use crate::disk::Disk;
use crate::fast_commit;
use crate::features::{incompat, ro_compat};
use crate::journal::Journal;
use crate::orphan_file;
use crate::superblock::{PRIMARY, RawSuperblock, STATE_ERROR, Superblock};

/// The device with the journal's complete transactions and fast commits in place, the log empty and the counters of the
/// superblock made to agree with the groups; the same device where nothing is to be done. Orphans stay for the
/// kernel to delete: an orphan file that holds none is only marked as empty.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    let disk = Disk::open(device.clone())?.value;
    let features = disk.superblock.features;
    let needs_recovery = features.has_incompat(incompat::RECOVER);
    if !needs_recovery && !has_empty_orphan_file(&disk)? {
        return Ok(Replayed { device, transactions: 0 });
    }
    let before: RawSuperblock = read_value(&*device, PRIMARY)?;
    // What is written back must not make a damaged superblock look good.
    before.verify_checksum()?;
    let overlay = Arc::new(Overlay::new(device));
    let recovered = if needs_recovery { apply_journal(&disk, &overlay)? } else { Recovered::default() };
    settle(&before, &overlay, recovered.has_failed)?;
    Ok(Replayed { device: overlay, transactions: recovered.transactions })
}

#[derive(Default)]
struct Recovered {
    transactions: u64,
    /// Whether an error had stopped the journal.
    has_failed: bool,
}

fn apply_journal(disk: &Disk, overlay: &Arc<Overlay>) -> Result<Recovered> {
    let superblock = &disk.superblock;
    let Some(number) = superblock.journal_inode else {
        if superblock.features.has_compat(crate::features::compat::HAS_JOURNAL) {
            return Err(Error::unsupported("superblock", "a journal on another device (s_journal_dev)"));
        }
        let (field, expected) = ("s_feature_incompat", "no needs_recovery without has_journal");
        return Err(Corrupt::new("superblock", PRIMARY, field, expected, "needs_recovery").into());
    };
    let journal = Journal::open(disk, number)?;
    let recovery = journal.recover()?;
    for copy in &recovery.copies {
        let target = disk.judge_target(copy.tag.block)?;
        write(overlay, disk.offset_of(target), &journal.copy(copy)?)?;
    }
    // One more than comes next, so that what is left in the log cannot continue it.
    let (offset, emptied) = journal.emptied(recovery.next_sequence.wrapping_add(1))?;
    write(overlay, offset, emptied.as_bytes())?;
    let fast = &recovery.fast_commits;
    if fast.commits > 0 {
        fast_commit::apply(overlay, &fast.changes)?;
    }
    let transactions = recovery.transactions.saturating_add(fast.commits);
    Ok(Recovered { transactions, has_failed: journal.has_failed() })
}

/// Makes the superblock say that recovery is done. `before` is the one on the device: the kernel writes errors
/// there past the journal, so a copy from the journal may know less.
fn settle(before: &RawSuperblock, overlay: &Arc<Overlay>, has_failed: bool) -> Result<()> {
    let mut raw: RawSuperblock = read_value(&**overlay, PRIMARY)?;
    raw.s_errors_seen = before.s_errors_seen;
    let mut state = raw.s_state.get() | before.s_state.get() & STATE_ERROR;
    if has_failed {
        state |= STATE_ERROR;
    }
    raw.s_state.set(state);
    raw.s_feature_incompat.set(raw.s_feature_incompat.get() & !incompat::RECOVER);
    let disk = Disk::new(overlay.clone(), Superblock::decode(&raw)?);
    if has_empty_orphan_file(&disk)? {
        raw.s_feature_ro_compat.set(raw.s_feature_ro_compat.get() & !ro_compat::ORPHAN_PRESENT);
    }
    let mut free_blocks: u64 = 0;
    let mut free_inodes: u32 = 0;
    for group in 0..disk.superblock.groups {
        let group = disk.group(group)?;
        let blocks = u64::from(group.free_blocks()).saturating_mul(disk.superblock.cluster_blocks);
        free_blocks = free_blocks.saturating_add(blocks);
        free_inodes = free_inodes.saturating_add(group.free_inodes());
    }
    raw.set_free_blocks_count(free_blocks);
    raw.s_free_inodes_count.set(free_inodes);
    raw.stamp();
    write(overlay, PRIMARY, raw.as_bytes())
}

/// Whether the superblock says that the orphan file holds something, and it does not.
fn has_empty_orphan_file(disk: &Disk) -> Result<bool> {
    if !disk.superblock.features.has_ro_compat(ro_compat::ORPHAN_PRESENT) {
        return Ok(false);
    }
    disk.superblock.orphan_inode.map_or(Ok(false), |number| Ok(orphan_file::read(disk, number)?.is_empty()))
}

pub(crate) fn write(overlay: &Overlay, offset: u64, bytes: &[u8]) -> Result<()> {
    let length = crate::units::widen(bytes.len());
    overlay.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, length, source })
}
