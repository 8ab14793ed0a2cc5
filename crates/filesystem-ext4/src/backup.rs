//! Copies of the superblock and of the group descriptors, at the start of some block groups.
//!
//! Linux `Documentation/filesystems/ext4/super.rst` and `group_descr.rst`. `mke2fs`, `tune2fs`, `resize2fs` and
//! `e2fsck` write them; in daily work only the primary ones are written. So what must agree is what never
//! changes by itself: sizes, places, features that forbid reading, and the UUID.

use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Overlay};
use ondisk::{Corrupt, Error, Parsed, Result, read_value};
use zerocopy::IntoBytes;

use crate::disk::Disk;
use crate::features::{compat, incompat, ro_compat};
use crate::group_descriptor::GroupDescriptor;
use crate::journal::Journal;
use crate::superblock::{PRIMARY, RawSuperblock, Superblock};
use crate::units::{BlockSize, FsBlock, widen};

/// The name of a copy in errors.
const STRUCTURE: &str = "backup superblock";

/// Copies of the superblock that are looked at: with sparse_super even the largest file system has fewer.
const MAX_COPIES: usize = 64;

/// Group descriptors that are compared with their first copy: 1 MiB of them.
const MAX_DESCRIPTORS: u32 = 16384;

/// Descriptors that differ from their copy and are reported one by one.
const MAX_PROBLEMS: usize = 16;

/// Groups that have a copy in nearly every file system.
const USUAL_GROUPS: [u32; 12] = [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343];

/// A copy of the superblock that can be used in place of the primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// The group that begins with it.
    pub group: u32,
    /// Its first byte on the device.
    pub offset: u64,
}

/// The groups besides the first that begin with a copy, ascending; not all where there are very many.
fn groups_with_copies(superblock: &Superblock) -> Vec<u32> {
    let mut groups: Vec<u32> = if superblock.features.has_compat(compat::SPARSE_SUPER2) {
        superblock.backup_groups.into_iter().filter(|group| *group > 0).collect()
    } else if superblock.features.has_ro_compat(ro_compat::SPARSE_SUPER) {
        let powers = |base: u32| std::iter::successors(Some(base), move |power| power.checked_mul(base));
        std::iter::once(1).chain([3, 5, 7].into_iter().flat_map(powers)).collect()
    } else {
        (1..superblock.groups).take(MAX_COPIES).collect()
    };
    groups.retain(|group| *group < superblock.groups);
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(MAX_COPIES);
    groups
}

fn place(superblock: &Superblock, group: u32) -> Backup {
    let first = superblock.group_blocks(group).0;
    Backup { group, offset: superblock.block_size.offset_of(first) }
}

/// What is wrong with the copies of the superblock, and with the first copy of the group descriptors.
pub(crate) fn problems(disk: &Disk, primary: &RawSuperblock) -> Vec<Error> {
    let superblock = &disk.superblock;
    let mut problems: Vec<Error> = Vec::new();
    let mut first_good = None;
    for group in groups_with_copies(superblock) {
        let backup = place(superblock, group);
        // A device that lost its end has said so already.
        if backup.offset.saturating_add(PRIMARY) > disk.device.size() {
            break;
        }
        match judge_copy(disk, primary, backup) {
            Ok(()) => first_good = first_good.or(Some(group)),
            Err(error) => problems.push(error),
        }
    }
    if let Some(group) = first_good {
        problems.extend(descriptor_problems(disk, group));
    }
    problems
}

fn judge_copy(disk: &Disk, primary: &RawSuperblock, backup: Backup) -> Result<()> {
    let copy: RawSuperblock = read_value(&*disk.device, backup.offset)?;
    compare(primary, &copy, backup)?;
    Ok(())
}

