//! Chains of VHDX files: what a child holds itself, and how it knows its parent. QEMU reads none of them.

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, read_all};
use crate::vhdx_read::check_child_runs;
use crate::vhdx_support::{bat, put, region, test_image};
use crate::vhdx_write::{check, scribble};
use blockdev::FileDevice;
use image::vhdx::{CreateOptions, Parent, create};
use image::{Image, Severity};

/// A child of an image in the folder.
pub(crate) fn make_child(folder: &Folder, name: &str, parent: &str, options: &CreateOptions) {
    let identity = folder.open(parent).unwrap().chain[0].identity.clone().unwrap();
    let parent = Parent { identity, relative_path: format!("./{parent}"), absolute_path: None };
    let options = CreateOptions { parent: Some(parent), ..options.clone() };
    let _ = std::fs::remove_file(folder.path(name));
    create(&FileDevice::create_new(&folder.path(name)).unwrap(), &options).unwrap();
}

/// A parent with content, in sectors of this size.
pub(crate) fn make_parent(folder: &Folder, name: &str, size: usize, sector_size: u32, seed: u64) -> Vec<u8> {
    let content = disk_content(size, seed);
    let options = CreateOptions { sector_size, block_size: 2 << 20, ..CreateOptions::new(size as u64) };
    let file = FileDevice::create_new(&folder.path(name)).unwrap();
    create(&file, &options).unwrap();
    drop(file);
    let image = folder.open_for_writing(name).unwrap();
    image.device.writable().unwrap().write_all_at(&content, 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    content
}

fn report_is_clean(folder: &Folder, name: &str) {
    let report = check(&folder.path(name));
    assert_eq!(report.count(Severity::Note), 0, "{name}: {:?}", report.problems);
}

#[test]
fn children_hold_what_was_written_to_them() {
    for (sector_size, block_size) in [(512, 1 << 20), (512, 2 << 20), (4096, 1 << 20), (512, 32 << 20)] {
        let folder = Folder::new();
        let size = 7 << 20;
        let parent = make_parent(&folder, "parent.vhdx", size, sector_size, 20);
        let options = CreateOptions { sector_size, block_size, ..CreateOptions::new(size as u64) };
        make_child(&folder, "child.vhdx", "parent.vhdx", &options);
        let mut model = parent.clone();
        let mut random = Random::new(u64::from(sector_size) + block_size);
        assert_reads(&*folder.open("child.vhdx").unwrap().device, &model, "an empty child");
        for round in 0..4 {
            let what = format!("{sector_size}, {block_size}, round {round}");
            let image = folder.open_for_writing("child.vhdx").unwrap();
            scribble(image.device.writable().unwrap(), &mut model, &mut random, 3);
            assert_same(&read_all(&*image.device), &model, &format!("{what}, before the flush"));
            image.device.writable().unwrap().flush().unwrap();
            assert_reads(&*image.device, &model, &what);
            scribble(image.device.writable().unwrap(), &mut model, &mut random, 3);
            image.device.writable().unwrap().flush().unwrap();
            drop(image);
            let image = folder.open("child.vhdx").unwrap();
            assert!(image.problems.is_empty(), "{what}: {:?}", image.problems);
            assert_reads(&*image.device, &model, &what);
            check_child_runs(&image, &folder.read("child.vhdx"), &parent, &model);
            report_is_clean(&folder, "child.vhdx");
        }
        let report = check(&folder.path("child.vhdx"));
        let own = own_bytes(&folder.open("child.vhdx").unwrap());
        assert_eq!(report.allocated, own);
        // A child of the child, longer than it.
        let longer = CreateOptions { size: size as u64 + 8192, ..options };
        make_child(&folder, "grandchild.vhdx", "child.vhdx", &longer);
        let image = folder.open_for_writing("grandchild.vhdx").unwrap();
        model.resize(size + 8192, 0);
        assert_reads(&*image.device, &model, "an empty grandchild");
        scribble(image.device.writable().unwrap(), &mut model, &mut random, 5);
        image.device.writable().unwrap().flush().unwrap();
        drop(image);
        let image = folder.open("grandchild.vhdx").unwrap();
        assert_eq!(image.chain.len(), 3);
        assert_reads(&*image.device, &model, "grandchild");
        assert_same(&read_all(&*folder.open("parent.vhdx").unwrap().device), &parent, "the parent stays");
    }
}

fn own_bytes(image: &Image) -> u64 {
    let disk = image.chain[0].disk.as_ref().unwrap();
    let (mut offset, mut own) = (0, 0);
    while offset < image.device.size() {
        let run = disk.own_run_at(offset).unwrap();
        own += if matches!(run.content, image::OwnContent::Stored { .. }) { run.length } else { 0 };
        offset += run.length;
    }
    own
}

/// Bits of a block that is not present mean nothing; a writer that takes such a block must clear them.
#[test]
fn stale_bits_do_not_come_back() {
    let folder = Folder::new();
    let size = 8 << 20;
    let parent = make_parent(&folder, "parent.vhdx", size, 512, 21);
    make_child(
        &folder,
        "child.vhdx",
        "parent.vhdx",
        &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(size as u64) },
    );
    let image = folder.open_for_writing("child.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[1; 700_000], 1 << 20).unwrap();
    image.device.writable().unwrap().write_all_at(&[2; 512], 6 << 20).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    // Block 1 goes; its bits stay.
    let mut bytes = folder.read("child.vhdx");
    let at = bat(&bytes) + 8;
    put(&mut bytes, at, &[0; 8]);
    folder.write("child.vhdx", &bytes);
    let mut model = parent;
    put(&mut model, 6 << 20, &[2; 512]);
    assert_reads(&*folder.open("child.vhdx").unwrap().device, &model, "the block is gone");
    let image = folder.open_for_writing("child.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[3; 5000], (1 << 20) + 100_000).unwrap();
    put(&mut model, (1 << 20) + 100_000, &[3; 5000]);
    assert_same(&read_all(&*image.device), &model, "before the flush");
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    assert_reads(&*folder.open("child.vhdx").unwrap().device, &model, "written again");
}

#[test]
fn states_without_content_hide_the_parent() {
    let folder = Folder::new();
    let size = 8 << 20;
    let mut model = make_parent(&folder, "parent.vhdx", size, 512, 22);
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::new(size as u64) };
    make_child(&folder, "child.vhdx", "parent.vhdx", &options);
    let mut bytes = folder.read("child.vhdx");
    for state in [1, 2, 3] {
        let at = bat(&bytes) + 8 * state;
        bytes[at] = state as u8;
        model[state << 20..(state + 1) << 20].fill(0);
    }
    folder.write("child.vhdx", &bytes);
    assert_reads(&*folder.open("child.vhdx").unwrap().device, &model, "zeros over content");
    let image = folder.open_for_writing("child.vhdx").unwrap();
    for state in [1, 2, 3] {
        let at = (state << 20) + 777;
        image.device.writable().unwrap().write_all_at(&[8; 1000], at as u64).unwrap();
        put(&mut model, at, &[8; 1000]);
    }
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    assert_reads(&*folder.open("child.vhdx").unwrap().device, &model, "written");
    report_is_clean(&folder, "child.vhdx");
}

/// A parent locator with these keys and values, without its type.
fn locator(pairs: &[(&str, &str)]) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut table = (pairs.len() as u32 * 0x1_0000).to_le_bytes().to_vec();
    let mut texts = Vec::new();
    for (key, value) in pairs {
        let lengths = [utf16(key).len(), utf16(value).len()];
        let start = 20 + 12 * pairs.len() + texts.len();
        for offset in [start, start + lengths[0]] {
            table.extend_from_slice(&(offset as u32).to_le_bytes());
        }
        lengths.iter().for_each(|length| table.extend_from_slice(&(*length as u16).to_le_bytes()));
        texts.extend(utf16(key));
        texts.extend(utf16(value));
    }
    [table, texts].concat()
}

