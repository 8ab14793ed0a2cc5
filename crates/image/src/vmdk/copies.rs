//! Examining what a sparse extent keeps twice: where its copies differ, and which repair is certain.

use std::io;
use std::sync::Arc;

use ondisk::Corrupt;

use super::compare::Comparison;
use super::examine::{DIRECTORY, Examination, Guest, TABLE};
use super::header::SECTOR;
use super::tables::Copy;
use crate::arithmetic::round_up;
use crate::{Patch, Problem, Severity};

/// Tables of a directory whose lost entries are looked for: a disk of 2 TiB.
const MAX_SEARCHED: u64 = 1 << 16;

impl Examination<'_> {
    /// One copy of the directory does not lead to a table; the other leads to byte `known`.
    pub(super) fn tell_lost(
        &mut self,
        number: u64,
        copy: Copy,
        corrupt: Option<Corrupt>,
        known: u64,
    ) -> io::Result<()> {
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

    /// Two copies in two places.
    pub(super) fn compare(&mut self, number: u64, first_at: u64, second_at: u64) -> io::Result<()> {
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
}

fn patch(offset: u64, bytes: Vec<u8>) -> Patch {
    Patch { file: 0, offset, bytes }
}

/// A hosted table as stored.
fn encode(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes()).collect()
}
