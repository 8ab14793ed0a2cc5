//! Which parts of an extent's file are in use, and by what.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::arithmetic::round_up;

/// Units in a page of the bitmap.
const IN_PAGE: u64 = 4096;

/// Bound on pages: 128 MiB of bitmap, 64 TiB of grains of the usual size.
const MAX_PAGES: usize = 1 << 18;

/// Bound on separate pieces of metadata, and on overlaps that are told apart.
const MAX_PIECES: usize = 1 << 20;
const MAX_OVERLAPS: usize = 1024;

/// A map of the file in units that grains are made of.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes in a unit.
    unit: u64,
    pages: BTreeMap<u64, Box<[u64; 64]>>,
    /// Units that are in use more than once; not all of them, if there are very many.
    overlaps: BTreeSet<u64>,
    /// Header, descriptor, directories and tables: start and end, apart from each other.
    metadata: BTreeMap<u64, u64>,
    /// Something was not taken in, since there is too much.
    pub(super) is_incomplete: bool,
}

impl Space {
    pub(super) fn new() -> Self {
        Self {
            unit: 512,
            pages: BTreeMap::new(),
            overlaps: BTreeSet::new(),
            metadata: BTreeMap::new(),
            is_incomplete: false,
        }
    }

    /// Sets the unit, a power of two of bytes, before anything is marked.
    pub(super) fn set_unit(&mut self, unit: u64) {
        self.unit = unit.max(1);
    }

    /// Takes in a piece of metadata; `false` when another piece lies there already.
    pub(super) fn claim(&mut self, range: Range<u64>) -> bool {
        let is_free = !self.is_metadata(&range);
        if self.metadata.len() >= MAX_PIECES {
            self.is_incomplete = true;
            return is_free;
        }
        let (mut start, mut end) = (range.start, range.end);
        // All that touch it become one piece.
        while let Some((other_start, other_end)) = self.touching(start, end) {
            self.metadata.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.metadata.insert(start, end);
        is_free
    }

    fn touching(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let (other_start, other_end) = self.metadata.range(..=end).next_back()?;
        (*other_end >= start).then_some((*other_start, *other_end))
    }

    /// Whether a piece of metadata lies within `range`.
    pub(super) fn is_metadata(&self, range: &Range<u64>) -> bool {
        self.metadata.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start)
    }

    /// Marks `range` as used by a grain.
    pub(super) fn mark(&mut self, range: &Range<u64>) {
        for unit in self.units(range) {
            let page = unit / IN_PAGE;
            if self.pages.len() >= MAX_PAGES && !self.pages.contains_key(&page) {
                self.is_incomplete = true;
                return;
            }
            let words = self.pages.entry(page).or_insert_with(|| Box::new([0; 64]));
            let (word, bit) = (unit % IN_PAGE / 64, unit % 64);
            let Some(word) = usize::try_from(word).ok().and_then(|index| words.get_mut(index)) else {
                return;
            };
            let bit = 1_u64.wrapping_shl(u32::try_from(bit).unwrap_or(0));
            if *word & bit != 0 {
                if self.overlaps.len() < MAX_OVERLAPS {
                    self.overlaps.insert(unit);
                } else {
                    self.is_incomplete = true;
                }
            }
            *word |= bit;
        }
    }

    fn units(&self, range: &Range<u64>) -> Range<u64> {
        let first = range.start.checked_div(self.unit).unwrap_or(0);
        first..range.end.div_ceil(self.unit).max(first)
    }

    pub(super) fn has_overlaps(&self) -> bool {
        !self.overlaps.is_empty()
    }

    /// First byte that is in use more than once.
    pub(super) fn first_overlap(&self) -> u64 {
        self.overlaps.first().map_or(0, |unit| unit.saturating_mul(self.unit))
    }

    /// Whether `range` has a unit that is in use more than once.
    pub(super) fn is_shared(&self, range: &Range<u64>) -> bool {
        self.overlaps.range(self.units(range)).next().is_some()
    }

    /// Bytes within `range` that nothing uses, and the first of them.
    pub(super) fn unused(&self, range: Range<u64>) -> Option<(u64, u64)> {
        let Range { start: first, end } = self.units(&(round_up(range.start, self.unit.max(1))..range.end));
        let mut count = 0_u64;
        let mut found = None;
        let mut at = first;
        let mut add = |from: u64, to: u64| {
            for (start, length) in self.without_metadata(from, to, range.end) {
                found = found.or(Some(start));
                count = count.saturating_add(length);
            }
        };
        for (page, words) in self.pages.range(first / IN_PAGE..) {
            let page_start = page.saturating_mul(IN_PAGE);
            if page_start >= end {
                break;
            }
            if page_start > at {
                add(at, page_start);
                at = page_start;
            }
            for (word, index) in words.iter().zip(0_u64..) {
                let start = page_start.saturating_add(index.saturating_mul(64));
                let word_end = start.saturating_add(64).min(end);
                if *word == u64::MAX || word_end <= at {
                    at = at.max(word_end);
                    continue;
                }
                while at < word_end {
                    let bit = u32::try_from(at.saturating_sub(start)).unwrap_or(0);
                    let rest = word.wrapping_shr(bit);
                    let free = u64::from(rest.trailing_zeros()).min(word_end.saturating_sub(at));
                    if free > 0 {
                        add(at, at.saturating_add(free));
                        at = at.saturating_add(free);
                    } else {
                        at = at.saturating_add(u64::from(rest.trailing_ones()));
                    }
                }
            }
        }
        if at < end {
            add(at, end);
        }
        found.map(|first| (first, count))
    }

    /// The parts of these units that no metadata occupies: start and length in bytes.
    fn without_metadata(&self, from: u64, to: u64, end: u64) -> Vec<(u64, u64)> {
        let mut at = from.saturating_mul(self.unit);
        let end = to.saturating_mul(self.unit).min(end);
        let before = self.metadata.range(..=at).next_back();
        let inside = self.metadata.range(at.saturating_add(1)..end.max(at.saturating_add(1)));
        let mut parts = Vec::new();
        for (start, piece_end) in before.into_iter().chain(inside) {
            if *start > at {
                parts.push((at, start.saturating_sub(at)));
            }
            at = at.max(*piece_end);
        }
        if at < end {
            parts.push((at, end.saturating_sub(at)));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_and_gaps_are_counted() {
        let mut space = Space::new();
        space.set_unit(512);
        assert!(space.claim(0..1024));
        assert!(space.claim(1024..2048));
        assert!(!space.claim(1536..4096));
        assert!(space.is_metadata(&(4000..5000)) && !space.is_metadata(&(4096..5000)));
        space.mark(&(8192..16_384));
        space.mark(&(32_768..40_960));
        assert!(!space.has_overlaps());
        assert_eq!(space.unused(0..50_000), Some((4096, 4096 + 16_384 + 9040)));
        assert_eq!(space.unused(8192..16_384), None);
        space.mark(&(40_448..41_000));
        assert!(space.has_overlaps() && space.is_shared(&(40_000..40_960)));
        assert!(!space.is_shared(&(40_960..50_000)));
    }

    #[test]
    fn gaps_in_a_huge_file_are_counted_without_a_walk() {
        let mut space = Space::new();
        space.mark(&(1 << 50..(1 << 50) + 512));
        assert_eq!(space.unused(0..1 << 60), Some((0, (1 << 60) - 512)));
        assert_eq!(space.pages.len(), 1);
    }
}
