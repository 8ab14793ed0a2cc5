//! Examining every entry of the block allocation table, and who uses which bytes of the file.

use std::ops::Range;

use blockdev::{BlockDevice, ExtentKind};
use ondisk::{Error, Result, read_bytes};

use super::bat::{self, Content, Damage, Entry, PARTIALLY_PRESENT, UNDEFINED, UNMAPPED, ZERO};
use super::geometry::{EntryKind, Geometry, HEADER_SECTION, MIB};
use super::space::{Space, Taken};
use crate::report::{Patch, Problem, Report, Severity};

/// Bytes of the table that are read at once.
const READ: u64 = 64 << 10;

/// A file whose structures are known.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// The file, its log replayed.
    pub(super) view: &'a dyn BlockDevice,
    /// First byte of the block allocation table.
    pub(super) bat: u64,
    pub(super) geometry: Geometry,
    /// The log and the regions.
    pub(super) places: &'a [(&'static str, Range<u64>)],
    /// The same, for questions.
    pub(super) taken: &'a Taken,
}

/// Adds to `report` what is wrong with any block, what nothing uses, and how much is in use.
///
/// # Errors
/// Those of the host.
pub(super) fn examine(body: &Body<'_>, report: &mut Report) -> Result<()> {
    let size = body.view.size();
    let mut walk = Walk {
        body,
        used: Space::new(size),
        doubled: None,
        anchored: None,
        first_block: u64::MAX,
        bitmap: None,
        report,
    };
    walk.used.mark(&(0..HEADER_SECTION));
    for (_, range) in body.places {
        walk.used.mark(range);
    }
    body.for_each_entry(|index, entry| walk.judge(index, entry))?;
    if walk.doubled.is_some() {
        body.for_each_entry(|index, entry| {
            walk.judge_doubled(index, entry);
            Ok(())
        })?;
    }
    let Walk { mut used, anchored, first_block, report, .. } = walk;
    if let Some(anchored) = anchored {
        used.add(&anchored);
    }
    for range in used.free(HEADER_SECTION, size) {
        let length = range.end.saturating_sub(range.start);
        // Writers align blocks and leave room before the first; what could not hold one is no loss.
        if length < body.geometry.block_size() || range.start < first_block {
            continue;
        }
        report.add(Problem::new(
            Severity::Leak,
            "VHDX file",
            range.start,
            format!("{length} bytes that nothing uses"),
        ));
    }
    report.end = used.end().min(size);
    Ok(())
}

impl Body<'_> {
    /// Calls `judge` with each entry that the disk needs. Holes of the file hold entries of zero, about which
    /// nothing can be wrong.
    fn for_each_entry(&self, mut judge: impl FnMut(u64, Entry) -> Result<()>) -> Result<()> {
        let end = self.geometry.entries().saturating_mul(8);
        let mut at = 0;
        while at < end {
            let offset = self.bat.saturating_add(at);
            let failed = |source| Error::Io { offset, length: 1, source };
            let extent = self.view.extent_at(offset).map_err(failed)?;
            let hole = extent.length.saturating_sub(extent.length % 8);
            if extent.kind == ExtentKind::Zero && hole > 0 {
                at = at.saturating_add(hole);
                continue;
            }
            let length = READ.min(end.saturating_sub(at));
            let bytes = read_bytes(self.view, offset, usize::try_from(length).unwrap_or(0))?;
            for (word, index) in bytes.as_chunks::<8>().0.iter().zip(at / 8..) {
                judge(index, Entry(u64::from_le_bytes(*word)))?;
            }
            at = at.saturating_add(length);
        }
        Ok(())
    }

    /// Where an entry says that its block lies, as far as that can be.
    fn place(&self, index: u64, entry: Entry) -> Option<Range<u64>> {
        let (start, length) = match self.geometry.kind(index) {
            EntryKind::Payload(_) => match entry.payload(self.geometry, self.taken).ok()? {
                Content::Full(host) | Content::Partial(host) => (host, self.geometry.block_size()),
                Content::Absent | Content::Zero => return None,
            },
            EntryKind::Bitmap(_) if !self.geometry.has_parent() => return None,
            EntryKind::Bitmap(_) => (entry.bitmap(self.taken).ok()??, MIB),
        };
        Some(start..start.saturating_add(length))
    }

    /// What an entry is called, and the bytes of the disk that hang on it.
    fn subject(&self, index: u64) -> (String, Range<u64>) {
        match self.geometry.kind(index) {
            EntryKind::Payload(block) => (format!("block {block}"), self.geometry.guest(block)),
            EntryKind::Bitmap(chunk) => {
                (format!("the sector bitmap of chunk {chunk}"), self.geometry.chunk_guest(chunk))
            }
        }
    }

    fn entry_offset(&self, index: u64) -> u64 {
        self.bat.saturating_add(index.saturating_mul(8))
    }
}

