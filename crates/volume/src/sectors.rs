//! Reading for judgement: a range that cannot be read is a fault of the structure, not the end of the reading.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, read_bytes};

/// A disk, and the errors of the host on the way.
#[derive(Debug)]
pub(crate) struct Sectors<'a> {
    pub(crate) disk: &'a dyn BlockDevice,
    pub(crate) errors: Vec<Error>,
}

impl<'a> Sectors<'a> {
    pub(crate) fn new(disk: &'a dyn BlockDevice) -> Self {
        Self { disk, errors: Vec::new() }
    }

    /// `length` bytes at byte `at` of the structure `name`.
    pub(crate) fn read(&mut self, name: &'static str, at: u64, length: u64) -> Result<Vec<u8>, Corrupt> {
        let size = self.disk.size();
        if at.checked_add(length).is_none_or(|end| end > size) {
            let expected = format!("{length} bytes within the {size} of the disk");
            return Err(Corrupt::new(name, at, "place", expected, format!("byte {at}")));
        }
        read_bytes(self.disk, at, usize::try_from(length).unwrap_or(usize::MAX)).map_err(|error| {
            let found = match &error {
                Error::Io { source, .. } => source.to_string(),
                other => other.to_string(),
            };
            self.errors.push(error);
            Corrupt::new(name, at, "content", "readable bytes", found)
        })
    }

    /// The same where the reason does not matter.
    pub(crate) fn get(&mut self, at: u64, length: u64) -> Option<Vec<u8>> {
        self.read("disk", at, length).ok()
    }
}

/// The last whole sector of a disk of `size` bytes; 0 for an empty one.
pub(crate) fn last_lba(size: u64, sector_size: u64) -> u64 {
    size.checked_div(sector_size).unwrap_or(0).saturating_sub(1)
}
