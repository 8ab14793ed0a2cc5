//! seSparse headers: the space-efficient sparse extents of ESXi, used for snapshots on VMFS 6.
//!
//! Not published by VMware; the layout is the one that QEMU's and dissect's readers agree on. Little-endian words of
//! 8 bytes; offsets and sizes in sectors of 512 bytes. A constant header, a volatile one with the state of the
//! journal, a directory of table numbers, tables of 4096 entries, grains of 4 KiB.

use std::fmt::Display;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{MAX_CAPACITY, SECTOR};

/// The first word of the constant header.
pub(super) const MAGIC: [u8; 8] = 0xcafe_babe_u64.to_le_bytes();

const VOLATILE_MAGIC: u64 = 0xcafe_cafe;

/// Version 2.1.
const VERSION: u64 = 0x2_0000_0001;

/// Bytes in a grain.
pub(super) const GRAIN: u64 = 4096;

/// Bytes in a grain table.
const TABLE_SIZE: u64 = 32 << 10;

/// Entries in a grain table.
pub(super) const TABLE_ENTRIES: u64 = 4096;

const STRUCTURE: &str = "VMDK seSparse header";

/// The constant header as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: le::U64,            // 0x00
    pub(super) version: le::U64,          // 0x08
    pub(super) capacity: le::U64,         // 0x10
    pub(super) grain_size: le::U64,       // 0x18 8
    pub(super) grain_table_size: le::U64, // 0x20 64
    pub(super) flags: le::U64,            // 0x28 0
    pub(super) reserved: [le::U64; 4],    // 0x30 0
    pub(super) volatile_header: Area,     // 0x50
    pub(super) journal_header: Area,      // 0x60
    pub(super) journal: Area,             // 0x70
    pub(super) grain_directory: Area,     // 0x80
    pub(super) grain_tables: Area,        // 0x90
    pub(super) free_bitmap: Area,         // 0xa0
    pub(super) backmap: Area,             // 0xb0
    pub(super) grains: Area,              // 0xc0
    pub(super) padding: [u8; 304],        // 0xd0
}
const _: () = assert!(size_of::<RawHeader>() == 512);

/// A part of the file, in sectors.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Area {
    pub(super) offset: le::U64,
    pub(super) size: le::U64,
}

/// The volatile header as stored, as far as it is known.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawVolatileHeader {
    pub(super) magic: le::U64,
    pub(super) free_gt_number: le::U64,
    pub(super) next_txn_seq_number: le::U64,
    pub(super) replay_journal: le::U64,
}

/// Headers whose fields agree with each other. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) capacity: u64,
    pub(super) directory: u64,
    pub(super) tables: u64,
    pub(super) grains: u64,
}

impl Header {
    /// Reads both headers.
    ///
    /// # Errors
    /// [`Corrupt`]; [`Error::Unsupported`] for what was never seen, since nothing is published, and for a
    /// journal that waits to be replayed: without it, tables are out of date.
    pub(super) fn read(file: &dyn BlockDevice) -> Result<Self> {
        let raw: RawHeader = read_value(file, 0)?;
        let header = Self::decode(&raw)?;
        let at = raw.volatile_header.offset.get().checked_mul(SECTOR);
        let at = at.filter(|at| at.checked_add(SECTOR).is_some_and(|end| end <= file.size()));
        let at = at.ok_or_else(|| {
            corrupt("volatile header offset", &"a sector of the file", &raw.volatile_header.offset)
        })?;
        let volatile: RawVolatileHeader = read_value(file, at)?;
        if volatile.magic.get() != VOLATILE_MAGIC {
            let expected = format_args!("{VOLATILE_MAGIC:#x}").to_string();
            let found = format_args!("{:#x}", volatile.magic.get()).to_string();
            return Err(Corrupt::new("VMDK seSparse volatile header", at, "magic", expected, found).into());
        }
        if volatile.replay_journal.get() != 0 {
            return Err(Error::unsupported(STRUCTURE, "a journal that waits to be replayed"));
        }
        Ok(header)
    }

