//! Images that xorriso and genisoimage wrote, whole and damaged.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem, Inode};
use filesystem_iso9660::FORMAT;

/// A tree on the host: paths with their contents.
fn tree() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let body = |seed: usize, length: usize| (0..length).map(|index| (index / 3 + seed * 7) as u8).collect();
    files.insert("etc/fstab".to_owned(), body(1, 126));
    files.insert("empty".to_owned(), Vec::new());
    files.insert("Ein Name mit Ümlauten.txt".to_owned(), body(2, 5000));
    files.insert("MixedCase.Txt".to_owned(), body(3, 2048));
    files.insert("n".repeat(100), body(4, 2049));
    files.insert("d/e/e/p/e/r/t/h/a/n/eight/file".to_owned(), body(5, 10));
    for number in 0..150 {
        files.insert(format!("many/file number {number}"), body(number, number * 5));
    }
    files
}

/// A file system with that tree; `None` where the maker is missing.
fn image(folder: &Path, command: &[&str]) -> Option<Vec<u8>> {
    let (source, path) = (folder.join("source"), folder.join("image"));
    for (name, content) in tree() {
        let file = source.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    let link = source.join("link");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("../a/./../etc//fstab", link).unwrap();
    let mut maker = Command::new(command[0]);
    maker.args(&command[1..]).args(["-quiet", "-V", "A label", "-o"]).arg(&path).arg(&source);
    match maker.env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(std::fs::read(&path).unwrap())
        }
        Err(_) => {
            println!("skipped: {} is not installed", command[0]);
            None
        }
    }
}

fn walk(fs: &dyn FileSystem, dir: Inode, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs.read_dir(dir).unwrap() {
        let name = format!("{path}{}", String::from_utf8(entry.name).unwrap());
        let metadata = fs.metadata(entry.inode).unwrap();
        assert_eq!(metadata.kind, entry.kind, "{name}");
        match metadata.kind {
            FileKind::Directory => walk(fs, entry.inode, &format!("{name}/"), found),
            FileKind::Symlink => {
                let target = fs.read_link(entry.inode).unwrap();
                assert_eq!(metadata.size, target.len() as u64);
                found.insert(format!("{name} -> {}", target.escape_ascii()), Vec::new());
            }
            _ => {
                let mut content = vec![0; metadata.size as usize];
                assert_eq!(fs.read_at(entry.inode, &mut content, 0).unwrap(), content.len());
                found.insert(name, content);
            }
        }
    }
}

const ROCK_RIDGE: [&[&str]; 3] = [
    &["xorriso", "-as", "mkisofs", "-R"],
    &["xorriso", "-as", "mkisofs", "-R", "-J", "-joliet-long"],
    &["genisoimage", "-R"],
];

#[test]
fn trees_with_rock_ridge() {
    for command in ROCK_RIDGE {
        let folder = tempfile::tempdir().unwrap();
        let Some(content) = image(folder.path(), command) else { continue };
        let device: Device = Arc::new(MemoryDevice::new(content));
        let identity = (FORMAT.probe)(device.as_ref()).unwrap().unwrap();
        assert_eq!((identity.kind, identity.label.as_deref()), ("iso9660", Some(b"A label".as_slice())));
        assert_eq!(identity.uuid.unwrap().len(), "2026-11-26-20-00-00-12".len());
        let opened = (FORMAT.open)(device).unwrap();
        assert!(opened.problems.is_empty(), "{command:?}: {:?}", opened.problems);
        let fs = opened.value;
        assert_eq!(fs.info().features, ["Rock Ridge"]);
        let mut found = BTreeMap::new();
        walk(fs.as_ref(), fs.root(), "", &mut found);
        let link: Vec<String> = found.keys().filter(|name| name.starts_with("link ->")).cloned().collect();
        assert_eq!(link, ["link -> ../a/./../etc//fstab"]);
        found.remove(&link[0]);
        let missing: Vec<_> = tree().keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        assert!(found == tree(), "{command:?}: not there: {missing:?}");
        let inode = resolve(fs.as_ref(), b"/MixedCase.Txt").unwrap();
        let mut part = [0; 700];
        assert_eq!(fs.read_at(inode, &mut part, 2000).unwrap(), 48);
        assert!(fs.read_dir(inode).is_err() && fs.read_link(inode).is_err());
        assert!(fs.read_at(fs.root(), &mut part, 0).is_err());
        assert!(fs.metadata(Inode(0)).is_err() && fs.metadata(Inode(u64::MAX)).is_err());
    }
}

