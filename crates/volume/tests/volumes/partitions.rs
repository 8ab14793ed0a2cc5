//! Partition tables: disks of sgdisk and sfdisk, and what damage leaves of them.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, MemoryDevice, Overlay};
use ondisk::crc32;
use volume::gpt::{self, Gpt, Place, ProtectiveKind, Write};
use volume::{Judgement, Judges, Source, Table, TableKind, read_table};

/// A disk of the archive: sectors that are not zero, and holes.
#[derive(Debug)]
struct Sparse {
    size: u64,
    sector_size: u32,
    sectors: std::collections::BTreeMap<u64, Vec<u8>>,
}

impl BlockDevice for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        blockdev::check_range(self.size, offset, buf.len() as u64)?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for (number, bytes) in self.sectors.range(offset / 512..end.div_ceil(512)) {
            let at = number * 512;
            let (from, to) = (at.max(offset), (at + 512).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> std::io::Result<Extent> {
        blockdev::check_range(self.size, offset, 1)?;
        if self.sectors.contains_key(&(offset / 512)) {
            let length = (512 - offset % 512).min(self.size - offset);
            return Ok(Extent { length, kind: ExtentKind::Data });
        }
        let next = self.sectors.range(offset / 512..).next().map_or(self.size, |(number, _)| number * 512);
        Ok(Extent { length: next.min(self.size) - offset, kind: ExtentKind::Zero })
    }
}

/// The disks of test-images/volume/partitions.zst with their names; see scripts/images/partitions.py.
fn disks() -> Vec<(String, Arc<Sparse>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/volume");
    let packed = std::fs::read(folder.join("partitions.zst")).unwrap();
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut bytes).unwrap();
    let mut rest = bytes.as_slice();
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        taken.to_vec()
    };
    let mut disks = Vec::new();
    loop {
        let length = take(1);
        let [length] = length[..] else { return disks };
        let name = String::from_utf8(take(length.into())).unwrap();
        let size = u64::from_le_bytes(take(8).try_into().unwrap());
        let sector_size = u32::from_le_bytes(take(4).try_into().unwrap());
        let count = u32::from_le_bytes(take(4).try_into().unwrap());
        let sectors =
            (0..count).map(|_| (u64::from_le_bytes(take(8).try_into().unwrap()), take(512))).collect();
        disks.push((name, Arc::new(Sparse { size, sector_size, sectors })));
    }
}

fn disk(name: &str) -> Arc<Sparse> {
    disks().into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no disk {name}")).1
}

fn numbers(table: &Table) -> Vec<u32> {
    table.partitions.iter().map(|partition| partition.number).collect()
}

/// A judgement in short: `primary 3`, `backup 3`, `mbr 2`, `-`.
fn short(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Accepts { source, partitions, .. } => {
            let source = match source {
                Source::Mbr => "mbr",
                Source::GptPrimary => "primary",
                Source::GptBackup => "backup",
            };
            format!("{source} {}", partitions.len())
        }
        Judgement::Rejects { .. } => "-".into(),
    }
}

