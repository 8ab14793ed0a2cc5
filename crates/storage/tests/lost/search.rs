//! Lost partitions: disks of the usual tools whose tables are wiped, and what must not be taken for a partition.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use blockdev::{BlockDevice, FileDevice, MemoryDevice};
use storage::lost::{Candidate, Kind, Progress, Proposed, propose, search};
use volume::read_table;

const MIB: u64 = 1 << 20;

/// Runs a tool; `None`, with a line, where it is not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<()> {
    match Command::new(tool).args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output() {
        Ok(output) => {
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(_) => {
            println!("skipped: {tool} is not installed");
            None
        }
    }
}

fn empty(path: &Path, size: u64) -> File {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).unwrap();
    file.set_len(size).unwrap();
    file
}

/// Copies what is not zero.
fn copy_into(disk: &File, start: u64, path: &Path) {
    let part = FileDevice::open(path).unwrap();
    let mut offset = 0;
    let mut buffer = vec![0; 64 << 10];
    while offset < part.size() {
        let extent = part.extent_at(offset).unwrap();
        if extent.kind == blockdev::ExtentKind::Zero {
            offset += extent.length;
            continue;
        }
        let piece = &mut buffer[..extent.length.min(64 << 10) as usize];
        part.read_exact_at(piece, offset).unwrap();
        if piece.iter().any(|byte| *byte != 0) {
            disk.write_all_at(piece, start + offset).unwrap();
        }
        offset += piece.len() as u64;
    }
}

fn wipe(disk: &File, start: u64, length: u64) {
    disk.write_all_at(&vec![0; length as usize], start).unwrap();
}

fn find(path: &Path) -> (Vec<Candidate>, Vec<Proposed>) {
    let disk = FileDevice::open(path).unwrap();
    let mut last = Progress { done: 0, total: disk.size() };
    let found = search(&disk, &mut |progress| {
        assert!(progress.done >= last.done && progress.done <= progress.total);
        last = progress;
    });
    assert_eq!(last.done, disk.size());
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let proposal = propose(&found.value, disk.size(), 512);
    (found.value, proposal.partitions)
}

