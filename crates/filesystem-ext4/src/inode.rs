//! Inode: what a file is, and the root of the map to its content.
//!
//! Linux `Documentation/filesystems/ext4/inodes.rst`. Little-endian; 128 bytes that every revision has, then
//! `i_extra_isize` bytes of later fields, then extended attributes up to the superblock's inode size.

use std::ops::Range;

use filesystem::{FileKind, Timestamp};
use ondisk::{Corrupt, crc32c_raw, le};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::copy_common;
use crate::checksum::inode_seed;
use crate::features::{incompat, ro_compat};
use crate::superblock::Superblock;
use crate::units::{FsBlock, halves, halves16, join, to_usize, widen};

/// The root directory.
pub const ROOT: u32 = 2;

/// Bits of `i_flags`.
pub mod flags {
    #![expect(missing_docs, reason = "the names are the documentation's")]
    pub const IMMUTABLE: u32 = 0x10;
    pub const APPEND: u32 = 0x20;
    pub const ENCRYPT: u32 = 0x800;
    pub const INDEX: u32 = 0x1000;
    pub const HUGE_FILE: u32 = 0x4_0000;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const VERITY: u32 = 0x10_0000;
    pub const EA_INODE: u32 = 0x20_0000;
    pub const EOFBLOCKS: u32 = 0x40_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
    pub const CASEFOLD: u32 = 0x4000_0000;
}

/// The name of the structure in errors.
pub(crate) const STRUCTURE: &str = "inode";

/// Bytes of the part that every inode has.
pub(crate) const BASE_SIZE: usize = size_of::<RawInode>();

/// The first 128 bytes as stored. `osd2` is Linux' variant.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawInode {
    pub i_mode: le::U16,            // 0x00
    pub i_uid: le::U16,             // 0x02
    pub i_size_lo: le::U32,         // 0x04
    pub i_atime: le::I32,           // 0x08
    pub i_ctime: le::I32,           // 0x0c
    pub i_mtime: le::I32,           // 0x10
    pub i_dtime: le::U32,           // 0x14
    pub i_gid: le::U16,             // 0x18
    pub i_links_count: le::U16,     // 0x1a
    pub i_blocks_lo: le::U32,       // 0x1c in 512 bytes; in blocks with the flag HUGE_FILE
    pub i_flags: le::U32,           // 0x20
    pub l_i_version: le::U32,       // 0x24
    pub i_block: [u8; 60],          // 0x28 block map, extent tree root, short symlink, device, or content
    pub i_generation: le::U32,      // 0x64
    pub i_file_acl_lo: le::U32,     // 0x68 block of extended attributes
    pub i_size_high: le::U32,       // 0x6c
    pub i_obso_faddr: le::U32,      // 0x70
    pub l_i_blocks_high: le::U16,   // 0x74
    pub l_i_file_acl_high: le::U16, // 0x76
    pub l_i_uid_high: le::U16,      // 0x78
    pub l_i_gid_high: le::U16,      // 0x7a
    pub l_i_checksum_lo: le::U16,   // 0x7c
    pub l_i_reserved: le::U16,      // 0x7e
}

const _: () = assert!(size_of::<RawInode>() == 128);

/// The fields after the first 128 bytes; those past `i_extra_isize` do not exist and read as zeros here.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawInodeExtra {
    pub i_extra_isize: le::U16,  // 0x80 bytes from here to the extended attributes
    pub i_checksum_hi: le::U16,  // 0x82
    pub i_ctime_extra: le::U32,  // 0x84 nanoseconds << 2 | bits 32 and 33 of the seconds
    pub i_mtime_extra: le::U32,  // 0x88
    pub i_atime_extra: le::U32,  // 0x8c
    pub i_crtime: le::I32,       // 0x90
    pub i_crtime_extra: le::U32, // 0x94
    pub i_version_hi: le::U32,   // 0x98
    pub i_projid: le::U32,       // 0x9c
}

const _: () = assert!(size_of::<RawInodeExtra>() == 32);

/// Where the halves of the checksum lie in the inode.
const CHECKSUM_LO: Range<usize> = 0x7c..0x7e;
const CHECKSUM_HI: Range<usize> = 0x82..0x84;

