//! Images that lie: damaged at random, cut short, or naming files that are none of their business.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, Random, disk_content, has_qemu};
use blockdev::{Device, FileDevice, MemoryDevice, Overlay};
use image::qcow2::{Backing, CreateOptions, create};
use image::{DenyAll, FolderGate, Image, Mode, Options};

/// The message of an error and of everything below it, as a person sees it.
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

/// Why `name` cannot be opened, with the folder's path removed.
fn refusal(folder: &Folder, name: &str) -> String {
    line(&folder.open(name).unwrap_err())
        .replace(&format!("{}/", crate::support::text(&folder.path(""))), "/")
        .replace(&crate::support::text(&folder.path("")), "")
}

/// A small image with data, made by our own writer, so that no tool is needed.
fn small_image(cluster_bits: u32) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new([]));
    create(&*device, &CreateOptions { cluster_bits, ..CreateOptions::new(200_000) }).unwrap();
    let image = image::open_device(
        device.clone(),
        None,
        &Options { mode: Mode::ReadWrite, ..Options::default() },
        &DenyAll,
    )
    .unwrap();
    let disk = image.device.writable().unwrap();
    for offset in [0, 700, 50_000, 199_000] {
        disk.write_all_at(&[0xa5; 900], offset).unwrap();
    }
    disk.flush().unwrap();
    device.to_vec()
}

fn overlay(folder: &Folder, name: &str, backing: &str, format: Option<&str>) {
    let backing = Backing { name: backing.as_bytes().to_vec(), format: format.map(str::to_owned) };
    let options = CreateOptions { backing: Some(backing), ..CreateOptions::new(1 << 20) };
    let _ = std::fs::remove_file(folder.path(name));
    create(&FileDevice::create_new(&folder.path(name)).unwrap(), &options).unwrap();
}

/// Reads here and there, walks extents, writes and flushes; every outcome but a panic or a hang is right.
fn exercise(bytes: &[u8]) {
    let device: Device = Arc::new(MemoryDevice::new(bytes));
    drop(image::check_device(device.clone(), None, &Options::default(), &DenyAll));
    let Ok(image) = image::open_device(device.clone(), None, &Options::default(), &DenyAll) else { return };
    read_around(&image);
    let overlay: Device = Arc::new(Overlay::new(device));
    let Ok(image) =
        image::open_device(overlay, None, &Options { mode: Mode::ReadWrite, ..Options::default() }, &DenyAll)
    else {
        return;
    };
    let Some(disk) = image.device.writable() else { return };
    for offset in [0, 800, 50_100, disk.size().saturating_sub(600)] {
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
    let own = image.chain[0].disk.as_ref().unwrap();
    for offset in [0, size / 3] {
        if let Ok(run) = own.own_run_at(offset) {
            assert!(run.length > 0 && run.length <= size - offset);
        }
    }
    let mut offset = 0;
    for _ in 0..20 {
        match disk.extent_at(offset) {
            Ok(extent) => {
                assert!(extent.length > 0 && extent.length <= size - offset);
                offset += extent.length;
            }
            Err(_) => offset += 65_536,
        }
        if offset >= size {
            break;
        }
    }
    let _ = image.take_read_problems();
}

/// Bytes that tend to hurt.
const NASTY: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x40];

fn mutate(bytes: &mut [u8], tables: &[usize], random: &mut Random) {
    for _ in 0..=random.below(3) {
        // Mostly the header and the tables; sometimes anywhere.
        let at = match random.below(4) {
            0 => random.below(112.min(bytes.len() as u64)) as usize,
            1 => random.below(bytes.len() as u64) as usize,
            _ => {
                (tables[random.below(tables.len() as u64) as usize] + random.below(64) as usize) % bytes.len()
            }
        };
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = NASTY[random.below(8) as usize],
            _ => {
                let word = random.next() >> random.below(64);
                let at = (at & !7).min(bytes.len() - 8);
                bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
            }
        }
    }
}

/// The places of the L1 table, the refcount table, and the first tables that they point to.
fn tables(bytes: &[u8]) -> Vec<usize> {
    let word = |at: usize| {
        bytes.get(at..at + 8).map_or(0, |word| u64::from_be_bytes(word.try_into().unwrap()) & !(1 << 63))
            as usize
    };
    let (l1, refcounts, snapshots) = (word(40), word(48), word(64));
    [0, l1, refcounts, snapshots, word(l1), word(refcounts)]
        .into_iter()
        .filter(|at| *at < bytes.len())
        .collect()
}