type Case = (&'static str, &'static [u32], &'static str, &'static str, &'static str, usize);

/// Case, numbers that we list, Linux, GRUB, OVMF, problems. The Linux and GRUB columns are those of the real ones:
/// scripts/oracles/partitions.py.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("g512",            &[1, 2, 5], "primary 3", "primary 3", "primary 3", 0),
    ("g4k",             &[1],       "primary 1", "primary 1", "primary 1", 0),
    ("g4k-badprim",     &[1],       "-",         "-",         "backup 1",  1),
    ("g-badback",       &[1, 2, 5], "primary 3", "primary 3", "primary 3", 1),
    ("g-badprim",       &[1, 2, 5], "-",         "primary 3", "backup 3",  1),
    ("g-badprimarr",    &[1, 2, 5], "-",         "primary 3", "backup 3",  1),
    ("g-zeroprim",      &[1, 2, 5], "-",         "-",         "backup 3",  1),
    ("g-both",          &[],        "-",         "-",         "-",         2),
    ("g-grown",         &[1, 2, 5], "primary 3", "primary 3", "primary 3", 2),
    ("g-grown-badprim", &[1, 2, 5], "-",         "-",         "-",         3),
    ("g-trunc",         &[1, 2, 5], "-",         "primary 3", "primary 3", 6),
    ("g-hybrid",        &[1, 2, 5], "primary 3", "primary 3", "primary 3", 0),
    ("g-nombr",         &[1, 2, 5], "-",         "-",         "-",         2),
    ("g-x-hdrsize",     &[],        "-",         "primary 3", "-",         2),
    ("g-x-hugelba",     &[],        "-",         "primary 0", "-",         2),
    ("g-x-hugenum",     &[],        "-",         "primary 3", "-",         2),
    ("g-x-hugesize",    &[],        "-",         "primary 1", "-",         2),
    ("g-x-num0",        &[],        "-",         "primary 0", "-",         2),
    ("g-x-zerosize",    &[],        "-",         "primary 128", "-",       2),
    ("m",               &[1, 2, 5, 6, 7], "mbr 5", "mbr 4",   "mbr 5",     0),
    ("m-far",           &[1, 2, 5], "mbr 3",     "mbr 2",     "mbr 3",     1),
    ("m-loop",          &[1, 2, 5], "mbr 253",   "mbr 2",     "mbr 3",     1),
    ("m-noebrsig",      &[1, 2],    "mbr 2",     "mbr 1",     "mbr 2",     1),
    ("m-multiext",      &[1, 2, 5, 6, 7], "mbr 5", "mbr 0",   "mbr 5",     1),
    ("m-nosig",         &[1, 2, 5, 6, 7], "-",   "-",         "-",         1),
];

#[test]
fn what_is_listed_and_who_accepts_it() {
    let disks = disks();
    assert_eq!(disks.len(), CASES.len());
    for (name, listed, linux, grub, ovmf, problems) in CASES {
        let (_, disk) = disks.iter().find(|(found, _)| found == name).unwrap();
        let parsed = read_table(disk.as_ref()).unwrap().unwrap();
        let Judges { linux: l, grub: g, ovmf: o } = &parsed.value.judges;
        assert_eq!(numbers(&parsed.value), *listed, "{name}");
        assert_eq!(
            [short(l), short(g), short(o)],
            [*linux, *grub, *ovmf],
            "{name}: {:?}",
            parsed.value.judges
        );
        assert_eq!(parsed.problems.len(), *problems, "{name}: {:#?}", parsed.problems);
        if l.is_accepted() && *name != "m-loop" {
            let seen: Vec<(u32, u64)> = l.partitions().iter().map(|seen| (seen.number, seen.start)).collect();
            let ours: Vec<(u32, u64)> = parsed.value.partitions.iter().map(|p| (p.number, p.start)).collect();
            assert_eq!(seen, ours, "{name}");
        }
    }
}

#[test]
fn both_copies_by_themselves() {
    let gpt = |name: &str| gpt::read(disk(name).as_ref()).unwrap().unwrap().value;
    let good = gpt("g512");
    assert!(good.primary.good().is_some() && good.backup.good().is_some() && good.differences.is_empty());
    assert_eq!((good.backup.lba, good.backup.place), (131_071, Place::AlternateLba));
    assert_eq!(good.protective_mbr.kind, ProtectiveKind::Protective);
    assert_eq!(gpt("g-hybrid").protective_mbr.kind, ProtectiveKind::Hybrid);
    assert_eq!(gpt("g-nombr").protective_mbr.kind, ProtectiveKind::Missing);

    let array = gpt("g-badprimarr");
    assert!(array.primary.header.is_ok() && array.primary.array.is_err() && array.backup.good().is_some());
    // The array behind a bad header is judged by the backup's checksum.
    let header = gpt("g-badprim");
    assert!(header.primary.header.is_err() && header.primary.array.is_ok());
    assert_eq!(header.backup.place, Place::LastSector);
    assert_eq!(gpt("g-grown").backup.lba, 131_071);
    let displaced = gpt("g-grown-badprim");
    assert_eq!((displaced.backup.lba, displaced.backup.place), (131_071, Place::OldEnd));
    assert_eq!(gpt("g-both").header(), None);
}

