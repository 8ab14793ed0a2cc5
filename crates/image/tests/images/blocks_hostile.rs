//! VHD and VDI images that lie: damaged at random or cut short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, Random};
use blockdev::{Counter, Device, MemoryDevice, Overlay};
use image::{DenyAll, Image, Mode, NewImage, Options};

/// A small image with data, made by our own writer, so that no tool is needed.
fn small(folder: &Folder, format: &str, subformat: &str) -> Vec<u8> {
    let block = (format == "vhd" && subformat == "dynamic").then_some(64 << 10);
    let new = NewImage {
        size: 700 << 10,
        subformat: Some(subformat.to_owned()),
        cluster_size: block,
        sector_size: None,
    };
    let path = folder.path(&format!("{subformat}.{format}"));
    image::create(&path, format, &new).unwrap();
    let image = folder.open_for_writing(&format!("{subformat}.{format}")).unwrap();
    let disk = image.device.writable().unwrap();
    for offset in [0, 700, 50_000, 699_000] {
        disk.write_all_at(&[0xa5; 900], offset).unwrap();
    }
    disk.flush().unwrap();
    drop(image);
    std::fs::read(path).unwrap()
}

/// Reads here and there, walks extents, writes and flushes; every outcome but a panic or a hang is right.
fn exercise(format: &str, bytes: &[u8]) {
    let options = Options { format: Some(format), ..Options::default() };
    let counter = Arc::new(Counter::new(Arc::new(MemoryDevice::new(bytes))));
    drop(image::check_device(counter.clone(), None, &options, &DenyAll));
    if let Ok(image) = image::open_device(counter.clone(), None, &options, &DenyAll) {
        read_around(&image);
    }
    assert!(counter.bytes() < 64 << 20, "{} bytes read", counter.bytes());
    let overlay: Device = Arc::new(Overlay::new(Arc::new(MemoryDevice::new(bytes))));
    let options = Options { mode: Mode::ReadWrite, ..options };
    let Ok(image) = image::open_device(overlay, None, &options, &DenyAll) else { return };
    let Some(disk) = image.device.writable() else { return };
    for offset in [0, 800, 50_100, disk.size() / 2, disk.size().saturating_sub(600)] {
        let _ = disk.write_all_at(&[1; 600], offset);
    }
    let _ = disk.flush();
    read_around(&image);
}

fn read_around(image: &Image) {
    let disk = &*image.device;
    let size = disk.size();
    let mut buffer = vec![0; 3000];
    for offset in [0, 1000, 49_000, size / 2, size.saturating_sub(3000)] {
        let _ = disk.read_exact_at(&mut buffer, offset);
    }
    let own = image.chain[0].disk.as_ref().unwrap();
    let mut offset = 0;
    for _ in 0..20 {
        if offset >= size {
            break;
        }
        let (Ok(extent), Ok(run)) = (disk.extent_at(offset), own.own_run_at(offset)) else { break };
        assert!(extent.length > 0 && extent.length <= size - offset);
        assert!(run.length > 0 && run.length <= size - offset);
        offset += extent.length;
    }
    let _ = image.take_read_problems();
}

/// Computes the checksum of a VHD footer or header anew, so that damage behind it is reached.
fn seal(bytes: &mut [u8], at: usize, length: usize, checksum: usize) {
    if at + length > bytes.len() {
        return;
    }
    bytes[at + checksum..at + checksum + 4].fill(0);
    let sum = bytes[at..at + length].iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at + checksum..at + checksum + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn mutate(bytes: &mut Vec<u8>, format: &str, random: &mut Random) {
    if random.below(12) == 0 {
        bytes.truncate(1 + random.below(bytes.len() as u64) as usize);
        bytes.resize(bytes.len().max(16), 0);
    }
    for _ in 0..=random.below(3) {
        let length = bytes.len();
        let place = match random.below(5) {
            0 => random.below(length as u64) as usize,
            1 => length.saturating_sub(512) + random.below(512) as usize,
            2 => 512 + random.below(1100) as usize,
            _ => random.below(600) as usize,
        };
        let at = place.min(length - 1);
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6) as usize],
            _ => {
                let word = (random.next() >> random.below(64)).to_le_bytes();
                let at = at.min(length - 8);
                bytes[at..at + 8].copy_from_slice(&word);
            }
        }
    }
    if format == "vhd" && random.below(4) != 0 {
        let end = bytes.len().saturating_sub(512);
        for (at, size, checksum) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
            let is_there =
                bytes.get(at..at + 8).is_some_and(|cookie| cookie == b"conectix" || cookie == b"cxsparse");
            if is_there {
                seal(bytes, at, size, checksum);
            }
        }
    }
}

#[test]
fn no_mutation_panics_or_hangs() {
    let folder = Folder::new();
    let factor = std::env::var("MUTATIONS").map_or(1, |factor| factor.parse().unwrap());
    for (seed, (format, subformat)) in
        (0_u64..).zip([("vhd", "dynamic"), ("vhd", "fixed"), ("vdi", "dynamic"), ("vdi", "static")])
    {
        let original = small(&folder, format, subformat);
        for number in 0..10_000 * factor {
            let mut random = Random::new((seed << 40) + number);
            let mut bytes = original.clone();
            mutate(&mut bytes, format, &mut random);
            let start = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| exercise(format, &bytes)));
            assert!(outcome.is_ok(), "mutation {number} of {subformat} {format} panics");
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "mutation {number} of {subformat} {format} hangs"
            );
        }
    }
}
