//! The boot sector: where everything is.
//!
//! fatgen103, §"Boot Sector and BPB". FAT12 and FAT16 share one layout; FAT32 has its own behind byte 36.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const STRUCTURE: &str = "FAT boot sector";

/// Clusters of FAT12 end below this number, as Linux counts.
const MAX_FAT12: u32 = 0xff4;
/// Clusters of FAT32 end here: 28 bits, less the numbers with a meaning.
const MAX_FAT32: u32 = 0x0fff_fff6;

/// The sector as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBootSector {
    /// 0x000 a jump instruction.
    pub(crate) jump: [u8; 3],
    /// 0x003 what formatted it.
    pub(crate) oem_name: [u8; 8],
    /// 0x00b 512, 1024, 2048 or 4096.
    pub(crate) bytes_per_sector: le::U16,
    /// 0x00d a power of two.
    pub(crate) sectors_per_cluster: u8,
    /// 0x00e in front of the first table; at least 1.
    pub(crate) reserved_sectors: le::U16,
    /// 0x010 usually 2.
    pub(crate) tables: u8,
    /// 0x011 entries of the root directory; 0 for FAT32.
    pub(crate) root_entries: le::U16,
    /// 0x013 0 when it does not fit.
    pub(crate) sectors_16: le::U16,
    /// 0x015 0xf0 or 0xf8 and above.
    pub(crate) media: u8,
    /// 0x016 sectors of one table; 0 for FAT32.
    pub(crate) table_sectors_16: le::U16,
    /// 0x018 for BIOS calls; ignored, as the next two.
    pub(crate) sectors_per_track: le::U16,
    /// 0x01a.
    pub(crate) heads: le::U16,
    /// 0x01c.
    pub(crate) hidden_sectors: le::U32,
    /// 0x020 used when the 16-bit number is 0.
    pub(crate) sectors_32: le::U32,
    /// 0x024 of FAT32: sectors of one table. Of the others: drive, state, 0x29, serial number.
    pub(crate) table_sectors_32: le::U32,
    /// 0x028 of FAT32: bit 7, only the table in bits 0 to 3 is in use.
    pub(crate) flags: le::U16,
    /// 0x02a of FAT32: 0.
    pub(crate) version: le::U16,
    /// 0x02c of FAT32.
    pub(crate) root_cluster: le::U32,
    /// 0x030 of FAT32: usually 1.
    pub(crate) information_sector: le::U16,
    /// 0x032 of FAT32: usually 6.
    pub(crate) backup_sector: le::U16,
    /// 0x034.
    pub(crate) rest: [u8; 458],
    /// 0x1fe 0x55 0xaa.
    pub(crate) signature: [u8; 2],
}
const _: () = assert!(size_of::<RawBootSector>() == 512);

/// How wide an entry of the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }
}

/// A boot sector whose numbers fit each other.
#[derive(Debug, Clone)]
pub(crate) struct BootSector {
    pub(crate) width: Width,
    /// Bytes.
    pub(crate) cluster: u64,
    /// First byte of the first table.
    pub(crate) tables_start: u64,
    pub(crate) tables: u8,
    /// Bytes of one table.
    pub(crate) table_size: u64,
    /// The table that is read, from 0.
    pub(crate) active: u8,
    /// First byte of the fixed root directory, and its bytes; FAT32 has none.
    pub(crate) root: (u64, u64),
    pub(crate) root_cluster: u32,
    /// First byte of cluster 2.
    pub(crate) data_start: u64,
    /// How many there are; their numbers start at 2.
    pub(crate) clusters: u32,
    /// Bytes of the whole file system.
    pub(crate) size: u64,
    pub(crate) serial: Option<[u8; 4]>,
    /// Byte of the copy of this sector, if there is one.
    pub(crate) backup: Option<u64>,
    /// Byte of the sector that counts free clusters, if there is one.
    pub(crate) information: Option<u64>,
    /// What the state byte says: it was mounted, and not unmounted.
    pub(crate) is_dirty: bool,
}

