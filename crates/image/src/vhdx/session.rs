//! One opening for writing: new identities, and changes of tables that happen whole or not at all.
//!
//! MS-VHDX §2.2.2.1 and §2.3. Headers are written alternately, each over the one that does not count, so a torn
//! header leaves the other one. A change of tables goes through the log:
//!
//! 1. the entry, under an identity that no header names yet: nothing refers to it; flush
//! 2. a header that names it: from here on the change has happened, for whoever opens the file replays it; flush
//! 3. the same sectors in their places; flush
//! 4. a header that names no log: it is empty again; flush
//!
//! The specification would have the header name the log before its space is overwritten. Here the space always
//! belongs to an empty log when it is overwritten, and the other order would leave, between the two writes, a
//! file whose log is active and invalid, which every reader must refuse. At the end the second header follows
//! the first without waiting, so that the loss of one never brings an old log back.
//!
//! After each change the log is empty, so QEMU opens the file read-only and nothing is left to do at the end.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Overlay};
use ondisk::Guid;

use super::geometry::{MIB, SECTOR_SIZE, length_of, overflow, to_index};
use super::guid::fresh;
use super::header::Header;
use super::log_entry::NewEntry;
use super::replayed::Replayed;
use super::structures::header_offset;

/// Bytes of a replayed log that are copied at once.
const COPY: u64 = 1 << 20;

/// The header of a file that is being written.
#[derive(Debug)]
pub(super) struct Session {
    /// The number of the copy that counts.
    current: usize,
    header: Header,
    has_begun: bool,
}

impl Session {
    pub(super) fn new(current: usize, header: Header) -> Self {
        Self { current, header, has_begun: false }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes in the log.
    pub(super) fn log_length(&self) -> u64 {
        self.header.log_length
    }

    /// Before the first change: new identities, and the log into the file.
    pub(super) fn begin(&mut self, file: &Replayed) -> io::Result<()> {
        let device = blockdev::writable(file.file())?;
        self.update(device, |header| {
            header.file_write = fresh();
            header.data_write = fresh();
        })?;
        device.flush()?;
        if let Some(overlay) = file.pending() {
            copy(overlay, device)?;
            device.flush()?;
            self.update(device, |header| header.log_guid = Guid::NIL)?;
            device.flush()?;
        }
        self.update(device, |_| {})?;
        self.has_begun = true;
        Ok(())
    }

    /// Writes these sectors, each to its place in the file, all or none. What was written before is durable
    /// first. `end` is the first byte behind all that is in use.
    pub(super) fn commit(
        &mut self,
        file: &Device,
        sectors: &[(u64, [u8; SECTOR_SIZE])],
        end: u64,
    ) -> io::Result<()> {
        let device = blockdev::writable(file)?;
        let log_guid = fresh();
        let entry = NewEntry {
            log_guid,
            sequence: 1,
            tail: 0,
            flushed_file_offset: file.size().saturating_sub(file.size() % MIB),
            last_file_offset: end,
        };
        device.write_all_at(&entry.encode(sectors), self.header.log_offset)?;
        device.flush()?;
        self.update(device, |header| header.log_guid = log_guid)?;
        device.flush()?;
        for (offset, sector) in sectors {
            device.write_all_at(sector, *offset)?;
        }
        device.flush()?;
        self.update(device, |header| header.log_guid = Guid::NIL)?;
        device.flush()?;
        self.update(device, |_| {})
    }

    /// Overwrites the header that does not count, which makes it count. The one before must be durable.
    fn update(&mut self, device: &dyn BlockDeviceMut, change: impl FnOnce(&mut Header)) -> io::Result<()> {
        let mut header = self.header;
        header.sequence = header.sequence.checked_add(1).ok_or_else(overflow)?;
        change(&mut header);
        let other = usize::from(self.current == 0);
        device.write_all_at(&header.encode(), header_offset(other))?;
        (self.current, self.header) = (other, header);
        Ok(())
    }
}

/// Writes a replayed log into the file. A cut in between harms nothing: the log is still active then.
fn copy(overlay: &Overlay, device: &dyn BlockDeviceMut) -> io::Result<()> {
    device.grow(overlay.size())?;
    for range in overlay.changed() {
        let mut at = range.start;
        while at < range.end {
            let mut bytes = vec![0; to_index(range.end.saturating_sub(at).min(COPY))?];
            overlay.read_exact_at(&mut bytes, at)?;
            device.write_all_at(&bytes, at)?;
            at = at.saturating_add(length_of(&bytes));
        }
    }
    Ok(())
}
