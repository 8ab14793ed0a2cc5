//! Examining a VMDK image: descriptor, headers, both copies of directories and tables, and what they point to.

use std::error::Error as _;

use ondisk::Corrupt;

use super::descriptor::STRUCTURE;
use super::disk::{Flat, Part, Placed};
use super::examine::Examination;
use super::grains::Grains;
use super::open::{Extents, FORMAT, Plan, describe, describe_extents};
use super::tables::Scheme;
use crate::open::{Opening, Source};
use crate::{Problem, Report, Result, Severity};

const CUT_SHORT: &str = "the stream was cut short: what was not found reads as zeros";

/// The check of the list of formats.
pub(super) fn check(source: &Source, opening: &mut Opening<'_>) -> Result<Report> {
    let failed = source.failed(FORMAT.name);
    let mut plan = Plan::read(&*source.device).map_err(&failed)?;
    let lines = plan.extents().map_err(&failed)?;
    let link = plan.parent();
    let number = opening.push(describe(source, &plan, &lines, link.clone()));
    let mut report = Report::default();
    if plan.descriptor.is_none() {
        report.add(Problem::error(STRUCTURE, 0, "none: this is one extent of a disk, alone").affecting(
            "whether the disk stands on another is unknown, and what it would hold",
            std::iter::empty(),
        ));
    }
    let mut extents = Extents::new(number, false);
    for (sectors, line) in &lines {
        let start = extents.size;
        if let Err(error) = extents.open(source, opening, &mut plan, *sectors, line.as_ref()) {
            extents.leave_out(*sectors);
            let at = line.as_ref().map_or(0, |line| line.at);
            report.add(
                Problem::error(STRUCTURE, at, said(&error))
                    .affecting("this part of the disk cannot be read", [start..extents.size]),
            );
        }
    }
    for (file, problem) in &plan.problems {
        let mut problem = Problem { file: *file, ..told(problem) };
        if problem.effect == CUT_SHORT {
            problem
                .guest
                .extend(extents.placed.iter().filter(|extent| extent.file == *file).filter_map(not_found));
        }
        report.add(problem);
    }
    for oddity in &plan.oddities {
        let severity = match oddity.as_corrupt() {
            Some(Corrupt { field: "line", .. }) => Severity::Note,
            _ => Severity::Error,
        };
        report.add(Problem { severity, ..told(oddity) });
    }
    if let Some(create_type) = plan.descriptor.as_ref().and_then(|found| found.create_type.as_deref())
        && !extents.placed.iter().all(|extent| fits(create_type, &extent.part))
    {
        let at = plan.descriptor.as_ref().map_or(0, |descriptor| descriptor.at);
        let summary = format!("createType is {create_type}, and its extents are of another kind");
        report.add(Problem::new(Severity::Note, STRUCTURE, at, summary));
    }
    for extent in &extents.placed {
        match &extent.part {
            Part::Flat(flat) => check_flat(extent, flat, &mut report),
            Part::Grains(grains) => {
                let examined = Examination::run(extent, grains, &mut report);
                let failed = |source| failed(ondisk::Error::Io { offset: 0, length: 0, source });
                let end = examined.map_err(failed)?;
                if extent.file == 0 {
                    report.end = report.end.max(end);
                }
            }
            Part::Zero | Part::NoAccess => {}
        }
    }
    if extents.placed.iter().all(|extent| extent.file != 0) {
        report.end = source.device.size();
    }
    describe_extents(opening, number, &extents.placed);
    report.files = opening.chain.get(number).map(|layer| layer.data_files.clone()).unwrap_or_default();
    if let Some(link) = &link
        && let Err(error) = opening.parent(source, link)
    {
        let at = plan.descriptor.as_ref().map_or(0, |descriptor| descriptor.at);
        let effect = "what this image does not hold itself cannot be read, or reads wrong";
        report.add(Problem::error(STRUCTURE, at, said(&error)).affecting(effect, std::iter::empty()));
    }
    Ok(report)
}

