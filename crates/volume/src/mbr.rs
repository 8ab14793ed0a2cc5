//! The master boot record: four primary partitions and a chain of extended boot records.
//!
//! There is no one specification; this follows what Linux' `block/partitions/msdos.c` and sfdisk(8) accept.
//! Little-endian. Sector numbers count logical sectors. In an extended boot record the first entry's start is
//! relative to that record, the second's (the link) to the start of the extended partition.

use std::collections::BTreeSet;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Partition, Table, TableKind};

/// How many logical partitions a chain may hold; a bound on the walk, far above what tools create.
const MAX_LOGICAL: usize = 256;

/// The boot sector as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawBootSector {
    /// 0x000 boot code, 440 bytes.
    pub boot_code: [u8; 440],
    /// 0x1b8 disk signature, the first half of every PARTUUID.
    pub disk_signature: le::U32,
    /// 0x1bc 0x5a5a when the disk is copy-protected, else 0.
    pub reserved: le::U16,
    /// 0x1be the four entries.
    pub entries: [RawEntry; 4],
    /// 0x1fe 0x55 0xaa.
    pub signature: [u8; 2],
}
const _: () = assert!(size_of::<RawBootSector>() == 512);

/// One entry as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    /// 0x0 0x80 active, 0x00 not; anything else is no partition entry.
    pub boot_indicator: u8,
    /// 0x1 cylinder, head, sector of the start; ignored.
    pub start_chs: [u8; 3],
    /// 0x4 partition type; 0 is unused.
    pub partition_type: u8,
    /// 0x5 cylinder, head, sector of the end; ignored.
    pub end_chs: [u8; 3],
    /// 0x8 first sector.
    pub start: le::U32,
    /// 0xc number of sectors.
    pub sectors: le::U32,
}
const _: () = assert!(size_of::<RawEntry>() == 16);

impl RawEntry {
    /// Whether it describes a partition at all.
    pub fn is_used(&self) -> bool {
        self.partition_type != 0 && self.sectors.get() != 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.partition_type, 0x05 | 0x0f | 0x85)
    }
}

/// The type byte of a protective MBR's single partition.
pub const PROTECTIVE: u8 = 0xee;

/// Reads the table of `disk`; `None` when sector 0 is no MBR (a FAT or NTFS boot sector also ends in 55 AA).
///
/// # Errors
/// Only [`Error::Io`].
pub fn read(disk: &dyn BlockDevice) -> Result<Option<Parsed<Table>>> {
    let Some(sector) = read_boot_sector(disk)? else { return Ok(None) };
    let mut walk = Walk {
        disk,
        sector_size: u64::from(disk.sector_size()),
        signature: sector.disk_signature.get(),
        partitions: Vec::new(),
        problems: Vec::new(),
    };
    for (index, entry) in (1_u32..).zip(&sector.entries) {
        if !entry.is_used() {
            continue;
        }
        walk.push(index, entry, 0, 0x1be);
        if entry.is_extended() {
            walk.logical(u64::from(entry.start.get()));
        }
    }
    let id = format!("{:08x}", walk.signature);
    let table = Table { kind: TableKind::Mbr, id, partitions: walk.partitions };
    Ok(Some(Parsed { value: table, problems: walk.problems }))
}

/// Sector 0, if it looks like an MBR with at least one partition.
pub(crate) fn read_boot_sector(disk: &dyn BlockDevice) -> Result<Option<RawBootSector>> {
    if disk.size() < 512 {
        return Ok(None);
    }
    let sector: RawBootSector = read_value(disk, 0)?;
    let is_table = sector.signature == [0x55, 0xaa]
        && sector.entries.iter().all(|entry| matches!(entry.boot_indicator, 0 | 0x80))
        && sector.entries.iter().any(RawEntry::is_used)
        && sector.entries.iter().all(|entry| !entry.is_used() || entry.start.get() != 0);
    Ok(is_table.then_some(sector))
}

struct Walk<'a> {
    disk: &'a dyn BlockDevice,
    sector_size: u64,
    signature: u32,
    partitions: Vec<Partition>,
    problems: Vec<Error>,
}

