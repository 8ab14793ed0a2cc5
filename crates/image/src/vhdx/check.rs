//! Examining a VHDX file: every structure, both copies of what there are two of, and every block.

use blockdev::{BlockDevice, Device};
use ondisk::{Corrupt, Error, Guid, Parsed, Result, read_bytes};

use super::bat;
use super::blocks::{self, Body};
use super::geometry::to_index;
use super::guid::fresh;
use super::header::{Header, Headers};
use super::log::{self, Replay};
use super::metadata::Metadata;
use super::open::FORMAT;
use super::region::{self, RegionTables, Regions};
use super::space::Taken;
use super::structures::{differing_tables, header_offset, overlaps, places};
use crate::open::{Opening, Source};
use crate::report::{Patch, Problem, Report, Severity};

pub(super) fn check(source: &Source, _: &mut Opening<'_>) -> crate::Result<Report> {
    let mut report = Report::default();
    examine(&source.device, &mut report).map_err(source.failed(FORMAT.name))?;
    Ok(report)
}

/// Goes on as far as what was found allows.
fn examine(file: &Device, report: &mut Report) -> Result<()> {
    report.end = file.size();
    let headers = Headers::read(&**file)?;
    let Some((current, header)) = judge_headers(&headers, report)? else { return Ok(()) };
    let replay = judge_log(file, current, &header, report)?;
    // What any reader sees is the file with its log replayed.
    let view: &dyn BlockDevice = replay.as_ref().map_or(&**file, |replay| &replay.overlay);
    let Some(regions) = judge_regions(&RegionTables::read(view)?, report)? else { return Ok(()) };
    let places = places(&header, &regions);
    for corrupt in overlaps(&places) {
        report.add(Problem::from(&corrupt));
    }
    let Some(metadata) = judge_metadata(view, &regions, report)? else { return Ok(()) };
    if let Err(error) = bat::check_region(&regions.bat, metadata.geometry, view.size()) {
        return hidden(error, metadata.geometry.size(), report);
    }
    let taken = Taken::new(places.iter().map(|(_, range)| range.clone()));
    let body =
        Body { view, bat: regions.bat.start, geometry: metadata.geometry, places: &places, taken: &taken };
    blocks::examine(&body, report)
}

/// Reports damage that hides the whole disk; its length may not be known. Everything else is an error.
fn hidden(error: Error, disk: u64, report: &mut Report) -> Result<()> {
    let corrupt = error.as_corrupt().cloned();
    let corrupt = corrupt.ok_or(error)?;
    report.add(Problem::from(&corrupt).affecting("the disk cannot be read", (disk > 0).then_some(0..disk)));
    Ok(())
}

/// Damage of one of two copies, while the other is whole. A copy that is not damaged but unknown to us is not
/// ours to overwrite.
fn redundant(error: &Error, report: &mut Report, title: &str, patch: Option<Patch>) {
    let (problem, patch) = match error {
        Error::Corrupt(corrupt) => (Problem::from(&**corrupt), patch),
        other => (Problem::error("VHDX copy", 0, other.to_string()), None),
    };
    let problem = problem.affecting("none as long as the other copy is whole", []);
    report.add(match patch {
        Some(patch) => problem.repaired_by(title, vec![patch]),
        None => problem,
    });
}

fn judge_headers(headers: &Headers, report: &mut Report) -> Result<Option<(usize, Header)>> {
    let (current, header) = match headers.current() {
        Ok(current) => current,
        Err(error) => {
            hidden(error, 0, report)?;
            return Ok(None);
        }
    };
    let other = usize::from(current == 0);
    if let Some(Err(error)) = headers.copies.get(other) {
        // It becomes the one that counts, as after any update. Two of the same number would both be in doubt.
        let sequence = header.sequence.checked_add(1);
        let patch = sequence.map(|sequence| header_patch(other, &Header { sequence, ..header }));
        redundant(error, report, "write the damaged header anew from the other one", patch);
    }
    Ok(Some((current, header)))
}

fn header_patch(copy: usize, header: &Header) -> Patch {
    Patch { file: 0, offset: header_offset(copy), bytes: header.encode().to_vec() }
}

