//! A table of what was found.

use super::candidate::{Candidate, Kind};

/// Where tools put the starts of partitions, in bytes.
const ALIGNMENT: u64 = 1 << 20;
/// What a file system may leave unused at the end of its partition, in bytes: less than its largest block.
const ROUNDING: u64 = 64 << 10;
/// What the backup copy of a GPT takes at the end, in sectors.
const BACKUP_SECTORS: u64 = 33;

/// A table that could be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// By start, without overlaps, numbered from 1.
    pub partitions: Vec<Proposed>,
}

/// One partition of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// From 1, in the order of the disk: what the number was is not known.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it holds.
    pub kind: Kind,
    /// The byte of an MBR entry.
    pub mbr_type: u8,
    /// The type GUID of a GPT entry, lower case.
    pub gpt_type: String,
    /// What speaks for it.
    pub evidence: Vec<String>,
}

/// The candidates that were not rejected, as partitions of a disk of `disk_size` bytes with sectors of `sector_size`.
///
/// The length is a found table entry's, else the content's own, with two additions: where less than 1 MiB is left to
/// the next partition, or to the place of the backup GPT (33 sectors of `sector_size` before the end), the partition
/// goes up to there; else, where less than 64 KiB is left to a multiple of 1 MiB, up to that. Content that says no
/// length (LUKS) goes up to the next partition, or the place of the backup GPT.
pub fn propose(candidates: &[Candidate], disk_size: u64, sector_size: u64) -> Proposal {
    let usable = disk_size.saturating_sub(BACKUP_SECTORS.saturating_mul(sector_size));
    let mut kept: Vec<&Candidate> = candidates.iter().filter(|found| found.rejected.is_none()).collect();
    kept.sort_by_key(|found| found.start);
    let starts: Vec<u64> = kept.iter().map(|found| found.start).collect();
    let mut partitions = Vec::new();
    for (index, (number, found)) in (1_u32..).zip(kept).enumerate() {
        let next = starts.get(index.saturating_add(1)).copied();
        let limit = next.unwrap_or_else(|| usable.max(found.end()).min(disk_size));
        let end = match (&found.entry, found.length) {
            (Some((_, length)), _) => found.start.saturating_add(*length),
            (None, None) => limit,
            (None, Some(_)) => extended(found.end(), limit),
        };
        partitions.push(Proposed {
            number,
            start: found.start,
            length: end.min(limit).saturating_sub(found.start),
            kind: found.kind,
            mbr_type: mbr_type(found),
            gpt_type: gpt_type(found),
            evidence: found.evidence.clone(),
        });
    }
    Proposal { partitions }
}

fn extended(end: u64, limit: u64) -> u64 {
    if limit.saturating_sub(end) < ALIGNMENT {
        return limit.max(end);
    }
    match end.checked_next_multiple_of(ALIGNMENT) {
        Some(rounded) if rounded.saturating_sub(end) < ROUNDING => rounded,
        _ => end,
    }
}

/// The type that a table gave it, else the usual one.
fn gpt_type(found: &Candidate) -> String {
    match &found.entry {
        Some((kind, _)) if kind.len() > 2 => kind.clone(),
        _ => found.kind.gpt_type().into(),
    }
}

fn mbr_type(found: &Candidate) -> u8 {
    match &found.entry {
        Some((kind, _)) if kind.len() == 2 => u8::from_str_radix(kind, 16).unwrap_or(found.kind.mbr_type()),
        _ => found.kind.mbr_type(),
    }
}
