//! Samples that others made to break readers, and those of another reader's tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::{content, has_tool, names, walk};
use blockdev::{Device, FileDevice};
use filesystem_btrfs::{Select, open_set, open_subvolume, subvolumes};

/// The folder with samples; says so when there is none.
fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    if !root.exists() {
        println!("skipped: no corpus at {}", root.display());
        return None;
    }
    Some(root)
}

/// Unpacks a sample into a sparse file; `None` where a tool is missing.
fn unpack(packed: &Path, to: &Path) -> Option<()> {
    let name = packed.to_str()?;
    let inner = to.with_extension("dump");
    let is_dump = name.ends_with(".img") || name.ends_with(".img.xz");
    let (program, arguments) = match packed.extension()?.to_str()? {
        "xz" => ("xz", "-dc"),
        "gz" => ("gzip", "-dc"),
        _ => ("cat", "-u"),
    };
    let first = if is_dump { &inner } else { to };
    // `cp --sparse` keeps zeros off the disk.
    let script = format!("{program} {arguments} \"$1\" | cp --sparse=always /dev/stdin \"$2\"");
    let status = Command::new("sh").args(["-c", &script, "sh"]).arg(packed).arg(first).status().ok()?;
    if is_dump {
        let status = Command::new("btrfs-image")
            .arg("-r")
            .args([first, to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        return status.success().then_some(());
    }
    status.success().then_some(())
}

fn device(path: &Path) -> Device {
    Arc::new(FileDevice::open(path).unwrap())
}

fn samples(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            samples(&path, found);
        } else if path.extension().is_some_and(|end| end == "xz" || end == "img") {
            found.push(path);
        }
    }
    found.sort();
}

#[test]
fn broken_images_of_btrfs_progs() {
    let Some(root) = corpus() else { return };
    if !has_tool("xz") || !has_tool("btrfs-image") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut found = Vec::new();
    samples(&root.join("btrfs-progs"), &mut found);
    let (mut opened, mut refused) = (0, 0);
    for sample in &found {
        let name = sample.strip_prefix(&root).unwrap().display().to_string();
        if name.contains("convert-tests") || name.contains(".tar") || unpack(sample, &image).is_none() {
            continue;
        }
        match open_set(vec![device(&image)]) {
            Ok(found) => {
                opened += 1;
                let walked = walk(&*found.value, 3000);
                let subvolumes = subvolumes(vec![device(&image)]).map_or(0, |found| found.value.len());
                let first = found.problems.first().map(ToString::to_string);
                let first = first.or_else(|| walked.errors.first().cloned()).unwrap_or_default();
                println!(
                    "{name}: {} files, {} subvolumes, {} + {} problems: {first}",
                    walked.files,
                    subvolumes,
                    found.problems.len(),
                    walked.errors.len()
                );
            }
            Err(error) => {
                refused += 1;
                println!("{name}: {error}");
            }
        }
        std::fs::remove_file(&image).unwrap();
    }
    assert!(opened + refused > 20 && opened > 10, "{opened} opened, {refused} refused");
}

#[test]
fn compressed_zeros_of_btrfs_progs() {
    let Some(root) = corpus() else { return };
    let sample = root.join("btrfs-progs/misc-tests/025-zstd-compression/compress.raw.xz");
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    if !has_tool("xz") || unpack(&sample, &image).is_none() {
        return;
    }
    let fs = open_set(vec![device(&image)]).unwrap().value;
    let found = names(&*fs, "/");
    assert_eq!(found.len(), 3, "{found:?}");
    for name in found {
        assert_eq!(content(&*fs, &format!("/{name}")), vec![0; 200 << 10], "{name}");
    }
}

#[test]
fn sets_of_dissect() {
    let Some(root) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, count) in
        [("dup", 2), ("raid0", 2), ("raid1", 2), ("raid1c3", 3), ("raid1c4", 4), ("raid5", 2), ("raid6", 3)]
    {
        let mut devices = Vec::new();
        for number in 1..=count {
            let image = folder.path().join(format!("{name}-{number}"));
            unpack(&root.join(format!("dissect/dissect.btrfs/btrfs-{name}-{number}.bin.gz")), &image)
                .unwrap();
            devices.push(device(&image));
        }
        let opened = open_set(devices).unwrap();
        assert!(opened.problems.is_empty(), "{name}: {:?}", opened.problems);
        let fs = &*opened.value;
        let large = content(fs, "/large.txt");
        assert!(large.len() == 5_242_881 && large.ends_with(b"a\n"), "{name}");
        assert!(large[..5_242_880].iter().all(|byte| *byte == b'a'), "{name}");
        let found = walk(fs, 1000);
        assert!(found.errors.is_empty() && found.files >= 7, "{name}: {found:?}");
        assert_eq!(names(fs, "/path/to/a"), ["file.txt"], "{name}");
    }
}

#[test]
fn subvolumes_of_dissect() {
    let Some(root) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["subvolume-custom-default", "subvolume-nested"] {
        let image = folder.path().join(name);
        unpack(&root.join(format!("dissect/dissect.btrfs/btrfs-{name}.bin.gz")), &image).unwrap();
        let list = subvolumes(vec![device(&image)]).unwrap();
        assert!(list.problems.is_empty(), "{name}: {:?}", list.problems);
        for found in &list.value {
            let path = found.path.as_deref().unwrap();
            println!("{name}: {} {}", found.id, path.escape_ascii());
            let at = |select: Select<'_>| open_subvolume(vec![device(&image)], select).unwrap();
            let (by_id, by_path) = (at(Select::Id(found.id)), at(Select::Path(path)));
            let (by_id, by_path) = (walk(&*by_id.value, 1000), walk(&*by_path.value, 1000));
            assert!(by_id.errors.is_empty() && by_id.files == by_path.files && by_id.bytes == by_path.bytes);
        }
        let default = list.value.iter().find(|found| found.is_default).unwrap();
        let expected: &[u8] = if name == "subvolume-nested" { b"default" } else { b"subvol" };
        assert_eq!(default.path.as_deref(), Some(expected));
    }
}
