//! Fast commits that the kernel wrote, against what the kernel showed after its own recovery; and damaged ones.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod support;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem};
use filesystem_ext4::FORMAT;
use sha2::{Digest, Sha256};
use support::{Lab, e2fsck, have, open};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem")
}

fn image() -> Vec<u8> {
    let packed = std::fs::read(folder().join("ext4-fast-commit.img.zst")).unwrap();
    let mut image = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap().read_to_end(&mut image).unwrap();
    image
}

/// The listing of `scripts/images/ext4.sh`.
fn listing(fs: &dyn FileSystem) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![(String::new(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        let metadata = fs.metadata(inode).unwrap();
        let (letter, mode) = (metadata.kind.letter(), metadata.permissions);
        let mut line = format!("{path}\t{letter}{mode:04o}\t{}\t{}", metadata.uid, metadata.gid);
        if metadata.kind == FileKind::Directory {
            for entry in fs.read_dir(inode).unwrap() {
                todo.push((format!("{path}/{}", String::from_utf8(entry.name).unwrap()), entry.inode));
            }
        } else {
            let content = filesystem::read_to_end(fs, inode, 1 << 30).unwrap();
            let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            line = format!("{line}\t{}\t{}\t{hash}", metadata.links, metadata.size);
        }
        lines.push(line);
    }
    lines.sort();
    lines
}

#[test]
fn the_kernels_recovery_shows_the_same() {
    let before = image();
    let device: Device = Arc::new(MemoryDevice::new(before.clone()));
    let replayed = (FORMAT.replay)(device.clone()).unwrap();
    assert!(replayed.transactions > 10, "{}", replayed.transactions);
    let text = std::fs::read_to_string(folder().join("ext4-fast-commit.img.toml")).unwrap();
    let tree = text.split("'''").nth(1).unwrap();
    let expected: Vec<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(listing(&*open(replayed.device.clone())), expected);
    // A boot loader sees neither the last transaction nor what follows it.
    assert!(open(device).info().needs_recovery);
    assert!(!open(replayed.device.clone()).info().needs_recovery);
    if have(&["e2fsck"]) {
        let mut bytes = vec![0; before.len()];
        replayed.device.read_exact_at(&mut bytes, 0).unwrap();
        let lab = Lab::new();
        let path = lab.path("ours.img");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(e2fsck(&path), Ok(()));
    }
}

/// Where the blocks of fast commits lie, found by their tags.
fn blocks(image: &[u8]) -> Vec<usize> {
    let head = image
        .chunks(1024)
        .position(|block| block.starts_with(&[9, 0, 8, 0, 0, 0, 0, 0]) && block[8..12] != [0; 4]);
    let first = head.unwrap() * 1024;
    (first..).step_by(1024).take_while(|at| (1..=9).contains(&image[*at])).collect()
}

/// Makes the checksum in the tail of a block that is a whole commit right.
fn stamp(block: &mut [u8]) {
    let mut at = 0;
    while let Some(&[tag, _, low, high]) = block.get(at..at + 4) {
        if tag == 8 && at + 12 <= block.len() {
            let crc = ondisk::crc32c_raw(0, &block[..at + 8]);
            block[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
        at += 4 + usize::from(low) + usize::from(high) * 256;
    }
}

#[test]
fn damage_is_survived() {
    let base = image();
    let places = blocks(&base);
    assert!(places.len() > 10, "{}", places.len());
    let device: Device = Arc::new(MemoryDevice::new(base.clone()));
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let mut applied = 0;
    for number in 0..2000 {
        let overlay = Arc::new(Overlay::new(device.clone()));
        let place = places[random(places.len())];
        let mut block = base[place..place + 1024].to_vec();
        for _ in 0..=random(3) {
            let at = random(400);
            block[at] = [0, 1, 255, block[at] ^ 1 << random(8), random(256) as u8][random(5)];
        }
        // Without a checksum that fits, nothing behind it is reached.
        if number % 4 != 0 {
            stamp(&mut block);
        }
        overlay.write_all_at(&block, place as u64).unwrap();
        let Ok(replayed) = (FORMAT.replay)(overlay) else { continue };
        applied += usize::from(replayed.transactions > 1);
        let Ok(opened) = (FORMAT.open)(replayed.device) else { continue };
        let fs = opened.value;
        for folder in fs.read_dir(fs.root()).unwrap_or_default() {
            for entry in fs.read_dir(folder.inode).unwrap_or_default() {
                let _ = fs.read_at(entry.inode, &mut [0; 5000], 0);
            }
        }
    }
    assert!(applied > 500, "{applied}");
}
