//! Mending the structures of an image file.

use std::path::Path;

use anyhow::{Context, bail};
use blockdev::BlockDeviceMut;
use image::{Gate, Options, Patch, Problem, Report, Severity, Staging};

/// Rounds after which a repair that keeps finding more is given up. A report holds a thousand problems, so each
/// round may leave some.
const MAX_ROUNDS: usize = 64;

/// Which problems are to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Only space that nothing uses.
    Leaks,
    /// Everything for which one repair is certain.
    All,
}

impl Wanted {
    fn takes(self, problem: &Problem) -> bool {
        problem.repair.is_some() && (self == Self::All || problem.severity == Severity::Leak)
    }
}

/// What a repair came to. The files themselves were not written.
#[derive(Debug)]
pub struct Mended {
    /// The image as it is.
    pub before: Report,
    /// The image as it would be.
    pub after: Report,
    /// The problems that were mended, with their repairs, in order.
    pub repaired: Vec<Problem>,
}

/// Applies every wanted repair to the overlays of `staging`, examines again, and goes on until none is left.
///
/// # Errors
/// The image cannot be examined, a repair cannot be applied, or the result is not better than before.
pub fn mend(
    path: &Path,
    options: &Options<'_>,
    staging: &Staging,
    wanted: Wanted,
    gate: &dyn Gate,
) -> anyhow::Result<Mended> {
    let options = Options { staging: Some(staging), ..*options };
    let before = image::check(path, &options, gate)?;
    let mut after = before.clone();
    let mut repaired = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let taken: Vec<Problem> =
            after.problems.iter().filter(|problem| wanted.takes(problem)).cloned().collect();
        if taken.is_empty() {
            break;
        }
        for patch in
            taken.iter().filter_map(|problem| problem.repair.as_ref()).flat_map(|repair| &repair.patches)
        {
            apply(staging, &after, patch)?;
        }
        let next = image::check(path, &options, gate)?;
        if next.count(Severity::Leak) >= after.count(Severity::Leak) && !next.problems.is_empty() {
            let still = next.problems.first().map_or_else(String::new, |problem| problem.summary.clone());
            bail!("the repair does not help, nothing was written; still: {still}");
        }
        repaired.extend(taken);
        after = next;
    }
    if after.count(Severity::Error) > before.count(Severity::Error) {
        bail!("the repair makes it worse, nothing was written");
    }
    Ok(Mended { before, after, repaired })
}

fn apply(staging: &Staging, report: &Report, patch: &Patch) -> anyhow::Result<()> {
    let path = report.files.get(patch.file).context("a repair of an unknown file")?;
    let file = staging.files().into_iter().find(|file| file.path == *path);
    let file = file.with_context(|| format!("{} was not opened for the repair", path.display()))?;
    file.overlay.grow(patch.offset.saturating_add(patch.bytes.len() as u64))?;
    file.overlay.write_all_at(&patch.bytes, patch.offset)?;
    Ok(())
}
