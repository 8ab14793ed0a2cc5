//! The fields of the superblock: those that end the program, and those that are only corrected by hand.

use super::opening::Opened;
use super::state::{Findings, Stop};
use crate::disk::Disk;
use crate::features::{incompat, ro_compat};
use crate::mmp;
use crate::superblock::RawSuperblock;
use crate::units::{BlockSize, FsBlock};

/// `s_creator_os` of the one system whose inodes differ.
const HURD: u32 = 1;

/// Fields without which nothing can be opened.
pub(super) fn judge_geometry(raw: &RawSuperblock) -> Result<(), Stop> {
    let refuse = |field: &str, found: u64| Err(Stop::refused(format!("{field} is {found}")));
    let (block, cluster) = (raw.s_log_block_size.get(), raw.s_log_cluster_size.get());
    let has_clusters = raw.features().has_ro_compat(ro_compat::BIGALLOC);
    if cluster > 19 || cluster < block || !has_clusters && cluster != block {
        return refuse("s_log_cluster_size", cluster.into());
    }
    let Some(size) = BlockSize::from_log(block) else { return refuse("s_log_block_size", block.into()) };
    if raw.s_log_groups_per_flex > 31 {
        return refuse("s_log_groups_per_flex", raw.s_log_groups_per_flex.into());
    }
    let inode_size = if raw.s_rev_level.get() == 0 { 128 } else { u64::from(raw.s_inode_size.get()) };
    if inode_size < 128 || inode_size > size.bytes() || !inode_size.is_power_of_two() {
        return refuse("s_inode_size", inode_size);
    }
    let ratio = 1_u64.checked_shl(cluster.saturating_sub(block)).unwrap_or(1);
    let per_group = u64::from(raw.s_blocks_per_group.get());
    if per_group != u64::from(raw.s_clusters_per_group.get()).saturating_mul(ratio)
        || !(8..=65528_u64.saturating_mul(ratio)).contains(&per_group)
    {
        return refuse("s_blocks_per_group", per_group);
    }
    let inodes = u64::from(raw.s_inodes_per_group.get());
    let per_block = size.bytes().checked_div(inode_size).unwrap_or(1);
    if inodes == 0 || size.blocks_for(inodes.saturating_mul(inode_size)) > 65536_u64.saturating_sub(per_block)
    {
        return refuse("s_inodes_per_group", inodes);
    }
    if u64::from(raw.s_first_data_block.get()) >= raw.blocks_count() {
        return refuse("s_first_data_block", raw.s_first_data_block.get().into());
    }
    Ok(())
}

/// Values that make the program give up.
pub(super) fn judge_values(raw: &RawSuperblock, disk: &Disk) -> Result<(), Stop> {
    let superblock = &disk.superblock;
    let size = superblock.block_size.bytes();
    let blocks = superblock.blocks;
    let refuse = |field: &str, found: u64| Err(Stop::refused(format!("{field} is {found}")));
    let per_group = superblock.blocks_per_group.get();
    if per_group > size.saturating_mul(8).saturating_mul(superblock.cluster_blocks) {
        return refuse("s_blocks_per_group", per_group);
    }
    let per_block = size.checked_div(superblock.inode_size.into()).unwrap_or(1);
    let most = per_block.saturating_mul(per_group.saturating_sub(4));
    let most = most.min(65536_u64.saturating_sub(per_block));
    let inodes = u64::from(superblock.inodes_per_group.get());
    if inodes < per_block || inodes > most {
        return refuse("s_inodes_per_group", inodes);
    }
    let high =
        if superblock.features.has_incompat(incompat::BITS64) { raw.s_r_blocks_count_hi.get() } else { 0 };
    let reserved = crate::units::join(raw.s_r_blocks_count_lo.get(), high);
    if reserved > blocks / 2 {
        return refuse("s_r_blocks_count", reserved);
    }
    if u64::from(superblock.reserved_descriptor_blocks) > size / 4 {
        return refuse("s_reserved_gdt_blocks", superblock.reserved_descriptor_blocks.into());
    }
    let descriptor = raw.s_desc_size.get();
    if descriptor > 1024 || descriptor != 0 && !descriptor.is_power_of_two() {
        return refuse("s_desc_size", descriptor.into());
    }
    Ok(())
}

/// The one that is only looked at where the number of inodes is right.
pub(super) fn judge_first_inode(raw: &RawSuperblock, disk: &Disk) -> Result<(), Stop> {
    let first = disk.superblock.first_inode;
    if raw.s_rev_level.get() > 0 && !(11..=disk.superblock.inodes).contains(&first) {
        return Err(Stop::refused(format!("s_first_ino is {first}")));
    }
    Ok(())
}

/// Fields that are only corrected by hand.
pub(super) fn judge_fields(opened: &Opened, findings: &mut Findings) -> Result<(), Stop> {
    let (raw, superblock) = (&opened.raw, &opened.disk.superblock);
    let features = &superblock.features;
    let available = superblock.block_size.split(opened.disk.device.size()).0;
    if superblock.blocks > available {
        findings.by_hand(format!("s_blocks_count is {}, the device has {available}", superblock.blocks))?;
    }
    if superblock.inode_size > 128 {
        let room = superblock.inode_size.saturating_sub(128);
        for (field, size) in
            [("s_min_extra_isize", &raw.s_min_extra_isize), ("s_want_extra_isize", &raw.s_want_extra_isize)]
        {
            let size = size.get();
            if size != 0 && (size < 4 || size > room || size & 3 != 0) {
                findings.by_hand(format!("{field} is {size}"))?;
            }
        }
    }
    let has_two =
        features.has_ro_compat(ro_compat::METADATA_CSUM) && features.has_ro_compat(ro_compat::GDT_CSUM);
    let has_seed = features.has_incompat(incompat::CSUM_SEED) && superblock.checksums.seed().is_none();
    if has_two || has_seed {
        return Err(findings.unknown("contradicting features of checksums"));
    }
    if features.has_incompat(incompat::BITS64) && !features.has_incompat(incompat::EXTENTS) {
        return Err(findings.unknown("64bit without extents"));
    }
    if features.has_incompat(incompat::META_BG) {
        let size = u64::from(superblock.descriptor_size);
        let per_block = superblock.block_size.bytes().checked_div(size).unwrap_or(1);
        if u64::from(superblock.first_meta_bg) > u64::from(superblock.groups).div_ceil(per_block.max(1)) {
            findings.by_hand(format!("s_first_meta_bg is {}", superblock.first_meta_bg))?;
        }
    }
    if raw.s_creator_os.get() == HURD {
        if features.has_incompat(incompat::FILETYPE) {
            findings.by_hand("types in entries, in a file system of the Hurd")?;
        }
        return Err(findings.unknown("made by the Hurd"));
    }
    if features.has_incompat(incompat::MMP) {
        let block = FsBlock(raw.s_mmp_block.get());
        let is_idle = superblock.holds(block, 1)
            && mmp::is_in_use(&*opened.disk.device, opened.disk.offset_of(block)).is_ok_and(|used| !used);
        if !is_idle {
            return Err(findings.unknown("the block for protection against two mounts is damaged, or in use"));
        }
    }
    if features.has_ro_compat(ro_compat::QUOTA) {
        let numbers = [&raw.s_usr_quota_inum, &raw.s_grp_quota_inum, &raw.s_prj_quota_inum];
        if numbers.iter().any(|number| number.get() > superblock.inodes) {
            return Err(findings.unknown("an inode of quotas that does not exist"));
        }
    }
    Ok(())
}
