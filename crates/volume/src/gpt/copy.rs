//! One of the two copies: where it is, and what its header and its array are worth.

use ondisk::{Corrupt, crc32};

use super::{EntryArray, Header};
use crate::sectors::Sectors;

/// How the place of a copy was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the specification puts it: sector 1.
    Fixed,
    /// Where the other copy's `alternate_lba` says.
    AlternateLba,
    /// In the disk's last sector.
    LastSector,
    /// At the end of the disk that the protective MBR was written for.
    OldEnd,
    /// By a search for the signature, from the end.
    Scan,
}

impl Place {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "sector 1",
            Self::AlternateLba => "where the other header says",
            Self::LastSector => "the last sector",
            Self::OldEnd => "the end of the disk as it was",
            Self::Scan => "found by a search",
        }
    }
}

/// One copy. Header and array are judged separately: either may be good while the other is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The header's sector.
    pub lba: u64,
    /// How it was found.
    pub place: Place,
    /// The header, or the first thing that is wrong with it.
    pub header: Result<Header, Corrupt>,
    /// First sector of the array: as the header says, else where it would stand.
    pub array_lba: u64,
    /// The array, or what is wrong with it. Without a header of its own it is judged by the other copy's.
    pub array: Result<EntryArray, Corrupt>,
}

impl Copy {
    /// Header and array together, if both are good.
    pub fn good(&self) -> Option<(&Header, &EntryArray)> {
        Some((self.header.as_ref().ok()?, self.array.as_ref().ok()?))
    }
}

/// Which copy, in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) header: &'static str,
    pub(super) array: &'static str,
}
pub(super) const PRIMARY: Names = Names { header: "GPT primary header", array: "GPT primary entry array" };
pub(super) const BACKUP: Names = Names { header: "GPT backup header", array: "GPT backup entry array" };

/// The header in sector `lba`.
pub(super) fn header(
    disk: &mut Sectors<'_>,
    lba: u64,
    sector_size: u64,
    names: &Names,
) -> Result<Header, Corrupt> {
    let sector = disk.read(names.header, lba.saturating_mul(sector_size), sector_size)?;
    Header::decode(&sector, lba, names.header)
}

/// The array at sector `lba`, by the sizes and the checksum in `header`.
pub(super) fn array(
    disk: &mut Sectors<'_>,
    lba: u64,
    header: &Header,
    sector_size: u64,
    names: &Names,
) -> Result<EntryArray, Corrupt> {
    let at = lba.saturating_mul(sector_size);
    let bytes = disk.read(names.array, at, header.array_length())?;
    let computed = crc32(&bytes);
    if computed != header.array_crc32 {
        return Err(Corrupt::checksum(names.array, at, computed, header.array_crc32));
    }
    Ok(EntryArray::decode(bytes, header.entry_size))
}