/// A physical volume of `length` bytes: its label as pvcreate writes it, in sector 1, without metadata areas.
fn physical_volume(length: u64) -> Vec<u8> {
    let mut label = [0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[0x14] = 32;
    label[0x18..0x20].copy_from_slice(b"LVM2 001");
    label[0x20..0x40].copy_from_slice(b"abcdefABCDEF0123456789ghijklmnop");
    label[0x40..0x48].copy_from_slice(&length.to_le_bytes());
    let crc = ondisk::lvm_crc(&label[0x14..]);
    label[0x10..0x14].copy_from_slice(&crc.to_le_bytes());
    [vec![0; 512], label.to_vec()].concat()
}

/// Name, size in MiB (0: the rest), sgdisk's type.
const PARTITIONS: &[(&str, u64, &str)] = &[
    ("esp", 64, "ef00"),
    ("ext4", 200, "8300"),
    ("xfs", 320, "8300"),
    ("swap", 32, "8200"),
    ("lvm", 40, "8e00"),
    ("luks", 24, "8309"),
    ("data", 40, "0700"),
    ("rest", 0, "8300"),
];

/// A disk of 800 MiB by sgdisk, with content on every partition.
fn full_disk(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("disk.raw");
    let disk = empty(&path, 800 * MIB);
    let mut arguments = Vec::new();
    for (index, (_, size, kind)) in (1..).zip(PARTITIONS) {
        let end = if *size == 0 { "0".into() } else { format!("+{size}M") };
        arguments.extend([format!("-n{index}:0:{end}"), format!("-t{index}:{kind}")]);
    }
    arguments.push(path.to_str().unwrap().into());
    run("sgdisk", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let table = read_table(&FileDevice::open(&path).unwrap()).unwrap().unwrap().value;
    for ((name, ..), partition) in PARTITIONS.iter().zip(&table.partitions) {
        let part = folder.join(name);
        let file = empty(&part, partition.length);
        let at = part.to_str().unwrap();
        match *name {
            "esp" => {
                run("mkfs.vfat", &["-F", "32", "-s", "1", at])?;
                // The root directory's first cluster: a directory EFI.
                let mut bpb = [0; 64];
                file.read_exact_at(&mut bpb, 0).unwrap();
                let reserved = u16::from_le_bytes([bpb[14], bpb[15]]);
                let fat = u32::from_le_bytes(bpb[36..40].try_into().unwrap());
                let root = (u64::from(reserved) + 2 * u64::from(fat)) * 512;
                file.write_all_at(b"EFI        \x10", root).unwrap();
            }
            "data" => run("mkfs.vfat", &["-F", "16", at])?,
            "ext4" | "rest" => run("mkfs.ext4", &["-q", "-F", at])?,
            "xfs" => run("mkfs.xfs", &["-q", "-f", at])?,
            "swap" => run("mkswap", &["-q", at])?,
            "luks" => {
                let key = folder.join("key");
                std::fs::write(&key, "key").unwrap();
                let key = key.to_str().unwrap();
                let quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
                run("cryptsetup", &[&["luksFormat", "-q"], &quick[..], &[at, key]].concat())?;
            }
            _ => file.write_all_at(&physical_volume(partition.length), 0).unwrap(),
        }
        copy_into(&disk, partition.start, &part);
        std::fs::remove_file(&part).unwrap();
    }
    Some(path)
}

fn compare(found: &[Proposed], path: &Path, table: &volume::Table) {
    let ours: Vec<_> = found.iter().map(|p| (p.start, p.length, p.gpt_type.as_str())).collect();
    let theirs: Vec<_> = table.partitions.iter().map(|p| (p.start, p.length, p.type_id.as_str())).collect();
    assert_eq!(ours, theirs, "{path:?}: {found:#?}");
}

#[test]
fn every_partition_of_a_wiped_table() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = full_disk(folder.path()) else { return };
    let table = read_table(&FileDevice::open(&path).unwrap()).unwrap().unwrap().value;
    assert_eq!(table.partitions.len(), PARTITIONS.len());
    // With the backup, each entry is known to the byte.
    let disk = OpenOptions::new().write(true).open(&path).unwrap();
    wipe(&disk, 0, MIB);
    let (found, proposed) = find(&path);
    compare(&proposed, &path, &table);
    assert!(found.iter().filter(|found| found.rejected.is_none()).all(|found| found.entry.is_some()));
    // Without, starts, types and lengths are those of the contents.
    wipe(&disk, 799 * MIB, MIB);
    let (_, proposed) = find(&path);
    compare(&proposed, &path, &table);
    // Without the first superblocks of ext4 and XFS, copies lead to their starts; the ESP has its copy, too.
    for index in [0, 1, 2] {
        wipe(&disk, table.partitions[index].start, if index == 0 { 512 } else { 64 << 10 });
    }
    let (found, proposed) = find(&path);
    compare(&proposed, &path, &table);
    let lost = found.iter().filter(|found| found.rejected.is_none() && !found.has_primary);
    assert_eq!(lost.count(), 3);
    assert!(
        proposed[1].evidence[0].starts_with("copy of an ext superblock for group 1 at byte"),
        "{proposed:?}"
    );
}

#[test]
fn an_image_in_a_file_is_no_partition() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let make = || {
        let inner = tree.join("guest.raw");
        empty(&inner, 32 * MIB);
        run("mkfs.ext4", &["-q", "-F", inner.to_str().unwrap()])?;
        let outer = folder.path().join("outer");
        empty(&outer, 300 * MIB);
        run("mkfs.ext4", &["-q", "-F", "-d", tree.to_str().unwrap(), outer.to_str().unwrap()])?;
        Some(outer)
    };
    let Some(outer) = make() else { return };
    let path = folder.path().join("disk");
    let disk = empty(&path, 310 * MIB);
    copy_into(&disk, MIB, &outer);
    for wiped in [false, true] {
        if wiped {
            wipe(&disk, MIB, 4096);
        }
        let (found, proposed) = find(&path);
        let [only] = proposed.as_slice() else { panic!("{proposed:#?}") };
        assert_eq!((only.start, only.length, only.kind), (MIB, 300 * MIB, Kind::Ext));
        let inner = found
            .iter()
            .find(|found| found.length == Some(32 * MIB) && found.has_primary)
            .expect("the image is seen");
        assert_eq!(inner.rejected.as_deref(), Some("inside the ext at byte 1048576"));
    }
}