fn judge_log(file: &Device, current: usize, header: &Header, report: &mut Report) -> Result<Option<Replay>> {
    let at = header_offset(current);
    let replay = match log::open(file, at, header) {
        Ok(replay) => replay,
        Err(Error::Corrupt(corrupt)) => {
            let effect = "changes of the tables may be lost, and with them any part of the disk";
            report.add(Problem::from(&*corrupt).affecting(effect, []));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let Some(replay) = replay else {
        if let Err(corrupt) = header.check_log(at, file.size()) {
            report.add(Problem::from(&corrupt).affecting("the image cannot be written", []));
        }
        return Ok(None);
    };
    let summary = format!("the log holds {} that may not be in place yet", count(replay.writes, "change"));
    let problem = Problem::new(Severity::Note, log::STRUCTURE, header.log_offset, summary)
        .affecting("none when it is replayed, as here; without that, any part of the disk", []);
    match &replay.truncated {
        Some(corrupt) => {
            report.add(problem);
            report.add(Problem::from(corrupt).affecting("the file was cut short: its end is lost", []));
        }
        None => {
            let patches = replay_patches(file, current, header, &replay)?;
            report.add(problem.repaired_by("replay the log into the file", patches));
        }
    }
    Ok(Some(replay))
}

/// `1 change`, `2 changes`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// What a replay writes, and then both headers, which say that the log is empty.
fn replay_patches(file: &Device, current: usize, header: &Header, replay: &Replay) -> Result<Vec<Patch>> {
    let mut patches = Vec::new();
    let mut end = file.size();
    for range in replay.overlay.changed() {
        let length = to_index(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let bytes = read_bytes(&replay.overlay, range.start, length)?;
        patches.push(Patch { file: 0, offset: range.start, bytes });
        end = end.max(range.end);
    }
    let size = replay.overlay.size();
    if end < size {
        patches.push(Patch { file: 0, offset: size.saturating_sub(1), bytes: vec![0] });
    }
    let other = usize::from(current == 0);
    let clean = Header { log_guid: Guid::NIL, file_write: fresh(), ..*header };
    for (copy, step) in [(other, 1), (current, 2)] {
        let sequence = header.sequence.saturating_add(step);
        patches.push(header_patch(copy, &Header { sequence, ..clean }));
    }
    Ok(patches)
}

fn judge_regions(tables: &RegionTables, report: &mut Report) -> Result<Option<Regions>> {
    let (current, regions) = match tables.current() {
        Ok(current) => current,
        Err(error) => {
            hidden(error, 0, report)?;
            return Ok(None);
        }
    };
    let other = usize::from(current == 0);
    if let (Some(Err(error)), Some(bytes), Some(offset)) =
        (tables.copies.get(other), tables.bytes.get(current), region::OFFSETS.get(other))
    {
        let patch = Patch { file: 0, offset: *offset, bytes: bytes.clone() };
        redundant(error, report, "write the damaged region table anew from the other one", Some(patch));
    }
    if let [Ok(first), Ok(second)] = &tables.copies
        && let Some(corrupt) = differing_tables(first, second)
    {
        report.add(Problem::from(&corrupt).affecting("which one is right is not known", []));
    }
    Ok(Some(regions.clone()))
}

fn judge_metadata(
    view: &dyn BlockDevice,
    regions: &Regions,
    report: &mut Report,
) -> Result<Option<Metadata>> {
    let Parsed { value, problems } = match Metadata::read(view, &regions.metadata) {
        Ok(parsed) => parsed,
        Err(error) => {
            hidden(error, 0, report)?;
            return Ok(None);
        }
    };
    for problem in problems {
        let corrupt = problem.as_corrupt().cloned();
        report.add(Problem::from(&corrupt.ok_or(problem)?));
    }
    if let Some(parent) = &value.parent {
        let disk = 0..value.geometry.size();
        let mut missing = |field, effect: &str| {
            let corrupt =
                Corrupt::new("VHDX parent locator", regions.metadata.start, field, "a value", "none");
            report.add(Problem::from(&corrupt).affecting(effect, [disk.clone()]));
        };
        if parent.linkage.is_none() {
            missing("parent_linkage", "whether a file is the right parent cannot be told");
        }
        if parent.names().is_empty() {
            missing("relative_path", "the parent cannot be found");
        }
    }
    Ok(Some(value))
}
