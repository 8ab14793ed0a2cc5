//! NTFS, ReFS and exFAT.

use super::probe::serial;
use super::{Probe, Signature, Usage};

/// NTFS: the label is the content of `$Volume`'s attribute 0x60.
pub(super) fn ntfs(probe: &Probe<'_>) -> Option<Signature> {
    let boot = probe.at(0, 512).filter(|boot| boot.has(3, b"NTFS    "))?;
    let uuid: String = boot.part(72, 8).iter().rev().map(|byte| format!("{byte:02X}")).collect();
    let signature = Signature::new("ntfs", Usage::FileSystem).uuid(Some(uuid));
    let label = || -> Option<Vec<u8>> {
        let sector = u64::from(boot.u16(11));
        // Above 128 the byte is a negative power of two.
        let per_cluster = match boot.u8(13) {
            count @ 1..=128 => u64::from(count),
            negative => 1 << (256 - u32::from(negative)).min(31),
        };
        let cluster = sector * per_cluster;
        let record = match boot.u8(64).cast_signed() {
            clusters @ 1.. => u64::from(clusters.unsigned_abs()) * cluster,
            power => 1 << u32::from(power.unsigned_abs()).min(31),
        };
        if !(512..=64 << 10).contains(&record) {
            return None;
        }
        let at = boot.u64(48).checked_mul(cluster)?.checked_add(3 * record)?;
        let volume = probe.at(at, record as usize).filter(|record| record.has(0, b"FILE"))?;
        let mut attribute = usize::from(volume.u16(20));
        // More attributes than any record holds.
        for _ in 0..64 {
            let (kind, length) = (volume.u32(attribute), volume.u32(attribute + 4) as usize);
            if kind == 0x60 && volume.u8(attribute + 8) == 0 {
                let start = attribute + usize::from(volume.u16(attribute + 20));
                return volume.utf16_le(start, volume.u32(attribute + 16).min(256) as usize);
            }
            if kind == 0xffff_ffff || !(24..=record as usize).contains(&length) {
                return None;
            }
            attribute += length;
        }
        None
    };
    Some(signature.label(label()))
}

/// Microsoft's Resilient File System.
pub(super) fn refs(probe: &Probe<'_>) -> Option<Signature> {
    probe.has(0, b"\0\0\0ReFS\0").then(|| Signature::new("ReFS", Usage::FileSystem))
}

/// exFAT file system specification, §3.1 and §7.3. The label is an entry of the root directory.
pub(super) fn exfat(probe: &Probe<'_>) -> Option<Signature> {
    let boot = probe.at(0, 512).filter(|boot| boot.has(3, b"EXFAT   "))?;
    let (sector_shift, cluster_shift) = (u32::from(boot.u8(108)), u32::from(boot.u8(109)));
    if !(9..=12).contains(&sector_shift) || cluster_shift > 25 - sector_shift {
        return None;
    }
    let signature = Signature::new("exfat", Usage::FileSystem)
        .uuid(serial(boot.part(100, 4)))
        .version(format!("{}.{}", boot.u8(105), boot.u8(104)));
    let root = u64::from(boot.u32(96)).checked_sub(2)?;
    let heap = u64::from(boot.u32(88)) << sector_shift;
    let at = heap + (root << (sector_shift + cluster_shift));
    let length = (1_usize << (sector_shift + cluster_shift)).min(64 << 10);
    let label = probe.at(at, length).and_then(|directory| {
        let entries = (0..length).step_by(32).take_while(|entry| directory.u8(*entry) != 0);
        let entry = entries.into_iter().find(|entry| directory.u8(*entry) == 0x83)?;
        directory.utf16_le(entry + 2, usize::from(directory.u8(entry + 1).min(11)) * 2)
    });
    Some(signature.label(label))
}
