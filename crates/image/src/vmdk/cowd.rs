//! COWD header: a sparse extent of ESX (vmfsSparse), most often a snapshot's delta.
//!
//! VMware Virtual Disk Format 5.0, "ESX Server Sparse Extents". Little-endian; everything in sectors of 512 bytes.
//! Grain tables have 4096 entries, and there is one copy of everything.

use std::fmt::Display;

use ondisk::{Corrupt, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::SECTOR;

pub(super) const MAGIC: [u8; 4] = *b"COWD";

/// Entries in every grain table.
pub(super) const TABLE_ENTRIES: u64 = 4096;

/// Bound on grains in sectors (64 MiB); real ones have 1 sector.
const MAX_GRAIN: u32 = 1 << 17;

const STRUCTURE: &str = "VMDK COWD header";

/// The fields that reading needs; names, generations and descriptions follow them.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],          // 0x00 "COWD"
    pub(super) version: le::U32,        // 0x04 1
    pub(super) flags: le::U32,          // 0x08 3
    pub(super) num_sectors: le::U32,    // 0x0c capacity
    pub(super) grain_size: le::U32,     // 0x10
    pub(super) gd_offset: le::U32,      // 0x14
    pub(super) num_gd_entries: le::U32, // 0x18
    pub(super) free_sector: le::U32,    // 0x1c where the next grain goes
}
const _: () = assert!(size_of::<RawHeader>() == 32);

/// A header whose fields agree with each other. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) directory: u64,
    /// The end of what was in use when the file was closed.
    pub(super) free: u64,
}

impl Header {
    /// # Errors
    /// [`Corrupt`] in any field: each is needed.
    pub(super) fn decode(raw: &RawHeader) -> Result<Self> {
        let corrupt = |field, expected: &dyn Display, found: &dyn Display| {
            ondisk::Error::from(Corrupt::new(STRUCTURE, 0, field, expected, found))
        };
        if raw.magic != MAGIC {
            return Err(corrupt("magicNumber", &"COWD", &raw.magic.escape_ascii()));
        }
        if raw.version.get() != 1 {
            return Err(ondisk::Error::unsupported(STRUCTURE, format!("version {}", raw.version)));
        }
        let grain = raw.grain_size.get();
        if !grain.is_power_of_two() || grain > MAX_GRAIN {
            return Err(corrupt("grainSize", &format_args!("a power of two up to {MAX_GRAIN}"), &grain));
        }
        let bytes = |sectors: le::U32| u64::from(sectors.get()).saturating_mul(SECTOR);
        let header = Self {
            capacity: bytes(raw.num_sectors),
            grain: bytes(raw.grain_size),
            directory: bytes(raw.gd_offset),
            free: bytes(raw.free_sector),
        };
        if header.capacity == 0 {
            return Err(corrupt("numSectors", &"at least 1", &0));
        }
        let needed = header.tables();
        if u64::from(raw.num_gd_entries.get()) < needed {
            return Err(corrupt("numGDEntries", &format_args!("at least {needed}"), &raw.num_gd_entries));
        }
        Ok(header)
    }

    /// How many grain tables the directory points to.
    pub(super) fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.grain.saturating_mul(TABLE_ENTRIES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a good header after one change.
    type Case = (&'static str, fn(&mut RawHeader));

    fn good() -> RawHeader {
        RawHeader {
            magic: MAGIC,
            version: 1.into(),
            flags: 3.into(),
            num_sectors: 65_536.into(),
            grain_size: 1.into(),
            gd_offset: 4.into(),
            num_gd_entries: 16.into(),
            free_sector: 5.into(),
        }
    }

    #[test]
    fn one_wrong_field_each() {
        let header = Header::decode(&good()).unwrap();
        assert_eq!(
            (header.capacity, header.grain, header.directory, header.tables()),
            (32 << 20, 512, 2048, 16)
        );
        let cases: [Case; 6] = [
            ("magicNumber", |raw| raw.magic[0] = 0),
            ("version 2", |raw| raw.version = 2.into()),
            ("grainSize is 3", |raw| raw.grain_size = 3.into()),
            ("grainSize is 0", |raw| raw.grain_size = 0.into()),
            ("numSectors is 0", |raw| raw.num_sectors = 0.into()),
            ("numGDEntries is 15, expected at least 16", |raw| raw.num_gd_entries = 15.into()),
        ];
        for (expected, change) in cases {
            let mut raw = good();
            change(&mut raw);
            let found = Header::decode(&raw).unwrap_err().to_string();
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }
}
