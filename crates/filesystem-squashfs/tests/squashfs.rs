//! Images that mksquashfs wrote, whole and damaged.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem, Inode};
use filesystem_squashfs::FORMAT;

fn body(seed: usize, length: usize) -> Vec<u8> {
    // Half of each KiB repeats, half does not.
    let mut state = seed as u32 | 1;
    (0..length)
        .map(|index| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            if index / 512 % 2 == 0 { (index / 100) as u8 } else { state as u8 }
        })
        .collect()
}

/// A tree on the host: paths with their contents.
fn tree() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    files.insert("etc/fstab".to_owned(), body(1, 126));
    files.insert("empty".to_owned(), Vec::new());
    for length in [1, 4095, 4096, 4097, 8192, 50_000] {
        files.insert(format!("sizes/{length}"), body(length, length));
    }
    files.insert("sizes/zeros".to_owned(), vec![0; 20_000]);
    files.insert("deep/er/and/deep/er/still/file".to_owned(), body(9, 700));
    for number in 0..700 {
        files.insert(format!("many/file number {number}"), body(number, number % 40));
    }
    files
}

/// A file system with that tree and a symlink of 300 bytes; `None` where mksquashfs is missing.
fn image(folder: &Path, options: &[&str]) -> Option<Vec<u8>> {
    let (source, path) = (folder.join("source"), folder.join("image"));
    for (name, content) in tree() {
        let file = source.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    let link = source.join("link");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("t".repeat(300), link).unwrap();
    let base = ["-noappend", "-quiet", "-no-progress", "-all-root", "-mkfs-time", "0", "-processors", "1"];
    match Command::new("mksquashfs").arg(&source).arg(&path).args(base).args(options).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(std::fs::read(&path).unwrap())
        }
        Err(_) => {
            println!("skipped: mksquashfs is not installed");
            None
        }
    }
}

fn walk(fs: &dyn FileSystem, dir: Inode, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs.read_dir(dir).unwrap() {
        let name = format!("{path}{}", String::from_utf8(entry.name).unwrap());
        let metadata = fs.metadata(entry.inode).unwrap();
        match metadata.kind {
            FileKind::Directory => walk(fs, entry.inode, &format!("{name}/"), found),
            FileKind::Symlink => {
                assert_eq!(fs.read_link(entry.inode).unwrap(), "t".repeat(300).as_bytes());
            }
            _ => {
                let mut content = vec![0; metadata.size as usize];
                assert_eq!(fs.read_at(entry.inode, &mut content, 0).unwrap(), content.len());
                // Piece by piece it is the same.
                for at in (0..content.len()).step_by(3001).take(9) {
                    let mut piece = [0; 1500];
                    let count = fs.read_at(entry.inode, &mut piece, at as u64).unwrap();
                    assert_eq!(count, 1500.min(content.len() - at));
                    assert_eq!(piece[..count], content[at..at + count]);
                }
                found.insert(name, content);
            }
        }
    }
}

const KINDS: [&[&str]; 6] = [
    &["-comp", "gzip", "-b", "4096"],
    &["-comp", "xz", "-b", "8192"],
    &["-comp", "lz4", "-b", "8192", "-no-fragments"],
    &["-comp", "zstd", "-b", "131072", "-always-use-fragments"],
    &["-comp", "gzip", "-b", "4096", "-noI", "-noD", "-noF"],
    &["-comp", "xz", "-Xbcj", "x86", "-b", "1M"],
];

#[test]
fn trees_that_mksquashfs_wrote() {
    for options in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let Some(content) = image(folder.path(), options) else { return };
        let used = u64::from_le_bytes(content[40..48].try_into().unwrap());
        let device: Device = Arc::new(MemoryDevice::new(content));
        let identity = (FORMAT.probe)(device.as_ref()).unwrap().unwrap();
        assert_eq!((identity.kind, identity.uuid, identity.label), ("squashfs", None, None));
        assert_eq!(identity.size, used);
        let opened = (FORMAT.open)(device).unwrap();
        assert!(opened.problems.is_empty(), "{options:?}: {:?}", opened.problems);
        let fs = opened.value;
        assert!(fs.info().features.contains(&options[1].to_owned()));
        let mut found = BTreeMap::new();
        walk(fs.as_ref(), fs.root(), "", &mut found);
        assert!(found == tree(), "{options:?}");
        let root = fs.metadata(fs.root()).unwrap();
        assert_eq!((root.kind, root.uid, root.gid, root.links), (FileKind::Directory, 0, 0, 6));
        assert!(fs.xattrs(fs.root()).unwrap().is_empty());
        let inode = resolve(fs.as_ref(), b"/etc/fstab").unwrap();
        assert!(fs.read_dir(inode).is_err() && fs.read_link(inode).is_err());
        assert!(fs.read_at(fs.root(), &mut [0; 9], 0).is_err());
        assert!(fs.metadata(Inode(0)).is_err() && fs.metadata(Inode(u64::MAX)).is_err());
    }
}

