//! VMDK images that lie: damaged at random, cut short, or naming files that are none of their business.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, Random, disk_content, has_qemu};
use crate::vmdk_support::{cowd, sesparse};
use blockdev::{Counter, Device, MemoryDevice, Overlay};
use image::vmdk::write_stream_optimized;
use image::{DenyAll, FolderGate, Image, LayerDisk, Mode, NewImage, Options};

/// A small sparse image with data, made by our own writer, so that no tool is needed.
fn small_sparse(folder: &Folder) -> Vec<u8> {
    let new = NewImage { size: 5 << 20, cluster_size: Some(4096), ..NewImage::default() };
    image::create(&folder.path("small.vmdk"), "vmdk", &new).unwrap();
    let image = folder.open_for_writing("small.vmdk").unwrap();
    let disk = image.device.writable().unwrap();
    for offset in [0, 700, 50_000, 4_999_000] {
        disk.write_all_at(&[0xa5; 900], offset).unwrap();
    }
    disk.flush().unwrap();
    drop(image);
    folder.read("small.vmdk")
}

fn small_stream() -> Vec<u8> {
    let mut content = vec![0; 3 << 20];
    for number in [0, 1, 2, 40] {
        content[number * 65_536..][..300].fill(number as u8 + 1);
    }
    let out = MemoryDevice::new([]);
    write_stream_optimized(&out, &MemoryDevice::new(content), "x.vmdk").unwrap();
    out.to_vec()
}

/// Reads here and there, walks extents, writes and flushes; every outcome but a panic or a hang is right.
fn exercise(bytes: &[u8]) {
    let counter = Arc::new(Counter::new(Arc::new(MemoryDevice::new(bytes))));
    let options = Options { accept_changed_parent: true, ..Options::default() };
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
    let mut buffer = vec![0; 5000];
    for offset in [0, 1000, 49_000, size / 2, size.saturating_sub(5000)] {
        let _ = disk.read_exact_at(&mut buffer, offset);
    }
    walk(size, |offset| disk.extent_at(offset).map(|extent| extent.length));
    if let Some(disk) = &image.chain[0].disk {
        let disk: &dyn LayerDisk = &**disk;
        walk(size, |offset| disk.own_run_at(offset).map(|run| run.length));
    }
    let _ = image.take_read_problems();
}

fn walk(size: u64, length: impl Fn(u64) -> std::io::Result<u64>) {
    let mut offset = 0;
    for _ in 0..20 {
        match length(offset) {
            Ok(length) => {
                assert!(length > 0 && length <= size - offset);
                offset += length;
            }
            Err(_) => offset = offset.saturating_add(65_536),
        }
        if offset >= size {
            break;
        }
    }
}

/// Bytes that tend to hurt.
const NASTY: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x40];

fn mutate(bytes: &mut [u8], places: &[usize], random: &mut Random) {
    for _ in 0..=random.below(3) {
        // Mostly headers, tables and text; sometimes anywhere.
        let at = match random.below(4) {
            0 => random.below(512.min(bytes.len() as u64)) as usize,
            1 => random.below(bytes.len() as u64) as usize,
            _ => {
                (places[random.below(places.len() as u64) as usize] + random.below(96) as usize) % bytes.len()
            }
        };
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = NASTY[random.below(8) as usize],
            2 => bytes[at] = b"0189f \n\"=#"[random.below(10) as usize],
            _ => {
                let word = random.next() >> random.below(64);
                let at = (at & !3).min(bytes.len() - 8);
                bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// The places of descriptor, directories and first tables of a hosted extent, and of its end.
fn places(bytes: &[u8]) -> Vec<usize> {
    let word =
        |at: usize| bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()));
    let sector = |at: usize| (word(at) as usize).saturating_mul(512);
    let end = bytes.len().saturating_sub(1536);
    let (first, second) = (sector(56), sector(48));
    let all =
        [0, 512, 600, 700, first, second, sector(first), sector(second), end, end + 512, end - 1024, 2048];
    all.into_iter().filter(|at| *at < bytes.len()).collect()
}

fn mutations(folder: &Folder, original: &[u8], places: &[usize], count: usize, seed: u64) {
    // For a longer run: MUTATIONS=100 makes it a hundred times as many.
    let factor = std::env::var("MUTATIONS").map_or(1, |factor| factor.parse().unwrap());
    for number in 0..count * factor {
        let mut random = Random::new(seed + number as u64);
        let mut bytes = original.to_vec();
        if random.below(10) == 0 {
            bytes.truncate(1 + random.below(bytes.len() as u64) as usize);
            bytes.resize(bytes.len().max(16), 0);
        }
        mutate(&mut bytes, places, &mut random);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            exercise(&bytes);
            if number % 3 == 0 {
                folder.write("mutation.vmdk", &bytes);
                let options = Options { accept_changed_parent: true, ..Options::default() };
                let _ = image::check(&folder.path("mutation.vmdk"), &options, &FolderGate::new());
            }
        }));
        assert!(outcome.is_ok(), "mutation {number} of seed {seed} panics");
        assert!(start.elapsed() < Duration::from_secs(5), "mutation {number} of seed {seed} hangs");
    }
}

#[test]
fn no_mutation_of_sparse_images_panics_or_hangs() {
    let folder = Folder::new();
    let sparse = small_sparse(&folder);
    mutations(&folder, &sparse, &places(&sparse), 8000, 1 << 32);
}

