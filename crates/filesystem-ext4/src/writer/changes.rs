//! What is to be written, once all of it is known.

use std::borrow::Cow;

use blockdev::Device;
use ondisk::{Error, Result};

use crate::units::widen;

/// New bytes for places on the device.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    writes: Vec<(u64, Cow<'a, [u8]>)>,
}

impl<'a> Changes<'a> {
    /// Notes new bytes for the place that begins at byte `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: impl Into<Cow<'a, [u8]>>) {
        self.writes.push((offset, bytes.into()));
    }

    /// Writes everything, in the order in which it was noted.
    pub(super) fn apply(&self, device: &Device) -> Result<()> {
        let failed = |offset, length, source| Error::Write { offset, length, source };
        let writable = blockdev::writable(device).map_err(|source| failed(0, 0, source))?;
        for (offset, bytes) in &self.writes {
            let written = writable.write_all_at(bytes, *offset);
            written.map_err(|source| failed(*offset, widen(bytes.len()), source))?;
        }
        Ok(())
    }
}
