//! VHD: every variant of QEMU's, both footers, disks over parents, and what is wrong with damaged ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::blocks::{
    check, check_writes, content, found, mend, must_be_sound, must_own_what_it_reads, must_read_as_qemu,
    qemu_io, size_in_qemu,
};
use crate::support::{Folder, assert_reads, assert_same, disk_content, has_qemu, read_all};
use blockdev::{Counter, Device, FileDevice, MemoryDevice};
use image::{DenyAll, Error, FolderGate, Image, Mode, NewImage, Options};

const SIZE: usize = 6 << 20;
const BLOCK: usize = 2 << 20;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 1));
    folder.write("odd.raw", &disk_content((3 << 20) + 5 * 512, 2));
    folder
}

/// Computes the checksum of a footer or header in place.
pub(crate) fn seal(bytes: &mut [u8], at: usize, length: usize, checksum: usize) {
    let place = at + checksum..at + checksum + 4;
    bytes[place.clone()].fill(0);
    let sum: u32 = bytes[at..at + length].iter().map(|byte| u32::from(*byte)).sum();
    bytes[place].copy_from_slice(&(!sum).to_be_bytes());
}

/// Changes both footers of an image in the same way.
pub(crate) fn edit_footers(bytes: &mut [u8], edit: impl Fn(&mut [u8])) {
    for at in [0, bytes.len() - 512] {
        if bytes[at..].starts_with(b"conectix") {
            edit(&mut bytes[at..at + 512]);
            seal(bytes, at, 512, 64);
        }
    }
}

fn edit_header(bytes: &mut [u8], edit: impl Fn(&mut [u8])) {
    edit(&mut bytes[512..1536]);
    seal(bytes, 512, 1024, 36);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Makes a child of `parent` out of an empty dynamic image of QEMU, with a relative and an absolute name.
pub(crate) fn differencing(folder: &Folder, name: &str, parent: &str, relative: &str) {
    let size = folder.open(parent).unwrap().device.size();
    folder.must(&format!("qemu-img create -q -f vpc -o force_size=on {name} {size}"));
    let mut bytes = folder.read(name);
    let uuid = folder.read(parent)[folder.read(parent).len() - 512 + 68..][..16].to_vec();
    let absolute: Vec<u8> =
        format!("Z:\\disks\\{parent}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let relative: Vec<u8> = relative.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // The name takes the place of the footer, which moves behind it.
    let at = bytes.len() - 512;
    let footer = bytes.split_off(at);
    bytes.extend_from_slice(&relative);
    bytes.resize(at + 512, 0);
    bytes.extend_from_slice(&footer);
    edit_footers(&mut bytes, |footer| {
        footer[60..64].copy_from_slice(&[0, 0, 0, 4]);
        footer[68] ^= 0x55;
    });
    edit_header(&mut bytes, |header| {
        header[40..56].copy_from_slice(&uuid);
        header[56..60].copy_from_slice(&[0x27, 0x15, 0xab, 0x0a]);
        header[64..64 + absolute.len()].copy_from_slice(&absolute);
        header[576..580].copy_from_slice(b"W2ru");
        header[580..584].copy_from_slice(&[0, 0, 0, 1]);
        header[584..588].copy_from_slice(&(relative.len() as u32).to_be_bytes());
        header[592..600].copy_from_slice(&(at as u64).to_be_bytes());
    });
    folder.write(name, &bytes);
}

/// A differencing disk as the specification describes it, read bit by bit over its parent's content.
pub(crate) fn naive(bytes: &[u8], parent: &[u8]) -> Vec<u8> {
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let header = number(16, 8);
    let (table, block_size) = (number(header + 16, 8), number(header + 32, 4));
    let mut disk = vec![0; number(48, 8)];
    for (sector, target) in disk.chunks_mut(512).enumerate() {
        let entry = number(table + sector * 512 / block_size * 4, 4);
        let within = sector % (block_size / 512);
        let bitmap = block_size.div_ceil(4096).next_multiple_of(512);
        if entry != 0xffff_ffff && bytes[entry * 512 + within / 8] >> (7 - within % 8) & 1 == 1 {
            target.copy_from_slice(&bytes[entry * 512 + bitmap + within * 512..][..512]);
        } else if let Some(below) = parent.get(sector * 512..sector * 512 + 512) {
            target.copy_from_slice(below);
        }
    }
    disk
}

fn problems(image: &Image) -> Vec<String> {
    image.problems.iter().map(ToString::to_string).collect()
}

fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", said(source)))
}

#[test]
fn all_that_qemu_makes() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (number, options) in
        ["subformat=dynamic", "subformat=fixed", "force_size=on", "subformat=fixed,force_size=on"]
            .iter()
            .enumerate()
    {
        for source in ["base.raw", "odd.raw"] {
            let name = format!("{number}-{source}.vhd");
            folder.must(&format!("qemu-img convert -f raw -O vpc -o {options} {source} {name}"));
            must_read_as_qemu(&folder, "vpc", &name);
            must_be_sound(&folder, &name);
            let raw = folder.read(source);
            let read = read_all(&*folder.open(&name).unwrap().device);
            assert_same(&read[..raw.len()], &raw, &name);
            assert_eq!(folder.open(&name).unwrap().chain[0].format, "vhd");
        }
    }
    folder.must("qemu-img create -q -f vpc scattered.vhd 40M");
    qemu_io(
        &folder,
        "vpc",
        "scattered.vhd",
        &["write -P 1 37M 1k", "write -P 2 0 3k", "write -P 3 20M 4M", "write -z 2M 2M", "write -P 4 22M 1"],
    );
    must_read_as_qemu(&folder, "vpc", "scattered.vhd");
    must_be_sound(&folder, "scattered.vhd");
}

