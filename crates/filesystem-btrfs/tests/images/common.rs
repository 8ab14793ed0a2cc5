//! Images for tests: made by a kernel long ago, or by `mkfs.btrfs` when the test runs.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Concat, Device, MemoryDevice, Overlay, Part};
use filesystem::{FileKind, FileSystem, Inode, path};

/// Whether a program is there; says so when it is not.
pub(crate) fn has_tool(name: &str) -> bool {
    let found =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// A packed image in memory.
pub(crate) fn unpack(name: &str) -> Arc<MemoryDevice> {
    let mut image = Vec::new();
    unpacked(name).read_to_end(&mut image).unwrap();
    Arc::new(MemoryDevice::new(image))
}

/// A packed image that holds `count` devices of the same size, one after the other; zeros take no memory.
pub(crate) fn unpack_set(name: &str, count: usize) -> Vec<Device> {
    const SIZE: u64 = 96 << 20;
    const PIECE: usize = 64 << 10;
    let mut stream = unpacked(name);
    let devices = (0..count)
        .map(|_| {
            let device = hole(SIZE);
            let mut piece = vec![0; PIECE];
            for offset in (0..SIZE).step_by(PIECE) {
                stream.read_exact(&mut piece).unwrap();
                if piece != [0; PIECE] {
                    device.write_all_at(&piece, offset).unwrap();
                }
            }
            device as Device
        })
        .collect();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{name}: more than {count} devices");
    devices
}

fn unpacked(name: &str) -> impl Read {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem");
    let packed = std::fs::read(folder.join(format!("{name}.img.zst"))).unwrap();
    ruzstd::decoding::StreamingDecoder::new(std::io::Cursor::new(packed)).unwrap()
}

/// A device of zeros that can be written.
pub(crate) fn hole(size: u64) -> Arc<Overlay> {
    let zeros = Concat::new([Part { device: None, offset: 0, length: size }]).unwrap();
    Arc::new(Overlay::new(Arc::new(zeros)))
}

/// The content of the files `textN`, as scripts/images/btrfs.sh writes it.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let lines =
        (0..).flat_map(|n| format!("line {n} of a text that fills files, and packs well\n").into_bytes());
    lines.take(length).collect()
}

/// Opens a healthy file system.
#[track_caller]
pub(crate) fn open(devices: Vec<Device>) -> Box<dyn FileSystem> {
    let opened = filesystem_btrfs::open_set(devices).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.value
}

#[track_caller]
pub(crate) fn inode(fs: &dyn FileSystem, path: &str) -> Inode {
    path::resolve_no_follow(fs, path.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn content(fs: &dyn FileSystem, path: &str) -> Vec<u8> {
    filesystem::read_to_end(fs, inode(fs, path), 64 << 20).unwrap()
}

/// Names of a directory, sorted.
#[track_caller]
pub(crate) fn names(fs: &dyn FileSystem, path: &str) -> Vec<String> {
    let entries = fs.read_dir(inode(fs, path)).unwrap();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.name.escape_ascii().to_string()).collect();
    names.sort();
    names
}

/// What a walk over everything met.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) errors: Vec<String>,
}

/// Uses every function of the reader on up to `limit` inodes, and reads pieces of every file.
pub(crate) fn walk(fs: &dyn FileSystem, limit: usize) -> Walk {
    let mut found = Walk::default();
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 20_000];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < limit) {
        if !seen.insert(inode) {
            continue;
        }
        found.files += 1;
        match fs.xattrs(inode) {
            Ok(xattrs) => {
                for (name, value) in xattrs {
                    if !matches!(fs.xattr(inode, &name), Ok(Some(found)) if found == value) {
                        found.errors.push(format!("{inode}: {} differs", name.escape_ascii()));
                    }
                }
            }
            Err(error) => found.errors.push(error.to_string()),
        }
        let metadata = match fs.metadata(inode) {
            Ok(metadata) => metadata,
            Err(error) => {
                found.errors.push(error.to_string());
                continue;
            }
        };
        let failed = match metadata.kind {
            FileKind::Directory => fs.read_dir(inode).map(|entries| {
                for entry in entries.iter().take(3) {
                    if !matches!(fs.lookup(inode, &entry.name), Ok(Some(found)) if found == entry.inode) {
                        found.errors.push(format!("{inode}: {} is not found", entry.name.escape_ascii()));
                    }
                }
                todo.extend(entries.iter().map(|entry| entry.inode));
            }),
            FileKind::Symlink => fs.read_link(inode).map(|_| ()),
            FileKind::Regular => {
                [0, metadata.size.saturating_sub(10_000)].into_iter().try_for_each(|offset| {
                    fs.read_at(inode, &mut buf, offset).map(|count| found.bytes += count as u64)
                })
            }
            _ => Ok(()),
        };
        found.errors.extend(failed.err().map(|error| error.to_string()));
    }
    found
}

/// Where the structures of an image are: superblocks, and tree blocks of `node` bytes that carry its UUID.
pub(crate) fn structures(device: &dyn BlockDevice, node: usize) -> Vec<(u64, usize)> {
    let mut superblock = vec![0; 4096];
    device.read_exact_at(&mut superblock, 64 << 10).unwrap();
    let fsid = superblock[0x20..0x30].to_vec();
    let mut found = vec![(64 << 10, 4096)];
    let mut head = [0; 0x65];
    for offset in (1 << 20..device.size() - node as u64).step_by(4096) {
        if offset != 64 << 20 {
            device.read_exact_at(&mut head, offset).unwrap();
            if head[0x20..0x30] == fsid && head[0x64] < 8 {
                found.push((offset, node));
            }
        }
    }
    found
}

/// Changes bytes of a structure and sets its CRC-32C right.
pub(crate) fn patch(
    device: &dyn BlockDeviceMut,
    (offset, length): (u64, usize),
    change: impl FnOnce(&mut [u8]),
) {
    let mut bytes = vec![0; length];
    device.read_exact_at(&mut bytes, offset).unwrap();
    change(&mut bytes);
    let sum = ondisk::crc32c(&bytes[32..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    device.write_all_at(&bytes, offset).unwrap();
}
