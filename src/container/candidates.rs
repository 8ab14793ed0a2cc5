//! Parents that were renamed or moved: which files of a folder could be the one that an image was made from.

use std::path::{Path, PathBuf};

use blockdev::BlockDevice;
use image::{DenyAll, Gate, Layer, LayerDisk, Options, OwnContent, ParentLink};

/// Files of a folder that are looked at.
const MAX_FILES: usize = 10_000;

/// Pages of the child that are compared with a candidate.
const MAX_SAMPLES: usize = 512;

/// Runs of the child that are walked to find those pages.
const MAX_RUNS: usize = 100_000;

/// Bytes in a compared page.
const PAGE: usize = 4096;

/// A file that could be the missing parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: &'static str,
    /// How sure: the identity that the child records, or likeness of content.
    pub reason: Reason,
}

/// Why a file is a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It has the identity that the child records.
    Identity(String),
    /// Of so many compared pages that the child holds itself, so many are the same in the file at the same place:
    /// most of a cluster is copied when a few bytes of it change.
    Content {
        /// Pages that are the same.
        same: usize,
        /// Pages that were compared.
        compared: usize,
    },
    /// Only the length of the disk fits.
    Size,
}

/// The files in the folder of `child` that could be what it stands on, the likeliest first.
///
/// `own` is the child's own part, where it can be opened without its parent.
pub fn candidates(
    child: &Path,
    layer: &Layer,
    link: &ParentLink,
    own: Option<&dyn LayerDisk>,
) -> Vec<Candidate> {
    let folder = match child.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let samples = own.map(samples).unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let same = |path: &Path| path.canonicalize().ok() == child.canonicalize().ok();
    let mut found: Vec<Candidate> = entries
        .take(MAX_FILES)
        .filter_map(Result::ok)
        // What a symlink leads to may lie outside, where the gate would not let the image go.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| !same(path))
        .filter_map(|path| judge(path, layer, link, &samples))
        .collect();
    found.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| a.path.cmp(&b.path)));
    found
}

fn rank(candidate: &Candidate) -> f64 {
    match candidate.reason {
        Reason::Identity(_) => 2.0,
        Reason::Content { same, compared } => same as f64 / compared.max(1) as f64,
        Reason::Size => 0.0,
    }
}

fn judge(path: PathBuf, layer: &Layer, link: &ParentLink, samples: &[(u64, Vec<u8>)]) -> Option<Candidate> {
    let options = Options { format: link.format.as_deref(), ..Options::default() };
    // A candidate's own parent is not needed to recognise it.
    let (chain, _) = image::chain(&path, &options, &DenyAll as &dyn Gate);
    let first = chain.into_iter().next()?;
    // The image itself, or another child of the same parent, names the same parent; it is none.
    if first.parent.as_ref().is_some_and(|other| other == link) {
        return None;
    }
    if let Some(wanted) = &link.identity {
        let identity = first.identity.filter(|identity| identity == wanted)?;
        return Some(Candidate { path, format: first.format, reason: Reason::Identity(identity) });
    }
    let disk = first.disk.as_ref().filter(|disk| disk.size() <= layer.virtual_size)?;
    let (same, compared) = compare(disk.as_ref(), samples);
    let reason = match compared {
        0 if disk.size() == layer.virtual_size => Reason::Size,
        0 => return None,
        // Unrelated disks share little but pages of one byte over and over, which are not compared.
        _ if same * 64 >= compared && same > 0 => Reason::Content { same, compared },
        _ => return None,
    };
    Some(Candidate { path, format: first.format, reason })
}

/// Pages that the child holds itself and that are not one byte over and over, spread over the disk.
fn samples(own: &dyn LayerDisk) -> Vec<(u64, Vec<u8>)> {
    let mut held = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_RUNS {
        if at >= own.size() {
            break;
        }
        let Ok(run) = own.own_run_at(at) else { break };
        if matches!(run.content, OwnContent::Stored { .. } | OwnContent::Encoded) {
            held.push(at..at + run.length);
        }
        at += run.length;
    }
    let total: u64 = held.iter().map(|range| (range.end - range.start) / PAGE as u64).sum();
    let step = (total / MAX_SAMPLES as u64).max(1);
    let pages = held.into_iter().flat_map(|range| {
        (range.start.next_multiple_of(PAGE as u64)..range.end.saturating_sub(PAGE as u64 - 1)).step_by(PAGE)
    });
    let mut samples = Vec::new();
    for offset in pages.step_by(usize::try_from(step).unwrap_or(usize::MAX)).take(2 * MAX_SAMPLES) {
        let mut page = vec![0; PAGE];
        if own.read_exact_at(&mut page, offset).is_ok() && page.iter().any(|byte| Some(byte) != page.first())
        {
            samples.push((offset, page));
        }
    }
    samples
}

fn compare(disk: &dyn BlockDevice, samples: &[(u64, Vec<u8>)]) -> (usize, usize) {
    let mut same = 0;
    let mut compared = 0;
    let mut page = vec![0; PAGE];
    for (offset, expected) in samples {
        if disk.read_exact_at(&mut page, *offset).is_ok() {
            compared += 1;
            same += usize::from(page == *expected);
        }
    }
    (same, compared)
}
