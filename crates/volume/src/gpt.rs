//! The GUID partition table: a header and an entry array, each stored twice.
//!
//! UEFI 2.10 §5.3. Little-endian. `*_lba` count logical sectors; every other size is bytes. The backup header
//! lies in the disk's last sector, or, after the disk was resized, where the primary's `alternate_lba` says.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Parsed, Result, crc32, le, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Partition, Table, TableKind, mbr};

/// The largest entry array that is read, in bytes; tools write 16 KiB.
const MAX_ARRAY: u64 = 1 << 20;

/// The header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 "EFI PART".
    pub signature: [u8; 8],
    /// 0x08 0x00010000.
    pub revision: le::U32,
    /// 0x0c bytes covered by the checksum, 92..=sector size.
    pub header_size: le::U32,
    /// 0x10 CRC-32 over `header_size` bytes with this field zero.
    pub header_crc32: le::U32,
    /// 0x14 zero.
    pub reserved: le::U32,
    /// 0x18 the sector of this copy.
    pub my_lba: le::U64,
    /// 0x20 the sector of the other copy.
    pub alternate_lba: le::U64,
    /// 0x28 first sector that a partition may use.
    pub first_usable_lba: le::U64,
    /// 0x30 last sector that a partition may use.
    pub last_usable_lba: le::U64,
    /// 0x38 disk GUID.
    pub disk_guid: [u8; 16],
    /// 0x48 first sector of this copy's entry array.
    pub partition_entry_lba: le::U64,
    /// 0x50 entries in the array.
    pub number_of_partition_entries: le::U32,
    /// 0x54 bytes per entry: 128·2ⁿ.
    pub size_of_partition_entry: le::U32,
    /// 0x58 CRC-32 of the array.
    pub partition_entry_array_crc32: le::U32,
}
const _: () = assert!(size_of::<RawHeader>() == 92);

