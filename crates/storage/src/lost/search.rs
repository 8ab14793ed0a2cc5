//! One pass over the data of a disk.

use std::collections::BTreeMap;

use blockdev::{BlockDevice, ExtentKind};
use ondisk::{Corrupt, Error, Parsed};

use super::Kind;
use super::candidate::{Candidate, decide};
use super::probe::{self, Hit};

/// How far a search is, in bytes of the disk; holes count as done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes behind.
    pub done: u64,
    /// The disk's size.
    pub total: u64,
}

/// One read, in bytes.
const STEP: u64 = 1 << 20;
/// Candidates that are kept; a disk with more is noise made to look like superblocks.
const MAX_CANDIDATES: usize = 1 << 14;
/// Lines of evidence for one candidate.
const MAX_EVIDENCE: usize = 16;
/// Errors of the host that are told.
const MAX_ERRORS: usize = 64;

/// Looks at every sector of 512 bytes that is not in a hole, and returns what was found by start, the rejected ones
/// too. `progress` is called after each read of 1 MiB.
///
/// Damage is no problem here, it is what a search is for; the problems are ranges that could not be read.
pub fn search(disk: &dyn BlockDevice, progress: &mut dyn FnMut(Progress)) -> Parsed<Vec<Candidate>> {
    let total = disk.size();
    let mut found: BTreeMap<(u64, Kind, Option<String>), Candidate> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut buffer = vec![0; usize::try_from(STEP.min(total)).unwrap_or(0)];
    let mut offset = 0_u64;
    // Finding where a run ends may cost as much as reading it, so each run is asked for once.
    let mut run = (0_u64, true);
    while offset < total {
        if offset >= run.0 {
            let rest = total.saturating_sub(offset);
            run = match disk.extent_at(offset) {
                Ok(extent) => {
                    (offset.saturating_add(extent.length.clamp(1, rest)), extent.kind == ExtentKind::Data)
                }
                Err(_) => (total, true),
            };
        }
        let (end, is_data) = run;
        if !is_data {
            offset = end;
            progress(Progress { done: offset, total });
            continue;
        }
        // Whole sectors, wherever the run begins; pieces end at multiples of the step.
        let start = offset & !511;
        let step_end = (start & !STEP.saturating_sub(1)).saturating_add(STEP);
        let upper = end.checked_next_multiple_of(512).unwrap_or(end).min(total).min(step_end);
        let piece_length = usize::try_from(upper.saturating_sub(start)).unwrap_or(0);
        let Some(piece) = buffer.get_mut(..piece_length) else { break };
        match disk.read_exact_at(piece, start) {
            Ok(()) => sectors(disk, piece, start, &mut found),
            Err(source) if problems.len() < MAX_ERRORS => {
                problems.push(Error::Io { offset: start, length: upper.saturating_sub(start), source });
            }
            Err(_) => {}
        }
        offset = upper.max(offset.saturating_add(1));
        progress(Progress { done: offset.min(total), total });
    }
    if found.len() >= MAX_CANDIDATES {
        let expected = format!("fewer than {MAX_CANDIDATES} candidates");
        problems.push(Corrupt::new("disk", 0, "content", expected, "more").into());
    }
    let mut candidates = merge(found);
    decide(&mut candidates, total);
    Parsed { value: candidates, problems }
}

fn sectors(
    disk: &dyn BlockDevice,
    piece: &[u8],
    start: u64,
    found: &mut BTreeMap<(u64, Kind, Option<String>), Candidate>,
) {
    let mut at = start;
    for sector in piece.chunks_exact(512) {
        if let Ok(sector) = <&[u8; 512]>::try_from(sector)
            && probe::is_marked(sector)
        {
            for hit in probe::all(disk, sector, at) {
                add(found, hit);
            }
        }
        at = at.saturating_add(512);
    }
}

fn add(found: &mut BTreeMap<(u64, Kind, Option<String>), Candidate>, hit: Hit) {
    let key = (hit.start, hit.kind, hit.uuid.clone());
    if found.len() >= MAX_CANDIDATES && !found.contains_key(&key) {
        return;
    }
    let candidate = found.entry(key).or_insert_with(|| Candidate {
        start: hit.start,
        length: hit.length,
        kind: hit.kind,
        uuid: hit.uuid,
        label: hit.label,
        has_primary: false,
        copies: 0,
        expected_copies: hit.expected_copies,
        entry: None,
        evidence: Vec::new(),
        rejected: None,
    });
    if hit.is_primary {
        // The one at the start is the one that is kept up to date.
        candidate.has_primary = true;
        candidate.length = hit.length;
        candidate.expected_copies = hit.expected_copies;
    } else {
        candidate.copies = candidate.copies.saturating_add(1);
    }
    if hit.entry.is_some() {
        candidate.entry = hit.entry;
    }
    if candidate.evidence.len() < MAX_EVIDENCE {
        candidate.evidence.push(hit.evidence);
    }
}

/// By start; an entry of a table goes to what starts where it says.
fn merge(found: BTreeMap<(u64, Kind, Option<String>), Candidate>) -> Vec<Candidate> {
    let mut merged: Vec<Candidate> = Vec::new();
    // Entries come last of those with one start.
    for (_, candidate) in found {
        if candidate.kind == Kind::Entry {
            let same = merged.iter_mut().rev().take_while(|other| other.start == candidate.start);
            let mut is_known = false;
            for other in same {
                is_known = true;
                if other.entry.is_none() {
                    other.entry.clone_from(&candidate.entry);
                    other.evidence.extend(candidate.evidence.iter().cloned());
                }
            }
            if is_known {
                continue;
            }
        }
        merged.push(candidate);
    }
    merged
}
