//! Recovery: the changes of committed transactions, made in an overlay.
//!
//! In two passes, as the kernel does it: the first learns which buffers were freed later on and which quotas
//! were turned off, the second makes the changes, in order. A block of version 5 that is newer than a change
//! is left as it is. Sequence numbers and checksums of buffers are stamped once, at the end; until then a
//! table remembers how new each is.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Overlay};
use ondisk::{Corrupt, Error, Result, read_bytes};

use super::intent::Intents;
use super::item::{Item, kind};
use super::metadata;
use super::transaction::Transaction;
use super::{buffer, create, dquot, inode};
use crate::number::wide;
use crate::superblock::Superblock;

/// Bytes of buffers that one recovery may change; a log of 2 GiB with the largest blocks stays below.
const MOST_TOUCHED: u64 = 2 << 30;
/// Bytes in the largest buffer: a directory or file system block.
pub(super) const LARGEST_BUFFER: u32 = 64 << 10;

/// A buffer that was changed.
#[derive(Debug, Clone, Copy)]
struct Touched {
    length: u32,
    /// `XFS_BLFT_*`.
    kind: u16,
    /// The transaction that changed it last.
    lsn: u64,
}

/// What is known in the middle of a recovery.
pub(super) struct Recovery<'a> {
    pub(super) superblock: &'a Superblock,
    overlay: Arc<Overlay>,
    /// By first byte.
    touched: BTreeMap<u64, Touched>,
    touched_bytes: u64,
    /// Buffers that were freed, by 512-byte sector and their number, with how often that is still to come.
    cancelled: BTreeMap<(u64, u32), u32>,
    /// Quotas that were turned off, as `XFS_QUOTA_*` bits of items.
    pub(super) quota_off: u32,
    pub(super) intents: Intents,
    pub(super) transactions: u64,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(superblock: &'a Superblock, overlay: Arc<Overlay>) -> Self {
        Self {
            superblock,
            overlay,
            touched: BTreeMap::new(),
            touched_bytes: 0,
            cancelled: BTreeMap::new(),
            quota_off: 0,
            intents: Intents::default(),
            transactions: 0,
        }
    }

    /// First pass.
    pub(super) fn learn(&mut self, transaction: &Transaction) -> Result<()> {
        for item in &transaction.items {
            match item.kind(transaction.offset)? {
                kind::BUFFER => {
                    let buffer = buffer::Format::decode(item, transaction.offset)?;
                    if buffer.is_cancelled() {
                        let count = self.cancelled.entry(buffer.place()).or_default();
                        *count = count.saturating_add(1);
                    }
                }
                kind::QUOTA_OFF => self.quota_off |= dquot::turned_off(item, transaction.offset)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Second pass. Buffers come first, since inodes may go into them, but pointers of lists of unlinked
    /// inodes after the inodes; buffers that are freed come last, since the other items look them up.
    pub(super) fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        let mut stages: [Vec<(&Item, u16)>; 4] = Default::default();
        for item in &transaction.items {
            let kind = item.kind(transaction.offset)?;
            let stage = match kind {
                kind::BUFFER => buffer::Format::decode(item, transaction.offset)?.stage(),
                kind::INODE_CREATE => 0,
                _ => 1,
            };
            if let Some(stage) = stages.get_mut(stage) {
                stage.push((item, kind));
            }
        }
        for (item, kind) in stages.into_iter().flatten() {
            self.item(transaction, item, kind)?;
        }
        self.transactions = self.transactions.saturating_add(1);
        Ok(())
    }

    fn item(&mut self, transaction: &Transaction, item: &Item, kind: u16) -> Result<()> {
        match kind {
            kind::BUFFER => buffer::apply(self, transaction, item),
            kind::INODE => inode::apply(self, transaction, item),
            kind::INODE_CREATE => create::apply(self, transaction, item),
            kind::DQUOT => dquot::apply(self, transaction, item),
            kind::QUOTA_OFF => Ok(()),
            _ => self.intents.add(item, kind, transaction.offset),
        }
    }

    /// Whether a later transaction frees the buffer of `count` 512-byte sectors from `sector` on.
    pub(super) fn is_cancelled(&self, place: (u64, u32)) -> bool {
        self.cancelled.contains_key(&place)
    }

    /// Whether a later transaction frees a buffer that begins within these 512-byte sectors.
    pub(super) fn any_cancelled(&self, sectors: std::ops::Range<u64>) -> bool {
        self.cancelled.range((sectors.start, 0)..(sectors.end, 0)).next().is_some()
    }

    /// One of the transactions that free this buffer has come.
    pub(super) fn cancel(&mut self, place: (u64, u32)) {
        if let Some(count) = self.cancelled.get_mut(&place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.cancelled.remove(&place);
            }
        }
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        read_bytes(&*self.overlay, offset, length)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write(&self.overlay, offset, bytes)
    }

    /// Whether the buffer at byte `offset` already has what a transaction with this number changes.
    pub(super) fn is_newer(&self, offset: u64, length: u32, lsn: u64) -> Result<bool> {
        if !self.superblock.features.crc {
            return Ok(false);
        }
        // A number is stamped when the kernel writes the buffer, which is after all changes with one number.
        if let Some(touched) = self.touched.get(&offset) {
            return Ok(touched.lsn > lsn);
        }
        let enough = metadata::ENOUGH.min(crate::number::index(length));
        let found = metadata::lsn_of(&self.read(offset, enough)?, self.superblock.meta_uuid);
        Ok(found.is_some_and(|found| found >= lsn))
    }

    /// Remembers that the buffer was changed, so that it is stamped.
    pub(super) fn touch(&mut self, offset: u64, length: u32, kind: u16, lsn: u64) -> Result<()> {
        if !self.superblock.features.crc {
            return Ok(());
        }
        // The same blocks may have been another buffer; what that was is stamped before it is forgotten.
        let end = offset.saturating_add(u64::from(length));
        let near = self.touched.range(offset.saturating_sub(u64::from(LARGEST_BUFFER))..end);
        let overlapping: Vec<u64> = near
            .filter(|(start, other)| {
                start.saturating_add(u64::from(other.length)) > offset
                    && (**start != offset || other.length != length)
            })
            .map(|(start, _)| *start)
            .collect();
        for start in overlapping {
            if let Some(other) = self.touched.remove(&start) {
                self.stamp(start, other)?;
            }
        }
        if self.touched.insert(offset, Touched { length, kind, lsn }).is_none() {
            self.touched_bytes = self.touched_bytes.saturating_add(u64::from(length));
            if self.touched_bytes > MOST_TOUCHED {
                return Err(Error::unsupported("log", "recovery of so much metadata"));
            }
        }
        Ok(())
    }

    fn stamp(&self, offset: u64, touched: Touched) -> Result<()> {
        let mut bytes = self.read(offset, crate::number::index(touched.length))?;
        if metadata::stamp(touched.kind, &mut bytes, touched.lsn) {
            self.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// Stamps all buffers.
    pub(super) fn finish(&mut self) -> Result<()> {
        for (offset, touched) in std::mem::take(&mut self.touched) {
            self.stamp(offset, touched)?;
        }
        Ok(())
    }

    /// Refuses a place that is not within the device.
    pub(super) fn check_place(
        &self,
        structure: &'static str,
        at: u64,
        field: &'static str,
        place: std::ops::Range<u64>,
    ) -> Result<(), Corrupt> {
        let size = self.overlay.size();
        if place.start < place.end && place.end <= size {
            return Ok(());
        }
        let found = format!("bytes {}..{}", place.start, place.end);
        Err(Corrupt::new(structure, at, field, format_args!("a place within {size} bytes"), found))
    }
}

/// Writes to an overlay, which has no reason to fail but a range past its end.
pub(super) fn write(overlay: &Overlay, offset: u64, bytes: &[u8]) -> Result<()> {
    overlay.write_all_at(bytes, offset).map_err(|source| Error::Write {
        offset,
        length: wide(bytes.len()),
        source,
    })
}
