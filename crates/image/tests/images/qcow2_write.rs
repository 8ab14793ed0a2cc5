//! Random writes to qcow2 images, judged by a model, by `qemu-img check` and by `qemu-img compare`.

use std::sync::Arc;

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use blockdev::{BlockDevice, Device, FileDevice, MemoryDevice, Overlay};
use image::qcow2::{Backing, CreateOptions, Extension, Header, create};
use image::{DenyAll, Error, FolderGate, Mode, Options};

const SIZE: usize = 4 << 20;

/// Lengths that people write: sectors, pages, whole clusters and more.
const LENGTHS: [u64; 9] = [1, 512, 512, 1024, 4096, 4096, 9_000, 65_536, 200_000];

/// Writes at random places, some flushed at once; `model` follows.
fn write_randomly(device: &dyn BlockDevice, model: &mut [u8], random: &mut Random, count: usize) {
    let disk = device.writable().unwrap();
    for number in 0..count {
        let offset = random.below(model.len() as u64) as usize;
        let length = (LENGTHS[random.below(9) as usize] as usize).min(model.len() - offset);
        let mut bytes = vec![0; length];
        if random.below(6) == 0 {
            bytes.fill(0);
            disk.write_zeros_at(offset as u64, length as u64).unwrap();
        } else {
            random.fill(&mut bytes);
            disk.write_all_at(&bytes, offset as u64).unwrap();
        }
        model[offset..offset + length].copy_from_slice(&bytes);
        if random.below(50) == 0 {
            disk.flush().unwrap();
        }
        if number % 97 == 0 {
            let at = random.below(model.len() as u64) as usize;
            let length = (random.below(100_000) as usize).min(model.len() - at);
            let mut found = vec![0; length];
            disk.read_exact_at(&mut found, at as u64).unwrap();
            assert_same(&found, &model[at..at + length], "in between");
        }
    }
    disk.flush().unwrap();
}

/// Opens `name` for writing, writes, and lets everyone judge the result.
fn check_writes(folder: &Folder, name: &str, count: usize) {
    let mut model = folder.content(name);
    let mut random = Random::new(name.bytes().map(u64::from).sum());
    for round in 0..2 {
        let image = folder.open_for_writing(name).unwrap();
        write_randomly(&*image.device, &mut model, &mut random, count);
        assert_reads(&*image.device, &model, &format!("{name}, round {round}, still open"));
        // QEMU refuses to look while we hold the lock.
        drop(image);
        folder.must_be_clean(name);
    }
    assert_reads(&*folder.open(name).unwrap().device, &model, &format!("{name}, reopened"));
    folder.write("model.raw", &model);
    folder.must(&format!("qemu-img compare -F raw {name} model.raw"));
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 3));
    folder
}

#[test]
fn empty_images_of_all_cluster_sizes() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for options in [
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=64k",
        "cluster_size=2M",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=1k,refcount_bits=2",
        "cluster_size=64k,compat=0.10",
        "cluster_size=16k,extended_l2=on",
    ] {
        folder.must(&format!("qemu-img create -q -f qcow2 -o {options} {options}.qcow2 {SIZE}"));
        check_writes(&folder, &format!("{options}.qcow2"), 1000);
    }
}

#[test]
fn over_backing_files() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -c -f raw -O qcow2 base.raw packed.qcow2");
    for (number, options) in [
        "-b base.raw -F raw",
        "-b base.raw -F raw -o cluster_size=512",
        "-b packed.qcow2 -F qcow2 -o cluster_size=4k",
        "-b base.raw -F raw -o extended_l2=on,cluster_size=32k",
        "-b base.raw -F raw -o compat=0.10",
    ]
    .iter()
    .enumerate()
    {
        let before = [folder.read("base.raw"), folder.read("packed.qcow2")];
        // Longer than the backing file, and of an odd size.
        folder.must(&format!("qemu-img create -q -f qcow2 {options} {number}.qcow2 {}", SIZE + 70_144));
        check_writes(&folder, &format!("{number}.qcow2"), 600);
        assert!(before == [folder.read("base.raw"), folder.read("packed.qcow2")]);
    }
}

