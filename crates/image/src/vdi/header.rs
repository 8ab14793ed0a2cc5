//! VDI header: where the block map and the blocks are.
//!
//! QEMU block/vdi.c and VirtualBox VDICore.h, version 1.1. Little-endian; sizes and offsets are bytes, map entries
//! count blocks from `offset_data` on. 0xffff_ffff is a block that was never written, 0xffff_fffe one of zeros.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::{Bitmaps, BlockSize, Layout, Names, SECTOR};

/// At byte 64 of every VDI.
pub(super) const SIGNATURE: u32 = 0xbeda_107f;

pub(super) const VERSION: u32 = 0x0001_0001;

/// Where `blocks_allocated` is in the file.
pub(super) const ALLOCATED_AT: u64 = 388;

pub(super) const STRUCTURE: &str = "VDI header";

static NAMES: Names =
    Names { entry: "VDI block map entry", block: "VDI data block", bitmap: "VDI block extra data" };

/// The header as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 for people.
    pub text: [u8; 64],
    /// 0x40 0xbeda107f.
    pub signature: le::U32,
    /// 0x44 major version in the upper half.
    pub version: le::U32,
    /// 0x48 bytes of the header from here on.
    pub header_size: le::U32,
    /// 0x4c 1 dynamic, 2 static, 3 undo, 4 differencing.
    pub image_type: le::U32,
    /// 0x50 flags of VirtualBox.
    pub image_flags: le::U32,
    /// 0x54 a comment.
    pub description: [u8; 256],
    /// 0x154 where the block map lies.
    pub offset_bmap: le::U32,
    /// 0x158 where the first block lies.
    pub offset_data: le::U32,
    /// 0x15c of the geometry, which nobody needs.
    pub cylinders: le::U32,
    /// 0x160 of the geometry.
    pub heads: le::U32,
    /// 0x164 of the geometry.
    pub sectors: le::U32,
    /// 0x168 512.
    pub sector_size: le::U32,
    /// 0x16c zero.
    pub unused1: le::U32,
    /// 0x170 length of the disk.
    pub disk_size: le::U64,
    /// 0x178 bytes of the disk in a block.
    pub block_size: le::U32,
    /// 0x17c bytes before the data of each block.
    pub block_extra: le::U32,
    /// 0x180 entries in the map.
    pub blocks_in_image: le::U32,
    /// 0x184 blocks that have a place; the next new one gets this number.
    pub blocks_allocated: le::U32,
    /// 0x188 of this image.
    pub uuid_image: [u8; 16],
    /// 0x198 changes with each change of the image.
    pub uuid_last_snap: [u8; 16],
    /// 0x1a8 the parent's `uuid_image`.
    pub uuid_link: [u8; 16],
    /// 0x1b8 the parent's `uuid_last_snap` when this image was made.
    pub uuid_parent: [u8; 16],
    /// 0x1c8 a second geometry, then zeros.
    pub unused2: [u8; 56],
}
const _: () = assert!(size_of::<RawHeader>() == 512);

/// What kind of image it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageType {
    /// Blocks get a place when they are first written.
    Dynamic,
    /// Every block has a place.
    Static,
    /// Over a parent, to be thrown away.
    Undo,
    /// Over a parent.
    Differencing,
}

/// A header with which the disk can be read.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) raw: RawHeader,
    pub(super) image_type: ImageType,
    /// Length of the disk in bytes: whole sectors.
    pub(super) size: u64,
    pub(super) block_size: BlockSize,
}

impl Header {
    /// Reads and judges the header of `device`.
    ///
    /// # Errors
    /// Damage that leaves no way to the blocks; [`Error::Unsupported`] for other versions.
    pub(super) fn read(device: &dyn BlockDevice) -> Result<Self> {
        Self::decode(read_value(device, 0)?, device.size())
    }

    /// Judges a header of a file of `file_size` bytes.
    pub(super) fn decode(raw: RawHeader, file_size: u64) -> Result<Self> {
        if raw.signature.get() != SIGNATURE {
            let found = format!("{:#x}", raw.signature);
            return Err(corrupt("signature", format!("{SIGNATURE:#x}"), found));
        }
        let version = raw.version.get();
        if version != VERSION {
            let (major, minor) = (version.wrapping_shr(16), version & 0xffff);
            return Err(Error::unsupported(STRUCTURE, format!("version {major}.{minor}")));
        }
        let image_type = match raw.image_type.get() {
            1 => ImageType::Dynamic,
            2 => ImageType::Static,
            3 => ImageType::Undo,
            4 => ImageType::Differencing,
            other => return Err(corrupt("image_type", "1 to 4", other)),
        };
        if raw.sector_size.get() != 512 {
            return Err(Error::unsupported(STRUCTURE, format!("a sector size of {} bytes", raw.sector_size)));
        }
        let block_size = BlockSize::new(raw.block_size.get())
            .ok_or_else(|| corrupt("block_size", "a power of two, at least 512", raw.block_size))?;
        // As QEMU does: VirtualBox can make images with odd sizes, whose last sector then is whole.
        let size = raw.disk_size.get().checked_next_multiple_of(SECTOR);
        let blocks = raw.blocks_in_image.get();
        let size = size.filter(|size| block_size.count(*size) <= u64::from(blocks)).ok_or_else(|| {
            let room = u64::from(blocks).saturating_mul(block_size.bytes());
            corrupt("disk_size", format!("at most {room}, the room of {blocks} blocks"), raw.disk_size)
        })?;
        let header = Self { raw, image_type, size, block_size };
        header.check_places(file_size)?;
        header.check_parent()?;
        Ok(header)
    }