#[test]
fn the_disk_is_as_long_as_qemu_says() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for size in ["1M", "100M", "3G", "130G", "2040G"] {
        for options in ["force_size=off", "force_size=on"] {
            if folder.run(&format!("qemu-img create -q -f vpc -o {options} x.vhd {size}")).status.success() {
                let image = folder.open("x.vhd").unwrap();
                assert_eq!(image.device.size(), size_in_qemu(&folder, "vpc", "x.vhd"), "{size} {options}");
            }
        }
    }
    folder.must("qemu-img create -q -f vpc -o force_size=on x.vhd 4M");
    let original = folder.read("x.vhd");
    for creator in [
        b"vpc ",
        b"qemu",
        b"qem2",
        b"win ",
        b"d2v ",
        b"d2v\0",
        b"tap\0",
        b"CTXS",
        b"wa\0\0",
        b"vbox",
        b"\0\0\0\0",
    ] {
        for geometry in [[0, 120, 4, 17], [0xff, 0xff, 16, 255], [0xff, 0xfe, 16, 255]] {
            let mut bytes = original.clone();
            edit_footers(&mut bytes, |footer| {
                footer[28..32].copy_from_slice(creator);
                footer[56..60].copy_from_slice(&geometry);
            });
            folder.write("y.vhd", &bytes);
            if geometry == [0xff, 0xfe, 16, 255] && matches!(creator, b"vpc " | b"qemu") {
                // A table that does not cover the disk: QEMU refuses it too.
                assert!(said(&folder.open("y.vhd").unwrap_err()).contains("max_table_entries is 2"));
                assert!(!folder.run("qemu-img info -f vpc y.vhd").status.success());
                continue;
            }
            let image = folder.open("y.vhd").unwrap();
            assert_eq!(
                image.device.size(),
                size_in_qemu(&folder, "vpc", "y.vhd"),
                "{creator:?} {geometry:?}"
            );
            let shown = &image.chain[0].features;
            assert!(shown.contains(&"size by field 4194304".to_owned()), "{shown:?}");
            let is_short = image.device.size() != 4 << 20;
            assert_eq!(!image.chain[0].notes.is_empty(), is_short, "{:?}", image.chain[0].notes);
        }
    }
}

