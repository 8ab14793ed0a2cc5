//! squashfs and ISO 9660: whatever the bytes, opening, listing and reading end without a panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::{FileKind, FileSystem, Format, Inode};
use libfuzzer_sys::fuzz_target;

/// Files that are looked at.
const MAX_FILES: usize = 60;

/// Descriptors begin here; what comes before is not stored in the input.
const SYSTEM_AREA: usize = 32_768;

fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"hsqs") {
        check(&filesystem_squashfs::FORMAT, input.to_vec());
    } else {
        check(&filesystem_iso9660::FORMAT, [&[0; SYSTEM_AREA], input].concat());
    }
});

fn check(format: &Format, bytes: Vec<u8>) {
    let device: Device = Arc::new(MemoryDevice::new(bytes));
    let _ = (format.probe)(device.as_ref());
    if let Ok(opened) = (format.open)(device) {
        look(opened.value.as_ref(), opened.value.root(), &mut MAX_FILES.clone());
    }
}

fn look(fs: &dyn FileSystem, dir: Inode, left: &mut usize) {
    for entry in fs.read_dir(dir).unwrap_or_default() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let _ = fs.xattrs(entry.inode);
        let _ = fs.read_link(entry.inode);
        let Ok(metadata) = fs.metadata(entry.inode) else { continue };
        if metadata.kind == FileKind::Directory {
            look(fs, entry.inode, left);
        } else {
            let _ = fs.read_at(entry.inode, &mut [0; 700], metadata.size / 2);
        }
    }
}
