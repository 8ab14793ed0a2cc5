//! Every variant of VHDX that QEMU can make, and samples of Windows, read back byte by byte.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use crate::vhdx_support::{MIB, bat, new_image, open, put, qemu_io, sample};
use blockdev::{Counter, ExtentKind, FileDevice, MemoryDevice};
use image::vhdx::CreateOptions;
use image::{FolderGate, Image, LayerDisk, Mode, Options, OwnContent};

const SIZE: usize = 9 << 20;
/// Not a multiple of any block size, but of the sector size.
const ODD_SIZE: usize = (3 << 20) + 5 * 512;

/// Opens `name` without problems and compares all of it with QEMU's reading.
fn check(folder: &Folder, name: &str) -> Image {
    let expected = folder.content(name);
    let image = folder.open(name).unwrap();
    assert!(image.problems.is_empty(), "{name}: {:?}", image.problems);
    assert_reads(&*image.device, &expected, name);
    check_own_runs(&image, &folder.read(name), &expected, name);
    let problems = image.take_read_problems();
    assert!(problems.is_empty(), "{name}: {problems:?}");
    image
}

/// What the first layer says of itself must be true; it has no parent.
fn check_own_runs(image: &Image, file: &[u8], expected: &[u8], what: &str) {
    let disk = image.chain[0].disk.as_ref().unwrap();
    let mut offset = 0;
    while offset < disk.size() {
        let run = disk.own_run_at(offset).unwrap();
        let range = offset as usize..(offset + run.length) as usize;
        match run.content {
            OwnContent::Stored { file: 0, offset: host } => {
                let host = host as usize;
                assert_same(&file[host..host + range.len()], &expected[range], what);
            }
            OwnContent::Zero | OwnContent::Absent => {
                assert!(expected[range].iter().all(|byte| *byte == 0), "{what}: {run:?} at {offset}");
            }
            other => panic!("{what}: {other:?}"),
        }
        offset += run.length;
    }
    assert!(disk.own_run_at(offset).is_err());
}

#[test]
fn subformats_block_sizes_and_logs() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 1));
    folder.write("odd.raw", &disk_content(ODD_SIZE, 2));
    let mut compared = 0;
    for (number, options) in [
        "subformat=dynamic",
        "subformat=fixed",
        "subformat=dynamic,block_size=1M",
        "subformat=dynamic,block_size=2M",
        "subformat=dynamic,block_size=4M",
        "subformat=dynamic,block_size=16M",
        "subformat=dynamic,block_size=32M",
        "subformat=dynamic,block_size=64M",
        "subformat=dynamic,block_size=256M",
        "subformat=fixed,block_size=1M",
        "subformat=fixed,block_size=32M",
        "subformat=dynamic,log_size=2M",
        "subformat=fixed,log_size=16M,block_size=2M",
        "subformat=fixed,block_state_zero=off",
    ]
    .iter()
    .enumerate()
    {
        for source in ["base.raw", "odd.raw"] {
            let name = format!("{number}-{source}.vhdx");
            folder.must(&format!("qemu-img convert -f raw -O vhdx -o {options} {source} {name}"));
            let image = check(&folder, &name);
            assert_same(&read_all(&*image.device), &folder.read(source), &format!("{options} {source}"));
            let kind = options.split([',', '=']).nth(1).unwrap();
            assert_eq!(image.chain[0].features[0], if kind == "fixed" { "fixed" } else { "dynamic" });
            std::fs::remove_file(folder.path(&name)).unwrap();
            compared += 1;
        }
    }
    println!("{compared} images compared");
}

#[test]
fn blocks_that_are_written_in_any_order() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for zero in ["on", "off"] {
        let name = format!("order-{zero}.vhdx");
        folder
            .must(&format!("qemu-img create -q -f vhdx -o block_size=1M,block_state_zero={zero} {name} 20M"));
        let writes = [
            "write -P 1 17M 100k",
            "write -P 2 3M 4M",
            "write -P 3 5000k 3k",
            "write -P 4 19M 1M",
            "write -P 5 0 512",
            "write -P 6 16383k 2k",
        ];
        qemu_io(&folder, &name, &writes);
        check(&folder, &name);
    }
}

