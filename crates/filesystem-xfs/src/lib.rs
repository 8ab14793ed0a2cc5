//! XFS, versions 4 and 5: a bounded reader, and a writer that replaces files in place.
//!
//! The specification is "XFS Algorithms & Data Structures" (xfs-documentation); head comments name its
//! chapters. All integers on disk are big-endian except checksums, which are little-endian CRC-32C.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod attribute;
mod directory;
mod extent;
mod features;
mod geometry;
mod inode;
mod log;
mod mapping;
mod number;
mod open;
mod read;
mod secondary;
mod span;
mod stamp;
mod superblock;
mod symlink;
mod write;

use std::sync::{Mutex, MutexGuard, PoisonError};

use blockdev::Device;
use filesystem::{Format, FsInfo};

use crate::mapping::CachedLeaf;
use crate::superblock::Superblock;

/// XFS in the list of formats.
pub static FORMAT: Format =
    Format { name: "xfs", probe: open::probe, open: open::open, replay: open::replay, set: None };

/// An open file system.
struct Xfs {
    device: Device,
    superblock: Superblock,
    info: FsInfo,
    log: log::State,
    cache: Mutex<Option<CachedLeaf>>,
    writing: Mutex<()>,
}

impl Xfs {
    fn cached_leaf(&self) -> MutexGuard<'_, Option<CachedLeaf>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held from the first read of a change to its last write.
    fn lock_for_writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
