//! The superblock of one leg of a RAID volume, in the first sector of its metadata volume.
//!
//! Kernel `drivers/md/dm-raid.c`, `struct dm_raid_superblock`; little-endian. It has no checksum.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An offset that says "all of it".
pub(crate) const IN_SYNC: u64 = u64::MAX;
/// `compat_features`: the fields from 0x3c on are valid.
const SUPPORTS_RESHAPE: u32 = 1;

/// The superblock as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    /// 0x00 "DmRd".
    magic: [u8; 4],
    /// 0x04 bit 0: the fields behind `stripe_sectors` are valid.
    compat_features: le::U32,
    /// 0x08 legs.
    num_devices: le::U32,
    /// 0x0c which leg this is.
    array_position: le::U32,
    /// 0x10 counts updates.
    events: le::U64,
    /// 0x18 a bit for each leg that failed, of the first 64.
    failed_devices: le::U64,
    /// 0x20 sectors of this leg that are rebuilt; all ones when it is whole.
    disk_recovery_offset: le::U64,
    /// 0x28 sectors that are in sync; all ones when all are.
    array_resync_offset: le::U64,
    /// 0x30 RAID level.
    level: le::U32,
    /// 0x34 layout, as md numbers them.
    layout: le::U32,
    /// 0x38 sectors of a chunk.
    stripe_sectors: le::U32,
    /// 0x3c bit 0: a reshape is under way; bit 1: backwards.
    flags: le::U32,
    /// 0x40 how far.
    reshape_position: le::U64,
    /// 0x48 what becomes of level, layout, chunk and number of legs.
    new_level: le::U32,
    /// 0x4c
    new_layout: le::U32,
    /// 0x50
    new_stripe_sectors: le::U32,
    /// 0x54
    delta_disks: le::I32,
    /// 0x58
    array_sectors: le::U64,
    /// 0x60 sectors before the data on this leg.
    data_offset: le::U64,
    /// 0x68
    new_data_offset: le::U64,
    /// 0x70
    sectors: le::U64,
    /// 0x78 a bit for each further leg that failed.
    extended_failed_devices: [le::U64; 3],
    /// 0x90 features without which nothing may be read.
    incompat_features: le::U32,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x94);

/// What a leg's superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) legs: u32,
    pub(crate) position: u32,
    pub(crate) events: u64,
    failed: [u64; 4],
    /// Sectors, or [`IN_SYNC`].
    pub(crate) recovery_offset: u64,
    /// Sectors, or [`IN_SYNC`].
    pub(crate) resync_offset: u64,
    pub(crate) level: u32,
    pub(crate) layout: u32,
    pub(crate) chunk_sectors: u32,
    /// Features without which nothing may be read; none are known.
    pub(crate) unknown_features: u32,
    pub(crate) is_reshaping: bool,
    /// Bytes.
    pub(crate) data_offset: u64,
}

impl Superblock {
    /// Reads it; `None` where none was ever written.
    pub(crate) fn read(device: &dyn BlockDevice) -> Result<Option<Self>> {
        const NAME: &str = "dm-raid superblock";
        let raw: RawSuperblock = read_value(device, 0)?;
        if raw.magic == [0; 4] {
            return Ok(None);
        }
        if &raw.magic != b"DmRd" {
            let found = format!("{:02x?}", raw.magic);
            return Err(Corrupt::new(NAME, 0, "magic", "\"DmRd\"", found).into());
        }
        let is_extended = raw.compat_features.get() & SUPPORTS_RESHAPE != 0;
        let [second, third, fourth] = raw.extended_failed_devices;
        let extended = |bits: le::U64| if is_extended { bits.get() } else { 0 };
        // Takeover or reshape: the new shape differs from the present one.
        let changes = raw.new_level != raw.level
            || raw.new_layout != raw.layout
            || raw.new_stripe_sectors != raw.stripe_sectors
            || raw.delta_disks.get() != 0;
        Ok(Some(Self {
            legs: raw.num_devices.get(),
            position: raw.array_position.get(),
            events: raw.events.get(),
            failed: [raw.failed_devices.get(), extended(second), extended(third), extended(fourth)],
            recovery_offset: raw.disk_recovery_offset.get(),
            resync_offset: raw.array_resync_offset.get(),
            level: raw.level.get(),
            layout: raw.layout.get(),
            chunk_sectors: raw.stripe_sectors.get(),
            unknown_features: if is_extended { raw.incompat_features.get() } else { 0 },
            is_reshaping: is_extended && (raw.flags.get() & 1 != 0 || changes),
            data_offset: if is_extended { raw.data_offset.get().saturating_mul(512) } else { 0 },
        }))
    }

    /// Whether this superblock says that `leg` failed.
    pub(crate) fn has_failed(&self, leg: usize) -> bool {
        let word = self.failed.get(leg >> 6).copied().unwrap_or(u64::MAX);
        word >> (leg & 63) & 1 == 1
    }
}