/// One entry as stored; longer entries continue with reserved bytes.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    /// 0x00 type GUID; all zeros is unused.
    pub partition_type_guid: [u8; 16],
    /// 0x10 the PARTUUID.
    pub unique_partition_guid: [u8; 16],
    /// 0x20 first sector.
    pub starting_lba: le::U64,
    /// 0x28 last sector, inclusive.
    pub ending_lba: le::U64,
    /// 0x30 bit 0 required by the platform, bit 2 legacy BIOS bootable.
    pub attributes: le::U64,
    /// 0x38 name in UTF-16LE, NUL-padded.
    pub partition_name: [le::U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

/// Reads the table: the primary copy if it is good, else the backup, with the other's damage as problems.
///
/// `None` when neither copy carries the signature.
///
/// # Errors
/// Only [`Error::Io`] for the first sectors of the disk.
pub fn read(disk: &dyn BlockDevice) -> Result<Option<Parsed<Table>>> {
    // An image file does not say its sector size; the header does, by where it lies.
    let mut best: Option<Parsed<Table>> = None;
    for sector_size in [u64::from(disk.sector_size()), 512, 4096] {
        if disk.size() < sector_size.saturating_mul(2) {
            continue;
        }
        if let Some(found) = read_with(disk, sector_size)? {
            if found.problems.is_empty() {
                return Ok(Some(found));
            }
            best.get_or_insert(found);
        }
    }
    Ok(best)
}

fn read_with(disk: &dyn BlockDevice, sector_size: u64) -> Result<Option<Parsed<Table>>> {
    let last = last_lba(disk, sector_size);
    let primary_raw: RawHeader = read_value(disk, sector_size)?;
    let has_primary = &primary_raw.signature == b"EFI PART";
    let primary = Copy::read(disk, sector_size, 1, "GPT primary header");
    let mut backup_lba = last;
    if let Ok(copy) = &primary
        && copy.header.alternate_lba.get() <= last
    {
        backup_lba = copy.header.alternate_lba.get();
    }
    let backup = Copy::read(disk, sector_size, backup_lba, "GPT backup header");
    if !has_primary && backup.is_err() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let value = match (primary, backup) {
        (Ok(primary), Ok(backup)) => {
            if primary.array != backup.array {
                let at = primary.header.partition_entry_lba.get().saturating_mul(sector_size);
                problems.push(
                    Corrupt::new(
                        "GPT entry array",
                        at,
                        "content",
                        "the same in both copies",
                        "two different arrays",
                    )
                    .into(),
                );
            }
            primary.table(sector_size, disk, &mut problems)
        }
        (Ok(primary), Err(error)) => {
            problems.push(error);
            primary.table(sector_size, disk, &mut problems)
        }
        (Err(error), Ok(backup)) => {
            problems.push(error);
            backup.table(sector_size, disk, &mut problems)
        }
        (Err(first), Err(second)) => {
            problems.extend([first, second]);
            Table { kind: TableKind::Gpt, id: String::new(), partitions: Vec::new() }
        }
    };
    if let Some(problem) = protective_mbr(disk)? {
        problems.push(problem);
    }
    Ok(Some(Parsed { value, problems }))
}

/// The last whole sector of the disk.
fn last_lba(disk: &dyn BlockDevice, sector_size: u64) -> u64 {
    disk.size().checked_div(sector_size).unwrap_or(0).saturating_sub(1)
}

/// Linux ignores a GPT without a protective MBR.
fn protective_mbr(disk: &dyn BlockDevice) -> Result<Option<Error>> {
    let sector = mbr::read_boot_sector(disk)?;
    let is_protective = sector
        .is_some_and(|sector| sector.entries.iter().any(|entry| entry.partition_type == mbr::PROTECTIVE));
    Ok((!is_protective).then(|| {
        Corrupt::new("protective MBR", 0x1be, "partition type", "an entry of type ee", "none").into()
    }))
}

/// One of the two copies, verified.
struct Copy {
    header: RawHeader,
    array: Vec<u8>,
}

impl Copy {
    fn read(disk: &dyn BlockDevice, sector_size: u64, lba: u64, name: &'static str) -> Result<Self> {
        let at = lba.saturating_mul(sector_size);
        let corrupt = |field, expected: String, found: String| -> Error {
            Corrupt::new(name, at, field, expected, found).into()
        };
        let header: RawHeader = read_value(disk, at)?;
        if &header.signature != b"EFI PART" {
            let found = String::from_utf8_lossy(&header.signature).escape_default().to_string();
            return Err(corrupt("signature", "\"EFI PART\"".into(), format!("\"{found}\"")));
        }
        let size = u64::from(header.header_size.get());
        if !(92..=sector_size).contains(&size) {
            return Err(corrupt("header_size", format!("92..={sector_size}"), size.to_string()));
        }
        let mut covered = read_bytes(disk, at, usize::try_from(size).unwrap_or(92))?;
        if let Some(field) = covered.get_mut(0x10..0x14) {
            field.fill(0);
        }
        let computed = crc32(&covered);
        if computed != header.header_crc32.get() {
            return Err(Corrupt::checksum(name, at, computed, header.header_crc32.get()).into());
        }
        if header.my_lba.get() != lba {
            return Err(corrupt("my_lba", lba.to_string(), header.my_lba.to_string()));
        }
        let entry_size = u64::from(header.size_of_partition_entry.get());
        if entry_size < 128 || !entry_size.is_power_of_two() || entry_size > sector_size.max(4096) {
            return Err(corrupt("size_of_partition_entry", "128·2ⁿ".into(), entry_size.to_string()));
        }
        let length = u64::from(header.number_of_partition_entries.get()).saturating_mul(entry_size);
        if length > MAX_ARRAY {
            let found = format!("{length} bytes");
            return Err(corrupt(
                "number_of_partition_entries",
                format!("an array of at most {MAX_ARRAY} bytes"),
                found,
            ));
        }
        let array_at = header.partition_entry_lba.get().saturating_mul(sector_size);
        let array = read_bytes(disk, array_at, usize::try_from(length).unwrap_or_default())?;
        let computed = crc32(&array);
        let stored = header.partition_entry_array_crc32.get();
        if computed != stored {
            return Err(Corrupt::checksum("GPT entry array", array_at, computed, stored).into());
        }
        Ok(Self { header, array })
    }

    fn table(&self, sector_size: u64, disk: &dyn BlockDevice, problems: &mut Vec<Error>) -> Table {
        let entry_size = usize::try_from(self.header.size_of_partition_entry.get()).unwrap_or(128).max(128);
        let array_at = self.header.partition_entry_lba.get().saturating_mul(sector_size);
        let mut partitions = Vec::new();
        for (number, bytes) in (1_u32..).zip(self.array.chunks_exact(entry_size)) {
            let Ok((entry, _)) = RawEntry::read_from_prefix(bytes) else { continue };
            if entry.partition_type_guid == [0; 16] {
                continue;
            }
            let (first, last) = (entry.starting_lba.get(), entry.ending_lba.get());
            let sectors = last.checked_sub(first).and_then(|count| count.checked_add(1)).unwrap_or(0);
            let start = first.saturating_mul(sector_size);
            let length = sectors.saturating_mul(sector_size);
            if sectors == 0 || start.saturating_add(length) > disk.size() {
                let expected = format!("{first}..={}", last_lba(disk, sector_size));
                problems.push(
                    Corrupt::new(
                        "GPT partition entry",
                        array_at,
                        "ending_lba",
                        expected,
                        format_args!("{last} (entry {number})"),
                    )
                    .into(),
                );
            }
            let type_guid = Guid::from_mixed_endian(entry.partition_type_guid).to_string();
            let name: Vec<u16> =
                entry.partition_name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
            let label = String::from_utf16_lossy(&name);
            partitions.push(Partition {
                number,
                start,
                length,
                type_name: type_name(&type_guid),
                type_id: type_guid,
                uuid: Guid::from_mixed_endian(entry.unique_partition_guid).to_string(),
                label: (!label.is_empty()).then_some(label),
                is_bootable: entry.attributes.get() & 4 != 0,
            });
        }
        let id = Guid::from_mixed_endian(self.header.disk_guid).to_string();
        Table { kind: TableKind::Gpt, id, partitions }
    }
}

fn type_name(guid: &str) -> Option<&'static str> {
    Some(match guid {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => "EFI system",
        "21686148-6449-6e6f-744e-656564454649" => "BIOS boot",
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" => "Linux root (x86-64)",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux extended boot",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => "Linux RAID",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "Microsoft basic data",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => "Microsoft reserved",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use blockdev::{Device, FileDevice, MemoryDevice, Overlay};

    use super::*;

    /// A disk made by sgdisk; `None` where that is not installed.
    fn sgdisk() -> Option<(tempfile::TempDir, Device)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("sgdisk")
            .args(["-n1:2048:+1M", "-t1:ef02", "-c1:bios", "-n2:0:0", "-t2:8304", "-c2:root ü"])
            .args(["-u2:33333333-aaaa-4bbb-8ccc-0000000000e2"])
            .arg(&path)
            .output();
        match made {
            Ok(output) => assert!(output.status.success()),
            Err(_) => {
                println!("skipped: sgdisk is not installed");
                return None;
            }
        }
        let device: Device = Arc::new(FileDevice::open(&path).unwrap());
        Some((folder, device))
    }

    fn damaged(device: &Device, ranges: &[(u64, usize)]) -> Parsed<Table> {
        let overlay = Overlay::new(device.clone());
        for (at, length) in ranges {
            blockdev::BlockDeviceMut::write_all_at(&overlay, &vec![0xff; *length], *at).unwrap();
        }
        read(&overlay).unwrap().unwrap()
    }

    #[test]
    fn a_table_of_sgdisk() {
        let Some((_folder, device)) = sgdisk() else { return };
        let parsed = read(device.as_ref()).unwrap().unwrap();
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let [bios, root] = parsed.value.partitions.as_slice() else { panic!() };
        assert_eq!((bios.start, bios.length, bios.type_name), (1 << 20, 1 << 20, Some("BIOS boot")));
        assert_eq!(root.uuid, "33333333-aaaa-4bbb-8ccc-0000000000e2");
        assert_eq!(root.label.as_deref(), Some("root ü"));
    }

    #[test]
    fn either_copy_alone_is_enough() {
        let Some((_folder, device)) = sgdisk() else { return };
        let last = device.size() - 512;
        let whole = read(device.as_ref()).unwrap().unwrap().value;
        for (what, ranges) in [
            ("primary header", vec![(512, 8)]),
            ("primary array", vec![(1024, 8)]),
            ("backup header", vec![(last, 8)]),
            ("backup array", vec![(device.size() - 33 * 512, 8)]),
        ] {
            let parsed = damaged(&device, &ranges);
            assert_eq!(parsed.value, whole, "{what}");
            assert_eq!(parsed.problems.len(), 1, "{what}: {:?}", parsed.problems);
        }
        let both = damaged(&device, &[(1024, 8), (last, 8)]);
        assert!(both.value.partitions.is_empty());
        assert_eq!(both.problems.len(), 2);
        assert_eq!(damaged(&device, &[(0x1be + 4, 1)]).problems.len(), 1, "protective MBR");
    }

    #[test]
    fn no_table_at_all() {
        assert!(read(&MemoryDevice::new(vec![0; 1 << 20])).unwrap().is_none());
        assert!(read(&MemoryDevice::new(vec![0; 600])).unwrap().is_none());
    }
}