#[test]
fn no_mutation_of_streams_and_deltas_panics_or_hangs() {
    let folder = Folder::new();
    let stream = small_stream();
    mutations(&folder, &stream, &places(&stream), 5000, 2 << 32);
    // Without its footer, the stream is walked.
    let cut = &stream[..stream.len() - 1024];
    mutations(&folder, cut, &[0, 65_536, 66_048, 66_560, 67_072], 3000, 3 << 32);
    let content = disk_content(300_000, 6);
    mutations(&folder, &cowd(&content), &[0, 2048, 2560, 3000], 2000, 4 << 32);
    mutations(&folder, &sesparse(&content), &[0, 80, 130, 512, 2048, 2560, 3000], 2000, 5 << 32);
}

#[test]
fn no_mutation_of_images_of_qemu_panics_or_hangs() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(100_352, 5));
    for (number, options) in ["", "-o zeroed_grain=on", "-o subformat=streamOptimized"].iter().enumerate() {
        folder.must(
            &format!("qemu-img convert -f raw -O vmdk {options} base.raw disk.vmdk").replace("  ", " "),
        );
        let bytes = folder.read("disk.vmdk");
        mutations(&folder, &bytes, &places(&bytes), 1200, (number as u64 + 8) << 40);
    }
}

#[test]
fn no_mutation_of_a_descriptor_panics_or_hangs() {
    let folder = Folder::new();
    let text = "# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"custom\"\n\n# Extent description\nRW 64 FLAT \"a.raw\" 3\nRW 8 ZERO\nNOACCESS 8 FLAT \"b\" 0\n\
        RW 64 FLAT \"a.raw\" 67\nddb.adapterType = \"ide\"\nddb.longContentID = \"00112233445566778899aabb12345678\"\n";
    folder.write("a.raw", &[7; 80_000]);
    let places: Vec<usize> = (0..text.len()).step_by(16).collect();
    for number in 0..3000 {
        let mut random = Random::new((7 << 32) + number);
        let mut bytes = text.as_bytes().to_vec();
        mutate(&mut bytes, &places, &mut random);
        folder.write("text.vmdk", &bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if let Ok(image) = folder.open("text.vmdk") {
                read_around(&image);
            }
            let _ = image::check(&folder.path("text.vmdk"), &Options::default(), &FolderGate::new());
        }));
        assert!(outcome.is_ok(), "mutation {number} panics");
    }
}

/// The message of an error and of everything below it.
fn line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        line.push_str(": ");
        line.push_str(&error.to_string());
        below = error.source();
    }
    line
}

fn descriptor(lines: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n{lines}"
    )
}

#[test]
fn extents_pass_the_gate_or_stay_closed() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("vm")).unwrap();
    folder.write("secret", &[9; 4096]);
    folder.write("vm/disk.raw", &[3; 4096]);
    std::os::unix::fs::symlink("../secret", folder.path("vm/link")).unwrap();
    let case = |name: &str| {
        folder.write("vm/x.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0\n")).as_bytes());
        folder.open("vm/x.vmdk").map(|_| ()).map_err(|error| line(&error))
    };
    assert_eq!(case("disk.raw"), Ok(()));
    for name in ["/etc/passwd", "../secret", "link", "disk.raw/../../secret"] {
        let said = case(name).unwrap_err();
        assert!(said.contains(&format!("needs the extent `{name}`, which is not opened")), "{said}");
    }
    for name in [r"\\.\PhysicalDrive0", "/dev/sda", "x.vmdk", "nbd://host/x", "absent"] {
        assert!(case(name).is_err(), "{name}");
    }
    folder.write("vm/x.vmdk", descriptor("RW 8 FLAT \"disk.raw\" 0\n").as_bytes());
    let denied = image::open(&folder.path("vm/x.vmdk"), &Options::default(), &DenyAll).unwrap_err();
    assert!(line(&denied).ends_with("no other file may be opened for this image"));
    for hint in ["/etc/passwd", "../secret", "x.vmdk", r"C:\x.vmdk"] {
        let text =
            descriptor(&format!("RW 8 ZERO\nparentFileNameHint=\"{hint}\"\n")).replace("ffffffff", "1");
        folder.write("vm/x.vmdk", text.as_bytes());
        assert!(folder.open("vm/x.vmdk").is_err(), "{hint}");
    }
}

#[test]
fn every_extent_keeps_its_place() {
    let folder = Folder::new();
    folder.write("a.raw", &(0..=255_u8).flat_map(|byte| [byte; 512]).collect::<Vec<_>>());
    let open = |lines: &str| {
        folder.write("x.vmdk", descriptor(lines).as_bytes());
        folder.open("x.vmdk")
    };
    let image =
        open("RDONLY 2 FLAT \"a.raw\" 10\n\nRW 3 ZERO\nRW 1 FLAT \"a.raw\" 200\nNOACCESS 2 FLAT \"b\" 0\nRW 1 VMFS \"a.raw\"\n")
            .unwrap();
    assert_eq!(image.device.size(), 9 * 512);
    let mut sector = [0xee; 512];
    for (number, expected) in [(0, 10), (1, 11), (2, 0), (4, 0), (5, 200), (8, 0)] {
        image.device.read_exact_at(&mut sector, number * 512).unwrap();
        assert_eq!(sector, [expected; 512], "sector {number}");
    }
    let hidden = image.device.read_exact_at(&mut sector, 6 * 512).unwrap_err();
    assert_eq!(hidden.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(image.chain[0].data_files, [folder.path("a.raw")]);
    // What is not understood is not skipped.
    let said = line(&open("RW 2 FLAT \"a.raw\" 0\nRW 2 MAGIC \"a.raw\" 0\n").unwrap_err());
    assert!(said.contains("type of an extent is `RW 2 MAGIC \"a.raw\" 0`"), "{said}");
    let image = open("RW 2 FLAT \"a.raw\" 0\nwhat is this\n").unwrap();
    assert!(image.problems[0].to_string().contains("line is `what is this`"), "{:?}", image.problems);
    assert!(line(&open("").unwrap_err()).contains("extents is 0, expected 1.."));
}
