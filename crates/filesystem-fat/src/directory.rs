//! Directories: entries of 32 bytes, and before them the pieces of a long name.
//!
//! fatgen103, §"FAT Directory Structure" and §"FAT Long Directory Entries".

use ondisk::le;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::code_page;

/// Bytes of an entry.
pub(crate) const ENTRY: usize = 32;

const READ_ONLY: u8 = 0x01;
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// The first byte of an entry that was removed.
const REMOVED: u8 = 0xe5;

/// Pieces of the longest name: 255 units, 13 each.
const MAX_PIECES: u8 = 20;

/// An entry as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntry {
    /// 0x00 eight and three bytes, padded with blanks.
    name: [u8; 11],
    /// 0x0b bits: read-only, hidden, system, volume, directory, archive.
    attributes: u8,
    /// 0x0c bit 3: the name is in lower case; bit 4: the extension is.
    case: u8,
    /// 0x0d hundredths of a second to add to the time of creation.
    created_fine: u8,
    /// 0x0e.
    created_time: le::U16,
    /// 0x10.
    created_date: le::U16,
    /// 0x12.
    accessed_date: le::U16,
    /// 0x14 upper half of the first cluster; FAT32 only.
    cluster_high: le::U16,
    /// 0x16.
    modified_time: le::U16,
    /// 0x18.
    modified_date: le::U16,
    /// 0x1a lower half of the first cluster.
    cluster_low: le::U16,
    /// 0x1c bytes; 0 for a directory.
    size: le::U32,
}
const _: () = assert!(size_of::<RawEntry>() == ENTRY);

/// A piece of a long name, as stored in place of an entry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPiece {
    /// 0x00 its number from 1; bit 6 in the last, which comes first.
    order: u8,
    /// 0x01.
    first: [le::U16; 5],
    /// 0x0b 0x0f.
    attributes: u8,
    /// 0x0c 0.
    kind: u8,
    /// 0x0d of the short name.
    checksum: u8,
    /// 0x0e.
    second: [le::U16; 6],
    /// 0x1a 0.
    cluster: le::U16,
    /// 0x1c.
    third: [le::U16; 2],
}
const _: () = assert!(size_of::<RawPiece>() == ENTRY);

/// A file or directory, as its entry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Number of the entry within its directory.
    pub(crate) index: usize,
    pub(crate) name: Vec<u8>,
    pub(crate) facts: Facts,
}

/// What an entry says beside the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) is_directory: bool,
    pub(crate) is_read_only: bool,
    /// 0 for an empty file.
    pub(crate) cluster: u32,
    pub(crate) size: u32,
    /// Seconds since 1970 and nanoseconds, taken as UTC: the zone is not stored.
    pub(crate) modified: (i64, u32),
    pub(crate) created: (i64, u32),
    pub(crate) accessed: i64,
}

impl Facts {
    pub(crate) fn decode(raw: &RawEntry) -> Self {
        let (created, fine) =
            (time(raw.created_date.get(), raw.created_time.get()), u32::from(raw.created_fine));
        Self {
            is_directory: raw.attributes & DIRECTORY != 0,
            is_read_only: raw.attributes & READ_ONLY != 0,
            cluster: u32::from(raw.cluster_high.get()) << 16 | u32::from(raw.cluster_low.get()),
            size: raw.size.get(),
            modified: (time(raw.modified_date.get(), raw.modified_time.get()), 0),
            created: (created.saturating_add(i64::from(fine / 100)), (fine % 100).saturating_mul(10_000_000)),
            accessed: time(raw.accessed_date.get(), 0),
        }
    }
}

/// The entries of a directory's bytes, up to the one that ends it. Volume labels, `.` and `..` are not among them.
pub(crate) fn entries(bytes: &[u8], mut take: impl FnMut(Entry) -> bool) {
    let mut long = LongName::default();
    for (index, bytes) in bytes.chunks_exact(ENTRY).enumerate() {
        let Ok(raw) = RawEntry::read_from_bytes(bytes) else { return };
        let [first, ..] = raw.name;
        if first == 0 {
            return;
        }
        if first == REMOVED {
            long = LongName::default();
            continue;
        }
        if raw.attributes & 0x3f == LONG_NAME {
            if let Ok(piece) = RawPiece::read_from_bytes(bytes) {
                long.add(&piece);
            }
            continue;
        }
        let long = std::mem::take(&mut long);
        if raw.attributes & VOLUME != 0 || raw.name.starts_with(b".") {
            continue;
        }
        let name = long.of(&raw.name).unwrap_or_else(|| short_name(&raw));
        // A name with a slash would lead elsewhere.
        let is_name = !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'/' | 0));
        if is_name && !take(Entry { index, name, facts: Facts::decode(&raw) }) {
            return;
        }
    }
}

