//! What is wrong with a VHD: its footers against each other, its header, every block against all others.

use std::io;
use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed};
use zerocopy::IntoBytes;

use super::footer::{self, DiskType, Footer, Footers, Place};
use super::header::{self, Header};
use super::open::{FORMAT, choose};
use super::parent::{self, read_names};
use crate::arithmetic::{length_of, to_index};
use crate::blocks::{Bitmaps, Layout, SECTOR, Survey, check_table};
use crate::open::{Opening, Source};
use crate::{Patch, Problem, Report, Result, Severity};

/// Bytes of guest data that are read at once.
const CHUNK: u64 = 1 << 20;

pub(super) fn check(source: &Source, _: &mut Opening<'_>) -> Result<Report> {
    let failed = source.failed(FORMAT.name);
    let file = &*source.device;
    let footers = Footers::read(file).map_err(&failed)?;
    let (place, footer) = choose(&footers, file.size()).map_err(&failed)?;
    let mut report = Report::default();
    match footer.disk_type {
        DiskType::Fixed => check_fixed(&mut report, footer, place, file.size()),
        DiskType::Dynamic | DiskType::Differencing => {
            let stale = check_blocks(&mut report, file, footer).map_err(&failed)?;
            let is_consistent = report.count(Severity::Error) == 0;
            report.end = report.end.max(footers.end.as_ref().map_or(0, |end| end.at.saturating_add(512)));
            if let Some(header) = stale {
                report.add(stale_header(&header, is_consistent));
            }
            check_footers(&mut report, &footers, place, file.size(), is_consistent);
        }
    }
    Ok(report)
}

fn check_fixed(report: &mut Report, footer: &Footer, place: &Place, file_size: u64) {
    let size = footer.sizes.disk();
    report.allocated = size.min(place.at);
    report.end = file_size;
    if size > place.at {
        let summary = format!("the disk has {size} bytes, and the file only {}", place.at);
        let missing = place.at..size;
        report.add(
            Problem::error(place.structure, place.at, summary)
                .affecting("the rest reads as zeros", [missing]),
        );
    }
}

/// The footers of a disk in blocks; with repairs only if all else is consistent.
fn check_footers(
    report: &mut Report,
    footers: &Footers,
    chosen: &Place,
    file_size: u64,
    is_consistent: bool,
) {
    let places = [&footers.copy, &footers.end].map(|place| place.as_ref());
    let are_the_same = matches!(places, [Some(copy), Some(end)] if copy.raw.as_bytes() == end.raw.as_bytes());
    for problem in footer::problems(footers, chosen, file_size) {
        let is_copy = problem.structure == footer::COPY;
        let [bad, other] = if is_copy { places } else { [places[1], places[0]] };
        let mut found = Problem::from(&problem);
        if bad.is_some_and(|bad| bad.sound().is_some()) {
            // Both are sound and differ.
            found.effect = "QEMU goes by the copy at byte 0, others may not".to_owned();
        } else if let Some(other) = other.filter(|other| other.sound().is_some() && is_consistent) {
            let title = if is_copy {
                "write the copy of the footer anew from the footer"
            } else {
                "write the footer anew from its copy"
            };
            // Where there is none at the end, it goes behind all there is.
            let offset =
                bad.map_or(if is_copy { 0 } else { file_size.next_multiple_of(SECTOR) }, |bad| bad.at);
            found = found.repaired_by(title, vec![patch(offset, other.raw.as_bytes())]);
        } else if let Some(bad) = bad.filter(|bad| bad.footer.is_some() && are_the_same && is_consistent) {
            let title = "compute the checksum anew: both footers say the same, and all else fits them";
            let at = bad.at.saturating_add(64);
            found = found.repaired_by(title, vec![patch(at, &bad.raw.computed_checksum().to_be_bytes())]);
        }
        report.add(found);
    }
}

fn patch(offset: u64, bytes: &[u8]) -> Patch {
    Patch { file: 0, offset, bytes: bytes.to_vec() }
}

/// A header whose checksum is wrong, with the repair if all else is consistent.
fn stale_header(header: &Header, is_consistent: bool) -> Problem {
    let (computed, stored) = (header.raw.computed_checksum(), header.raw.checksum.get());
    let problem = Problem::from(&Corrupt::checksum(header::STRUCTURE, header.at, computed, stored));
    if !is_consistent {
        return problem;
    }
    let title = "compute the checksum anew: the table and all blocks are where the header says";
    problem.repaired_by(title, vec![patch(header.at.saturating_add(36), &computed.to_be_bytes())])
}

