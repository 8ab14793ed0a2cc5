//! Names of partition types.

/// The type in words, where the byte is a common one.
pub fn type_name(code: u8) -> Option<&'static str> {
    Some(match code {
        0x05 | 0x0f | 0x85 => "extended",
        0x07 => "NTFS/exFAT",
        0x01 => "FAT12",
        0x0b | 0x0c => "FAT32",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x27 => "Windows recovery",
        0x41 => "PowerPC PReP boot",
        0x42 => "Windows LDM",
        0x63 => "UnixWare",
        0x81 => "Minix",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa9 => "NetBSD",
        0xbf => "Solaris",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfd => "Linux RAID",
        _ => return None,
    })
}