fn compare(primary: &RawSuperblock, copy: &RawSuperblock, backup: Backup) -> Result<(), Corrupt> {
    let corrupt = |field, expected: u64, found: u64| {
        let expected = format!("{expected}, as in the primary one");
        Corrupt::new(STRUCTURE, backup.offset, field, expected, found)
    };
    // Linux and tune2fs set these in the primary one alone.
    let readers = |raw: &RawSuperblock| raw.features().incompat & !(incompat::RECOVER | incompat::EXTENTS);
    let fields = [
        ("s_magic", primary.s_magic.get().into(), copy.s_magic.get().into()),
        ("s_rev_level", primary.s_rev_level.get().into(), copy.s_rev_level.get().into()),
        ("s_log_block_size", primary.s_log_block_size.get().into(), copy.s_log_block_size.get().into()),
        ("s_log_cluster_size", primary.s_log_cluster_size.get().into(), copy.s_log_cluster_size.get().into()),
        ("s_first_data_block", primary.s_first_data_block.get().into(), copy.s_first_data_block.get().into()),
        ("s_blocks_per_group", primary.s_blocks_per_group.get().into(), copy.s_blocks_per_group.get().into()),
        ("s_inodes_per_group", primary.s_inodes_per_group.get().into(), copy.s_inodes_per_group.get().into()),
        ("s_blocks_count", primary.blocks_count(), copy.blocks_count()),
        ("s_inodes_count", primary.s_inodes_count.get().into(), copy.s_inodes_count.get().into()),
        ("s_inode_size", primary.s_inode_size.get().into(), copy.s_inode_size.get().into()),
        ("s_desc_size", primary.s_desc_size.get().into(), copy.s_desc_size.get().into()),
        ("s_first_meta_bg", primary.s_first_meta_bg.get().into(), copy.s_first_meta_bg.get().into()),
        ("s_feature_incompat", readers(primary).into(), readers(copy).into()),
    ];
    for (field, expected, found) in fields {
        if expected != found {
            return Err(corrupt(field, expected, found));
        }
    }
    if primary.s_uuid != copy.s_uuid {
        let text = |raw: &RawSuperblock| raw.uuid().map_or("none".to_owned(), |uuid| uuid.to_string());
        let expected = format!("{}, as in the primary one", text(primary));
        return Err(Corrupt::new(STRUCTURE, backup.offset, "s_uuid", expected, text(copy)));
    }
    let [low, high, ..] = backup.group.to_le_bytes();
    let own = u16::from_le_bytes([low, high]);
    // Revision 0 has no such field.
    if copy.s_rev_level.get() > 0 && copy.s_block_group_nr.get() != own {
        return Err(Corrupt::new(
            STRUCTURE,
            backup.offset,
            "s_block_group_nr",
            own,
            copy.s_block_group_nr.get(),
        ));
    }
    copy.verify_checksum_at(STRUCTURE, backup.offset)
}

/// What differs between the group descriptors and their copies behind the superblock in `backup`, or with
/// meta_bg those in the second group of each metagroup.
fn descriptor_problems(disk: &Disk, backup: u32) -> Vec<Error> {
    let mut problems = Vec::new();
    for group in 0..disk.superblock.groups.min(MAX_DESCRIPTORS) {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        match compare_descriptor(disk, group, backup) {
            Ok(None) => {}
            Ok(Some(corrupt)) => problems.push(corrupt.into()),
            Err(error) => {
                problems.push(error);
                break;
            }
        }
    }
    problems
}

fn compare_descriptor(disk: &Disk, group: u32, backup: u32) -> Result<Option<Corrupt>> {
    const STRUCTURE: &str = "backup group descriptor";
    let Some(copy) = disk.group_copy(group, backup)? else { return Ok(None) };
    let primary = disk.group(group)?;
    if disk.judge_group(&primary).is_err() {
        // That one is reported by itself.
        return Ok(None);
    }
    let fields = [
        ("bg_block_bitmap", primary.block_bitmap(), copy.block_bitmap()),
        ("bg_inode_bitmap", primary.inode_bitmap(), copy.inode_bitmap()),
        ("bg_inode_table", primary.inode_table(), copy.inode_table()),
    ];
    for (field, expected, found) in fields {
        if expected != found {
            let expected = format!("{expected}, as in the primary one of group {group}");
            return Ok(Some(Corrupt::new(STRUCTURE, copy.offset, field, expected, found)));
        }
    }
    let checked = copy.verify_checksum(disk.superblock.checksums);
    Ok(checked.err().map(|corrupt| Corrupt { structure: STRUCTURE, ..corrupt }))
}

