//! Who uses which bytes of the file, in units of 1 MiB.

use std::ops::Range;

use super::geometry::{MIB, to_index};

/// Bytes of the file that are looked after: twice the longest disk, 16 MiB of bits.
const MAX_TRACKED: u64 = 128 << 40;

/// Ranges that no block may touch, sorted and merged.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Vec<Range<u64>>);

impl Taken {
    pub(super) fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Whether any byte of `range` is taken.
    pub(super) fn touches(&self, range: &Range<u64>) -> bool {
        let behind = self.0.partition_point(|taken| taken.start < range.end);
        let last = behind.checked_sub(1).and_then(|index| self.0.get(index));
        last.is_some_and(|taken| range.start < taken.end)
    }
}

/// A bit for each unit of the file.
#[derive(Debug)]
pub(super) struct Space {
    words: Vec<u64>,
    /// How many units the file has, the last one perhaps cut short.
    units: u64,
}

impl Space {
    /// Nothing in use in a file of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        let units = size.min(MAX_TRACKED).div_ceil(MIB);
        Self { words: vec![0; to_index(units.div_ceil(64)).unwrap_or(0)], units }
    }

    /// Sets the bits of `range`, as far as the file goes; whether any was set already.
    pub(super) fn mark(&mut self, range: &Range<u64>) -> bool {
        let mut was_set = false;
        for (index, mask) in masks(self.units(range)) {
            if let Some(word) = self.words.get_mut(index) {
                was_set |= *word & mask != 0;
                *word |= mask;
            }
        }
        was_set
    }

    /// Sets all bits that are set in `other`, which is of the same length.
    pub(super) fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(to, from)| *to |= *from);
    }

    /// Whether any bit of `range` is set.
    pub(super) fn touches(&self, range: &Range<u64>) -> bool {
        masks(self.units(range))
            .any(|(index, mask)| self.words.get(index).is_some_and(|word| word & mask != 0))
    }

    /// Ranges without a bit between byte `start` and the end of the file of `size` bytes.
    pub(super) fn free(&self, start: u64, size: u64) -> impl Iterator<Item = Range<u64>> {
        let mut unit = start.div_ceil(MIB);
        std::iter::from_fn(move || {
            let first = self.next(unit, false);
            unit = self.next(first, true);
            let byte = |unit: u64| unit.saturating_mul(MIB).min(size);
            (first < unit).then(|| byte(first)..byte(unit))
        })
    }

    /// The first unit from `unit` on whose bit is set, or is not; the end where there is none.
    fn next(&self, unit: u64, is_set: bool) -> u64 {
        let mut at = unit;
        while at < self.units {
            let word = self.words.get(to_index(at / 64).unwrap_or(usize::MAX)).copied().unwrap_or(0);
            let word = if is_set { word } else { !word };
            let within = u32::try_from(at % 64).unwrap_or(0);
            match word.wrapping_shr(within) {
                0 => at = (at / 64).saturating_add(1).saturating_mul(64),
                rest => return at.saturating_add(rest.trailing_zeros().into()).min(self.units),
            }
        }
        self.units
    }

    /// First byte behind the last bit.
    pub(super) fn end(&self) -> u64 {
        let last = self.words.iter().rposition(|word| *word != 0);
        last.map_or(0, |index| {
            let word = self.words.get(index).copied().unwrap_or(0);
            let bits = u64::from(u64::BITS.saturating_sub(word.leading_zeros()));
            let before = u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(64);
            before.saturating_add(bits).saturating_mul(MIB)
        })
    }

    fn units(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end.div_ceil(MIB).min(self.units);
        (range.start / MIB).min(end)..end
    }
}

/// The words that hold these bits, each with a mask.
#[expect(clippy::arithmetic_side_effects, reason = "bits count below 2^64 / 64, and shifts are 0 to 63")]
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    (bits.start / 64..bits.end.div_ceil(64)).filter_map(move |word| {
        let first = bits.start.max(word * 64) - word * 64;
        let behind = bits.end.min((word + 1) * 64) - word * 64;
        let count = behind.checked_sub(first).filter(|count| *count > 0)?;
        Some((to_index(word).ok()?, u64::MAX >> (64 - count) << first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ranges_are_found() {
        let taken = Taken::new([30..40, 10..20, 15..17, 20..22]);
        let touched: Vec<u64> = (0..50).filter(|at| taken.touches(&(*at..at + 1))).collect();
        assert_eq!(touched, (10..22).chain(30..40).collect::<Vec<_>>());
        assert!(taken.touches(&(0..11)) && !taken.touches(&(0..10)) && taken.touches(&(22..31)));
        assert!(taken.touches(&(0..100)) && !Taken::default().touches(&(0..100)));
    }

    #[test]
    fn space_is_counted_in_units() {
        let size = 200 * MIB + 5;
        let mut space = Space::new(size);
        assert_eq!(space.end(), 0);
        assert!(!space.mark(&(0..MIB)) && !space.mark(&(3 * MIB..70 * MIB)));
        assert!(space.mark(&(69 * MIB..71 * MIB)) && !space.mark(&(71 * MIB..71 * MIB)));
        assert!(space.touches(&(2 * MIB..4 * MIB)) && !space.touches(&(MIB..3 * MIB)));
        assert_eq!(space.free(0, size).collect::<Vec<_>>(), [MIB..3 * MIB, 71 * MIB..size]);
        assert_eq!(space.end(), 71 * MIB);
        assert!(!space.mark(&(200 * MIB..u64::MAX)));
        assert_eq!(space.end(), 201 * MIB);
        let mut other = Space::new(size);
        other.mark(&(MIB..2 * MIB));
        space.add(&other);
        assert_eq!(space.free(0, size).collect::<Vec<_>>(), [2 * MIB..3 * MIB, 71 * MIB..200 * MIB]);
        assert!(Space::new(u64::MAX).words.len() <= 2 << 20);
    }
}