/// An inode whose checksum fits, with the bytes it came from.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Its number; the first is 1.
    pub number: u32,
    /// First byte on the device.
    pub offset: u64,
    /// The part that every inode has.
    pub raw: RawInode,
    /// The later fields, as far as this inode has them.
    pub extra: RawInodeExtra,
    /// Bytes of later fields: 0 in small inodes, else a multiple of 4.
    pub extra_size: usize,
    /// Length in bytes, of what is stored: content, symlink target, directory blocks.
    pub size: u64,
    /// The seed for the checksums of all that belongs to this inode, where there are any.
    pub seed: Option<u32>,
    /// All bytes of the inode, [`Superblock::inode_size`] of them.
    bytes: Vec<u8>,
}

impl Inode {
    /// Judges the bytes of inode `number`, which lie at byte `offset`.
    ///
    /// # Errors
    /// `Corrupt` for a checksum that does not fit, and for lengths that cannot be.
    pub fn decode(
        superblock: &Superblock,
        number: u32,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Self, Corrupt> {
        let inode = Self::decode_any(superblock, number, offset, bytes)?;
        inode.verify_checksum()?;
        Ok(inode)
    }

    /// As [`decode`](Self::decode), but the checksum may be any.
    ///
    /// # Errors
    /// `Corrupt` for lengths that cannot be.
    pub(crate) fn decode_any(
        superblock: &Superblock,
        number: u32,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Self, Corrupt> {
        let mut padded = RawInode::new_zeroed();
        let mut extra = RawInodeExtra::new_zeroed();
        copy_common(padded.as_mut_bytes(), &bytes);
        let tail = bytes.get(BASE_SIZE..).unwrap_or_default();
        // The first field says how many of the others there are.
        copy_common(extra.i_extra_isize.as_mut_bytes(), tail);
        let extra_size = usize::from(extra.i_extra_isize.get());
        if extra_size > tail.len() || !extra_size.is_multiple_of(4) {
            let expected = format!("a multiple of 4 up to {}", tail.len());
            return Err(Corrupt::new(STRUCTURE, offset, "i_extra_isize", expected, extra_size));
        }
        copy_common(extra.as_mut_bytes(), tail.get(..extra_size).unwrap_or_default());
        extra.i_extra_isize.set(u16::try_from(extra_size).unwrap_or(0));
        let seed = superblock.checksums.seed();
        let seed = seed.map(|seed| inode_seed(seed, number, padded.i_generation.get()));
        let mut inode = Self { number, offset, raw: padded, extra, extra_size, size: 0, seed, bytes };
        inode.size = inode.stored_size(superblock)?;
        Ok(inode)
    }

    /// The bytes to store, with the checksum that fits.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        copy_common(&mut bytes, self.raw.as_bytes());
        let extra = self.extra.as_bytes().get(..self.extra_size.min(size_of::<RawInodeExtra>()));
        if let (Some(tail), Some(extra)) = (bytes.get_mut(BASE_SIZE..), extra) {
            copy_common(tail, extra);
        }
        if let Some(computed) = self.computed_checksum(&bytes) {
            let (low, high) = halves16(computed);
            if let Some(field) = bytes.get_mut(CHECKSUM_LO) {
                field.copy_from_slice(&low.to_le_bytes());
            }
            if let Some(field) = bytes.get_mut(CHECKSUM_HI).filter(|_| self.has_whole_checksum()) {
                field.copy_from_slice(&high.to_le_bytes());
            }
        }
        bytes
    }

    /// Compares the checksum, where there is one.
    ///
    /// # Errors
    /// `Corrupt` when it does not fit.
    pub(crate) fn verify_checksum(&self) -> Result<(), Corrupt> {
        let Some(computed) = self.computed_checksum(&self.bytes) else { return Ok(()) };
        let low = self.raw.l_i_checksum_lo.get();
        let (computed, stored) = if self.has_whole_checksum() {
            (computed, u32::from(self.extra.i_checksum_hi.get()) << 16 | u32::from(low))
        } else {
            (halves16(computed).0.into(), low.into())
        };
        if computed == stored {
            return Ok(());
        }
        Err(Corrupt::checksum(STRUCTURE, self.offset, computed, stored))
    }

    /// Whether the upper half of the checksum is stored too.
    fn has_whole_checksum(&self) -> bool {
        self.extra_size >= 4
    }

    /// CRC-32C of all bytes, those of the checksum itself as zeros.
    fn computed_checksum(&self, bytes: &[u8]) -> Option<u32> {
        let seed = self.seed?;
        let before = bytes.get(..CHECKSUM_LO.start)?;
        let state = crc32c_raw(crc32c_raw(seed, before), &[0; 2]);
        if !self.has_whole_checksum() {
            return Some(crc32c_raw(state, bytes.get(CHECKSUM_LO.end..)?));
        }
        let between = bytes.get(CHECKSUM_LO.end..CHECKSUM_HI.start)?;
        let state = crc32c_raw(crc32c_raw(state, between), &[0; 2]);
        Some(crc32c_raw(state, bytes.get(CHECKSUM_HI.end..)?))
    }

    fn stored_size(&self, superblock: &Superblock) -> Result<u64, Corrupt> {
        // In other inodes than these the upper half was something else once.
        let is_long =
            self.kind() == FileKind::Regular || superblock.features.has_incompat(incompat::LARGE_DIR);
        let size = join(self.raw.i_size_lo.get(), if is_long { self.raw.i_size_high.get() } else { 0 });
        if i64::try_from(size).is_err() {
            return Err(Corrupt::new(STRUCTURE, self.offset, "i_size", "below 2^63", size));
        }
        Ok(size)
    }

    /// Stores a new length in bytes.
    pub fn set_size(&mut self, size: u64) {
        let (low, high) = halves(size);
        self.raw.i_size_lo.set(low);
        self.raw.i_size_high.set(high);
        self.size = size;
    }

    /// What kind of file it is.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.raw.i_mode.get().into())
    }

