//! ext4: a small image with pieces of the input put over it, read, recovered, read again, restored from its
//! copies and written to.
//!
//! The image is that which `EXT4_IMAGE` names, or zeros. The first byte says what is set right: 1 the checksum of
//! the superblock, 2 those of group descriptors. Then come pieces of 18 bytes: a place in units of 16 bytes,
//! little-endian, and 16 bytes to put there. Whatever the bytes, all must end without a panic, and quickly.
#![no_main]

use std::sync::{Arc, LazyLock};

use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem, Timestamp};
use libfuzzer_sys::fuzz_target;

/// 1 MiB: what a place of 16 bits reaches.
const SIZE: usize = 1 << 20;

static BASE: LazyLock<Device> = LazyLock::new(|| {
    let mut bytes = std::env::var_os("EXT4_IMAGE").and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    bytes.resize(SIZE, 0);
    Arc::new(MemoryDevice::new(bytes))
});

fuzz_target!(|input: &[u8]| {
    let Some((fix, pieces)) = input.split_first() else { return };
    let overlay = Arc::new(Overlay::new(BASE.clone()));
    for piece in pieces.chunks_exact(18).take(4096) {
        let place = u64::from(u16::from_le_bytes([piece[0], piece[1]])) * 16;
        overlay.write_all_at(&piece[2..], place).expect("within the device");
    }
    if fix & 1 != 0 {
        let mut superblock = [0; 1024];
        overlay.read_exact_at(&mut superblock, 1024).expect("within the device");
        let crc = ondisk::crc32c_raw(!0, &superblock[..1020]);
        overlay.write_all_at(&crc.to_le_bytes(), 2044).expect("within the device");
    }
    if fix & 2 != 0 {
        fix_descriptors(&overlay);
    }
    let _ = (filesystem_ext4::FORMAT.probe)(&*overlay);
    let device: Device = overlay;
    look(device.clone());
    if let Ok(replayed) = (filesystem_ext4::FORMAT.replay)(device.clone()) {
        look(replayed.device);
    }
    if let Ok(restored) = filesystem_ext4::backup::restored(device) {
        look(restored.value);
    }
});

/// Makes the checksums of 16 descriptors in the block after the superblock right, as those of 64 bytes.
fn fix_descriptors(overlay: &Overlay) {
    let mut uuid = [0; 16];
    overlay.read_exact_at(&mut uuid, 1024 + 0x68).expect("within the device");
    let seed = ondisk::crc32c_raw(!0, &uuid);
    for group in 0..16_u32 {
        let mut bytes = [0; 64];
        let at = 2048 + u64::from(group) * 64;
        overlay.read_exact_at(&mut bytes, at).expect("within the device");
        bytes[0x1e..0x20].fill(0);
        let crc = ondisk::crc32c_raw(ondisk::crc32c_raw(seed, &group.to_le_bytes()), &bytes);
        overlay.write_all_at(&(crc as u16).to_le_bytes(), at + 0x1e).expect("within the device");
    }
}

fn look(device: Device) {
    let Ok(opened) = (filesystem_ext4::FORMAT.open)(device) else { return };
    let fs: &dyn FileSystem = &*opened.value;
    let mut todo = vec![fs.root()];
    let mut seen = 0;
    let mut file = None;
    while let Some(inode) = todo.pop().filter(|_| seen < 60) {
        seen += 1;
        let _ = fs.xattrs(inode);
        match fs.metadata(inode).map(|metadata| metadata.kind) {
            Ok(FileKind::Directory) => {
                todo.extend(fs.read_dir(inode).unwrap_or_default().iter().map(|entry| entry.inode));
            }
            Ok(FileKind::Regular) => {
                let _ = fs.read_at(inode, &mut [0; 9000], 0);
                file = Some(inode);
            }
            _ => drop(fs.read_link(inode)),
        }
    }
    if let (Some(file), Some(writable)) = (file, fs.writable()) {
        let _ = writable.replace(file, &[7; 5000], Timestamp::default());
    }
}
