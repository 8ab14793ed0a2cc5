//! Disks that we make and write, as QEMU reads them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use crate::vhdx_support::{
    HEADERS, MIB, bat, current_header, new_image, open, put, qemu_check, qemu_io, seal, u64_at,
};
use blockdev::{BlockDeviceMut, FileDevice, MemoryDevice};
use image::vhdx::{CreateOptions, create};
use image::{FolderGate, Mode, NewImage, Options, Severity};

/// Writes at random places, as a guest does: some whole blocks, many sectors, now and then odd bytes.
pub(crate) fn scribble(disk: &dyn BlockDeviceMut, model: &mut [u8], random: &mut Random, count: usize) {
    for _ in 0..count {
        let length = match random.below(8) {
            0 => 1 << 20,
            1 => 1 + random.below(3000) as usize,
            2 => 300_000,
            _ => 512 * (1 + random.below(40) as usize),
        };
        let length = length.min(model.len());
        let mut offset = random.below((model.len() - length + 1) as u64) as usize;
        if random.below(4) > 0 {
            offset &= !511;
        }
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        disk.write_all_at(&bytes, offset as u64).unwrap();
        put(model, offset, &bytes);
    }
}

#[test]
fn writes_are_seen_by_us_and_by_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(7 << 20, 3));
    for (number, line) in [
        "create -q -f vhdx -o block_size=1M disk.vhdx 11M",
        "create -q -f vhdx -o block_size=1M,block_state_zero=off disk.vhdx 11M",
        "create -q -f vhdx -o block_size=8M disk.vhdx 20483k",
        "create -q -f vhdx -o subformat=fixed,block_size=2M disk.vhdx 11M",
        "convert -f raw -O vhdx -o block_size=1M base.raw disk.vhdx",
        "convert -f raw -O vhdx -o subformat=fixed base.raw disk.vhdx",
        "convert -f raw -O vhdx -o log_size=3M,block_size=32M base.raw disk.vhdx",
    ]
    .iter()
    .enumerate()
    {
        folder.must(&format!("qemu-img {line}"));
        let mut model = folder.content("disk.vhdx");
        let device = Arc::new(MemoryDevice::new(folder.read("disk.vhdx")));
        let image = open(device.clone(), Mode::ReadWrite).unwrap();
        let disk = image.device.writable().unwrap();
        let mut random = Random::new(number as u64);
        for round in 0..4 {
            scribble(disk, &mut model, &mut random, 6);
            let what = format!("{line}, round {round}");
            assert_same(&read_all(&*image.device), &model, &format!("{what}, before the flush"));
            disk.flush().unwrap();
            assert_reads(&*image.device, &model, &what);
            // Nothing more is written when we are done: QEMU must be content with what is there now.
            folder.write("after.vhdx", &device.to_vec());
            assert_eq!(qemu_check(&folder, "after.vhdx").0, 0, "{what}");
            assert_same(&folder.content("after.vhdx"), &model, &format!("{what}, QEMU"));
            assert_same(&read_all(&*open(device.clone(), Mode::ReadOnly).unwrap().device), &model, &what);
            let report = check(&folder.path("after.vhdx"));
            assert_eq!(report.count(Severity::Error), 0, "{what}: {:?}", report.problems);
        }
        // QEMU goes on where we stopped, and we where it stopped.
        qemu_io(&folder, "after.vhdx", &["write -P 0x77 100k 3M", "write -P 0x78 5555k 1k"]);
        put(&mut model, 100 << 10, &[0x77; 3 << 20]);
        put(&mut model, 5555 << 10, &[0x78; 1 << 10]);
        let image = folder.open_for_writing("after.vhdx").unwrap();
        scribble(image.device.writable().unwrap(), &mut model, &mut random, 5);
        image.device.writable().unwrap().flush().unwrap();
        drop(image);
        assert_eq!(qemu_check(&folder, "after.vhdx").0, 0, "{line}");
        assert_same(&folder.content("after.vhdx"), &model, &format!("{line}, in turns"));
        std::fs::remove_file(folder.path("disk.vhdx")).unwrap();
    }
}

pub(crate) fn check(path: &Path) -> image::Report {
    image::check(path, &Options { format: Some("vhdx"), ..Options::default() }, &FolderGate::new()).unwrap()
}

