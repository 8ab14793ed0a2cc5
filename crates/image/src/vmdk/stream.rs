//! Markers and footer of a stream: where everything is in an extent that was written front to back.
//!
//! VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents". Little-endian. A grain is its marker
//! (12 bytes) with the compressed data right behind it; tables, directory and footer each follow a marker of a whole
//! sector. The header says that the directory comes at the end, and the footer, a second header, says where. A
//! stream that was cut short has no footer: its grains are found by walking the markers.

use std::sync::Arc;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{AT_END, Header, MAGIC, RawHeader, SECTOR};
use crate::arithmetic::{round_up, to_index};

/// Bytes of a grain's marker before its data.
pub(super) const GRAIN_MARKER: u64 = 12;

/// Markers in a file that walking goes past, so that it ends: 1 TiB in grains of 64 KiB.
const MAX_MARKERS: usize = 16 << 20;

const STRUCTURE: &str = "VMDK marker";

/// Kinds of sector markers.
pub(super) mod kind {
    pub(in super::super) const END: u32 = 0;
    pub(in super::super) const TABLE: u32 = 1;
    pub(in super::super) const DIRECTORY: u32 = 2;
    pub(in super::super) const FOOTER: u32 = 3;
    /// Progress of a transfer; no data follows.
    pub(super) const PROGRESS: u32 = 4;
}

/// The start of any marker as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawMarker {
    /// For a grain, its first sector on the disk; else the sectors that follow the marker's own.
    pub(super) value: le::U64,
    /// For a grain, bytes of data; else 0.
    pub(super) size: le::U32,
    /// For all but grains.
    pub(super) kind: le::U32,
}
const _: () = assert!(size_of::<RawMarker>() == 16);

/// The grains of a stream, by where they belong.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Number of the grain and first sector of its marker; ascending, each number once.
    grains: Vec<(u32, u32)>,
}

impl Found {
    /// The table that the stream would have had.
    pub(super) fn table(&self, number: u64, entries: u64) -> Option<Arc<[u64]>> {
        let first = number.saturating_mul(entries);
        let end = first.saturating_add(entries);
        let from = self.grains.partition_point(|(grain, _)| u64::from(*grain) < first);
        let to = self.grains.partition_point(|(grain, _)| u64::from(*grain) < end);
        let grains = self.grains.get(from..to).filter(|grains| !grains.is_empty())?;
        let mut table = vec![0; usize::try_from(entries).ok()?];
        for (grain, sector) in grains {
            let within = usize::try_from(u64::from(*grain).saturating_sub(first)).ok()?;
            *table.get_mut(within)? = u64::from(*sector);
        }
        Some(table.into())
    }

    /// The first table from `number` on that has grains.
    pub(super) fn next_table(&self, number: u64, entries: u64) -> Option<u64> {
        let first = number.saturating_mul(entries);
        let from = self.grains.partition_point(|(grain, _)| u64::from(*grain) < first);
        let (grain, _) = self.grains.get(from)?;
        u64::from(*grain).checked_div(entries)
    }

    /// The number of the first grain after all that were found.
    pub(super) fn end(&self) -> u64 {
        self.grains.last().map_or(0, |(grain, _)| u64::from(*grain).saturating_add(1))
    }
}

/// What the end of a stream tells.
#[derive(Debug)]
pub(super) enum End {
    /// The header that counts, and the byte at which it lies.
    Footer(Box<RawHeader>, u64),
    /// There is none: what was found instead, and what the file lacks.
    Scanned(Found, Corrupt),
}

/// Finds the footer of a stream, or its grains where it has none.
///
/// # Errors
/// [`ondisk::Error::Io`].
pub(super) fn find_end(file: &dyn BlockDevice, header: &Header) -> Result<End> {
    let sectors = file.size() / SECTOR;
    // Marker, footer, end marker.
    let regular = sectors.saturating_sub(2).saturating_mul(SECTOR);
    if let Some(footer) = footer_at(file, regular)? {
        return Ok(End::Footer(Box::new(footer), regular));
    }
    scan(file, header)
}

