//! The table as the rest of the program sees it.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result};

use super::{Found, Limits, RawBootSector, is_file_system, is_table, lacks_signature_only, type_name, walk};
use crate::sectors::Sectors;
use crate::{Judges, Partition, Table, TableKind};

/// Reads the table of `disk`; `None` when sector 0 is none, has no partition in it, or is the start of a file
/// system whose code only looks like entries. A table that lacks nothing but its boot signature is read, and that is a
/// problem. The judges of the result are empty: [`crate::read_table`] adds them.
///
/// # Errors
/// Only [`Error::Io`] for sector 0.
pub fn read(disk: &dyn BlockDevice) -> Result<Option<Parsed<Table>>> {
    if disk.size() < 512 {
        return Ok(None);
    }
    let sector: RawBootSector = ondisk::read_value(disk, 0)?;
    let sector_size = u64::from(disk.sector_size());
    let lacks_signature = lacks_signature_only(&sector);
    let is_table = is_table(&sector).is_ok() && sector.entries.iter().any(super::RawEntry::is_used);
    if !is_table && !lacks_signature {
        return Ok(None);
    }
    // Boot code can look like entries.
    if (lacks_signature || is_file_system(&sector)) && !is_consistent(&sector, disk.size(), sector_size) {
        return Ok(None);
    }
    let mut sectors = Sectors::new(disk);
    let (found, mut problems) = walk(&mut sectors, &sector, sector_size, Limits::Reader);
    problems.splice(0..0, sectors.errors.drain(..));
    if lacks_signature {
        let found = format!("{:02x?}", sector.signature);
        problems.insert(0, Corrupt::new("MBR", 0, "signature", "55 aa", found).into());
    }
    for partition in &found {
        problems.extend(judge(partition, disk.size(), sector_size).map(Error::from));
        problems.extend(nested(&mut sectors, partition, sector_size));
    }
    problems.extend(overlaps(&found).into_iter().map(Error::from));
    let signature = sector.disk_signature.get();
    let partitions = found.iter().map(|found| partition(found, signature, sector_size)).collect();
    let table = Table {
        kind: TableKind::Mbr,
        id: format!("{signature:08x}"),
        partitions,
        judges: Judges::default(),
        gpt: None,
    };
    Ok(Some(Parsed { value: table, problems }))
}

/// Whether every entry is one that a tool would write: a table beside the remains of a boot sector.
fn is_consistent(sector: &RawBootSector, size: u64, sector_size: u64) -> bool {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for entry in sector.entries.iter().filter(|entry| entry.is_used()) {
        let start = u64::from(entry.start.get());
        let end = start.saturating_add(entry.sectors.get().into());
        if entry.partition_type == 0 || start == 0 || end.saturating_mul(sector_size) > size {
            return false;
        }
        ranges.push((start, end));
    }
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| matches!(pair, [(_, end), (start, _)] if end <= start))
}

fn partition(found: &Found, signature: u32, sector_size: u64) -> Partition {
    let entry = &found.entry;
    Partition {
        number: found.number,
        start: found.start.saturating_mul(sector_size),
        length: u64::from(entry.sectors.get()).saturating_mul(sector_size),
        type_id: format!("{:02x}", entry.partition_type),
        type_name: type_name(entry.partition_type),
        uuid: format!("{signature:08x}-{:02x}", found.number),
        label: None,
        is_bootable: entry.boot_indicator == 0x80,
        attributes: 0,
    }
}

fn end(found: &Found) -> u64 {
    found.start.saturating_add(found.entry.sectors.get().into())
}

/// What is wrong with one entry by itself.
fn judge(found: &Found, size: u64, sector_size: u64) -> Option<Corrupt> {
    let end = end(found).saturating_mul(sector_size);
    let wrong = |field, expected: String, what: String| {
        let what = format!("{what} (partition {})", found.number);
        Some(Corrupt::new("MBR partition entry", found.record, field, expected, what))
    };
    if end > size {
        return wrong("sectors", format!("an end within {size} bytes"), end.to_string());
    }
    if found.entry.partition_type == 0 {
        return wrong("partition type", "one for an entry with a length".into(), "00".into());
    }
    (found.start == 0).then(|| wrong("start", "behind sector 0".into(), "0".into()))?
}

/// Primary partitions against each other, logical ones against each other and the primaries.
fn overlaps(found: &[Found]) -> Vec<Corrupt> {
    let mut sorted: Vec<&Found> = found.iter().collect();
    // Logical partitions lie within the extended one.
    sorted.retain(|found| !found.entry.is_extended());
    sorted.sort_by_key(|found| (found.start, found.number));
    let mut problems = Vec::new();
    let mut furthest: Option<&Found> = None;
    for this in sorted {
        if let Some(before) = furthest.filter(|before| end(before) > this.start) {
            let expected = format!("at least {}, the end of partition {}", end(before), before.number);
            let what = format!("{} (partition {})", this.start, this.number);
            problems.push(Corrupt::new("MBR partition entry", this.record, "start", expected, what));
        }
        if furthest.is_none_or(|before| end(before) < end(this)) {
            furthest = Some(this);
        }
    }
    problems
}