/// The label: the entry with the volume attribute.
pub(crate) fn label(bytes: &[u8]) -> Option<Vec<u8>> {
    for bytes in bytes.chunks_exact(ENTRY) {
        let raw = RawEntry::read_from_bytes(bytes).ok()?;
        let [first, ..] = raw.name;
        let cluster = (raw.cluster_high.get(), raw.cluster_low.get());
        match first {
            0 => return None,
            REMOVED => {}
            _ if raw.attributes & VOLUME != 0 && raw.attributes & 0x3f != LONG_NAME && cluster == (0, 0) => {
                let mut name = raw.name;
                restore(&mut name);
                let text = name.trim_ascii_end();
                return (!text.is_empty()).then(|| text.to_vec());
            }
            _ => {}
        }
    }
    None
}

/// 0xe5 as a first byte would mean removed, so it is stored as 0x05.
fn restore(name: &mut [u8; 11]) {
    let [first, ..] = name;
    if *first == 0x05 {
        *first = REMOVED;
    }
}

/// `NAME.EXT`, in the case that Windows NT's bits ask for.
fn short_name(raw: &RawEntry) -> Vec<u8> {
    let mut stored = raw.name;
    restore(&mut stored);
    let part = |bytes: &[u8], is_lower: bool| -> String {
        let characters = bytes.trim_ascii_end().iter().map(|byte| code_page::character(*byte));
        if is_lower { characters.flat_map(char::to_lowercase).collect() } else { characters.collect() }
    };
    let (name, extension) = stored.split_at(8);
    let (name, extension) = (part(name, raw.case & 8 != 0), part(extension, raw.case & 16 != 0));
    match extension.is_empty() {
        true => name.into_bytes(),
        false => format!("{name}.{extension}").into_bytes(),
    }
}

/// The pieces of a long name, which come last first.
#[derive(Default)]
struct LongName {
    /// Units in their order.
    units: Vec<u16>,
    /// The number of the piece that was read last; 0 before the first.
    order: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, piece: &RawPiece) {
        let (order, is_last) = (piece.order & 0x3f, piece.order & 0x40 != 0);
        let follows =
            self.order.checked_sub(1) == Some(order) && self.checksum == piece.checksum && order > 0;
        if is_last && (1..=MAX_PIECES).contains(&order) {
            *self = Self { units: Vec::new(), order, checksum: piece.checksum };
        } else if follows {
            self.order = order;
        } else {
            *self = Self::default();
            return;
        }
        let mut units: Vec<u16> =
            piece.first.iter().chain(&piece.second).chain(&piece.third).map(|unit| unit.get()).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    /// The whole name, if it is one and belongs to this short name.
    fn of(&self, short: &[u8; 11]) -> Option<Vec<u8>> {
        let checksum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.order != 1 || self.checksum != checksum {
            return None;
        }
        let length = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        let units = self.units.get(..length).unwrap_or_default();
        (!units.is_empty()).then(|| String::from_utf16_lossy(units).into_bytes())
    }
}

/// Seconds since 1970 of a date (years since 1980, month, day) and a time (hours, minutes, pairs of seconds). What no
/// calendar has is taken as its nearest date.
fn time(date: u16, time: u16) -> i64 {
    let year = i64::from(date >> 9).saturating_add(1980);
    let month = i64::from(date >> 5 & 0xf).clamp(1, 12);
    let day = i64::from(date & 0x1f).max(1);
    // Days of the civil calendar, counted from March.
    let shifted = if month > 2 { year } else { year.saturating_sub(1) };
    let month_index = (month.saturating_add(9)) % 12;
    let day_of_year = month_index.saturating_mul(153).saturating_add(2) / 5;
    let leap_days = (shifted / 4).saturating_sub(shifted / 100).saturating_add(shifted / 400);
    let days = shifted
        .saturating_mul(365)
        .saturating_add(leap_days)
        .saturating_add(day_of_year)
        .saturating_add(day.saturating_sub(1))
        .saturating_sub(719_468);
    let seconds = i64::from(time >> 11)
        .saturating_mul(3600)
        .saturating_add(i64::from(time >> 5 & 0x3f).saturating_mul(60))
        .saturating_add(i64::from(time & 0x1f).saturating_mul(2));
    days.saturating_mul(86_400).saturating_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // 2026-11-26 18:30:44, and the first that can be stored.
        assert_eq!(time(46 << 9 | 11 << 5 | 26, 18 << 11 | 30 << 5 | 22), 1_795_717_844);
        assert_eq!(time(1 << 5 | 1, 0), 315_532_800);
        assert_eq!(time(0, 0), 315_532_800);
        assert_eq!(time(20 << 9 | 2 << 5 | 29, 0), 951_782_400);
    }
}