fn mutations(original: &[u8], count: usize, seed: u64) {
    let tables = tables(original);
    // For a longer run: MUTATIONS=100 makes it a hundred times as many.
    let factor = std::env::var("MUTATIONS").map_or(1, |factor| factor.parse().unwrap());
    for number in 0..count * factor {
        let mut random = Random::new(seed + number as u64);
        let mut bytes = original.to_vec();
        if random.below(10) == 0 {
            bytes.truncate(1 + random.below(bytes.len() as u64) as usize);
            bytes.resize(bytes.len().max(8), 0);
        }
        mutate(&mut bytes, &tables, &mut random);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&bytes)));
        assert!(outcome.is_ok(), "mutation {number} of seed {seed} panics");
        assert!(start.elapsed() < Duration::from_secs(5), "mutation {number} of seed {seed} hangs");
    }
}

#[test]
fn no_mutation_of_our_own_images_panics_or_hangs() {
    for cluster_bits in [9, 12] {
        mutations(&small_image(cluster_bits), 5000, u64::from(cluster_bits) << 32);
    }
}

#[test]
fn no_mutation_of_images_of_qemu_panics_or_hangs() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(100_352, 5));
    for (number, options) in [
        "-c -o cluster_size=4k",
        "-c -o cluster_size=4k,compression_type=zstd",
        "-o extended_l2=on,cluster_size=16k",
        "-o compat=0.10,cluster_size=1k",
        "-o cluster_size=512,refcount_bits=1",
    ]
    .iter()
    .enumerate()
    {
        folder.must(&format!("qemu-img convert -f raw -O qcow2 {options} base.raw disk.qcow2"));
        if number == 3 {
            folder.must("qemu-img snapshot -c first disk.qcow2");
        }
        mutations(&folder.read("disk.qcow2"), 2200, (number as u64) << 40);
    }
}

/// The formats that exist, as messages list them.
fn format_names() -> String {
    image::FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_no_image_is_said_in_one_line() {
    let folder = Folder::new();
    folder.write("empty", &[]);
    folder.write("tiny", &[1; 100]);
    folder.write("odd", &[1; 1000]);
    folder.write("v4", b"QFI\xfb\x00\x00\x00\x04");
    std::fs::create_dir(folder.path("folder")).unwrap();
    assert_eq!(refusal(&folder, "absent"), "cannot open absent: No such file or directory (os error 2)");
    assert_eq!(refusal(&folder, "folder"), "cannot open folder: a directory");
    assert_eq!(refusal(&folder, "empty"), "empty is empty (0 bytes)");
    assert_eq!(refusal(&folder, "tiny"), "tiny is not a disk image: 100 bytes are less than one sector");
    let odd = folder.open("odd").unwrap();
    assert_eq!(odd.chain[0].notes, ["1000 bytes are not a whole number of 512-byte sectors"]);
    let open_as = |name, format| {
        image::open(&folder.path(name), &Options { format: Some(format), ..Options::default() }, &DenyAll)
    };
    let said = line(&open_as("odd", "qcow2").unwrap_err());
    assert!(said.ends_with("odd is not a qcow2 image"), "{said}");
    let said = line(&open_as("odd", "vdx").unwrap_err());
    assert_eq!(said, format!("there is no image format `vdx`, only {}", format_names()));
}

#[test]
fn a_stated_format_wins_over_the_content() {
    let folder = Folder::new();
    folder.write("disk", &small_image(16));
    let raw =
        image::open(&folder.path("disk"), &Options { format: Some("raw"), ..Options::default() }, &DenyAll)
            .unwrap();
    assert_eq!(raw.device.size(), folder.read("disk").len() as u64);
    assert_eq!(folder.open("disk").unwrap().chain[0].format, "qcow2");
}

#[test]
fn backing_files_pass_the_gate_or_stay_closed() {
    let folder = Folder::new();
    folder.write("raw", &[3; 4096]);
    folder.write("guest-made", &small_image(16));
    let case = |backing: &str, format: Option<&str>| {
        overlay(&folder, "top", backing, format);
        match folder.open("top") {
            Ok(image) => format!("opened {}", image.chain[1].format),
            Err(_) => refusal(&folder, "top"),
        }
    };
    assert_eq!(case("raw", Some("raw")), "opened raw");
    assert_eq!(case("raw", None), "opened raw");
    assert_eq!(case("guest-made", Some("qcow2")), "opened qcow2");
    assert_eq!(case("guest-made", Some("raw")), "opened raw");
    assert_eq!(
        case("guest-made", None),
        "top does not state the format of its backing file `guest-made`, whose content looks like qcow2"
    );
    assert_eq!(case("raw", Some("qcow2")), "the backing file of top is not usable: raw is not a qcow2 image");
    assert_eq!(
        case("raw", Some("qed")),
        format!(
            "the backing file of top is not usable: there is no image format `qed`, only {}",
            format_names()
        )
    );
    assert_eq!(
        case("json:{\"driver\":\"nbd\"}", Some("raw")),
        "top needs the backing file `json:{\"driver\":\"nbd\"}`, which is not opened: \
         `json:` is a protocol, and only files are opened"
    );
    assert_eq!(
        case("/etc/passwd", Some("raw")),
        "top needs the backing file `/etc/passwd`, which is not opened: \
         /etc/passwd lies outside the folder of the image"
    );
    assert_eq!(
        case("\u{1b}[2J", Some("raw")).split(": ").next().unwrap(),
        "top needs the backing file `\u{fffd}[2J`, which is not opened"
    );
    assert_eq!(
        case("top", Some("qcow2")),
        "top needs the backing file `top`, which is already in use above it: the chain is a loop"
    );
    overlay(&folder, "top", "raw", Some("raw"));
    let denied = image::open(&folder.path("top"), &Options::default(), &DenyAll).unwrap_err();
    assert!(line(&denied).ends_with("no other file may be opened for this image"), "{}", line(&denied));
}

#[test]
fn loops_and_endless_chains_end() {
    let folder = Folder::new();
    overlay(&folder, "a", "b", Some("qcow2"));
    overlay(&folder, "b", "c", Some("qcow2"));
    overlay(&folder, "c", "a", Some("qcow2"));
    assert!(
        refusal(&folder, "a")
            .ends_with("c needs the backing file `a`, which is already in use above it: the chain is a loop")
    );
    std::fs::hard_link(folder.path("a"), folder.path("same")).unwrap();
    overlay(&folder, "c", "same", Some("qcow2"));
    assert!(refusal(&folder, "a").ends_with("the chain is a loop"));

    folder.write("0", &[5; 512]);
    for number in 1..=65 {
        let format = if number == 1 { "raw" } else { "qcow2" };
        overlay(&folder, &number.to_string(), &(number - 1).to_string(), Some(format));
    }
    assert_eq!(folder.open("64").unwrap().chain.len(), 65);
    assert!(refusal(&folder, "65").ends_with("1 has more than 64 layers below the first"));
    let mut bytes = [0; 600];
    folder.open("64").unwrap().device.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..512].iter().all(|byte| *byte == 5) && bytes[512..].iter().all(|byte| *byte == 0));
}

