//! NTFS: changes to a good volume (`test-images/filesystem/ntfs-512.img.zst`, unpacked, in the variable NTFS_IMAGE).
//!
//! A change takes 4 bytes: sector of 512 bytes (16 bits; within the MFT when the top bit of the next is set), place
//! in the sector (9 bits), value. Whatever the bytes, opening, walking and reading must end without a panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use blockdev::{Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem};
use filesystem_ntfs::Ntfs;
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Arc<MemoryDevice>> = LazyLock::new(|| {
    let path = std::env::var_os("NTFS_IMAGE").expect("NTFS_IMAGE names an image");
    Arc::new(MemoryDevice::new(std::fs::read(path).expect("the image is readable")))
});

fuzz_target!(|input: &[u8]| {
    let overlay = Overlay::new(IMAGE.clone());
    for change in input.chunks_exact(4).take(64) {
        let (sector, place) = (u64::from(u16::from_le_bytes([change[0], change[1]])), change[2]);
        // The MFT of this image begins at 16 KiB.
        let sector = if change[2] & 0x80 != 0 { 32 + sector % 400 } else { sector % 12_000 };
        let at = sector * 512 + u64::from(place & 0x7f) * 4 + u64::from(change[3] & 3);
        if let Some(device) = blockdev::BlockDevice::writable(&overlay) {
            let _ = device.write_all_at(&[change[3]], at);
        }
    }
    let device: Device = Arc::new(overlay);
    let _ = (filesystem_ntfs::FORMAT.replay)(device.clone());
    let Ok(opened) = Ntfs::open(device) else { return };
    let fs = opened.value;
    let mut todo = vec![fs.root()];
    for _ in 0..100 {
        let Some(inode) = todo.pop() else { break };
        let _ = fs.xattrs(inode);
        let _ = fs.read_link(inode);
        let _ = fs.lookup(inode, b"small");
        let Ok(metadata) = fs.metadata(inode) else { continue };
        let mut buf = [0; 5000];
        let _ = fs.read_at(inode, &mut buf, 0);
        let _ = fs.read_at(inode, &mut buf, metadata.size.saturating_sub(9));
        if metadata.kind == FileKind::Directory
            && let Ok(entries) = fs.read_dir(inode)
        {
            todo.extend(entries.iter().take(20).map(|entry| entry.inode));
        }
    }
});
