//! Examining an appliance: the archive, the digests of its manifest, and each of its disks.

use std::sync::Arc;

use ondisk::{Parsed, read_bytes};

use super::archive::{Archive, Disk};
use super::manifest::{self, Algorithm, digest};
use super::open::{FORMAT, member, start};
use super::tar::normal;
use crate::open::{Opening, Source, probe};
use crate::{Problem, Report, Result, Severity};

/// The check of the list of formats. With a chosen member, only that disk is examined, and no digest.
pub(super) fn check(source: &Source, opening: &mut Opening<'_>) -> Result<Report> {
    let failed = source.failed(FORMAT.name);
    let Parsed { value: archive, problems } =
        Archive::read(&source.device, source.title()).map_err(&failed)?;
    let archive = Arc::new(archive);
    let mut report = Report { end: source.device.size(), ..Report::default() };
    for problem in problems {
        report.add(match problem.as_corrupt() {
            Some(corrupt) => Problem::from(corrupt),
            None => Problem::error("OVA", 0, problem.to_string()),
        });
    }
    let wanted = opening.options.member.map(|name| normal(name.as_bytes()));
    for disk in archive.disks.iter().filter(|disk| wanted.as_ref().is_none_or(|name| *name == disk.name)) {
        check_size(&archive, disk, &mut report);
        let outcome = member(&archive, disk, source)
            .map_err(&failed)
            .and_then(|inner| check_disk(&archive, &inner, opening, &mut report));
        if let Err(error) = outcome {
            let at = archive.entry(&disk.name).map_or(0, |entry| entry.offset);
            let below =
                std::error::Error::source(&error).map(|below| format!(": {below}")).unwrap_or_default();
            let summary = format!("{}: {error}{below}", disk.name);
            report.add(Problem::error("OVA", at, summary).affecting("this disk cannot be opened", []));
        }
    }
    if wanted.is_none() {
        check_digests(&archive, &mut report).map_err(&failed)?;
    }
    Ok(report)
}

fn check_size(archive: &Archive, disk: &Disk, report: &mut Report) {
    let (Some(entry), Some(stated)) = (archive.entry(&disk.name), disk.size) else { return };
    if stated != entry.length {
        let summary =
            format!("{} has {} bytes, and its description states {stated}", disk.name, entry.length);
        report.add(Problem::error("OVF description", entry.offset, summary));
    }
}

/// Examines one disk as its own format; its problems are told at their place in the archive, without repairs: any
/// would break the digests.
fn check_disk(
    archive: &Archive,
    inner: &Source,
    opening: &mut Opening<'_>,
    report: &mut Report,
) -> Result<()> {
    let format = probe(inner)?;
    if format.name == FORMAT.name {
        return Err(inner.failed(FORMAT.name)(ondisk::Error::unsupported(
            "OVA",
            "an appliance within an appliance",
        )));
    }
    let number = opening.chain.len();
    let outcome = (format.check)(inner, opening);
    opening.chain.truncate(number);
    let found = outcome?;
    let name = inner.member.as_ref().map_or("", |member| member.name.as_str());
    let mut starts = vec![start(archive, inner)];
    let others = found.files.iter().map(|file| archive.entry(&file.to_string_lossy()));
    starts.extend(others.map(|entry| entry.map_or(0, |entry| entry.offset)));
    for problem in found.problems {
        let at = starts.get(problem.file).copied().unwrap_or(0).saturating_add(problem.offset);
        let summary = format!("{name}: {}", problem.summary);
        report.add(Problem { file: 0, offset: at, summary, repair: None, ..problem });
    }
    for (sum, omitted) in report.omitted.iter_mut().zip(found.omitted) {
        *sum = sum.saturating_add(omitted);
    }
    report.allocated = report.allocated.saturating_add(found.allocated);
    report.compressed = report.compressed.saturating_add(found.compressed);
    Ok(())
}

fn check_digests(archive: &Archive, report: &mut Report) -> ondisk::Result<()> {
    let is_manifest =
        |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("mf"));
    let Some(entry) = archive.entries.iter().find(|entry| is_manifest(&entry.name)) else { return Ok(()) };
    let note = |text: String| Problem::new(Severity::Note, "OVF manifest", entry.offset, text);
    if entry.length > manifest::MAX_SIZE {
        report.add(note(format!("not read: it has {} bytes", entry.length)));
        return Ok(());
    }
    let folder = entry.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let bytes = read_bytes(&*archive.file, entry.offset, usize::try_from(entry.length).unwrap_or(0))?;
    let text = String::from_utf8_lossy(&bytes);
    let (lines, odd) = manifest::parse(&text);
    if odd > 0 {
        report.add(note(format!("{odd} lines are not understood")));
    }
    if lines.iter().any(|line| line.algorithm == Algorithm::Sha1) {
        report.add(note("its SHA-1 digests are not compared".to_owned()));
    }
    // Each member once, however often a hostile manifest lists it.
    let mut seen = std::collections::HashSet::new();
    for line in lines.iter().filter(|line| line.algorithm != Algorithm::Sha1) {
        let name = normal(line.name.as_bytes());
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(listed) = archive.entry_beside(folder, &name) else {
            let summary = format!("lists {name}, which is not in the archive");
            report.add(Problem::error("OVF manifest", entry.offset, summary));
            continue;
        };
        let failed = |source| ondisk::Error::Io { offset: listed.offset, length: listed.length, source };
        let device = archive.device(listed).map_err(failed)?;
        if digest(&*device, line.algorithm).map_err(failed)?.is_some_and(|found| found != line.digest) {
            let summary = format!("{name} is not what its digest in the manifest says");
            report.add(
                Problem::error("OVF manifest", listed.offset, summary)
                    .affecting("it was changed, or damaged on the way", []),
            );
        }
    }
    Ok(())
}