#[test]
fn fixed_images_are_written_in_place() {
    let device =
        new_image(&CreateOptions { is_fixed: true, block_size: 1 << 20, ..CreateOptions::new(5 << 20) });
    let before = device.to_vec();
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    let content = disk_content(5 << 20, 5);
    image.device.writable().unwrap().write_all_at(&content, 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let after = device.to_vec();
    assert_eq!(after.len(), before.len());
    assert_same(&after[256 << 10..4 << 20], &before[256 << 10..4 << 20], "log and tables");
    assert_same(&after[4 << 20..], &content, "blocks");
}

#[test]
fn identities_change_once_for_each_opening() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(5 << 20) });
    let guids =
        |bytes: &[u8]| HEADERS.map(|at| (bytes[at + 16..at + 32].to_vec(), bytes[at + 32..at + 48].to_vec()));
    let before = guids(&device.to_vec());
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    let disk = image.device.writable().unwrap();
    disk.flush().unwrap();
    disk.write_all_at(&[], 0).unwrap();
    disk.flush().unwrap();
    assert_eq!(guids(&device.to_vec()), before, "nothing was written");
    disk.write_all_at(&[1], 0).unwrap();
    let first = guids(&device.to_vec());
    assert_eq!(first[0], first[1], "both headers say the same");
    assert!(first[0].0 != before[0].0 && first[0].1 != before[0].1);
    disk.write_all_at(&[1], 3 << 20).unwrap();
    disk.flush().unwrap();
    disk.write_all_at(&[2], 0).unwrap();
    disk.flush().unwrap();
    assert_eq!(guids(&device.to_vec()), first, "one opening, one identity");
    let bytes = device.to_vec();
    let [one, two] = HEADERS.map(|at| u64_at(&bytes, at + 8));
    assert_eq!(one.abs_diff(two), 1);
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&[3], 0).unwrap();
    assert_ne!(guids(&device.to_vec()), first);
}

/// More sectors of the table change than one entry of the log can hold.
#[test]
fn many_changes_go_through_the_log_in_portions() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::new(300 << 30) };
    create(&FileDevice::create_new(&folder.path("disk.vhdx")).unwrap(), &options).unwrap();
    let image = folder.open_for_writing("disk.vhdx").unwrap();
    let disk = image.device.writable().unwrap();
    // 512 blocks of 1 MiB share a sector of the table.
    for number in 0..400_u64 {
        disk.write_all_at(&[(number % 251) as u8 + 1; 512], number * (700 << 20)).unwrap();
    }
    disk.flush().unwrap();
    drop(image);
    assert_eq!(qemu_check(&folder, "disk.vhdx").0, 0);
    let image = folder.open("disk.vhdx").unwrap();
    for number in 0..400_u64 {
        let mut bytes = [0; 1024];
        image.device.read_exact_at(&mut bytes, number * (700 << 20)).unwrap();
        assert!(
            bytes[..512].iter().all(|byte| *byte == (number % 251) as u8 + 1) && bytes[512..] == [0; 512]
        );
    }
    for number in [0_u64, 127, 128, 399] {
        let pattern = number % 251 + 1;
        qemu_io(&folder, "disk.vhdx", &[&format!("read -P {pattern} {}M 512", number * 700)]);
    }
}

#[test]
fn new_images_are_accepted_by_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let mut number = 0;
    for subformat in [None, Some("dynamic"), Some("fixed")] {
        for cluster_size in [None, Some(1 << 20), Some(2 << 20), Some(256 << 20)] {
            for size in [512, (6 << 20) + 512, (33 << 20) + 1] {
                let name = format!("{number}.vhdx");
                number += 1;
                let new = NewImage {
                    size,
                    subformat: subformat.map(str::to_owned),
                    cluster_size,
                    sector_size: None,
                };
                image::create(&folder.path(&name), "vhdx", &new).unwrap();
                assert_eq!(qemu_check(&folder, &name).0, 0, "{new:?}");
                let image = folder.open(&name).unwrap();
                let size = size.next_multiple_of(512);
                assert!(image.problems.is_empty() && image.device.size() == size, "{new:?}");
                assert!(read_all(&*image.device).iter().all(|byte| *byte == 0));
                let block = cluster_size.unwrap_or(32 << 20);
                assert!(image.chain[0].features.contains(&format!("block size {block}")));
                let report = check(&folder.path(&name));
                assert_eq!(report.count(Severity::Note), 0, "{:?}", report.problems);
                let expected = if subformat == Some("fixed") { size } else { 0 };
                assert_eq!(report.allocated, expected);
                folder.must(&format!("qemu-img create -q -f raw zero.raw {size}"));
                folder.must(&format!("qemu-img compare -f vhdx -F raw {name} zero.raw"));
                if size > 1 << 20 {
                    qemu_io(&folder, &name, &["write -P 0x11 1000k 1M", "write -P 0x12 0 512"]);
                    let mut expected = vec![0; size as usize];
                    put(&mut expected, 1000 << 10, &[0x11; 1 << 20]);
                    put(&mut expected, 0, &[0x12; 512]);
                    assert_same(&read_all(&*folder.open(&name).unwrap().device), &expected, &name);
                    assert_eq!(qemu_check(&folder, &name).0, 0, "{new:?}");
                }
                std::fs::remove_file(folder.path(&name)).unwrap();
            }
        }
    }
    println!("{number} images made");
}