#[test]
fn compressed_zero_and_preallocated_clusters() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (number, options) in [
        "-c",
        "-c -o cluster_size=4k",
        "-c -o cluster_size=512",
        "-c -o compression_type=zstd",
        "-c -o extended_l2=on,cluster_size=16k",
        "-o preallocation=metadata",
        "-o preallocation=falloc,cluster_size=4k",
        "-o lazy_refcounts=on",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{number}.qcow2");
        folder.must(&format!("qemu-img convert -f raw -O qcow2 {options} base.raw {name}"));
        folder.qemu_io(&name, &["write -z 1M 256k", "write -z -u 2M 256k", "discard 3M 100k"]);
        check_writes(&folder, &name, 600);
    }
}

#[test]
fn snapshots_keep_their_content() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for options in ["cluster_size=64k", "cluster_size=1k", "compat=0.10", "extended_l2=on", "refcount_bits=2"]
    {
        let name = format!("{options}.qcow2");
        folder.must(&format!("qemu-img convert -f raw -O qcow2 -o {options} base.raw {name}"));
        folder.must(&format!("qemu-img snapshot -c first {name}"));
        check_writes(&folder, &name, 300);
        let second = folder.content(&name);
        folder.must(&format!("qemu-img snapshot -c second {name}"));
        check_writes(&folder, &name, 300);
        for (snapshot, expected) in [("first", folder.read("base.raw")), ("second", second)] {
            folder.must(&format!("qemu-img convert -l {snapshot} -O raw {name} snapshot.raw"));
            assert_same(&folder.read("snapshot.raw"), &expected, snapshot);
            let path = folder.path(&name);
            let ours = image::open(
                &path,
                &Options { snapshot: Some(snapshot), ..Options::default() },
                &FolderGate::new(),
            )
            .unwrap();
            assert_same(&read_all(&*ours.device), &expected, snapshot);
        }
        folder.must(&format!("qemu-img snapshot -d first {name}"));
        check_writes(&folder, &name, 100);
    }
}

#[test]
fn a_compressed_snapshot_survives() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -c -f raw -O qcow2 base.raw packed.qcow2");
    folder.must("qemu-img snapshot -c first packed.qcow2");
    check_writes(&folder, "packed.qcow2", 500);
    folder.must("qemu-img snapshot -a first packed.qcow2");
    assert_same(&folder.content("packed.qcow2"), &folder.read("base.raw"), "after return to the snapshot");
    folder.must_be_clean("packed.qcow2");
}

#[test]
fn new_images_are_what_qemu_expects() {
    for cluster_bits in [9, 10, 12, 16, 21] {
        for size in [0, 1, 512, 65_537 * 512, 3 << 30, 100 << 30] {
            let folder = Folder::new();
            let path = folder.path("new.qcow2");
            let options = CreateOptions {
                cluster_bits,
                extensions: vec![
                    Extension { kind: 0x6775_6573, data: b"13 bytes here".to_vec() },
                    Extension { kind: 0x1234_5678, data: Vec::new() },
                ],
                ..CreateOptions::new(size)
            };
            create(&FileDevice::create_new(&path).unwrap(), &options).unwrap();
            let header = Header::read(&FileDevice::open(&path).unwrap()).unwrap();
            assert!(header.problems.is_empty());
            assert_eq!(header.value.extensions, options.extensions);
            let rounded = size.next_multiple_of(512);
            assert_eq!((header.value.size, header.value.cluster_size()), (rounded, 1 << cluster_bits));
            if !has_qemu() {
                return;
            }
            folder.must_be_clean("new.qcow2");
            let info = folder.must("qemu-img info --output=json new.qcow2");
            assert!(info.contains(&format!("\"virtual-size\": {rounded},")), "{info}");
            if size > 1 << 20 {
                folder.qemu_io("new.qcow2", &["write -P 1 0 100k", "write -P 2 20M 3k"]);
                folder.must_be_clean("new.qcow2");
                let kept = Header::read(&FileDevice::open(&path).unwrap()).unwrap().value;
                let ours = options.extensions.iter().all(|extension| kept.extensions.contains(extension));
                assert!(ours, "QEMU dropped an extension: {:?}", kept.extensions);
            }
        }
    }
}

