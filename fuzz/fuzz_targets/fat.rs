//! FAT: whatever the bytes, opening, listing and reading end without a panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::{FileKind, FileSystem, Inode};
use libfuzzer_sys::fuzz_target;

/// Files that are looked at.
const MAX_FILES: usize = 60;

fuzz_target!(|input: &[u8]| {
    let device: Device = Arc::new(MemoryDevice::new(input));
    let _ = (filesystem_fat::FORMAT.probe)(device.as_ref());
    if let Ok(opened) = (filesystem_fat::FORMAT.open)(device) {
        look(opened.value.as_ref(), opened.value.root(), &mut MAX_FILES.clone());
    }
});

fn look(fs: &dyn FileSystem, dir: Inode, left: &mut usize) {
    for entry in fs.read_dir(dir).unwrap_or_default() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let _ = fs.lookup(dir, &entry.name);
        let Ok(metadata) = fs.metadata(entry.inode) else { continue };
        if metadata.kind == FileKind::Directory {
            look(fs, entry.inode, left);
        } else {
            let _ = fs.read_at(entry.inode, &mut [0; 700], metadata.size / 2);
        }
    }
}
