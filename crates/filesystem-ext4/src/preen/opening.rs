//! Superblock, features and journal: whether the program takes the file system, and whether it checks it at all.

use std::collections::BTreeSet;

use blockdev::Device;
use ondisk::read_bytes;

use super::state::{Findings, Stop};
use super::{PreenOptions, fields, journal, orphans};
use crate::disk::Disk;
use crate::features::{Features, compat, incompat, ro_compat};
use crate::group_descriptor::{self, GroupDescriptor, INODE_UNINIT};
use crate::inode;
use crate::superblock::{MAGIC, PRIMARY, RawSuperblock, STATE_ERROR, STATE_VALID, Superblock};
use crate::units::{FsBlock, to_usize};

/// `compat`: growing online, with blocks kept for descriptors.
pub(super) const RESIZE_INODE: u32 = 0x10;

/// Features that differ between the copies of the superblock without harm: those that the kernel sets.
const UNLIKE_INCOMPAT: u32 = incompat::EXTENTS | incompat::RECOVER;
const UNLIKE_RO_COMPAT: u32 = ro_compat::LARGE_FILE | ro_compat::DIR_NLINK;

/// Groups whose descriptors are read: 32 TiB of usual ones.
const MAX_GROUPS: u32 = 1 << 18;

/// `bg_flags`: the block bitmap was never written.
const BLOCK_UNINIT: u16 = group_descriptor::BLOCK_UNINIT;

/// How far a clock may be behind what is stored: a day.
const FUDGE: i64 = 86_400;

/// What is known of a block group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) block_bitmap: FsBlock,
    pub(super) inode_bitmap: FsBlock,
    pub(super) inode_table: FsBlock,
    /// Nothing of its inodes was ever written.
    pub(super) is_uninit: bool,
    /// Inodes at the end of the table that were never used.
    pub(super) unused: u32,
}

/// A file system that the program has opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) raw: RawSuperblock,
    pub(super) groups: Vec<Group>,
    /// The journal was taken away for its damage, and its inode cleared.
    pub(super) is_journal_gone: bool,
    /// Inodes that were deleted on the way, as the list of orphans asked for.
    pub(super) deleted: BTreeSet<u32>,
    /// Whether the five passes are made.
    pub(super) is_checked: bool,
    /// Whether that also depends on the time, which is not known.
    pub(super) is_time_unknown: bool,
}

impl Opened {
    /// The group of an inode, and its number there from 0; `None` for a number that no inode has.
    pub(super) fn place(&self, number: u32) -> Option<(u32, u32)> {
        let superblock = &self.disk.superblock;
        let index = number.checked_sub(1).filter(|_| number <= superblock.inodes)?;
        Some((index / superblock.inodes_per_group, index % superblock.inodes_per_group))
    }

    /// The bytes of an inode, at the place that the group descriptor itself gives.
    pub(super) fn inode_bytes(&self, number: u32) -> Result<Option<Vec<u8>>, Stop> {
        let Some((group, index)) = self.place(number) else { return Ok(None) };
        let Some(group) = self.groups.get(to_usize(group)) else { return Ok(None) };
        let size = u64::from(self.disk.superblock.inode_size);
        let within = u64::from(index).saturating_mul(size);
        let offset = self.disk.offset_of(group.inode_table).saturating_add(within);
        if offset.saturating_add(size) > self.disk.device.size() {
            return Ok(None);
        }
        Ok(Some(read_bytes(&*self.disk.device, offset, to_usize(size))?))
    }

    /// Has all inodes of a group scanned.
    pub(super) fn uncover(&mut self, group: u32) {
        if let Some(group) = self.groups.get_mut(to_usize(group)) {
            // One after the other: the program too finds the second only when it has got rid of the first.
            if group.is_uninit {
                group.is_uninit = false;
            } else {
                group.unused = 0;
            }
        }
    }

    /// Blocks of the inode table of a group.
    pub(super) fn table_blocks(&self) -> u64 {
        self.disk.inode_table_blocks()
    }
}

