//! OVMF: EDK2's `PartitionDxe` with `GptLib`, as of 2026; older ones check less of the header.
//!
//! A GPT behind a protective MBR, whose boot signature is not looked at; else an MBR, which is refused as a
//! whole when a partition overlaps another or ends past the disk.

use zerocopy::FromBytes;

use super::{Judgement, Seen, Source};
use crate::gpt::{Header, RawEntry};
use crate::mbr::{PROTECTIVE, RawBootSector};
use crate::sectors::{Sectors, last_lba};

/// Logical partitions that are followed here; EDK2 itself has no bound but the extended partition's size.
const MAX_LOGICAL: u32 = 1024;
/// Pairs of an entry in range and one out of it that are compared.
const MAX_PAIRS: usize = 1 << 22;
/// Bytes that a link counts in: EDK2 gives every MBR partition this block size, whatever the disk's (`MBR_SIZE`), so
/// that on 4096-byte sectors a chain ends behind its first record.
const LINK_UNIT: u64 = 512;

pub(super) fn judge(disk: &mut Sectors<'_>) -> Judgement {
    let sector_size = u64::from(disk.disk.sector_size());
    let Some(sector) = record(disk, 0) else { return Judgement::rejects("sector 0 cannot be read") };
    let is_protective =
        sector.entries.iter().any(|entry| entry.partition_type == PROTECTIVE && entry.start.get() == 1);
    let gpt = if is_protective { gpt(disk, sector_size) } else { Err("no protective MBR".into()) };
    gpt.unwrap_or_else(|reason| match mbr(disk, &sector, sector_size) {
        Ok(partitions) if !partitions.is_empty() => {
            Judgement::Accepts { source: Source::Mbr, partitions, remark: None }
        }
        Ok(_) => Judgement::rejects(format!("no partition in the MBR; {reason}")),
        Err(other) => Judgement::rejects(format!("{other}; {reason}")),
    })
}

fn record(disk: &mut Sectors<'_>, at: u64) -> Option<RawBootSector> {
    RawBootSector::read_from_bytes(&disk.get(at, 512)?).ok()
}

/// One copy as `PartitionValidGptTable` checks it.
fn copy(disk: &mut Sectors<'_>, lba: u64, sector_size: u64) -> Result<(Header, Vec<u8>), String> {
    let at = lba.checked_mul(sector_size).ok_or("a header past the end")?;
    let bytes = disk.get(at, sector_size).ok_or("a header that cannot be read")?;
    let header = Header::decode(&bytes, lba, "GPT header").map_err(|wrong| wrong.to_string())?;
    if header.revision != 0x0001_0000 {
        return Err(format!("revision {:#x}", header.revision));
    }
    let at = header.partition_entry_lba.checked_mul(sector_size).ok_or("an array past the end")?;
    let array = disk.get(at, header.array_length()).ok_or("an array that cannot be read")?;
    if ondisk::crc32(&array) != header.array_crc32 {
        return Err("the checksum of an entry array is wrong".into());
    }
    Ok((header, array))
}

fn gpt(disk: &mut Sectors<'_>, sector_size: u64) -> Result<Judgement, String> {
    let last = last_lba(disk.disk.size(), sector_size);
    match copy(disk, 1, sector_size) {
        Ok((header, array)) => {
            let remark = copy(disk, header.alternate_lba, sector_size)
                .is_err()
                .then(|| format!("writes a backup to sector {}", header.alternate_lba));
            let partitions = entries(&header, &array, sector_size);
            Ok(Judgement::Accepts { source: Source::GptPrimary, partitions, remark })
        }
        Err(reason) => {
            let (header, array) = copy(disk, last, sector_size)
                .map_err(|other| format!("primary: {reason}; backup in the last sector: {other}"))?;
            // It writes the primary where the backup says, and reads the entries from there.
            let partitions =
                if header.alternate_lba <= last { entries(&header, &array, sector_size) } else { Vec::new() };
            let remark = Some(format!("writes the primary to sector {}", header.alternate_lba));
            Ok(Judgement::Accepts { source: Source::GptBackup, partitions, remark })
        }
    }
}

