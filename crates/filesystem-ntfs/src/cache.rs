//! Files and streams that were opened last, so that a reader of pieces need not open them for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ondisk::Result;

use crate::file::File;
use crate::stream::Stream;

/// What is kept, at most.
const COUNT: usize = 64;
/// Runs of all streams that are kept; a run takes 40 bytes.
const WEIGHT: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) files: Recent<File>,
    pub(crate) streams: Recent<Stream>,
}

/// The values that were asked for last, by inode; the newest in front.
#[derive(Debug)]
pub(crate) struct Recent<T>(Mutex<VecDeque<Kept<T>>>);

#[derive(Debug)]
struct Kept<T> {
    inode: u64,
    weight: usize,
    value: Arc<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<T> Recent<T> {
    /// The value for `inode`, kept or made now.
    pub(crate) fn get(
        &self,
        inode: u64,
        weight: impl FnOnce(&T) -> usize,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = lock();
            if let Some(index) = kept.iter().position(|kept| kept.inode == inode)
                && let Some(found) = kept.remove(index)
            {
                let value = Arc::clone(&found.value);
                kept.push_front(found);
                return Ok(value);
            }
        }
        let value = Arc::new(make()?);
        let weight = weight(&value);
        let mut kept = lock();
        kept.push_front(Kept { inode, weight, value: Arc::clone(&value) });
        while kept.len() > COUNT || kept.iter().map(|kept| kept.weight).sum::<usize>() > WEIGHT {
            kept.pop_back();
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_asked_for_last() {
        let recent = Recent::default();
        let ask =
            |inode| *recent.get(inode, |_| WEIGHT / 3, || Ok(std::cell::Cell::new(inode).get())).unwrap();
        for inode in [1, 2, 3, 1, 4] {
            assert_eq!(ask(inode), inode);
        }
        let kept: Vec<u64> = recent.0.lock().unwrap().iter().map(|kept| kept.inode).collect();
        assert_eq!(kept, [4, 1, 3]);
        assert!(recent.get(9, |_| 0, || Err(ondisk::Error::unsupported("a", "b"))).is_err());
    }
}