/// Follows the program to the point where the passes begin.
pub(super) fn open(device: Device, options: &PreenOptions, findings: &mut Findings) -> Result<Opened, Stop> {
    let raw = read(&device)?;
    fields::judge_geometry(&raw)?;
    let unknown = raw.s_feature_compat.get() & !known().compat;
    if unknown != 0 {
        // The same end as for other unknown features, but at a point where bit 4 is still set.
        findings.by_hand(format!("the program does not know the features compat:{unknown:#x}"))?;
        return Err(Stop::ByHand);
    }
    let is_recovering = raw.features().has_incompat(incompat::RECOVER);
    let counted = with_right_count(&raw).filter(|_| !is_recovering);
    if let Some((counted, right)) = counted {
        let opened = decode(device, counted)?;
        fields::judge_values(&opened.raw, &opened.disk)?;
        findings.by_hand(format!("s_inodes_count is {}, not {right}", raw.s_inodes_count))?;
        return Err(Stop::ByHand);
    }
    let opened = decode(device, raw)?;
    if !is_recovering {
        fields::judge_values(&opened.raw, &opened.disk)?;
        fields::judge_first_inode(&opened.raw, &opened.disk)?;
    }
    let journal = journal::follow(opened, findings)?;
    let mut opened = journal.opened;
    let mut is_checked = options.is_forced || journal.is_check_forced;
    fields::judge_values(&opened.raw, &opened.disk)?;
    fields::judge_first_inode(&opened.raw, &opened.disk)?;
    fields::judge_fields(&opened, findings)?;
    findings.settle()?;
    is_checked |= judge_groups(&mut opened, findings)?;
    findings.settle()?;
    let times = judge_times(&opened.raw, options);
    is_checked |= times.unwrap_or(false);
    is_checked |= judge_state(&opened)?;
    let (deleted, is_bad) = orphans::follow(&opened, is_checked)?;
    opened.deleted = deleted;
    opened.is_checked = is_checked || is_bad;
    opened.is_time_unknown = !opened.is_checked && times.is_none();
    Ok(opened)
}

/// What the program knows: every feature with a name but those that never came into use.
fn known() -> Features {
    let named = Features::named();
    Features {
        compat: named.compat & !(compat::LAZY_BG | compat::EXCLUDE_BITMAP),
        incompat: named.incompat & !(incompat::COMPRESSION | incompat::DIRDATA),
        ro_compat: named.ro_compat & !(ro_compat::SNAPSHOT | ro_compat::REPLICA),
    }
}

/// The superblock, if its bytes are one.
fn read(device: &Device) -> Result<RawSuperblock, Stop> {
    let Some(raw) = RawSuperblock::read(&**device)? else {
        return Err(Stop::refused("the device ends before the superblock"));
    };
    if raw.s_magic.get() != MAGIC {
        return Err(Stop::refused(format!("s_magic is {:#06x}", raw.s_magic)));
    }
    if raw.s_rev_level.get() > 1 {
        return Err(Stop::refused(format!("s_rev_level is {}", raw.s_rev_level)));
    }
    let has_features = raw.s_feature_compat.get() != 0
        || raw.s_feature_incompat.get() != 0
        || raw.s_feature_ro_compat.get() != 0;
    if raw.s_rev_level.get() == 0 && has_features {
        return Err(Stop::unknown("features in a superblock of revision 0"));
    }
    if raw.features().has_ro_compat(ro_compat::METADATA_CSUM) && raw.s_checksum_type != 1 {
        return Err(Stop::refused(format!("s_checksum_type is {}", raw.s_checksum_type)));
    }
    if raw.verify_checksum().is_err() {
        return Err(Stop::refused("the checksum of the superblock does not fit"));
    }
    let unknown = raw.s_feature_incompat.get() & !known().incompat;
    if unknown != 0 || raw.features().has_incompat(incompat::JOURNAL_DEV) {
        return Err(Stop::refused(format!("it does not know the features incompat:{unknown:#x}")));
    }
    let unknown = raw.s_feature_ro_compat.get() & !known().ro_compat;
    if unknown != 0 {
        return Err(Stop::refused(format!("it does not know the features ro_compat:{unknown:#x}")));
    }
    Ok(raw)
}

