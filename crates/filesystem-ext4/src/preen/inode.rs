//! An inode as the program scans it: whatever its bytes say.

use ondisk::crc32c_raw;
use zerocopy::FromBytes;

use super::opening::Opened;
use crate::checksum::inode_seed;
use crate::extent_tree;
use crate::features::incompat;
use crate::inode::{BASE_SIZE, Inode, RawInode, flags};
use crate::units::join;

/// The kinds of files in `i_mode`.
pub(super) mod mode {
    pub(in super::super) const FIFO: u16 = 0o010_000;
    pub(in super::super) const CHARACTER: u16 = 0o020_000;
    pub(in super::super) const DIRECTORY: u16 = 0o040_000;
    pub(in super::super) const BLOCK: u16 = 0o060_000;
    pub(in super::super) const REGULAR: u16 = 0o100_000;
    pub(in super::super) const SYMLINK: u16 = 0o120_000;
    pub(in super::super) const SOCKET: u16 = 0o140_000;
}

/// `i_flags` of inodes that a user may not link, of a feature that no file system has.
pub(super) const IMAGIC: u32 = 0x2000;

/// The magic number before attributes.
const ATTRIBUTES: u32 = 0xea02_0000;

/// An inode with nothing judged but its checksum.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) number: u32,
    pub(super) raw: RawInode,
    /// Bytes of later fields; corrected where what is stored cannot be.
    pub(super) extra: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) is_checksum_good: bool,
    /// Its map is an extent tree.
    pub(super) has_extents: bool,
}