#[test]
fn a_new_overlay_is_written_and_committed_by_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    let extension = Extension { kind: 0x6775_6573, data: vec![7; 300] };
    let options = CreateOptions {
        backing: Some(Backing { name: b"base.raw".to_vec(), format: Some("raw".to_owned()) }),
        extensions: vec![extension.clone()],
        ..CreateOptions::new(SIZE as u64)
    };
    create(&FileDevice::create_new(&folder.path("over.qcow2")).unwrap(), &options).unwrap();
    assert_same(&folder.content("over.qcow2"), &folder.read("base.raw"), "untouched");
    check_writes(&folder, "over.qcow2", 500);
    let header = Header::read(&FileDevice::open(&folder.path("over.qcow2")).unwrap()).unwrap().value;
    assert_eq!(header.extension(extension.kind), Some(&extension.data[..]));
    let expected = folder.content("over.qcow2");
    folder.must("qemu-img commit -q over.qcow2");
    assert_same(&folder.read("base.raw"), &expected, "committed");
}

#[test]
fn options_that_no_image_can_have_are_refused() {
    let refused = |options: &CreateOptions| {
        let device = MemoryDevice::new([]);
        let said = create(&device, options).unwrap_err().to_string();
        assert_eq!(device.size(), 0, "{said}");
    };
    refused(&CreateOptions { cluster_bits: 8, ..CreateOptions::new(0) });
    refused(&CreateOptions { cluster_bits: 22, ..CreateOptions::new(0) });
    refused(&CreateOptions { cluster_bits: 9, ..CreateOptions::new(1 << 40) });
    refused(&CreateOptions::new(u64::MAX));
    let long = |length| Some(Backing { name: vec![b'a'; length], format: None });
    refused(&CreateOptions { backing: long(1024), ..CreateOptions::new(0) });
    refused(&CreateOptions { backing: long(500), cluster_bits: 9, ..CreateOptions::new(0) });
    let end = Extension { kind: 0, data: Vec::new() };
    refused(&CreateOptions { extensions: vec![end], ..CreateOptions::new(0) });
    assert!(create(&MemoryDevice::new([0; 512]), &CreateOptions::new(0)).is_err());
}

#[test]
fn writes_through_an_overlay_leave_the_file_alone() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -c -f raw -O qcow2 base.raw disk.qcow2");
    let before = folder.read("disk.qcow2");
    let path = folder.path("disk.qcow2");
    let file: Device = Arc::new(FileDevice::open(&path).unwrap());
    let overlay = Arc::new(Overlay::new(file));
    let image = image::open_device(
        overlay.clone(),
        Some(&path),
        &Options { mode: Mode::ReadWrite, ..Options::default() },
        &DenyAll,
    )
    .unwrap();
    let mut model = folder.read("base.raw");
    write_randomly(&*image.device, &mut model, &mut Random::new(5), 300);
    assert_same(&folder.read("disk.qcow2"), &before, "the file below");
    folder.write("changed.qcow2", &read_all(&*overlay));
    folder.must_be_clean("changed.qcow2");
    assert_same(&folder.content("changed.qcow2"), &model, "the overlay");
}

