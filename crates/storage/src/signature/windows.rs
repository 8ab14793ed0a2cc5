//! ReFS and exFAT.

use super::probe::serial;
use super::{Probe, Signature, Usage};

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