/// A writable copy of a disk, with `ranges` overwritten.
fn damaged(device: Device, ranges: &[(u64, Vec<u8>)]) -> Overlay {
    let overlay = Overlay::new(device);
    for (at, bytes) in ranges {
        overlay.write_all_at(bytes, *at).unwrap();
    }
    overlay
}

#[test]
fn a_displaced_backup_is_found_by_a_search() {
    // The protective MBR names the whole new disk, as sgdisk and kernels' tools leave it after growing.
    let disk = damaged(disk("g-grown-badprim"), &[(0x1ca, 0xffff_ffff_u32.to_le_bytes().to_vec())]);
    let gpt = gpt::read(&disk).unwrap().unwrap().value;
    assert_eq!((gpt.backup.lba, gpt.backup.place), (131_071, Place::Scan));
    assert_eq!(gpt.array().unwrap().entries.len(), 3);
    // The primary is whole, but names a place where nothing is.
    let lost = damaged(self::disk("g-grown"), &[(512 + 0x20, 100_u64.to_le_bytes().to_vec())]);
    fix_header(&lost, 512);
    let gpt = gpt::read(&lost).unwrap().unwrap().value;
    assert_eq!((gpt.backup.lba, gpt.backup.place), (131_071, Place::OldEnd));
}

#[test]
fn each_part_from_the_copy_that_has_it() {
    let whole = read_table(disk("g512").as_ref()).unwrap().unwrap().value;
    let crossed = damaged(disk("g512"), &[(1024, vec![0xff; 8]), (131_071 * 512, vec![0xff; 8])]);
    let parsed = read_table(&crossed).unwrap().unwrap();
    assert_eq!(parsed.value.partitions, whole.partitions);
    assert_eq!(parsed.problems.len(), 2, "{:?}", parsed.problems);
    assert!(!parsed.value.judges.linux.is_accepted() && !parsed.value.judges.ovmf.is_accepted());
}

#[test]
fn a_table_for_another_sector_size_is_named() {
    let sparse = Arc::into_inner(disk("g4k")).unwrap();
    let disk = Sparse { sector_size: 512, ..sparse };
    let parsed = read_table(&disk).unwrap().unwrap();
    assert_eq!(numbers(&parsed.value), [1]);
    assert!(parsed.problems[0].to_string().contains("sector size"), "{:?}", parsed.problems);
    assert!(!parsed.value.judges.linux.is_accepted());
    assert_eq!(short(&parsed.value.judges.grub), "primary 1");
}

#[test]
fn a_stale_gpt_does_not_hide_the_mbr_that_linux_uses() {
    let mut sector = vec![0; 512];
    disk("m").read_exact_at(&mut sector, 0).unwrap();
    let both = damaged(disk("g512"), &[(0, sector)]);
    let parsed = read_table(&both).unwrap().unwrap();
    assert_eq!((parsed.value.kind, parsed.value.gpt.is_some()), (TableKind::Mbr, true));
    assert!(parsed.problems.iter().any(|problem| problem.to_string().contains("second table")));
}