#[test]
fn either_footer_recovers_the_other() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw good.vhd");
    let (good, expected) = (folder.read("good.vhd"), folder.read("base.raw"));
    let end = good.len() - 512;
    let case = |bytes: &[u8], expected_problem: &str, repair: &str| {
        folder.write("bad.vhd", bytes);
        let image = folder.open("bad.vhd").unwrap();
        assert_eq!(image.chain[0].format, "vhd");
        assert_eq!(problems(&image), [expected_problem]);
        assert_reads(&*image.device, &expected, expected_problem);
        drop(image);
        let refused = folder.open_for_writing("bad.vhd").unwrap_err();
        assert!(matches!(refused, Error::NotWritable { .. }), "{refused}");
        let report = check(&folder, "bad.vhd");
        assert_eq!(report.problems.len(), 1, "{:?}", found(&report));
        assert_eq!(report.problems[0].repair.as_ref().map_or("", |repair| &repair.title), repair);
        if !repair.is_empty() {
            mend(&folder, "bad.vhd", &report);
            must_be_sound(&folder, "bad.vhd");
            must_read_as_qemu(&folder, "vpc", "bad.vhd");
            drop(folder.open_for_writing("bad.vhd").unwrap());
        }
    };
    let (from_end, from_copy) =
        ("write the copy of the footer anew from the footer", "write the footer anew from its copy");
    let mut bytes = good.clone();
    bytes[..512].fill(0);
    case(&bytes, "VHD footer copy at byte 0: cookie is something else, expected `conectix`", from_end);
    let mut bytes = good.clone();
    bytes[30] ^= 1;
    let problem = problems(&{
        folder.write("bad.vhd", &bytes);
        folder.open("bad.vhd").unwrap()
    });
    assert!(problem[0].starts_with("VHD footer copy at byte 0: checksum is"), "{problem:?}");
    case(&bytes, &problem[0], from_end);
    let missing = format!("VHD footer at byte {end}: cookie is something else, expected `conectix`");
    let mut bytes = good.clone();
    bytes[end..].fill(0);
    case(&bytes, &missing, from_copy);
    case(
        &good[..end],
        &format!("VHD footer at byte {}: cookie is something else, expected `conectix`", end - 512),
        from_copy,
    );
    let mut bytes = good.clone();
    bytes[end + 100] = 7;
    seal(&mut bytes, end, 512, 64);
    let differs = format!(
        "VHD footer at byte {end}: content is something else, expected the same as the copy at byte 0"
    );
    case(&bytes, &differs, "");
    let mut bytes = good.clone();
    bytes[512 + 700] = 7;
    let header = "VHD dynamic disk header at byte 512: checksum is ";
    folder.write("bad.vhd", &bytes);
    let problem = problems(&folder.open("bad.vhd").unwrap());
    assert!(problem[0].starts_with(header), "{problem:?}");
    case(
        &bytes,
        &problem[0],
        "compute the checksum anew: the table and all blocks are where the header says",
    );
    // Both are gone: nothing says that this was an image.
    let mut bytes = good.clone();
    bytes[..512].fill(0);
    bytes[end..].fill(0);
    folder.write("bad.vhd", &bytes);
    assert_eq!(folder.open("bad.vhd").unwrap().chain[0].format, "raw");
    // The header behind a lost copy must be sound too.
    let mut bytes = good.clone();
    bytes[..512].fill(0);
    bytes[600] ^= 1;
    folder.write("bad.vhd", &bytes);
    assert_eq!(folder.open("bad.vhd").unwrap().chain[0].format, "raw");
}

