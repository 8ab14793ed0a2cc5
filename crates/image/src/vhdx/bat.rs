//! VHDX block allocation table: where each block and each sector bitmap lies, and in which state it is.
//!
//! MS-VHDX §2.5. Little-endian words of 8 bytes: the state in bits 0–2, and the place in the file in bits
//! 20–63, in units of 1 MiB.

use std::ops::Range;

use ondisk::{Corrupt, Result};

use super::geometry::{Geometry, HEADER_SECTION, MIB};
use super::space::Taken;

pub(super) const STRUCTURE: &str = "VHDX BAT";
pub(super) const ENTRY: &str = "VHDX BAT entry";

const STATE: u64 = 7;
const OFFSET: u64 = !(MIB - 1);

/// Not in this file: the parent decides, and nothing where there is none.
pub(super) const NOT_PRESENT: u64 = 0;
/// Anything may be read.
pub(super) const UNDEFINED: u64 = 1;
/// Zeros.
pub(super) const ZERO: u64 = 2;
/// Zeros, or what was there before.
pub(super) const UNMAPPED: u64 = 3;
/// All of the block is in this file; a sector bitmap is present.
pub(super) const FULLY_PRESENT: u64 = 6;
/// The sector bitmap says what of the block is in this file.
pub(super) const PARTIALLY_PRESENT: u64 = 7;

/// One entry as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

/// Where the bytes of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// In the parent.
    Absent,
    /// Nowhere: they are zeros.
    Zero,
    /// From this byte of the file on.
    Full(u64),
    /// From this byte of the file on, as far as the sector bitmap says so; in the parent otherwise.
    Partial(u64),
}

/// A field that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) field: &'static str,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Entry {
    pub(super) fn new(state: u64, offset: u64) -> Self {
        Self(offset & OFFSET | state & STATE)
    }

    pub(super) fn state(self) -> u64 {
        self.0 & STATE
    }

    /// The place in bytes; it means something in some states only.
    pub(super) fn offset(self) -> u64 {
        self.0 & OFFSET
    }

    /// Bits that must be zero.
    pub(super) fn reserved(self) -> u64 {
        self.0 & !(STATE | OFFSET)
    }

    /// What the entry of a block says. Blocks without defined content read as zeros, as in QEMU.
    ///
    /// QEMU takes the reserved state 5 for an unmapped block, as drafts of the format had it. No tool writes it,
    /// while one wrong bit makes it from a block with content, so here it is damage.
    pub(super) fn payload(self, geometry: Geometry, taken: &Taken) -> std::result::Result<Content, Damage> {
        match self.state() {
            NOT_PRESENT if geometry.has_parent() => Ok(Content::Absent),
            NOT_PRESENT | UNDEFINED | ZERO | UNMAPPED => Ok(Content::Zero),
            FULLY_PRESENT => self.place(geometry.block_size(), taken).map(Content::Full),
            PARTIALLY_PRESENT if geometry.has_parent() => {
                self.place(geometry.block_size(), taken).map(Content::Partial)
            }
            PARTIALLY_PRESENT => {
                Err(damage("State", "one of a disk without parent", format!("{}", self.state())))
            }
            state => Err(damage("State", "0 to 3, 6 or 7", format!("{state}"))),
        }
    }

    /// Where a sector bitmap lies, by its entry; `None` where there is none.
    pub(super) fn bitmap(self, taken: &Taken) -> std::result::Result<Option<u64>, Damage> {
        match self.state() {
            NOT_PRESENT => Ok(None),
            FULLY_PRESENT => self.place(MIB, taken).map(Some),
            state => Err(damage("State", "0 or 6 of a sector bitmap", format!("{state}"))),
        }
    }

    /// The place, if that may hold `length` bytes of a block.
    fn place(self, length: u64, taken: &Taken) -> std::result::Result<u64, Damage> {
        let offset = self.offset();
        let refused = |expected: &str| Err(damage("FileOffsetMB", expected, format!("{offset:#x} bytes")));
        match offset.checked_add(length) {
            _ if offset < HEADER_SECTION => refused("a place behind the header section"),
            None => refused("a block that ends below 2^64"),
            Some(end) if taken.touches(&(offset..end)) => {
                refused("a place outside of the log and the regions")
            }
            Some(_) => Ok(offset),
        }
    }
}

fn damage(field: &'static str, expected: &str, found: String) -> Damage {
    Damage { field, expected: expected.to_owned(), found }
}

/// Checks that the table in this region is long enough for the disk, and within the file.
pub(super) fn check_region(region: &Range<u64>, geometry: Geometry, file_size: u64) -> Result<()> {
    let needed = geometry.entries().saturating_mul(8);
    let length = region.end.saturating_sub(region.start);
    if length < needed {
        let expected = format!("at least {needed} bytes");
        return Err(Corrupt::new(STRUCTURE, region.start, "Length", expected, length).into());
    }
    let end = region.start.saturating_add(needed.next_multiple_of(4096));
    if end > file_size {
        let expected = format!("entries before {file_size:#x}, the end of the file");
        let found = format_args!("entries up to {end:#x}").to_string();
        return Err(Corrupt::new(STRUCTURE, region.start, "FileOffset", expected, found).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_places() {
        let child = Geometry::new(2 * MIB, 512, 10 * MIB, true).unwrap();
        let base = Geometry::new(2 * MIB, 512, 10 * MIB, false).unwrap();
        let taken = Taken::new([4 * MIB..5 * MIB]);
        let of = |geometry, word: u64| Entry(word).payload(geometry, &taken).map_err(|damage| damage.field);
        assert_eq!(of(child, 0), Ok(Content::Absent));
        assert_eq!(of(base, 0), Ok(Content::Zero));
        for state in [1, 2, 3] {
            assert_eq!(of(child, MIB | state), Ok(Content::Zero));
        }
        assert_eq!(of(base, 5 * MIB + 6), Ok(Content::Full(5 * MIB)));
        assert_eq!(of(child, 5 * MIB + 7), Ok(Content::Partial(5 * MIB)));
        assert_eq!(of(base, 5 * MIB + 7), Err("State"));
        for state in [4, 5] {
            assert_eq!(of(child, 5 * MIB + state), Err("State"));
        }
        for place in [0, 3 * MIB, 4 * MIB, OFFSET] {
            assert_eq!(of(base, place | 6), Err("FileOffsetMB"), "{place:#x}");
        }
        assert_eq!(Entry(5 * MIB + 6).bitmap(&taken), Ok(Some(5 * MIB)));
        assert_eq!(Entry(3 * MIB + 6).bitmap(&taken), Ok(Some(3 * MIB)));
        assert_eq!(Entry(MIB).bitmap(&taken), Ok(None));
        assert!(Entry(5 * MIB + 7).bitmap(&taken).is_err());
        assert_eq!(Entry::new(6, 7 * MIB), Entry(7 * MIB + 6));
        assert_eq!(Entry(0xfffff).reserved(), 0xffff8);
    }

    #[test]
    fn a_table_must_hold_the_disk() {
        let geometry = Geometry::new(MIB, 512, 200_000 * MIB, false).unwrap();
        assert!(check_region(&(MIB..3 * MIB), geometry, 4 * MIB).is_ok());
        assert!(check_region(&(MIB..2 * MIB), geometry, 4 * MIB).is_err());
        assert!(check_region(&(MIB..3 * MIB), geometry, 2 * MIB).is_err());
    }
}
