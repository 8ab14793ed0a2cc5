//! Examining one sparse extent: is every table where it can be, do both copies agree, and does each grain have a
//! place of its own.
//!
//! Three walks over the tables: the first compares the copies and finds the alignment of grains, the second marks
//! what is in use, and the third, only if needed, tells which grains share a place.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use blockdev::ExtentKind;
use ondisk::Corrupt;
use zerocopy::FromBytes;

use super::compare::Comparison;
use super::disk::Placed;
use super::grains::Grains;
use super::header::SECTOR;
use super::space::Space;
use super::stream::{RawMarker, decode_grain_marker, kind};
use super::tables::{Content, Copy, Scheme, Tables};
use crate::arithmetic::round_up;
use crate::{Patch, Problem, Report, Severity};

/// Ranges of the guest's disk that one problem names.
const MAX_RANGES: usize = 64;

/// Tables of a directory whose lost entries are looked for: a disk of 2 TiB.
const MAX_SEARCHED: u64 = 1 << 16;

const DIRECTORY: &str = "VMDK grain directory";
const TABLE: &str = "VMDK grain table";

const UNREADABLE: &str = "what this table points to cannot be read";

/// The examination of one extent.
pub(super) struct Examination<'a> {
    extent: &'a Placed,
    grains: &'a Grains,
    report: &'a mut Report,
    space: Space,
    /// First byte behind all that is in use.
    end: u64,
    /// All offsets of grains, or'ed: how they are aligned.
    offsets: u64,
    /// Lost directory entries for which a repair is still looked for: each needs a walk over the directory.
    searches: u32,
}

/// Parts of the guest's disk, neighbours joined.
#[derive(Debug, Default)]
struct Guest {
    ranges: Vec<Range<u64>>,
    count: u64,
}

impl Guest {
    fn add(&mut self, range: Range<u64>) {
        self.count = self.count.saturating_add(1);
        if range.is_empty() {
            return;
        }
        let has_room = self.ranges.len() < MAX_RANGES;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if has_room => self.ranges.push(range),
            _ => {}
        }
    }
}

/// What is wrong with grains of one table.
#[derive(Debug, Default)]
struct Faults {
    /// Words that cannot be.
    damaged: Guest,
    /// Grains past the end of the file.
    missing: Guest,
    /// Grains in the place of headers or tables.
    misplaced: Guest,
}

impl<'a> Examination<'a> {
    /// Examines `grains`; returns the first byte behind all that is in use in their file.
    ///
    /// # Errors
    /// Those of the host; damage is in the report.
    pub(super) fn run(extent: &'a Placed, grains: &'a Grains, report: &'a mut Report) -> io::Result<u64> {
        let mut this =
            Self { extent, grains, report, space: Space::new(), end: 0, offsets: grains.grain, searches: 16 };
        this.claim_headers();
        this.walk(Self::compare_copies)?;
        this.space.set_unit(match extent.is_packed() {
            true => SECTOR,
            false => 1_u64.wrapping_shl(this.offsets.trailing_zeros()),
        });
        this.walk(Self::mark_grains)?;
        if this.space.has_overlaps() {
            let mut shared = Guest::default();
            this.walk(|this, number| this.find_shared(number, &mut shared))?;
            let summary = format!("{} grains lie where other grains lie too", shared.count);
            let at = this.space.first_overlap();
            this.add(
                Problem::error("VMDK grain", at, summary)
                    .affecting("a write to one of them changes the others", shared.ranges),
            );
        }
        if this.space.is_incomplete {
            let summary = "too much to look for everything that is in use twice or not at all";
            this.add(Problem::new(Severity::Note, "VMDK grain", 0, summary));
        } else {
            this.tell_unused();
        }
        Ok(this.end)
    }