#[test]
fn a_raw_disk_is_not_mistaken() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on base.raw fixed.vhd");
    let good = folder.read("fixed.vhd");
    let end = good.len() - 512;
    let format = |bytes: &[u8]| {
        folder.write("disk", bytes);
        folder.open("disk").unwrap().chain[0].format
    };
    assert_eq!(format(&good), "vhd");
    // Sealed again, and still for another disk than this one.
    let edited = |edit: &dyn Fn(&mut [u8])| {
        let mut bytes = good.clone();
        edit(&mut bytes[end..]);
        seal(&mut bytes, end, 512, 64);
        bytes
    };
    assert_eq!(format(&edited(&|footer| footer[54] ^= 2)), "raw", "another size");
    assert_eq!(format(&edited(&|footer| footer[12] = 7)), "raw", "another version");
    assert_eq!(format(&edited(&|footer| footer[63] = 3)), "raw", "a type that needs a header");
    let mut bytes = good.clone();
    bytes[end + 300] = 1;
    assert_eq!(format(&bytes), "raw", "a checksum that is wrong");
    bytes = good.clone();
    bytes.extend_from_slice(&[0; 512]);
    assert_eq!(format(&bytes), "raw", "a footer before the end");
    bytes = vec![0; 4096];
    bytes.extend_from_slice(&good);
    assert_eq!(format(&bytes), "raw", "a longer file");
    assert_eq!(format(&good[end..]), "vhd", "a footer alone is damaged, but one");
}

#[test]
fn an_old_footer_of_511_bytes() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (name, options) in [("fixed.vhd", "subformat=fixed,force_size=on"), ("dynamic.vhd", "force_size=on")]
    {
        folder.must(&format!("qemu-img convert -f raw -O vpc -o {options} base.raw {name}"));
        let bytes = folder.read(name);
        folder.write(name, &bytes[..bytes.len() - 1]);
        let image = folder.open(name).unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        assert_reads(&*image.device, &folder.read("base.raw"), name);
        drop(image);
        must_be_sound(&folder, name);
        check_writes(&folder, name, 60);
    }
}

#[test]
fn a_disk_over_its_parent() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (parent, options) in [("parent.vhd", "force_size=on"), ("fixed.vhd", "subformat=fixed,force_size=on")]
    {
        folder.must(&format!("qemu-img convert -f raw -O vpc -o {options} base.raw {parent}"));
        differencing(&folder, "child.vhd", parent, &format!(".\\{parent}"));
        let before = folder.read("base.raw");
        let image = folder.open("child.vhd").unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        assert_reads(&*image.device, &before, "empty child");
        assert_eq!(image.chain.len(), 2);
        assert_eq!(image.chain[0].parent.as_ref().unwrap().identity, image.chain[1].identity);
        assert_eq!(
            image.chain[0].notes,
            ["made from its parent as that was last written, at 2020-10-11 11:37:46 UTC"]
        );
        drop(image);
        must_be_sound(&folder, "child.vhd");
        let model = check_writes(&folder, "child.vhd", 200);
        assert_same(&naive(&folder.read("child.vhd"), &before), &model, "read by the specification");
        assert_reads(&*folder.open(parent).unwrap().device, &before, "the parent is as it was");
        // A child of the child.
        differencing(&folder, "grandchild.vhd", "child.vhd", "C:\\elsewhere\\child.vhd");
        let new = check_writes(&folder, "grandchild.vhd", 50);
        assert_same(&naive(&folder.read("grandchild.vhd"), &model), &new, "read by the specification");
        assert_eq!(folder.open("grandchild.vhd").unwrap().chain.len(), 3);
    }
}

