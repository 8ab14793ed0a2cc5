//! Dirty logs: what recovery makes of images that a kernel left in the middle of its work.
//!
//! Each `xfs-log-*.img.toml` holds the tree that a kernel showed after its own recovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem, Inode, Timestamp};
use filesystem_xfs::FORMAT;
use sha2::{Digest, Sha256};

use crate::common::{assert_clean, content, has_tool, inode, unpack};

/// Images, and whether recovery leaves nothing to the kernel.
const IMAGES: [(&str, bool); 4] =
    [("xfs-log-v5", true), ("xfs-log-open", false), ("xfs-log-v4", true), ("xfs-log-1k", true)];

fn replay(device: Device) -> (Device, u64) {
    let replayed = (FORMAT.replay)(device).unwrap();
    (replayed.device, replayed.transactions)
}

/// The tree that the description of an image has.
fn expected(name: &str) -> BTreeMap<String, String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem");
    let toml = std::fs::read_to_string(folder.join(format!("{name}.img.toml"))).unwrap();
    let (_, after) = toml.split_once("tree = '''\n").unwrap();
    let (tree, _) = after.split_once("'''").unwrap();
    let lines = tree.lines().map(|line| line.split_once('\t').unwrap());
    lines.map(|(path, rest)| (path.to_owned(), rest.to_owned())).collect()
}

/// The tree as it is read, in the form of `scripts/oracles/tree.py`.
fn tree(fs: &dyn FileSystem) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(b".".to_vec(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        let line = line(fs, inode);
        if line.starts_with('d') {
            for entry in fs.read_dir(inode).unwrap() {
                todo.push(([&path[..], b"/", &entry.name].concat(), entry.inode));
            }
        }
        found.insert(path.escape_ascii().to_string(), line);
    }
    found
}

fn line(fs: &dyn FileSystem, inode: Inode) -> String {
    let meta = fs.metadata(inode).unwrap();
    let hash =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (mut content, mut target) = ("-".to_owned(), "-".to_owned());
    match meta.kind {
        FileKind::Regular => content = hash(&filesystem::read_to_end(fs, inode, 64 << 20).unwrap()),
        FileKind::Symlink => target = fs.read_link(inode).unwrap().escape_ascii().to_string(),
        _ => {}
    }
    let mut xattrs = fs.xattrs(inode).unwrap();
    xattrs.sort();
    let xattrs: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", name.escape_ascii(), &hash(value)[..16]))
        .collect();
    format!(
        "{}\t{:04o}\t{}\t{}\t{}\t{}\t{}.{:09}\t{}\t{}:{}\t{content}\t{target}\t{}",
        meta.kind.letter(),
        meta.permissions,
        meta.links,
        meta.uid,
        meta.gid,
        if meta.kind == FileKind::Directory { 0 } else { meta.size },
        meta.modified.seconds,
        meta.modified.nanoseconds,
        inode.0,
        meta.device.0,
        meta.device.1,
        xattrs.join(","),
    )
}

