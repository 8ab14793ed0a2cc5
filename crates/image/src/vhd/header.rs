//! VHD dynamic disk header: where the block allocation table is, and what the disk stands on.
//!
//! Specification, "Dynamic Disk Header Format" and "Block Allocation Table and Data Blocks". Big-endian, 1024
//! bytes at the footer's `data_offset`. Table entries count sectors of 512 bytes.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Parsed, Result, be, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::footer::{self, DiskType, Footer};
use crate::blocks::{Bitmaps, BlockSize, Layout, Names, SECTOR};

/// The first eight bytes.
pub(super) const COOKIE: [u8; 8] = *b"cxsparse";

/// Bytes of the header.
pub(super) const LENGTH: u64 = 1024;

/// Where the checksum is within the header.
pub(super) const CHECKSUM_AT: usize = 36;

/// QEMU's bound on the number of table entries.
const MAX_ENTRIES: u32 = 0x1fff_ffff;

pub(super) const STRUCTURE: &str = "VHD dynamic disk header";

static NAMES: Names =
    Names { entry: "VHD block allocation table entry", block: "VHD data block", bitmap: "VHD sector bitmap" };

/// The header as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 `cxsparse`.
    pub cookie: [u8; 8],
    /// 0x08 all ones.
    pub data_offset: be::U64,
    /// 0x10 where the table lies.
    pub table_offset: be::U64,
    /// 0x18 0x0001_0000.
    pub header_version: be::U32,
    /// 0x1c entries in the table.
    pub max_table_entries: be::U32,
    /// 0x20 bytes of the disk in a block, without its bitmap.
    pub block_size: be::U32,
    /// 0x24 over the whole header.
    pub checksum: be::U32,
    /// 0x28 the parent's `unique_id`; from here on for differencing disks only.
    pub parent_unique_id: [u8; 16],
    /// 0x38 when the parent was last written: seconds since 2000-01-01.
    pub parent_time_stamp: be::U32,
    /// 0x3c zeros.
    pub reserved: be::U32,
    /// 0x40 UTF-16, big-endian.
    pub parent_unicode_name: [u8; 512],
    /// 0x240 other names of the parent.
    pub parent_locators: [RawLocator; 8],
    /// 0x300 zeros.
    pub reserved_2: [u8; 256],
}
const _: () = assert!(size_of::<RawHeader>() == 1024);

/// Where another name of the parent lies.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawLocator {
    /// 0x00 the kind of name: `W2ru`, `W2ku`, `MacX`; zeros for none.
    pub platform_code: [u8; 4],
    /// 0x04 room for the name, in sectors by the specification, in bytes by some writers.
    pub platform_data_space: be::U32,
    /// 0x08 bytes in the name.
    pub platform_data_length: be::U32,
    /// 0x0c zeros.
    pub reserved: be::U32,
    /// 0x10 where the name lies.
    pub platform_data_offset: be::U64,
}
const _: () = assert!(size_of::<RawLocator>() == 24);

/// A header with which the blocks can be found.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) raw: RawHeader,
    /// First byte in the file.
    pub(super) at: u64,
    pub(super) block_size: BlockSize,
}

impl RawHeader {
    pub(super) fn computed_checksum(&self) -> u32 {
        footer::checksum(self.as_bytes(), CHECKSUM_AT)
    }

    pub(super) fn parent_identity(&self) -> String {
        format!("UUID {}", Guid::from_bytes(self.parent_unique_id))
    }
}

impl Header {
    /// Reads and judges the header that `footer` announces. Problems are those that do not prevent reading.
    ///
    /// # Errors
    /// Damage that leaves no way to the blocks.
    pub(super) fn read(device: &dyn BlockDevice, footer: &Footer) -> Result<Parsed<Self>> {
        let at = footer.raw.data_offset.get();
        let end = at.checked_add(LENGTH).filter(|end| *end <= device.size());
        if end.is_none() {
            let expected = format!("{LENGTH} bytes within the file of {}", device.size());
            return Err(Corrupt::new(footer::STRUCTURE, 0, "data_offset", expected, at).into());
        }
        Self::decode(read_value(device, at)?, at, footer.sizes.disk(), device.size())
    }

