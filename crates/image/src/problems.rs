//! What reads of an open image found wrong.
//!
//! Most damage lies in tables that nobody looks at until the disk is read there, long after opening. Each
//! kind is kept once for each layer: one truncated file must not fill memory with complaints.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ondisk::Corrupt;

/// Damage that hides bytes, as the error of a read.
pub(crate) fn damaged(corrupt: Corrupt) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, ondisk::Error::from(corrupt))
}

/// Shared between the devices of one image.
#[derive(Debug, Default)]
pub(crate) struct ReadProblems(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    found: Vec<Corrupt>,
    /// Layer, structure and field of everything ever recorded.
    seen: HashSet<(usize, &'static str, &'static str)>,
}

impl ReadProblems {
    /// Keeps `corrupt`, unless this field of this structure was already recorded for this layer.
    pub(crate) fn record(&self, layer: usize, corrupt: Corrupt) {
        let mut state = self.lock();
        if state.seen.insert((layer, corrupt.structure, corrupt.field)) {
            state.found.push(corrupt);
        }
    }

    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Corrupt> {
        std::mem::take(&mut self.lock().found)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
