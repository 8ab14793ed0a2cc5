//! Everything in a VHDX file that says where the blocks are, read in the order in which each depends on the
//! one before: header, log, region table, metadata.

use std::ops::Range;

use blockdev::{BlockDevice, Device};
use ondisk::{Corrupt, Error, Parsed, Result};

use super::bat;
use super::header::{self, Header, Headers};
use super::log::{self, Replay};
use super::metadata::{self, Metadata};
use super::region::{RegionTables, Regions};
use super::space::Taken;

/// The structures of a file that can be read.
#[derive(Debug)]
pub(super) struct Structures {
    /// The copy of the header that counts.
    pub(super) current: usize,
    pub(super) header: Header,
    pub(super) replay: Option<Replay>,
    pub(super) regions: Regions,
    pub(super) metadata: Metadata,
    pub(super) taken: Taken,
    /// Copies that are damaged while the other one is not. They harm nobody yet.
    pub(super) redundant: Vec<Error>,
    /// Damage that can be read past, but leaves doubt where a writer may write.
    pub(super) problems: Vec<Error>,
}

impl Structures {
    /// Reads and judges all of them.
    ///
    /// # Errors
    /// Damage that makes the disk unreadable; [`Error::Unsupported`] for what is required and unknown.
    pub(super) fn read(file: &Device) -> Result<Self> {
        let headers = Headers::read(&**file)?;
        let (current, header) = headers.current()?;
        let replay = log::open(file, header_offset(current), &header)?;
        let view: &dyn BlockDevice = replay.as_ref().map_or(&**file, |replay| &replay.overlay);
        let tables = RegionTables::read(view)?;
        let regions = tables.current()?.1.clone();
        let Parsed { value: metadata, mut problems } = Metadata::read(view, &regions.metadata)?;
        bat::check_region(&regions.bat, metadata.geometry, view.size())?;
        let mut redundant: Vec<Error> = headers.copies.into_iter().filter_map(Result::err).collect();
        if let [Ok(first), Ok(second)] = &tables.copies {
            problems.extend(differing_tables(first, second).map(Error::from));
        }
        redundant.extend(tables.copies.into_iter().filter_map(Result::err));
        // A copy of a kind that we do not know is not ours to overwrite.
        problems.extend(redundant.extract_if(.., |error| error.as_corrupt().is_none()));
        problems.extend(replay.as_ref().and_then(|replay| replay.truncated.clone()).map(Error::from));
        let places = places(&header, &regions);
        problems.extend(overlaps(&places).into_iter().map(Error::from));
        if let Err(corrupt) = header.check_log(header_offset(current), view.size()) {
            problems.push(corrupt.into());
        }
        let taken = Taken::new(places.into_iter().map(|(_, range)| range));
        Ok(Self { current, header, replay, regions, metadata, taken, redundant, problems })
    }

    /// The file with its log replayed.
    pub(super) fn view<'a>(&'a self, file: &'a Device) -> &'a dyn BlockDevice {
        self.replay.as_ref().map_or(&**file, |replay| &replay.overlay)
    }
}

/// Where a copy of the header lies.
pub(super) fn header_offset(copy: usize) -> u64 {
    let [first, second] = header::OFFSETS;
    if copy == 0 { first } else { second }
}

/// The log and all regions, each with what it is called.
pub(super) fn places(header: &Header, regions: &Regions) -> Vec<(&'static str, Range<u64>)> {
    let log = header.log_offset..header.log_offset.saturating_add(header.log_length);
    let mut places = vec![
        (log::STRUCTURE, log),
        (bat::STRUCTURE, regions.bat.clone()),
        (metadata::STRUCTURE, regions.metadata.clone()),
    ];
    places.extend(regions.others.iter().map(|(_, range)| ("VHDX region", range.clone())));
    places
}

/// Regions, or the log, that share bytes.
pub(super) fn overlaps(places: &[(&'static str, Range<u64>)]) -> Vec<Corrupt> {
    let mut sorted: Vec<_> = places.iter().filter(|(_, range)| !range.is_empty()).collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut found = Vec::new();
    // Ends only grow, so each place is held against the one that reaches furthest.
    let mut furthest: Option<&(&'static str, Range<u64>)> = None;
    for place in sorted {
        let (structure, range) = place;
        if let Some((other, taken)) = furthest.filter(|(_, taken)| range.start < taken.end) {
            let expected = format!("bytes of its own, behind {:#x}", taken.end);
            let shared = format_args!("{:#x}, within the {other}", range.start).to_string();
            found.push(Corrupt::new(structure, range.start, "FileOffset", expected, shared));
        }
        if furthest.is_none_or(|(_, taken)| taken.end < range.end) {
            furthest = Some(place);
        }
    }
    found
}

/// Two valid tables that say different things.
pub(super) fn differing_tables(first: &Regions, second: &Regions) -> Option<Corrupt> {
    let [_, at] = super::region::OFFSETS;
    let found =
        || format!("another one: BAT at {:#x}, metadata at {:#x}", second.bat.start, second.metadata.start);
    (first != second)
        .then(|| Corrupt::new(super::region::STRUCTURE, at, "entries", "those of the first copy", found()))
}