#[test]
fn the_right_parent_under_a_name_of_its_own() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw parent.vhd");
    // Only the name in the header leads anywhere, and only to the file beside the child.
    differencing(&folder, "child.vhd", "parent.vhd", "..\\..\\gone.vhd");
    let image = folder.open("child.vhd").unwrap();
    assert_reads(&*image.device, &folder.read("base.raw"), "by its name alone");
    let names: Vec<String> = image.chain[0]
        .parent
        .iter()
        .flat_map(|link| &link.names)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    assert_eq!(names, ["../../gone.vhd", "gone.vhd", "parent.vhd"]);
    let path = folder.path("child.vhd");
    let denied = image::open(&path, &Options::default(), &DenyAll).unwrap_err();
    assert!(said(&denied).contains("no other file may be opened"), "{denied}");

    std::fs::rename(folder.path("parent.vhd"), folder.path("kept.vhd")).unwrap();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw parent.vhd");
    let changed = folder.open("child.vhd").unwrap_err();
    assert!(matches!(changed, Error::ChangedParent { .. }), "{changed}");
    let options = Options { accept_changed_parent: true, ..Options::default() };
    let image = image::open(&path, &options, &FolderGate::new()).unwrap();
    assert!(image.chain[1].notes[0].contains("was made from a"), "{:?}", image.chain[1].notes);

    std::fs::remove_file(folder.path("parent.vhd")).unwrap();
    let missing = folder.open("child.vhd").unwrap_err();
    assert!(matches!(missing, Error::Refused { .. }), "{missing}");
    let (chain, error) = image::chain(&path, &Options::default(), &FolderGate::new());
    assert_eq!((chain.len(), chain[0].format, error.is_some()), (1, "vhd", true));
    // The caller may know better.
    let below: Device = Arc::new(MemoryDevice::new(folder.read("base.raw")));
    let options = Options { below: Some(&below), ..Options::default() };
    let image = image::open(&path, &options, &FolderGate::new()).unwrap();
    assert_reads(&*image.device, &folder.read("base.raw"), "over what the caller gives");
    // A fixed disk may not be a raw one by another name.
    folder.write("parent.vhd", &folder.read("base.raw"));
    let raw = folder.open("child.vhd").unwrap_err();
    assert!(said(&raw).ends_with("parent.vhd is not a vhd image"), "{}", said(&raw));
}

#[test]
fn damage_and_its_repairs() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vpc -o force_size=on good.vhd 8M");
    qemu_io(&folder, "vpc", "good.vhd", &["write -P 1 0 1k", "write -P 2 3M 1k", "write -P 3 4M 1k"]);
    must_be_sound(&folder, "good.vhd");
    let good = folder.read("good.vhd");
    let table = 1536;
    let case = |edit: &dyn Fn(&mut Vec<u8>), expected: &[&str]| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        folder.write("bad.vhd", &bytes);
        assert_eq!(found(&check(&folder, "bad.vhd")), expected);
        assert!(folder.open_for_writing("bad.vhd").is_err() || expected[0].starts_with("Leak"));
    };
    let entry = |number: usize, value: u32| {
        move |bytes: &mut Vec<u8>| {
            bytes[table + number * 4..table + number * 4 + 4].copy_from_slice(&value.to_be_bytes());
        }
    };
    let first = word(&good, table);
    case(
        &entry(3, 0),
        &[
            "Error VHD block allocation table entry @1548: place of the block is 0x0, expected a place that no \
          other structure occupies (the block cannot be read)",
        ],
    );
    case(
        &entry(3, first),
        &[
            "Error VHD block allocation table entry @1548: blocks 0 and 3 share bytes of the file (a write to one \
          changes the other)",
        ],
    );
    case(
        &entry(3, 0x7fff_ffff),
        &[
            "Error VHD block allocation table entry @1548: block 3 lies at bytes 1099511627264 to 1099513724928, and \
          the file ends at 6295552 (what the file lacks reads as zeros)",
        ],
    );
    case(&entry(1, 0xffff_ffff), &["Leak VHD data block @2099712: 2097664 bytes that no block uses"]);
    // What can be read past is read past; what hides bytes is an error there and nowhere else.
    let mut bytes = good.clone();
    entry(1, 1)(&mut bytes);
    folder.write("bad.vhd", &bytes);
    let image = folder.open("bad.vhd").unwrap();
    let mut buffer = vec![0; 1024];
    image.device.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(buffer, [1; 1024]);
    let error = image.device.read_exact_at(&mut buffer, BLOCK as u64 + 7).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("place of the block is 0x1"), "{error}");
    assert_eq!(image.device.extent_at(0).unwrap().length, BLOCK as u64);
    assert!(image.device.extent_at(BLOCK as u64).is_err());
    // Readers that go by the bitmap see something else.
    let mut bytes = good.clone();
    bytes[first as usize * 512] = 0x7f;
    folder.write("bad.vhd", &bytes);
    let report = check(&folder, "bad.vhd");
    assert_eq!(
        found(&report),
        [format!(
            "Note VHD sector bitmap @{}: sectors that are marked as never written are not zero (readers that go \
             by the bitmap see zeros, QEMU does not)",
            first * 512
        )]
    );
    assert_eq!(report.problems[0].guest, [0..512]);
    must_read_as_qemu(&folder, "vpc", "bad.vhd");
    let image = folder.open_for_writing("bad.vhd").unwrap();
    image.device.writable().unwrap().write_all_at(&[9; 10], 5).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    must_be_sound(&folder, "bad.vhd");
}

