//! A bounded map of things read from images, shared by all layers of one chain.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The layer, and a number that is unique within it.
pub(crate) type Key = (usize, u64);

/// Second-chance cache: a full one drops what was not asked for since it was last full.
pub(crate) struct Cache<T> {
    /// Items kept in total.
    capacity: usize,
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    map: HashMap<Key, Slot<T>>,
    /// Sum of the lengths of all values, in items.
    used: usize,
}

struct Slot<T> {
    value: Arc<[T]>,
    was_asked_for: AtomicBool,
}

impl<T> Cache<T> {
    /// A cache for values of `capacity` items in total; one value may exceed it on its own.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, slots: RwLock::new(Slots { map: HashMap::new(), used: 0 }) }
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<[T]>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.map.get(&key)?;
        slot.was_asked_for.store(true, Ordering::Relaxed);
        Some(slot.value.clone())
    }

    pub(crate) fn insert(&self, key: Key, value: Arc<[T]>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.used.saturating_add(value.len()) > self.capacity {
            slots.map.retain(|_, slot| std::mem::take(slot.was_asked_for.get_mut()));
            slots.used = slots.map.values().map(|slot| slot.value.len()).sum();
            if slots.used.saturating_add(value.len()) > self.capacity {
                slots.map.clear();
                slots.used = 0;
            }
        }
        slots.used = slots.used.saturating_add(value.len());
        let slot = Slot { value, was_asked_for: AtomicBool::new(false) };
        if let Some(old) = slots.map.insert(key, slot) {
            slots.used = slots.used.saturating_sub(old.value.len());
        }
    }

    pub(crate) fn remove(&self, key: Key) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slots.map.remove(&key) {
            slots.used = slots.used.saturating_sub(old.value.len());
        }
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Cache({} of {} items)", slots.used, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays() {
        let cache = Cache::new(10);
        for number in 0..10 {
            cache.insert((0, number), Arc::from([number]));
        }
        assert_eq!(cache.get((0, 3)).as_deref(), Some(&[3][..]));
        cache.insert((0, 10), Arc::from([10]));
        assert!(cache.get((0, 3)).is_some() && cache.get((0, 10)).is_some());
        assert!(cache.get((0, 4)).is_none() && cache.get((1, 3)).is_none());
    }

    #[test]
    fn never_holds_more_than_its_capacity() {
        let cache = Cache::new(100);
        for number in 0..1000 {
            cache.insert((0, number % 37), Arc::from(vec![0_u8; 1 + number as usize % 50]));
            cache.get((0, number % 11));
            let slots = cache.slots.read().unwrap();
            assert!(slots.used <= 100);
            assert_eq!(slots.used, slots.map.values().map(|slot| slot.value.len()).sum::<usize>());
        }
        cache.remove((0, 999 % 37));
        assert!(cache.get((0, 999 % 37)).is_none());
    }
}
