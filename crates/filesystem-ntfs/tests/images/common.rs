//! Images for tests: made by ntfs-3g long ago, or by mkntfs when the test runs.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::{FileSystem, Inode, path};
use filesystem_ntfs::Ntfs;

/// Whether a program is there; says so when it is not.
pub(crate) fn has_tool(name: &str) -> bool {
    let found =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// The bytes of `test-images/filesystem/{name}.img.zst`.
pub(crate) fn image(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem");
    let packed = std::fs::read(folder.join(format!("{name}.img.zst"))).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    content
}

pub(crate) fn device(bytes: Vec<u8>) -> Device {
    Arc::new(MemoryDevice::new(bytes))
}

/// Opens a healthy volume.
#[track_caller]
pub(crate) fn open(bytes: Vec<u8>) -> Ntfs {
    let opened = Ntfs::open(device(bytes)).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.value
}

#[track_caller]
pub(crate) fn inode(fs: &dyn FileSystem, path: &str) -> Inode {
    path::resolve_no_follow(fs, path.as_bytes()).unwrap()
}

#[track_caller]
pub(crate) fn content(fs: &dyn FileSystem, path: &str) -> Vec<u8> {
    filesystem::read_to_end(fs, inode(fs, path), 64 << 20).unwrap()
}

/// The names in a directory, sorted.
pub(crate) fn names(fs: &dyn FileSystem, path: &str) -> Vec<String> {
    let entries = fs.read_dir(inode(fs, path)).unwrap();
    let mut names: Vec<String> =
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    names.sort();
    names
}

/// Bytes in which every four hold their number.
pub(crate) fn numbers(length: usize, start: u32) -> Vec<u8> {
    (0..length.div_ceil(4) as u32).flat_map(|n| (start + n).to_le_bytes()).take(length).collect()
}

/// First byte of the first MFT record of the file with this name, of a volume with records of `length` bytes.
#[track_caller]
pub(crate) fn record_of(image: &[u8], length: usize, name: &str) -> usize {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let is_it = |record: &[u8]| {
        // In use, and with a $FILE_NAME of this name.
        record.starts_with(b"FILE") && record[22] & 1 != 0 && {
            attributes(record).into_iter().any(|(at, kind)| {
                let value = at + usize::from(record[at + 20]);
                kind == 0x30
                    && usize::from(record[value + 64]) * 2 == name.len()
                    && record[value + 66..].starts_with(&name)
            })
        }
    };
    let record = image.chunks_exact(length).find(|record| is_it(record)).unwrap();
    // A further record of a file says which the first is.
    let own = &record[44..48];
    let number = if record[32..36] == [0; 4] { own } else { &record[32..36] };
    let is_first =
        |record: &[u8]| record.starts_with(b"FILE") && record[22] & 1 != 0 && record[44..48] == *number;
    image.chunks_exact(length).position(is_first).unwrap() * length
}

/// Places and types of the attributes of a healthy record.
pub(crate) fn attributes(record: &[u8]) -> Vec<(usize, u32)> {
    let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
    let mut at = usize::from(record[20]);
    let mut found = Vec::new();
    while at + 8 <= record.len() && word(at) != u32::MAX && word(at + 4) >= 24 {
        found.push((at, word(at)));
        at += word(at + 4) as usize;
    }
    found
}

/// First byte of an attribute of the file with this name.
#[track_caller]
pub(crate) fn attribute_of(image: &[u8], length: usize, name: &str, kind: u32) -> usize {
    let record = record_of(image, length, name);
    let found = attributes(&image[record..record + length]).into_iter().find(|(_, found)| *found == kind);
    record + found.unwrap().0
}
