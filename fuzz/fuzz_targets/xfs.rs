//! XFS: a sparse device from the input, read, recovered, read again and written to.
//!
//! The first byte says what is set right: 1 the checksum of the superblock, 2 those of log records. Then come
//! pieces of 514 bytes: a sector number, big-endian, and the sector. Whatever the bytes, all must end without a
//! panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Concat, Device, Overlay, Part};
use filesystem::{FileKind, FileSystem, Timestamp};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 36 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((fix, pieces)) = input.split_first() else { return };
    let zeros = Concat::new([Part { device: None, offset: 0, length: SIZE }]).expect("a hole fits anywhere");
    let overlay = Arc::new(Overlay::new(Arc::new(zeros)));
    let mut records = Vec::new();
    for piece in pieces.chunks_exact(514) {
        let number = u64::from(u16::from_be_bytes([piece[0], piece[1]]));
        let mut sector = piece[2..].to_vec();
        if number == 0 && fix & 1 != 0 {
            sector[224..228].fill(0);
            let crc = ondisk::crc32c(&sector);
            sector[224..228].copy_from_slice(&crc.to_le_bytes());
        }
        if sector.starts_with(&[0xfe, 0xed, 0xba, 0xbe]) {
            records.push(number * 512);
        }
        overlay.write_all_at(&sector, number * 512).expect("within the device");
    }
    if fix & 2 != 0 {
        for record in records {
            set_checksum(&overlay, record);
        }
    }
    look(overlay.clone());
    if let Ok(replayed) = (filesystem_xfs::FORMAT.replay)(overlay) {
        look(replayed.device);
    }
});

/// Makes the checksum of a log record right, where its header lets that be done.
fn set_checksum(device: &Overlay, offset: u64) {
    let mut header = [0; 512];
    device.read_exact_at(&mut header, offset).expect("within the device");
    let word = |at: usize| u32::from_be_bytes(*header[at..].first_chunk().expect("within the header"));
    let (length, size) = (word(12), word(320));
    let headers = if word(8) & 2 == 0 { 1 } else { u64::from(size.div_ceil(32768)).max(1) };
    let data = offset + headers * 512;
    if length > 256 << 10 || data + u64::from(length) > SIZE {
        return;
    }
    let mut bytes = vec![0; length as usize];
    device.read_exact_at(&mut bytes, data).expect("checked");
    header[32..36].fill(0);
    let mut state = ondisk::crc32c_raw(!0, &header[..328]);
    for number in 1..headers.min(u64::from(length.div_ceil(32768))) {
        let mut extension = [0; 260];
        device.read_exact_at(&mut extension, offset + number * 512).expect("checked");
        state = ondisk::crc32c_raw(state, &extension);
    }
    let crc = !ondisk::crc32c_raw(state, &bytes);
    device.write_all_at(&crc.to_le_bytes(), offset + 32).expect("within the device");
}

fn look(device: Device) {
    let Ok(opened) = (filesystem_xfs::FORMAT.open)(device) else { return };
    let fs: &dyn FileSystem = &*opened.value;
    let mut todo = vec![fs.root()];
    let mut seen = 0;
    let mut file = None;
    while let Some(inode) = todo.pop().filter(|_| seen < 30) {
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
