//! NTFS: a bounded reader, and what Windows left undone.
//!
//! There is no published specification; head comments name what is known of each structure. All integers on disk
//! are little-endian. Files look as ntfs-3g shows them without a user mapping: everything belongs to user 0 and
//! may be read, written and executed by all, because Windows' permissions have no Unix counterpart. Named streams
//! are extended attributes `user.NAME`; those over 64 KiB, more than Linux can show, are not listed, but can be
//! asked for by name up to 16 MiB. Names differ in case as they are stored; a lookup prefers the exact name and
//! falls back to one that differs in case. DOS names are found but not listed, nor are the system's own files in
//! the root (`$MFT` and others).
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod boot_sector;
mod cache;
mod file;
mod fixup;
mod index;
mod interix;
mod log_file;
mod lznt1;
mod mft;
mod name;
mod number;
mod open;
mod read;
mod record;
mod reparse;
mod runs;
mod security;
mod span;
mod state;
mod stream;
mod upcase;
mod volume;

use std::fmt;
use std::sync::Arc;

use filesystem::{Format, FsInfo};
use ondisk::Result;

pub use crate::log_file::Log;
pub use crate::state::{Hibernation, State};

use crate::record::Record;

const KIND: &str = "ntfs";

/// NTFS in the list of formats.
pub static FORMAT: Format =
    Format { name: KIND, probe: open::probe, open: open::open, replay: open::replay, set: None };

/// An open volume.
pub struct Ntfs {
    volume: volume::Volume,
    /// The data of the master file table.
    mft: stream::Stream,
    upcase: upcase::UpCase,
    info: FsInfo,
    state: State,
    cache: cache::Cache,
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntfs").field("info", &self.info).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Ntfs {
    /// Record `number` of the master file table.
    fn record(&self, number: u64) -> Result<Arc<Record>> {
        mft::read(&self.volume, &self.mft, number).map(Arc::new)
    }
}
