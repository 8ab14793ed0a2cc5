//! The checksums of an image with `metadata_csum`, made right again after a change.

use std::collections::HashMap;

use blockdev::{BlockDevice, BlockDeviceMut, Overlay};
use ondisk::crc32c_raw;

const BLOCK: usize = 1024;

/// What has a checksum of its own, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealed {
    Superblock,
    Descriptors,
    BlockBitmap,
    InodeBitmap,
    InodeTable,
    /// With the inode that it belongs to.
    Directory(usize),
    Extents(usize),
    Attributes,
}

/// The places of one image with a single group and blocks of 1 KiB.
pub(crate) struct Seals {
    seed: u32,
    blocks: HashMap<usize, Sealed>,
    descriptor_size: usize,
    block_bitmap: usize,
    inode_bitmap: usize,
    table: usize,
    inode_size: usize,
    inodes: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Seals {
    /// Of an image that is whole; asserts that all its checksums are as computed here.
    pub(crate) fn of(image: &[u8]) -> Self {
        let superblock = &image[1024..2048];
        let descriptors = &image[2048..];
        let has_seed = u32_at(superblock, 0x60) & 0x2000 != 0;
        let is_64bit = u32_at(superblock, 0x60) & 0x80 != 0;
        let mut seals = Self {
            seed: if has_seed { u32_at(superblock, 0x270) } else { crc32c_raw(!0, &superblock[0x68..0x78]) },
            blocks: HashMap::from([(1, Sealed::Superblock), (2, Sealed::Descriptors)]),
            descriptor_size: if is_64bit { u16_at(superblock, 0xfe) } else { 32 },
            block_bitmap: u32_at(descriptors, 0) as usize,
            inode_bitmap: u32_at(descriptors, 4) as usize,
            table: u32_at(descriptors, 8) as usize,
            inode_size: u16_at(superblock, 0x58),
            inodes: u32_at(superblock, 0) as usize,
        };
        assert_eq!(u32_at(superblock, 0x18), 0, "blocks of 1 KiB");
        assert_eq!(u32_at(superblock, 0x28) as usize, seals.inodes, "one group");
        seals.blocks.insert(seals.block_bitmap, Sealed::BlockBitmap);
        seals.blocks.insert(seals.inode_bitmap, Sealed::InodeBitmap);
        for block in 0..seals.inodes * seals.inode_size / BLOCK {
            seals.blocks.insert(seals.table + block, Sealed::InodeTable);
        }
        for number in 1..=seals.inodes {
            let at = seals.inode_at(number);
            seals.owned(image, number, &image[at..at + seals.inode_size]);
        }
        seals.check(image);
        seals
    }

    fn inode_at(&self, number: usize) -> usize {
        self.table * BLOCK + (number - 1) * self.inode_size
    }

    /// Adds the blocks with checksums that an inode has.
    fn owned(&mut self, image: &[u8], number: usize, inode: &[u8]) {
        let attributes = u32_at(inode, 0x68) as usize;
        if attributes != 0 {
            self.blocks.insert(attributes, Sealed::Attributes);
        }
        let is_directory = u16_at(inode, 0) & 0xf000 == 0x4000;
        let mut nodes = vec![&inode[0x28..0x28 + 60]];
        while let Some(node) = nodes.pop().filter(|_| u32_at(inode, 0x20) & 0x8_0000 != 0) {
            for entry in 0..u16_at(node, 2) {
                let entry = &node[12 + 12 * entry..];
                if u16_at(node, 6) == 0 {
                    for block in (0..u16_at(entry, 4)).filter(|_| is_directory) {
                        self.blocks.insert(u32_at(entry, 8) as usize + block, Sealed::Directory(number));
                    }
                } else {
                    let child = u32_at(entry, 4) as usize;
                    self.blocks.insert(child, Sealed::Extents(number));
                    nodes.push(&image[child * BLOCK..(child + 1) * BLOCK]);
                }
            }
        }
    }

    /// Every kind is there, and sealing what is sealed changes nothing.
    fn check(&self, image: &[u8]) {
        let overlay = Overlay::new(std::sync::Arc::new(blockdev::MemoryDevice::new(image)));
        for block in self.blocks.keys() {
            self.seal(&overlay, block * BLOCK, BLOCK);
        }
        let mut found = vec![0; image.len()];
        overlay.read_exact_at(&mut found, 0).unwrap();
        for (number, (old, new)) in image.chunks(BLOCK).zip(found.chunks(BLOCK)).enumerate() {
            assert!(old == new, "block {number}, {:?}", self.blocks.get(&number));
        }
        let has = |wanted: fn(&Sealed) -> bool| assert!(self.blocks.values().any(wanted));
        has(|kind| matches!(kind, Sealed::Directory(_)));
        has(|kind| matches!(kind, Sealed::Extents(_)));
        has(|kind| *kind == Sealed::Attributes);
    }

    /// Makes the checksums right of what `length` bytes from byte `at` are part of.
    pub(crate) fn seal(&self, overlay: &Overlay, at: usize, length: usize) {
        for block in at / BLOCK..=(at + length - 1) / BLOCK {
            let Some(kind) = self.blocks.get(&block) else { continue };
            let start = block * BLOCK;
            let mut bytes = read(overlay, start, BLOCK);
            match kind {
                Sealed::Superblock => {
                    let sum = crc32c_raw(!0, &bytes[..0x3fc]);
                    write(overlay, start + 0x3fc, &sum.to_le_bytes());
                }
                Sealed::Descriptors => self.seal_descriptor(overlay),
                Sealed::BlockBitmap | Sealed::InodeBitmap => {
                    let (lower, upper, length) = if *kind == Sealed::BlockBitmap {
                        (0x18, 0x38, BLOCK)
                    } else {
                        (0x1a, 0x3a, self.inodes / 8)
                    };
                    let sum = crc32c_raw(self.seed, &bytes[..length]).to_le_bytes();
                    write(overlay, 2 * BLOCK + lower, &sum[..2]);
                    if self.descriptor_size >= 64 {
                        write(overlay, 2 * BLOCK + upper, &sum[2..]);
                    }
                    self.seal_descriptor(overlay);
                }
                Sealed::InodeTable => {
                    let first = (start - self.table * BLOCK) / self.inode_size + 1;
                    for number in first..first + BLOCK / self.inode_size {
                        let begin = self.inode_at(number);
                        if begin < at + length && at < begin + self.inode_size {
                            self.seal_inode(overlay, number);
                        }
                    }
                }
                Sealed::Directory(owner) => {
                    let sum = crc32c_raw(self.seed_of(overlay, *owner), &bytes[..BLOCK - 12]);
                    write(overlay, start + BLOCK - 4, &sum.to_le_bytes());
                }
                Sealed::Extents(owner) => {
                    let tail = 12 + 12 * u16_at(&bytes, 4);
                    if tail + 4 <= BLOCK {
                        let sum = crc32c_raw(self.seed_of(overlay, *owner), &bytes[..tail]);
                        write(overlay, start + tail, &sum.to_le_bytes());
                    }
                }
                Sealed::Attributes => {
                    bytes[0x10..0x14].fill(0);
                    let sum = crc32c_raw(crc32c_raw(self.seed, &(block as u64).to_le_bytes()), &bytes);
                    write(overlay, start + 0x10, &sum.to_le_bytes());
                }
            }
        }
    }

    fn seal_descriptor(&self, overlay: &Overlay) {
        let mut bytes = read(overlay, 2 * BLOCK, self.descriptor_size);
        bytes[0x1e..0x20].fill(0);
        let sum = crc32c_raw(crc32c_raw(self.seed, &[0; 4]), &bytes);
        write(overlay, 2 * BLOCK + 0x1e, &sum.to_le_bytes()[..2]);
    }

    fn seed_of(&self, overlay: &Overlay, number: usize) -> u32 {
        let generation = read(overlay, self.inode_at(number) + 0x64, 4);
        crc32c_raw(crc32c_raw(self.seed, &(number as u32).to_le_bytes()), &generation)
    }

    fn seal_inode(&self, overlay: &Overlay, number: usize) {
        let at = self.inode_at(number);
        let mut bytes = read(overlay, at, self.inode_size);
        // What was never used has none.
        if bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        let has_upper = self.inode_size > 128 && u16_at(&bytes, 0x80) >= 4;
        bytes[0x7c..0x7e].fill(0);
        if has_upper {
            bytes[0x82..0x84].fill(0);
        }
        let sum = crc32c_raw(self.seed_of(overlay, number), &bytes).to_le_bytes();
        write(overlay, at + 0x7c, &sum[..2]);
        if has_upper {
            write(overlay, at + 0x82, &sum[2..]);
        }
    }
}

fn read(overlay: &Overlay, at: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    overlay.read_exact_at(&mut bytes, at as u64).unwrap();
    bytes
}

fn write(overlay: &Overlay, at: usize, bytes: &[u8]) {
    overlay.write_all_at(bytes, at as u64).unwrap();
}
