//! GRUB: `grub-core/partmap/gpt.c` and `msdos.c` (2.06 to 2.12). No checksum, no backup, no usable range.

use zerocopy::FromBytes;

use super::{Judgement, Seen, Source, number};
use crate::mbr::{PROTECTIVE, RawBootSector};
use crate::sectors::Sectors;

/// Sector sizes that are tried: 512·2⁰ to 512·2⁶.
const SECTOR_SHIFTS: u32 = 7;
/// Bytes of the array that are read at once.
const WINDOW: u64 = 16 << 10;
/// Entries that are looked at here; GRUB itself has no bound.
const MAX_ENTRIES: u64 = 1 << 12;

pub(super) fn judge(disk: &mut Sectors<'_>) -> Judgement {
    let Some(sector) = record(disk, 0) else { return Judgement::rejects("sector 0 cannot be read") };
    if sector.entries.iter().any(|entry| entry.partition_type == PROTECTIVE) {
        gpt(disk, &sector)
    } else {
        msdos(disk)
    }
}

fn record(disk: &mut Sectors<'_>, at: u64) -> Option<RawBootSector> {
    RawBootSector::read_from_bytes(&disk.get(at, 512)?).ok()
}

fn gpt(disk: &mut Sectors<'_>, sector: &RawBootSector) -> Judgement {
    if sector.signature != [0x55, 0xaa] {
        return Judgement::rejects("no boot signature");
    }
    let mut header = None;
    for shift in 0..SECTOR_SHIFTS {
        let Some(bytes) = disk.get(512 << shift, 92) else { return Judgement::rejects("no GPT header") };
        if bytes.starts_with(b"EFI PART") {
            header = Some((shift, bytes));
            break;
        }
    }
    let Some((shift, header)) = header else { return Judgement::rejects("no GPT header") };
    let mut sector = number(&header, 0x48, 8).wrapping_shl(shift);
    let (count, step) = (number(&header, 0x50, 4), number(&header, 0x54, 4));
    // The offset is a C int, and goes back to 0 only when it hits 512.
    let step = i64::from(u32::try_from(step).unwrap_or(0).cast_signed());
    let mut offset = 0_i64;
    let mut partitions = Vec::new();
    let mut remark = None;
    let mut window = (0_u64, Vec::new());
    for index in 0..count {
        if index >= MAX_ENTRIES {
            remark = Some(format!("only {MAX_ENTRIES} of {count} entries were looked at"));
            break;
        }
        let at = u64::try_from(offset).ok().and_then(|offset| sector.checked_mul(512)?.checked_add(offset));
        let Some(entry) = at.and_then(|at| entry(disk, &mut window, at)) else {
            remark = Some(format!("the array ends past the disk, at entry {}", index.saturating_add(1)));
            break;
        };
        if entry.iter().take(16).any(|byte| *byte != 0) {
            let (first, last) = (number(&entry, 0x20, 8), number(&entry, 0x28, 8));
            let bytes = |sectors: u64| sectors.wrapping_shl(shift).saturating_mul(512);
            partitions.push(Seen {
                number: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
                start: bytes(first),
                length: bytes(last.wrapping_sub(first).wrapping_add(1)),
            });
        }
        offset = i64::from(i32::try_from(offset.saturating_add(step)).unwrap_or(i32::MIN));
        if offset == 512 {
            offset = 0;
            sector = sector.wrapping_add(1);
        }
    }
    Judgement::Accepts { source: Source::GptPrimary, partitions, remark }
}

/// 128 bytes at byte `at`, out of a window that is read at once.
fn entry(disk: &mut Sectors<'_>, window: &mut (u64, Vec<u8>), at: u64) -> Option<[u8; 128]> {
    let within = |window: &(u64, Vec<u8>)| {
        let from = usize::try_from(at.checked_sub(window.0)?).ok()?;
        window.1.get(from..from.checked_add(128)?)?.try_into().ok()
    };
    if within(window).is_none() {
        let length = disk.disk.size().checked_sub(at)?.min(WINDOW);
        *window = (at, disk.get(at, length)?);
    }
    within(window)
}

fn msdos(disk: &mut Sectors<'_>) -> Judgement {
    let sector_size = u64::from(disk.disk.sector_size());
    let mut partitions = Vec::new();
    let (mut record_at, mut extended) = (0_u64, 0_u64);
    let mut label = 0_u64;
    let mut remembered = 1_u64;
    // Counts as GRUB does: from -1, empty entries of sector 0 too.
    let mut next = 0_u32;
    let stopped = loop {
        let Some(sector) = record(disk, record_at) else { break Some("a record past the end of the disk") };
        if label > 0 && remembered == record_at {
            break Some("a loop of records");
        }
        label = label.saturating_add(1);
        if label.is_power_of_two() {
            remembered = record_at;
        }
        if sector.signature != [0x55, 0xaa] {
            break Some("no boot signature");
        }
        if sector.entries.iter().any(|entry| entry.boot_indicator & 0x7f != 0) {
            break Some("a boot indicator that is neither 00 nor 80");
        }
        for entry in &sector.entries {
            let bytes = |sectors: u32| u64::from(sectors).saturating_mul(sector_size);
            if entry.partition_type != 0 && !entry.is_extended() {
                next = next.saturating_add(1);
                let start = record_at.saturating_add(bytes(entry.start.get()));
                partitions.push(Seen { number: next, start, length: bytes(entry.sectors.get()) });
            } else if next < 4 {
                next = next.saturating_add(1);
            }
        }
        let Some(link) = sector.entries.iter().find(|entry| entry.is_extended()) else { break None };
        record_at = extended.saturating_add(u64::from(link.start.get()).saturating_mul(sector_size));
        if extended == 0 {
            extended = record_at;
        }
    };
    match stopped {
        Some(reason) if label <= 1 && partitions.is_empty() => Judgement::rejects(reason),
        _ => Judgement::Accepts { source: Source::Mbr, partitions, remark: stopped.map(Into::into) },
    }
}
