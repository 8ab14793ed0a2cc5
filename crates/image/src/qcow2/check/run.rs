//! The order of the examination.

use std::ops::Range;

use blockdev::Device;
use ondisk::{Error, Parsed};

use super::super::Header;
use super::super::header::{extension, feature};
use super::super::snapshot::{self, Table};
use super::counts::{Counts, Owner};
use super::{bitmaps, flags, refcounts, tables};
use crate::open::{Opening, Source};
use crate::{Patch, Problem, Report, Result, Severity};

/// What the parts of an examination share.
pub(super) struct Checking {
    pub(super) file: Device,
    pub(super) header: Header,
    pub(super) counts: Counts,
    pub(super) report: Report,
}

impl Checking {
    /// Counts the clusters of a structure once more. Tells when the place is none, or in other use; returns whether
    /// the structure may be looked at.
    pub(super) fn claim(&mut self, offset: u64, length: u64, references: u32, owner: Owner) -> bool {
        let bits = self.header.cluster_bits;
        let end = offset.saturating_add(length);
        let past = end.saturating_sub(self.file.size());
        if past >= bits.size() {
            let summary = format!("{} of {length} bytes ends past the end of the file", owner.name());
            self.report.add(Problem::error("qcow2 reference", offset, summary));
            return false;
        }
        let mut is_sole = true;
        for cluster in bits.number(offset)..bits.count(end) {
            if let Some(other) = self.counts.add(cluster, references, owner, false).conflict {
                is_sole = false;
                let at = bits.offset(cluster).unwrap_or(u64::MAX);
                let (owner, other) = (owner.name(), other.name());
                let effect = "a write to one destroys the other";
                let problem =
                    Problem::error("qcow2 host cluster", at, format!("used as {owner} and as {other}"));
                self.report.add(problem.affecting(effect, []));
            }
        }
        is_sole
    }

    /// Whether this range of the file is known to hold only zeros.
    pub(super) fn is_hole(&self, offset: u64, length: u64) -> bool {
        self.file.extent_at(offset).is_ok_and(|extent| {
            extent.kind == blockdev::ExtentKind::Zero
                && extent.length >= length.min(self.file.size().saturating_sub(offset))
        })
    }

    /// The part of the disk that `range` covers.
    pub(super) fn on_disk(&self, range: Range<u64>) -> Option<Range<u64>> {
        let range = range.start..range.end.min(self.header.size);
        (range.start < range.end).then_some(range)
    }
}

/// Examines the image in `source`.
pub(in super::super) fn check(source: &Source, _: &mut Opening<'_>) -> Result<Report> {
    let file = source.device.clone();
    let Parsed { value: header, problems } = match Header::read(&*file) {
        Ok(parsed) => parsed,
        Err(Error::Corrupt(corrupt)) => {
            let mut report = Report::default();
            report.add(Problem::from(&*corrupt).affecting("nothing of the disk can be read", []));
            return Ok(report);
        }
        Err(error) => return Err(source.failed("qcow2")(error)),
    };
    let mut checking = Checking { file, header, counts: Counts::new(), report: Report::default() };
    problems.iter().for_each(|problem| add_error(&mut checking.report, problem, 0));
    let is_sane = follow_references(&mut checking).map_err(source.failed("qcow2"))?;
    note_feature_bits(&mut checking, is_sane);
    let bits = checking.header.cluster_bits;
    checking.report.end = bits.offset(checking.counts.end()).unwrap_or(u64::MAX);
    Ok(checking.report)
}

/// Everything that refers to host clusters, then what the image says of them. Returns whether refcounts can be
/// trusted after the repairs that were found.
fn follow_references(checking: &mut Checking) -> ondisk::Result<bool> {
    let header = checking.header.clone();
    checking.claim(0, 1, 1, Owner::Header);
    let snapshots = claim_snapshots(checking, &header);
    claim_encryption(checking, &header);
    bitmaps::follow(checking)?;
    let walked = tables::walk(checking, &snapshots)?;
    if checking.counts.is_full() {
        return Err(Error::unsupported(
            "qcow2 image",
            "examining references scattered over so many clusters",
        ));
    }
    let is_sane = checking.report.count(Severity::Error) == 0;
    let stored = refcounts::compare(checking, is_sane)?;
    flags::check(checking, &walked, snapshots.entries.len())?;
    Ok(is_sane && stored)
}

fn claim_snapshots(checking: &mut Checking, header: &Header) -> Table {
    let Parsed { value: table, problems } = snapshot::read_table(&*checking.file, header);
    problems.iter().for_each(|problem| add_error(&mut checking.report, problem, header.snapshots_offset));
    if table.length > 0 {
        checking.claim(header.snapshots_offset, table.length, 1, Owner::SnapshotTable);
    }
    table
}

fn claim_encryption(checking: &mut Checking, header: &Header) {
    let Some(data) = header.extension(extension::ENCRYPTION) else { return };
    let field = |index| data.as_chunks::<8>().0.get(index).map(|bytes: &[u8; 8]| u64::from_be_bytes(*bytes));
    if let (Some(offset), Some(length)) = (field(0), field(1)) {
        checking.claim(offset, length, 1, Owner::Encryption);
    }
}

/// The dirty and corrupt bits. Each can be cleared when what it warns of is not there, or is repaired with it.
fn note_feature_bits(checking: &mut Checking, is_sane: bool) {
    let header = &checking.header;
    let cleared = |bit: u64| {
        let bits = header.incompatible_features & !bit;
        vec![Patch { file: 0, offset: 0x48, bytes: bits.to_be_bytes().to_vec() }]
    };
    let mut found = Vec::new();
    if header.has(feature::DIRTY) {
        let problem = Problem::new(
            Severity::Error,
            "qcow2 header",
            0x48,
            "the dirty bit is set: the image was not closed cleanly, and its refcounts may be wrong",
        );
        let problem =
            problem.affecting("reads are right; writers that trust the refcounts may destroy data", []);
        found.push(match is_sane {
            true => problem.repaired_by("clear the dirty bit", cleared(feature::DIRTY)),
            false => problem,
        });
    }
    if header.has(feature::CORRUPT) {
        let problem = Problem::new(Severity::Error, "qcow2 header", 0x48, "the corrupt bit is set");
        let problem = problem.affecting("QEMU refuses to write to the image", []);
        found.push(match is_sane && !header.has(feature::DIRTY) {
            true => problem.repaired_by("clear the corrupt bit", cleared(feature::CORRUPT)),
            false => problem,
        });
    }
    found.into_iter().for_each(|problem| checking.report.add(problem));
}

/// A problem of reading as a problem of the image.
pub(super) fn add_error(report: &mut Report, error: &Error, offset: u64) {
    report.add(match error {
        Error::Corrupt(corrupt) => Problem::from(&**corrupt),
        other => Problem::error("qcow2 image", offset, other.to_string()),
    });
}