#[test]
fn backing_files_are_never_opened_for_writing() {
    let folder = Folder::new();
    folder.write("raw", &[3; 4096]);
    overlay(&folder, "top", "raw", Some("raw"));
    let mut permissions = std::fs::metadata(folder.path("raw")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(folder.path("raw"), permissions).unwrap();
    let image = folder.open_for_writing("top").unwrap();
    image.device.writable().unwrap().write_all_at(&[9; 10], 100).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    assert_eq!(folder.read("raw"), [3; 4096]);
}

#[test]
fn a_truncated_image_reads_as_zeros_and_tells_once() {
    let original = small_image(12);
    let open = |bytes: &[u8]| {
        image::open_device(Arc::new(MemoryDevice::new(bytes)), None, &Options::default(), &DenyAll)
    };
    let mut zeros_told = 0;
    for length in (0..original.len()).step_by(256) {
        let Ok(image) = open(&original[..length]) else {
            assert!(length <= 5 * 4096, "{length} bytes should be enough to open");
            continue;
        };
        let mut bytes = vec![0xee; image.device.size() as usize];
        match image.device.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                let problems = image.take_read_problems();
                assert!(problems.len() <= 1, "{problems:?}");
                zeros_told += problems.len();
                image.device.read_exact_at(&mut bytes, 0).unwrap();
                assert!(image.take_read_problems().is_empty(), "told twice");
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("L2 table offset"), "{said}");
            }
        }
    }
    assert!(zeros_told > 10, "{zeros_told}");
    let image = open(&original[..original.len() - 4096]).unwrap();
    let mut bytes = vec![0xee; 1000];
    image.device.read_exact_at(&mut bytes, 199_000).unwrap();
    assert_eq!(bytes, [0; 1000]);
    let problem = image.take_read_problems().remove(0).to_string();
    assert!(problem.starts_with("qcow2 data cluster at byte"), "{problem}");
}

#[test]
fn unknown_features_are_named() {
    let mut bytes = small_image(16);
    bytes[72] = 0x80;
    bytes[79] = 0x20;
    let open = |bytes: &[u8]| {
        let device: Device = Arc::new(MemoryDevice::new(bytes));
        line(&image::open_device(device, None, &Options::default(), &FolderGate::new()).unwrap_err())
    };
    assert_eq!(
        open(&bytes),
        "cannot read the image as qcow2: qcow2 header: \
         the incompatible feature bit 5, bit 63 is not supported"
    );
    // A table of names, as QEMU writes it.
    let mut names = vec![0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 48, 0, 5];
    names.extend_from_slice(b"time travel");
    bytes[112..112 + names.len()].copy_from_slice(&names);
    bytes[72] = 0;
    assert!(open(&bytes).ends_with("the incompatible feature `time travel` is not supported"));
}
