//! What is to be done about a log.

use blockdev::BlockDevice;
use ondisk::{Error, Result};

use super::finish;
use super::head::{self, Head};
use super::item::kind;
use super::record::Record;
use super::ring::{BASIC_BLOCK_BYTES, Ring};
use super::transaction::Assembler;
use crate::superblock::{LogPlace, Superblock};

/// Whether the kernel would recover anything at mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: the log ends with the record that an unmount writes, or was never used.
    Clean,
    /// Nothing that a reader or a writer of files would see: all changes are in their places, and what the
    /// kernel has left to do is to free blocks and inodes.
    Settled,
    /// Changes in the log may not have reached their places.
    Dirty,
    /// The log is on another device.
    External,
}

/// The log of a file system, if it has one of its own.
pub(super) fn ring<'a>(device: &'a dyn BlockDevice, superblock: &Superblock) -> Option<Ring<'a>> {
    match superblock.log {
        LogPlace::Internal { offset, length } => {
            Some(Ring { device, offset, blocks: length / BASIC_BLOCK_BYTES })
        }
        LogPlace::External => None,
    }
}

/// The state of the log of a file system.
pub(crate) fn state(device: &dyn BlockDevice, superblock: &Superblock) -> Result<State> {
    let Some(log) = ring(device, superblock) else { return Ok(State::External) };
    let needs_crc = superblock.features.crc;
    Ok(match head::find(&log, needs_crc)? {
        None => State::Clean,
        Some(head) if head.is_unmount => State::Clean,
        Some(head) if is_settled(&log, &head, needs_crc) => State::Settled,
        Some(_) => State::Dirty,
    })
}

/// Whether the last record is the only one that counts and holds nothing but intents and buffers that are
/// freed.
pub(super) fn is_settled(log: &Ring<'_>, head: &Head, needs_crc: bool) -> bool {
    if !finish::may_be_settled(head) {
        return false;
    }
    let Ok(record) = Record::read(log, head.last_block, needs_crc) else { return false };
    if log.wrap(record.end()) != head.block {
        return false;
    }
    let mut transactions = Vec::new();
    let taken = Assembler::default().add(&record, &mut |transaction| {
        transactions.push(transaction);
        Ok(())
    });
    let has_no_effect = |item: &super::item::Item| match item.kind(record.offset) {
        Ok(kind::BUFFER) => {
            super::buffer::Format::decode(item, record.offset).is_ok_and(|f| f.is_cancelled())
        }
        Ok(kind::EXTENT_FREE | kind::REVERSE_MAP | kind::REFERENCE_COUNT) => true,
        _ => false,
    };
    taken.is_ok()
        && transactions.len() == 1
        && transactions.iter().flat_map(|transaction| &transaction.items).all(has_no_effect)
}

/// What the kernel has left to do with a settled log, as a fact to report.
pub(crate) fn unfinished(device: &dyn BlockDevice, superblock: &Superblock) -> Error {
    let what = match finish::count_unlinked(device, superblock) {
        Ok(0) | Err(_) => {
            "freeing what interrupted changes left, which the kernel does at the next mount".into()
        }
        Ok(lists) => format!(
            "freeing files that were removed while they were open ({lists} lists of them), which the kernel does at the next mount"
        ),
    };
    Error::unsupported("log", what)
}
