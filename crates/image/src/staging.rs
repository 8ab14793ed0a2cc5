//! Writing without touching a file: every file of the image gets an overlay in memory.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{Device, Overlay};

/// Host device and inode: what makes two names the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The files that an image is written to, each with what would be written.
///
/// An image that is opened with the same staging again sees what was written before.
#[derive(Debug)]
pub struct Staging {
    is_for_commit: bool,
    files: Mutex<Vec<(Identity, StagedFile)>>,
}

/// One file of a [`Staging`].
#[derive(Debug, Clone)]
pub struct StagedFile {
    /// The file, as it was opened.
    pub path: PathBuf,
    /// What it would hold; its base is the file as it is, open for writing if this is for a commit.
    pub overlay: Arc<Overlay>,
}

impl Staging {
    /// For a commit: files are opened for writing, and so locked, though only their overlays are written.
    pub fn for_commit() -> Self {
        Self { is_for_commit: true, files: Mutex::default() }
    }

    /// For a look at what would be: files are opened read-only.
    pub fn preview() -> Self {
        Self { is_for_commit: false, files: Mutex::default() }
    }

    /// Lets `device` stand for the file at `path`, which is then not opened.
    ///
    /// # Errors
    /// The host does not know `path`.
    pub fn insert(&self, path: &Path, device: Device) -> io::Result<()> {
        self.overlay(path, Identity::of(&path.metadata()?), device);
        Ok(())
    }

    pub(crate) fn is_for_commit(&self) -> bool {
        self.is_for_commit
    }

    /// Every file that was opened for writing so far, the image itself first.
    pub fn files(&self) -> Vec<StagedFile> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().map(|(_, file)| file.clone()).collect()
    }

    /// The overlay over this file, if there is one already.
    pub(crate) fn known(&self, identity: Identity) -> Option<Device> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, known) = files.iter().find(|(known, _)| *known == identity)?;
        Some(known.overlay.clone())
    }

    /// A new overlay over this file.
    pub(crate) fn overlay(&self, path: &Path, identity: Identity, file: Device) -> Device {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let overlay = Arc::new(Overlay::new(file));
        files.push((identity, StagedFile { path: path.to_owned(), overlay: overlay.clone() }));
        overlay
    }
}
