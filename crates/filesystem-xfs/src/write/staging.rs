//! Changes that are not made yet.

use std::collections::BTreeMap;

use ondisk::{Error, Result, read_bytes};

use crate::Xfs;
use crate::number::wide;

/// The file system as it would be after the changes so far. A clone is a way to try something.
///
/// Changes are whole structures: what was written in one piece is read in the same piece.
#[derive(Clone)]
pub(super) struct Staging<'a> {
    pub(super) xfs: &'a Xfs,
    /// By first byte on the device.
    changes: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Staging<'a> {
    pub(super) fn new(xfs: &'a Xfs) -> Self {
        Self { xfs, changes: BTreeMap::new() }
    }

    /// The structure of `length` bytes at byte `offset`.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        match self.changes.get(&offset) {
            Some(bytes) => {
                debug_assert_eq!(bytes.len(), length, "structures are changed in one piece");
                Ok(bytes.clone())
            }
            None => read_bytes(&*self.xfs.device, offset, length),
        }
    }

    /// Changes the structure at byte `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        self.changes.insert(offset, bytes);
    }

    /// Makes the changes. The device is asked for all ranges before the first byte is written.
    pub(super) fn commit(self) -> Result<()> {
        let failed =
            |offset: u64, bytes: &[u8], source| Error::Write { offset, length: wide(bytes.len()), source };
        let device = blockdev::writable(&self.xfs.device).map_err(|source| failed(0, &[], source))?;
        for (offset, bytes) in &self.changes {
            blockdev::check_range(device.size(), *offset, wide(bytes.len()))
                .map_err(|source| failed(*offset, bytes, source))?;
        }
        for (offset, bytes) in &self.changes {
            device.write_all_at(bytes, *offset).map_err(|source| failed(*offset, bytes, source))?;
        }
        Ok(())
    }
}