/// Good copies of the superblock, without help from the primary one: at the places where `mke2fs` puts them by
/// itself. At most 16, all of the file system that the first one tells of.
///
/// # Errors
/// `Io`.
pub fn find(device: &dyn BlockDevice) -> Result<Vec<Backup>> {
    let mut found: Vec<(Backup, [u8; 16])> = Vec::new();
    for (offset, log) in candidates(device.size()) {
        if found.len() >= MAX_PROBLEMS {
            break;
        }
        let raw: RawSuperblock = read_value(device, offset)?;
        let Some(backup) = recognise(&raw, offset, log) else { continue };
        if found.iter().all(|(other, uuid)| *uuid == raw.s_uuid && other.offset != offset) {
            found.push((backup, raw.s_uuid));
        }
    }
    Ok(found.into_iter().map(|(backup, _)| backup).collect())
}

/// Places that lie on the device, with the logarithm of the block size that makes each of them one.
fn candidates(size: u64) -> Vec<(u64, u32)> {
    let mut places = Vec::new();
    for log in 0..=6 {
        let Some(block_size) = BlockSize::from_log(log) else { continue };
        let first = u64::from(log == 0);
        // With bigalloc a bit of the bitmap stands for a cluster, usually of 16 blocks.
        for cluster in [0, 4, 1, 2, 3, 5, 6, 7, 8] {
            let Some(blocks) = block_size.bytes().checked_mul(8).and_then(|bits| bits.checked_shl(cluster))
            else {
                continue;
            };
            // A block of 64 KiB of bitmap would have one bit more than a group can have blocks.
            let blocks =
                if cluster == 0 { blocks.min(65528.max(blocks.saturating_sub(8 << 16))) } else { blocks };
            let last = block_size.split(size).0.checked_div(blocks).unwrap_or(0);
            let last = u32::try_from(last).unwrap_or(0);
            for group in USUAL_GROUPS.into_iter().chain([last.saturating_sub(1), last]) {
                let block = FsBlock(first.saturating_add(blocks.saturating_mul(group.into())));
                let offset = block_size.offset_of(block);
                if group > 0 && offset.saturating_add(PRIMARY) <= size {
                    places.push((offset, log));
                }
            }
        }
    }
    places
}

/// Whether these bytes are a copy that says of itself that it lies here.
fn recognise(raw: &RawSuperblock, offset: u64, log: u32) -> Option<Backup> {
    let superblock = Superblock::decode(raw).ok()?;
    if raw.s_log_block_size.get() != log || raw.verify_checksum().is_err() {
        return None;
    }
    let (block, within) = superblock.block_size.split(offset);
    let group = superblock.group_of(FsBlock(block)).filter(|_| within == 0)?;
    let backup = place(&superblock, group);
    let [low, high, ..] = group.to_le_bytes();
    let is_own = raw.s_rev_level.get() == 0 || raw.s_block_group_nr.get() == u16::from_le_bytes([low, high]);
    (backup.offset == offset && superblock.has_superblock(group) && is_own).then_some(backup)
}