    /// Judges a header at byte `at` of a file of `file_size` bytes, for a disk of `size` bytes.
    pub(super) fn decode(raw: RawHeader, at: u64, size: u64, file_size: u64) -> Result<Parsed<Self>> {
        let corrupt = |field, expected: String, found: String| -> Error {
            Corrupt::new(STRUCTURE, at, field, expected, found).into()
        };
        if raw.cookie != COOKIE {
            return Err(corrupt("cookie", "`cxsparse`".to_owned(), format!("{:02x?}", raw.cookie)));
        }
        let version = raw.header_version.get();
        if version.wrapping_shr(16) != 1 {
            return Err(corrupt("header_version", "0x10000".to_owned(), format!("{version:#x}")));
        }
        let block_size = BlockSize::new(raw.block_size.get()).ok_or_else(|| {
            corrupt("block_size", "a power of two, at least 512".to_owned(), raw.block_size.to_string())
        })?;
        let entries = raw.max_table_entries.get();
        let table = raw.table_offset.get();
        let room = file_size.saturating_sub(table) / 4;
        if entries > MAX_ENTRIES || u64::from(entries) > room {
            let expected = format!("a table of at most {} entries", room.min(u64::from(MAX_ENTRIES)));
            return Err(corrupt("max_table_entries", expected, entries.to_string()));
        }
        if block_size.count(size) > u64::from(entries) {
            let expected = format!("at least {} for a disk of {size} bytes", block_size.count(size));
            return Err(corrupt("max_table_entries", expected, entries.to_string()));
        }
        let mut problems = Vec::new();
        if raw.computed_checksum() != raw.checksum.get() {
            let problem = Corrupt::checksum(STRUCTURE, at, raw.computed_checksum(), raw.checksum.get());
            problems.push(problem.into());
        }
        Ok(Parsed { value: Self { raw, at, block_size }, problems })
    }

    /// First byte of the table, and first byte behind it.
    pub(super) fn table(&self) -> Range<u64> {
        let start = self.raw.table_offset.get();
        start..start.saturating_add(u64::from(self.raw.max_table_entries.get()).saturating_mul(4))
    }

    /// Bytes of a bitmap: a bit for each sector, in whole sectors.
    fn bitmap_length(&self) -> u64 {
        (self.block_size.bytes() / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
    }

    /// How to find the blocks; `names` are the parts of the file that hold names of the parent.
    pub(super) fn layout(&self, disk_type: DiskType, names: impl IntoIterator<Item = Range<u64>>) -> Layout {
        let own = [0..footer::LENGTH, self.at..self.at.saturating_add(LENGTH), self.table()];
        Layout {
            names: &NAMES,
            is_big_endian: true,
            table_offset: self.raw.table_offset.get(),
            entries: self.raw.max_table_entries.get(),
            block_size: self.block_size,
            base: 0,
            unit: SECTOR,
            lead: self.bitmap_length(),
            zero: None,
            // In a dynamic disk a sector whose bit is 0 was never written, and holds the zeros that the block
            // was made with. QEMU, and we, read it from the file all the same.
            bitmaps: if disk_type == DiskType::Differencing { Bitmaps::Decide } else { Bitmaps::Kept },
            reserved: own.into_iter().chain(names).collect(),
        }
    }
}

/// A header for a new disk, with its checksum.
pub(super) fn sealed(mut raw: RawHeader) -> RawHeader {
    raw.checksum = raw.computed_checksum().into();
    raw
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn raw() -> RawHeader {
        let mut raw = RawHeader::new_zeroed();
        raw.cookie = COOKIE;
        raw.data_offset = u64::MAX.into();
        raw.table_offset = 1536.into();
        raw.header_version = 0x1_0000.into();
        raw.max_table_entries = 3.into();
        raw.block_size = (2 << 20).into();
        sealed(raw)
    }

    fn decode(raw: RawHeader) -> std::result::Result<Vec<String>, String> {
        let parsed = Header::decode(raw, 512, 4_212_736, 2_100_224).map_err(|error| error.to_string())?;
        Ok(parsed.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_good_header() {
        // As QEMU computed it for the same disk.
        assert_eq!(raw().checksum.get(), 0xffff_f474);
        assert_eq!(decode(raw()), Ok(vec![]));
        let header = Header::decode(raw(), 512, 0, 1 << 20).unwrap().value;
        let layout = header.layout(DiskType::Dynamic, [4096..4608]);
        assert_eq!((layout.lead, layout.unit), (512, 512));
        assert_eq!(layout.reserved, [0..512, 512..1536, 1536..1548, 4096..4608]);
    }

    #[test]
    fn one_wrong_field_each() {
        let refused = |raw: RawHeader| decode(sealed(raw)).unwrap_err();
        assert!(refused(RawHeader { cookie: *b"cxsparsE", ..raw() }).contains("cookie"));
        assert!(refused(RawHeader { header_version: 7.into(), ..raw() }).contains("header_version"));
        assert!(refused(RawHeader { block_size: 0x30_0000.into(), ..raw() }).contains("block_size"));
        assert!(refused(RawHeader { block_size: 0.into(), ..raw() }).contains("block_size"));
        assert_eq!(
            refused(RawHeader { max_table_entries: 0x4000_0001.into(), ..raw() }),
            "VHD dynamic disk header at byte 512: max_table_entries is 1073741825, \
             expected a table of at most 524672 entries"
        );
        assert!(refused(RawHeader { table_offset: u64::MAX.into(), ..raw() }).contains("at most 0 entries"));
        assert!(refused(RawHeader { max_table_entries: 2.into(), ..raw() }).contains("at least 3"));
        let stale = decode(RawHeader { reserved: 1.into(), ..raw() }).unwrap();
        assert!(stale[0].contains("checksum"), "{stale:?}");
    }
}