impl BootSector {
    pub(crate) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let raw: RawBootSector = read_value(device, 0)?;
        Ok(Self::decode(&raw)?)
    }

    pub(crate) fn decode(raw: &RawBootSector) -> Result<Self, Corrupt> {
        let corrupt = |field, expected: &str, found: u64| Corrupt::new(STRUCTURE, 0, field, expected, found);
        let sector = u64::from(raw.bytes_per_sector.get());
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(corrupt("BPB_BytsPerSec", "512, 1024, 2048 or 4096", sector));
        }
        let per_cluster = u64::from(raw.sectors_per_cluster);
        if !per_cluster.is_power_of_two() {
            return Err(corrupt("BPB_SecPerClus", "a power of two", per_cluster));
        }
        let reserved = u64::from(raw.reserved_sectors.get());
        if reserved == 0 {
            return Err(corrupt("BPB_RsvdSecCnt", "at least 1", 0));
        }
        if raw.tables == 0 {
            return Err(corrupt("BPB_NumFATs", "at least 1", 0));
        }
        if raw.media != 0xf0 && raw.media < 0xf8 {
            return Err(corrupt("BPB_Media", "f0 or f8 and above", u64::from(raw.media)));
        }
        let is_fat32 = raw.table_sectors_16.get() == 0;
        let table_sectors = match raw.table_sectors_16.get() {
            0 => u64::from(raw.table_sectors_32.get()),
            sectors => u64::from(sectors),
        };
        if table_sectors == 0 {
            return Err(corrupt("BPB_FATSz32", "at least 1", 0));
        }
        let sectors = match raw.sectors_16.get() {
            0 => u64::from(raw.sectors_32.get()),
            sectors => u64::from(sectors),
        };
        let root_size = u64::from(raw.root_entries.get()).saturating_mul(32);
        let root_sectors = root_size.div_ceil(sector);
        let root_start = reserved.saturating_add(table_sectors.saturating_mul(u64::from(raw.tables)));
        let data_start = root_start.saturating_add(root_sectors);
        let Some(data_sectors) = sectors.checked_sub(data_start) else {
            return Err(corrupt("BPB_TotSec32", "room for tables and root directory", sectors));
        };
        // What the table has no entries for cannot be used.
        let table_size = table_sectors.saturating_mul(sector);
        let entries = table_size.saturating_mul(8).checked_div(if is_fat32 { 32 } else { 12 }).unwrap_or(0);
        let clusters = data_sectors.checked_div(per_cluster).unwrap_or(0).min(entries.saturating_sub(2));
        let clusters = u32::try_from(clusters).unwrap_or(u32::MAX).min(MAX_FAT32);
        let width = match (is_fat32, clusters) {
            (true, _) => Width::Fat32,
            (false, ..=MAX_FAT12) => Width::Fat12,
            (false, _) => Width::Fat16,
        };
        let clusters = match width {
            // Twelve bits were assumed above.
            Width::Fat16 => clusters.min(u32::try_from(table_size / 2).unwrap_or(u32::MAX).saturating_sub(2)),
            Width::Fat12 | Width::Fat32 => clusters,
        };
        if clusters == 0 {
            return Err(corrupt("BPB_TotSec32", "room for a cluster", sectors));
        }
        let bytes = |sectors: u64| sectors.saturating_mul(sector);
        let copy =
            |sector: u16| (is_fat32 && sector != 0 && sector != 0xffff).then(|| bytes(u64::from(sector)));
        let active = u8::try_from(raw.flags.get() & 0xf).unwrap_or(0);
        let is_single = is_fat32 && raw.flags.get() & 0x80 != 0 && active < raw.tables;
        let tail = raw.as_bytes().get(if is_fat32 { 0x40.. } else { 0x24.. }).unwrap_or_default();
        let (state, mark) = (tail.get(1).copied().unwrap_or(0), tail.get(2).copied().unwrap_or(0));
        let serial = tail.get(3..7).and_then(|serial| serial.try_into().ok());
        Ok(Self {
            width,
            cluster: bytes(per_cluster),
            tables_start: bytes(reserved),
            tables: raw.tables,
            table_size,
            active: if is_single { active } else { 0 },
            root: if is_fat32 { (0, 0) } else { (bytes(root_start), root_size) },
            root_cluster: if is_fat32 { raw.root_cluster.get() } else { 0 },
            data_start: bytes(data_start),
            clusters,
            size: bytes(sectors),
            serial: serial.filter(|_| matches!(mark, 0x28 | 0x29)),
            backup: copy(raw.backup_sector.get()),
            information: copy(raw.information_sector.get()),
            is_dirty: state & 1 != 0,
        })
    }

    /// First byte of a cluster; `None` for a number that none has.
    pub(crate) fn cluster_at(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters)?;
        self.data_start.checked_add(u64::from(index).checked_mul(self.cluster)?)
    }
}

/// Whether the sector claims to be FAT at all: by its name, or by a jump and the boot signature.
pub(crate) fn is_claimed(raw: &RawBootSector) -> bool {
    let bytes = raw.as_bytes();
    let has = |at: usize, name: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(name));
    let has_name = has(82, b"FAT32   ") || has(82, b"MSWIN") || has(54, b"FAT") || has(54, b"MSDOS");
    let has_jump = matches!(bytes.first(), Some(0xeb | 0xe9)) && raw.signature == [0x55, 0xaa];
    (has_name || has_jump) && &raw.oem_name != b"NTFS    " && &raw.oem_name != b"EXFAT   "
}
