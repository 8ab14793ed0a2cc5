//! Finding both copies, and what they say together.

use std::collections::BTreeMap;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Parsed, Result};

use super::copy::{self, BACKUP, Names, PRIMARY};
use super::{Copy, Entry, EntryArray, Header, Place, ProtectiveKind, ProtectiveMbr, scan, type_name};
use crate::mbr::RawBootSector;
use crate::sectors::{Sectors, last_lba};
use crate::{Partition, Table, TableKind};

/// Data that is read in search of a backup when the primary is lost, in bytes; holes are not counted.
const SCAN_BUDGET: u64 = 4 << 30;
/// The same when the primary is good and its backup is not where it should be.
const TAIL_BUDGET: u64 = 2 << 20;
/// Problems of single entries that are told; garbage has one in each.
const MAX_ENTRY_PROBLEMS: usize = 64;

/// Everything that a disk holds of a GUID partition table, each part with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// The sector size that the table was written for, in bytes: 512 or 4096.
    pub sector_size: u64,
    /// The sector size that the disk has. Where it is another one, no kernel or firmware sees the table.
    pub device_sector_size: u64,
    /// The disk's last sector, in sectors of `sector_size`.
    pub last_lba: u64,
    /// Sector 0.
    pub protective_mbr: ProtectiveMbr,
    /// The copy behind sector 0.
    pub primary: Copy,
    /// The copy at the end, of this disk or of the disk as it was.
    pub backup: Copy,
    /// Fields in which two good headers, or two good arrays, disagree. Empty where one is not good.
    pub differences: Vec<Corrupt>,
}

impl Gpt {
    /// The header that counts: the primary's, unless only the backup is whole.
    pub fn header(&self) -> Option<&Header> {
        match (self.primary.good(), self.backup.good()) {
            (Some((header, _)), _) | (None, Some((header, _))) => Some(header),
            (None, None) => self.primary.header.as_ref().or(self.backup.header.as_ref()).ok(),
        }
    }

    /// The array that belongs to [`header`](Self::header), from whichever copy has it whole.
    pub fn array(&self) -> Option<&EntryArray> {
        match (self.primary.good(), self.backup.good()) {
            (Some((_, array)), _) | (None, Some((_, array))) => Some(array),
            (None, None) => {
                let crc = self.header()?.array_crc32;
                let fits = |array: &&EntryArray| ondisk::crc32(&array.bytes) == crc;
                [&self.primary.array, &self.backup.array]
                    .into_iter()
                    .filter_map(|a| a.as_ref().ok())
                    .find(fits)
            }
        }
    }

    /// The partitions of [`array`](Self::array), the header's disk GUID; empty where nothing is left.
    pub(crate) fn table(&self) -> (String, Vec<Partition>) {
        let id = self.header().map(|header| header.disk_guid.to_string()).unwrap_or_default();
        let entries = self.array().map(|array| array.entries.as_slice()).unwrap_or_default();
        (id, entries.iter().map(|entry| partition(entry, self.sector_size)).collect())
    }

    /// What is wrong with the whole, in the order of the disk.
    pub fn problems(&self) -> Vec<Corrupt> {
        let mut problems = Vec::new();
        if self.sector_size != self.device_sector_size {
            problems.push(Corrupt::new(
                "GPT",
                self.sector_size,
                "sector size",
                format!("a table for sectors of {} bytes", self.device_sector_size),
                format!("one for sectors of {}", self.sector_size),
            ));
        }
        problems.extend(self.protective_mbr.problems.iter().cloned());
        for copy in [&self.primary, &self.backup] {
            problems.extend(copy.header.as_ref().err().cloned());
            // Without any header there is nothing to say about arrays.
            if self.header().is_some() {
                problems.extend(copy.array.as_ref().err().cloned());
            }
        }
        problems.extend(self.differences.iter().cloned());
        self.places(&mut problems);
        self.entries(&mut problems);
        self.hybrid(&mut problems);
        problems
    }

    /// The other entries of a hybrid MBR, each of which should be a partition of the GPT.
    fn hybrid(&self, problems: &mut Vec<Corrupt>) {
        let Some(array) = self.array() else { return };
        for (kind, start, sectors) in &self.protective_mbr.others {
            let is_known =
                array.entries.iter().any(|entry| (entry.first_lba, entry.sectors()) == (*start, *sectors));
            if !is_known {
                let found = format!("{sectors} from {start}, of type {kind:02x}");
                let expected = "those of a GPT partition";
                problems.push(Corrupt::new("hybrid MBR", 0x1be, "sectors", expected, found));
            }
        }
    }