    /// Whether a bit of `i_flags` is set.
    pub fn has_flag(&self, flag: u32) -> bool {
        self.raw.i_flags.get() & flag != 0
    }

    /// The space it occupies, in units of [`allocation_unit`](Self::allocation_unit).
    pub fn allocated_units(&self, superblock: &Superblock) -> u64 {
        let high = if superblock.features.has_ro_compat(ro_compat::HUGE_FILE) {
            self.raw.l_i_blocks_high.get().into()
        } else {
            0
        };
        join(self.raw.i_blocks_lo.get(), high)
    }

    /// Bytes that `i_blocks` counts as one.
    pub fn allocation_unit(&self, superblock: &Superblock) -> u64 {
        let is_huge =
            superblock.features.has_ro_compat(ro_compat::HUGE_FILE) && self.has_flag(flags::HUGE_FILE);
        if is_huge { superblock.block_size.bytes() } else { 512 }
    }

    /// The block of extended attributes, if there is one.
    pub fn attribute_block(&self, superblock: &Superblock) -> Option<FsBlock> {
        let high = if superblock.features.has_incompat(incompat::BITS64) {
            self.raw.l_i_file_acl_high.get().into()
        } else {
            0
        };
        Some(FsBlock::from_halves(self.raw.i_file_acl_lo, high)).filter(|block| block.0 != 0)
    }