fn check_flat(extent: &Placed, flat: &Flat, report: &mut Report) {
    let end = flat.offset.saturating_add(extent.length);
    let size = flat.file.size();
    report.allocated = report.allocated.saturating_add(extent.length);
    if size < end {
        let missing = end.saturating_sub(size).min(extent.length);
        let guest_end = extent.start.saturating_add(extent.length);
        let guest = guest_end.saturating_sub(missing)..guest_end;
        let summary = format!("the file ends at byte {size}, expected {end}");
        report.add(
            Problem { file: extent.file, ..Problem::error("VMDK flat extent", size, summary) }
                .affecting("what lay behind the end of the file is lost, and reads as zeros", [guest]),
        );
    } else if size > end && flat.offset == 0 {
        let summary = format!("the file has {} bytes more than its extent", size.saturating_sub(end));
        let problem = Problem::new(Severity::Note, "VMDK flat extent", end, summary);
        report.add(Problem { file: extent.file, ..problem });
    }
}

/// Why an extent must not be written, and else the end of all that is in use in its file.
pub(super) fn why_not_writable(extent: &Placed, grains: &Grains) -> std::result::Result<u64, String> {
    if !matches!(grains.tables.scheme, Scheme::Hosted(_)) {
        return Err("only hosted sparse extents are written".to_owned());
    }
    let mut report = Report::default();
    let end = Examination::run(extent, grains, &mut report).map_err(|error| error.to_string())?;
    if let Some(problem) = report.problems.iter().find(|problem| problem.severity == Severity::Error) {
        let Problem { structure, offset, summary, .. } = problem;
        return Err(format!("{structure} at byte {offset}: {summary}"));
    }
    if report.count(Severity::Error) > 0 {
        return Err("it has too many problems to tell them all".to_owned());
    }
    let end = end.max(grains.tables.file.size()).checked_next_multiple_of(grains.grain);
    end.ok_or_else(|| "its file is too long".to_owned())
}

/// Whether a disk of this type has such extents; types that may have any fit all.
fn fits(create_type: &str, part: &Part) -> bool {
    let scheme = match part {
        Part::Grains(grains) => Some(&grains.tables.scheme),
        Part::Flat(_) => None,
        Part::Zero | Part::NoAccess => return true,
    };
    match create_type {
        "monolithicSparse" | "twoGbMaxExtentSparse" => {
            matches!(scheme, Some(Scheme::Hosted(hosted)) if !hosted.is_packed)
        }
        "streamOptimized" => {
            matches!(scheme, Some(Scheme::Scanned(_)))
                || matches!(scheme, Some(Scheme::Hosted(hosted)) if hosted.is_packed)
        }
        "monolithicFlat"
        | "twoGbMaxExtentFlat"
        | "vmfs"
        | "vmfsPreallocated"
        | "vmfsEagerZeroedThick"
        | "vmfsThin" => scheme.is_none(),
        "vmfsSparse" => matches!(scheme, Some(Scheme::Cowd { .. })),
        "seSparse" => matches!(scheme, Some(Scheme::SeSparse(_))),
        _ => true,
    }
}

/// The part of the guest's disk after the last grain that was found in a stream without its end.
fn not_found(extent: &Placed) -> Option<std::ops::Range<u64>> {
    let Part::Grains(grains) = &extent.part else { return None };
    let Scheme::Scanned(found) = &grains.tables.scheme else { return None };
    let within = found.end().saturating_mul(grains.grain).min(extent.length);
    Some(extent.start.saturating_add(within)..extent.start.saturating_add(extent.length))
}

/// An error and all below it in one line.
fn said(error: &crate::Error) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        line.push_str(": ");
        line.push_str(&error.to_string());
        below = error.source();
    }
    line
}

fn told(error: &ondisk::Error) -> Problem {
    match error.as_corrupt() {
        Some(corrupt) if corrupt.field == "end of line test" => Problem::from(corrupt)
            .affecting("a transfer as text changed bytes everywhere in the file", std::iter::empty()),
        Some(corrupt) if corrupt.field == "footer" => {
            Problem::from(corrupt).affecting(CUT_SHORT, std::iter::empty())
        }
        Some(corrupt) => Problem::from(corrupt),
        None => Problem::error("VMDK", 0, error.to_string()),
    }
}
