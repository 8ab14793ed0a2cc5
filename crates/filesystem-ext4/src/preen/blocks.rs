//! A set of blocks of the file system, for finding those that are used twice.

use crate::units::{FsBlock, to_usize};

/// Blocks of one piece.
const PIECE: u64 = 1 << 15;

const WORDS: usize = 512;

/// A bit for each block; pieces without any cost nothing.
#[derive(Debug)]
pub(super) struct Blocks {
    pieces: Vec<Option<Box<[u64; WORDS]>>>,
    blocks: u64,
    used: u64,
}

impl Blocks {
    pub(super) fn new(blocks: u64) -> Self {
        let mut pieces = Vec::new();
        pieces.resize_with(to_usize(blocks.div_ceil(PIECE)), || None);
        Self { pieces, blocks, used: 0 }
    }

    /// Whether there is a block that is not in the set.
    pub(super) fn has_free(&self) -> bool {
        self.used < self.blocks
    }

    /// Whether a block is in the set.
    pub(super) fn has(&self, block: FsBlock) -> bool {
        let piece = self.pieces.get(to_usize(block.0 / PIECE)).and_then(Option::as_ref);
        let word = piece.and_then(|piece| piece.get(to_usize((block.0 % PIECE) / 64)));
        word.is_some_and(|word| *word >> (block.0 % 64) & 1 == 1)
    }

    /// Adds `count` blocks from `first`; returns whether one of them was there before, or lies outside.
    pub(super) fn add(&mut self, first: FsBlock, count: u64) -> bool {
        let end = first.after(count).0.min(self.blocks);
        let mut was_there = first.after(count).0 > self.blocks;
        let mut next = first.0;
        while next < end {
            let bit = next % 64;
            let length = end.saturating_sub(next).min(64_u64.saturating_sub(bit));
            let low = u64::MAX.checked_shr(u32::try_from(64_u64.saturating_sub(length)).unwrap_or(0));
            let mask = low.unwrap_or(0).checked_shl(u32::try_from(bit).unwrap_or(0)).unwrap_or(0);
            let word = to_usize((next % PIECE) / 64);
            let Some(piece) = self.pieces.get_mut(to_usize(next / PIECE)) else { return true };
            if let Some(word) = piece.get_or_insert_with(|| Box::new([0; WORDS])).get_mut(word) {
                was_there |= *word & mask != 0;
                self.used = self.used.saturating_add(u64::from((mask & !*word).count_ones()));
                *word |= mask;
            }
            next = next.saturating_add(length);
        }
        was_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found() {
        let mut blocks = Blocks::new(100_000);
        assert!(!blocks.add(FsBlock(10), 100));
        assert!(!blocks.add(FsBlock(110), 40_000));
        assert!(!blocks.add(FsBlock(9), 1));
        assert!(blocks.add(FsBlock(40_109), 5));
        assert!(!blocks.add(FsBlock(40_114), 1));
        assert!(blocks.has(FsBlock(40_114)) && !blocks.has(FsBlock(40_115)));
        assert!(blocks.add(FsBlock(0), 10));
        assert!(!blocks.add(FsBlock(40_115), 100_000 - 40_115));
        assert!(!blocks.has_free());
        assert!(blocks.add(FsBlock(99_999), 2));
        assert!(blocks.add(FsBlock(200_000), 1));
    }
}