impl Walk<'_> {
    /// Adds `entry`, whose start counts from sector `base`; `at` is the byte of the table it stands in.
    fn push(&mut self, number: u32, entry: &RawEntry, base: u64, at: u64) {
        let start = base.saturating_add(u64::from(entry.start.get())).saturating_mul(self.sector_size);
        let length = u64::from(entry.sectors.get()).saturating_mul(self.sector_size);
        if start.saturating_add(length) > self.disk.size() {
            let limit = format!("an end within {} bytes", self.disk.size());
            self.problems.push(
                Corrupt::new("MBR partition entry", at, "sectors", limit, start.saturating_add(length))
                    .into(),
            );
        }
        self.partitions.push(Partition {
            number,
            start,
            length,
            type_id: format!("{:02x}", entry.partition_type),
            type_name: type_name(entry.partition_type),
            uuid: format!("{:08x}-{number:02x}", self.signature),
            label: None,
            is_bootable: entry.boot_indicator == 0x80,
        });
    }

    /// Follows the chain of extended boot records from sector `extended`; keeps what was found before damage.
    fn logical(&mut self, extended: u64) {
        let mut visited = BTreeSet::new();
        let mut record = extended;
        let mut number = self.partitions.iter().map(|p| p.number).max().unwrap_or(4).max(4);
        while visited.len() < MAX_LOGICAL {
            let at = record.saturating_mul(self.sector_size);
            if !visited.insert(record) {
                self.problem(at, "link", "a record not seen before", format!("sector {record} again"));
                return;
            }
            let sector: RawBootSector = match read_value(self.disk, at) {
                Ok(sector) => sector,
                Err(error) => {
                    self.problems.push(error);
                    return;
                }
            };
            if sector.signature != [0x55, 0xaa] {
                self.problem(at, "signature", "55 aa", format!("{:02x?}", sector.signature));
                return;
            }
            let [first, link, ..] = &sector.entries;
            if first.is_used() && !first.is_extended() {
                number = number.saturating_add(1);
                self.push(number, first, record, at);
            }
            if !(link.is_used() && link.is_extended()) {
                return;
            }
            record = extended.saturating_add(u64::from(link.start.get()));
        }
        self.problem(0, "link", format!("at most {MAX_LOGICAL} records"), "more");
    }

    fn problem(
        &mut self,
        at: u64,
        field: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) {
        self.problems.push(Corrupt::new("extended boot record", at, field, expected, found).into());
    }
}

fn type_name(code: u8) -> Option<&'static str> {
    Some(match code {
        0x05 | 0x0f | 0x85 => "extended",
        0x07 => "NTFS/exFAT",
        0x0b | 0x0c => "FAT32",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfd => "Linux RAID",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

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

    #[test]
    fn primary_and_logical() {
        let disk = disk(&[
            (0, [entry(0x83, 64, 100), entry(0x05, 1000, 2000), none(), none()]),
            (1000, [entry(0x83, 10, 90), entry(0x05, 500, 600), none(), none()]),
            (1500, [entry(0x8e, 20, 80), none(), none(), none()]),
        ]);
        let parsed = read(&disk).unwrap().unwrap();
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let found: Vec<_> =
            parsed.value.partitions.iter().map(|p| (p.number, p.start / 512, p.length / 512)).collect();
        assert_eq!(found, [(1, 64, 100), (2, 1000, 2000), (5, 1010, 90), (6, 1520, 80)]);
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
    fn past_the_end_is_a_problem_not_a_failure() {
        let parsed =
            read(&disk(&[(0, [entry(0x83, 64, 100_000), none(), none(), none()])])).unwrap().unwrap();
        assert_eq!(parsed.value.partitions.len(), 1);
        assert_eq!(parsed.problems.len(), 1);
    }

    #[test]
    fn a_fat_boot_sector_is_no_table() {
        let mut bytes = disk(&[(0, [entry(0x83, 64, 100), none(), none(), none()])]).to_vec();
        bytes[0x1be] = 0x6f;
        assert!(read(&MemoryDevice::new(bytes)).unwrap().is_none());
        assert!(read(&MemoryDevice::new(vec![0; 100])).unwrap().is_none());
    }
}
