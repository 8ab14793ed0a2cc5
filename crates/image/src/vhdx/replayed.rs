//! The file as it is once its log is replayed.
//!
//! Reading never writes, so the replayed log lies over the file in memory. A writer replays it into the file
//! first, and from then on the file itself is what is read.

use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{BlockDevice, Device, Overlay};

/// A file, with its log laid over it as long as that is needed.
#[derive(Debug)]
pub(super) struct Replayed {
    file: Device,
    overlay: Option<Overlay>,
    is_in_file: AtomicBool,
}

impl Replayed {
    pub(super) fn new(file: Device, overlay: Option<Overlay>) -> Self {
        let is_in_file = AtomicBool::new(overlay.is_none());
        Self { file, overlay, is_in_file }
    }

    /// What is to be read.
    pub(super) fn view(&self) -> &dyn BlockDevice {
        match &self.overlay {
            Some(overlay) if !self.is_in_file.load(Ordering::Acquire) => overlay,
            _ => &*self.file,
        }
    }

    /// The file itself.
    pub(super) fn file(&self) -> &Device {
        &self.file
    }

    /// What must be written into the file before anything else is.
    pub(super) fn pending(&self) -> Option<&Overlay> {
        self.overlay.as_ref().filter(|_| !self.is_in_file.load(Ordering::Acquire))
    }

    /// The log has been brought into the file.
    pub(super) fn settle(&self) {
        self.is_in_file.store(true, Ordering::Release);
    }
}
