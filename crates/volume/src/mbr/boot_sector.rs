//! The 512 bytes of a boot record, and what else they may be.

use ondisk::le;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The boot sector as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawBootSector {
    /// 0x000 boot code, 440 bytes.
    pub boot_code: [u8; 440],
    /// 0x1b8 disk signature, the first half of every PARTUUID.
    pub disk_signature: le::U32,
    /// 0x1bc 0x5a5a when the disk is copy-protected, else 0.
    pub reserved: le::U16,
    /// 0x1be the four entries.
    pub entries: [RawEntry; 4],
    /// 0x1fe 0x55 0xaa.
    pub signature: [u8; 2],
}
const _: () = assert!(size_of::<RawBootSector>() == 512);

/// One entry as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    /// 0x0 0x80 active, 0x00 not; anything else is no partition entry.
    pub boot_indicator: u8,
    /// 0x1 cylinder, head, sector of the start; ignored.
    pub start_chs: [u8; 3],
    /// 0x4 partition type; 0 is unused for every tool, but not for Linux, which looks at the length.
    pub partition_type: u8,
    /// 0x5 cylinder, head, sector of the end; ignored.
    pub end_chs: [u8; 3],
    /// 0x8 first sector.
    pub start: le::U32,
    /// 0xc number of sectors.
    pub sectors: le::U32,
}
const _: () = assert!(size_of::<RawEntry>() == 16);

impl RawEntry {
    /// Whether Linux makes a partition of it: it has a length. The type is not looked at.
    pub fn is_used(&self) -> bool {
        self.sectors.get() != 0
    }

    /// Whether it leads to extended boot records.
    pub fn is_extended(&self) -> bool {
        matches!(self.partition_type, 0x05 | 0x0f | 0x85)
    }
}

/// The type byte of a protective MBR's single partition.
pub const PROTECTIVE: u8 = 0xee;

/// Whether sector 0 is a table for Linux: boot signature, boot indicators, nobody else's table.
///
/// # Errors
/// What keeps it from being one.
pub(crate) fn is_table(sector: &RawBootSector) -> Result<(), &'static str> {
    // AIX puts "IBMA" in EBCDIC in front; with a Linux partition in it, it counts all the same.
    let is_linux =
        |entry: &RawEntry| entry.is_extended() || matches!(entry.partition_type, 0x82 | 0x83 | 0x8e | 0xfd);
    if sector.boot_code.starts_with(&[0xc9, 0xc2, 0xd4, 0xc1]) && !sector.entries.iter().any(is_linux) {
        return Err("a disk of AIX");
    }
    if sector.signature != [0x55, 0xaa] {
        return Err("no boot signature");
    }
    if !sector.entries.iter().all(|entry| matches!(entry.boot_indicator, 0 | 0x80)) {
        return Err("a boot indicator that is neither 00 nor 80");
    }
    if sector.entries.iter().any(|entry| entry.partition_type == PROTECTIVE) {
        return Err("a protective MBR");
    }
    Ok(())
}

/// Whether the sector would be a table if it had its boot signature: every byte of the entries makes sense.
pub(crate) fn lacks_signature_only(sector: &RawBootSector) -> bool {
    let is_sane = |entry: &RawEntry| {
        let is_blank = entry.as_bytes().iter().all(|byte| *byte == 0);
        is_blank || (matches!(entry.boot_indicator, 0 | 0x80) && entry.partition_type != 0 && entry.is_used())
    };
    sector.signature != [0x55, 0xaa]
        && sector.entries.iter().any(RawEntry::is_used)
        && sector.entries.iter().all(is_sane)
        && !sector.entries.iter().any(|entry| entry.partition_type == PROTECTIVE)
}

/// Whether the sector is the start of a FAT, exFAT or NTFS file system. Such sectors end in 55 AA too, and what
/// stands where entries would be is boot code.
pub(crate) fn is_file_system(sector: &RawBootSector) -> bool {
    let bytes = sector.as_bytes();
    let at = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default();
    if matches!(at(3..11), b"NTFS    " | b"EXFAT   ") {
        return true;
    }
    let byte = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let word = |index: usize| u16::from_le_bytes([byte(index), byte(index.saturating_add(1))]);
    let is_jump = matches!((byte(0), byte(2)), (0xeb, 0x90) | (0xe9, _));
    let is_named = [at(54..59), at(82..87)].iter().any(|name| name.starts_with(b"FAT"));
    is_jump
        && is_named
        && matches!(word(11), 512 | 1024 | 2048 | 4096)
        && byte(13).is_power_of_two()
        && word(14) != 0
        && matches!(byte(16), 1 | 2)
        && (byte(21) >= 0xf8 || byte(21) == 0xf0)
}