    fn tables(&self) -> &'a Tables {
        &self.grains.tables
    }

    fn add(&mut self, mut problem: Problem) {
        problem.file = self.extent.file;
        if let Some(repair) = &mut problem.repair {
            repair.patches.iter_mut().for_each(|patch| patch.file = self.extent.file);
        }
        self.report.add(problem);
    }

    /// The part of the guest's disk that grain `entry` of table `number` is.
    fn guest(&self, number: u64, entry: u64) -> Range<u64> {
        let first = number.saturating_mul(self.tables().entries).saturating_add(entry);
        self.on_disk(first.saturating_mul(self.grains.grain), self.grains.grain)
    }

    /// The part of the guest's disk that a whole table covers.
    fn guest_of_table(&self, number: u64) -> Range<u64> {
        let length = self.grains.grain.saturating_mul(self.tables().entries);
        self.on_disk(number.saturating_mul(length), length)
    }

    fn on_disk(&self, within: u64, length: u64) -> Range<u64> {
        let Placed { start, length: whole, .. } = *self.extent;
        let end = within.saturating_add(length).min(whole);
        start.saturating_add(within.min(whole))..start.saturating_add(end)
    }

    /// Calls `visit` with the number of every table that any copy of the directory has.
    fn walk(&mut self, mut visit: impl FnMut(&mut Self, u64) -> io::Result<()>) -> io::Result<()> {
        let mut number = 0;
        while let Some(next) = self.present(number)? {
            visit(self, next)?;
            number = next.saturating_add(1);
        }
        Ok(())
    }

    /// The first table from `number` on that any copy of the directory has. Holes of the file are passed over,
    /// so that a directory of an endless disk in a small file ends.
    fn present(&self, mut number: u64) -> io::Result<Option<u64>> {
        let tables = self.tables();
        if let Scheme::Scanned(found) = &tables.scheme {
            return Ok(found.next_table(number, tables.entries));
        }
        while number < tables.count {
            if tables.directory_word(Copy::First, number)? != 0
                || tables.directory_word(Copy::Second, number)? != 0
            {
                return Ok(Some(number));
            }
            let hole = self.hole(Copy::First, number)?.min(self.hole(Copy::Second, number)?);
            number = number.saturating_add(hole.max(1));
        }
        Ok(None)
    }

    /// How many words of the directory from `number` on lie in a hole of the file.
    fn hole(&self, copy: Copy, number: u64) -> io::Result<u64> {
        let Some(directory) = self.tables().directory(copy) else { return Ok(u64::MAX) };
        if !number.is_multiple_of(1024) {
            return Ok(1);
        }
        let at = directory.start.saturating_add(number.saturating_mul(self.tables().word_size()));
        let extent = self.tables().file.extent_at(at)?;
        Ok(if extent.kind == ExtentKind::Zero { extent.length / 8 } else { 1 })
    }

    fn claim_headers(&mut self) {
        let tables = self.tables();
        let size = tables.file.size();
        let mut claim = |range: Range<u64>| self.space.claim(range.start..round_up(range.end, SECTOR));
        claim(0..SECTOR);
        let mut ranges = Vec::new();
        match &tables.scheme {
            Scheme::SeSparse(header) => ranges.push(0..header.tables),
            Scheme::Hosted(_) | Scheme::Cowd { .. } => {
                ranges.extend(
                    [Copy::First, Copy::Second].into_iter().filter_map(|copy| tables.directory(copy)),
                );
            }
            Scheme::Scanned(_) => {}
        }
        let mut broken = Vec::new();
        for range in ranges {
            if !claim(range.clone()) && !matches!(tables.scheme, Scheme::SeSparse(_)) {
                broken.push(range.start);
            }
        }
        if let Scheme::Hosted(hosted) = &tables.scheme
            && hosted.is_packed
            && hosted.directory >= hosted.overhead
        {
            // Marker, footer, end marker; and the marker before the directory.
            claim((size / SECTOR).saturating_sub(3).saturating_mul(SECTOR)..size);
            claim(hosted.directory.saturating_sub(SECTOR)..hosted.directory);
        }
        for at in broken {
            self.add(Problem::error(DIRECTORY, at, "lies where another structure lies too"));
        }
    }

    /// First walk: where both copies of a table are, and whether they say the same.
    fn compare_copies(&mut self, number: u64) -> io::Result<()> {
        let tables = self.tables();
        if let Ok(Some(table)) = tables.table(number) {
            for word in table.iter() {
                if let Ok(Content::At(at)) = tables.content(*word) {
                    self.offsets |= at;
                }
            }
        }
        if matches!(tables.scheme, Scheme::Scanned(_)) {
            return Ok(());
        }
        let first = tables.place(Copy::First, number)?;
        let second = tables.place(Copy::Second, number)?;
        self.claim_table(number, &first)?;
        if first != second {
            self.claim_table(number, &second)?;
        }
        if tables.directory(Copy::Second).is_none() {
            if let Err(corrupt) = first {
                let guest = self.guest_of_table(number);
                self.add(Problem::from(&corrupt).affecting(UNREADABLE, [guest]));
            }
            return Ok(());
        }
        match (first, second) {
            (Ok(Some(first)), Ok(Some(second))) if first == second => Ok(()),
            (Ok(Some(first)), Ok(Some(second))) => self.compare(number, first, second),
            (Ok(Some(known)), lost) => self.tell_lost(number, Copy::Second, lost.err(), known),
            (lost, Ok(Some(known))) => self.tell_lost(number, Copy::First, lost.err(), known),
            (first, second) => {
                for corrupt in [first.err(), second.err()].into_iter().flatten() {
                    let guest = self.guest_of_table(number);
                    self.add(Problem::from(&corrupt).affecting(UNREADABLE, [guest]));
                }
                Ok(())
            }
        }
    }

    /// One copy of the directory does not lead to a table; the other leads to byte `known`.
    fn tell_lost(&mut self, number: u64, copy: Copy, corrupt: Option<Corrupt>, known: u64) -> io::Result<()> {
        let tables = self.tables();
        let at = tables.directory(copy).map_or(0, |directory| directory.start);
        let name = if copy == Copy::First { "first" } else { "second" };
        let problem = match corrupt {
            Some(corrupt) => Problem::from(&corrupt),
            None => {
                // A writer makes the first copy first.
                let severity = if copy == Copy::First { Severity::Error } else { Severity::Note };
                Problem::new(severity, DIRECTORY, at, format!("the {name} copy lacks table {number}"))
            }
        };
        let words = tables.read_words(known, tables.entries)?;
        let mut problem = self.with_entry_repaired(problem, copy, number, &words)?;
        if copy == Copy::First {
            let effect = "others than this program read what is there as zeros, or not at all";
            problem = problem.affecting(effect, [self.guest_of_table(number)]);
        }
        self.add(problem);
        Ok(())
    }

    fn claim_table(
        &mut self,
        number: u64,
        place: &std::result::Result<Option<u64>, Corrupt>,
    ) -> io::Result<()> {
        let Ok(Some(at)) = *place else { return Ok(()) };
        let tables = self.tables();
        let mut range = at..round_up(at.saturating_add(tables.table_size()), SECTOR);
        self.end = self.end.max(range.end);
        // Tables of seSparse lie in one area, which the file may have as a whole.
        if !self.space.claim(range.clone()) {
            let summary = format!("table {number} lies where another structure lies too");
            let guest = self.guest_of_table(number);
            self.add(Problem::error(TABLE, at, summary).affecting("its content is not its own", [guest]));
        }
        if self.extent.is_packed()
            && let Some(before) = at.checked_sub(SECTOR).filter(|before| *before >= SECTOR)
            && tables.file.size() >= at
        {
            let mut bytes = [0; 16];
            tables.file.read_exact_at(&mut bytes, before)?;
            let is_marker = RawMarker::read_from_bytes(&bytes)
                .is_ok_and(|marker| marker.size.get() == 0 && marker.kind.get() == kind::TABLE);
            if is_marker {
                range.start = before;
                self.space.claim(range.start..at);
            }
        }
        Ok(())
    }

    /// Two copies in two places.
    fn compare(&mut self, number: u64, first_at: u64, second_at: u64) -> io::Result<()> {
        let tables = self.tables();
        let first = tables.read_words(first_at, tables.entries)?;
        let second = tables.read_words(second_at, tables.entries)?;
        if first == second {
            return Ok(());
        }
        let found = Comparison::of(tables, &first, &second);
        let guest = |entries: &[u64]| {
            let mut guest = Guest::default();
            entries.iter().for_each(|entry| guest.add(self.guest(number, *entry)));
            guest.ranges
        };
        let is_certain = found.is_certain();
        let rewritten = |problem: Problem, title: &str, at: u64| match is_certain {
            true => problem.repaired_by(title, vec![patch(at, encode(&found.merged))]),
            false => problem,
        };
        let first_anew = "write the first copy of the grain table anew from the second";
        let second_anew = "write the second copy of the grain table anew from the first";
        let mut problems = Vec::new();
        if !found.first.is_empty() {
            let summary =
                format!("{} entries of the first copy of table {number} are damaged", found.first.len());
            let problem = Problem::error(TABLE, first_at, summary).affecting(
                "others than this program read what is there as zeros, or not at all",
                guest(&found.first),
            );
            problems.push(rewritten(problem, first_anew, first_at));
        }
        if !found.second.is_empty() {
            let summary =
                format!("{} entries of the second copy of table {number} are damaged", found.second.len());
            problems.push(rewritten(Problem::error(TABLE, second_at, summary), second_anew, second_at));
        }
        if !found.behind.is_empty() {
            let summary = format!("the second copy of table {number} lacks {} entries", found.behind.len());
            let problem = Problem::new(Severity::Note, TABLE, second_at, summary);
            problems.push(rewritten(problem, second_anew, second_at));
        }
        if !found.disputed.is_empty() {
            let count = found.disputed.len();
            let summary =
                format!("{count} entries of table {number} differ from the second copy, and both could be");
            problems.push(
                Problem::error(TABLE, first_at, summary)
                    .affecting("it may be old, or that of another place", guest(&found.disputed)),
            );
        }
        for problem in problems {
            self.add(problem);
        }
        Ok(())
    }

    /// The same problem with a repair of a directory entry, where its table can only lie in one place: writers put
    /// all tables of a copy one after the other behind its directory.
    fn with_entry_repaired(
        &mut self,
        problem: Problem,
        copy: Copy,
        number: u64,
        words: &Arc<[u64]>,
    ) -> io::Result<Problem> {
        let tables = self.tables();
        let (Some(at), Some(directory)) = (self.slot(copy, number), tables.directory(copy)) else {
            return Ok(problem);
        };
        let end = at.saturating_add(tables.table_size());
        if self.searches == 0 || tables.count > MAX_SEARCHED {
            return Ok(problem);
        }
        self.searches = self.searches.saturating_sub(1);
        if end > tables.file.size() || !self.is_regular(copy, number)? {
            return Ok(problem);
        }
        let Ok(word) = u32::try_from(at / SECTOR) else { return Ok(problem) };
        let entry_at = directory.start.saturating_add(number.saturating_mul(4));
        let mut patches = Vec::new();
        if tables.read_words(at, tables.entries)? != *words {
            patches.push(patch(at, encode(words)));
        }
        patches.push(patch(entry_at, word.to_le_bytes().to_vec()));
        let title = match copy {
            Copy::First => "write the first grain directory's entry and table anew from the second",
            Copy::Second => "write the second grain directory's entry and table anew from the first",
        };
        Ok(problem.repaired_by(title, patches))
    }

    /// Where table `number` of a copy lies, when all tables follow their directory.
    fn slot(&self, copy: Copy, number: u64) -> Option<u64> {
        let first = round_up(self.tables().directory(copy)?.end, SECTOR);
        let size = round_up(self.tables().table_size(), SECTOR);
        first.checked_add(number.checked_mul(size)?)
    }

    /// Whether all other tables of this copy, and there are some, follow their directory.
    fn is_regular(&self, copy: Copy, except: u64) -> io::Result<bool> {
        let tables = self.tables();
        if tables.count == 1 {
            // The only table has nobody to tell, but then nothing else can lie there.
            let only = self.slot(copy, 0);
            let other = if copy == Copy::First { Copy::Second } else { Copy::First };
            return Ok(only.is_some() && tables.place(other, 0)?.ok().flatten() == self.slot(other, 0));
        }
        for number in (0..tables.count).filter(|number| *number != except) {
            match tables.place(copy, number)? {
                Ok(Some(at)) if Some(at) == self.slot(copy, number) => {}
                Ok(Some(_) | None) => return Ok(false),
                // Damaged as well.
                Err(_) => {}
            }
        }
        Ok((0..tables.count).any(|number| number != except))
    }

    /// Second walk: marks what the grains of a table occupy.
    fn mark_grains(&mut self, number: u64) -> io::Result<()> {
        let tables = self.tables();
        // What cannot be read was told by the first walk.
        let Ok(Some(table)) = tables.table(number) else { return Ok(()) };
        let mut faults = Faults::default();
        for (word, entry) in table.iter().zip(0..) {
            let guest = self.guest(number, entry);
            let length = guest.end.saturating_sub(guest.start);
            let place = match tables.content(*word) {
                Ok(Content::Absent | Content::Zero) => continue,
                Ok(Content::At(at)) => Ok(at..at.saturating_add(self.grains.grain)),
                Ok(Content::Packed(at)) => self.packed(number, entry, at)?,
                Err(_) => {
                    faults.damaged.add(guest);
                    continue;
                }
            };
            self.report.allocated = self.report.allocated.saturating_add(length);
            if self.extent.is_packed() {
                self.report.compressed = self.report.compressed.saturating_add(length);
            }
            let place = match place {
                Ok(place) => place,
                Err(corrupt) => {
                    self.add(Problem::from(&corrupt).affecting("this grain cannot be read", [guest]));
                    continue;
                }
            };
            self.end = self.end.max(place.end);
            if place.start >= tables.file.size() {
                faults.missing.add(guest);
                continue;
            }
            if self.space.is_metadata(&place) {
                faults.misplaced.add(guest);
            }
            self.space.mark(&place);
        }
        self.tell(number, faults);
        Ok(())
    }

    /// Where a compressed grain lies, by its marker.
    fn packed(
        &self,
        number: u64,
        entry: u64,
        at: u64,
    ) -> io::Result<std::result::Result<Range<u64>, Corrupt>> {
        let tables = self.tables();
        let available = tables.file.size().saturating_sub(at);
        let has_markers = match &tables.scheme {
            Scheme::Hosted(hosted) => hosted.has_markers,
            _ => true,
        };
        if available < 16 || !has_markers {
            return Ok(Ok(at..at.saturating_add(SECTOR)));
        }
        let mut bytes = [0; 16];
        tables.file.read_exact_at(&mut bytes, at)?;
        let within =
            number.saturating_mul(tables.entries).saturating_add(entry).saturating_mul(self.grains.grain);
        let starts = [within, self.extent.start.saturating_add(within)];
        let decoded = decode_grain_marker(&bytes, at, starts, self.grains.grain);
        Ok(decoded.and_then(|(_, length)| {
            let end = at.saturating_add(length);
            if length > available {
                let expected = format!("at most {available} bytes before the end of the file");
                return Err(Corrupt::new("VMDK marker", at, "size", expected, length));
            }
            Ok(at..round_up(end, SECTOR))
        }))
    }

    fn tell(&mut self, number: u64, faults: Faults) {
        let at = self.tables().place(Copy::First, number).ok().and_then(std::result::Result::ok).flatten();
        let kinds = [
            (faults.damaged, "entries that cannot be", "what they should point to cannot be read"),
            (
                faults.missing,
                "entries that point past the end of the file",
                "what was there is lost, and reads as zeros",
            ),
            (
                faults.misplaced,
                "entries that point to the image's own tables",
                "what is there is not the guest's",
            ),
        ];
        for (guest, what, effect) in kinds {
            if guest.count > 0 {
                let summary = format!("table {number} has {} {what}", guest.count);
                self.add(Problem::error(TABLE, at.unwrap_or(0), summary).affecting(effect, guest.ranges));
            }
        }
    }

    /// Third walk: grains with a unit that is in use more than once.
    fn find_shared(&mut self, number: u64, shared: &mut Guest) -> io::Result<()> {
        let tables = self.tables();
        let Ok(Some(table)) = tables.table(number) else { return Ok(()) };
        for (word, entry) in table.iter().zip(0..) {
            let place = match tables.content(*word) {
                Ok(Content::At(at)) => Ok(at..at.saturating_add(self.grains.grain)),
                Ok(Content::Packed(at)) => self.packed(number, entry, at)?,
                _ => continue,
            };
            if place.is_ok_and(|place| self.space.is_shared(&place)) {
                shared.add(self.guest(number, entry));
            }
        }
        Ok(())
    }

    fn tell_unused(&mut self) {
        let tables = self.tables();
        let size = tables.file.size();
        let start = match &tables.scheme {
            Scheme::Hosted(hosted) => hosted.overhead,
            Scheme::Cowd { directory } => *directory,
            Scheme::SeSparse(header) => header.grains,
            // What lies between the grains of a stream that was cut short are its tables.
            Scheme::Scanned(_) => return,
        };
        self.end = self.end.max(start.min(size));
        // Grains and tables are aligned; what could not hold a grain is no loss.
        let is_lost = |(_, bytes): &(u64, u64)| *bytes >= self.grains.grain;
        if let Some((first, bytes)) = self.space.unused(start..size).filter(is_lost) {
            let summary = format!("{bytes} bytes from here on that nothing uses");
            self.add(Problem::new(Severity::Leak, "VMDK extent", first, summary));
        }
    }
}

fn patch(offset: u64, bytes: Vec<u8>) -> Patch {
    Patch { file: 0, offset, bytes }
}

/// A hosted table as stored.
fn encode(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes()).collect()
}
