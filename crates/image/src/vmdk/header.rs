//! Sparse extent header: where the grain directories of an extent are, and how its grains are stored.
//!
//! VMware Virtual Disk Format 5.0, "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents".
//! Little-endian. Offsets and sizes are in sectors of 512 bytes in the raw layout, in bytes in the checked type.

use std::fmt::Display;
use std::ops::Range;

use ondisk::le;
use ondisk::{Corrupt, Error, Parsed, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "KDMV", the little-endian form of the number that spells VMDK.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";

/// Bytes in a sector, the unit of this format.
pub(super) const SECTOR: u64 = 512;

/// In `gd_offset` of the header of a stream: the directory comes at the end, and a footer says where.
pub(super) const AT_END: u64 = u64::MAX;

/// What text-mode transfers damage: they change some of these bytes, and every like byte after them.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";

/// Bound on grains in sectors (64 MiB); QEMU's is 1 GiB, and all that exist have 64 KiB.
const MAX_GRAIN: u64 = 1 << 17;

/// Bound on compressed grains in sectors (2 MiB): each is decompressed in memory.
const MAX_PACKED_GRAIN: u64 = 1 << 12;

/// Bound on entries of a grain table, which is also the only number that is written.
const MAX_TABLE_ENTRIES: u32 = 512;

/// Bound on the length of an extent in sectors: 2^62 bytes.
pub(super) const MAX_CAPACITY: u64 = 1 << 53;

const STRUCTURE: &str = "VMDK sparse extent header";

/// Bits of `flags`.
pub(super) mod flag {
    /// The bytes that detect text-mode transfers are valid.
    pub(in super::super) const LINE_END_TEST: u32 = 1;
    /// `rgd_offset` is valid.
    pub(in super::super) const REDUNDANT: u32 = 1 << 1;
    /// A grain table entry of 1 means zeros.
    pub(in super::super) const ZERO_GRAINS: u32 = 1 << 2;
    /// Grains are compressed.
    pub(in super::super) const COMPRESSED: u32 = 1 << 16;
    /// Everything is preceded by a marker, and grains say where they belong.
    pub(in super::super) const MARKERS: u32 = 1 << 17;
    /// A reader that does not know one of these must not read.
    pub(super) const INCOMPATIBLE: u32 = 0xffff_0000;
}

/// The header as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],              // 0x00 "KDMV"
    pub(super) version: le::U32,            // 0x04 1, 2 or 3
    pub(super) flags: le::U32,              // 0x08
    pub(super) capacity: le::U64,           // 0x0c sectors of guest data
    pub(super) grain_size: le::U64,         // 0x14 sectors, a power of two
    pub(super) descriptor_offset: le::U64,  // 0x1c sectors; 0: no embedded descriptor
    pub(super) descriptor_size: le::U64,    // 0x24 sectors
    pub(super) table_entries: le::U32,      // 0x2c entries in a grain table, 512
    pub(super) rgd_offset: le::U64,         // 0x30 sectors: the redundant grain directory
    pub(super) gd_offset: le::U64,          // 0x38 sectors: the grain directory
    pub(super) over_head: le::U64,          // 0x40 sectors before the first grain
    pub(super) unclean_shutdown: u8,        // 0x48
    pub(super) line_ends: [u8; 4],          // 0x49 "\n \r\n"
    pub(super) compress_algorithm: le::U16, // 0x4d 0 none, 1 deflate
    pub(super) padding: [u8; 433],          // 0x4f
}
const _: () = assert!(size_of::<RawHeader>() == 512);

/// A header whose fields agree with each other; what depends on the file is checked where it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    /// Length of the guest data in bytes.
    pub(super) capacity: u64,
    /// Bytes in a grain, a power of two.
    pub(super) grain: u64,
    /// Entries in a grain table.
    pub(super) table_entries: u64,
    /// First byte of the grain directory; `None` for one that comes at the end.
    pub(super) directory: Option<u64>,
    /// First byte of the redundant grain directory.
    pub(super) redundant: Option<u64>,
    /// The embedded descriptor.
    pub(super) descriptor: Option<Range<u64>>,
    /// Bytes before the first grain.
    pub(super) overhead: u64,
    pub(super) is_unclean: bool,
    pub(super) is_compressed: bool,
}

impl RawHeader {
    /// A header without guest data, whose descriptor names the extents that have it.
    pub(super) fn is_stub(&self) -> bool {
        self.capacity.get() == 0 && self.descriptor_offset.get() != 0
    }

