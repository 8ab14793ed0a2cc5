//! Superblock: the geometry of the file system, its features and its state.
//!
//! Linux `Documentation/filesystems/ext4/super.rst`. 1024 bytes at byte 1024, little-endian; copies at the
//! start of some block groups.

use std::num::{NonZeroU32, NonZeroU64};

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Result, crc32c_raw, le, read_value};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Checksums;
use crate::features::{Features, compat, incompat, ro_compat};
use crate::units::{BlockSize, FsBlock, halves, join};

/// First byte of the primary superblock.
pub const PRIMARY: u64 = 1024;

/// `s_magic`.
pub const MAGIC: u16 = 0xef53;

/// `s_state`: unmounted cleanly, or protected by a journal.
pub const STATE_VALID: u16 = 0x1;

/// `s_state`: the kernel met damage.
pub const STATE_ERROR: u16 = 0x2;

/// More groups than any guest has (512 TiB at the usual 128 MiB each); bounds the scan of their descriptors.
const MAX_GROUPS: u32 = 1 << 22;

const STRUCTURE: &str = "superblock";

/// The superblock as stored.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawSuperblock {
    pub s_inodes_count: le::U32,           // 0x000
    pub s_blocks_count_lo: le::U32,        // 0x004
    pub s_r_blocks_count_lo: le::U32,      // 0x008
    pub s_free_blocks_count_lo: le::U32,   // 0x00c in blocks, also with bigalloc
    pub s_free_inodes_count: le::U32,      // 0x010
    pub s_first_data_block: le::U32,       // 0x014 where group 0 begins: 1 for 1024-byte blocks, else 0
    pub s_log_block_size: le::U32,         // 0x018 1024 << n
    pub s_log_cluster_size: le::U32,       // 0x01c 1024 << n; as the block size without bigalloc
    pub s_blocks_per_group: le::U32,       // 0x020
    pub s_clusters_per_group: le::U32,     // 0x024
    pub s_inodes_per_group: le::U32,       // 0x028
    pub s_mtime: le::U32,                  // 0x02c
    pub s_wtime: le::U32,                  // 0x030
    pub s_mnt_count: le::U16,              // 0x034
    pub s_max_mnt_count: le::U16,          // 0x036
    pub s_magic: le::U16,                  // 0x038
    pub s_state: le::U16,                  // 0x03a
    pub s_errors: le::U16,                 // 0x03c
    pub s_minor_rev_level: le::U16,        // 0x03e
    pub s_lastcheck: le::U32,              // 0x040
    pub s_checkinterval: le::U32,          // 0x044
    pub s_creator_os: le::U32,             // 0x048
    pub s_rev_level: le::U32,              // 0x04c 0: the fields up to the UUID have fixed values
    pub s_def_resuid: le::U16,             // 0x050
    pub s_def_resgid: le::U16,             // 0x052
    pub s_first_ino: le::U32,              // 0x054
    pub s_inode_size: le::U16,             // 0x058 bytes
    pub s_block_group_nr: le::U16,         // 0x05a
    pub s_feature_compat: le::U32,         // 0x05c
    pub s_feature_incompat: le::U32,       // 0x060
    pub s_feature_ro_compat: le::U32,      // 0x064
    pub s_uuid: [u8; 16],                  // 0x068
    pub s_volume_name: [u8; 16],           // 0x078 padded with NUL
    pub s_last_mounted: [u8; 64],          // 0x088
    pub s_algorithm_usage_bitmap: le::U32, // 0x0c8
    pub s_prealloc_blocks: u8,             // 0x0cc
    pub s_prealloc_dir_blocks: u8,         // 0x0cd
    pub s_reserved_gdt_blocks: le::U16,    // 0x0ce
    pub s_journal_uuid: [u8; 16],          // 0x0d0 of an external journal
    pub s_journal_inum: le::U32,           // 0x0e0 0 when the journal is external
    pub s_journal_dev: le::U32,            // 0x0e4
    pub s_last_orphan: le::U32,            // 0x0e8 head of the list of inodes to delete or truncate at mount
    pub s_hash_seed: [le::U32; 4],         // 0x0ec
    pub s_def_hash_version: u8,            // 0x0fc
    pub s_jnl_backup_type: u8,             // 0x0fd
    pub s_desc_size: le::U16,              // 0x0fe bytes, with 64bit
    pub s_default_mount_opts: le::U32,     // 0x100
    pub s_first_meta_bg: le::U32,          // 0x104
    pub s_mkfs_time: le::U32,              // 0x108
    pub s_jnl_blocks: [le::U32; 17],       // 0x10c
    pub s_blocks_count_hi: le::U32,        // 0x150
    pub s_r_blocks_count_hi: le::U32,      // 0x154
    pub s_free_blocks_count_hi: le::U32,   // 0x158
    pub s_min_extra_isize: le::U16,        // 0x15c
    pub s_want_extra_isize: le::U16,       // 0x15e
    pub s_flags: le::U32,                  // 0x160
    pub s_raid_stride: le::U16,            // 0x164
    pub s_mmp_interval: le::U16,           // 0x166
    pub s_mmp_block: le::U64,              // 0x168
    pub s_raid_stripe_width: le::U32,      // 0x170
    pub s_log_groups_per_flex: u8,         // 0x174
    pub s_checksum_type: u8,               // 0x175 1: CRC-32C
    pub s_encryption_level: u8,            // 0x176
    pub s_reserved_pad: u8,                // 0x177
    pub s_kbytes_written: le::U64,         // 0x178
    pub s_snapshot: [u8; 20],              // 0x180 four fields of a feature that was never merged
    pub s_errors_seen: [u8; 0x6c],         // 0x194 s_error_count to s_last_error_func
    pub s_mount_opts: [u8; 64],            // 0x200
    pub s_usr_quota_inum: le::U32,         // 0x240
    pub s_grp_quota_inum: le::U32,         // 0x244
    pub s_overhead_clusters: le::U32,      // 0x248
    pub s_backup_bgs: [le::U32; 2],        // 0x24c with sparse_super2
    pub s_encrypt_algos: [u8; 4],          // 0x254
    pub s_encrypt_pw_salt: [u8; 16],       // 0x258
    pub s_lpf_ino: le::U32,                // 0x268
    pub s_prj_quota_inum: le::U32,         // 0x26c
    pub s_checksum_seed: le::U32,          // 0x270 with metadata_csum_seed
    pub s_time_extensions: [u8; 8],        // 0x274 bits 32..40 of times, and error codes
    pub s_encoding: le::U16,               // 0x27c
    pub s_encoding_flags: le::U16,         // 0x27e
    pub s_orphan_file_inum: le::U32,       // 0x280
    pub s_reserved: [u8; 0x178],           // 0x284
    pub s_checksum: le::U32,               // 0x3fc CRC-32C of all before it, seed !0
}