#[test]
fn a_truncated_image_reads_as_zeros_behind_its_end() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw good.vhd");
    let (good, expected) = (folder.read("good.vhd"), folder.read("base.raw"));
    let length = good.len() - 512 - 300_000;
    folder.write("short.vhd", &good[..length]);
    let image = folder.open("short.vhd").unwrap();
    assert_eq!(image.problems.len(), 1);
    let read = read_all(&*image.device);
    let kept = SIZE - 300_000;
    assert_same(&read[..kept], &expected[..kept], "what is left");
    assert!(read[kept..].iter().all(|byte| *byte == 0));
    let told = image.take_read_problems();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().starts_with("VHD data block at byte"), "{}", told[0]);
    assert!(image.take_read_problems().is_empty());
    let report = check(&folder, "short.vhd");
    assert_eq!(report.problems[0].guest, [kept as u64..SIZE as u64], "{:?}", found(&report));
    assert!(report.problems.iter().all(|problem| problem.repair.is_none()), "a footer would seal the loss");
}

#[test]
fn random_writes() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (name, options) in [
        ("dynamic.vhd", "force_size=on"),
        ("geometry.vhd", "subformat=dynamic"),
        ("fixed.vhd", "subformat=fixed,force_size=on"),
    ] {
        folder.must(&format!("qemu-img convert -f raw -O vpc -o {options} base.raw {name}"));
        let model = check_writes(&folder, name, 150);
        assert_same(&content(&folder, "vpc", name), &model, name);
    }
    folder.must("qemu-img create -q -f vpc -o force_size=on empty.vhd 23M");
    let model = check_writes(&folder, "empty.vhd", 150);
    assert_same(&content(&folder, "vpc", "empty.vhd"), &model, "empty.vhd");
    // QEMU goes on where we stopped.
    qemu_io(&folder, "vpc", "empty.vhd", &["write -P 8 0 23M"]);
    must_read_as_qemu(&folder, "vpc", "empty.vhd");
    must_be_sound(&folder, "empty.vhd");
}

#[test]
fn a_state_that_is_not_certain_is_not_written() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw saved.vhd");
    let mut bytes = folder.read("saved.vhd");
    edit_footers(&mut bytes, |footer| footer[84] = 1);
    folder.write("saved.vhd", &bytes);
    let refused = folder.open_for_writing("saved.vhd").unwrap_err();
    assert!(refused.to_string().contains("it belongs to a saved state of a machine"), "{refused}");
    assert!(folder.open("saved.vhd").unwrap().chain[0].notes[0].contains("saved state"));
    let read_only: Device = Arc::new(FileDevice::open(&folder.path("saved.vhd")).unwrap());
    let options = Options { mode: Mode::ReadWrite, ..Options::default() };
    let refused = image::open_device(read_only, None, &options, &DenyAll).unwrap_err();
    assert!(refused.to_string().contains("opened read-only"), "{refused}");
}