#[test]
fn impossible_images_are_not_made() {
    let folder = Folder::new();
    let refused = |new: NewImage| {
        let said = image::create(&folder.path("new.vhdx"), "vhdx", &new).unwrap_err().to_string();
        assert!(!folder.path("new.vhdx").exists(), "{said}");
        said
    };
    let new = || NewImage { size: 1 << 20, ..NewImage::default() };
    let said = refused(NewImage { subformat: Some("sparse".to_owned()), ..new() });
    assert!(said.contains("there is no subformat sparse"), "{said}");
    assert!(refused(NewImage { cluster_size: Some(1 << 19), ..new() }).contains("a block size of 524288"));
    assert!(refused(NewImage { cluster_size: Some(3 << 20), ..new() }).contains("a block size"));
    assert!(refused(NewImage { sector_size: Some(1024), ..new() }).contains("a sector size of 1024"));
    assert!(refused(NewImage { size: (64 << 40) + 1, ..new() }).contains("a disk of"));
    assert!(refused(NewImage { size: 0, ..new() }).contains("a disk of 0 bytes"));
    assert!(refused(NewImage { size: u64::MAX, ..new() }).contains("a disk of"));
    image::create(&folder.path("new.vhdx"), "vhdx", &NewImage { sector_size: Some(4096), ..new() }).unwrap();
    let again = image::create(&folder.path("new.vhdx"), "vhdx", &new()).unwrap_err();
    assert!(again.to_string().starts_with("cannot open"), "{again}");
    assert_eq!(folder.open("new.vhdx").unwrap().device.sector_size(), 4096);
}

/// Doubt about who owns what forbids writing; damage of one of two copies does not.
#[test]
fn images_in_doubt_are_not_written() {
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) };
    let device = new_image(&options);
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&vec![7; 4 << 20], 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    let good = device.to_vec();
    let verdict = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadWrite).map(drop).map_err(|error| error.to_string())
    };
    let entry = bat(&good) + 8;
    assert_eq!(verdict(&|_| {}), Ok(()));
    let said = verdict(&|bytes| bytes.copy_within(entry..entry + 8, entry + 8)).unwrap_err();
    assert!(said.contains("must not be written") && said.contains("shares bytes"), "{said}");
    let said = verdict(&|bytes| bytes[entry] = 4).unwrap_err();
    assert!(said.contains("State of block 1 is 4"), "{said}");
    assert!(verdict(&|bytes| bytes.truncate(bytes.len() - 1)).is_err());
    // One copy of the headers or of the region tables is enough, and reserved bits are nobody's.
    assert_eq!(verdict(&|bytes| bytes[HEADERS[0]..][..4096].fill(0)), Ok(()));
    assert_eq!(verdict(&|bytes| bytes[192 << 10..][..4096].fill(0)), Ok(()));
    assert_eq!(verdict(&|bytes| bytes[entry + 1] = 0x10), Ok(()));
    // A header of a version that we do not know is not ours to overwrite.
    let said = verdict(&|bytes| {
        let other = HEADERS[usize::from(current_header(bytes) == HEADERS[0])];
        bytes[other + 66] = 2;
        seal(bytes, other, 4096);
    });
    assert!(said.unwrap_err().contains("version 2"));
    // Without a log, nothing can be changed safely.
    let said = verdict(&|bytes| {
        crate::vhdx_support::update_header(bytes, |header| header[68..72].fill(0));
    });
    assert!(said.unwrap_err().contains("LogLength"));
    let read_only = Folder::new();
    read_only.write("disk.vhdx", &good);
    let file = Arc::new(FileDevice::open(&read_only.path("disk.vhdx")).unwrap());
    let said = open(file, Mode::ReadWrite).unwrap_err().to_string();
    assert!(said.contains("it was opened read-only"), "{said}");
}

/// After a write that failed halfway nothing more is written.
#[test]
fn a_failed_change_ends_writing() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let cut = Arc::new(blockdev::PowerCut::new(device, 4, blockdev::Survivors::All));
    let image = open(cut, Mode::ReadWrite).unwrap();
    let disk = image.device.writable().unwrap();
    let outcome: io::Result<()> = (0..10).try_for_each(|_| {
        disk.write_all_at(&[1; 512], 0)?;
        disk.flush()
    });
    assert!(outcome.is_err());
    assert!(disk.write_all_at(&[1; 512], 0).is_err());
}

#[test]
fn a_range_past_the_end_is_refused() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new((1 << 20) + 512) });
    let before = device.to_vec();
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    let disk = image.device.writable().unwrap();
    for (offset, length) in [(1 << 20, 513), ((1 << 20) + 512, 1), (u64::MAX, 1)] {
        let error = disk.write_all_at(&vec![1; length], offset).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(device.to_vec(), before);
    disk.write_all_at(&[1; 512], 1 << 20).unwrap();
    disk.flush().unwrap();
    // The last block is whole in the file, though the disk ends within it.
    assert_eq!(device.to_vec().len(), before.len() + MIB);
}