/// The group descriptors, as they are.
pub(super) fn decode(device: Device, raw: RawSuperblock) -> Result<Opened, Stop> {
    let superblock = match Superblock::decode(&raw) {
        Ok(superblock) => superblock,
        Err(error) => return Err(Stop::unknown(format!("{error:#}"))),
    };
    if superblock.groups > MAX_GROUPS {
        return Err(Stop::unknown(format!("{} groups are too many to look at", superblock.groups)));
    }
    let disk = Disk::new(device, superblock);
    let mut groups = Vec::new();
    for number in 0..disk.superblock.groups {
        let end = GroupDescriptor::offset(&disk.superblock, number)
            .saturating_add(disk.superblock.descriptor_size.into());
        if end > disk.device.size() {
            return Err(Stop::refused("the device ends before the last group descriptor"));
        }
        let descriptor = disk.group(number)?;
        groups.push(Group {
            block_bitmap: descriptor.block_bitmap(),
            inode_bitmap: descriptor.inode_bitmap(),
            inode_table: descriptor.inode_table(),
            is_uninit: descriptor.raw.bg_flags.get() & INODE_UNINIT != 0,
            unused: descriptor.unused_inodes(),
        });
    }
    Ok(Opened {
        disk,
        raw,
        groups,
        is_journal_gone: false,
        deleted: BTreeSet::new(),
        is_checked: false,
        is_time_unknown: false,
    })
}

/// The superblock with the number of inodes that its groups have, and that number, if another one is stored. Such
/// a number is corrected by hand, at a point where nothing else ends the program with another status.
fn with_right_count(raw: &RawSuperblock) -> Option<(RawSuperblock, u32)> {
    let blocks = raw.blocks_count().saturating_sub(raw.s_first_data_block.get().into());
    let groups = blocks.div_ceil(u64::from(raw.s_blocks_per_group.get()).max(1));
    let inodes = groups.saturating_mul(raw.s_inodes_per_group.get().into());
    let right = u32::try_from(inodes).ok().filter(|right| *right != raw.s_inodes_count.get())?;
    let mut counted = raw.clone();
    counted.s_inodes_count.set(right);
    Some((counted, right))
}

/// Whether something in the descriptors makes a check necessary; corrects what is corrected by itself.
fn judge_groups(opened: &mut Opened, findings: &mut Findings) -> Result<bool, Stop> {
    let superblock = opened.disk.superblock.clone();
    let is_flexible = superblock.features.has_incompat(incompat::FLEX_BG);
    let has_checksums = superblock.features.has_ro_compat(ro_compat::METADATA_CSUM)
        || superblock.features.has_ro_compat(ro_compat::GDT_CSUM);
    let per_group = u64::from(superblock.inodes_per_group.get());
    let mut is_checked = false;
    let mut free_inodes: u64 = 0;
    for number in 0..superblock.groups {
        let descriptor = opened.disk.group(number)?;
        let (first, count) = if is_flexible {
            (superblock.first_data_block, superblock.blocks)
        } else {
            superblock.group_blocks(number)
        };
        let end = if is_flexible { superblock.blocks } else { first.after(count).0 };
        for (what, block, length) in [
            ("block bitmap", descriptor.block_bitmap(), 1),
            ("inode bitmap", descriptor.inode_bitmap(), 1),
            ("inode table", descriptor.inode_table(), opened.disk.inode_table_blocks()),
        ] {
            if block < first || block.after(length).0 > end {
                findings.by_hand(format!("the {what} of group {number} lies at {block}"))?;
            } else if block.0 == 0 {
                return Err(findings.unknown(format!("the {what} of group {number} lies at block 0")));
            }
        }
        let (free, unused) = (u64::from(descriptor.free_inodes()), u64::from(descriptor.unused_inodes()));
        free_inodes = free_inodes.saturating_add(free);
        is_checked |= u64::from(descriptor.free_blocks()) > superblock.blocks_per_group.get()
            || free > per_group
            || u64::from(descriptor.used_directories()) > per_group;
        let flags = descriptor.raw.bg_flags.get();
        let is_last = number.saturating_add(1) == superblock.groups;
        let mut is_unsound = descriptor.verify_checksum(superblock.checksums).is_err();
        is_unsound |= !has_checksums && (flags & (INODE_UNINIT | BLOCK_UNINIT) != 0 || unused != 0);
        let Some(group) = opened.groups.get_mut(to_usize(number)) else { continue };
        if is_unsound {
            group.is_uninit = false;
            group.unused = 0;
        } else if has_checksums && (unused > free || unused > per_group) {
            group.unused = 0;
            is_checked = true;
        }
        is_checked |= is_unsound || is_last && flags & BLOCK_UNINIT != 0;
    }
    let raw = &opened.raw;
    is_checked |= raw.free_blocks_count() > superblock.blocks;
    is_checked |= raw.s_free_inodes_count.get() > superblock.inodes;
    Ok(is_checked)
}

