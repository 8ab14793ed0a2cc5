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

#[cfg(test)]
mod tests {
    use super::*;

    fn add(intents: &mut Intents, kind: u16, number: u8) -> Result<()> {
        let mut region = kind.to_le_bytes().to_vec();
        region.extend_from_slice(&[1, 0, 0, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0]);
        intents.add(&Item { count: 1, regions: vec![region] }, kind, 0)
    }

    #[test]
    fn done_items_end_their_intents() {
        let mut intents = Intents::default();
        for (kind, number) in [(0x1236, 2), (0x1240, 1), (0x1236, 1), (0x1237, 2), (0x1243, 7)] {
            add(&mut intents, kind, number).unwrap();
        }
        let kinds: Vec<u16> = intents.items().iter().map(|item| item.kind(0).unwrap()).collect();
        assert_eq!((intents.count(), kinds), (2, vec![0x1240, 0x1236]));
        intents.check_invisible().unwrap();
        assert!(add(&mut intents, 0x124a, 1).unwrap_err().to_string().contains("type 0x124a"));
    }

    #[test]
    fn what_changes_content_is_refused_until_it_is_done() {
        for kind in [0x1244, 0x1246, 0x1248] {
            let mut intents = Intents::default();
            add(&mut intents, kind, 1).unwrap();
            assert!(intents.check_invisible().unwrap_err().to_string().contains("interrupted"));
            add(&mut intents, kind + 1, 1).unwrap();
            intents.check_invisible().unwrap();
        }
    }
}