#[test]
fn entries_that_do_not_fit() {
    let check = |number: u64, at: u64, bytes: &[u8], field: &str| {
        let disk = damaged(disk("g512"), &[(1024 + (number - 1) * 128 + at, bytes.to_vec())]);
        fix_array(&disk, 512);
        let problems = read_table(&disk).unwrap().unwrap().problems;
        // The copies differ, too.
        assert!(
            problems.iter().any(|problem| problem.as_corrupt().is_some_and(|corrupt| corrupt.field == field)),
            "{field}: {problems:?}"
        );
    };
    check(2, 0x20, &2048_u64.to_le_bytes(), "starting_lba"); // overlaps 1
    check(1, 0x20, &33_u64.to_le_bytes(), "starting_lba"); // before the usable range
    check(5, 0x28, &131_039_u64.to_le_bytes(), "ending_lba"); // in the backup array
    check(2, 0x28, &1_u64.to_le_bytes(), "ending_lba"); // before its start
    let mut first = vec![0; 16];
    disk("g512").read_exact_at(&mut first, 1024 + 16).unwrap();
    check(2, 0x10, &first, "unique_partition_guid");
}

/// Fixes the checksum of the array that the header at byte `at` names, and the header's.
fn fix_array(disk: &Overlay, at: u64) {
    let mut header = vec![0; 92];
    disk.read_exact_at(&mut header, at).unwrap();
    let field = |at: usize| u64::from(u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
    let array = u64::from_le_bytes(header[0x48..0x50].try_into().unwrap()).saturating_mul(512);
    let length = field(0x50).saturating_mul(field(0x54));
    if length <= 1 << 20 && array.saturating_add(length) <= disk.size() {
        let mut bytes = vec![0; length as usize];
        disk.read_exact_at(&mut bytes, array).unwrap();
        disk.write_all_at(&crc32(&bytes).to_le_bytes(), at + 0x58).unwrap();
    }
    fix_header(disk, at);
}

/// Fixes the checksum of the header at byte `at`.
fn fix_header(disk: &Overlay, at: u64) {
    let mut sector = vec![0; 512];
    disk.read_exact_at(&mut sector, at).unwrap();
    let size = u32::from_le_bytes(sector[0xc..0x10].try_into().unwrap()).min(512) as usize;
    if size >= 0x14 {
        sector[0x10..0x14].fill(0);
        disk.write_all_at(&crc32(&sector[..size]).to_le_bytes(), at + 0x10).unwrap();
    }
}

fn apply(disk: &Overlay, writes: &[Write]) {
    for write in writes {
        disk.write_all_at(&write.bytes, write.offset).unwrap();
    }
}

fn read(disk: &dyn BlockDevice) -> Gpt {
    gpt::read(disk).unwrap().unwrap().value
}

/// Every restoration that the disk needs, until nothing is left to write.
fn restore(disk: &Overlay) {
    apply(disk, &gpt::restore_protective_mbr(&read(disk)).unwrap());
    apply(disk, &gpt::restore_primary(&read(disk)).unwrap());
    apply(disk, &gpt::restore_backup(&read(disk)).unwrap());
    let gpt = read(disk);
    for left in [gpt::restore_protective_mbr(&gpt), gpt::restore_primary(&gpt), gpt::restore_backup(&gpt)] {
        assert!(left.unwrap().is_empty());
    }
}

/// What `sgdisk -v` says of the disk; `None` where there is no sgdisk.
fn sgdisk_verify(disk: &dyn BlockDevice) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(disk.size()).unwrap();
    let mut bytes = vec![0; 1 << 20];
    for at in (0..disk.size()).step_by(1 << 20) {
        let piece = &mut bytes[..(disk.size() - at).min(1 << 20) as usize];
        disk.read_exact_at(piece, at).unwrap();
        if piece.iter().any(|byte| *byte != 0) {
            std::os::unix::fs::FileExt::write_all_at(&file, piece, at).unwrap();
        }
    }
    match Command::new("sgdisk").arg("-v").arg(&path).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            println!("skipped: sgdisk is not installed");
            None
        }
    }
}