impl Scanned {
    /// Takes the bytes apart; `None` when there are too few.
    pub(super) fn decode(opened: &Opened, number: u32, bytes: Vec<u8>) -> Option<Self> {
        let (raw, rest) = RawInode::read_from_prefix(&bytes).ok()?;
        let superblock = &opened.disk.superblock;
        let stored = rest.first_chunk::<2>().map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)));
        let room = bytes.len().saturating_sub(BASE_SIZE);
        let wanted = usize::from(opened.raw.s_want_extra_isize.get());
        let extra = match stored {
            0 => 0,
            _ if stored < 4 || stored > room => wanted.min(room),
            _ => stored.next_multiple_of(4).min(room),
        };
        let is_checksum_good = superblock.checksums.seed().is_none_or(|seed| {
            let is_empty = bytes.iter().take(BASE_SIZE).all(|byte| *byte == 0);
            is_empty
                || has_good_checksum(&raw, inode_seed(seed, number, raw.i_generation.get()), &bytes, stored)
        });
        let has_extents = raw.i_flags.get() & flags::EXTENTS != 0;
        Some(Self { number, raw, extra, bytes, is_checksum_good, has_extents })
    }

    /// Whether the length of the later fields was corrected.
    pub(super) fn is_extra_bad(&self) -> bool {
        let stored = self.bytes.get(BASE_SIZE..).and_then(|rest| rest.first_chunk::<2>());
        stored.is_some_and(|stored| usize::from(u16::from_le_bytes(*stored)) != self.extra)
    }

    /// Whether a time lies before 1970 in a form that only a wrong kernel has written.
    pub(super) fn has_bad_times(&self) -> bool {
        let word = |at: usize| {
            let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let pairs = [(0x8, 0x8c), (0xc, 0x84), (0x10, 0x88), (0x90, 0x94)];
        pairs.iter().any(|(time, more)| word(*time) >> 31 == 1 && word(*more) & 3 == 3)
    }

    /// The inode as the other modules of this crate take it.
    pub(super) fn to_inode(&self, opened: &Opened) -> Option<Inode> {
        let mut bytes = self.bytes.clone();
        if let Some(field) = bytes.get_mut(BASE_SIZE..BASE_SIZE.saturating_add(2)) {
            field.copy_from_slice(&u16::try_from(self.extra).unwrap_or(0).to_le_bytes());
        }
        let mut inode = Inode::decode_any(&opened.disk.superblock, self.number, 0, bytes).ok()?;
        if self.has_extents {
            inode.raw.i_flags.set(inode.raw.i_flags.get() | flags::EXTENTS);
        }
        Some(inode)
    }

    pub(super) fn kind(&self) -> u16 {
        self.raw.i_mode.get() & 0o170_000
    }

    pub(super) fn has_flag(&self, flag: u32) -> bool {
        self.raw.i_flags.get() & flag != 0
    }

    /// All 64 bits of the length.
    pub(super) fn size(&self) -> u64 {
        join(self.raw.i_size_lo.get(), self.raw.i_size_high.get())
    }

    /// A word of `i_block`.
    pub(super) fn block(&self, index: usize) -> u32 {
        let bytes = self.raw.i_block.chunks_exact(4).nth(index).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// All words of `i_block`.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        (0..15).map(|index| self.block(index))
    }

    /// The block of attributes, or 0.
    pub(super) fn attribute_block(&self, opened: &Opened) -> u64 {
        let is_64bit = opened.disk.superblock.features.has_incompat(incompat::BITS64);
        let high = if is_64bit { self.raw.l_i_file_acl_high.get() } else { 0 };
        join(self.raw.i_file_acl_lo.get(), high.into())
    }

    /// The bytes behind the fields, if attributes begin there.
    pub(super) fn attributes(&self) -> Option<&[u8]> {
        let area = self.bytes.get(BASE_SIZE.saturating_add(self.extra)..)?;
        let magic = area.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        (magic == Some(ATTRIBUTES)).then_some(area)
    }

    /// Whether `i_block` begins with the head of an extent tree.
    pub(super) fn has_tree(&self) -> bool {
        is_node(&self.raw.i_block)
    }

    /// A symlink whose target fills `i_block`.
    pub(super) fn is_fast_symlink(&self) -> bool {
        self.kind() == mode::SYMLINK && (1..60).contains(&self.size())
    }

    /// Whether `i_block` is a map.
    pub(super) fn has_blocks(&self, opened: &Opened) -> bool {
        match self.kind() {
            mode::DIRECTORY | mode::REGULAR => {}
            mode::SYMLINK if self.attribute_block(opened) == 0 => {
                if self.raw.i_blocks_lo.get() == 0 {
                    return false;
                }
            }
            mode::SYMLINK => {
                let size = self.raw.i_size_lo.get();
                if !(size >= 60 || size > 4 && self.block(1) == 0) {
                    return false;
                }
            }
            _ => return false,
        }
        !self.has_flag(flags::INLINE_DATA)
    }
}

/// Compares the checksum; `stored` is what the inode says about the bytes of later fields.
fn has_good_checksum(raw: &RawInode, seed: u32, bytes: &[u8], stored: usize) -> bool {
    let has_high = bytes.len() > BASE_SIZE && stored >= 4;
    let mut zeroed = bytes.to_vec();
    let high = bytes.get(0x82..).and_then(|rest| rest.first_chunk::<2>()).copied().unwrap_or_default();
    let places = if has_high { [0x7c..0x7e, 0x82..0x84] } else { [0x7c..0x7e, 0x7c..0x7e] };
    for place in places {
        if let Some(field) = zeroed.get_mut(place) {
            field.fill(0);
        }
    }
    let computed = crc32c_raw(seed, &zeroed);
    let low = u32::from(raw.l_i_checksum_lo.get());
    if has_high {
        computed == u32::from(u16::from_le_bytes(high)) << 16 | low
    } else {
        computed & 0xffff == low
    }
}

/// Whether these bytes begin with the head of a node that fits them.
pub(super) fn is_node(bytes: &[u8]) -> bool {
    let Ok((head, _)) = extent_tree::RawHeader::read_from_prefix(bytes) else { return false };
    let room = bytes.len().saturating_sub(12) / 12;
    let max = usize::from(head.eh_max.get());
    head.eh_magic.get() == extent_tree::MAGIC
        && head.eh_entries <= head.eh_max
        && max <= room
        && max >= room.saturating_sub(2)
}