const _: () = assert!(size_of::<RawSuperblock>() == 1024);

impl RawSuperblock {
    /// The primary superblock, whatever it holds; `None` when the device ends before it.
    ///
    /// # Errors
    /// `Io`.
    pub fn read(device: &dyn BlockDevice) -> Result<Option<Self>> {
        if device.size() < 2 * PRIMARY { Ok(None) } else { read_value(device, PRIMARY).map(Some) }
    }

    /// The feature words; a superblock of revision 0 has none.
    pub fn features(&self) -> Features {
        if self.s_rev_level.get() == 0 {
            return Features::default();
        }
        Features {
            compat: self.s_feature_compat.get(),
            incompat: self.s_feature_incompat.get(),
            ro_compat: self.s_feature_ro_compat.get(),
        }
    }

    /// The UUID; `None` when it is all zeros, as libblkid has it.
    pub fn uuid(&self) -> Option<Guid> {
        Some(Guid::from_bytes(self.s_uuid)).filter(|uuid| !uuid.is_nil())
    }

    /// The label up to its padding, without trailing blanks, as libblkid has it; `None` when it is empty.
    pub fn label(&self) -> Option<Vec<u8>> {
        let name = self.s_volume_name.split(|byte| *byte == 0).next().unwrap_or_default();
        let label = name.trim_ascii_end();
        if label.is_empty() { None } else { Some(label.to_vec()) }
    }

