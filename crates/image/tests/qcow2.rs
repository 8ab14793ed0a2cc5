//! QCOW2 against qemu-img: what it makes we read, what we write it finds clean.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, FileDevice, MemoryDevice, PowerCut, Survivors};
use image::qcow2::{Backing, Extension, Options, Qcow2, create};
use image::{FolderGate, Mode};

const SIZE: u64 = 3 << 20;

fn has_qemu() -> bool {
    let found = Command::new("qemu-img").arg("--version").output().is_ok();
    if !found {
        println!("skipped: qemu-img is not installed");
    }
    found
}

fn qemu(program: &str, arguments: &[&str], folder: &Path) -> String {
    let run = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// Some data, some zeros, some that compresses.
fn content(size: u64) -> Vec<u8> {
    let mut state = 1_u32;
    (0..size)
        .map(|at| match at >> 16 & 3 {
            0 => 0,
            1 => (at / 100) as u8,
            _ => {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }
        })
        .collect()
}

fn read_all(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0xaa; device.size() as usize];
    device.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn open(path: &Path, mode: Mode) -> image::Image {
    image::open(path, None, mode, &FolderGate::new()).unwrap()
}

fn folder_with(size: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.raw"), content(size)).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn what_qemu_img_makes_is_read() {
    if !has_qemu() {
        return;
    }
    let (_keep, folder) = folder_with(SIZE + 512);
    let expected = content(SIZE + 512);
    for options in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "preallocation=metadata",
        "lazy_refcounts=on",
    ] {
        for compress in [false, true] {
            let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            if compress {
                arguments.push("-c");
            }
            if compress && options.starts_with("preallocation") {
                continue;
            }
            arguments.extend(["base.raw", "disk.qcow2"]);
            qemu("qemu-img", &arguments, &folder);
            let image = open(&folder.join("disk.qcow2"), Mode::ReadOnly);
            assert!(read_all(image.device.as_ref()) == expected, "{options} compress={compress}");
        }
    }
}

#[test]
fn chains_and_zero_clusters_are_read() {
    if !has_qemu() {
        return;
    }
    let (_keep, folder) = folder_with(SIZE);
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "4M"],
        &folder,
    );
    qemu("qemu-io", &["-c", "write -P 7 100k 300k", "-c", "write -z 1M 512k", "mid.qcow2"], &folder);
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "leaf.qcow2"],
        &folder,
    );
    qemu("qemu-io", &["-c", "write -P 9 3M 64k", "-c", "discard 200k 128k", "leaf.qcow2"], &folder);
    qemu("qemu-img", &["convert", "-O", "raw", "leaf.qcow2", "expected.raw"], &folder);
    let image = open(&folder.join("leaf.qcow2"), Mode::ReadOnly);
    assert_eq!(image.layers.len(), 3);
    let expected = std::fs::read(folder.join("expected.raw")).unwrap();
    assert!(read_all(image.device.as_ref()) == expected);
    let mut at = 0;
    while at < image.device.size() {
        let extent = image.device.extent_at(at).unwrap();
        let range = at as usize..(at + extent.length) as usize;
        if extent.kind == blockdev::ExtentKind::Zero {
            assert!(expected[range].iter().all(|byte| *byte == 0), "at {at}");
        }
        at += extent.length;
    }
    let allocated = image.layers[0].qcow2.as_ref().unwrap().allocated().unwrap();
    assert!(allocated.iter().any(|range| range.contains(&(3 << 20))), "{allocated:?}");
    std::fs::remove_file(folder.join("base.raw")).unwrap();
    let error =
        image::open(&folder.join("leaf.qcow2"), None, Mode::ReadOnly, &FolderGate::new()).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    assert!(text.contains("mid.qcow2") && text.contains("base.raw"), "{text}");
}

#[test]
fn features_that_are_not_read_are_named() {
    if !has_qemu() {
        return;
    }
    let (_keep, folder) = folder_with(SIZE);
    for (options, name) in
        [("extended_l2=on,cluster_size=64k", "extended L2"), ("data_file=d.raw", "external data file")]
    {
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, "x.qcow2", "1M"], &folder);
        let error =
            image::open(&folder.join("x.qcow2"), None, Mode::ReadOnly, &FolderGate::new()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Random writes to an image and to a model of it.
fn scribble(device: &dyn BlockDeviceMut, model: &mut [u8], count: u32, seed: u32) -> std::io::Result<()> {
    let mut state = seed;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % limit
    };
    for _ in 0..count {
        let limit = if next(4) == 0 { 200_000 } else { 3000 };
        let length = 1 + next(limit);
        let offset = next(model.len() - length);
        let bytes = vec![next(255) as u8 + 1; length];
        device.write_all_at(&bytes, offset as u64)?;
        model[offset..offset + length].copy_from_slice(&bytes);
    }
    device.flush()
}

