//! What is wrong with a table: what a reader would fail at, and what a writer would destroy.

use std::io;

use blockdev::BlockDevice;

use super::layout::Layout;
use super::survey::{Flaw, Survey, survey};
use crate::{Problem, Report};

/// Reports what is wrong with each entry on its own, and with each block against the next.
pub(crate) fn check_table(
    report: &mut Report,
    file: &dyn BlockDevice,
    layout: &Layout,
    size: u64,
) -> io::Result<Survey> {
    let file_size = file.size();
    let entry = |block: u32| layout.entry_offset(u64::from(block));
    let survey = survey(file, layout, |block, flaw| {
        let guest = layout.guest(u64::from(block), size);
        report.add(match flaw {
            Flaw::Reserved(corrupt) => Problem::from(&corrupt).affecting("the block cannot be read", [guest]),
            Flaw::PastEnd(start, end) => {
                let summary =
                    format!("block {block} lies at bytes {start} to {end}, and the file ends at {file_size}");
                let data = start.saturating_add(layout.lead);
                let present = file_size.saturating_sub(data);
                let missing = guest.start.saturating_add(present).min(guest.end)..guest.end;
                Problem::error(layout.names.entry, entry(block), summary)
                    .affecting("what the file lacks reads as zeros", [missing])
            }
        });
    })?;
    if let Some(block) = survey.stopped_at {
        let summary = format!("damaged throughout: blocks from {block} on were not examined");
        report.add(Problem::error(layout.names.entry, entry(block), summary));
    }
    for (first, second) in survey.overlaps(layout) {
        let summary = format!("blocks {} and {} share bytes of the file", first.block, second.block);
        let guest = [first, second].map(|used| layout.guest(u64::from(used.block), size));
        report.add(
            Problem::error(layout.names.entry, entry(second.block), summary)
                .affecting("a write to one changes the other", guest),
        );
    }
    Ok(survey)
}