/// A table within a primary partition that Linux also reads and we do not.
fn nested(sectors: &mut Sectors<'_>, found: &Found, sector_size: u64) -> Option<Error> {
    let feature = match found.entry.partition_type {
        0xa5 | 0xa6 | 0xa9 => "a BSD disklabel",
        0x82 | 0xbf => "a Solaris VTOC",
        _ => return None,
    };
    let at = found.start.saturating_mul(sector_size).saturating_add(512);
    let bytes = (found.number <= 4).then(|| sectors.get(at, 512))??;
    let is_there = if feature == "a BSD disklabel" {
        bytes.starts_with(&0x8256_4557_u32.to_le_bytes())
    } else {
        bytes.get(12..16) == Some(&0x600d_deee_u32.to_le_bytes())
    };
    is_there.then(|| Error::unsupported("MBR partition", format!("{feature} in partition {}", found.number)))
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::mbr::RawEntry;

    fn entry(kind: u8, start: u32, sectors: u32) -> RawEntry {
        RawEntry {
            boot_indicator: 0,
            start_chs: [0; 3],
            partition_type: kind,
            end_chs: [0; 3],
            start: start.into(),
            sectors: sectors.into(),
        }
    }

    fn disk(sectors: &[(u64, [RawEntry; 4])]) -> MemoryDevice {
        let mut bytes = vec![0; 4096 * 512];
        for (number, entries) in sectors {
            let sector = RawBootSector {
                boot_code: [0; 440],
                disk_signature: 0xdead_beef.into(),
                reserved: 0.into(),
                entries: entries.clone(),
                signature: [0x55, 0xaa],
            };
            let at = *number as usize * 512;
            bytes[at..at + 512].copy_from_slice(sector.as_bytes());
        }
        MemoryDevice::new(bytes)
    }

    fn none() -> RawEntry {
        entry(0, 0, 0)
    }

    fn found(disk: &MemoryDevice) -> Vec<(u32, u64, u64)> {
        let parsed = read(disk).unwrap().unwrap();
        parsed.value.partitions.iter().map(|p| (p.number, p.start / 512, p.length / 512)).collect()
    }

    #[test]
    fn primary_and_logical() {
        let disk = disk(&[
            (0, [entry(0x83, 64, 100), entry(0x05, 1000, 2000), none(), none()]),
            (1000, [entry(0x83, 10, 90), entry(0x05, 500, 600), none(), none()]),
            (1500, [entry(0x8e, 20, 80), none(), none(), none()]),
        ]);
        let parsed = read(&disk).unwrap().unwrap();
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert_eq!(found(&disk), [(1, 64, 100), (2, 1000, 2000), (5, 1010, 90), (6, 1520, 80)]);
        assert_eq!(parsed.value.partitions[3].uuid, "deadbeef-06");
    }

    #[test]
    fn a_loop_ends_and_keeps_what_was_found() {
        let disk = disk(&[
            (0, [entry(0x83, 64, 100), entry(0x0f, 1000, 2000), none(), none()]),
            (1000, [entry(0x83, 10, 90), entry(0x05, 0, 600), none(), none()]),
        ]);
        // The link's start 0 leads back to the first record.
        let parsed = read(&disk).unwrap().unwrap();
        assert_eq!(parsed.value.partitions.len(), 3);
        assert!(parsed.problems[0].to_string().contains("again"), "{:?}", parsed.problems);
    }

    #[test]
    fn the_third_and_fourth_entry_must_fit() {
        let disk = disk(&[
            (0, [entry(0x05, 1000, 2000), none(), none(), none()]),
            (1000, [entry(0x83, 10, 90), none(), entry(0x83, 200, 100), entry(0x83, 1990, 100)]),
        ]);
        assert_eq!(found(&disk), [(1, 1000, 2000), (5, 1010, 90), (6, 1200, 100)]);
    }

    #[test]
    fn two_extended_partitions() {
        let disk = disk(&[
            (0, [entry(0x05, 1000, 500), none(), entry(0x85, 2000, 500), none()]),
            (1000, [entry(0x83, 10, 90), none(), none(), none()]),
            (2000, [entry(0x83, 20, 90), none(), none(), none()]),
        ]);
        assert_eq!(found(&disk), [(1, 1000, 500), (3, 2000, 500), (5, 1010, 90), (6, 2020, 90)]);
    }

    #[test]
    fn past_the_end_is_a_problem_not_a_failure() {
        let parsed =
            read(&disk(&[(0, [entry(0x83, 64, 100_000), none(), none(), none()])])).unwrap().unwrap();
        assert_eq!(parsed.value.partitions.len(), 1);
        assert_eq!(parsed.problems.len(), 1);
    }

    #[test]
    fn overlaps_and_tables_within() {
        let overlapping = disk(&[(0, [entry(0x83, 64, 1000), entry(0x83, 1063, 10), none(), none()])]);
        let problems = read(&overlapping).unwrap().unwrap().problems;
        assert!(problems[0].to_string().contains("start is 1063 (partition 2)"), "{problems:?}");
        let mut bytes = disk(&[(0, [entry(0xa5, 64, 1000), none(), none(), none()])]).to_vec();
        bytes[65 * 512..65 * 512 + 4].copy_from_slice(&0x8256_4557_u32.to_le_bytes());
        let problems = read(&MemoryDevice::new(bytes)).unwrap().unwrap().problems;
        assert!(problems[0].to_string().contains("BSD disklabel"), "{problems:?}");
    }

    #[test]
    fn boot_sectors_of_file_systems_are_no_tables() {
        let mut bytes = disk(&[(0, [entry(0x83, 64, 100), none(), none(), none()])]).to_vec();
        bytes[0x1be] = 0x6f;
        assert!(read(&MemoryDevice::new(bytes.clone())).unwrap().is_none());
        assert!(read(&MemoryDevice::new(vec![0; 100])).unwrap().is_none());
        // NTFS whose code reads like an entry, but one beyond the disk.
        bytes[0x1be] = 0x80;
        bytes[3..11].copy_from_slice(b"NTFS    ");
        assert!(read(&MemoryDevice::new(bytes.clone())).unwrap().is_some());
        bytes[0x1cb] = 0x99;
        assert!(read(&MemoryDevice::new(bytes)).unwrap().is_none());
    }
}