    /// Where the parts lie, against the size of the disk.
    fn places(&self, problems: &mut Vec<Corrupt>) {
        let size = self.sector_size;
        for (copy, names) in [(&self.primary, PRIMARY), (&self.backup, BACKUP)] {
            let Ok(header) = &copy.header else { continue };
            let at = copy.lba.saturating_mul(size);
            let mut wrong = |field, expected: String, found: String| {
                problems.push(Corrupt::new(names.header, at, field, expected, found));
            };
            if header.revision != 0x0001_0000 {
                wrong("revision", "0x00010000".into(), format!("{:#010x}", header.revision));
            }
            let (first, last) = (header.first_usable_lba, header.last_usable_lba);
            if first > last {
                wrong("first_usable_lba", format!("at most {last}"), first.to_string());
            }
            if last > self.last_lba {
                // The disk has shrunk; Linux takes nothing from such a header.
                wrong("last_usable_lba", format!("at most {}", self.last_lba), last.to_string());
            }
            let array_end = header.partition_entry_lba.saturating_add(header.array_sectors(size));
            if header.partition_entry_lba <= last && array_end > first {
                let expected = format!("an array outside of {first}..={last}");
                let found = format!("{}..{array_end}", header.partition_entry_lba);
                wrong("partition_entry_lba", expected, found);
            }
        }
        let far = match (&self.primary.header, &self.backup.header) {
            (Ok(primary), Ok(_)) if primary.alternate_lba != self.backup.lba => {
                Some((PRIMARY.header, size, self.backup.lba, primary.alternate_lba))
            }
            (Ok(primary), _) if primary.alternate_lba != self.last_lba => {
                Some((PRIMARY.header, size, self.last_lba, primary.alternate_lba))
            }
            (Err(_), Ok(_)) if self.backup.lba != self.last_lba => {
                Some((BACKUP.header, self.backup.lba.saturating_mul(size), self.last_lba, self.backup.lba))
            }
            _ => None,
        };
        if let Some((structure, at, expected, found)) = far {
            let field = if structure == BACKUP.header { "my_lba" } else { "alternate_lba" };
            problems.push(Corrupt::new(structure, at, field, expected, found));
        }
        if let Ok(backup) = &self.backup.header
            && backup.alternate_lba != 1
        {
            let at = self.backup.lba.saturating_mul(size);
            problems.push(Corrupt::new(BACKUP.header, at, "alternate_lba", 1, backup.alternate_lba));
        }
    }

    /// The entries against the usable range and each other.
    fn entries(&self, problems: &mut Vec<Corrupt>) {
        let (Some(header), Some(array)) = (self.header(), self.array()) else { return };
        let at = header.partition_entry_lba.saturating_mul(self.sector_size);
        let mut left = MAX_ENTRY_PROBLEMS;
        let mut wrong = |entry: &Entry, field, expected: String, found: String| {
            let Some(rest) = left.checked_sub(1) else { return };
            left = rest;
            let found = format!("{found} (entry {})", entry.number);
            problems.push(Corrupt::new("GPT partition entry", at, field, expected, found));
        };
        let (first, last) = (header.first_usable_lba, header.last_usable_lba.min(self.last_lba));
        let mut by_guid: BTreeMap<Guid, u32> = BTreeMap::new();
        for entry in &array.entries {
            if entry.first_lba < first {
                wrong(entry, "starting_lba", format!("at least {first}"), entry.first_lba.to_string());
            }
            if entry.sectors() == 0 || entry.last_lba > last {
                let expected = format!("{}..={last}", entry.first_lba);
                wrong(entry, "ending_lba", expected, entry.last_lba.to_string());
            }
            if let Some(other) = by_guid.insert(entry.unique_guid, entry.number) {
                let expected = format!("not that of entry {other}");
                wrong(entry, "unique_partition_guid", expected, entry.unique_guid.to_string());
            }
        }
        let mut sorted: Vec<&Entry> = array.entries.iter().filter(|entry| entry.sectors() > 0).collect();
        sorted.sort_by_key(|entry| (entry.first_lba, entry.number));
        let mut furthest: Option<&Entry> = None;
        for entry in sorted {
            if let Some(before) = furthest.filter(|before| before.last_lba >= entry.first_lba) {
                let expected = format!("more than {}, the end of entry {}", before.last_lba, before.number);
                wrong(entry, "starting_lba", expected, entry.first_lba.to_string());
            }
            if furthest.is_none_or(|before| before.last_lba < entry.last_lba) {
                furthest = Some(entry);
            }
        }
    }
}

