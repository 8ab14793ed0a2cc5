//! The log: where it ends, and whether anything in it has yet to reach its place.
//!
//! XFS Algorithms & Data Structures, "Journaling Log". A ring of 512-byte basic blocks, whatever the sector
//! size. The first word of every basic block is the number of the pass over the ring that wrote it, its
//! cycle, except in record headers, where it is the second word.

mod head;
mod record;

use blockdev::{BlockDevice, Device};
use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::superblock::LogPlace;

/// Bytes in a basic block.
const BASIC_BLOCK: u64 = 512;

/// Whether the kernel would recover anything at mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: the log ends with the record that an unmount writes, or was never used.
    Clean,
    /// Changes in the log may not have reached their places.
    Dirty,
    /// The log is on another device.
    External,
}

/// The state of the log at `place` of `device`.
pub(crate) fn state(device: &dyn BlockDevice, place: LogPlace) -> Result<State> {
    let LogPlace::Internal { offset, length } = place else { return Ok(State::External) };
    let log = Ring { device, offset, blocks: length / BASIC_BLOCK };
    let is_clean = match head::find(&log)? {
        None => true,
        Some(head) => record::ends_with_unmount(&log, head)?,
    };
    Ok(if is_clean { State::Clean } else { State::Dirty })
}

/// The device as the kernel will see it after recovery; only a clean log is known here so far.
pub(crate) fn replay(device: Device, place: LogPlace) -> Result<filesystem::Replayed> {
    match state(&*device, place)? {
        State::Clean => Ok(filesystem::Replayed { device, transactions: 0 }),
        State::Dirty => Err(Error::unsupported("log", "log recovery")),
        State::External => Err(Error::unsupported("log", "an external log")),
    }
}

/// An internal log, as basic blocks.
struct Ring<'a> {
    device: &'a dyn BlockDevice,
    /// First byte on the device.
    offset: u64,
    /// Basic blocks, at least 1.
    blocks: u64,
}

impl Ring<'_> {
    /// First byte of `block` on the device; counting goes on at the start after the last block.
    fn byte(&self, block: u64) -> u64 {
        let within = block.checked_rem(self.blocks).unwrap_or_default();
        self.offset.saturating_add(within.saturating_mul(BASIC_BLOCK))
    }

    /// One basic block.
    fn read(&self, block: u64) -> Result<Vec<u8>> {
        read_bytes(self.device, self.byte(block), 512)
    }

    fn corrupt(&self, block: u64, field: &'static str, expected: &str, found: u64) -> Corrupt {
        Corrupt::new("log", self.byte(block), field, expected, found)
    }
}