    /// The place of the embedded descriptor in bytes.
    pub(super) fn descriptor(&self) -> Option<Range<u64>> {
        let start = self.descriptor_offset.get().checked_mul(SECTOR).filter(|start| *start != 0)?;
        let length = self.descriptor_size.get().checked_mul(SECTOR).filter(|length| *length != 0)?;
        Some(start..start.checked_add(length)?)
    }
}

impl Header {
    /// Judges the header or footer that lies at byte `at`.
    ///
    /// # Errors
    /// [`Corrupt`] in a field without which nothing can be read; [`Error::Unsupported`].
    pub(super) fn decode(raw: &RawHeader, at: u64) -> Result<Parsed<Self>> {
        let corrupt = |field, expected: &dyn Display, found: &dyn Display| {
            Error::from(Corrupt::new(STRUCTURE, at, field, expected, found))
        };
        if raw.magic != MAGIC {
            return Err(corrupt("magicNumber", &"KDMV", &raw.magic.escape_ascii()));
        }
        let (version, flags) = (raw.version.get(), raw.flags.get());
        check_features(version, flags)?;
        let is_compressed = match raw.compress_algorithm.get() {
            0 if flags & flag::COMPRESSED == 0 => false,
            1 => true,
            0 => return Err(corrupt("compressAlgorithm", &"1 for compressed grains", &0)),
            other => return Err(Error::unsupported(STRUCTURE, format!("compression algorithm {other}"))),
        };
        let capacity = raw.capacity.get();
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(corrupt("capacity", &format_args!("1..={MAX_CAPACITY}"), &capacity));
        }
        let grain = raw.grain_size.get();
        let bound = if is_compressed { MAX_PACKED_GRAIN } else { MAX_GRAIN };
        if !grain.is_power_of_two() || grain > bound {
            let expected = format_args!("a power of two up to {bound}").to_string();
            return Err(corrupt("grainSize", &expected, &grain));
        }
        let table_entries = raw.table_entries.get();
        if table_entries == 0 || table_entries > MAX_TABLE_ENTRIES {
            return Err(corrupt("numGTEsPerGT", &"1..=512", &table_entries));
        }
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
        let redundant = Some(bytes(raw.rgd_offset.get())).filter(|_| flags & flag::REDUNDANT != 0);
        let header = Self {
            version,
            flags,
            capacity: bytes(capacity),
            grain: bytes(grain),
            table_entries: u64::from(table_entries),
            directory: Some(raw.gd_offset.get()).filter(|gd| *gd != AT_END).map(bytes),
            redundant: redundant.filter(|rgd| *rgd != 0 && *rgd != u64::MAX),
            descriptor: raw.descriptor(),
            overhead: bytes(raw.over_head.get()),
            is_unclean: raw.unclean_shutdown != 0,
            is_compressed,
        };
        let mut problems = Vec::new();
        if flags & flag::LINE_END_TEST != 0 && raw.line_ends != LINE_ENDS {
            let found = raw.line_ends.escape_ascii();
            problems.push(corrupt("end of line test", &LINE_ENDS.escape_ascii(), &found));
        }
        Ok(Parsed { value: header, problems })
    }

    pub(super) fn has(&self, bit: u32) -> bool {
        self.flags & bit != 0
    }

    /// How many grain tables the directory points to.
    pub(super) fn tables(&self) -> u64 {
        // Neither factor is zero, and their product stays below 2^36.
        self.capacity.div_ceil(self.grain.saturating_mul(self.table_entries))
    }
}

fn check_features(version: u32, flags: u32) -> Result<()> {
    if !(1..=3).contains(&version) {
        return Err(Error::unsupported(STRUCTURE, format!("version {version}")));
    }
    let unknown = flags & flag::INCOMPATIBLE & !(flag::COMPRESSED | flag::MARKERS);
    if unknown != 0 {
        return Err(Error::unsupported(STRUCTURE, format!("the incompatible feature {unknown:#x}")));
    }
    Ok(())
}

/// What a new header is to say; everything in sectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewHeader {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) capacity: u64,
    pub(super) grain: u64,
    /// First sector and number of sectors.
    pub(super) descriptor: (u64, u64),
    pub(super) redundant: u64,
    pub(super) directory: u64,
    pub(super) overhead: u64,
}