fn partition(entry: &Entry, sector_size: u64) -> Partition {
    let type_id = entry.type_guid.to_string();
    Partition {
        number: entry.number,
        start: entry.first_lba.saturating_mul(sector_size),
        length: entry.sectors().saturating_mul(sector_size),
        type_name: type_name(&type_id),
        type_id,
        uuid: entry.unique_guid.to_string(),
        label: (!entry.name.is_empty()).then(|| entry.name.clone()),
        is_bootable: entry.attributes & 4 != 0,
        attributes: entry.attributes,
    }
}

/// Reads whatever there is of a GPT; `None` when no part of one is found.
///
/// Both sector sizes are tried, the disk's own first. A backup away from the end is searched only where sector
/// 0 or sector 1 says that there was a table.
///
/// # Errors
/// None at present: what cannot be read is a problem, with the host's error beside it.
pub fn read(disk: &dyn BlockDevice) -> Result<Option<Parsed<Gpt>>> {
    let mut sectors = Sectors::new(disk);
    let bytes = sectors.get(0, 512).unwrap_or_default();
    let boot: Option<RawBootSector> = zerocopy::FromBytes::read_from_bytes(&bytes).ok();
    let device_sector_size = u64::from(disk.sector_size());
    let mut sizes = vec![device_sector_size];
    sizes.extend([512, 4096].into_iter().filter(|size| *size != device_sector_size));
    let Some((sector_size, found)) = choose(&mut sectors, boot.as_ref(), &sizes) else { return Ok(None) };

    let last_lba = last_lba(disk.size(), sector_size);
    let protective_mbr = ProtectiveMbr::of(boot.as_ref(), bytes, last_lba);
    let primary_header = copy::header(&mut sectors, 1, sector_size, &PRIMARY);
    let (backup_lba, place) = match found {
        Some(found) => found,
        None => backup(&mut sectors, &primary_header, protective_mbr.sectors, sector_size, last_lba),
    };
    let backup_header = copy::header(&mut sectors, backup_lba, sector_size, &BACKUP);
    let mut read =
        |lba, place, own: &Result<Header, Corrupt>, other: &Result<Header, Corrupt>, names: Names| {
            // Without its own header, the array is where tools put it, and is judged by the other header.
            let (array_lba, by) = match (own, other) {
                (Ok(header), _) => (header.partition_entry_lba, Some(header)),
                (_, Ok(header)) if lba == 1 => (2, Some(header)),
                (_, Ok(header)) => (lba_before(lba, header.array_sectors(sector_size)), Some(header)),
                _ => (0, None),
            };
            let array = match by {
                Some(header) => copy::array(&mut sectors, array_lba, header, sector_size, &names),
                None => Err(Corrupt::new(names.array, 0, "place", "a header that says it", "none")),
            };
            Copy { lba, place, header: own.clone(), array_lba, array }
        };
    let primary = read(1, Place::Fixed, &primary_header, &backup_header, PRIMARY);
    let backup = read(backup_lba, place, &backup_header, &primary_header, BACKUP);
    let differences = differences(&primary, &backup, sector_size);
    let gpt = Gpt { sector_size, device_sector_size, last_lba, protective_mbr, primary, backup, differences };
    let mut problems: Vec<Error> = sectors.errors;
    problems.extend(gpt.problems().into_iter().map(Error::from));
    Ok(Some(Parsed { value: gpt, problems }))
}

fn lba_before(lba: u64, sectors: u64) -> u64 {
    lba.saturating_sub(sectors)
}

