//! What a search found: partitions without a table, metadata of other times.

use std::io::{self, Write};

use storage::lost::{Candidate, Proposal};
use volume::lvm2::HistoryEntry;

use super::{Style, count, date, plain, size};

/// What was found on one disk.
pub(crate) struct Search {
    pub(crate) disk: String,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) proposal: Proposal,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) problems: Vec<String>,
}

/// One version of a volume group's metadata.
pub(crate) struct Version {
    /// The device, or the guest's file, that holds it.
    pub(crate) source: String,
    pub(crate) entry: HistoryEntry,
}

/// A table for each disk, with the evidence for each of its lines; then what was not taken, and why.
pub(crate) fn print_lost(out: &mut dyn Write, searches: &[Search], style: Style) -> io::Result<()> {
    for search in searches {
        let title = format!("{} ({})", plain(&search.disk), size(search.size));
        let number = search.proposal.partitions.len();
        writeln!(out, "{} {}", style.bold(&title), count(number, "partition"))?;
        for partition in &search.proposal.partitions {
            writeln!(
                out,
                "p{:<3} start {:>14}  length {:>14} ({})  {}, type {:02x} or {}",
                partition.number,
                partition.start,
                partition.length,
                size(partition.length),
                style.bold(partition.kind.name()),
                partition.mbr_type,
                partition.gpt_type,
            )?;
            for line in &partition.evidence {
                writeln!(out, "     {}", style.dim(&plain(line)))?;
            }
        }
        for candidate in &search.candidates {
            let Some(reason) = &candidate.rejected else { continue };
            let line = format!("not taken: {} at {}: {reason}", candidate.kind.name(), candidate.start);
            writeln!(out, "{}", style.dim(&plain(&line)))?;
        }
        for problem in &search.problems {
            writeln!(out, "{} {}", style.yellow("!"), plain(problem))?;
        }
    }
    Ok(())
}

/// The versions of each group, the newest first.
pub(crate) fn print_history(
    out: &mut dyn Write,
    versions: &[Version],
    problems: &[String],
    style: Style,
) -> io::Result<()> {
    let mut group = None;
    for Version { source, entry } in versions {
        if group != Some(&entry.group_uuid) {
            group = Some(&entry.group_uuid);
            let title = format!("volume group {} ({})", plain(&entry.group), plain(&entry.group_uuid));
            writeln!(out, "{}", style.bold(&title))?;
        }
        let place = match &entry.place {
            Some(place) => {
                let split = if place.is_split { ", in two parts" } else { "" };
                format!("{source}, byte {}{split}", place.area.saturating_add(place.offset))
            }
            None => source.clone(),
        };
        let when =
            entry.creation_time.map_or_else(String::new, |time| format!("  {}", date(time.cast_signed())));
        let by = entry.creation_host.as_deref().map_or_else(String::new, |host| format!("  {}", plain(host)));
        let mark = if entry.is_committed { style.green("*") } else { " ".into() };
        writeln!(out, "{mark} {:>5}{when}{by}  {}", entry.sequence, style.dim(&plain(&place)))?;
        if let Some(description) = &entry.description {
            writeln!(out, "        {}", plain(description))?;
        }
    }
    if versions.is_empty() {
        writeln!(out, "no LVM2 metadata found")?;
    }
    for problem in problems {
        writeln!(out, "{} {}", style.yellow("!"), plain(problem))?;
    }
    Ok(())
}