#[test]
fn what_was_there_before_is_no_partition() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let disk = empty(&path, 64 * MIB);
    if run("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()]).is_none() {
        return;
    }
    // An MBR does not touch the old superblock at byte 1024.
    for (name, start, length) in [("a", 1, 30), ("b", 31, 33)] {
        let part = folder.path().join(name);
        empty(&part, length * MIB);
        run("mkfs.ext4", &["-q", "-F", part.to_str().unwrap()]).unwrap();
        copy_into(&disk, start * MIB, &part);
    }
    let (found, proposed) = find(&path);
    let starts: Vec<u64> = proposed.iter().map(|partition| partition.start / MIB).collect();
    assert_eq!(starts, [1, 31], "{found:#?}");
    assert!(found[0].rejected.as_deref().unwrap().contains("older"));
}

#[test]
fn a_chain_of_extended_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let disk = empty(&path, 64 * MIB);
    let script = folder.path().join("script");
    std::fs::write(&script, "label: dos\n2048,20480,83\n22528,100000,5\n24576,20480,83\n47104,20480,8e\n")
        .unwrap();
    let command = format!("sfdisk -q {} < {}", path.display(), script.display());
    if run("sfdisk", &["--version"]).is_none() {
        return;
    }
    run("sh", &["-c", &command]).unwrap();
    wipe(&disk, 0, 512);
    let (_, proposed) = find(&path);
    let found: Vec<_> = proposed.iter().map(|p| (p.start / 512, p.length / 512, p.mbr_type)).collect();
    assert_eq!(found, [(24576, 20480, 0x83), (47104, 20480, 0x8e)]);
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
}