#[test]
fn readers_and_a_writer_share_one_device() {
    let device = Arc::new(MemoryDevice::new([]));
    let options = CreateOptions { cluster_bits: 12, ..CreateOptions::new(8 << 20) };
    create(&*device, &options).unwrap();
    let image = image::open_device(
        device.clone(),
        None,
        &Options { mode: Mode::ReadWrite, ..Options::default() },
        &DenyAll,
    )
    .unwrap();
    let disk = image.device.writable().unwrap();
    // Every second page is written once and then read while its neighbours change.
    for page in (0..2048).step_by(2) {
        disk.write_all_at(&[page as u8; 4096], page * 4096).unwrap();
    }
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let disk = &image.device;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut bytes = [0; 4096];
                for _ in 0..4000 {
                    let page = random.below(1024) * 2;
                    disk.read_exact_at(&mut bytes, page * 4096).unwrap();
                    assert_eq!(bytes, [page as u8; 4096]);
                }
            });
        }
        scope.spawn(|| {
            let mut random = Random::new(99);
            for number in 0..3000 {
                let page = random.below(1024) * 2 + 1;
                disk.write_all_at(&[number as u8; 4096], page * 4096).unwrap();
                if number % 20 == 0 {
                    disk.flush().unwrap();
                }
            }
        });
    });
    disk.flush().unwrap();
    let kept = read_all(&*image.device);
    let reopened = image::open_device(device, None, &Options::default(), &DenyAll).unwrap();
    assert_same(&read_all(&*reopened.device), &kept, "reopened");
}

#[test]
fn bitmaps_become_invalid_and_nothing_else_breaks() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 base.raw disk.qcow2");
    folder.must("qemu-img bitmap --add --enable disk.qcow2 backup");
    folder.qemu_io("disk.qcow2", &["write -P 3 1M 64k"]);
    let image = folder.open_for_writing("disk.qcow2").unwrap();
    assert!(image.chain[0].notes[0].contains("bitmaps"));
    assert_eq!(folder.read("disk.qcow2")[95], 1, "opening writes nothing");
    image.device.writable().unwrap().write_all_at(&[1; 100], 5000).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    assert_eq!(folder.read("disk.qcow2")[95], 0);
    drop(image);
    let (code, said) = folder.check("disk.qcow2");
    assert!(code == 0 || code == 3, "{said}");
}

#[test]
fn opening_for_writing_is_refused_where_it_could_do_harm() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 base.raw plain.qcow2");
    let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = folder.read("plain.qcow2");
        change(&mut bytes);
        folder.write("changed.qcow2", &bytes);
        assert!(folder.open("changed.qcow2").is_ok());
        match folder.open_for_writing("changed.qcow2").unwrap_err() {
            Error::NotWritable { reason, .. } => reason,
            Error::Format { source, .. } => source.to_string(),
            other => panic!("{other}"),
        }
    };
    let be = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    assert!(refusal(&|bytes| bytes[79] |= 1).contains("dirty"));
    assert!(refusal(&|bytes| bytes[79] |= 2).contains("corrupt"));
    assert!(refusal(&|bytes| bytes[87] |= 2).contains("unknown compatible"));
    assert!(refusal(&|bytes| bytes[99] = 7).contains("refcount_order"));
    assert!(refusal(&|bytes| bytes[59] = 0).contains("refcount_table_clusters"));
    assert!(refusal(&|bytes| bytes[62] = 9).contains("snapshot"));
    // The first refcount block is the L1 table.
    let overlap = refusal(&|bytes| {
        let (table, l1) = (be(bytes, 48), be(bytes, 40));
        bytes[table..table + 8].copy_from_slice(&(l1 as u64).to_be_bytes());
    });
    assert!(overlap.contains("one that another structure uses"), "{overlap}");
}

#[test]
fn a_guest_cluster_that_points_to_a_table_is_not_written() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 -S 0 base.raw plain.qcow2");
    let bytes = folder.read("plain.qcow2");
    let be = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let offset = 0x00ff_ffff_ffff_fe00;
    let (l1, table) = (be(40), be(48));
    let l2 = be(l1 as usize) & offset;
    for target in [0x10000, table, be(table as usize), l1, l2] {
        let mut changed = bytes.clone();
        changed[l2 as usize..l2 as usize + 8].copy_from_slice(&(target | 1 << 63).to_be_bytes());
        folder.write("changed.qcow2", &changed);
        let image = folder.open_for_writing("changed.qcow2").unwrap();
        let disk = image.device.writable().unwrap();
        let said = disk.write_all_at(&[0; 512], 0).unwrap_err().to_string();
        assert!(said.contains("expected a cluster that no table occupies"), "{said}");
        // The rest of the disk stays usable.
        disk.write_all_at(&[9; 512], 1 << 20).unwrap();
        disk.flush().unwrap();
    }
}