#[test]
fn new_images_are_images_to_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for (subformat, size, block) in [
        (None, 10 << 20, None),
        (Some("dynamic"), (7 << 20) + 300, Some(512 << 10)),
        (Some("fixed"), 5 << 20, None),
        (Some("dynamic"), 3 * 4 * 17 * 512, None),
        (Some("dynamic"), 2040 << 30, None),
    ] {
        let _ = std::fs::remove_file(folder.path("new.vhd"));
        let new = NewImage {
            size,
            subformat: subformat.map(str::to_owned),
            cluster_size: block,
            sector_size: None,
        };
        image::create(&folder.path("new.vhd"), "vhd", &new).unwrap();
        let size = size.next_multiple_of(512);
        assert_eq!(size_in_qemu(&folder, "vpc", "new.vhd"), size);
        assert_eq!(folder.open("new.vhd").unwrap().device.size(), size);
        must_be_sound(&folder, "new.vhd");
        if size < 1 << 30 {
            qemu_io(&folder, "vpc", "new.vhd", &["write -P 1 1k 90k"]);
            must_read_as_qemu(&folder, "vpc", "new.vhd");
            let model = check_writes(&folder, "new.vhd", 30);
            assert_same(&content(&folder, "vpc", "new.vhd"), &model, "new.vhd");
        }
        assert!(image::create(&folder.path("new.vhd"), "vpc", &new).is_err(), "it exists");
    }
    let refused = |new: NewImage| image::create(&folder.path("other.vhd"), "vhd", &new).unwrap_err();
    let plain = NewImage { size: 1 << 20, ..NewImage::default() };
    for new in [
        NewImage { size: 0, ..plain.clone() },
        NewImage { size: 2041 << 30, ..plain.clone() },
        NewImage { size: u64::MAX, ..plain.clone() },
        NewImage { cluster_size: Some(3 << 20), ..plain.clone() },
        NewImage { sector_size: Some(4096), ..plain.clone() },
        NewImage { subformat: Some("static".to_owned()), ..plain },
    ] {
        assert!(matches!(refused(new.clone()), Error::NotCreatable { .. }), "{new:?}");
    }
    assert!(!folder.path("other.vhd").exists());
}

#[test]
fn opening_reads_no_table() {
    let folder = Folder::new();
    let new = NewImage { size: 2040 << 30, cluster_size: Some(64 << 10), ..NewImage::default() };
    image::create(&folder.path("large.vhd"), "vhd", &new).unwrap();
    let file = Arc::new(Counter::new(Arc::new(FileDevice::open(&folder.path("large.vhd")).unwrap())));
    let start = Instant::now();
    let image = image::open_device(file.clone(), None, &Options::default(), &DenyAll).unwrap();
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    assert!(file.bytes() < 16 << 10, "{} bytes read", file.bytes());
    let extent = image.device.extent_at(12_345).unwrap();
    assert!(extent.length > 8 << 30, "{extent:?}");
    assert!(file.bytes() < 4 << 20, "{} bytes read", file.bytes());
}

#[test]
fn own_runs_of_a_child() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw parent.vhd");
    differencing(&folder, "child.vhd", "parent.vhd", "parent.vhd");
    let image = folder.open_for_writing("child.vhd").unwrap();
    let disk = image.device.writable().unwrap();
    disk.write_all_at(&[1; 100], 3 * 512 + 100).unwrap();
    disk.write_all_at(&[1; 1024], BLOCK as u64 - 512).unwrap();
    disk.flush().unwrap();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < image.device.size() {
        let run = image.chain[0].disk.as_ref().unwrap().own_run_at(at).unwrap();
        runs.push((at / 512, run.length / 512, run.content == image::OwnContent::Absent));
        at += run.length;
    }
    let blocks = BLOCK as u64 / 512;
    assert_eq!(
        runs,
        [
            (0, 3, true),
            (3, 1, false),
            (4, blocks - 5, true),
            (blocks - 1, 1, false),
            (blocks, 1, false),
            (blocks + 1, 2 * blocks - 1, true)
        ]
    );
    drop(image);
    let expected = naive(&folder.read("child.vhd"), &folder.read("base.raw"));
    must_own_what_it_reads(&folder, "child.vhd", &expected);
    assert_eq!(check(&folder, "child.vhd").allocated, 3 * 512);
}
