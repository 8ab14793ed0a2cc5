//! FAT12, FAT16, FAT32 and exFAT: a boot sector, and a copy of it in FAT32 (sector 6) and exFAT (sector 12).
//!
//! Microsoft's "FAT32 File System Specification" 1.03; "exFAT file system specification". Little-endian. The copy
//! does not say that it is one: the file allocation table, which is where only one of the two can mean, tells them apart.

use super::{Hit, Sector, le, line, text};
use crate::lost::Kind;

pub(super) fn probe(sector: Sector<'_>) -> Option<Hit> {
    let bs = sector.bytes;
    if bs.get(510..512) != Some(&[0x55, 0xaa]) || !matches!(bs, [0xeb, _, 0x90, ..] | [0xe9, ..]) {
        return None;
    }
    let sector_size = le(bs, 11, 2);
    let cluster = le(bs, 13, 1);
    let reserved = le(bs, 14, 2);
    let (fats, media) = (le(bs, 16, 1), le(bs, 21, 1));
    let total = if le(bs, 19, 2) == 0 { le(bs, 32, 4) } else { le(bs, 19, 2) };
    let has_sense = matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved != 0
        && matches!(fats, 1 | 2)
        && (media >= 0xf8 || media == 0xf0)
        && total > reserved;
    if !has_sense {
        return None;
    }
    let is_32 = le(bs, 17, 2) == 0 && le(bs, 22, 2) == 0;
    let serial = le(bs, if is_32 { 67 } else { 39 }, 4);
    let back = if is_32 { le(bs, 50, 2) } else { 0 };
    let has_table = |start: u64| {
        let at = start.saturating_add(reserved.saturating_mul(sector_size));
        sector.read(at, 4).is_some_and(|fat| le(&fat, 0, 1) == media && le(&fat, 1, 2) == 0xffff)
    };
    let copied = (back != 0 && back < reserved).then(|| back.saturating_mul(sector_size));
    let from_copy = copied.and_then(|back| sector.at.checked_sub(back)).filter(|start| has_table(*start));
    let (start, is_primary) = match from_copy {
        _ if has_table(sector.at) => (sector.at, true),
        Some(start) => (start, false),
        None => return None,
    };
    let length = total.saturating_mul(sector_size);
    let fat_length = if is_32 { le(bs, 36, 4) } else { le(bs, 22, 2) };
    let fats_end = reserved.saturating_add(fats.saturating_mul(fat_length));
    let root = if is_32 {
        fats_end.saturating_add(le(bs, 44, 4).saturating_sub(2).saturating_mul(cluster))
    } else {
        fats_end
    };
    let directory = sector.read(start.saturating_add(root.saturating_mul(sector_size)), 4096);
    let is_efi = directory.is_some_and(|directory| {
        directory.chunks_exact(32).any(|entry| {
            entry.starts_with(b"EFI        ") && entry.get(11).is_some_and(|kind| kind & 0x10 != 0)
        })
    });
    let uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    let what = if is_primary { "FAT boot sector" } else { "copy of a FAT boot sector" };
    let label = text(bs, if is_32 { 71 } else { 43 }, 11).filter(|label| label != "NO NAME");
    Some(Hit {
        start,
        length: Some(length),
        kind: if is_efi { Kind::EfiSystem } else { Kind::Fat },
        label,
        is_primary,
        expected_copies: u32::from(copied.is_some()),
        entry: None,
        evidence: line(what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}

pub(super) fn probe_exfat(sector: Sector<'_>) -> Option<Hit> {
    let bs = sector.bytes;
    if bs.get(3..11) != Some(b"EXFAT   ") || bs.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let shift = u32::try_from(le(bs, 0x6c, 1)).ok().filter(|shift| (9..=12).contains(shift))?;
    let length = le(bs, 0x48, 8).checked_mul(1 << shift)?;
    let fat = le(bs, 0x50, 4) << shift;
    let has_table = |start: u64| {
        sector.read(start.saturating_add(fat), 8).is_some_and(|fat| le(&fat, 0, 8) == 0xffff_ffff_ffff_fff8)
    };
    let from_copy = sector.at.checked_sub(12 << shift).filter(|start| has_table(*start));
    let (start, is_primary) = match from_copy {
        _ if has_table(sector.at) => (sector.at, true),
        Some(start) => (start, false),
        None => return None,
    };
    let serial = le(bs, 0x64, 4);
    let uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    let what = if is_primary { "exFAT boot sector" } else { "copy of an exFAT boot sector" };
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::ExFat,
        label: None,
        is_primary,
        expected_copies: 1,
        entry: None,
        evidence: line(what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}