#[test]
fn one_copy_is_restored_from_the_other() {
    for name in
        ["g-badprim", "g-badprimarr", "g-zeroprim", "g-badback", "g-grown", "g-grown-badprim", "g-nombr"]
    {
        let before = read_table(disk(name).as_ref()).unwrap().unwrap().value.partitions;
        let disk = damaged(disk(name), &[]);
        restore(&disk);
        let parsed = read_table(&disk).unwrap().unwrap();
        assert_eq!(parsed.value.partitions, before, "{name}");
        let left: Vec<_> = parsed.problems.iter().map(ToString::to_string).collect();
        // The protective MBR of a disk that grew is not touched.
        assert!(left.iter().all(|problem| problem.starts_with("protective MBR")), "{name}: {left:?}");
        let Judges { linux, ovmf, .. } = &parsed.value.judges;
        assert_eq!([short(linux), short(ovmf)], ["primary 3", "primary 3"], "{name}");
        if let Some(said) = sgdisk_verify(&disk) {
            assert!(said.contains("No problems found"), "{name}: {said}");
        }
    }
}

#[test]
fn nothing_is_restored_over_what_may_be_meant() {
    // A partition beyond the end.
    let gpt = read(disk("g-trunc").as_ref());
    assert!(gpt::restore_backup(&gpt).unwrap_err().to_string().contains("end of the disk"));
    // Two good tables.
    let two = damaged(disk("g512"), &[(1024 + 0x38, vec![b'x', 0])]);
    fix_array(&two, 512);
    let gpt = read(&two);
    assert!(gpt.primary.good().is_some() && gpt.backup.good().is_some());
    for refused in [gpt::restore_primary(&gpt), gpt::restore_backup(&gpt)] {
        assert!(refused.unwrap_err().to_string().contains("two tables"));
    }
    // Nothing whole.
    assert!(gpt::restore_primary(&read(disk("g-both").as_ref())).is_err());
    // An MBR with partitions of its own.
    let mut sector = vec![0; 512];
    disk("m").read_exact_at(&mut sector, 0).unwrap();
    let gpt = read(&damaged(disk("g512"), &[(0, sector)]));
    assert!(gpt::restore_protective_mbr(&gpt).is_err());
}

#[test]
fn a_shrunk_disk_whose_partitions_fit_is_mended() {
    let whole = disk("g512");
    // Without partition 5, everything ends in sector 63487.
    let disk = damaged(whole, &[(1024 + 4 * 128, vec![0; 128])]);
    fix_array(&disk, 512);
    let short_disk: Device = Arc::new(blockdev::Slice::new(Arc::new(disk), 0, 48 << 20).unwrap());
    assert!(!volume::judge::all(short_disk.as_ref()).linux.is_accepted());
    let disk = Overlay::new(short_disk);
    restore(&disk);
    assert_eq!(short(&volume::judge::all(&disk).linux), "primary 2");
    if let Some(said) = sgdisk_verify(&disk) {
        assert!(said.contains("No problems found"), "{said}");
    }
}

/// The type of a protective MBR where a file system keeps its data: without the boot signature or the start that belong to it,
/// it says nothing.
#[test]
fn one_byte_is_no_protective_mbr() {
    for at in [450, 466, 482, 498] {
        let mut bytes = vec![0x5a; 1 << 20];
        bytes[at] = 0xee;
        assert!(read_table(&MemoryDevice::new(bytes.clone())).unwrap().is_none(), "{at}");
        bytes[at + 4..at + 8].copy_from_slice(&[1, 0, 0, 0]);
        assert!(read_table(&MemoryDevice::new(bytes)).unwrap().is_some(), "{at}");
    }
}

#[test]
fn no_table_at_all() {
    for size in [0, 100, 511, 512, 600, 4096, 1 << 20] {
        assert!(read_table(&MemoryDevice::new(vec![0; size])).unwrap().is_none(), "{size}");
    }
}