/// Entries of sector bitmaps lie between those of blocks, one after each 4 GiB.
#[test]
fn disks_of_several_chunks() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for (block, places) in
        [("1M", [0, 4095, 4096, 8191, 8192, 12_287]), ("256M", [0, 4000, 4096, 8000, 8192, 12_287])]
    {
        let name = format!("chunks-{block}.vhdx");
        folder.must(&format!("qemu-img create -q -f vhdx -o block_size={block} {name} 12G"));
        for (number, place) in places.iter().enumerate() {
            qemu_io(&folder, &name, &[&format!("write -P {} {place}M 64k", number + 1)]);
        }
        let image = folder.open(&name).unwrap();
        for (number, place) in places.iter().enumerate() {
            let mut bytes = vec![0xee; 65_537.min((12_288 - place) * MIB)];
            image.device.read_exact_at(&mut bytes, (place * MIB) as u64).unwrap();
            assert!(bytes[..65_536].iter().all(|byte| usize::from(*byte) == number + 1), "{place}");
            assert!(bytes[65_536..].iter().all(|byte| *byte == 0), "{place}");
        }
        let mut zeros = 0;
        let mut offset = 0;
        while offset < image.device.size() {
            let extent = image.device.extent_at(offset).unwrap();
            zeros += if extent.kind == ExtentKind::Zero { extent.length } else { 0 };
            offset += extent.length;
        }
        assert!(zeros >= image.device.size() - 6 * (256 << 20), "{zeros} bytes known to be zero");
    }
}

/// QEMU neither makes nor reads them. (libvhdi 20260901 and dissect.hypervisor 3.21 read ours as we do.)
#[test]
fn sectors_of_4096_bytes() {
    for is_fixed in [false, true] {
        let options =
            CreateOptions { sector_size: 4096, block_size: 1 << 20, is_fixed, ..CreateOptions::new(5 << 20) };
        let device = new_image(&options);
        let content = disk_content(5 << 20, 7);
        let image = open(device.clone(), Mode::ReadWrite).unwrap();
        assert_eq!(image.device.sector_size(), 4096);
        image.device.writable().unwrap().write_all_at(&content, 0).unwrap();
        image.device.writable().unwrap().flush().unwrap();
        assert_reads(&*open(device, Mode::ReadOnly).unwrap().device, &content, "4096");
    }
}

#[test]
fn the_largest_disk_opens_at_once() {
    let folder = Folder::new();
    for (block_size, is_fixed) in [(32 << 20, false), (1 << 20, false)] {
        let options = CreateOptions { block_size, is_fixed, ..CreateOptions::new(64 << 40) };
        let name = format!("large-{block_size}.vhdx");
        image::vhdx::create(&FileDevice::create_new(&folder.path(&name)).unwrap(), &options).unwrap();
        let start = Instant::now();
        let image = folder.open(&name).unwrap();
        println!("{block_size}: opened in {:?}", start.elapsed());
        let counter = Arc::new(Counter::new(Arc::new(FileDevice::open(&folder.path(&name)).unwrap())));
        let counted =
            image::open_device(counter.clone(), None, &Options::default(), &FolderGate::new()).unwrap();
        assert!(counter.bytes() <= 300 << 10, "{} bytes read to open", counter.bytes());
        let disk = counted.device.clone();
        disk.read_exact_at(&mut [0; 4096], (64 << 40) - 4096).unwrap();
        assert!(counter.bytes() <= 310 << 10, "{} bytes read for one sector", counter.bytes());
        let extent = image.device.extent_at(1 << 40).unwrap();
        assert!(extent.kind == ExtentKind::Zero && extent.length >= 16 << 30, "{extent:?}");
    }
}