/// Entries in the usable range that overlap no other and are not for the operating system alone.
fn entries(header: &Header, array: &[u8], sector_size: u64) -> Vec<Seen> {
    let step = usize::try_from(header.entry_size).unwrap_or(128).max(128);
    let used: Vec<(u32, RawEntry)> = (1_u32..)
        .zip(array.chunks_exact(step))
        .filter_map(|(number, bytes)| Some((number, RawEntry::read_from_prefix(bytes).ok()?.0)))
        .filter(|(_, entry)| entry.is_used())
        .collect();
    let usable = header.first_usable_lba..=header.last_usable_lba;
    let range = |entry: &RawEntry| (entry.starting_lba.get(), entry.ending_lba.get());
    let is_in_range = |entry: &RawEntry| {
        let (first, last) = range(entry);
        first <= last && usable.contains(&first) && usable.contains(&last)
    };
    // Two in range spoil each other; one out of range spoils those that stand before it.
    let mut overlaps = vec![false; used.len()];
    let (inside, outside): (Vec<usize>, Vec<usize>) =
        (0..used.len()).partition(|index| used.get(*index).is_some_and(|(_, entry)| is_in_range(entry)));
    let at = |index: &usize| used.get(*index).map(|(_, entry)| range(entry)).unwrap_or_default();
    let mut flag = |index: usize| overlaps.get_mut(index).into_iter().for_each(|flag| *flag = true);
    let mut sorted = inside.clone();
    sorted.sort_by_key(at);
    let mut furthest: Option<usize> = None;
    for index in sorted {
        if let Some(before) = furthest.filter(|before| at(before).1 >= at(&index).0) {
            flag(before);
            flag(index);
        }
        if furthest.is_none_or(|before| at(&before).1 < at(&index).1) {
            furthest = Some(index);
        }
    }
    let mut pairs = 0_usize;
    for index in &inside {
        pairs = pairs.saturating_add(outside.len());
        if pairs > MAX_PAIRS {
            break;
        }
        let (first, last) = at(index);
        if outside.iter().any(|other| other > index && at(other).1 >= first && at(other).0 <= last) {
            flag(*index);
        }
    }
    let is_seen = |entry: &RawEntry, overlaps: &bool| {
        is_in_range(entry) && !overlaps && entry.attributes.get() & 2 == 0
    };
    used.iter()
        .zip(&overlaps)
        .filter(|((_, entry), overlaps)| is_seen(entry, overlaps))
        .map(|((number, entry), _)| {
            let (first, last) = range(entry);
            let sectors = last.saturating_sub(first).saturating_add(1);
            let length = sectors.saturating_mul(sector_size);
            Seen { number: *number, start: first.saturating_mul(sector_size), length }
        })
        .collect()
}

/// `PartitionValidMbr` for the table in a device of `last + 1` sectors.
fn is_valid(sector: &RawBootSector, last: u64) -> Result<(), String> {
    if sector.signature != [0x55, 0xaa] {
        return Err("no boot signature".into());
    }
    let used: Vec<(u32, u32)> = sector
        .entries
        .iter()
        .filter(|entry| entry.partition_type != 0 && entry.sectors.get() != 0)
        .map(|entry| (entry.start.get(), entry.start.get().wrapping_add(entry.sectors.get()).wrapping_sub(1)))
        .collect();
    if used.is_empty() {
        return Err("no partition in the MBR".into());
    }
    for (index, (first, end)) in used.iter().enumerate() {
        if u64::from(*end) > last {
            return Err(format!("an MBR partition that ends in sector {end}, past the last one, {last}"));
        }
        if used.iter().skip(index.saturating_add(1)).any(|other| other.1 >= *first && other.0 <= *end) {
            return Err("MBR partitions that overlap".into());
        }
    }
    Ok(())
}

fn mbr(disk: &mut Sectors<'_>, sector: &RawBootSector, sector_size: u64) -> Result<Vec<Seen>, String> {
    is_valid(sector, last_lba(disk.disk.size(), sector_size))?;
    let mut seen = Vec::new();
    let mut number = 0_u32;
    let used = sector.entries.iter().filter(|entry| {
        entry.partition_type != 0 && entry.sectors.get() != 0 && entry.partition_type != PROTECTIVE
    });
    let mut extended = Vec::new();
    for entry in used {
        number = number.saturating_add(1);
        let (start, sectors) = (u64::from(entry.start.get()), u64::from(entry.sectors.get()));
        let bytes = |count: u64| count.saturating_mul(sector_size);
        seen.push(Seen { number, start: bytes(start), length: bytes(sectors) });
        if entry.is_extended() {
            extended.push((start, sectors));
        }
    }
    // Every partition becomes a device whose sector 0 may be a table again; only chains matter here.
    for (start, sectors) in extended {
        logical(disk, start, sectors, sector_size, &mut seen);
    }
    Ok(seen)
}

/// The chain within a partition; its numbers start again from 1 in EDK2, and go on from 5 here.
fn logical(disk: &mut Sectors<'_>, start: u64, sectors: u64, sector_size: u64, seen: &mut Vec<Seen>) {
    let bytes = |count: u64| count.saturating_mul(sector_size);
    let Some(first) = record(disk, bytes(start)) else { return };
    let last = bytes(sectors).checked_div(LINK_UNIT).unwrap_or(0).saturating_sub(1);
    if is_valid(&first, last).is_err() {
        return;
    }
    let mut link = 0_u64;
    for _ in 0..MAX_LOGICAL {
        let at = bytes(start).saturating_add(link.saturating_mul(LINK_UNIT));
        let Some(record) = record(disk, at) else { return };
        let [entry, next, ..] = &record.entries;
        let is_link = |kind: u8| matches!(kind, 0x05 | 0x0f);
        if entry.sectors.get() == 0 {
            return;
        }
        if is_link(entry.partition_type) {
            link = entry.start.get().into();
        } else {
            let at = start.saturating_add(link).saturating_add(entry.start.get().into());
            let length = u64::from(entry.sectors.get());
            if at.saturating_add(length) > start.saturating_add(sectors) || at <= start {
                return;
            }
            let number = seen.iter().map(|seen| seen.number).max().unwrap_or(0).max(4).saturating_add(1);
            seen.push(Seen { number, start: bytes(at), length: bytes(length) });
            if !is_link(next.partition_type) || next.start.get() == 0 {
                return;
            }
            link = next.start.get().into();
        }
        if link >= sectors {
            return;
        }
    }
}
