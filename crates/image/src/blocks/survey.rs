//! All entries of a table at once: for those who check an image, and before anybody writes to one.

use std::io;

use super::layout::{ABSENT, Content, Layout};
use crate::arithmetic::{length_of, to_index};
use blockdev::BlockDevice;
use ondisk::Corrupt;

/// Bytes of the table that are read at once.
const CHUNK: u64 = 64 << 10;

/// Flawed entries after which a table is damaged throughout.
const MAX_FLAWS: u64 = 1 << 20;

/// Blocks that are kept to be compared: 256 MiB.
const MAX_USED: u64 = 32 << 20;

/// The blocks that a table refers to.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Those in the file, by place.
    pub(crate) used: Vec<Used>,
    /// Entries that stand for zeros.
    pub(crate) zeros: u64,
    /// The first block that was not looked at, because there were more flaws or more blocks than any image of
    /// this size can have.
    pub(crate) stopped_at: Option<u32>,
}

/// A block that lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Used {
    pub(crate) entry: u32,
    /// The number of the block on the disk.
    pub(crate) block: u32,
}

/// What is wrong with one entry.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// It points at the image's own structures.
    Reserved(Corrupt),
    /// The block starts at the first byte and the file has ended before the second.
    PastEnd(u64, u64),
}

/// Reads the whole table; `flawed` hears of the number of each flawed block.
pub(crate) fn survey(
    file: &dyn BlockDevice,
    layout: &Layout,
    mut flawed: impl FnMut(u32, Flaw),
) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut flaws = 0_u64;
    // A block more than fit: then two of them overlap.
    let fit = file.size().checked_div(layout.footprint()).unwrap_or(0).saturating_add(1).min(MAX_USED);
    let mut chunk = Vec::new();
    for block in 0..layout.entries {
        let in_chunk = u64::from(block).saturating_mul(4) % CHUNK;
        if in_chunk == 0 {
            let left = u64::from(layout.entries.saturating_sub(block)).saturating_mul(4);
            chunk.resize(to_index(left.min(CHUNK))?, 0);
            file.read_exact_at(&mut chunk, layout.entry_offset(u64::from(block)))?;
        }
        let stored = chunk.as_chunks::<4>().0.get(to_index(in_chunk / 4)?);
        let entry = stored.map_or(ABSENT, |stored| layout.decode(*stored));
        match layout.content(u64::from(block), entry) {
            Ok(Content::Absent) => {}
            Ok(Content::Zero) => survey.zeros = survey.zeros.saturating_add(1),
            Ok(Content::Host(start)) => {
                let end = start.saturating_add(layout.footprint());
                if end > file.size() {
                    flaws = flaws.saturating_add(1);
                    flawed(block, Flaw::PastEnd(start, end));
                } else {
                    survey.used.push(Used { entry, block });
                }
            }
            Err(corrupt) => {
                flaws = flaws.saturating_add(1);
                flawed(block, Flaw::Reserved(corrupt));
            }
        }
        if length_of(&survey.used) > fit || flaws > MAX_FLAWS {
            survey.stopped_at = Some(block.saturating_add(1));
            break;
        }
    }
    survey.used.sort_unstable();
    Ok(survey)
}

impl Survey {
    /// Pairs of blocks that share bytes of the file, each block with the next one in the file.
    pub(crate) fn overlaps(&self, layout: &Layout) -> impl Iterator<Item = (Used, Used)> {
        self.used.windows(2).filter_map(|pair| match pair {
            [first, second] => {
                let end = layout.place(first.entry).saturating_add(layout.footprint());
                (layout.place(second.entry) < end).then_some((*first, *second))
            }
            _ => None,
        })
    }

    /// First byte behind the last block in the file; `None` without any.
    pub(crate) fn end(&self, layout: &Layout) -> Option<u64> {
        self.used.last().map(|last| layout.place(last.entry).saturating_add(layout.footprint()))
    }
}
