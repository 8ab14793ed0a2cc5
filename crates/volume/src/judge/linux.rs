//! Linux: `block/partitions/efi.c`, then `msdos.c`, then the cuts of `core.c` (6.1 to 6.18).

use zerocopy::FromBytes;

use super::{Judgement, Seen, Source};
use crate::gpt::{Header, MAX_ARRAY, RawEntry};
use crate::mbr::{self, Limits, PROTECTIVE, RawBootSector};
use crate::sectors::{Sectors, last_lba};

/// Partition numbers end below this.
const DISK_MAX_PARTS: usize = 256;

pub(super) fn judge(disk: &mut Sectors<'_>) -> Judgement {
    let sector_size = u64::from(disk.disk.sector_size());
    let Some(bytes) = disk.get(0, 512) else { return Judgement::rejects("sector 0 cannot be read") };
    let Ok(sector) = RawBootSector::read_from_bytes(&bytes) else { return Judgement::default() };
    let gpt = gpt(disk, &sector, sector_size);
    let reason = match gpt {
        Ok(seen) => return accepts(disk, Source::GptPrimary, seen),
        Err(reason) => reason,
    };
    match mbr::is_table(&sector) {
        Ok(()) => {
            let (found, _) = mbr::walk(disk, &sector, sector_size, Limits::Linux);
            let seen = found.iter().map(|found| {
                let mut sectors = u64::from(found.entry.sectors.get());
                if found.number <= 4 && found.entry.is_extended() {
                    // 1 KiB or a sector: room for LILO and no more, so that nobody makes a file system on it.
                    sectors = sectors.min(1024_u64.div_ceil(sector_size.max(1)));
                }
                (found.number, found.start, sectors)
            });
            let seen = seen.collect();
            accepts(disk, Source::Mbr, seen)
        }
        Err("a protective MBR") => Judgement::rejects(reason),
        Err(other) => Judgement::rejects(format!("{other}; {reason}")),
    }
}

/// Cuts what reaches past the end and drops what starts there; `seen` counts logical sectors.
fn accepts(disk: &Sectors<'_>, source: Source, seen: Vec<(u32, u64, u64)>) -> Judgement {
    // The kernel counts in units of 512 bytes, and lets lengths wrap: an entry that ends before it starts becomes a
    // partition of nearly 2⁶⁴ of them.
    let capacity = disk.disk.size() >> 9;
    let units = u64::from(disk.disk.sector_size()) >> 9;
    let partitions = seen
        .into_iter()
        .map(|(number, start, length)| (number, start.wrapping_mul(units), length.wrapping_mul(units)))
        .filter(|(_, start, length)| *length > 0 && *start < capacity)
        .map(|(number, start, length)| {
            let is_cut = start.wrapping_add(length) > capacity;
            let length = if is_cut { capacity.saturating_sub(start) } else { length };
            Seen { number, start: start.saturating_mul(512), length: length.saturating_mul(512) }
        })
        .collect();
    Judgement::Accepts { source, partitions, remark: None }
}

/// The primary copy, which is the only one that counts.
fn gpt(
    disk: &mut Sectors<'_>,
    sector: &RawBootSector,
    sector_size: u64,
) -> Result<Vec<(u32, u64, u64)>, String> {
    let is_protective = sector.signature == [0x55, 0xaa]
        && sector.entries.iter().any(|entry| entry.partition_type == PROTECTIVE && entry.start.get() == 1);
    if !is_protective {
        return Err("no protective MBR".into());
    }
    let bytes = disk.get(sector_size, sector_size).ok_or("sector 1 cannot be read")?;
    let header = Header::decode(&bytes, 1, "primary header").map_err(|wrong| wrong.to_string())?;
    let last = last_lba(disk.disk.size(), sector_size);
    if header.first_usable_lba > last || header.last_usable_lba > last {
        return Err(format!(
            "the usable range {}..={} ends past the last sector {last}",
            header.first_usable_lba, header.last_usable_lba
        ));
    }
    if header.last_usable_lba < header.first_usable_lba {
        return Err("the usable range ends before it starts".into());
    }
    if header.entry_size != 128 {
        return Err(format!("entries of {} bytes instead of 128", header.entry_size));
    }
    if header.array_length() > MAX_ARRAY {
        return Err("an array larger than 4 MiB".into());
    }
    let at = header.partition_entry_lba.checked_mul(sector_size).ok_or("the array lies past the end")?;
    let array = disk.get(at, header.array_length()).ok_or("the array cannot be read")?;
    if ondisk::crc32(&array) != header.array_crc32 {
        return Err("the checksum of the primary entry array is wrong".into());
    }
    let mut seen = Vec::new();
    for (number, bytes) in (1_u32..).zip(array.chunks_exact(128)).take(DISK_MAX_PARTS.saturating_sub(1)) {
        let Ok(entry) = RawEntry::read_from_bytes(bytes) else { continue };
        let (first, end) = (entry.starting_lba.get(), entry.ending_lba.get());
        if !entry.is_used() || first > last || end > last {
            continue;
        }
        seen.push((number, first, end.wrapping_sub(first).wrapping_add(1)));
    }
    Ok(seen)
}
