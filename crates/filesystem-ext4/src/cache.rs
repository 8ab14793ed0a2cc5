//! Blocks of metadata that were read lately, within a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ondisk::Result;

use crate::units::{BlockSize, FsBlock, to_usize};

/// Bytes that are kept at most.
const BOUND: u64 = 8 << 20;

/// Groups whose inode table is remembered at most.
const MAX_TABLES: usize = 1 << 16;

/// Metadata of a device that nobody else writes to.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<FsBlock, Arc<Vec<u8>>>,
    /// The oldest first.
    order: VecDeque<FsBlock>,
    /// By group, where its inode table begins.
    tables: HashMap<u32, FsBlock>,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block, from here or from `read`.
    pub(crate) fn block(
        &self,
        block: FsBlock,
        size: BlockSize,
        read: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<Vec<u8>>> {
        if let Some(found) = self.state().blocks.get(&block) {
            return Ok(found.clone());
        }
        let bytes = Arc::new(read()?);
        let mut state = self.state();
        let most = to_usize(BOUND.checked_div(size.bytes()).unwrap_or(1));
        if state.blocks.insert(block, bytes.clone()).is_none() {
            state.order.push_back(block);
        }
        while state.order.len() > most {
            if let Some(oldest) = state.order.pop_front() {
                state.blocks.remove(&oldest);
            }
        }
        Ok(bytes)
    }

    /// Where the inode table of a group begins, from here or from `find`.
    pub(crate) fn table(&self, group: u32, find: impl FnOnce() -> Result<FsBlock>) -> Result<FsBlock> {
        if let Some(found) = self.state().tables.get(&group) {
            return Ok(*found);
        }
        let table = find()?;
        let mut state = self.state();
        if state.tables.len() >= MAX_TABLES {
            state.tables.clear();
        }
        state.tables.insert(group, table);
        Ok(table)
    }

    /// Forgets everything: the device was written to.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_the_oldest_goes() {
        let (cache, size) = (Cache::default(), BlockSize::from_log(6).unwrap());
        let mut reads = 0;
        let mut get = |number: u64| {
            let block = cache.block(FsBlock(number), size, || {
                reads += 1;
                Ok(vec![number as u8; 65536])
            });
            assert_eq!(block.unwrap()[0], number as u8);
            reads
        };
        assert_eq!((0..200).map(&mut get).last(), Some(200));
        assert_eq!((get(199), get(100), get(0)), (200, 200, 201));
        assert_eq!(cache.state().blocks.len(), 128);
        assert_eq!(cache.state().order.len(), 128);
    }
}