/// QEMU writes a state into each of the two million entries.
#[test]
fn the_largest_table_is_not_read_to_open() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vhdx -o block_size=32M large.vhdx 64T");
    let start = Instant::now();
    let image = folder.open("large.vhdx").unwrap();
    println!("opened in {:?}", start.elapsed());
    assert!(start.elapsed().as_millis() < 100, "{:?}", start.elapsed());
    let start = Instant::now();
    let (mut offset, mut questions) = (0, 0);
    while offset < image.device.size() {
        let extent = image.device.extent_at(offset).unwrap();
        assert_eq!(extent.kind, ExtentKind::Zero);
        offset += extent.length;
        questions += 1;
    }
    println!("known to be zero after {questions} questions in {:?}", start.elapsed());
    assert!(questions <= 70, "{questions}");
    drop(image);
    let start = Instant::now();
    let image = folder.open_for_writing("large.vhdx").unwrap();
    println!("opened for writing in {:?}", start.elapsed());
    image.device.writable().unwrap().write_all_at(&[3; 512], (64 << 40) - 512).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    qemu_io(&folder, "large.vhdx", &[&format!("read -P 3 {} 512", (64_u64 << 40) - 512)]);
}

#[test]
fn readers_share_a_disk() {
    let content = disk_content(20 << 20, 9);
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(20 << 20) });
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&content, 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let disk = open(device, Mode::ReadOnly).unwrap().device;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (disk, content) = (&disk, &content);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..300 {
                    let offset = random.below(content.len() as u64) as usize;
                    let length = (1 + random.below(200_000) as usize).min(content.len() - offset);
                    let mut bytes = vec![0; length];
                    disk.read_exact_at(&mut bytes, offset as u64).unwrap();
                    assert_same(&bytes, &content[offset..offset + length], "parallel");
                }
            });
        }
    });
}

#[test]
fn neighbours_are_read_at_once() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(20 << 20) });
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&vec![7; 20 << 20], 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let counter = Arc::new(Counter::new(device));
    let image = open(counter.clone(), Mode::ReadOnly).unwrap();
    image.device.read_exact_at(&mut [0], 0).unwrap();
    let before = counter.reads();
    image.device.read_exact_at(&mut vec![0; 20 << 20], 0).unwrap();
    assert_eq!(counter.reads() - before, 1);
}

#[test]
fn a_truncated_file_reads_as_zeros_and_tells_once() {
    let content: Vec<u8> = (0..8 << 20).map(|at| (at / 4096 % 251 + 1) as u8).collect();
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(8 << 20) });
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&content, 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let mut bytes = device.to_vec();
    let cut = bytes.len() - (3 << 20) - 5000;
    bytes.truncate(cut);
    let image = open(Arc::new(MemoryDevice::new(bytes.clone())), Mode::ReadOnly).unwrap();
    let mut expected = content;
    let kept = expected.len() - (3 << 20) - 5000;
    expected[kept..].fill(0);
    assert_reads(&*image.device, &expected, "truncated");
    let problems = image.take_read_problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].structure, problems[0].offset), ("VHDX payload block", cut as u64));
    assert!(image.take_read_problems().is_empty());
    let refused = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadWrite).unwrap_err().to_string();
    assert!(refused.contains("behind the end of the file"), "{refused}");
}

/// A damaged entry hides its own block and no other.
#[test]
fn damaged_entries_fail_their_block_only() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&vec![7; 4 << 20], 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let good = device.to_vec();
    let entry = bat(&good) + 2 * 8;
    for (word, expected) in [
        (4_u64, "State is 4 for block 2, expected 0 to 3, 6 or 7"),
        (5 | 4 << 20, "State is 5"),
        (7 | 4 << 20, "State is 7 for block 2, expected one of a disk without parent"),
        (6, "FileOffsetMB is 0x0 bytes for block 2, expected a place behind the header section"),
        (6 | 1 << 20, "expected a place outside of the log and the regions"),
        (6 | 3 << 20, "expected a place outside of the log and the regions"),
        (!1 & !(0xffff << 3), "expected a block that ends below 2^64"),
    ] {
        let mut bytes = good.clone();
        put(&mut bytes, entry, &word.to_le_bytes());
        let image = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap();
        let mut block = vec![0; 1 << 20];
        for other in [0, 1, 3] {
            image.device.read_exact_at(&mut block, other << 20).unwrap();
            assert!(block.iter().all(|byte| *byte == 7));
        }
        for (offset, length) in [(2 << 20, 1), (2 << 20, 1 << 20), ((2 << 20) - 1, 2), (0, 1 << 20)] {
            let outcome = image.device.read_exact_at(&mut vec![0; length], offset);
            assert_eq!(outcome.is_ok(), offset == 0, "{offset} {length}");
        }
        let error = image.device.read_exact_at(&mut [0], 2 << 20).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let said = error.to_string();
        assert!(said.contains(expected) && said.contains(&format!("at byte {entry}")), "{said}");
        let disk: &Arc<dyn LayerDisk> = image.chain[0].disk.as_ref().unwrap();
        assert!(disk.own_run_at(2 << 20).is_err());
        assert_eq!(image.device.extent_at(0).unwrap().length, 2 << 20);
    }
    let mut bytes = good.clone();
    bytes[entry + 1] |= 0x10;
    let image = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap();
    assert!(read_all(&*image.device).iter().all(|byte| *byte == 7));
    assert_eq!(image.take_read_problems()[0].field, "Reserved");
}

