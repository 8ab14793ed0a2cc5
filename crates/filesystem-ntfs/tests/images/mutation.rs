//! Damaged images: whatever the bytes say, reading ends soon and without a panic.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Counter, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem};
use filesystem_ntfs::{FORMAT, Ntfs};

use crate::common::image;

/// No mutation may make a reader read more of these small images than this.
const MOST_BYTES: u64 = 400 << 20;

/// SplitMix64, so that a failure can be repeated from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// The structures of an image, by their magic numbers, and the first bytes of compressed units.
fn targets(image: &[u8], record: usize) -> Vec<(u64, usize)> {
    let mut found = vec![(0, 84); 20];
    for offset in (0..image.len()).step_by(512) {
        let here = &image[offset..];
        let length = match &here[..4] {
            b"FILE" if here[22] & 1 != 0 => record,
            b"INDX" => 4096,
            [_, head, ..] if head & 0xf0 == 0xb0 && here[4..].starts_with(b"line") => 512,
            _ => continue,
        };
        found.push((offset as u64, length));
        // Records of the first files are read by every volume's opening.
        if length == record && offset % record == 0 && here[44] > 11 {
            found.push((offset as u64, length));
        }
    }
    found
}

/// Changes a few bytes of one structure. Sectors end as the update sequence wants it but for direct hits, so what
/// lies behind that check is reached.
fn mutate(random: &mut Random, device: &Overlay, targets: &[(u64, usize)]) {
    let (offset, length) = targets[random.below(targets.len())];
    let mut bytes = vec![0; length];
    device.read_exact_at(&mut bytes, offset).unwrap();
    for _ in 0..=random.below(3) {
        let end = if random.below(3) == 0 { length } else { length.min(480) };
        let at = random.below(end);
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes[at] = bytes[at].wrapping_add([1, 0xff][random.below(2)]),
            _ => {
                let value = [0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][random.below(5)];
                let at = at & !3;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    device.write_all_at(&bytes, offset).unwrap();
}

/// Uses every function of the reader; returns how often it heard of damage, and how many files it saw.
fn exercise(device: &Arc<Counter>) -> (u32, usize) {
    let Ok(opened) = Ntfs::open(device.clone()) else { return (1, 0) };
    let fs = opened.value;
    let mut problems = opened.problems.len() as u32;
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < 120) {
        if !seen.insert(inode) {
            continue;
        }
        problems += u32::from(fs.xattrs(inode).is_err());
        match fs.metadata(inode).map(|metadata| (metadata.kind, metadata.size)) {
            Ok((FileKind::Directory, _)) => {
                match fs.read_dir(inode) {
                    Ok(entries) => {
                        // Of a large directory a few will do, and the others are under test themselves.
                        todo.extend(entries.iter().rev().take(20).map(|entry| entry.inode));
                        for entry in entries.iter().step_by(40) {
                            problems += u32::from(!matches!(fs.lookup(inode, &entry.name), Ok(Some(_))));
                        }
                    }
                    Err(_) => problems += 1,
                }
                problems += u32::from(fs.lookup(inode, "Ein-Name".as_bytes()).is_err());
            }
            Ok((FileKind::Symlink, _)) => problems += u32::from(fs.read_link(inode).is_err()),
            Ok((FileKind::Regular, size)) => {
                let mut buf = vec![0; 9000];
                for offset in [0, size / 2, size.saturating_sub(5)] {
                    problems += u32::from(fs.read_at(inode, &mut buf, offset).is_err());
                }
            }
            Ok(_) => {}
            Err(_) => problems += 1,
        }
        problems += u32::from(fs.xattr(inode, b"system.ntfs_acl").is_err());
    }
    (problems, seen.len())
}

/// Tries `rounds` mutations of an image with MFT records of this size.
fn survive(name: &str, record: usize, seeds: std::ops::Range<u64>) {
    let bytes = image(name);
    let targets = targets(&bytes, record);
    let base = Arc::new(MemoryDevice::new(bytes));
    let usual = exercise(&Arc::new(Counter::new(base.clone())));
    let (mut noticed, mut deep, rounds) = (0, 0, seeds.end - seeds.start);
    for round in seeds {
        let overlay = Overlay::new(base.clone());
        mutate(&mut Random(round), &overlay, &targets);
        let counter = Arc::new(Counter::new(Arc::new(overlay)));
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&counter)));
        let Ok((problems, seen)) = outcome else { panic!("{name}: mutation {round} panics") };
        assert!(counter.bytes() < MOST_BYTES, "{name}: mutation {round} reads {} bytes", counter.bytes());
        noticed += u64::from(problems > usual.0);
        deep += u64::from(problems > usual.0 && seen > 50);
    }
    println!("{name}: {} structures, {noticed} of {rounds} noticed, {deep} of them deep", targets.len());
    assert!(noticed > rounds / 10 && deep > rounds / 20, "{noticed} noticed, {deep} deep, of {rounds}");
}

#[test]
fn mutations_of_small_clusters() {
    survive("ntfs-512", 1024, 0..7000);
}

#[test]
fn more_mutations_of_small_clusters() {
    survive("ntfs-512", 1024, 7000..14000);
}

#[test]
fn mutations_of_large_sectors() {
    survive("ntfs-4kn", 4096, 14000..21000);
}

#[test]
fn nothing_and_noise() {
    for length in [0, 1, 511, 512, 4096] {
        for byte in [0, 0xff] {
            let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![byte; length]));
            assert!((FORMAT.probe)(&*device).unwrap().is_none());
            assert!((FORMAT.open)(device.clone()).is_err());
            assert!((FORMAT.replay)(device).is_err());
        }
    }
}