    /// Blocks of the file system.
    pub fn blocks_count(&self) -> u64 {
        join(self.s_blocks_count_lo.get(), self.high(self.s_blocks_count_hi))
    }

    /// Free blocks, as last counted.
    pub fn free_blocks_count(&self) -> u64 {
        join(self.s_free_blocks_count_lo.get(), self.high(self.s_free_blocks_count_hi))
    }

    /// Stores the number of free blocks.
    pub fn set_free_blocks_count(&mut self, count: u64) {
        let (low, high) = halves(count);
        self.s_free_blocks_count_lo.set(low);
        if self.features().has_incompat(incompat::BITS64) {
            self.s_free_blocks_count_hi.set(high);
        }
    }

    fn high(&self, half: le::U32) -> u32 {
        if self.features().has_incompat(incompat::BITS64) { half.get() } else { 0 }
    }

    /// The checksum that these bytes should carry.
    fn computed_checksum(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32c_raw(!0, bytes.split_last_chunk::<4>().map_or(bytes, |(covered, _)| covered))
    }

    /// Compares the checksum, where there is one.
    ///
    /// # Errors
    /// `Corrupt` when it does not fit.
    pub fn verify_checksum(&self) -> Result<(), Corrupt> {
        self.verify_checksum_at(STRUCTURE, PRIMARY)
    }

    /// As [`verify_checksum`](Self::verify_checksum), of a copy at byte `offset`.
    ///
    /// # Errors
    /// `Corrupt` when it does not fit.
    pub(crate) fn verify_checksum_at(&self, structure: &'static str, offset: u64) -> Result<(), Corrupt> {
        let (computed, stored) = (self.computed_checksum(), self.s_checksum.get());
        if self.features().has_ro_compat(ro_compat::METADATA_CSUM) && computed != stored {
            return Err(Corrupt::checksum(structure, offset, computed, stored));
        }
        Ok(())
    }

    /// Stores the checksum that fits, where there is one.
    pub fn stamp(&mut self) {
        if self.features().has_ro_compat(ro_compat::METADATA_CSUM) {
            self.s_checksum.set(self.computed_checksum());
        }
    }
}