/// The footer at byte `at`, if the sector before it says that it is one and its directory lies before it.
fn footer_at(file: &dyn BlockDevice, at: u64) -> Result<Option<RawHeader>> {
    let Some(marker_at) = at.checked_sub(SECTOR).filter(|marker_at| *marker_at != 0) else { return Ok(None) };
    if at.saturating_add(SECTOR) > file.size() {
        return Ok(None);
    }
    let marker: RawMarker = read_value(file, marker_at)?;
    let footer: RawHeader = read_value(file, at)?;
    let is_one = marker.size.get() == 0
        && marker.kind.get() == kind::FOOTER
        && footer.magic == MAGIC
        && footer.gd_offset.get() != AT_END;
    Ok(is_one.then_some(footer))
}

/// Walks the markers from the first grain on.
fn scan(file: &dyn BlockDevice, header: &Header) -> Result<End> {
    let size = file.size();
    let mut grains = Vec::new();
    let start = header.overhead.max(header.descriptor.as_ref().map_or(SECTOR, |range| range.end)).max(SECTOR);
    let mut at = round_up(start, SECTOR);
    let mut steps = 0_usize;
    while at.saturating_add(SECTOR) <= size && steps < MAX_MARKERS {
        steps = steps.saturating_add(1);
        let marker: RawMarker = read_value(file, at)?;
        let length = u64::from(marker.size.get());
        if length != 0 {
            let end = at.saturating_add(GRAIN_MARKER).saturating_add(length);
            if let Some(grain) = grain_number(&marker, header).filter(|_| end <= size)
                && let Ok(sector) = u32::try_from(at / SECTOR)
            {
                grains.push((grain, sector));
            } else {
                // Cut in the middle of a grain, or no marker at all.
                break;
            }
            at = round_up(end, SECTOR);
            continue;
        }
        let data = marker.value.get().saturating_mul(SECTOR);
        match marker.kind.get() {
            kind::TABLE | kind::DIRECTORY => at = at.saturating_add(SECTOR).saturating_add(data),
            kind::PROGRESS => at = at.saturating_add(SECTOR),
            kind::FOOTER => {
                // A whole stream with something behind it.
                let footer_at_byte = at.saturating_add(SECTOR);
                if let Some(footer) = footer_at(file, footer_at_byte)? {
                    return Ok(End::Footer(Box::new(footer), footer_at_byte));
                }
                break;
            }
            _ => break,
        }
    }
    // Stable, so that of two for one place the later one comes last, and wins.
    grains.sort_by_key(|(grain, _)| *grain);
    grains.reverse();
    grains.dedup_by_key(|(grain, _)| *grain);
    grains.reverse();
    let found = Found { grains };
    let told = format!("none; {} grains were found by their markers up to byte {at:#x}", found.grains.len());
    let place = size.saturating_sub(3 * SECTOR);
    Ok(End::Scanned(
        found,
        Corrupt::new(STRUCTURE, place, "footer", "a footer at the end of the stream", told),
    ))
}

/// The number of the grain behind `marker`, if that can be.
fn grain_number(marker: &RawMarker, header: &Header) -> Option<u32> {
    let start = marker.value.get().checked_mul(SECTOR)?;
    let is_possible =
        start < header.capacity && u64::from(marker.size.get()) <= header.grain.saturating_mul(2);
    let number = start.checked_div(header.grain).filter(|_| start.is_multiple_of(header.grain))?;
    u32::try_from(number).ok().filter(|_| is_possible)
}

/// Where the zlib stream of a grain is, judged by the marker at the start of `bytes`, which were read at byte
/// `at`: bytes before it and the length of both.
///
/// # Errors
/// [`Corrupt`], when the marker belongs to another grain or its length cannot be.
pub(super) fn decode_grain_marker(
    bytes: &[u8],
    at: u64,
    starts: [u64; 2],
    grain: u64,
) -> std::result::Result<(usize, u64), Corrupt> {
    let corrupt =
        |field, expected: String, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
    let (marker, _) = RawMarker::read_from_prefix(bytes)
        .map_err(|_| corrupt("length", "16 bytes".to_owned(), bytes.len().to_string()))?;
    let (lba, length) = (marker.value.get(), u64::from(marker.size.get()));
    if !starts.contains(&lba.saturating_mul(SECTOR)) {
        let [start, _] = starts;
        return Err(corrupt("lba", (start / SECTOR).to_string(), lba.to_string()));
    }
    if length == 0 || length > grain.saturating_mul(2) {
        return Err(corrupt("size", format!("1..={}", grain.saturating_mul(2)), length.to_string()));
    }
    let before = to_index(GRAIN_MARKER).unwrap_or(12);
    Ok((before, GRAIN_MARKER.saturating_add(length)))
}
