//! Every variant of qcow2 that QEMU can make, read back byte by byte.

use crate::support::{Folder, assert_reads, assert_same, disk_content, has_qemu, read_all};
use image::{FolderGate, Options};

const SIZE: usize = 6 << 20;
/// Not a multiple of any cluster size, but of the sector size.
const ODD_SIZE: usize = (3 << 20) + 5 * 512;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 1));
    folder.write("odd.raw", &disk_content(ODD_SIZE, 2));
    folder
}

/// Opens `name` without problems and compares all of it with QEMU's reading.
fn check(folder: &Folder, name: &str) {
    let expected = folder.content(name);
    let image = folder.open(name).unwrap();
    assert!(image.problems.is_empty(), "{name}: {:?}", image.problems);
    assert_reads(&*image.device, &expected, name);
    let problems = image.take_read_problems();
    assert!(problems.is_empty(), "{name}: {problems:?}");
}

/// Converts base.raw with these options and checks the result.
fn check_converted(options: &[&str]) {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (number, options) in options.iter().enumerate() {
        for source in ["base.raw", "odd.raw"] {
            let name = format!("{number}-{source}.qcow2");
            folder.must(&format!("qemu-img convert -f raw -O qcow2 {options} {source} {name}"));
            check(&folder, &name);
            assert_same(
                &read_all(&*folder.open(&name).unwrap().device),
                &folder.read(source),
                &format!("{options} {source}"),
            );
        }
    }
}

#[test]
fn versions_and_cluster_sizes() {
    check_converted(&[
        "-o compat=0.10",
        "-o compat=1.1",
        "-o compat=0.10,cluster_size=512",
        "-o cluster_size=512",
        "-o cluster_size=1k",
        "-o cluster_size=4k",
        "-o cluster_size=16k",
        "-o cluster_size=256k",
        "-o cluster_size=1M",
        "-o cluster_size=2M",
    ]);
}

#[test]
fn refcount_widths_and_preallocation() {
    check_converted(&[
        "-o refcount_bits=1",
        "-o refcount_bits=2",
        "-o refcount_bits=4",
        "-o refcount_bits=8",
        "-o refcount_bits=32",
        "-o refcount_bits=64",
        "-o lazy_refcounts=on",
        "-o preallocation=metadata",
        "-o preallocation=metadata,cluster_size=2M",
        "-o preallocation=falloc",
        "-o preallocation=full",
        "-S 0",
    ]);
}

#[test]
fn compressed_clusters() {
    check_converted(&[
        "-c",
        "-c -o compat=0.10",
        "-c -o cluster_size=512",
        "-c -o cluster_size=4k",
        "-c -o cluster_size=2M",
        "-c -o compression_type=zstd",
        "-c -o compression_type=zstd,cluster_size=4k",
        "-c -o compression_type=zstd,cluster_size=2M",
        "-c -o extended_l2=on,cluster_size=128k",
    ]);
}

#[test]
fn extended_l2_entries() {
    check_converted(&["-o extended_l2=on,cluster_size=16k", "-o extended_l2=on,cluster_size=64k"]);
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k parts.qcow2 16M");
    folder.qemu_io(
        "parts.qcow2",
        &[
            "write -P 0x11 0 2k",
            "write -P 0x22 70k 6k",
            "write -z 72k 2k",
            "write -P 0x33 1M 64k",
            "write -z 1030k 4k",
            "discard 1040k 8k",
            "write -P 0x44 5M 3M",
            "write -z -u 6M 512k",
        ],
    );
    check(&folder, "parts.qcow2");
    let over = "-b base.raw -F raw";
    folder
        .must(&format!("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k {over} over.qcow2"));
    folder.qemu_io("over.qcow2", &["write -P 0x7b 1M 5k", "write -z 2M 8k", "discard 3M 128k"]);
    check(&folder, "over.qcow2");
}

#[test]
fn zero_and_discarded_clusters() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for compat in ["0.10", "1.1"] {
        let name = format!("zero-{compat}.qcow2");
        folder.must(&format!("qemu-img convert -f raw -O qcow2 -S 0 -o compat={compat} base.raw {name}"));
        folder.qemu_io(
            &name,
            &["write -z 1M 512k", "write -z -u 2M 512k", "discard 3M 1M", "write -P 0xaa 5M 3k"],
        );
        check(&folder, &name);
    }
}

#[test]
fn external_data_files() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 -o data_file=plain.data base.raw plain.qcow2");
    folder.must("qemu-img convert -f raw -O qcow2 -o data_file=raw.data,data_file_raw=on odd.raw raw.qcow2");
    folder.must("qemu-img create -q -f qcow2 -o data_file=empty.data empty.qcow2 3M");
    for name in ["plain", "raw", "empty"] {
        let image = format!("{name}.qcow2");
        check(&folder, &image);
        let layer = &folder.open(&image).unwrap().chain[0];
        assert_eq!(layer.data_files, [folder.path(&format!("{name}.data"))]);
    }
    folder.qemu_io("plain.qcow2", &["write -z 1M 300k", "discard 2M 512k", "write -P 7 0 64k"]);
    check(&folder, "plain.qcow2");
}