impl Default for RawSuperblock {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// A superblock whose fields agree with one another.
#[derive(Debug, Clone)]
pub struct Superblock {
    /// Bytes per block.
    pub block_size: BlockSize,
    /// Blocks of the file system; more than one.
    pub blocks: u64,
    /// Where group 0 begins.
    pub first_data_block: FsBlock,
    /// Blocks per group; only the last group may be shorter.
    pub blocks_per_group: NonZeroU64,
    /// Blocks that one bit of a block bitmap stands for; 1 without bigalloc.
    pub cluster_blocks: u64,
    /// Number of block groups.
    pub groups: u32,
    /// Number of inodes; the first is 1.
    pub inodes: u32,
    /// Inodes per group.
    pub inodes_per_group: NonZeroU32,
    /// Bytes per inode, 128..=block size, a power of two.
    pub inode_size: u16,
    /// The first inode that is not reserved.
    pub first_inode: u32,
    /// Bytes per group descriptor, 32..=block size, a power of two.
    pub descriptor_size: u16,
    /// Blocks after the descriptors that are kept for growth.
    pub reserved_descriptor_blocks: u16,
    /// With meta_bg: the first metagroup that keeps its own descriptors.
    pub first_meta_bg: u32,
    /// With sparse_super2: the groups that hold a copy of the superblock.
    pub backup_groups: [u32; 2],
    /// What it needs of its readers and writers.
    pub features: Features,
    /// How its metadata is protected.
    pub checksums: Checksums,
    /// The seed of hashes and checksums, also where nothing is protected by them.
    pub seed: u32,
    /// The inode of the journal; `None` without one, or when it is external.
    pub journal_inode: Option<u32>,
    /// The inode of the orphan file, with that feature.
    pub orphan_inode: Option<u32>,
    /// The UUID, if there is one.
    pub uuid: Option<Guid>,
    /// The label without padding, if there is one.
    pub label: Option<Vec<u8>>,
    /// Free blocks, as last counted.
    pub free_blocks: u64,
}

impl Superblock {
    /// Judges a superblock. The checksum is not looked at: see [`RawSuperblock::verify_checksum`].
    ///
    /// # Errors
    /// `Corrupt` for fields that cannot be; `Unsupported` naming the features that this code cannot read.
    pub fn decode(raw: &RawSuperblock) -> Result<Self> {
        check("s_magic", format_args!("{MAGIC:#06x}"), raw.s_magic.get(), |magic| magic == MAGIC)?;
        check("s_rev_level", "0 or 1", raw.s_rev_level.get(), |revision| revision <= 1)?;
        let features = raw.features();
        check_features(&features)?;
        let block_size = block_size(raw)?;
        let blocks_per_group = blocks_per_group(raw, &features, block_size)?;
        let inode_size = inode_size(raw, block_size)?;
        let inodes_per_group = inodes_per_group(raw, block_size, inode_size)?;
        let cluster_blocks = cluster_blocks(raw, &features)?;
        let first_data_block = first_data_block(raw, block_size, cluster_blocks)?;
        let blocks = raw.blocks_count();
        check("s_blocks_count", "more than 1", blocks, |count| count > 1)?;
        let groups =
            groups(raw, blocks.saturating_sub(first_data_block.0), blocks_per_group, inodes_per_group)?;
        let (checksums, seed) = checksums(raw, &features)?;
        Ok(Self {
            block_size,
            blocks,
            first_data_block,
            blocks_per_group,
            cluster_blocks,
            groups,
            inodes: raw.s_inodes_count.get(),
            inodes_per_group,
            inode_size,
            first_inode: if raw.s_rev_level.get() == 0 { 11 } else { raw.s_first_ino.get() },
            descriptor_size: descriptor_size(raw, &features, block_size)?,
            reserved_descriptor_blocks: raw.s_reserved_gdt_blocks.get(),
            first_meta_bg: raw.s_first_meta_bg.get(),
            backup_groups: raw.s_backup_bgs.map(le::U32::get),
            features,
            checksums,
            seed,
            journal_inode: inode_of(features.has_compat(compat::HAS_JOURNAL), raw.s_journal_inum),
            orphan_inode: inode_of(features.has_compat(compat::ORPHAN_FILE), raw.s_orphan_file_inum),
            uuid: raw.uuid(),
            label: raw.label(),
            free_blocks: raw.free_blocks_count(),
        })
    }

    /// Size of the file system in bytes.
    pub fn size(&self) -> u64 {
        self.block_size.offset_of(FsBlock(self.blocks))
    }

    /// The block that the primary superblock lies in.
    pub fn own_block(&self) -> FsBlock {
        FsBlock(self.block_size.split(PRIMARY).0)
    }

    /// The blocks of a group: the first, and how many.
    pub fn group_blocks(&self, group: u32) -> (FsBlock, u64) {
        let first = self.first_data_block.after(u64::from(group).saturating_mul(self.blocks_per_group.get()));
        (first, self.blocks.saturating_sub(first.0).min(self.blocks_per_group.get()))
    }