/// The sector size of the table, and the backup's place where that settled it.
fn choose(
    sectors: &mut Sectors<'_>,
    boot: Option<&RawBootSector>,
    sizes: &[u64],
) -> Option<(u64, Option<(u64, Place)>)> {
    let disk = sectors.disk;
    for size in sizes {
        if copy::header(sectors, 1, *size, &PRIMARY).is_ok() {
            return Some((*size, None));
        }
    }
    for size in sizes {
        let last = last_lba(disk.size(), *size);
        if copy::header(sectors, last, *size, &BACKUP).is_ok() {
            return Some((*size, Some((last, Place::LastSector))));
        }
    }
    let mut has_signature =
        |size: u64| sectors.get(size, 8).is_some_and(|signature| signature == b"EFI PART");
    let marked = sizes.iter().copied().find(|size| has_signature(*size));
    // One byte alone says nothing: what a file system keeps there is often random. Either of the two that belong to it has to be
    // there as well, for OVMF takes a protective MBR without its signature.
    let protective = boot.and_then(|boot| {
        let is_signed = boot.signature == [0x55, 0xaa];
        boot.entries.iter().find(|entry| {
            entry.partition_type == crate::mbr::PROTECTIVE && (is_signed || entry.start.get() == 1)
        })
    });
    if marked.is_none() && protective.is_none() {
        return None;
    }
    for size in sizes {
        let old = protective.map_or(0, |entry| u64::from(entry.sectors.get()));
        if old > 1 && copy::header(sectors, old, *size, &BACKUP).is_ok() {
            return Some((*size, Some((old, Place::OldEnd))));
        }
    }
    if let Some((lba, size)) = scan::backup(disk, SCAN_BUDGET) {
        return Some((size, Some((lba, Place::Scan))));
    }
    Some((marked.or_else(|| sizes.first().copied())?, None))
}

/// Where the backup of a good primary is; where it should be when there is none.
fn backup(
    sectors: &mut Sectors<'_>,
    primary: &Result<Header, Corrupt>,
    protective: u64,
    sector_size: u64,
    last_lba: u64,
) -> (u64, Place) {
    let Ok(primary) = primary else { return (last_lba, Place::LastSector) };
    let own = (primary.alternate_lba, Place::AlternateLba);
    for (lba, place) in [own, (last_lba, Place::LastSector), (protective, Place::OldEnd)] {
        if lba > 1 && copy::header(sectors, lba, sector_size, &BACKUP).is_ok() {
            return (lba, place);
        }
    }
    match scan::backup(sectors.disk, TAIL_BUDGET) {
        Some((lba, size)) if size == sector_size => (lba, Place::Scan),
        _ if own.0 > 1 && own.0 <= last_lba => own,
        _ => (last_lba, Place::LastSector),
    }
}

/// What two whole copies do not agree on.
fn differences(primary: &Copy, backup: &Copy, sector_size: u64) -> Vec<Corrupt> {
    let mut found = Vec::new();
    let at = backup.lba.saturating_mul(sector_size);
    let mut differs = |structure, field, first: String, second: String| {
        if first != second {
            found.push(Corrupt::new(structure, at, field, format!("{first} as in the primary"), second));
        }
    };
    if let (Ok(first), Ok(second)) = (&primary.header, &backup.header) {
        let name = BACKUP.header;
        differs(name, "disk_guid", first.disk_guid.to_string(), second.disk_guid.to_string());
        for (field, first, second) in [
            ("first_usable_lba", first.first_usable_lba, second.first_usable_lba),
            ("last_usable_lba", first.last_usable_lba, second.last_usable_lba),
            ("number_of_partition_entries", first.number_of_entries.into(), second.number_of_entries.into()),
            ("size_of_partition_entry", first.entry_size.into(), second.entry_size.into()),
        ] {
            differs(name, field, first.to_string(), second.to_string());
        }
    }
    if let (Ok(first), Ok(second)) = (&primary.array, &backup.array)
        && first.bytes != second.bytes
    {
        let number = |array: &EntryArray| format!("{} partitions", array.entries.len());
        found.push(Corrupt::new(
            "GPT entry array",
            backup.array_lba.saturating_mul(sector_size),
            "content",
            format!("the {} of the primary", number(first)),
            format!("{} that differ", number(second)),
        ));
    }
    found
}

/// The whole as a table; the judges are the caller's.
impl Gpt {
    pub(crate) fn into_table(self, judges: crate::Judges) -> Table {
        let (id, partitions) = self.table();
        Table { kind: TableKind::Gpt, id, partitions, judges, gpt: Some(Box::new(self)) }
    }

    /// Whether Linux would look for the primary at all.
    pub fn is_protected(&self) -> bool {
        self.protective_mbr.kind != ProtectiveKind::Missing && self.protective_mbr.start_lba == 1
    }
}