#[test]
fn recovered_trees_are_those_of_the_kernel() {
    for (name, is_done) in IMAGES {
        let image = unpack(&format!("{name}.img.zst"));
        let before = image.to_vec();
        let bare = (FORMAT.open)(image.clone()).unwrap();
        assert!(bare.value.info().needs_recovery, "{name}");
        let (device, transactions) = replay(image.clone());
        assert!(transactions > 0, "{name}");
        assert_eq!(image.to_vec(), before, "{name}: the device below is left as it is");
        let opened = (FORMAT.open)(device.clone()).unwrap();
        assert!(!opened.value.info().needs_recovery, "{name}");
        let (found, expected) = (tree(&*opened.value), expected(name));
        for (path, line) in &expected {
            assert_eq!(found.get(path), Some(line), "{name}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        let problems: Vec<String> = opened.problems.iter().map(ToString::to_string).collect();
        if is_done {
            assert_eq!(problems, Vec::<String>::new(), "{name}");
            assert_clean(&*device);
        } else {
            assert!(problems.len() == 1 && problems[0].starts_with("log: freeing"), "{name}: {problems:?}");
        }
    }
}

#[test]
fn recovery_is_needed_once() {
    for (name, _) in IMAGES {
        let (device, _) = replay(unpack(&format!("{name}.img.zst")));
        let (again, transactions) = replay(device.clone());
        assert_eq!(transactions, 0, "{name}");
        assert!(Arc::ptr_eq(&device, &again), "{name}: the same device");
    }
}

#[test]
fn a_recovered_file_system_can_be_written() {
    for (name, is_done) in IMAGES {
        let image = unpack(&format!("{name}.img.zst"));
        let opened = (FORMAT.open)(Arc::new(Overlay::new(image.clone()))).unwrap();
        let path = "/etc/fstab";
        let file = inode(&*opened.value, path);
        let error = opened.value.writable().unwrap().replace(file, b"x", Timestamp::default()).unwrap_err();
        assert!(error.to_string().contains("before the log is replayed"), "{name}: {error}");
        let (device, _) = replay(image);
        let opened = (FORMAT.open)(device.clone()).unwrap();
        let file = inode(&*opened.value, path);
        let new = b"UUID=1 / xfs defaults 0 0\n".repeat(300);
        opened.value.writable().unwrap().replace(file, &new, Timestamp::default()).unwrap();
        // Both views: the device as it is, and after another recovery.
        for device in [device.clone(), replay(device.clone()).0] {
            let opened = (FORMAT.open)(device.clone()).unwrap();
            assert!(content(&*opened.value, path) == new, "{name}");
        }
        if is_done {
            assert_clean(&*device);
        }
    }
}

/// The log of an image: its first byte and length, from the superblock.
fn log_place(image: &[u8]) -> (usize, usize) {
    let word = |at: usize| u32::from_be_bytes(*image[at..].first_chunk().unwrap()) as usize;
    let start = u64::from_be_bytes(*image[0x30..].first_chunk().unwrap()) as usize;
    let (block, ag_blocks, ag_log) = (word(4), word(0x54), image[0x7c]);
    let linear = (start >> ag_log) * ag_blocks + (start & ((1 << ag_log) - 1));
    (linear * block, word(0x60) * block)
}

/// The blocks of record headers in a log, oldest first as far as they were written in this order.
fn headers(log: &[u8]) -> Vec<usize> {
    (0..log.len() / 512).filter(|block| log[block * 512..].starts_with(&[0xfe, 0xed, 0xba, 0xbe])).collect()
}

fn lsn(log: &[u8], block: usize) -> u64 {
    u64::from_be_bytes(*log[block * 512 + 16..].first_chunk().unwrap())
}

#[test]
fn a_torn_last_record_is_as_if_never_written() {
    for (name, _) in IMAGES {
        let image = unpack(&format!("{name}.img.zst")).to_vec();
        let (start, length) = log_place(&image);
        let log = &image[start..start + length];
        let last = headers(log).into_iter().max_by_key(|block| lsn(log, *block)).unwrap();
        let end = last + 2;
        let attempt = |change: &dyn Fn(&mut [u8])| {
            let mut image = image.clone();
            change(&mut image[start..start + length]);
            replay(Arc::new(MemoryDevice::new(image))).1
        };
        let whole = attempt(&|_| {});
        // A block of the last record that was not written still has the cycle of the pass before.
        let without = attempt(&|log| {
            let cycle = u32::from_be_bytes(*log[last * 512 + 4..].first_chunk().unwrap()) - 1;
            log[end * 512..end * 512 + 4].copy_from_slice(&cycle.to_be_bytes());
        });
        // A block with the right cycle but other content fails the checksum.
        let spoiled = attempt(&|log| log[(last + 1) * 512 + 100] ^= 1);
        assert!(without < whole, "{name}: {without} of {whole} transactions");
        assert_eq!(spoiled, without, "{name}");
    }
}

#[test]
fn a_log_that_cannot_be_read_forbids_writing() {
    let mut image = unpack("xfs-log-v5.img.zst").to_vec();
    let (start, length) = log_place(&image);
    for block in headers(&image[start..start + length]) {
        image[start + block * 512] = 0;
    }
    let device = Arc::new(MemoryDevice::new(image));
    let opened = (FORMAT.open)(device.clone()).unwrap();
    assert!(opened.value.info().needs_recovery);
    assert!(opened.problems.len() == 1, "{:?}", opened.problems);
    assert!((FORMAT.replay)(device).is_err());
    let file = inode(&*opened.value, "/etc/fstab");
    let error = opened.value.writable().unwrap().replace(file, b"x", Timestamp::default()).unwrap_err();
    assert!(error.to_string().contains("before the log is replayed"), "{error}");
}

#[test]
fn a_log_of_another_file_system_or_machine_is_refused() {
    let image = unpack("xfs-log-v4.img.zst").to_vec();
    let (start, length) = log_place(&image);
    let text = |at: usize, value: &[u8]| {
        let mut image = image.clone();
        for block in headers(&image[start..start + length]) {
            let at = start + block * 512 + at;
            image[at..at + value.len()].copy_from_slice(value);
            image[start + block * 512 + 32..][..4].fill(0);
        }
        (FORMAT.replay)(Arc::new(MemoryDevice::new(image))).unwrap_err().to_string()
    };
    assert!(text(0x130, &[7; 16]).contains("h_fs_uuid"), "{}", text(0x130, &[7; 16]));
    let other = text(0x12c, &[0, 0, 0, 2]);
    assert!(other.contains("byte order of another machine"), "{other}");
}

#[test]
fn what_the_kernel_makes_of_our_recovery_needs_no_repair() {
    // Our record at the end of the log is one that xfsprogs understands.
    if !has_tool("xfs_logprint") {
        return;
    }
    for (name, is_done) in IMAGES {
        let (device, _) = replay(unpack(&format!("{name}.img.zst")));
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![0; device.size() as usize];
        device.read_exact_at(&mut content, 0).unwrap();
        std::fs::write(file.path(), content).unwrap();
        let output = std::process::Command::new("xfs_logprint").arg("-t").arg(file.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.contains("<CLEAN>"), is_done, "{name}: {said}");
    }
}
