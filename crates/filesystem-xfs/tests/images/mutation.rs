//! Damaged images: whatever the bytes say, reading and replacing end soon and without a panic.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Image, Random, Tree, forks, pattern};
use blockdev::{BlockDevice, BlockDeviceMut, MemoryDevice, Overlay};
use filesystem::{FileKind, Timestamp};
use filesystem_xfs::FORMAT;

/// No mutation of these small images may keep a reader busy for longer, on a slow machine without
/// optimisation.
const LIMIT: Duration = Duration::from_secs(10);

/// A structure of the image, with the place of its checksum if it has one.
struct Target {
    offset: u64,
    length: usize,
    crc_at: Option<usize>,
}

/// Finds the structures by their magic numbers. Blocks and directory blocks have `block` bytes.
fn targets(image: &[u8], block: usize, inode: usize) -> Vec<Target> {
    let mut found = Vec::new();
    for offset in (0..image.len()).step_by(256) {
        let here = &image[offset..];
        let is_block = offset % block == 0;
        let known = match here.first_chunk::<4>().unwrap() {
            [b'I', b'N', mode, rest] if (*mode, *rest) != (0, 0) && offset % inode == 0 => {
                Some((inode, (here[4] == 3).then_some(100)))
            }
            b"XFSB" if offset == 0 => Some((512, (here[101] & 15 == 5).then_some(224))),
            b"XAGF" => Some((512, Some(216))),
            b"XDB3" | b"XDD3" if is_block => Some((block, Some(4))),
            b"BMA3" if is_block => Some((block, Some(64))),
            b"AB3B" | b"AB3C" | b"R3FC" | b"RMB3" if is_block => Some((block, Some(52))),
            b"XSLM" | b"XARM" if is_block => Some((block, Some(12))),
            b"XD2B" | b"XD2D" | b"BMAP" | b"ABTB" | b"ABTC" if is_block => Some((block, None)),
            [0xfe, 0xed, 0xba, 0xbe] => Some((1024, None)),
            _ => match here[8..10] {
                [0x3b | 0x3e, 0xee | 0xbe] if is_block => Some((block, Some(12))),
                [0xfb | 0xfe, 0xee | 0xbe] if is_block => Some((block, None)),
                _ => None,
            },
        };
        let offset = offset as u64;
        found.extend(known.map(|(length, crc_at)| Target { offset, length, crc_at }));
    }
    found
}

/// Changes a few bytes of one structure; the checksum is made right again three times out of four.
fn mutate(random: &mut Random, device: &Overlay, targets: &[Target]) {
    let target = &targets[random.below(targets.len())];
    let mut bytes = vec![0; target.length];
    device.read_exact_at(&mut bytes, target.offset).unwrap();
    for _ in 0..=random.below(3) {
        // Headers and first entries are where most fields are.
        let end = if random.below(3) == 0 { target.length } else { target.length.min(256) };
        let at = random.below(end);
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => {
                let value = [0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][random.below(5)];
                let at = at & !3;
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
        }
    }
    if let Some(at) = target.crc_at.filter(|_| random.below(4) != 0) {
        bytes[at..at + 4].fill(0);
        let crc = ondisk::crc32c(&bytes);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    device.write_all_at(&bytes, target.offset).unwrap();
}

/// Uses every function of the reader and the writer; returns how often it heard of damage.
fn exercise(device: Arc<Overlay>, content: &[u8]) -> u32 {
    let Ok(opened) = (FORMAT.open)(device.clone()) else { return 1 };
    let fs = &*opened.value;
    let mut problems = opened.problems.len() as u32;
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    let mut files = Vec::new();
    while let Some(inode) = todo.pop().filter(|_| seen.len() < 200) {
        if !seen.insert(inode) {
            continue;
        }
        problems += u32::from(fs.xattrs(inode).is_err());
        match fs.metadata(inode).map(|metadata| (metadata.kind, metadata.size)) {
            Ok((FileKind::Directory, _)) => match fs.read_dir(inode) {
                Ok(entries) => todo.extend(entries.iter().map(|entry| entry.inode)),
                Err(_) => problems += 1,
            },
            Ok((FileKind::Symlink, _)) => problems += u32::from(fs.read_link(inode).is_err()),
            Ok((FileKind::Regular, size)) => {
                let mut buf = vec![0; 20_000];
                for offset in [0, size / 2, size.saturating_sub(5)] {
                    problems += u32::from(fs.read_at(inode, &mut buf, offset).is_err());
                }
                files.push(inode);
            }
            Ok(_) => {}
            Err(_) => problems += 1,
        }
    }
    for (file, content) in files.into_iter().zip([&content[..100], content]) {
        if let Some(writable) = fs.writable() {
            problems += u32::from(writable.replace(file, content, Timestamp::default()).is_err());
        }
    }
    problems += u32::from((FORMAT.replay)(device).is_err());
    problems
}

/// Tries `rounds` mutations of an image with blocks and inodes of these sizes.
fn survive(name: &str, image: &Arc<MemoryDevice>, (block, inode): (usize, usize), rounds: u32) {
    let targets = targets(&image.to_vec(), block, inode);
    let content = pattern(30_000);
    let mut noticed = 0;
    let start = Instant::now();
    for round in 0..rounds {
        let overlay = Arc::new(Overlay::new(image.clone()));
        mutate(&mut Random(u64::from(round)), &overlay, &targets);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(overlay, &content)));
        assert!(outcome.is_ok(), "{name}: mutation {round} panics");
        assert!(start.elapsed() < LIMIT, "{name}: mutation {round} takes {:?}", start.elapsed());
        noticed += u32::from(outcome.is_ok_and(|problems| problems > 0));
    }
    println!("{name}: {} structures, {noticed} of {rounds} noticed, {:?}", targets.len(), start.elapsed());
    assert!(noticed > rounds / 10, "{name}: mutations reach what is read ({noticed} of {rounds} noticed)");
}

fn tree() -> Tree {
    let entries = |count: usize| {
        (0..count).fold(Tree::new(), |tree, number| tree.symlink(&format!("entry{number}"), "target"))
    };
    Tree::new()
        .file("small", pattern(60))
        .file("large", pattern(50_000))
        .symlink("link", "target")
        .directory("few", entries(3))
        .directory("some", entries(8).file("inner", pattern(5000)))
}

fn mkfs(options: &str) -> Option<Image> {
    let image = Image::make(options, &tree())?;
    for (file, length) in [("/small", 30), ("/large", 300), ("/large", 9000)] {
        let set = format!("attr_set -u -v {length} name{length}");
        image.edit(&[&format!("path {file}"), &set]);
    }
    Some(image)
}

#[test]
fn mutations_of_version_5() {
    let Some(image) = mkfs("-b size=1024") else { return };
    survive("v5", &image.device(), (1024, 512), 6000);
}

#[test]
fn mutations_of_version_5_with_all_features() {
    let Some(image) = mkfs("-i nrext64=1 -m rmapbt=1") else { return };
    survive("v5 all", &image.device(), (4096, 512), 6000);
}

#[test]
fn mutations_of_version_4() {
    let Some(image) = mkfs("-m crc=0,finobt=0,reflink=0 -b size=512 -n ftype=0 -i size=256") else { return };
    survive("v4", &image.device(), (512, 256), 5000);
}

#[test]
fn mutations_of_what_only_a_kernel_makes() {
    survive("forks", &forks(), (1024, 512), 3000);
}
