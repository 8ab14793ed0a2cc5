//! Damaged images: whatever the bytes say, reading ends soon and without a panic.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Counter, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem, Inode};
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

/// A structure of an image, and the MFT record that it is, if it is one.
struct Target {
    offset: u64,
    length: usize,
    record: Option<u64>,
}

/// The structures of an image, by their magic numbers, and the first bytes of compressed units. Of the many files
/// that are alike, some will do.
fn targets(image: &[u8], record: usize) -> Vec<Target> {
    let alike: Vec<u8> = "an-entry-with".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut found = vec![Target { offset: 0, length: 84, record: None }];
    for offset in (0..image.len()).step_by(512) {
        let here = &image[offset..];
        let (length, number) = match &here[..4] {
            b"FILE" if here[22] & 1 != 0 => {
                if offset % (record * 32) != 0
                    && here[..record].windows(alike.len()).any(|window| window == alike)
                {
                    continue;
                }
                (record, Some(u64::from(u32::from_le_bytes(here[44..48].try_into().unwrap()))))
            }
            b"INDX" => (4096, None),
            [_, head, ..] if head & 0xf0 == 0xb0 && here[3..].starts_with(b"line") => (512, None),
            _ => continue,
        };
        found.push(Target { offset: offset as u64, length, record: number });
    }
    found
}

/// Changes a few bytes of one structure. Sectors end as the update sequence wants it but for direct hits, so what
/// lies behind that check is reached.
fn mutate(random: &mut Random, device: &Overlay, target: &Target) {
    let Target { offset, length, .. } = *target;
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

/// Uses every function of the reader on what is below an inode, but for most of what many files share; returns how
/// often it heard of damage, and how many files it saw.
fn exercise(device: &Arc<Counter>, start: Option<Inode>) -> (u32, usize) {
    let Ok(opened) = Ntfs::open(device.clone()) else { return (1, 0) };
    let fs = opened.value;
    let mut problems = opened.problems.len() as u32;
    let mut seen = HashSet::new();
    let mut todo = vec![start.unwrap_or(fs.root())];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < 40) {
        if !seen.insert(inode) {
            continue;
        }
        problems += u32::from(fs.xattrs(inode).is_err());
        match fs.metadata(inode).map(|metadata| (metadata.kind, metadata.size)) {
            Ok((FileKind::Directory, _)) => {
                match fs.read_dir(inode) {
                    Ok(entries) => {
                        todo.extend(entries.iter().rev().take(12).map(|entry| entry.inode));
                        for entry in entries.iter().step_by(60) {
                            problems += u32::from(!matches!(fs.lookup(inode, &entry.name), Ok(Some(_))));
                        }
                    }
                    Err(_) => problems += 1,
                }
                problems += u32::from(fs.lookup(inode, b"Ein-Name").is_err());
            }
            Ok((FileKind::Symlink, _)) => problems += u32::from(fs.read_link(inode).is_err()),
            Ok((FileKind::Regular, size)) => {
                let mut buf = vec![0; 5000];
                for offset in [0, size.saturating_sub(5)] {
                    problems += u32::from(fs.read_at(inode, &mut buf, offset).is_err());
                }
            }
            Ok(_) => {}
            Err(_) => problems += 1,
        }
        if seen.len() % 16 == 1 {
            problems += u32::from(fs.xattr(inode, b"system.ntfs_acl").is_err());
        }
    }
    (problems, seen.len())
}

/// Tries `rounds` mutations of an image with MFT records of this size.
fn survive(name: &str, record: usize, seeds: std::ops::Range<u64>) {
    let bytes = image(name);
    let targets = targets(&bytes, record);
    let base = Arc::new(MemoryDevice::new(bytes));
    let usual = exercise(&Arc::new(Counter::new(base.clone())), None).0;
    let (mut noticed, mut deep, rounds) = (0, 0, seeds.end - seeds.start);
    for round in seeds {
        let mut random = Random(round);
        let target = &targets[random.below(targets.len())];
        let overlay = Overlay::new(base.clone());
        mutate(&mut random, &overlay, target);
        let counter = Arc::new(Counter::new(Arc::new(overlay)));
        // A changed file is read itself, as if it had been found; what may change all is tried on all.
        let start = target.record.filter(|number| *number >= 24).map(Inode);
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&counter, start)));
        let Ok((problems, seen)) = outcome else { panic!("{name}: mutation {round} panics") };
        assert!(counter.bytes() < MOST_BYTES, "{name}: mutation {round} reads {} bytes", counter.bytes());
        let is_noticed = if start.is_some() { problems > 0 } else { problems > usual };
        noticed += u64::from(is_noticed);
        deep += u64::from(is_noticed && seen > 0);
    }
    println!("{name}: {} structures, {noticed} of {rounds} noticed, {deep} of them when open", targets.len());
    assert!(noticed > rounds / 5 && deep > rounds / 6, "{noticed} noticed, {deep} when open, of {rounds}");
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
