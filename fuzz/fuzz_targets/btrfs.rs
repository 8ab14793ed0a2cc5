//! btrfs: patches to a small file system that a kernel filled.
//!
//! The input is a list of patches of twelve bytes: block (of those that hold structures), place in it, how many
//! bytes, and the bytes. Checksums are set right unless the first byte of the input is odd. Whatever the bytes,
//! opening and walking must end without a panic, and quickly.
#![no_main]

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem::FileKind;
use filesystem_btrfs::{FORMAT, Select, open_subvolume, subvolumes};
use libfuzzer_sys::fuzz_target;

struct Seed {
    image: Device,
    structures: Vec<u64>,
}

static SEED: LazyLock<Seed> = LazyLock::new(|| {
    let packed = include_bytes!("../../test-images/filesystem/btrfs-one.img.zst");
    let mut image = Vec::new();
    let mut stream = ruzstd::decoding::StreamingDecoder::new(&packed[..]).expect("a good frame");
    stream.read_to_end(&mut image).expect("a whole frame");
    let fsid = image[0x1_0020..0x1_0030].to_vec();
    let blocks = (1 << 20..image.len() - 4096).step_by(4096);
    let mut structures = vec![64 << 10];
    structures.extend(blocks.filter(|at| image[at + 0x20..at + 0x30] == fsid).map(|at| at as u64));
    Seed { image: Arc::new(MemoryDevice::new(image)), structures }
});

fuzz_target!(|input: &[u8]| {
    let Some((flags, patches)) = input.split_first() else { return };
    let overlay = Arc::new(Overlay::new(SEED.image.clone()));
    for patch in patches.chunks_exact(12).take(20) {
        let number = usize::from(patch[0]) % SEED.structures.len();
        let offset = SEED.structures[number];
        let mut block = [0; 4096];
        let _ = overlay.read_exact_at(&mut block, offset);
        let at = usize::from(u16::from_le_bytes([patch[1], patch[2]])) % (4096 - 8);
        let count = usize::from(patch[3] % 8) + 1;
        block[at..at + count].copy_from_slice(&patch[4..4 + count]);
        if flags & 1 == 0 {
            let sum = ondisk::crc32c(&block[32..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = overlay.write_all_at(&block, offset);
    }
    let device: Device = overlay;
    let _ = (FORMAT.probe)(&*device);
    let _ = (FORMAT.replay)(device.clone());
    let _ = subvolumes(vec![device.clone()]);
    let select = if flags & 2 == 0 { Select::Id(5) } else { Select::Default };
    let Ok(opened) = open_subvolume(vec![device], select) else { return };
    let fs = &*opened.value;
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 5000];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < 100) {
        if !seen.insert(inode) {
            continue;
        }
        let _ = fs.xattrs(inode);
        let Ok(metadata) = fs.metadata(inode) else { continue };
        match metadata.kind {
            FileKind::Directory => {
                todo.extend(fs.read_dir(inode).into_iter().flatten().map(|entry| entry.inode));
                let _ = fs.lookup(inode, b"etc");
            }
            FileKind::Symlink => {
                let _ = fs.read_link(inode);
            }
            FileKind::Regular => {
                for offset in [0, metadata.size / 2, metadata.size.saturating_sub(100)] {
                    let _ = fs.read_at(inode, &mut buf, offset);
                }
            }
            _ => {}
        }
    }
});
