//! Examining one sparse extent: is every table where it can be, do both copies agree, and does each grain have a
//! place of its own.
//!
//! Three walks over the tables: the first compares the copies and finds the alignment of grains, the second marks
//! what is in use, and the third, only if needed, tells which grains share a place.

use std::io;
use std::ops::Range;

use blockdev::ExtentKind;
use ondisk::Corrupt;
use zerocopy::FromBytes;

use super::disk::Placed;
use super::grains::Grains;
use super::header::SECTOR;
use super::space::Space;
use super::stream::{RawMarker, decode_grain_marker, kind};
use super::tables::{Content, Copy, Scheme, Tables};
use crate::arithmetic::round_up;
use crate::{Problem, Report, Severity};

/// Ranges of the guest's disk that one problem names.
const MAX_RANGES: usize = 64;

pub(super) const DIRECTORY: &str = "VMDK grain directory";
pub(super) const TABLE: &str = "VMDK grain table";

const UNREADABLE: &str = "what this table points to cannot be read";

/// The examination of one extent.
pub(super) struct Examination<'a> {
    pub(super) extent: &'a Placed,
    grains: &'a Grains,
    report: &'a mut Report,
    space: Space,
    /// First byte behind all that is in use.
    end: u64,
    /// All offsets of grains, or'ed: how they are aligned.
    offsets: u64,
    /// Lost directory entries for which a repair is still looked for: each needs a walk over the directory.
    pub(super) searches: u32,
}

/// Parts of the guest's disk, neighbours joined.
#[derive(Debug, Default)]
pub(super) struct Guest {
    pub(super) ranges: Vec<Range<u64>>,
    count: u64,
}

impl Guest {
    pub(super) fn add(&mut self, range: Range<u64>) {
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
        this.check_free();
        Ok(this.end)
    }

    pub(super) fn tables(&self) -> &'a Tables {
        &self.grains.tables
    }

    pub(super) fn add(&mut self, mut problem: Problem) {
        problem.file = self.extent.file;
        if let Some(repair) = &mut problem.repair {
            repair.patches.iter_mut().for_each(|patch| patch.file = self.extent.file);
        }
        self.report.add(problem);
    }

    /// The part of the guest's disk that grain `entry` of table `number` is.
    pub(super) fn guest(&self, number: u64, entry: u64) -> Range<u64> {
        let first = number.saturating_mul(self.tables().entries).saturating_add(entry);
        self.on_disk(first.saturating_mul(self.grains.grain), self.grains.grain)
    }

    /// The part of the guest's disk that a whole table covers.
    pub(super) fn guest_of_table(&self, number: u64) -> Range<u64> {
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

    /// A COWD header says where the next grain goes, or 0; what lies behind that would be written over.
    fn check_free(&mut self) {
        let Scheme::Cowd { free, .. } = self.tables().scheme else { return };
        if free != 0 && free < self.end {
            let summary = format!("freeSector is {}, expected at least {}", free / SECTOR, self.end / SECTOR);
            self.add(
                Problem::error("VMDK COWD header", 28, summary)
                    .affecting("the next write by ESX destroys what lies behind it", std::iter::empty()),
            );
        }
    }

    fn tell_unused(&mut self) {
        let tables = self.tables();
        let size = tables.file.size();
        let start = match &tables.scheme {
            Scheme::Hosted(hosted) => hosted.overhead,
            Scheme::Cowd { directory, .. } => *directory,
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