#[test]
fn trees_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["genisoimage", "-J", "-joliet-long", "-input-charset", "utf-8"];
    let Some(content) = image(folder.path(), &options) else { return };
    let open = |content: &[u8]| (FORMAT.open)(Arc::new(MemoryDevice::new(content.to_vec()))).unwrap().value;
    let fs = open(&content);
    assert_eq!(fs.info().features, ["Joliet"]);
    let mut found = BTreeMap::new();
    walk(fs.as_ref(), fs.root(), "", &mut found);
    let expected: BTreeMap<_, _> = tree().into_iter().filter(|(name, _)| !name.contains("eight")).collect();
    found.retain(|name, _| !name.contains("eight"));
    assert!(found == expected, "{:?}", found.keys().take(9).collect::<Vec<_>>());
    let Some(content) = image(folder.path(), &["genisoimage"]) else { return };
    let fs = open(&content);
    assert_eq!(fs.info().features, ["plain names"]);
    let inode = resolve(fs.as_ref(), b"/etc/fstab").unwrap();
    assert_eq!(fs.metadata(inode).unwrap().size, 126);
    assert_eq!(fs.metadata(inode).unwrap().permissions, 0o555);
    assert!(resolve(fs.as_ref(), b"/mixedcas.txt").is_ok());
}

#[test]
fn damage_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(good) = image(folder.path(), ROCK_RIDGE[0]) else { return };
    let open = |content: Vec<u8>| (FORMAT.open)(Arc::new(MemoryDevice::new(content)));
    let fs = open(good.clone()).unwrap().value;
    let many = resolve(fs.as_ref(), b"/many").unwrap();
    // A directory whose records are overwritten.
    let mut content = good.clone();
    content[many.0 as usize..][..60].fill(0x21);
    let fs = open(content).unwrap().value;
    let error = fs.read_dir(many).unwrap_err().to_string();
    assert!(error.contains("ISO 9660 directory"), "{error}");
    assert!(resolve(fs.as_ref(), b"/etc/fstab").is_ok());
    // A directory of 4 GiB.
    let mut content = good.clone();
    content[many.0 as usize + 10..][..4].fill(0xff);
    let error = open(content).unwrap().value.read_dir(many).unwrap_err().to_string();
    assert!(error.contains("data length is 4294967295, expected 64 MiB or less"), "{error}");
    // A device that ends early, one without descriptors, odd blocks.
    let opened = open(good[..good.len() / 2].to_vec()).unwrap();
    assert!(opened.problems[0].to_string().contains("volume space size"));
    let mut content = good.clone();
    content[32_769] = 0;
    assert!(open(content).is_err());
    let mut content = good;
    content[32_768 + 128] = 7;
    let error = open(content).map(drop).unwrap_err().to_string();
    assert!(error.contains("logical block size is 2055"), "{error}");
}

/// What one image still shows; never more than `left` files.
fn look(fs: &dyn FileSystem, dir: Inode, depth: usize, left: &mut usize, read: &mut u64) {
    for entry in fs.read_dir(dir).unwrap_or_default() {
        if *left == 0 || depth > 12 {
            return;
        }
        *left -= 1;
        let Ok(metadata) = fs.metadata(entry.inode) else { continue };
        match metadata.kind {
            FileKind::Directory => look(fs, entry.inode, depth + 1, left, read),
            FileKind::Symlink => drop(fs.read_link(entry.inode)),
            _ => {
                let mut piece = [0; 3000];
                for at in [0, metadata.size / 2, metadata.size.saturating_sub(7)] {
                    if let Ok(count) = fs.read_at(entry.inode, &mut piece, at) {
                        *read += count as u64;
                    }
                }
            }
        }
    }
}

#[test]
fn twenty_thousand_mutations() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut opened_count, mut read) = (0, 0);
    for (command, count) in ROCK_RIDGE.iter().zip([9000, 6000, 5000]) {
        let Some(good) = image(folder.path(), command) else { return };
        // Descriptors and directories come first; what is behind them is content.
        let end = good.len().min(120_000);
        for _ in 0..count {
            let mut content = good[..good.len().min(300_000)].to_vec();
            for _ in 0..1 + random(6) {
                let at = match random(3) {
                    0 => 32_768 + random(200),
                    _ => 32_768 + random(end - 32_768 - 8),
                };
                match random(6) {
                    0 => content[at] ^= 1 << random(8),
                    1 => content[at..at + 4].fill(0xff),
                    2 => content[at..at + 4].fill(0),
                    3 => content[at] = content[at].wrapping_add(1),
                    // Another record's place, so that directories turn up where they should not.
                    4 => content.copy_within(at ^ 2048..(at ^ 2048) + 8, at),
                    _ => content[at] = random(256) as u8,
                }
            }
            let Ok(opened) = (FORMAT.open)(Arc::new(MemoryDevice::new(content))) else { continue };
            opened_count += 1;
            look(opened.value.as_ref(), opened.value.root(), 0, &mut 30, &mut read);
        }
    }
    assert!(opened_count > 10_000 && read > 1_000_000, "{opened_count} opened, {read} bytes");
}