impl NewHeader {
    pub(super) fn encode(&self) -> RawHeader {
        let is_compressed = self.flags & flag::COMPRESSED != 0;
        RawHeader {
            magic: MAGIC,
            version: self.version.into(),
            flags: self.flags.into(),
            capacity: self.capacity.into(),
            grain_size: self.grain.into(),
            descriptor_offset: self.descriptor.0.into(),
            descriptor_size: self.descriptor.1.into(),
            table_entries: MAX_TABLE_ENTRIES.into(),
            rgd_offset: self.redundant.into(),
            gd_offset: self.directory.into(),
            over_head: self.overhead.into(),
            unclean_shutdown: 0,
            line_ends: LINE_ENDS,
            compress_algorithm: u16::from(is_compressed).into(),
            padding: [0; 433],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a good header after one change.
    type Case = (&'static str, fn(&mut RawHeader));

    /// As QEMU writes it for a disk of 102,400 bytes (plaso's image.vmdk).
    fn good() -> RawHeader {
        NewHeader {
            version: 1,
            flags: flag::LINE_END_TEST | flag::REDUNDANT,
            capacity: 200,
            grain: 128,
            descriptor: (1, 20),
            redundant: 21,
            directory: 26,
            overhead: 128,
        }
        .encode()
    }

    fn said(change: impl FnOnce(&mut RawHeader)) -> std::result::Result<Parsed<Header>, String> {
        let mut raw = good();
        change(&mut raw);
        Header::decode(&raw, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn the_layout_is_the_one_on_disk() {
        let bytes = good();
        let bytes = bytes.as_bytes();
        assert_eq!(bytes[..16], *b"KDMV\x01\0\0\0\x03\0\0\0\xc8\0\0\0");
        assert_eq!(bytes[0x2c..0x40], [0, 2, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 26, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[0x40..0x50], *b"\x80\0\0\0\0\0\0\0\0\n \r\n\0\0\0");
    }

    #[test]
    fn a_good_header() {
        let Parsed { value: header, problems } = said(|_| ()).unwrap();
        assert!(problems.is_empty());
        assert_eq!((header.capacity, header.grain, header.tables()), (102_400, 65_536, 1));
        assert_eq!((header.directory, header.redundant), (Some(26 * 512), Some(21 * 512)));
        assert_eq!((header.descriptor, header.overhead), (Some(512..21 * 512), 65_536));
    }

    #[test]
    fn one_wrong_field_each_is_fatal() {
        let cases: [Case; 12] = [
            ("magicNumber is KDMW", |raw| raw.magic[3] = b'W'),
            ("version 4 is not supported", |raw| raw.version = 4.into()),
            ("version 0 is not supported", |raw| raw.version = 0.into()),
            ("the incompatible feature 0x40000 is not supported", |raw| raw.flags = 0x40003.into()),
            ("compression algorithm 2", |raw| raw.compress_algorithm = 2.into()),
            ("compressAlgorithm is 0, expected 1", |raw| raw.flags = 0x10003.into()),
            ("capacity is 0", |raw| raw.capacity = 0.into()),
            ("capacity is 18446744073709551615", |raw| raw.capacity = u64::MAX.into()),
            ("grainSize is 0", |raw| raw.grain_size = 0.into()),
            ("grainSize is 129", |raw| raw.grain_size = 129.into()),
            ("numGTEsPerGT is 0", |raw| raw.table_entries = 0.into()),
            ("numGTEsPerGT is 513", |raw| raw.table_entries = 513.into()),
        ];
        for (expected, change) in cases {
            let found = said(change).unwrap_err();
            assert!(found.contains(expected), "{expected}: {found}");
        }
        let large = said(|raw| {
            raw.compress_algorithm = 1.into();
            raw.grain_size = 8192.into();
        });
        assert!(large.unwrap_err().contains("a power of two up to 4096"));
    }

    #[test]
    fn a_text_mode_transfer_is_a_problem() {
        let parsed = said(|raw| raw.line_ends = *b"\r\n \r").unwrap();
        assert_eq!(
            parsed.problems[0].to_string(),
            r"VMDK sparse extent header at byte 0: end of line test is \r\n \r, expected \n \r\n"
        );
        // Without the flag, the bytes mean nothing.
        let parsed = said(|raw| {
            raw.line_ends = [0; 4];
            raw.flags = 2.into();
        });
        assert!(parsed.unwrap().problems.is_empty());
    }

    #[test]
    fn the_redundant_directory_counts_only_with_its_flag() {
        assert_eq!(said(|raw| raw.flags = 1.into()).unwrap().value.redundant, None);
        assert_eq!(said(|raw| raw.rgd_offset = 0.into()).unwrap().value.redundant, None);
        assert_eq!(said(|raw| raw.gd_offset = AT_END.into()).unwrap().value.directory, None);
    }
}