/// The state of one examination.
#[derive(Debug)]
struct Walk<'a> {
    body: &'a Body<'a>,
    used: Space,
    /// Bytes of blocks that were found to lie where others do.
    doubled: Option<Space>,
    /// First byte of the first block in the file.
    first_block: u64,
    /// Where blocks lay before they were unmapped.
    anchored: Option<Space>,
    /// Where the sector bitmap lies of the chunk that was met last.
    bitmap: Option<(u64, Option<u64>)>,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn judge(&mut self, index: u64, entry: Entry) -> Result<()> {
        if entry.0 == 0 {
            return Ok(());
        }
        match self.body.geometry.kind(index) {
            EntryKind::Bitmap(_) if !self.body.geometry.has_parent() => {
                // QEMU before 8.0 moved neighbouring entries there by mistake.
                let summary = format!("{:#x} for a sector bitmap, of which this disk has none", entry.0);
                self.report.add(self.repairable(Severity::Note, index, summary, 0));
                return Ok(());
            }
            EntryKind::Bitmap(_) => match entry.bitmap(self.body.taken) {
                Ok(_) => self.judge_place(index, entry),
                Err(damage) => self.damaged(index, &damage),
            },
            EntryKind::Payload(block) => match entry.payload(self.body.geometry, self.body.taken) {
                Ok(Content::Absent | Content::Zero) => self.judge_anchor(index, entry),
                Ok(Content::Full(_)) => {
                    self.judge_place(index, entry);
                    let guest = self.body.geometry.guest(block);
                    self.count(guest.end.saturating_sub(guest.start));
                }
                Ok(Content::Partial(_)) => {
                    self.judge_place(index, entry);
                    self.judge_partial(index, block)?;
                }
                Err(damage) => self.damaged(index, &damage),
            },
        }
        if entry.reserved() != 0 {
            let summary =
                format!("reserved bits {:#x} of {} are set", entry.reserved(), self.body.subject(index).0);
            let word = Entry::new(entry.state(), entry.offset()).0;
            self.report.add(self.repairable(Severity::Error, index, summary, word));
        }
        Ok(())
    }

    /// Blocks without content may still name the place where they had some.
    fn judge_anchor(&mut self, index: u64, entry: Entry) {
        let state = entry.state();
        if entry.offset() == 0 {
            return;
        }
        if matches!(state, UNDEFINED | UNMAPPED) {
            let place = entry.offset()..entry.offset().saturating_add(self.body.geometry.block_size());
            self.anchored.get_or_insert_with(|| Space::new(self.body.view.size())).mark(&place);
            return;
        }
        // Hyper-V refuses a disk with a block of zeros that has a place.
        let severity = if state == ZERO { Severity::Error } else { Severity::Note };
        let (subject, _) = self.body.subject(index);
        let summary = format!("{subject} has the place {:#x}, though none in state {state}", entry.offset());
        self.report.add(self.repairable(severity, index, summary, state));
    }

    /// The place of a block must lie in the file and belong to nobody else.
    fn judge_place(&mut self, index: u64, entry: Entry) {
        let Some(place) = self.body.place(index, entry) else { return };
        let size = self.body.view.size();
        if place.end > size {
            let (subject, guest) = self.body.subject(index);
            let summary =
                format!("{subject} ends at {:#x}, behind the end of the file at {size:#x}", place.end);
            let problem = Problem::error(bat::ENTRY, self.body.entry_offset(index), summary);
            let problem = match self.body.geometry.kind(index) {
                EntryKind::Payload(_) => {
                    let missing = guest.start.saturating_add(size.saturating_sub(place.start)).min(guest.end);
                    problem.affecting("what is missing reads as zeros", [missing..guest.end])
                }
                EntryKind::Bitmap(_) => {
                    problem.affecting("it is not known which sectors are in this file", [guest])
                }
            };
            self.report.add(problem);
        }
        self.first_block = self.first_block.min(place.start);
        if self.used.mark(&place) {
            self.doubled.get_or_insert_with(|| Space::new(size)).mark(&place);
        }
    }

    /// Reports an entry whose place another one claims too.
    fn judge_doubled(&mut self, index: u64, entry: Entry) {
        let is_doubled = |place: &Range<u64>| self.doubled.as_ref().is_some_and(|space| space.touches(place));
        let Some(place) = self.body.place(index, entry).filter(is_doubled) else { return };
        let (subject, guest) = self.body.subject(index);
        let summary = format!("{subject} at {:#x} shares bytes of the file with another block", place.start);
        let problem = Problem::error(bat::ENTRY, self.body.entry_offset(index), summary);
        self.report.add(problem.affecting("one of them shows the content of the other", [guest]));
    }

    /// A partially present block needs a sector bitmap.
    fn judge_partial(&mut self, index: u64, block: u64) -> Result<()> {
        let geometry = self.body.geometry;
        let chunk = geometry.chunk(block);
        let bitmap_block = match self.bitmap.filter(|(known, _)| *known == chunk) {
            Some((_, bitmap_block)) => bitmap_block,
            None => {
                let at = self.body.entry_offset(geometry.bitmap_index(chunk));
                let bytes = read_bytes(self.body.view, at, 8)?;
                let entry = Entry(u64::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default()));
                entry.bitmap(self.body.taken).ok().flatten()
            }
        };
        self.bitmap = Some((chunk, bitmap_block));
        let Some(bitmap_block) = bitmap_block else {
            let summary = format!(
                "block {block} is in state {PARTIALLY_PRESENT}, but its chunk {chunk} has no sector bitmap"
            );
            let problem = Problem::error(bat::ENTRY, self.body.entry_offset(index), summary);
            let effect = "it is not known which sectors are in this file";
            self.report.add(problem.affecting(effect, [geometry.guest(block)]));
            return Ok(());
        };
        let guest = geometry.guest(block);
        let sectors = geometry.sector(guest.end.saturating_sub(guest.start));
        let start = bitmap_block.saturating_add(geometry.first_bit(block) / 8);
        let in_file = self.body.view.size().saturating_sub(start).min(sectors.div_ceil(8));
        if in_file == 0 {
            return Ok(());
        }
        let bits = read_bytes(self.body.view, start, usize::try_from(in_file).unwrap_or(0))?;
        let whole = bits.get(..usize::try_from(sectors / 8).unwrap_or(0)).unwrap_or(&bits);
        let mut here: u64 = whole.iter().map(|byte| u64::from(byte.count_ones())).sum();
        if let Some(last) = bits.get(whole.len()) {
            let mask = 1_u8.wrapping_shl(u32::try_from(sectors % 8).unwrap_or(0)).wrapping_sub(1);
            here = here.saturating_add((last & mask).count_ones().into());
        }
        self.count(geometry.sector_bytes(here));
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.report.allocated = self.report.allocated.saturating_add(bytes);
    }

    fn damaged(&mut self, index: u64, damage: &Damage) {
        let (subject, guest) = self.body.subject(index);
        let Damage { field, expected, found } = damage;
        let summary = format!("{field} of {subject} is {found}, expected {expected}");
        let problem = Problem::error(bat::ENTRY, self.body.entry_offset(index), summary);
        let effect = match self.body.geometry.kind(index) {
            EntryKind::Payload(_) => "the block cannot be read",
            EntryKind::Bitmap(_) => "it is not known which sectors are in this file",
        };
        self.report.add(problem.affecting(effect, [guest]));
    }

    /// A problem that goes away with the right word in the table.
    fn repairable(&self, severity: Severity, index: u64, summary: String, word: u64) -> Problem {
        let offset = self.body.entry_offset(index);
        let patch = Patch { file: 0, offset, bytes: word.to_le_bytes().to_vec() };
        Problem::new(severity, bat::ENTRY, offset, summary)
            .repaired_by("clear what must be zero", vec![patch])
    }
}