#[test]
fn what_we_write_qemu_img_finds_clean() {
    if !has_qemu() {
        return;
    }
    let (_keep, folder) = folder_with(SIZE);
    for (number, options) in [
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=64k",
        "cluster_size=1M",
        "compat=0.10",
        "refcount_bits=64",
    ]
    .into_iter()
    .enumerate()
    {
        for mode in ["plain", "compressed", "backed"] {
            if mode == "compressed" && options.contains("refcount_bits=1") {
                // Compressed clusters share host clusters, which one-bit counts cannot express.
                continue;
            }
            let path = folder.join("disk.qcow2");
            match mode {
                "backed" => qemu(
                    "qemu-img",
                    &[
                        "create",
                        "-q",
                        "-f",
                        "qcow2",
                        "-o",
                        options,
                        "-b",
                        "base.raw",
                        "-F",
                        "raw",
                        "disk.qcow2",
                    ],
                    &folder,
                ),
                "compressed" => qemu(
                    "qemu-img",
                    &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "base.raw", "disk.qcow2"],
                    &folder,
                ),
                _ => qemu(
                    "qemu-img",
                    &["convert", "-f", "raw", "-O", "qcow2", "-o", options, "base.raw", "disk.qcow2"],
                    &folder,
                ),
            };
            let mut model = content(SIZE);
            {
                let image = open(&path, Mode::ReadWrite);
                scribble(image.device.writable().unwrap(), &mut model, 60, number as u32 + 1).unwrap();
                assert!(read_all(image.device.as_ref()) == model, "{options} {mode}");
            }
            assert!(read_all(open(&path, Mode::ReadOnly).device.as_ref()) == model, "{options} {mode}");
            qemu("qemu-img", &["check", "disk.qcow2"], &folder);
            std::fs::write(folder.join("model.raw"), &model).unwrap();
            qemu("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", "model.raw", "disk.qcow2"], &folder);
        }
    }
}

#[test]
fn a_new_overlay_is_one_for_qemu() {
    let (_keep, folder) = folder_with(SIZE);
    let path = folder.join("overlay.qcow2");
    let extension = Extension { kind: 0x676d_656e, data: b"hello".to_vec() };
    let file = FileDevice::create_new(&path).unwrap();
    let backing = Some(Backing { name: b"base.raw".to_vec(), format: "raw".into() });
    create(&file, &Options { size: SIZE, backing, extensions: vec![extension] }).unwrap();
    drop(file);
    let mut model = content(SIZE);
    let image = open(&path, Mode::ReadWrite);
    assert_eq!(
        image.layers[0].qcow2.as_ref().unwrap().header().extension(0x676d_656e),
        Some(b"hello".as_slice())
    );
    scribble(image.device.writable().unwrap(), &mut model, 20, 99).unwrap();
    drop(image);
    if !has_qemu() {
        return;
    }
    qemu("qemu-img", &["check", "overlay.qcow2"], &folder);
    std::fs::write(folder.join("model.raw"), &model).unwrap();
    qemu("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", "model.raw", "overlay.qcow2"], &folder);
    let info = qemu("qemu-img", &["info", "overlay.qcow2"], &folder);
    assert!(info.contains("backing file: base.raw") && info.contains("backing file format: raw"), "{info}");
}

#[test]
fn a_cut_at_every_write_leaves_an_image_without_corruption() {
    if !has_qemu() {
        return;
    }
    let (_keep, folder) = folder_with(SIZE);
    qemu(
        "qemu-img",
        &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=64k", "base.raw", "a.qcow2"],
        &folder,
    );
    let before = std::fs::read(folder.join("a.qcow2")).unwrap();
    let old = content(SIZE);
    let write = |device: &dyn BlockDeviceMut| {
        device.write_all_at(&[0x55; 70_000], 30_000)?;
        device.write_all_at(&[0x66; 100], 2 << 20)?;
        device.flush()
    };
    let mut new = old.clone();
    new[30_000..100_000].fill(0x55);
    new[2 << 20..][..100].fill(0x66);
    for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther] {
        for steps in 0.. {
            let disk = Arc::new(MemoryDevice::new(before.clone()));
            let cut: Device = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = Qcow2::open(cut).unwrap().value;
            let done = write(&image);
            let after = disk.to_vec();
            std::fs::write(folder.join("cut.qcow2"), &after).unwrap();
            let check =
                Command::new("qemu-img").args(["check", "cut.qcow2"]).current_dir(&folder).output().unwrap();
            let code = check.status.code();
            assert!(
                matches!(code, Some(0 | 3)),
                "step {steps} {survivors:?}: {}",
                String::from_utf8_lossy(&check.stdout)
            );
            let image = Qcow2::open(Arc::new(MemoryDevice::new(after))).unwrap().value;
            for (at, byte) in read_all(&image).into_iter().enumerate() {
                assert!(byte == old[at] || byte == new[at], "step {steps} {survivors:?}: byte {at}");
            }
            if done.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn no_mutation_panics_or_hangs() {
    let (_keep, folder) = folder_with(SIZE);
    let file = MemoryDevice::new(Vec::new());
    create(&file, &Options { size: 1 << 20, backing: None, extensions: Vec::new() }).unwrap();
    let device = Arc::new(file);
    let image = Qcow2::open(device.clone()).unwrap().value;
    image.write_all_at(&content(200_000), 100).unwrap();
    let whole = device.to_vec();
    drop(folder);
    let mut state = 7_u32;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % limit
    };
    let mut buf = vec![0; 4096];
    for _ in 0..20_000 {
        let mut bytes = whole[..0x6_0000].to_vec();
        for _ in 0..=next(3) {
            // Mostly the header and the tables' first entries, where a change means something.
            let places = [next(112), 0x1_0000 + next(16), 0x3_0000 + next(16), 0x4_0000 + next(64)];
            let at = places[next(4)];
            let values = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8];
            bytes[at] = values[next(6)];
        }
        if next(8) == 0 {
            let length = 512 + next(0x5_0000);
            bytes.truncate(length);
        }
        let Ok(opened) = Qcow2::open(Arc::new(MemoryDevice::new(bytes))) else { continue };
        let image = opened.value;
        for at in [0, 70_000, image.size().saturating_sub(4096)] {
            let _ = image.read_exact_at(&mut buf, at);
            let _ = image.extent_at(at);
        }
        if let Some(writer) = image.writable() {
            let _ = writer.write_all_at(&buf[..100], 50_000);
        }
    }
}
