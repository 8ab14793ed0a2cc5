//! What is wrong with a VDI: every block against the file and against all others, and the count in the header.

use ondisk::Error;

use super::header::{ALLOCATED_AT, Header, STRUCTURE};
use super::open::FORMAT;
use crate::arithmetic::length_of;
use crate::blocks::{Layout, Survey, check_table};
use crate::open::{Opening, Source};
use crate::{Patch, Problem, Report, Result, Severity};

pub(super) fn check(source: &Source, _: &mut Opening<'_>) -> Result<Report> {
    let failed = source.failed(FORMAT.name);
    let file = &*source.device;
    let header = Header::read(file).map_err(&failed)?;
    let layout = header.layout();
    let length = u64::from(layout.entries).saturating_mul(4);
    let io_failed = |error| failed(Error::Io { offset: layout.table_offset, length, source: error });
    let mut report = Report::default();
    let survey = check_table(&mut report, file, &layout, header.size).map_err(io_failed)?;
    check_count(&mut report, &survey, &layout, &header);
    report.end = survey.end(&layout).unwrap_or(layout.base);
    let behind = file.size().saturating_sub(report.end);
    if behind >= layout.unit {
        let summary = format!("{behind} bytes behind the last block");
        report.add(Problem::new(Severity::Leak, layout.names.block, report.end, summary));
    }
    for used in &survey.used {
        let guest = layout.guest(u64::from(used.block), header.size);
        report.allocated = report.allocated.saturating_add(guest.end.saturating_sub(guest.start));
    }
    Ok(report)
}

/// The count of places, which decides where the next block goes. Too high a one only wastes places; too low a
/// one would put a new block over an old one.
fn check_count(report: &mut Report, survey: &Survey, layout: &Layout, header: &Header) {
    let stored = header.raw.blocks_allocated.get();
    let highest = survey.used.last().map_or(0, |used| used.entry.saturating_add(1));
    let used = length_of(&survey.used);
    if u64::from(stored) == used && used == u64::from(highest) {
        return;
    }
    let is_consistent = report.count(Severity::Error) == 0;
    let mut problem = if stored < highest {
        let summary =
            format!("blocks_allocated is {stored}, and place {} is in use", highest.saturating_sub(1));
        Problem::error(STRUCTURE, ALLOCATED_AT, summary)
            .affecting("a writer may put a new block over an old one", [])
    } else if stored > layout.entries {
        let summary = format!("blocks_allocated is {stored}, expected at most {}", layout.entries);
        Problem::error(STRUCTURE, ALLOCATED_AT, summary).affecting("new blocks get places out of range", [])
    } else {
        let unused = u64::from(stored).saturating_sub(used);
        let summary = format!("{unused} of {stored} places are used by no block");
        Problem::new(Severity::Leak, STRUCTURE, ALLOCATED_AT, summary)
    };
    // With free places between the used ones, no number would be right for everybody.
    if is_consistent && used == u64::from(highest) {
        let bytes = highest.to_le_bytes().to_vec();
        let patch = Patch { file: 0, offset: ALLOCATED_AT, bytes };
        problem = problem.repaired_by(format!("set the count of blocks to {highest}"), vec![patch]);
    }
    report.add(problem);
}