#[test]
fn backing_chains() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    let create = |line: &str| folder.must(&format!("qemu-img create -q -f qcow2 {line}"));
    create("-b base.raw -F raw one.qcow2");
    folder.qemu_io("one.qcow2", &["write -P 0x55 1M 100k", "write -z 2M 1M", "write -P 0x66 5M 1M"]);
    create("-b one.qcow2 -F qcow2 -o compat=0.10 two.qcow2");
    folder.qemu_io("two.qcow2", &["write -P 0x77 1050k 20k", "write -P 0x78 3M 5k"]);
    create("-b two.qcow2 -F qcow2 -o cluster_size=512 three.qcow2");
    folder.qemu_io("three.qcow2", &["write -P 0x79 1051k 1536", "write -z 4M 1k"]);
    create(&format!("-b {} -F raw absolute.qcow2", crate::support::text(&folder.path("base.raw"))));
    create("-b odd.raw -F raw longer.qcow2 5M");
    folder.qemu_io("longer.qcow2", &["write -P 0x7a 4M 5k"]);
    create("-b base.raw -F raw shorter.qcow2 2M");
    folder.must("qemu-img convert -c -f raw -O qcow2 base.raw packed.qcow2");
    create("-b packed.qcow2 -F qcow2 over-packed.qcow2");
    folder.qemu_io("over-packed.qcow2", &["write -P 0x7c 1M 100k"]);
    for name in ["one", "two", "three", "absolute", "longer", "shorter", "over-packed"] {
        check(&folder, &format!("{name}.qcow2"));
    }
    let chain = folder.open("three.qcow2").unwrap().chain;
    let files: Vec<_> = chain.iter().map(|layer| (layer.path.clone().unwrap(), layer.format)).collect();
    let expected =
        [("three.qcow2", "qcow2"), ("two.qcow2", "qcow2"), ("one.qcow2", "qcow2"), ("base.raw", "raw")];
    assert_eq!(files, expected.map(|(name, format)| (folder.path(name), format)));
}

#[test]
fn internal_snapshots() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 base.raw snap.qcow2");
    let mut expected = vec![folder.content("snap.qcow2")];
    folder.must("qemu-img snapshot -c first snap.qcow2");
    for (number, name) in ["second", "third"].iter().enumerate() {
        folder.qemu_io("snap.qcow2", &[&format!("write -P {} {}M 700k", 0x90 + number, number + 1)]);
        expected.push(folder.content("snap.qcow2"));
        folder.must(&format!("qemu-img snapshot -c {name} snap.qcow2"));
    }
    folder.qemu_io("snap.qcow2", &["write -P 1 0 6M"]);
    check(&folder, "snap.qcow2");
    let listed = &folder.open("snap.qcow2").unwrap().chain[0].snapshots;
    let names: Vec<_> = listed.iter().map(|s| (s.id.as_str(), s.name.as_str(), s.virtual_size)).collect();
    let size = SIZE as u64;
    assert_eq!(names, [("1", "first", size), ("2", "second", size), ("3", "third", size)]);
    for (name, expected) in ["first", "2", "third"].iter().zip(&expected) {
        let snapshot = image::open(
            &folder.path("snap.qcow2"),
            &Options { snapshot: Some(name), ..Options::default() },
            &FolderGate::new(),
        )
        .unwrap();
        assert_reads(&*snapshot.device, expected, name);
        assert!(snapshot.device.writable().is_none());
    }
    let absent = image::open(
        &folder.path("snap.qcow2"),
        &Options { snapshot: Some("4"), ..Options::default() },
        &FolderGate::new(),
    );
    assert!(absent.unwrap_err().to_string().ends_with("has no snapshot `4`"));
}

#[test]
fn a_snapshot_keeps_its_own_size() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 odd.raw snap.qcow2");
    folder.must("qemu-img snapshot -c small snap.qcow2");
    folder.must("qemu-img resize -q snap.qcow2 64M");
    check(&folder, "snap.qcow2");
    let small = image::open(
        &folder.path("snap.qcow2"),
        &Options { snapshot: Some("small"), ..Options::default() },
        &FolderGate::new(),
    )
    .unwrap();
    assert_reads(&*small.device, &folder.read("odd.raw"), "small");
}

#[test]
fn dirty_and_corrupt_images_are_read_with_a_note() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 base.raw plain.qcow2");
    for (bit, word) in [(1, "dirty"), (2, "corrupt")] {
        let mut bytes = folder.read("plain.qcow2");
        bytes[79] |= bit;
        folder.write("marked.qcow2", &bytes);
        let image = folder.open("marked.qcow2").unwrap();
        assert_reads(&*image.device, &folder.read("base.raw"), word);
        assert!(image.chain[0].notes[0].starts_with(&format!("marked {word}")));
        let refused = folder.open_for_writing("marked.qcow2").unwrap_err().to_string();
        assert!(refused.contains(&format!("it is marked {word}")), "{refused}");
    }
}