    /// The group that a block belongs to; `None` for a block outside all groups.
    pub fn group_of(&self, block: FsBlock) -> Option<u32> {
        let within = block.0.checked_sub(self.first_data_block.0).filter(|_| block.0 < self.blocks)?;
        u32::try_from(within / self.blocks_per_group).ok()
    }

    /// Whether a group begins with a copy of the superblock.
    pub fn has_superblock(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.has_compat(compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        let is_power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group == 1
            || !self.features.has_ro_compat(ro_compat::SPARSE_SUPER)
            || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// Whether all of `count` blocks from `first` lie within the file system, behind the boot block.
    pub fn holds(&self, first: FsBlock, count: u64) -> bool {
        first > self.own_block() && first.0.checked_add(count).is_some_and(|end| end <= self.blocks)
    }
}

fn check<T: std::fmt::Display + Copy>(
    field: &'static str,
    expected: impl std::fmt::Display,
    found: T,
    is_good: impl FnOnce(T) -> bool,
) -> Result<(), Corrupt> {
    if is_good(found) { Ok(()) } else { Err(Corrupt::new(STRUCTURE, PRIMARY, field, expected, found)) }
}

fn check_features(features: &Features) -> Result<()> {
    if features.has_incompat(incompat::JOURNAL_DEV) {
        return Err(Error::unsupported(STRUCTURE, "journal_dev (an external journal, not a file system)"));
    }
    let unreadable = features.unreadable();
    if unreadable.is_empty() { Ok(()) } else { Err(Error::unsupported(STRUCTURE, unreadable.join(", "))) }
}

fn block_size(raw: &RawSuperblock) -> Result<BlockSize, Corrupt> {
    let log = raw.s_log_block_size.get();
    BlockSize::from_log(log).ok_or_else(|| Corrupt::new(STRUCTURE, PRIMARY, "s_log_block_size", "0..=6", log))
}

fn cluster_blocks(raw: &RawSuperblock, features: &Features) -> Result<u64, Corrupt> {
    if !features.has_ro_compat(ro_compat::BIGALLOC) {
        return Ok(1);
    }
    let (cluster, block) = (raw.s_log_cluster_size.get(), raw.s_log_block_size.get());
    // A cluster is at most 1 GiB: 1024 << 20.
    let log = cluster.checked_sub(block).filter(|_| cluster <= 20);
    log.and_then(|log| 1_u64.checked_shl(log)).ok_or_else(|| {
        Corrupt::new(STRUCTURE, PRIMARY, "s_log_cluster_size", format_args!("{block}..=20"), cluster)
    })
}

fn blocks_per_group(
    raw: &RawSuperblock,
    features: &Features,
    size: BlockSize,
) -> Result<NonZeroU64, Corrupt> {
    let found = u64::from(raw.s_blocks_per_group.get());
    // One block of bitmap, one bit each block or cluster.
    let max = size.bytes().saturating_mul(8).saturating_mul(cluster_blocks(raw, features)?);
    NonZeroU64::new(found).filter(|count| count.get() <= max).ok_or_else(|| {
        Corrupt::new(STRUCTURE, PRIMARY, "s_blocks_per_group", format_args!("1..={max}"), found)
    })
}

fn inode_size(raw: &RawSuperblock, size: BlockSize) -> Result<u16, Corrupt> {
    if raw.s_rev_level.get() == 0 {
        return Ok(128);
    }
    check(
        "s_inode_size",
        format_args!("a power of two in 128..={}", size.bytes()),
        raw.s_inode_size.get(),
        |bytes| bytes.is_power_of_two() && bytes >= 128 && u64::from(bytes) <= size.bytes(),
    )?;
    Ok(raw.s_inode_size.get())
}

fn inodes_per_group(raw: &RawSuperblock, size: BlockSize, inode_size: u16) -> Result<NonZeroU32, Corrupt> {
    let found = raw.s_inodes_per_group.get();
    // At least one block of the table, at most one block of bitmap.
    let min = size.bytes().checked_div(u64::from(inode_size)).unwrap_or(1);
    let max = size.bytes().saturating_mul(8);
    NonZeroU32::new(found).filter(|count| (min..=max).contains(&u64::from(count.get()))).ok_or_else(|| {
        Corrupt::new(STRUCTURE, PRIMARY, "s_inodes_per_group", format_args!("{min}..={max}"), found)
    })
}

/// Group 0 begins behind the boot block, which fills a block only where blocks, and clusters, have 1024 bytes.
fn first_data_block(raw: &RawSuperblock, size: BlockSize, cluster_blocks: u64) -> Result<FsBlock, Corrupt> {
    let expected = u32::from(size.bytes() == PRIMARY && cluster_blocks == 1);
    check("s_first_data_block", expected, raw.s_first_data_block.get(), |found| found == expected)?;
    Ok(FsBlock(expected.into()))
}

fn groups(
    raw: &RawSuperblock,
    blocks: u64,
    blocks_per_group: NonZeroU64,
    inodes_per_group: NonZeroU32,
) -> Result<u32> {
    let count = blocks.div_ceil(blocks_per_group.get());
    let groups = u32::try_from(count)
        .ok()
        .filter(|groups| *groups <= MAX_GROUPS)
        .ok_or_else(|| Error::unsupported(STRUCTURE, format!("{count} block groups (limit {MAX_GROUPS})")))?;
    let inodes = u64::from(groups).saturating_mul(u64::from(inodes_per_group.get()));
    check("s_inodes_count", inodes, raw.s_inodes_count.get(), |found| u64::from(found) == inodes)?;
    Ok(groups)
}

fn descriptor_size(raw: &RawSuperblock, features: &Features, size: BlockSize) -> Result<u16, Corrupt> {
    if !features.has_incompat(incompat::BITS64) {
        return Ok(32);
    }
    check(
        "s_desc_size",
        format_args!("a power of two in 64..={}", size.bytes()),
        raw.s_desc_size.get(),
        |bytes| bytes.is_power_of_two() && bytes >= 64 && u64::from(bytes) <= size.bytes(),
    )?;
    Ok(raw.s_desc_size.get())
}

fn checksums(raw: &RawSuperblock, features: &Features) -> Result<(Checksums, u32)> {
    let seed = if features.has_incompat(incompat::CSUM_SEED) {
        raw.s_checksum_seed.get()
    } else {
        crc32c_raw(!0, &raw.s_uuid)
    };
    let checksums = if features.has_ro_compat(ro_compat::METADATA_CSUM) {
        if raw.s_checksum_type != 1 {
            let feature = format!("metadata checksum type {}", raw.s_checksum_type);
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        Checksums::All { seed }
    } else if features.has_ro_compat(ro_compat::GDT_CSUM) {
        Checksums::GroupsOnly { uuid: raw.s_uuid }
    } else {
        Checksums::None
    };
    Ok((checksums, seed))
}

fn inode_of(has_feature: bool, number: le::U32) -> Option<u32> {
    Some(number.get()).filter(|number| has_feature && *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `mke2fs -t ext4 -b 4096` (e2fsprogs 1.47.0) gives a device of 64 MiB, as far as it is judged.
    fn good() -> RawSuperblock {
        let mut raw = RawSuperblock::default();
        raw.s_inodes_count.set(16384);
        raw.s_blocks_count_lo.set(16384);
        raw.s_log_block_size.set(2);
        raw.s_log_cluster_size.set(2);
        raw.s_blocks_per_group.set(32768);
        raw.s_clusters_per_group.set(32768);
        raw.s_inodes_per_group.set(16384);
        raw.s_magic.set(MAGIC);
        raw.s_state.set(1);
        raw.s_rev_level.set(1);
        raw.s_first_ino.set(11);
        raw.s_inode_size.set(256);
        raw.s_feature_compat.set(0x3c);
        raw.s_feature_incompat.set(0x2c2);
        raw.s_feature_ro_compat.set(0x46b);
        raw.s_uuid = [7; 16];
        raw.s_desc_size.set(64);
        raw.s_checksum_type = 1;
        raw.stamp();
        raw
    }

    fn field_of(change: impl FnOnce(&mut RawSuperblock)) -> String {
        let mut raw = good();
        change(&mut raw);
        match Superblock::decode(&raw) {
            Ok(_) => "good".into(),
            Err(Error::Corrupt(corrupt)) => corrupt.field.into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_good_one_is_understood() {
        let superblock = Superblock::decode(&good()).unwrap();
        assert_eq!(superblock.size(), 64 << 20);
        assert_eq!((superblock.groups, superblock.inode_size, superblock.descriptor_size), (1, 256, 64));
        assert!(good().verify_checksum().is_ok());
    }

    #[test]
    fn each_bad_field_is_named() {
        assert_eq!(field_of(|_| ()), "good");
        assert_eq!(field_of(|raw| raw.s_magic.set(0xef52)), "s_magic");
        assert_eq!(field_of(|raw| raw.s_rev_level.set(2)), "s_rev_level");
        assert_eq!(field_of(|raw| raw.s_log_block_size.set(7)), "s_log_block_size");
        assert_eq!(field_of(|raw| raw.s_blocks_per_group.set(0)), "s_blocks_per_group");
        assert_eq!(field_of(|raw| raw.s_blocks_per_group.set(32769)), "s_blocks_per_group");
        assert_eq!(field_of(|raw| raw.s_inode_size.set(192)), "s_inode_size");
        assert_eq!(field_of(|raw| raw.s_inode_size.set(8192)), "s_inode_size");
        assert_eq!(field_of(|raw| raw.s_inodes_per_group.set(0)), "s_inodes_per_group");
        assert_eq!(field_of(|raw| raw.s_inodes_per_group.set(8)), "s_inodes_per_group");
        assert_eq!(field_of(|raw| raw.s_inodes_count.set(16383)), "s_inodes_count");
        assert_eq!(field_of(|raw| raw.s_blocks_count_lo.set(0)), "s_blocks_count");
        assert_eq!(field_of(|raw| raw.s_first_data_block.set(1)), "s_first_data_block");
        assert_eq!(field_of(|raw| raw.s_desc_size.set(32)), "s_desc_size");
        assert_eq!(
            field_of(|raw| raw.s_checksum_type = 2),
            "superblock: metadata checksum type 2 is not supported"
        );
        assert_eq!(
            field_of(|raw| raw.s_blocks_count_hi.set(1 << 20)),
            "superblock: 137438953473 block groups (limit 4194304) is not supported"
        );
        assert_eq!(
            field_of(|raw| raw.s_feature_incompat.set(0x1_1803)),
            "superblock: compression, FEATURE_I11, dirdata is not supported"
        );
    }

    #[test]
    fn a_changed_byte_breaks_the_checksum() {
        let mut raw = good();
        raw.s_mnt_count.set(9);
        assert_eq!(raw.verify_checksum().unwrap_err().field, "checksum");
        raw.stamp();
        assert!(raw.verify_checksum().is_ok());
    }

    #[test]
    fn copies_lie_in_powers_of_three_five_and_seven() {
        let superblock = Superblock::decode(&good()).unwrap();
        let found: Vec<u32> = (0..130).filter(|group| superblock.has_superblock(*group)).collect();
        assert_eq!(found, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn labels_end_at_their_padding() {
        let mut raw = good();
        assert_eq!(raw.label(), None);
        raw.s_volume_name[..7].copy_from_slice(b"root  \0");
        assert_eq!(raw.label(), Some(b"root".to_vec()));
        raw.s_volume_name = *b"sixteen-bytes-ab";
        assert_eq!(raw.label(), Some(b"sixteen-bytes-ab".to_vec()));
    }
}
