//! One sparse extent: from a byte of it to a grain, zeros, or the parent.
//!
//! Neighbours that lie next to each other are read at once. What reads meet and can read past is recorded in the
//! problems of the image.

use std::io;

use ondisk::Corrupt;

use super::stream::decode_grain_marker;
use super::tables::{Content, Copy, Scheme, Tables};
use crate::arithmetic::{length_of, overflow, to_index};
use crate::decompress::Decompressors;
use crate::problems::damaged;

/// Bytes that are read with a marker when nothing tells how long its grain is.
const GUESS: u64 = 8 << 10;

/// A sparse extent of any kind.
#[derive(Debug)]
pub(super) struct Grains {
    pub(super) tables: Tables,
    /// Bytes in a grain, a power of two.
    pub(super) grain: u64,
    /// Length in bytes that the extent's own header gives it.
    pub(super) capacity: u64,
    /// First byte of the extent on the disk.
    pub(super) start: u64,
    pub(super) decompressors: Decompressors,
}

/// Bytes of an extent with one kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// At least 1.
    pub(super) length: u64,
    /// For `At`, where the first byte of the run lies; for `Packed`, where its grain does.
    pub(super) content: Content,
    /// For `Packed`, the bytes up to the next grain of the file; 0 when unknown.
    pub(super) span: u64,
}

/// Where the word for a grain is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) table: u64,
    pub(super) entry: u64,
}

impl Grains {
    /// The first byte of the grain that holds byte `offset`.
    pub(super) fn grain_start(&self, offset: u64) -> u64 {
        offset & !self.grain.saturating_sub(1)
    }

    pub(super) fn place(&self, offset: u64) -> io::Result<Place> {
        let number = offset.checked_div(self.grain).ok_or_else(overflow)?;
        let table = number.checked_div(self.tables.entries).ok_or_else(overflow)?;
        let entry = number.checked_rem(self.tables.entries).ok_or_else(overflow)?;
        Ok(Place { table, entry })
    }

    /// The run of one content that starts at byte `offset` of the extent, at most `limit` bytes long.
    pub(super) fn run_at(&self, offset: u64, limit: u64) -> io::Result<Run> {
        if offset >= self.capacity {
            // The descriptor makes the extent longer than its own header; that was told when it was opened.
            return Ok(Run { length: limit, content: Content::Absent, span: 0 });
        }
        let limit = limit.min(self.capacity.saturating_sub(offset));
        let Place { table: number, entry: first } = self.place(offset)?;
        let Some(table) = self.tables.table(number)? else {
            return self.absent_tables(offset, limit, number);
        };
        let start = self.grain_start(offset);
        let within = offset.saturating_sub(start);
        let mut run: Option<Run> = None;
        let words = table.get(to_index(first)?..).unwrap_or_default();
        for (word, entry) in words.iter().zip(first..) {
            let content = match (self.tables.content(*word), run) {
                (Ok(content), _) => content,
                // The run before the damage can still be read.
                (Err(_), Some(run)) => return Ok(run),
                (Err(expected), None) => {
                    return Err(damaged(self.tables.corrupt_word(number, entry, expected, *word)));
                }
            };
            match &mut run {
                None => {
                    let span = span_of(*word, words);
                    let content = match content {
                        Content::At(at) => Content::At(at.saturating_add(within)),
                        other => other,
                    };
                    run = Some(Run { length: self.grain.saturating_sub(within), content, span });
                }
                Some(run) if continues(run, content) => run.length = run.length.saturating_add(self.grain),
                Some(run) => return Ok(*run),
            }
            if let Some(run) = run.as_mut().filter(|run| run.length >= limit) {
                run.length = limit;
                return Ok(*run);
            }
        }
        run.ok_or_else(overflow)
    }

    /// The run over absent tables.
    fn absent_tables(&self, offset: u64, limit: u64, number: u64) -> io::Result<Run> {
        /// Words of the directory that one question looks at.
        const MAX_WORDS: u64 = 1 << 16;
        let span = self.grain.saturating_mul(self.tables.entries);
        let last = self.tables.count.min(number.saturating_add(MAX_WORDS));
        let mut end = number.saturating_add(1);
        let changes = self.tables.changes();
        while end < last && end.saturating_mul(span).saturating_sub(offset) < limit {
            let is_absent = match &self.tables.scheme {
                Scheme::Scanned(found) => found.table(end, self.tables.entries).is_none(),
                _ => {
                    changes.as_ref().is_none_or(|changes| !changes.places.contains_key(&end))
                        && self.tables.directory_word(Copy::First, end)? == 0
                        && self.tables.directory_word(Copy::Second, end)? == 0
                }
            };
            if !is_absent {
                break;
            }
            end = end.saturating_add(1);
        }
        let length = end.saturating_mul(span).saturating_sub(offset).min(limit).max(1);
        Ok(Run { length, content: Content::Absent, span: 0 })
    }

