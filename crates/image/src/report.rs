//! What examining the structures of an image found.

use std::ops::Range;
use std::path::PathBuf;

use crate::Result;
use crate::open::{Opening, Source};

/// Problems that are kept one by one; more are only counted.
const MAX_PROBLEMS: usize = 1000;

/// The result of [`check`](crate::check).
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The name of the format.
    pub format: &'static str,
    /// The files that problems and patches speak of by number: the image itself is 0.
    pub files: Vec<PathBuf>,
    /// In the order in which they were found.
    pub problems: Vec<Problem>,
    /// Problems beyond those, counted by severity: errors, leaks, notes.
    pub omitted: [u64; 3],
    /// Bytes of guest data that the image itself holds, compressed or not, as the guest counts them.
    pub allocated: u64,
    /// Of those, bytes in compressed clusters or grains.
    pub compressed: u64,
    /// First byte behind all that is in use in the file.
    pub end: u64,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Space that nothing uses.
    Leak,
    /// The image breaks the rules of its format: data is, or may become, wrong or unreachable.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The structure, in its specification's words.
    pub structure: &'static str,
    /// The file it lies in: an index into [`Report::files`].
    pub file: usize,
    /// First byte of the structure, or of the damage in it, in that file.
    pub offset: u64,
    /// What is wrong: a fragment in lower case without a full stop.
    pub summary: String,
    /// What that means for the guest: a fragment; empty when it means nothing.
    pub effect: String,
    /// Bytes of the guest's disk that cannot be read, or read wrong.
    pub guest: Vec<Range<u64>>,
    /// The one repair that is certain, if there is one.
    pub repair: Option<Repair>,
}

/// A repair, as the bytes it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What it does: a fragment in the imperative: "write the second grain directory anew from the first".
    pub title: String,
    /// To be written in this order.
    pub patches: Vec<Patch>,
}

/// Bytes of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// An index into [`Report::files`].
    pub file: usize,
    /// First byte in that file; the range may reach past its end.
    pub offset: u64,
    /// The new bytes.
    pub bytes: Vec<u8>,
}

impl Report {
    /// Keeps `problem`, or counts it when there are too many.
    pub fn add(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
            return;
        }
        let [errors, leaks, notes] = &mut self.omitted;
        let count = match problem.severity {
            Severity::Error => errors,
            Severity::Leak => leaks,
            Severity::Note => notes,
        };
        *count = count.saturating_add(1);
    }

    /// How many problems are at least this bad, the omitted ones included.
    pub fn count(&self, least: Severity) -> u64 {
        let [errors, leaks, notes] = self.omitted;
        let omitted = match least {
            Severity::Error => errors,
            Severity::Leak => errors.saturating_add(leaks),
            Severity::Note => errors.saturating_add(leaks).saturating_add(notes),
        };
        let kept = self.problems.iter().filter(|problem| problem.severity >= least).count();
        omitted.saturating_add(u64::try_from(kept).unwrap_or(u64::MAX))
    }
}

impl Problem {
    /// Damage of a structure in the image's own file.
    pub fn error(structure: &'static str, offset: u64, summary: impl Into<String>) -> Self {
        Self::new(Severity::Error, structure, offset, summary)
    }

    /// A problem in the image's own file, without effect, guest ranges or repair.
    pub fn new(severity: Severity, structure: &'static str, offset: u64, summary: impl Into<String>) -> Self {
        Self {
            severity,
            structure,
            file: 0,
            offset,
            summary: summary.into(),
            effect: String::new(),
            guest: Vec::new(),
            repair: None,
        }
    }

    /// The same with what it means for the guest, and for which of its bytes.
    #[must_use]
    pub fn affecting(
        mut self,
        effect: impl Into<String>,
        guest: impl IntoIterator<Item = Range<u64>>,
    ) -> Self {
        self.effect = effect.into();
        self.guest = guest.into_iter().collect();
        self
    }

    /// The same with a repair in the image's own file.
    #[must_use]
    pub fn repaired_by(mut self, title: impl Into<String>, patches: Vec<Patch>) -> Self {
        self.repair = Some(Repair { title: title.into(), patches });
        self
    }
}

impl From<&ondisk::Corrupt> for Problem {
    fn from(corrupt: &ondisk::Corrupt) -> Self {
        let ondisk::Corrupt { structure, offset, field, expected, found } = corrupt;
        Self::error(structure, *offset, format!("{field} is {found}, expected {expected}"))
    }
}

/// The check of formats that have no structures.
pub(crate) fn nothing_to_check(source: &Source, _: &mut Opening<'_>) -> Result<Report> {
    let size = source.device.size();
    Ok(Report { allocated: size, end: size, ..Report::default() })
}