/// 1 MiB with a structure of every kind, each good; returns also where they are.
fn crowded() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = vec![0_u8; MIB as usize];
    let mut put = |at: usize, parts: &[(usize, &[u8])]| {
        for (offset, part) in parts {
            bytes[at + offset..at + offset + part.len()].copy_from_slice(part);
        }
    };
    let word = |value: u32| value.to_le_bytes();
    // ext2, 64 blocks of 1 KiB in groups of 16.
    let ext =
        [(0, word(64)), (4, word(64)), (0x14, word(1)), (0x20, word(16)), (0x28, word(16)), (0x1c, word(1))];
    for (at, group) in [(65_536 + 1024, 0_u8), (65_536 + 17 * 1024, 1), (65_536 + 33 * 1024, 2)] {
        let mut parts: Vec<(usize, &[u8])> = ext.iter().map(|(at, word)| (*at, word.as_slice())).collect();
        let group = [group];
        parts.extend([(0x38, [0x53, 0xef].as_slice()), (0x5a, &group), (0x68, &[7; 16])]);
        put(at, &parts);
    }
    let big = |value: u32| value.to_be_bytes();
    for (at, number) in [(131_072, 0), (131_072 + 16 * 512, 1)] {
        put(
            at,
            &[(0, b"XFSB"), (4, &big(512)), (12, &big(32)), (84, &big(16)), (88, &big(2)), (102, &[2, 0])],
        );
        put(at + 512, &[(0, b"XAGF"), (8, &big(number))]);
    }
    put(196_608 + 1024, &[(0, &word(1)), (4, &word(7))]);
    put(196_608 + 4086, &[(0, b"SWAPSPACE2")]);
    put(262_144, &[(0, &physical_volume(32_768))]);
    put(327_680, &[(0, b"LUKS\xba\xbe\0\x01")]);
    put(327_680 + 16_384, &[(0, b"SKUL\xba\xbe\0\x02"), (0x106, &[0x40])]);
    put(
        393_216 + 4096,
        &[(0, &word(0xa92b_4efc)), (4, &word(1)), (0x80, &[16]), (0x88, &[48]), (0x90, &[8])],
    );
    let fat: [(usize, &[u8]); 4] = [
        (0, b"\xeb\x3c\x90MSDOS5.0\0\x02\x01\x01\0\x01\x10\0\x40\0\xf8\x01\0"),
        (510, &[0x55, 0xaa]),
        (512, &[0xf8, 0xff, 0xff]),
        (1024, b"EFI        \x10"),
    ];
    put(458_752, &fat);
    put(
        524_288,
        &[(0, b"\xeb\x52\x90NTFS    \0\x02\x01"), (0x28, &[63]), (0x30, &[4]), (510, &[0x55, 0xaa])],
    );
    put(524_288 + 2048, &[(0, b"FILE")]);
    put(589_824 + 446, &[(4, &[0x83]), (8, &[8]), (12, &[40]), (64, &[0x55, 0xaa])]);
    let marks = vec![
        66_560,
        82_944,
        99_328,
        131_072,
        131_584,
        139_264,
        197_632,
        262_656,
        327_680,
        344_064,
        397_312,
        458_752,
        459_264,
        524_288,
        589_824 + 446,
    ];
    (bytes, marks)
}

#[test]
fn five_thousand_mutations() {
    let (whole, marks) = crowded();
    let kinds = |candidates: &[Candidate]| {
        let accepted = candidates.iter().filter(|found| found.rejected.is_none());
        accepted.map(|found| (found.start, found.kind)).collect::<Vec<_>>()
    };
    let good = search(&MemoryDevice::new(whole.clone()), &mut |_| {}).value;
    let all = [
        (65_536, Kind::Ext),
        (131_072, Kind::Xfs),
        (196_608, Kind::Swap),
        (262_144, Kind::Lvm),
        (327_680, Kind::Luks),
        (393_216, Kind::Raid),
        (458_752, Kind::EfiSystem),
        (524_288, Kind::Ntfs),
        (593_920, Kind::Entry),
    ];
    assert_eq!(kinds(&good), all, "{good:#?}");
    let mut random = Random(0x6c6f_7374);
    let mut changed = 0;
    for _ in 0..5000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.next(4) {
            let at = marks[random.next(marks.len() as u64) as usize] + random.next(128) as usize;
            let width = [1, 2, 4, 8][random.next(4) as usize];
            let value = match random.next(4) {
                0 => 0,
                1 => u64::MAX,
                2 => u64::from(bytes[at]) + 1,
                _ => random.next(u64::MAX),
            };
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        // Most of the disk is empty, and quick to skip.
        let disk = MemoryDevice::new(&bytes[60_000 & !511..600_000 & !511]);
        let found = search(&disk, &mut |_| {}).value;
        changed += usize::from(found.len() != good.len());
        let mut end = 0;
        for partition in propose(&found, disk.size(), 512).partitions {
            assert!(partition.start >= end, "{partition:?}");
            end = partition.start + partition.length;
            assert!(end <= disk.size(), "{partition:?}");
        }
    }
    assert!(changed > 1000, "{changed}");
}

#[test]
fn nothing_on_nothing() {
    for size in [0, 1, 511, 512, 5000, 1 << 20] {
        let found = search(&MemoryDevice::new(vec![0; size]), &mut |_| {});
        assert!(found.value.is_empty() && found.problems.is_empty());
    }
}