/// Numbers from a seed: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below
    }

    /// A value that is likely to break something, as `width` bytes that replace `old`.
    fn value(&mut self, old: &[u8]) -> Vec<u8> {
        let mut bytes = [0; 8];
        bytes[..old.len()].copy_from_slice(old);
        let old_value = u64::from_le_bytes(bytes);
        let value = match self.next(8) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => old_value.wrapping_add(1),
            4 => old_value.wrapping_sub(1),
            5 => old_value ^ 1 << self.next(8 * old.len() as u64),
            6 => self.next(200_000),
            _ => self.next(u64::MAX),
        };
        value.to_le_bytes()[..old.len()].to_vec()
    }
}

/// Changes one to four fields within `ranges`.
fn mutate(disk: &Overlay, random: &mut Random, ranges: &[Range<u64>]) {
    for _ in 0..=random.next(4) {
        let range = &ranges[random.next(ranges.len() as u64) as usize];
        let width = [1, 2, 4, 8][random.next(4) as usize];
        let at = range.start + random.next((range.end - range.start) / width) * width;
        let mut old = vec![0; width as usize];
        disk.read_exact_at(&mut old, at).unwrap();
        disk.write_all_at(&random.value(&old), at).unwrap();
    }
}

/// Reads everything and judges; whatever the bytes, this ends, and what is listed can be cut out or is a problem.
fn look(disk: &dyn BlockDevice) -> (usize, Option<Table>) {
    let Some(parsed) = read_table(disk).unwrap() else { return (0, None) };
    for partition in &parsed.value.partitions {
        let is_inside = partition.start.checked_add(partition.length).is_some_and(|end| end <= disk.size());
        assert!(is_inside || !parsed.problems.is_empty(), "{partition:?}");
    }
    if let Some(gpt) = &parsed.value.gpt {
        let _ = (gpt::restore_primary(gpt), gpt::restore_backup(gpt), gpt::restore_protective_mbr(gpt));
    }
    (parsed.problems.len(), Some(parsed.value))
}

#[test]
fn twenty_thousand_mutations_of_a_gpt() {
    let (mut random, base) = (Random(0x6770_7401), disk("g512"));
    let last = 131_071 * 512;
    let ranges = [
        512..604,
        512..604,
        512..604,
        1024..1024 + 5 * 128,
        last..last + 92,
        last - 32 * 512..last - 31 * 512,
        446..512,
    ];
    let (mut accepted, mut deep, mut damaged_ones) = (0, 0, 0);
    for round in 0..20_000 {
        let disk = Overlay::new(base.clone());
        mutate(&disk, &mut random, &ranges);
        if round % 2 == 0 {
            for at in [512, last] {
                fix_array(&disk, at);
            }
        }
        let (problems, table) = look(&disk);
        let Some(table) = table else { continue };
        accepted += usize::from(table.judges.linux.is_accepted());
        deep += usize::from(table.partitions.len() >= 3);
        damaged_ones += usize::from(problems > 0);
    }
    assert!(accepted > 3000 && deep > 10_000 && damaged_ones > 10_000, "{accepted} {deep} {damaged_ones}");
}

#[test]
fn twenty_thousand_mutations_of_an_mbr_chain() {
    let (mut random, base) = (Random(0x6d62_7201), disk("m"));
    let records: Vec<u64> = base.sectors.keys().copied().filter(|number| *number != 0).collect();
    let mut ranges = vec![440..512, 446..512];
    ranges.extend(records.iter().map(|number| number * 512 + 446..number * 512 + 512));
    let (mut logical, mut damaged_ones) = (0, 0);
    for _ in 0..20_000 {
        let disk = Overlay::new(base.clone());
        mutate(&disk, &mut random, &ranges);
        let (problems, table) = look(&disk);
        let Some(table) = table else { continue };
        logical += usize::from(table.partitions.iter().any(|partition| partition.number > 5));
        damaged_ones += usize::from(problems > 0);
    }
    assert!(logical > 5000 && damaged_ones > 2000, "{logical} {damaged_ones}");
}
