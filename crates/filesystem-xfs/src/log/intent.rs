//! Intent items: changes that take several transactions, and the items that say that they are done.
//!
//! XFS Algorithms & Data Structures, "Extent Free Intent Log Item" and those that follow. What is not done at
//! the end the kernel does after recovery. Freeing extents and keeping the maps of owners and shares up to
//! date changes nothing that a reader shows; the other kinds do.

use std::collections::BTreeMap;

use ondisk::{Error, Result, le};

use super::item::{Item, get, kind};

/// Intents that are not done, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Intents {
    /// By the kind and the number that the intent and its done item share.
    open: BTreeMap<(u16, u64), (u64, Item)>,
    met: u64,
}

impl Intents {
    /// Takes an intent or a done item.
    pub(super) fn add(&mut self, item: &Item, kind: u16, offset: u64) -> Result<()> {
        let known = [
            kind::EXTENT_FREE,
            kind::REVERSE_MAP,
            kind::REFERENCE_COUNT,
            kind::EXTENT_MAP,
            kind::ATTRIBUTE,
            kind::EXCHANGE,
        ];
        let intent = kind & !1;
        if !known.contains(&intent) {
            return Err(Error::unsupported("log", format!("recovery of items of type {kind:#x}")));
        }
        let number = get::<le::U64>(&item.region(0, "log intent", offset)?, 8, "id")?.get();
        if kind == intent {
            self.met = self.met.saturating_add(1);
            self.open.insert((intent, number), (self.met, item.clone()));
        } else {
            self.open.remove(&(intent, number));
        }
        Ok(())
    }

    /// How many are not done.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// The items that are not done, in order.
    pub(super) fn items(&self) -> Vec<&Item> {
        let mut items: Vec<_> = self.open.values().collect();
        items.sort_by_key(|(order, _)| *order);
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// Refuses what would change names or content if it were done.
    pub(super) fn check_invisible(&self) -> Result<()> {
        for (kind, _) in self.open.keys() {
            let what = match *kind {
                kind::EXTENT_MAP => "finishing an interrupted change of a file's extents",
                kind::ATTRIBUTE => "finishing an interrupted change of an attribute",
                kind::EXCHANGE => "finishing an interrupted exchange of two files",
                _ => continue,
            };
            return Err(Error::unsupported("log", what));
        }
        Ok(())
    }
}
