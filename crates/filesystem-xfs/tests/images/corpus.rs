//! Images that other projects test with: all of each is read, before and after recovery.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::FileKind;
use filesystem_xfs::FORMAT;

/// The folder of samples, which the project does not carry.
fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let folder = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no samples in {}", folder.display());
    None
}

/// The images of `folder` with their names.
fn images(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let packed = std::fs::read(&path).unwrap();
        let mut image = Vec::new();
        let is_read = if name.ends_with(".zst") {
            ruzstd::decoding::StreamingDecoder::new(&packed[..])
                .is_ok_and(|mut d| d.read_to_end(&mut image).is_ok())
        } else if name.ends_with(".gz") {
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut image).is_ok()
        } else if name.starts_with("syz_mount_image_xfs") {
            flate2::read::ZlibDecoder::new(&base64(&packed)[..]).read_to_end(&mut image).is_ok()
        } else {
            continue;
        };
        assert!(is_read, "{name}: unpacking");
        found.push((name, image));
    }
    found
}

/// The last string of a syzkaller program: base64 between `"$` and `"`.
fn base64(program: &[u8]) -> Vec<u8> {
    let start = program.windows(2).position(|two| two == b"\"$").unwrap() + 2;
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in program[start..].iter().take_while(|byte| **byte != b'"') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// Reads everything; how many files there are and what went wrong.
fn read_all(device: Device) -> (usize, Vec<String>) {
    let opened = match (FORMAT.open)(device) {
        Ok(opened) => opened,
        Err(error) => return (0, vec![error.to_string()]),
    };
    let fs = &*opened.value;
    let mut problems: Vec<String> = opened.problems.iter().map(ToString::to_string).collect();
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    while let Some(inode) = todo.pop() {
        if !seen.insert(inode) {
            continue;
        }
        let mut note = |error: filesystem::Error| problems.push(format!("{inode}: {error}"));
        let mut buf = vec![0; 100_000];
        fs.xattrs(inode).map_or_else(&mut note, drop);
        match fs.metadata(inode).map(|metadata| (metadata.kind, metadata.size)) {
            Ok((FileKind::Directory, _)) => match fs.read_dir(inode) {
                Ok(entries) => todo.extend(entries.into_iter().map(|entry| entry.inode)),
                Err(error) => note(error),
            },
            Ok((FileKind::Regular, size)) => {
                for offset in [0, size / 2, size.saturating_sub(100_000)] {
                    fs.read_at(inode, &mut buf, offset).map_or_else(&mut note, drop);
                }
            }
            Ok((FileKind::Symlink, _)) => fs.read_link(inode).map_or_else(&mut note, drop),
            Ok(_) => {}
            Err(error) => note(error),
        }
    }
    (seen.len(), problems)
}

/// Reads the images of `folder`; `allowed` are the problems that an image may have.
fn check(folder: &str, least: usize, allowed: &[(&str, &str)]) {
    let Some(corpus) = corpus() else { return };
    let images = images(&corpus.join(folder));
    assert!(images.len() >= least, "{folder}: {} images", images.len());
    for (name, image) in images {
        let device = Arc::new(MemoryDevice::new(image));
        let (files, problems) = read_all(device.clone());
        let replayed =
            (FORMAT.replay)(device).map(|replayed| (replayed.transactions, read_all(replayed.device)));
        println!("{name}: {files} files, {problems:?}; after recovery {replayed:?}");
        let is_allowed = |problem: &String| {
            allowed.iter().any(|(image, part)| name.contains(image) && problem.contains(part))
        };
        assert!(problems.iter().all(is_allowed), "{name}: {problems:?}");
        assert!(files > 0 || !problems.is_empty(), "{name}");
        match replayed {
            Ok((_, (_, problems))) => assert!(problems.iter().all(is_allowed), "{name}: {problems:?}"),
            Err(error) => assert!(is_allowed(&error.to_string()), "{name}: {error}"),
        }
    }
}

#[test]
fn images_of_xfuse() {
    check("xfuse", 4, &[]);
}

#[test]
fn images_of_dissect() {
    check("dissect/dissect.xfs", 2, &[]);
}

#[test]
fn images_of_syzkaller() {
    check("syzkaller", 24, &[]);
}
