//! e2fsck's own damaged images: whatever is wrong with them, all that can be reached is read, and ends.
//! `scripts/oracles/ext4-corpus.py` compares what is named with what e2fsck names.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "whatever fails, fails the test, which prints why"
)]

#[cfg(test)]
mod support;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::{FileKind, FileSystem};
use filesystem_ext4::{FORMAT, backup};

/// No image unpacks to more.
const MAX_SIZE: u64 = 256 << 20;

/// Inodes that are looked at, of each image.
const MAX_INODES: usize = 5000;

fn images() -> Option<Vec<(String, PathBuf)>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from).join("e2fsprogs");
    let Ok(cases) = std::fs::read_dir(&root) else {
        println!("skipped: no corpus at {}", root.display());
        return None;
    };
    let mut images: Vec<(String, PathBuf)> = cases
        .map(|case| case.unwrap())
        .map(|case| (case.file_name().into_string().unwrap(), case.path().join("image.gz")))
        .filter(|(_, path)| path.exists())
        .collect();
    images.sort();
    Some(images)
}

fn unpack(path: &Path) -> Device {
    let mut bytes = Vec::new();
    let packed = flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap());
    packed.take(MAX_SIZE).read_to_end(&mut bytes).unwrap();
    Arc::new(MemoryDevice::new(bytes))
}

/// What was wrong, each as a line.
fn survey(device: &Device) -> Vec<String> {
    let mut found = Vec::new();
    match (FORMAT.replay)(device.clone()) {
        Ok(replayed) if replayed.transactions > 0 => {
            found.extend((FORMAT.open)(replayed.device).err().map(|error| error.to_string()));
        }
        Ok(_) => {}
        Err(error) => found.push(format!("replay: {error}")),
    }
    match (FORMAT.open)(device.clone()) {
        Ok(opened) => {
            found.extend(opened.problems.iter().map(ToString::to_string));
            walk(&*opened.value, &mut found);
        }
        Err(error) => found.push(format!("open: {error}")),
    }
    found
}

fn walk(fs: &dyn FileSystem, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 100_000];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < MAX_INODES) {
        if !seen.insert(inode) {
            continue;
        }
        let mut say = |error: Option<filesystem::Error>| {
            found.extend(error.map(|error| format!("{}: {error}", inode.0)));
        };
        say(fs.xattrs(inode).err());
        let Ok(metadata) = fs.metadata(inode) else { continue };
        match metadata.kind {
            FileKind::Directory => match fs.read_dir(inode) {
                Ok(entries) => todo.extend(entries.iter().map(|entry| entry.inode)),
                Err(error) => say(Some(error)),
            },
            FileKind::Regular => {
                for offset in [0, metadata.size / 2, metadata.size.saturating_sub(50_000)] {
                    say(fs.read_at(inode, &mut buf, offset).err());
                }
            }
            FileKind::Symlink => say(fs.read_link(inode).err()),
            _ => {}
        }
    }
}

#[test]
fn every_image_is_walked() {
    let Some(images) = images() else { return };
    let mut damaged = 0;
    for (name, path) in &images {
        let found = survey(&unpack(path));
        println!("{name}: {found:?}");
        damaged += usize::from(!found.is_empty());
    }
    assert!(images.len() >= 120 && damaged >= 40, "{} images, {damaged} damaged", images.len());
}

/// What the first line says of some of them: structure by structure, the ones that e2fsck names too.
#[test]
fn the_damaged_structure_is_named() {
    let Some(images) = images() else { return };
    let expected = [
        ("f_zero_super", "good copies lie at byte"),
        ("f_illbbitmap", "group descriptor at byte"),
        ("f_extent_leaf_bad_csum", "extent tree node at byte"),
        ("f_extent_int_bad_csum", "extent tree node at byte"),
        ("f_htree_leaf_csum", "directory block at byte"),
        ("f_dir_bad_csum", "directory block at byte"),
        ("f_holedir", "mapped blocks is none"),
        ("f_badroot", "i_mode"),
        ("f_badinode", "i_mode"),
        ("f_badjourblks", "in the journal"),
        ("f_badjour_indblks", "journal at byte"),
        ("f_ea_value_crash", "e_value_offs"),
        ("f_overfsblks", "another place than bg_block_bitmap"),
        ("f_badsymlinks", "where the target ends"),
        ("f_itable_collision", "attribute block at byte"),
        ("j_corrupt_revoke_rcount", "r_count"),
    ];
    for (name, text) in expected {
        let (_, path) = images.iter().find(|(found, _)| found == name).unwrap();
        let found = survey(&unpack(path));
        assert!(found.iter().any(|line| line.contains(text)), "{name}: {found:?}");
    }
}

/// Where the primary superblock is gone, a copy opens the same files.
#[test]
fn a_zeroed_superblock_is_restored() {
    let Some(images) = images() else { return };
    let (_, path) = images.iter().find(|(found, _)| found == "f_zero_super").unwrap();
    let device = unpack(path);
    assert_eq!((FORMAT.probe)(&*device).unwrap(), None);
    assert!((FORMAT.open)(device.clone()).is_err());
    let restored = backup::restored(device).unwrap();
    assert_eq!(restored.problems.len(), 1);
    let opened = (FORMAT.open)(restored.value).unwrap();
    assert!(opened.value.lookup(opened.value.root(), b"lost+found").unwrap().is_some());
}