/// The device with the primary superblock and the group descriptors made good from their copies, in memory, and
/// what was wrong with them; the same device when nothing was. Neither a boot loader nor the kernel does that:
/// this is what `e2fsck -b` would begin with.
///
/// # Errors
/// `Io`; `Corrupt` when the primary superblock cannot be understood, or its checksum is wrong, and there is no
/// good copy; `Unsupported` for a feature that this code cannot read.
pub fn restored(device: Device) -> Result<Parsed<Device>> {
    let mut problems: Vec<Error> = Vec::new();
    let overlay = Arc::new(Overlay::new(device.clone()));
    let intact = Disk::open(device.clone()).and_then(|opened| {
        let raw: RawSuperblock = read_value(&*device, PRIMARY)?;
        raw.verify_checksum()?;
        Ok(opened)
    });
    let disk = match intact {
        Ok(opened) => {
            problems.extend(opened.problems);
            Disk::new(overlay.clone(), opened.value.superblock)
        }
        Err(error @ Error::Corrupt(_)) => {
            let Some(backup) = find(&*device)?.first().copied() else { return Err(error) };
            problems.push(error);
            let superblock = take_superblock(&overlay, backup)?;
            Disk::new(overlay.clone(), superblock)
        }
        Err(error) => return Err(error),
    };
    let mut is_changed = !problems.is_empty();
    for group in 0..disk.superblock.groups {
        let Ok(primary) = disk.group(group) else { break };
        let Err(corrupt) = disk.judge_group(&primary) else { continue };
        if let Some(copy) = disk.good_copy(group)? {
            put(&overlay, primary.offset, &copy.moved_to(primary.offset).encode(disk.superblock.checksums))?;
            is_changed = true;
        }
        if problems.len() < MAX_PROBLEMS {
            problems.push(corrupt.into());
        }
    }
    let device: Device = if is_changed { overlay } else { device };
    Ok(Parsed { value: device, problems })
}

/// Puts a copy in place of the primary superblock. Copies never say that there is something in the journal.
fn take_superblock(overlay: &Arc<Overlay>, backup: Backup) -> Result<Superblock> {
    let mut raw: RawSuperblock = read_value(&**overlay, backup.offset)?;
    raw.s_block_group_nr.set(0);
    let superblock = Superblock::decode(&raw)?;
    let disk = Disk::new(overlay.clone(), superblock);
    let is_dirty = disk
        .superblock
        .journal_inode
        .is_some_and(|number| Journal::open(&disk, number).is_ok_and(|journal| !journal.is_empty()));
    if is_dirty {
        raw.s_feature_incompat.set(raw.s_feature_incompat.get() | incompat::RECOVER);
    }
    raw.stamp();
    put(overlay, PRIMARY, raw.as_bytes())?;
    Superblock::decode(&raw)
}

fn put(overlay: &Overlay, offset: u64, bytes: &[u8]) -> Result<()> {
    let length = widen(bytes.len());
    overlay.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, length, source })
}

/// Adds to damage of the primary superblock where good copies are.
pub(crate) fn with_hint(device: &dyn BlockDevice, error: Error) -> Error {
    let Error::Corrupt(mut corrupt) = error else { return error };
    if let Ok(backups) = find(device)
        && !backups.is_empty()
    {
        let places: Vec<String> = backups
            .iter()
            .take(4)
            .map(|backup| format!("byte {} (group {})", backup.offset, backup.group))
            .collect();
        corrupt.expected = format!("{}; good copies lie at {}", corrupt.expected, places.join(", "));
    }
    Error::Corrupt(corrupt)
}

impl Disk {
    /// A copy of a group's descriptor: that behind the superblock in group `backup`, or with meta_bg that in the
    /// second group of the metagroup. `None` where there is none on the device.
    pub(crate) fn group_copy(&self, group: u32, backup: u32) -> Result<Option<GroupDescriptor>> {
        let Some(offset) = GroupDescriptor::copy_offset(&self.superblock, group, backup) else {
            return Ok(None);
        };
        let length = usize::from(self.superblock.descriptor_size);
        if offset.saturating_add(widen(length)) > self.device.size() {
            return Ok(None);
        }
        let bytes = ondisk::read_bytes(&*self.device, offset, length)?;
        Ok(Some(GroupDescriptor::decode(&self.superblock, group, bytes).moved_to(offset)))
    }

    /// The first copy of a group's descriptor that nothing is wrong with.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn good_copy(&self, group: u32) -> Result<Option<GroupDescriptor>> {
        for backup in groups_with_copies(&self.superblock).into_iter().take(4) {
            if let Some(copy) = self.group_copy(group, backup)?
                && self.judge_group(&copy).is_ok()
                && copy.inode_table().0 != 0
            {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }
}