#[test]
fn either_linkage_may_name_the_parent() {
    let folder = Folder::new();
    make_parent(&folder, "parent.vhdx", 1 << 20, 512, 23);
    make_child(
        &folder,
        "child.vhdx",
        "parent.vhdx",
        &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(1 << 20) },
    );
    let with = |first: &str, second: Option<&str>| {
        let mut bytes = folder.read("child.vhdx");
        let mut pairs = vec![("relative_path", ".\\parent.vhdx"), ("parent_linkage", first)];
        pairs.extend(second.map(|second| ("parent_linkage2", second)));
        let metadata = region(&bytes, 0x06);
        // The locator is the last of the items that we write.
        let (entry, item) = (metadata + 32 + 5 * 32, metadata + (64 << 10) + 40);
        let kind = bytes[item..item + 16].to_vec();
        let locator = [kind, locator(&pairs)].concat();
        put(&mut bytes, entry + 20, &(locator.len() as u32).to_le_bytes());
        put(&mut bytes, item, &locator);
        folder.write("linked.vhdx", &bytes);
        folder.open("linked.vhdx").map(|image| image.chain.len()).map_err(|error| error.to_string())
    };
    let right = folder.open("parent.vhdx").unwrap().chain[0].identity.clone().unwrap();
    let right = format!("{{{}}}", right.strip_prefix("DataWriteGuid ").unwrap());
    let wrong = "{00112233-4455-6677-8899-aabbccddeeff}";
    assert_eq!(with(&right, None), Ok(2));
    assert!(with(wrong, None).unwrap_err().contains("00112233-4455-6677-8899-aabbccddeeff"));
    assert_eq!(with(&right, Some(wrong)), Ok(2));
    assert_eq!(with(wrong, Some(&right)), Ok(2));
    assert!(with(wrong, Some(wrong)).is_err());
    assert!(with(wrong, Some("{00000000-0000-0000-0000-000000000000}")).is_err());
    assert_eq!(with(&right.to_uppercase(), None), Ok(2));
    // A write to the parent makes it another one.
    let image = folder.open_for_writing("parent.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[1], 0).unwrap();
    drop(image);
    let said = folder.open("child.vhdx").unwrap_err().to_string();
    assert!(said.contains("was made from a"), "{said}");
}

