//! FAT and HPFS.

use super::probe::{Bytes, serial};
use super::{Probe, Signature, Usage};

/// Clusters of a root directory that are searched for a label.
const MAX_CLUSTERS: usize = 100;

/// FAT12, FAT16 and FAT32: Microsoft FAT specification (fatgen103), §3. The label is the one in the root directory;
/// that in the boot sector is often stale.
pub(super) fn fat(probe: &Probe<'_>) -> Option<Signature> {
    let boot = probe.at(0, 512)?;
    let has_name =
        boot.has(82, b"FAT32   ") || boot.has(82, b"MSWIN") || boot.has(54, b"FAT") || boot.has(54, b"MSDOS");
    // Old formats carry no name; then a jump and the boot signature must do, and all numbers be right.
    let has_jump = matches!(boot.u8(0), 0xeb | 0xe9) && boot.has(510, b"\x55\xaa");
    if !(has_name || has_jump) || boot.has(3, b"NTFS    ") || boot.has(3, b"EXFAT   ") {
        return None;
    }
    let geometry = Geometry::read(&boot)?;
    let is_fat32 = boot.u16(22) == 0;
    let (serial_at, signature_at) = if is_fat32 { (67, 66) } else { (39, 38) };
    let uuid =
        matches!(boot.u8(signature_at), 0x28 | 0x29).then(|| serial(boot.part(serial_at, 4))).flatten();
    let version = match (is_fat32, geometry.clusters) {
        (true, _) => "FAT32",
        (false, ..0xff5) => "FAT12",
        (false, _) => "FAT16",
    };
    let label =
        if is_fat32 { geometry.label_in_chain(probe, boot.u32(44)) } else { geometry.label_in_root(probe) };
    Some(Signature::new("vfat", Usage::FileSystem).version(version).uuid(uuid).label(label))
}

struct Geometry {
    sector: u64,
    cluster: u64,
    reserved: u64,
    fats: u64,
    fat_length: u64,
    root_entries: u64,
    clusters: u64,
}

impl Geometry {
    fn read(boot: &Bytes) -> Option<Self> {
        let sector = u64::from(boot.u16(11));
        let per_cluster = u64::from(boot.u8(13));
        let fats = u64::from(boot.u8(16));
        let reserved = u64::from(boot.u16(14));
        let media = boot.u8(21);
        let is_sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && fats > 0
            && reserved > 0
            && (media >= 0xf8 || media == 0xf0);
        if !is_sane {
            return None;
        }
        let fat_length = match boot.u16(22) {
            0 => u64::from(boot.u32(36)),
            length => u64::from(length),
        };
        let sectors = match boot.u16(19) {
            0 => u64::from(boot.u32(32)),
            sectors => u64::from(sectors),
        };
        let root_entries = u64::from(boot.u16(17));
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let used = reserved + fats * fat_length + root_sectors;
        let clusters = sectors.checked_sub(used)? / per_cluster;
        (fat_length > 0).then_some(Self {
            sector,
            cluster: per_cluster * sector,
            reserved,
            fats,
            fat_length,
            root_entries,
            clusters,
        })
    }

    /// First byte behind the FATs.
    fn behind_fats(&self) -> u64 {
        (self.reserved + self.fats * self.fat_length) * self.sector
    }

    /// FAT12 and FAT16 have a root directory of its own.
    fn label_in_root(&self, probe: &Probe<'_>) -> Option<Vec<u8>> {
        let directory = probe.at(self.behind_fats(), (self.root_entries * 32).min(1 << 20) as usize)?;
        label_in(&directory)
    }

    /// The root directory of FAT32 is a chain of clusters.
    fn label_in_chain(&self, probe: &Probe<'_>, first: u32) -> Option<Vec<u8>> {
        let mut cluster = first;
        for _ in 0..MAX_CLUSTERS {
            let number = u64::from(cluster).checked_sub(2).filter(|number| *number < self.clusters)?;
            let directory = probe.at(self.behind_fats() + number * self.cluster, self.cluster as usize)?;
            if let Some(label) = label_in(&directory) {
                return Some(label);
            }
            let entry = self.reserved * self.sector + u64::from(cluster) * 4;
            cluster = probe.at(entry, 4)?.u32(0) & 0x0fff_ffff;
        }
        None
    }
}

/// The entry with the volume attribute that is neither a part of a long name nor removed.
fn label_in(directory: &Bytes) -> Option<Vec<u8>> {
    for entry in directory.0.chunks_exact(32) {
        match entry[0] {
            0 => return None,
            0xe5 => continue,
            _ => {}
        }
        if entry[11] & 0x08 != 0
            && entry[11] & 0x3f != 0x0f
            && entry[20..22] == [0, 0]
            && entry[26..28] == [0, 0]
        {
            let mut name = entry[..11].to_vec();
            // 0xe5 as a first byte would mean removed, so it is stored as 0x05.
            if name[0] == 0x05 {
                name[0] = 0xe5;
            }
            return super::probe::text(&name);
        }
    }
    None
}

/// OS/2's file system: a superblock at sector 16 and a spare block behind it.
pub(super) fn hpfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x2000, 512).filter(|block| block.has(0, b"\x49\xe8\x95\xf9"))?;
    probe.at(0x2200, 4).filter(|block| block.has(0, b"\x49\x18\x91\xf9"))?;
    let boot = probe.at(0, 512)?;
    let has_identity = boot.has(510, b"\x55\xaa") && boot.u8(0x26) == 0x28;
    Some(
        Signature::new("hpfs", Usage::FileSystem)
            .version(superblock.u8(8))
            .uuid(has_identity.then(|| serial(boot.part(0x27, 4))).flatten())
            .label(has_identity.then(|| boot.text(0x2b, 11)).flatten()),
    )
}