/// Everything but the footers; returns the header if its checksum is wrong.
fn check_blocks(
    report: &mut Report,
    file: &dyn BlockDevice,
    footer: &Footer,
) -> ondisk::Result<Option<Header>> {
    let size = footer.sizes.disk();
    let Parsed { value: header, problems } = match Header::read(file, footer) {
        Ok(parsed) => parsed,
        Err(Error::Corrupt(corrupt)) => {
            let everything = 0..size;
            report.add(Problem::from(&*corrupt).affecting("no block can be found", [everything]));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut names = parent::Names::default();
    if footer.disk_type == DiskType::Differencing {
        names = read_names(file, &header);
        names.problems.iter().for_each(|corrupt| report.add(Problem::from(corrupt)));
        if names.names.is_empty() {
            report.add(
                Problem::error(header::STRUCTURE, header.at, "it names no parent").affecting(
                    "nothing but its own sectors can be read without telling what it stands on",
                    [],
                ),
            );
        }
    }
    let layout = header.layout(footer.disk_type, names.ranges);
    let length = u64::from(layout.entries).saturating_mul(4);
    let failed = |source| Error::Io { offset: layout.table_offset, length, source };
    let survey = check_table(report, file, &layout, size).map_err(failed)?;
    check_gaps(report, &survey, &layout, file.size());
    report.end = layout.reserved.iter().map(|range| range.end).max().max(survey.end(&layout)).unwrap_or(0);
    for used in &survey.used {
        let guest = layout.guest(u64::from(used.block), size);
        let start = layout.place(used.entry);
        let sectors = check_bitmap(report, file, &layout, start, &guest).map_err(failed)?;
        let own = match footer.disk_type {
            DiskType::Differencing => sectors.saturating_mul(SECTOR),
            DiskType::Fixed | DiskType::Dynamic => guest.end.saturating_sub(guest.start),
        };
        report.allocated = report.allocated.saturating_add(own);
    }
    Ok((!problems.is_empty()).then_some(header))
}

/// Parts of the file that nothing uses, and that could hold a block.
fn check_gaps(report: &mut Report, survey: &Survey, layout: &Layout, file_size: u64) {
    let mut at = layout.reserved.iter().map(|range| range.end).max().unwrap_or(0);
    let starts = survey.used.iter().map(|used| layout.place(used.entry));
    // Behind the last block is the footer.
    for start in starts.chain([file_size.saturating_sub(footer::LENGTH)]) {
        let gap = start.saturating_sub(at);
        if gap >= layout.footprint() {
            let summary = format!("{gap} bytes that no block uses");
            report.add(Problem::new(Severity::Leak, layout.names.block, at, summary));
        }
        at = at.max(start.saturating_add(layout.footprint()));
    }
}

/// The bitmap of the block at byte `start` of the file; returns how many of the disk's sectors are set in it.
///
/// In a dynamic disk a sector whose bit is 0 must be zeros: some readers do not even look.
fn check_bitmap(
    report: &mut Report,
    file: &dyn BlockDevice,
    layout: &Layout,
    start: u64,
    guest: &Range<u64>,
) -> io::Result<u64> {
    let mut bitmap = vec![0; to_index(layout.lead)?];
    file.read_exact_at(&mut bitmap, start)?;
    let sectors = guest.end.saturating_sub(guest.start) / SECTOR;
    let mut set = 0_u64;
    let mut clear: Vec<Range<u64>> = Vec::new();
    let bits = bitmap.iter().flat_map(|byte| (0..8_u32).map(|bit| byte.wrapping_shl(bit) & 0x80 != 0));
    for (sector, is_set) in (0..sectors).zip(bits) {
        let end = sector.saturating_add(1);
        match clear.last_mut() {
            _ if is_set => set = set.saturating_add(1),
            Some(last) if last.end == sector => last.end = end,
            _ => clear.push(sector..end),
        }
    }
    if layout.bitmaps == Bitmaps::Decide {
        return Ok(set);
    }
    let data = start.saturating_add(layout.lead);
    let mut hidden = Vec::new();
    for run in clear {
        let bytes = run.start.saturating_mul(SECTOR)..run.end.saturating_mul(SECTOR);
        if holds_data(file, data.saturating_add(bytes.start), bytes.end.saturating_sub(bytes.start))? {
            hidden.push(guest.start.saturating_add(bytes.start)..guest.start.saturating_add(bytes.end));
        }
    }
    if !hidden.is_empty() {
        let summary = "sectors that are marked as never written are not zero";
        report.add(
            Problem::new(Severity::Note, layout.names.bitmap, start, summary)
                .affecting("readers that go by the bitmap see zeros, QEMU does not", hidden),
        );
    }
    Ok(set)
}

/// Whether any of these bytes is not zero.
fn holds_data(file: &dyn BlockDevice, offset: u64, length: u64) -> io::Result<bool> {
    let mut done = 0;
    while done < length {
        let mut bytes = vec![0; to_index(CHUNK.min(length.saturating_sub(done)))?];
        file.read_exact_at(&mut bytes, offset.saturating_add(done))?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        done = done.saturating_add(length_of(&bytes));
    }
    Ok(false)
}