#[test]
fn a_parent_with_a_dirty_log_is_replayed_too() {
    let folder = Folder::new();
    folder.write("parent.vhdx", &test_image("dirty.vhdx"));
    make_child(&folder, "child.vhdx", "parent.vhdx", &CreateOptions::new(64 << 20));
    let mut expected = read_all(&*folder.open("parent.vhdx").unwrap().device);
    assert!(expected.iter().any(|byte| *byte != 0));
    let image = folder.open_for_writing("child.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[5; 9000], 12_345).unwrap();
    put(&mut expected, 12_345, &[5; 9000]);
    assert_same(&read_all(&*image.device), &expected, "over a dirty parent");
    assert!(image.chain[1].notes[0].contains("replayed in memory"));
    assert_same(&folder.read("parent.vhdx"), &test_image("dirty.vhdx"), "the parent is only read");
}

#[test]
fn sectors_of_parent_and_child_must_be_alike() {
    let folder = Folder::new();
    make_parent(&folder, "parent.vhdx", 1 << 20, 4096, 24);
    make_child(
        &folder,
        "child.vhdx",
        "parent.vhdx",
        &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(1 << 20) },
    );
    let image = folder.open("child.vhdx").unwrap();
    assert!(image.problems[0].to_string().contains("Logical Sector Size is 512, expected 4096"));
}

/// Readers never see less than what was written before they asked, while tables move to the file beside them.
#[test]
fn readers_keep_up_with_a_writer() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const BLOCKS: u64 = 400;
    let folder = Folder::new();
    make_parent(&folder, "parent.vhdx", 4 << 20, 512, 25);
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::new(BLOCKS << 20) };
    make_child(&folder, "child.vhdx", "parent.vhdx", &options);
    let image = folder.open_for_writing("child.vhdx").unwrap();
    let disk = &image.device;
    let written = AtomicU64::new(0);
    let content = |block: u64| [(block % 251) as u8 + 1; 1024];
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let written = &written;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                loop {
                    let until = written.load(Ordering::Acquire);
                    if until == BLOCKS {
                        break;
                    }
                    if until > 0 {
                        // Most of all the newest.
                        let block = until - 1 - random.below(until.min(3));
                        let mut bytes = [0; 1024];
                        disk.read_exact_at(&mut bytes, (block << 20) + 5120).unwrap();
                        assert_eq!(bytes, content(block), "block {block} of {until}");
                    }
                }
            });
        }
        for block in 0..BLOCKS {
            disk.writable().unwrap().write_all_at(&content(block), (block << 20) + 5120).unwrap();
            written.store(block + 1, Ordering::Release);
            if block % 7 == 0 {
                disk.writable().unwrap().flush().unwrap();
            }
        }
    });
    disk.writable().unwrap().flush().unwrap();
    drop(image);
    report_is_clean(&folder, "child.vhdx");
}