    fn decode(raw: &RawHeader) -> Result<Self> {
        let unknown = |what: &str, value: u64| Error::unsupported(STRUCTURE, format!("{what} {value:#x}"));
        if raw.magic.get().to_le_bytes() != MAGIC {
            return Err(corrupt("magic", &"0xcafebabe", &format_args!("{:#x}", raw.magic.get())));
        }
        let expected = [
            ("version", raw.version, VERSION),
            ("a grain size of", raw.grain_size, GRAIN / SECTOR),
            ("a grain table size of", raw.grain_table_size, TABLE_SIZE / SECTOR),
            ("the flags", raw.flags, 0),
        ];
        for (what, found, expected) in expected {
            if found.get() != expected {
                return Err(unknown(what, found.get()));
            }
        }
        if raw.reserved.iter().any(|word| word.get() != 0) || raw.padding.iter().any(|byte| *byte != 0) {
            return Err(Error::unsupported(STRUCTURE, "the content of reserved fields"));
        }
        let capacity = raw.capacity.get();
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(corrupt("capacity", &format_args!("1..={MAX_CAPACITY}"), &capacity));
        }
        let bytes = |sectors: le::U64, field| {
            let in_bytes = sectors.get().checked_mul(SECTOR).filter(|bytes| *bytes < 1 << 62);
            in_bytes.ok_or_else(|| corrupt(field, &"below 2^53", &sectors))
        };
        let header = Self {
            capacity: capacity.saturating_mul(SECTOR),
            directory: bytes(raw.grain_directory.offset, "grain directory offset")?,
            tables: bytes(raw.grain_tables.offset, "grain tables offset")?,
            grains: bytes(raw.grains.offset, "grains offset")?,
        };
        let entries = bytes(raw.grain_directory.size, "grain directory size")? / 8;
        let needed = header.table_count();
        if entries < needed {
            let size = needed.saturating_mul(8).div_ceil(SECTOR);
            let found = raw.grain_directory.size;
            return Err(corrupt("grain directory size", &format_args!("at least {size}"), &found));
        }
        Ok(header)
    }

    /// How many grain tables the directory points to.
    pub(super) fn table_count(&self) -> u64 {
        self.capacity.div_ceil(GRAIN.saturating_mul(TABLE_ENTRIES))
    }
}

fn corrupt(field: &'static str, expected: &dyn Display, found: &dyn Display) -> Error {
    Corrupt::new(STRUCTURE, 0, field, expected, found).into()
}

/// Where the table of a directory entry lies: `Ok(None)` for none, `Err` for an entry that cannot be.
pub(super) fn table_offset(entry: u64, tables: u64) -> Result<Option<u64>, ()> {
    match (entry >> 32, entry & 0xffff_ffff) {
        (0, 0) => Ok(None),
        (0x1000_0000, number) => {
            number.checked_mul(TABLE_SIZE).and_then(|within| within.checked_add(tables)).map(Some).ok_or(())
        }
        _ => Err(()),
    }
}

/// What a grain table entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    /// Zeros, or unmapped by the guest, which reads the same.
    Zero,
    /// First byte of the grain.
    At(u64),
}

/// Decodes a table entry; `None` for one that cannot be.
pub(super) fn entry(word: u64, grains: u64) -> Option<Entry> {
    match word >> 60 {
        0 if word == 0 => Some(Entry::Absent),
        1 | 2 => Some(Entry::Zero),
        3 => {
            // The index is rotated: its low 12 bits lie above the others.
            let index = (word >> 48) & 0xfff | (word & 0xffff_ffff_ffff) << 12;
            let at = index.checked_mul(GRAIN).and_then(|within| within.checked_add(grains));
            at.filter(|at| *at < 1 << 62).map(Entry::At)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        assert_eq!(table_offset(0, 1 << 20), Ok(None));
        assert_eq!(table_offset(0x1000_0000_0000_0003, 1 << 20), Ok(Some((1 << 20) + 3 * 32_768)));
        assert_eq!(table_offset(3, 1 << 20), Err(()));
        assert_eq!(table_offset(0x2000_0000_0000_0003, 1 << 20), Err(()));
        assert_eq!(entry(0, 4096), Some(Entry::Absent));
        assert_eq!(entry(1, 4096), None);
        assert_eq!(entry(0x1000_0000_0000_0000, 4096), Some(Entry::Zero));
        assert_eq!(entry(0x2000_0000_0000_0000, 4096), Some(Entry::Zero));
        assert_eq!(entry(0x3001_0000_0000_0002, 4096), Some(Entry::At(4096 * (1 + 0x2001))));
        assert_eq!(entry(0x3fff_ffff_ffff_ffff, 4096), None);
        assert_eq!(entry(0x4000_0000_0000_0000, 4096), None);
    }
}