#[test]
fn damage_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(good) = image(folder.path(), &["-comp", "gzip", "-b", "4096", "-noI"]) else { return };
    let open = |content: Vec<u8>| (FORMAT.open)(Arc::new(MemoryDevice::new(content)));
    let file = |fs: &dyn FileSystem| resolve(fs, b"/sizes/50000").unwrap();
    let read = |fs: &dyn FileSystem, at| fs.read_at(file(fs), &mut [0; 100], at);
    // The first block on disk holds one file or the ends of some; all others read on.
    let mut content = good.clone();
    content[100..110].fill(0xa5);
    let fs = open(content).unwrap().value;
    let (mut bad, mut fine) = (0, 0);
    for (name, body) in tree() {
        let inode = resolve(fs.as_ref(), format!("/{name}").as_bytes()).unwrap();
        match fs.read_at(inode, &mut vec![0; body.len()], 0) {
            Ok(_) => fine += 1,
            Err(error) => {
                bad += 1;
                assert!(error.to_string().contains(" block at byte 96: content is"), "{error}");
            }
        }
    }
    assert!(bad > 0 && fine > bad, "{bad} bad, {fine} fine");
    // A device that ends early says so, and shows what is left of it.
    let opened = open(good[..good.len() / 2].to_vec()).unwrap();
    assert!(opened.problems[0].to_string().contains("bytes_used"), "{:?}", opened.problems);
    // Lengths that no block has.
    let inodes = u64::from_le_bytes(good[64..72].try_into().unwrap()) as usize;
    let mut content = good.clone();
    content[inodes..inodes + 2].copy_from_slice(&0x7fff_u16.to_le_bytes());
    let said: Vec<String> = open(content).unwrap().problems.iter().map(ToString::to_string).collect();
    assert!(said.is_empty() || said[0].contains("metadata block"), "{said:?}");
    assert!(read(open(good.clone()).unwrap().value.as_ref(), 49_990).is_ok());
    let mut content = good;
    content[20] = 3;
    assert_eq!(
        open(content).map(drop).unwrap_err().to_string(),
        "squashfs superblock: compression lzo is not supported"
    );
}

/// What one image still shows; never more than `left` files.
fn look(fs: &dyn FileSystem, dir: Inode, depth: usize, left: &mut usize, read: &mut u64) {
    for entry in fs.read_dir(dir).unwrap_or_default() {
        if *left == 0 || depth > 8 {
            return;
        }
        *left -= 1;
        let _ = fs.xattrs(entry.inode);
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
    // Uncompressed tables, so that what is behind the codecs is reached; then the codecs.
    let kinds: [(&[&str], usize); 4] = [
        (&["-comp", "gzip", "-b", "4096", "-noI"], 12_000),
        (&["-comp", "xz", "-b", "8192"], 2_000),
        (&["-comp", "lz4", "-b", "8192"], 3_000),
        (&["-comp", "zstd", "-b", "8192"], 3_000),
    ];
    for (options, count) in kinds {
        let Some(good) = image(folder.path(), options) else { return };
        let tables = u64::from_le_bytes(good[64..72].try_into().unwrap()) as usize;
        for _ in 0..count {
            let mut content = good.clone();
            for _ in 0..1 + random(4) {
                let at = match random(4) {
                    0 => random(96),
                    1 => random(content.len() - 8),
                    _ => tables + random(content.len() - 8 - tables),
                };
                match random(6) {
                    0 => content[at] ^= 1 << random(8),
                    1 => content[at..at + 4].fill(0xff),
                    2 => content[at..at + 4].fill(0),
                    3 => content[at] = content[at].wrapping_add(1),
                    4 => content[at..at + 8].fill(0xff),
                    _ => content[at] = random(256) as u8,
                }
            }
            let Ok(opened) = (FORMAT.open)(Arc::new(MemoryDevice::new(content))) else { continue };
            opened_count += 1;
            look(opened.value.as_ref(), opened.value.root(), 0, &mut 12, &mut read);
        }
    }
    assert!(opened_count > 12_000 && read > 25_000_000, "{opened_count} opened, {read} bytes");
}