    /// Stored bytes from byte `at` of the file, with zeros where it has ended; `offset` is their place in the
    /// extent.
    pub(super) fn read_stored(&self, buf: &mut [u8], offset: u64, at: u64) -> io::Result<()> {
        let size = self.tables.file.size();
        let last = length_of(buf).saturating_sub(1);
        let available = size.saturating_sub(at).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        if !missing.is_empty() {
            missing.fill(0);
            // The last grain of a healthy file may be cut short: what was never written there is zero.
            let within = last.saturating_add(offset) & self.grain.saturating_sub(1);
            if at.saturating_add(last).saturating_sub(within) >= size {
                self.record_truncated(at.saturating_add(available), size);
            }
        }
        if present.is_empty() { Ok(()) } else { self.tables.file.read_exact_at(present, at) }
    }

    fn record_truncated(&self, at: u64, size: u64) {
        let expected = format!("below {size}, the end of the file");
        self.tables.record(Corrupt::new("VMDK grain", at, "offset", expected, at));
    }

    /// Part of a compressed grain: the bytes from `offset` of the extent on.
    pub(super) fn read_packed(&self, buf: &mut [u8], offset: u64, at: u64, span: u64) -> io::Result<()> {
        let start = self.grain_start(offset);
        let length = to_index(self.grain.min(self.capacity.saturating_sub(start)))?;
        if buf.len() == length {
            return self.unpack(buf, start, at, span);
        }
        let within = to_index(offset.saturating_sub(start))?;
        let clusters = &self.tables.shared.clusters;
        // A layer has one grain for each place of the disk, whichever extent it is in.
        let key = (self.tables.layer, self.start.saturating_add(start));
        let grain = match clusters.get(key).filter(|grain| grain.len() == length) {
            Some(grain) => grain,
            None => {
                let mut grain = vec![0; length];
                self.unpack(&mut grain, start, at, span)?;
                let grain: std::sync::Arc<[u8]> = grain.into();
                clusters.insert(key, grain.clone());
                grain
            }
        };
        let bytes = grain.get(within..).and_then(|rest| rest.get(..buf.len())).ok_or_else(overflow)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    /// The whole grain that starts at byte `start` of the extent.
    fn unpack(&self, grain: &mut [u8], start: u64, at: u64, span: u64) -> io::Result<()> {
        let file = &self.tables.file;
        let available = file.size().saturating_sub(at);
        let has_markers = match &self.tables.scheme {
            Scheme::Hosted(hosted) => hosted.has_markers,
            _ => true,
        };
        let first = match (has_markers, span) {
            (false, _) => self.grain,
            (true, 0) => GUESS,
            (true, span) => span,
        };
        let first = first.min(available);
        let outcome = self.decompressors.with(|decompressor| -> io::Result<Outcome> {
            let input = &mut decompressor.input;
            input.resize(to_index(first)?, 0);
            if input.len() < 16 {
                return Ok(Outcome::CutShort);
            }
            file.read_exact_at(input, at)?;
            let mut from = 0;
            let mut is_short = false;
            if has_markers {
                let starts = [start, self.start.saturating_add(start)];
                let (before, length) = decode_grain_marker(input, at, starts, self.grain).map_err(damaged)?;
                from = before;
                is_short = length > available;
                let length = to_index(length.min(available))?;
                let known = input.len().min(length);
                input.resize(length, 0);
                if let Some(rest) = input.get_mut(known..).filter(|rest| !rest.is_empty()) {
                    file.read_exact_at(rest, at.saturating_add(u64::try_from(known).unwrap_or(0)))?;
                }
            }
            Ok(match decompressor.decompress(from, grain) {
                Ok(()) => Outcome::Whole,
                Err(_) if is_short => Outcome::CutShort,
                Err(reason) => Outcome::Broken(reason),
            })
        })?;
        match outcome {
            Outcome::Whole => Ok(()),
            Outcome::CutShort => {
                self.record_truncated(file.size().max(at), file.size());
                grain.fill(0);
                Ok(())
            }
            Outcome::Broken(reason) => {
                let expected = format!("{} bytes", grain.len());
                let found = format!("guest byte {:#x}: {reason}", self.start.saturating_add(start));
                Err(damaged(Corrupt::new("VMDK compressed grain", at, "stream", expected, found)))
            }
        }
    }
}

/// How decompressing a grain ended.
enum Outcome {
    Whole,
    /// The file ends before the grain does.
    CutShort,
    /// What is wrong, in the codec's words.
    Broken(String),
}

/// The bytes from `word` to the next grain behind it in the file, by the words of the same table; 0 when they
/// tell nothing useful.
fn span_of(word: u64, words: &[u64]) -> u64 {
    /// A grain of the usual size with room to spare.
    const MAX_SECTORS: u64 = 160;
    let next = words.iter().skip(1).find(|next| **next > word);
    let sectors = next.map_or(0, |next| next.saturating_sub(word));
    if sectors > MAX_SECTORS { 0 } else { sectors.saturating_mul(super::header::SECTOR) }
}

/// Whether `content`, one grain further on, belongs to the same run.
fn continues(run: &Run, content: Content) -> bool {
    match (run.content, content) {
        (Content::Absent, Content::Absent) | (Content::Zero, Content::Zero) => true,
        (Content::At(first), Content::At(next)) => first.checked_add(run.length) == Some(next),
        _ => false,
    }
}
