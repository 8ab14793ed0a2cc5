//! The two copies of a grain table, held against each other.
//!
//! The first copy is the one that everybody reads. A word is damaged when it points to where no grain can be; and a
//! sector of the first copy that is empty, where the second is not, was lost: writers never empty one. Only where
//! both words could be, and differ, nobody can say which is right.

use super::tables::{Content, IN_SECTOR, Tables};

/// What two copies of one table say; entries by their number in the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Damaged in the first copy, known from the second.
    pub(super) first: Vec<u64>,
    /// Damaged in the second copy.
    pub(super) second: Vec<u64>,
    /// Missing in the second copy only: it was cut off from the last writes.
    pub(super) behind: Vec<u64>,
    /// Different, and either could be.
    pub(super) disputed: Vec<u64>,
    /// What both should say, as far as that is certain.
    pub(super) merged: Vec<u64>,
}

impl Comparison {
    pub(super) fn of(tables: &Tables, first: &[u64], second: &[u64]) -> Self {
        let size = tables.file.size();
        let is_possible = |word: u64| match tables.content(word) {
            Ok(Content::At(at) | Content::Packed(at)) => at < size,
            Ok(_) => true,
            Err(_) => false,
        };
        let mut found = Self { merged: first.to_vec(), ..Self::default() };
        let mut number = 0_u64;
        let sectors = first.chunks(IN_SECTOR).zip(second.chunks(IN_SECTOR));
        for ((first, second), merged) in sectors.zip(found.merged.chunks_mut(IN_SECTOR)) {
            let is_lost = first.iter().all(|word| *word == 0);
            for ((first, second), merged) in first.iter().zip(second).zip(merged) {
                let entry = number;
                number = number.saturating_add(1);
                if first == second {
                    continue;
                }
                match (is_possible(*first), is_possible(*second)) {
                    (true, true) if *first == 0 && is_lost => {
                        *merged = *second;
                        found.first.push(entry);
                    }
                    (true, true) if *second == 0 => found.behind.push(entry),
                    (true, true) | (false, false) => found.disputed.push(entry),
                    (true, false) => found.second.push(entry),
                    (false, true) if *second == 0 => found.disputed.push(entry),
                    (false, true) => {
                        *merged = *second;
                        found.first.push(entry);
                    }
                }
            }
        }
        found
    }

    pub(super) fn is_certain(&self) -> bool {
        self.disputed.is_empty()
    }
}
