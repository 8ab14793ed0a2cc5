//! What Windows left undone: the dirty mark, the journal, hibernation.

use filesystem::FileSystem;
use ondisk::{Error, Result};

use crate::Ntfs;
use crate::file::File;
use crate::log_file::{self, Log};
use crate::mft::{self, number};
use crate::name;
use crate::record::kind;
use crate::span::Span;

const DIRTY: u16 = 1;

/// The state in which a volume was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// NTFS version, major and minor: 3.1 since Windows XP.
    pub version: (u8, u8),
    /// Whether Windows asks for a check at its next start; `None` when the mark cannot be read.
    pub is_dirty: Option<bool>,
    /// The journal.
    pub log: Log,
    /// What `hiberfil.sys` in the root says.
    pub hibernation: Hibernation,
}

/// What `hiberfil.sys` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hibernation {
    /// There is no such file in the root.
    Absent,
    /// Its header is zeros, or that of a system that has woken up: nothing is kept in it.
    Unused,
    /// A sleeping system: it will go on with what it remembers of this volume.
    Hibernated,
    /// It cannot be read, or its header is unknown.
    Unknown,
}

impl State {
    /// Whether Windows was shut down with Fast Startup, or sleeps: it still has metadata of this volume in
    /// memory that it will go on with, and changes made meanwhile are lost or do damage.
    pub fn is_kept_by_windows(&self) -> bool {
        self.hibernation == Hibernation::Hibernated || self.log.version().is_some_and(|(major, _)| major >= 2)
    }

    /// Nothing is left undone, and all of it could be read.
    pub fn is_clean(&self) -> bool {
        self.is_dirty == Some(false)
            && matches!(self.log, Log::Empty | Log::Clean { .. })
            && matches!(self.hibernation, Hibernation::Absent | Hibernation::Unused)
            && !self.is_kept_by_windows()
    }
}

/// What record 3 says: label, version, dirty mark.
pub(crate) struct VolumeFile {
    /// Bytes of the label, as [`name::to_bytes`] makes them.
    pub(crate) label: Option<Vec<u8>>,
    pub(crate) version: (u8, u8),
    pub(crate) is_dirty: bool,
}

pub(crate) fn volume_file(ntfs: &Ntfs) -> Result<VolumeFile> {
    let file = File::open(ntfs, mft::inode(number::VOLUME))?;
    let label = file.value(ntfs, kind::VOLUME_NAME, &[], 256)?;
    let label = label.map(|label| name::to_bytes(&label)).filter(|label| !label.is_empty());
    let information = file.value(ntfs, kind::VOLUME_INFORMATION, &[], 64)?.unwrap_or_default();
    let span = Span::new("$VOLUME_INFORMATION", file.base.offset, &information);
    let version = (span.u8(8, "major_ver")?, span.u8(9, "minor_ver")?);
    Ok(VolumeFile { label, version, is_dirty: span.u16(10, "flags")? & DIRTY != 0 })
}

/// Reads the journal's and the hibernation's state; what cannot be read is a problem and unknown.
pub(crate) fn read(ntfs: &Ntfs, volume: Option<&VolumeFile>, problems: &mut Vec<Error>) -> State {
    let log = log_file::state(ntfs).unwrap_or_else(|error| {
        problems.push(error);
        Log::Unknown
    });
    let hibernation = hibernation(ntfs).unwrap_or_else(|error| {
        problems.push(error);
        Hibernation::Unknown
    });
    State {
        version: volume.map_or((0, 0), |volume| volume.version),
        is_dirty: volume.map(|volume| volume.is_dirty),
        log,
        hibernation,
    }
}

/// The header is in the first page: `hibr` and `HIBR` sleep; `wake`, `RSTR` and zeros do not.
fn hibernation(ntfs: &Ntfs) -> Result<Hibernation> {
    let Some(file) = ntfs.lookup(ntfs.root(), b"hiberfil.sys")? else { return Ok(Hibernation::Absent) };
    let mut header = [0; 4096];
    let count = ntfs.read_at(file, &mut header, 0)?;
    let header = header.get(..count).unwrap_or_default();
    Ok(match header.first_chunk::<4>() {
        Some(b"hibr" | b"HIBR") => Hibernation::Hibernated,
        Some(b"wake" | b"WAKE") => Hibernation::Unused,
        _ if header.iter().all(|byte| *byte == 0) => Hibernation::Unused,
        _ => Hibernation::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_means_all_of_it() {
        let clean = State {
            version: (3, 1),
            is_dirty: Some(false),
            log: Log::Clean { version: (1, 1) },
            hibernation: Hibernation::Unused,
        };
        assert!(clean.is_clean() && !clean.is_kept_by_windows());
        for unclean in [
            State { is_dirty: Some(true), ..clean.clone() },
            State { is_dirty: None, ..clean.clone() },
            State { log: Log::NeedsReplay { version: (1, 1) }, ..clean.clone() },
            State { log: Log::Clean { version: (2, 0) }, ..clean.clone() },
            State { hibernation: Hibernation::Hibernated, ..clean.clone() },
            State { hibernation: Hibernation::Unknown, ..clean },
        ] {
            assert!(!unclean.is_clean(), "{unclean:?}");
        }
    }
}