    fn check_places(&self, file_size: u64) -> Result<()> {
        let map = self.map();
        if map.start < 512 || !map.start.is_multiple_of(SECTOR) {
            return Err(corrupt("offset_bmap", "a sector behind the header", map.start));
        }
        if map.end > file_size {
            let expected = format!("a map within the file of {file_size} bytes");
            return Err(corrupt("blocks_in_image", expected, self.raw.blocks_in_image));
        }
        let data = u64::from(self.raw.offset_data.get());
        if data < map.end || !data.is_multiple_of(SECTOR) {
            return Err(corrupt("offset_data", format!("a sector from {} on", map.end), data));
        }
        Ok(())
    }

    /// An image that needs no parent must not name one: it could not be said what an absent block holds.
    fn check_parent(&self) -> Result<()> {
        let names_one = !self.link().is_nil() || !Guid::from_mixed_endian(self.raw.uuid_parent).is_nil();
        match self.image_type {
            ImageType::Dynamic | ImageType::Static if names_one => {
                Err(corrupt("uuid_link", "none for an image of this type", self.link()))
            }
            _ => Ok(()),
        }
    }

    /// The parent's UUID.
    pub(super) fn link(&self) -> Guid {
        Guid::from_mixed_endian(self.raw.uuid_link)
    }

    pub(super) fn has_parent(&self) -> bool {
        matches!(self.image_type, ImageType::Undo | ImageType::Differencing)
    }

    pub(super) fn identity(&self) -> String {
        format!("UUID {}", Guid::from_mixed_endian(self.raw.uuid_image))
    }

    /// First byte of the map, and first byte behind it.
    pub(super) fn map(&self) -> Range<u64> {
        let start = u64::from(self.raw.offset_bmap.get());
        start..start.saturating_add(u64::from(self.raw.blocks_in_image.get()).saturating_mul(4))
    }

    pub(super) fn layout(&self) -> Layout {
        let extra = u64::from(self.raw.block_extra.get());
        Layout {
            names: &NAMES,
            is_big_endian: false,
            table_offset: self.map().start,
            entries: self.raw.blocks_in_image.get(),
            block_size: self.block_size,
            base: u64::from(self.raw.offset_data.get()),
            unit: extra.saturating_add(self.block_size.bytes()),
            lead: extra,
            zero: Some(0xffff_fffe),
            bitmaps: Bitmaps::None,
            reserved: Vec::new(),
        }
    }
}

fn corrupt(field: &'static str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Corrupt::new(STRUCTURE, 0, field, expected, found).into()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// As QEMU makes it for a disk of 5 MiB.
    fn raw() -> RawHeader {
        let mut raw = RawHeader::new_zeroed();
        raw.signature = SIGNATURE.into();
        raw.version = VERSION.into();
        raw.header_size = 0x180.into();
        raw.image_type = 1.into();
        raw.offset_bmap = 512.into();
        raw.offset_data = 1024.into();
        raw.sector_size = 512.into();
        raw.disk_size = (5 << 20).into();
        raw.block_size = (1 << 20).into();
        raw.blocks_in_image = 5.into();
        raw.uuid_image = [7; 16];
        raw
    }

    #[test]
    fn a_good_header() {
        let header = Header::decode(raw(), 1024).unwrap();
        let layout = header.layout();
        assert_eq!((layout.base, layout.unit, layout.lead), (1024, 1 << 20, 0));
        assert_eq!((header.size, header.map()), (5 << 20, 512..532));
        let odd = RawHeader { disk_size: ((5 << 20) - 1000).into(), block_extra: 512.into(), ..raw() };
        let header = Header::decode(odd, 1024).unwrap();
        assert_eq!((header.size, header.layout().unit), ((5 << 20) - 512, (1 << 20) + 512));
    }

    #[test]
    fn one_wrong_field_each() {
        let refused = |raw: RawHeader| Header::decode(raw, 1024).unwrap_err().to_string();
        assert!(refused(RawHeader { signature: 1.into(), ..raw() }).contains("signature"));
        assert!(refused(RawHeader { version: 0x1_0000.into(), ..raw() }).contains("version 1.0"));
        assert!(refused(RawHeader { image_type: 5.into(), ..raw() }).contains("image_type is 5"));
        assert!(refused(RawHeader { sector_size: 4096.into(), ..raw() }).contains("sector size of 4096"));
        assert!(refused(RawHeader { block_size: 0.into(), ..raw() }).contains("block_size is 0"));
        assert!(refused(RawHeader { block_size: 0x30_0000.into(), ..raw() }).contains("block_size"));
        assert!(refused(RawHeader { disk_size: (6 << 20).into(), ..raw() }).contains("room of 5 blocks"));
        assert!(refused(RawHeader { disk_size: u64::MAX.into(), ..raw() }).contains("disk_size"));
        assert!(refused(RawHeader { blocks_in_image: 129.into(), ..raw() }).contains("within the file"));
        assert!(refused(RawHeader { offset_bmap: 0.into(), ..raw() }).contains("offset_bmap"));
        assert!(refused(RawHeader { offset_data: 512.into(), ..raw() }).contains("offset_data"));
        assert!(refused(RawHeader { offset_data: 1025.into(), ..raw() }).contains("offset_data"));
        assert!(refused(RawHeader { uuid_link: [1; 16], ..raw() }).contains("uuid_link"));
        assert!(refused(RawHeader { uuid_parent: [1; 16], ..raw() }).contains("uuid_link"));
        assert!(
            Header::decode(RawHeader { uuid_link: [1; 16], image_type: 4.into(), ..raw() }, 1024).is_ok()
        );
    }
}