    /// The bytes after the last field: extended attributes.
    pub fn attribute_area(&self) -> &[u8] {
        self.attribute_start().and_then(|start| self.bytes.get(start..)).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn attribute_area_mut(&mut self) -> &mut [u8] {
        self.attribute_start().and_then(|start| self.bytes.get_mut(start..)).unwrap_or_default()
    }

    /// The byte on the device where [`attribute_area`](Self::attribute_area) begins.
    pub fn attribute_offset(&self) -> u64 {
        self.offset.saturating_add(widen(self.attribute_start().unwrap_or(BASE_SIZE)))
    }

    /// `None` where no field says how long the fields are, and so no attributes follow.
    fn attribute_start(&self) -> Option<usize> {
        BASE_SIZE.checked_add(self.extra_size).filter(|_| self.extra_size > 0)
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        u32::from(self.raw.l_i_uid_high.get()) << 16 | u32::from(self.raw.i_uid.get())
    }

    /// The owning group.
    pub fn gid(&self) -> u32 {
        u32::from(self.raw.l_i_gid_high.get()) << 16 | u32::from(self.raw.i_gid.get())
    }

    /// Last change of content.
    pub fn modified(&self) -> Timestamp {
        timestamp(self.raw.i_mtime, self.extra.i_mtime_extra)
    }

    /// Last change of the inode.
    pub fn changed(&self) -> Timestamp {
        timestamp(self.raw.i_ctime, self.extra.i_ctime_extra)
    }

    /// Last access.
    pub fn accessed(&self) -> Timestamp {
        timestamp(self.raw.i_atime, self.extra.i_atime_extra)
    }

    /// Stores `now` as the time of the last change of content and inode.
    pub fn touch(&mut self, now: Timestamp) {
        let (seconds, more) = stored_timestamp(now, self.extra_size >= 12);
        self.raw.i_mtime.set(seconds);
        self.raw.i_ctime.set(seconds);
        self.extra.i_mtime_extra.set(more);
        self.extra.i_ctime_extra.set(more);
    }

    /// Major and minor number of a device node: in the first word as 8 and 8 bits, or in the second as 12
    /// and 20.
    pub fn device(&self) -> (u32, u32) {
        let word = |range: Range<usize>| {
            let bytes = self.raw.i_block.get(range).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let (old, new) = (word(0..4), word(4..8));
        if old != 0 {
            (old >> 8 & 0xff, old & 0xff)
        } else {
            (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00)
        }
    }
}

/// The low two bits of `more` count 2^32 seconds each.
fn timestamp(seconds: le::I32, more: le::U32) -> Timestamp {
    let epochs = i64::from(more.get() & 3) << 32;
    Timestamp {
        seconds: i64::from(seconds.get()).saturating_add(epochs),
        nanoseconds: (more.get() >> 2).min(999_999_999),
    }
}

/// A time as stored; one out of range becomes the nearest that can be, as Linux has it.
fn stored_timestamp(time: Timestamp, has_more: bool) -> (i32, u32) {
    let last = if has_more { 0x3_7fff_ffff } else { i64::from(i32::MAX) };
    let seconds = time.seconds.clamp(i32::MIN.into(), last);
    let (low, _) = halves(seconds.cast_unsigned());
    let low = low.cast_signed();
    let epochs = seconds.saturating_sub(low.into()) >> 32;
    let more = u32::try_from(epochs & 3).unwrap_or(0) | time.nanoseconds.min(999_999_999) << 2;
    (low, if has_more { more } else { 0 })
}

/// The place of an inode: its group, and its position in the group's table in bytes.
pub(crate) fn place(superblock: &Superblock, number: u32) -> Option<(u32, u64)> {
    let index = number.checked_sub(1).filter(|_| number <= superblock.inodes)?;
    let within = u64::from(index % superblock.inodes_per_group);
    Some((index / superblock.inodes_per_group, within.saturating_mul(superblock.inode_size.into())))
}

/// An inode number as the format stores it; `None` for one that no inode can have.
pub(crate) fn number(inode: filesystem::Inode, superblock: &Superblock) -> Option<u32> {
    u32::try_from(inode.0).ok().filter(|number| (1..=superblock.inodes).contains(number))
}

/// The length of an inode in memory.
pub(crate) fn length(superblock: &Superblock) -> usize {
    to_usize(superblock.inode_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_signed_32_bits() {
        for seconds in
            [-0x8000_0000, -1, 0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_8000_0000, 0x3_7fff_ffff]
        {
            let time = Timestamp { seconds, nanoseconds: 123_456_789 };
            let (low, more) = stored_timestamp(time, true);
            assert_eq!(timestamp(le::I32::new(low), le::U32::new(more)), time);
        }
        let far = Timestamp { seconds: i64::MAX, nanoseconds: 0 };
        assert_eq!(stored_timestamp(far, false), (i32::MAX, 0));
        let (low, more) = stored_timestamp(far, true);
        assert_eq!(timestamp(le::I32::new(low), le::U32::new(more)).seconds, 0x3_7fff_ffff);
    }
}