/// The message of an error and of everything below it.
fn line(error: &dyn Error) -> String {
    let below = error.source().map(|source| format!(": {}", line(source)));
    format!("{error}{}", below.unwrap_or_default())
}

#[test]
fn samples_of_windows() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for name in ["ntfs-dynamic", "ntfs-fixed", "ntfs-parent", "fat-parent"] {
        let file = format!("{name}.vhdx");
        if sample(&folder, &format!("dfvfs/{file}.xz"), &file).is_none() {
            return;
        }
        let image = check(&folder, &file);
        assert_eq!(image.chain[0].virtual_size, 4 << 20);
        let made_by = image.chain[0].features.last().unwrap();
        assert!(made_by.starts_with("made by Microsoft Windows"), "{made_by}");
    }
    // The hashes are those of libvhdi 20260901 and dissect.hypervisor 3.21, which agree; QEMU reads no chains.
    for (name, expected) in [
        ("ntfs", "1ef1fb5360247aa7d36a38415bc7bf6e1e52f62af5e6bd1283815e82584c7efc"),
        ("fat", "a538161f34bc44c12bf9a542ce9218741c62728723ea18d0e4f6ea92e9f32e93"),
    ] {
        let child = format!("{name}-differential.vhdx");
        sample(&folder, &format!("dfvfs/{child}.xz"), &child).unwrap();
        let image = folder.open(&child).unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        let chain: Vec<_> = image.chain.iter().map(|layer| layer.path.clone().unwrap()).collect();
        assert_eq!(chain, [folder.path(&child), folder.path(&format!("{name}-parent.vhdx"))]);
        assert_eq!(image.chain[0].features[0], "differencing");
        let (parent, disk) = (folder.content(&format!("{name}-parent.vhdx")), read_all(&*image.device));
        assert_ne!(parent, disk, "the child says something of its own");
        folder.write("disk.raw", &disk);
        assert!(folder.must("sha256sum disk.raw").starts_with(expected), "{name}");
        check_child_runs(&image, &folder.read(&child), &parent, &disk);
        // Without its parent it says what it needs.
        std::fs::rename(folder.path(&format!("{name}-parent.vhdx")), folder.path("elsewhere")).unwrap();
        let said = line(&folder.open(&child).unwrap_err());
        assert!(
            said.contains(&format!("needs the backing file `{name}-parent.vhdx`"))
                && said.contains("No such file"),
            "{said}"
        );
        // Another parent is not taken for the right one.
        let other = if name == "ntfs" { "fat" } else { "ntfs" };
        std::fs::copy(
            folder.path(&format!("{other}-parent.vhdx")),
            folder.path(&format!("{name}-parent.vhdx")),
        )
        .unwrap();
        let said = line(&folder.open(&child).unwrap_err());
        assert!(said.contains("was made from a") && said.contains("with DataWriteGuid"), "{said}");
        let options = Options { accept_changed_parent: true, ..Options::default() };
        let accepted = image::open(&folder.path(&child), &options, &FolderGate::new()).unwrap();
        assert!(accepted.chain[1].notes[0].contains("was made from a"));
        std::fs::rename(folder.path("elsewhere"), folder.path(&format!("{name}-parent.vhdx"))).unwrap();
    }
}