/// Whether the times make a check necessary; `None` when that depends on a time that is not known.
fn judge_times(raw: &RawSuperblock, options: &PreenOptions) -> Option<bool> {
    let interval = i64::from(raw.s_checkinterval.get());
    if interval == 0 {
        return Some(false);
    }
    let now = options.now?;
    let later = now.saturating_add(FUDGE);
    // A time in the future is corrected, and what corrects something goes on to check.
    if i64::from(raw.s_mtime.get()) > later || i64::from(raw.s_wtime.get()) > later {
        return Some(true);
    }
    let mut last = i64::from(raw.s_lastcheck.get());
    if last > now {
        last = last.saturating_sub(FUDGE);
    }
    Some(now < last || now.saturating_sub(last) >= interval)
}

/// Whether the superblock asks for a check.
fn judge_state(opened: &Opened) -> Result<bool, Stop> {
    let raw = &opened.raw;
    let state = raw.s_state.get();
    if state & STATE_ERROR != 0 || state & STATE_VALID == 0 {
        return Ok(true);
    }
    let (count, max) = (raw.s_mnt_count.get(), raw.s_max_mnt_count.get());
    let is_due = max.cast_signed() > 0 && count >= max;
    Ok(is_due || differs_from_copy(opened)?)
}

/// Whether the first copy of the superblock is of another file system, or has other features.
fn differs_from_copy(opened: &Opened) -> Result<bool, Stop> {
    let (raw, superblock) = (&opened.raw, &opened.disk.superblock);
    // One without an UUID has just been given one, and is written everywhere.
    if raw.s_uuid == [0; 16] && superblock.checksums.seed().is_none() {
        return Ok(false);
    }
    for group in (1..superblock.groups).filter(|group| superblock.has_superblock(*group)) {
        let offset = opened.disk.offset_of(superblock.group_blocks(group).0);
        if offset.saturating_add(PRIMARY) > opened.disk.device.size() {
            continue;
        }
        let copy: RawSuperblock = ondisk::read_value(&*opened.disk.device, offset)?;
        let inode_size = if copy.s_rev_level.get() == 0 { 128 } else { copy.s_inode_size.get() };
        let is_usable = copy.s_magic.get() == MAGIC
            && copy.s_rev_level.get() <= 1
            && copy.s_log_block_size.get() <= 6
            && usize::from(inode_size) >= inode::BASE_SIZE;
        if is_usable {
            let incompat = (raw.s_feature_incompat.get() ^ copy.s_feature_incompat.get()) & !UNLIKE_INCOMPAT;
            let ro_compat =
                (raw.s_feature_ro_compat.get() ^ copy.s_feature_ro_compat.get()) & !UNLIKE_RO_COMPAT;
            return Ok(raw.s_feature_compat != copy.s_feature_compat
                || incompat != 0
                || ro_compat != 0
                || raw.s_blocks_count_lo != copy.s_blocks_count_lo
                || raw.s_blocks_count_hi != copy.s_blocks_count_hi
                || raw.s_inodes_count != copy.s_inodes_count
                || raw.s_uuid != copy.s_uuid);
        }
    }
    Ok(false)
}

/// Whether a `compat` bit is set.
pub(super) fn has_compat(opened: &Opened, bit: u32) -> bool {
    opened.disk.superblock.features.has_compat(bit)
}

/// Whether a journal belongs to the file system.
pub(super) fn has_journal(opened: &Opened) -> bool {
    has_compat(opened, compat::HAS_JOURNAL)
}