/// Each byte of a child comes from where its layer says that it does.
pub(crate) fn check_child_runs(image: &Image, file: &[u8], parent: &[u8], disk: &[u8]) {
    let layer = image.chain[0].disk.as_ref().unwrap();
    let mut offset = 0;
    while offset < layer.size() {
        let run = layer.own_run_at(offset).unwrap();
        for at in offset as usize..(offset + run.length) as usize {
            let expected = match run.content {
                OwnContent::Stored { file: 0, offset: host } => file[host as usize + at - offset as usize],
                OwnContent::Absent => parent.get(at).copied().unwrap_or(0),
                OwnContent::Zero => 0,
                other => panic!("{other:?}"),
            };
            assert_eq!(disk[at], expected, "byte {at:#x}");
        }
        offset += run.length;
    }
}

#[test]
fn a_sample_without_its_parent_says_what_is_missing() {
    let folder = Folder::new();
    let path = "dissect/dissect.hypervisor/disk/vhdx/differencing.avhdx.gz";
    if sample(&folder, path, "differencing.avhdx").is_none() {
        return;
    }
    let said = line(&folder.open("differencing.avhdx").unwrap_err());
    let name = "Generation 1_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx";
    assert!(said.contains(&format!("needs the backing file `{name}`")), "{said}");
    let (chain, error) =
        image::chain(&folder.path("differencing.avhdx"), &Options::default(), &FolderGate::new());
    assert!(error.is_some());
    let parent = chain[0].parent.as_ref().unwrap();
    assert_eq!(parent.names, [name.as_bytes()]);
    assert_eq!(parent.identity.as_deref(), Some("DataWriteGuid ff34003b-11ed-4cf8-a166-b2be05e20b80"));
    // With anything below it, it can be read.
    let below: blockdev::Device = Arc::new(MemoryDevice::new(vec![0xaa; 1 << 20]));
    let options = Options { below: Some(&below), ..Options::default() };
    let image = image::open(&folder.path("differencing.avhdx"), &options, &FolderGate::new()).unwrap();
    let disk = image.chain[0].disk.as_ref().unwrap();
    let (mut offset, mut kinds) = (0, [0_u64; 2]);
    while offset < disk.size() {
        let run = disk.own_run_at(offset).unwrap();
        kinds[usize::from(matches!(run.content, OwnContent::Stored { .. }))] += 1;
        let mut bytes = vec![0; run.length.min(1 << 20) as usize];
        image.device.read_exact_at(&mut bytes, offset).unwrap();
        if run.content == OwnContent::Absent && offset < 1 << 20 {
            let inside = bytes.len().min((1 << 20) - offset as usize);
            assert!(bytes[..inside].iter().all(|byte| *byte == 0xaa));
        }
        offset += run.length;
    }
    println!("{} runs absent, {} stored", kinds[0], kinds[1]);
    assert!(kinds[1] > 10, "some blocks are partially present");
}

#[test]
fn samples_of_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    if sample(&folder, "qemu/sample_images/iotest-dynamic-1G.vhdx.bz2", "1G.vhdx").is_none() {
        return;
    }
    let image = folder.open("1G.vhdx").unwrap();
    assert!(image.problems.is_empty(), "{:?}", image.problems);
    assert_eq!(image.device.size(), 1 << 30);
    let mut bytes = vec![0; 1 << 20];
    for number in 0..1024 {
        image.device.read_exact_at(&mut bytes, number << 20).unwrap();
        let expected = match number {
            0..33 => 0xa5,
            33..66 => 0x96,
            _ => 0,
        };
        assert!(bytes.iter().all(|byte| *byte == expected), "MiB {number}");
    }
    // Both headers are the same, as only Disk2vhd writes them.
    sample(&folder, "qemu/sample_images/test-disk2vhd.vhdx.bz2", "disk2vhd.vhdx").unwrap();
    let image = folder.open("disk2vhd.vhdx").unwrap();
    assert!(image.problems.is_empty(), "{:?}", image.problems);
    assert_eq!(image.device.size(), 268_435_456);
    assert!(image.chain[0].features.contains(&"block size 2097152".to_owned()));
    assert_same(&read_all(&*image.device), &folder.content("disk2vhd.vhdx"), "disk2vhd");
}
