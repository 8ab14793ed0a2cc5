//! Writing to the disk inside a file of blocks.
//!
//! A block that the file holds is written in place. Any other gets a place from the format's [`Allocator`].
//! What makes new bytes visible, a table entry or the bit of a sector, stays in memory until
//! [`Disk::settle`], which writes in an order that is safe at every cut:
//!
//! 1. data, bitmaps of new blocks, and what the format keeps beside them (a footer, a count): nothing on disk
//!    refers to them; flush
//! 2. table entries, and bitmaps of blocks that were there before; flush
//!
//! A cut loses what was not flushed, and at worst leaves places taken that nothing uses.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use blockdev::{BlockDevice, BlockDeviceMut, check_range};

use super::disk::{BITS, Disk, PAGE, bit, bitmap_offset, set_bit};
use super::layout::{Bitmaps, Content, SECTOR};
use crate::arithmetic::{length_of, overflow, to_index};
use crate::problems::damaged;

/// Changed pages and bitmaps after which a write settles by itself: 32 MiB of pages at most.
const MAX_PENDING: usize = 1024;

/// How a format finds room for blocks.
pub(crate) trait Allocator: Debug + Send {
    /// Makes room for one more block and returns its entry. Its data reads as zeros; so does its bitmap where
    /// bitmaps decide.
    ///
    /// # Errors
    /// Those of the file; [`io::ErrorKind::FileTooLarge`] at the bounds of the format.
    fn take(&mut self, file: &dyn BlockDeviceMut) -> io::Result<u32>;

    /// Writes what must be on disk before the first entry refers to what was taken.
    ///
    /// # Errors
    /// Those of the file.
    fn seal(&mut self, file: &dyn BlockDeviceMut) -> io::Result<()>;
}

/// What an image open for writing has in addition.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Taken first, by writes and flushes: they come one after the other.
    state: Mutex<State>,
    /// What differs from the file. Readers hold it while they load a page or a bitmap.
    changed: RwLock<Changes>,
}

#[derive(Debug)]
struct State {
    allocator: Box<dyn Allocator>,
    /// Entries that the table on disk does not have yet.
    new: HashSet<u32>,
    /// A write failed halfway, so what is in memory and what is on disk may disagree.
    has_failed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Pages of the table, by number.
    pub(super) pages: HashMap<u64, Arc<[u64]>>,
    /// Sectors of bitmaps, by their place in the file.
    pub(super) bitmaps: HashMap<u64, ChangedBits>,
}

#[derive(Debug)]
pub(super) struct ChangedBits {
    pub(super) bits: Arc<[u8]>,
    /// Of a block that no entry on disk refers to yet.
    is_new: bool,
}

impl Writer {
    /// A writer for an image whose blocks were surveyed and found in order.
    pub(crate) fn new(allocator: Box<dyn Allocator>) -> Self {
        let state = State { allocator, new: HashSet::new(), has_failed: false };
        Self { state: Mutex::new(state), changed: RwLock::default() }
    }

    /// What differs from the file; while the guard lives, nothing changes.
    pub(super) fn changed(&self) -> RwLockReadGuard<'_, Changes> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_failed {
            return Err(io::Error::other("an earlier write to this image failed halfway"));
        }
        Ok(state)
    }
}

impl Disk {
    fn writer(&self) -> io::Result<&Writer> {
        let read_only = || io::Error::new(io::ErrorKind::PermissionDenied, "the image was opened read-only");
        self.writer.as_ref().ok_or_else(read_only)
    }

    /// Writes within one block.
    fn write_block(&self, state: &mut State, bytes: &[u8], at: u64) -> io::Result<()> {
        let number = self.layout.block_size.number(at);
        let entry = self.entry(number)?;
        match self.layout.content(number, entry).map_err(damaged)? {
            Content::Host(start) => {
                let is_new = state.new.contains(&entry);
                self.write_at_place(bytes, at, start, is_new)
            }
            Content::Absent | Content::Zero => {
                let entry = state.allocator.take(blockdev::writable(&self.file)?)?;
                state.new.insert(entry);
                self.write_to_new(bytes, at, self.layout.place(entry))?;
                self.set_entry(number, entry)
            }
        }
    }

    /// Writes into a block that the file holds, at `start`.
    fn write_at_place(&self, bytes: &[u8], at: u64, start: u64, is_new: bool) -> io::Result<()> {
        let sectors = self.sectors(bytes, at);
        let are_set = match self.layout.bitmaps {
            Bitmaps::None => true,
            Bitmaps::Kept | Bitmaps::Decide => self.are_set(start, sectors.clone())?,
        };
        if are_set {
            return self.put(bytes, at, start);
        }
        match self.layout.bitmaps {
            Bitmaps::Decide => {
                let (whole, first) = self.whole_sectors(bytes, at)?;
                self.put(&whole, first, start)?;
            }
            Bitmaps::None | Bitmaps::Kept => self.put(bytes, at, start)?,
        }
        self.set_bits(start, sectors, is_new)
    }

    /// Writes into a block that is all zeros, or all in the layer below, and has now a place at `start`.
    fn write_to_new(&self, bytes: &[u8], at: u64, start: u64) -> io::Result<()> {
        if self.layout.bitmaps != Bitmaps::Decide {
            return self.put(bytes, at, start);
        }
        let (whole, first) = self.whole_sectors(bytes, at)?;
        self.put(&whole, first, start)?;
        self.set_bits(start, self.sectors(bytes, at), true)
    }

    /// Writes bytes of the disk into the block that starts at byte `start` of the file.
    fn put(&self, bytes: &[u8], at: u64, start: u64) -> io::Result<()> {
        let within = self.layout.block_size.within(at);
        let host = start.saturating_add(self.layout.lead).saturating_add(within);
        blockdev::writable(&self.file)?.write_all_at(bytes, host)
    }

    /// The sectors of its block that `bytes`, written at `at`, touch.
    fn sectors(&self, bytes: &[u8], at: u64) -> std::ops::Range<u64> {
        let within = self.layout.block_size.within(at);
        within / SECTOR..within.saturating_add(length_of(bytes)).div_ceil(SECTOR)
    }

    /// The present content of the sectors that `bytes` touch with `bytes` laid over it, and where they start.
    fn whole_sectors(&self, bytes: &[u8], at: u64) -> io::Result<(Vec<u8>, u64)> {
        let first = at.saturating_sub(at % SECTOR);
        let end = at.saturating_add(length_of(bytes)).next_multiple_of(SECTOR);
        let mut whole = vec![0; to_index(end.saturating_sub(first))?];
        let on_disk = to_index(end.min(self.size).saturating_sub(first))?;
        if at > first || end > at.saturating_add(length_of(bytes)) {
            self.read_exact_at(whole.get_mut(..on_disk).ok_or_else(overflow)?, first)?;
        }
        let target = whole.get_mut(to_index(at.saturating_sub(first))?..);
        let target = target.and_then(|rest| rest.get_mut(..bytes.len())).ok_or_else(overflow)?;
        target.copy_from_slice(bytes);
        Ok((whole, first))
    }

    /// Whether the bits of all these sectors of the block at `start` are set.
    fn are_set(&self, start: u64, sectors: std::ops::Range<u64>) -> io::Result<bool> {
        for sector in sectors {
            let bits = self.bitmap_sector(bitmap_offset(start, sector))?;
            if !bit(&bits, sector % BITS) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets the bits of these sectors of the block at `start`, in memory.
    fn set_bits(&self, start: u64, sectors: std::ops::Range<u64>, is_new: bool) -> io::Result<()> {
        let mut sector = sectors.start;
        while sector < sectors.end {
            let offset = bitmap_offset(start, sector);
            let end = sectors.end.min(sector.saturating_sub(sector % BITS).saturating_add(BITS));
            // Loaded before the lock is taken: loading takes it too.
            let present = self.bitmap_sector(offset)?;
            let mut changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
            let changed = changed.bitmaps.entry(offset).or_insert(ChangedBits { bits: present, is_new });
            let bits = Arc::make_mut(&mut changed.bits);
            (sector..end).for_each(|sector| set_bit(bits, sector % BITS));
            self.shared.clusters.remove((self.layer, offset));
            sector = end;
        }
        Ok(())
    }

    fn set_entry(&self, number: u64, entry: u32) -> io::Result<()> {
        let page_number = number / PAGE;
        let present = self.page(page_number)?;
        let mut changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
        let page = Arc::make_mut(changed.pages.entry(page_number).or_insert(present));
        *page.get_mut(to_index(number % PAGE)?).ok_or_else(overflow)? = u64::from(entry);
        self.shared.tables.remove((self.layer, page_number));
        Ok(())
    }

    fn is_pending_too_large(&self) -> io::Result<bool> {
        let changed = self.writer()?.changed();
        Ok(changed.pages.len().max(changed.bitmaps.len()) > MAX_PENDING)
    }

    /// Brings everything that waits in memory to disk, in the order of the head of this file.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        let writer = self.writer()?;
        let file = blockdev::writable(&self.file)?;
        state.allocator.seal(file)?;
        for (offset, changed) in writer.changed().bitmaps.iter().filter(|(_, changed)| changed.is_new) {
            file.write_all_at(&changed.bits, *offset)?;
        }
        file.flush()?;
        let mut changed = writer.changed.write().unwrap_or_else(PoisonError::into_inner);
        if changed.pages.is_empty() && changed.bitmaps.is_empty() {
            return Ok(());
        }
        for (number, page) in &changed.pages {
            let encode = |entry: &u64| u32::try_from(*entry).map(|entry| self.layout.encode(entry));
            let bytes = page.iter().map(encode).collect::<Result<Vec<_>, _>>().map_err(|_| overflow())?;
            file.write_all_at(bytes.as_flattened(), self.layout.entry_offset(number.saturating_mul(PAGE)))?;
        }
        for (offset, changed) in changed.bitmaps.iter().filter(|(_, changed)| !changed.is_new) {
            file.write_all_at(&changed.bits, *offset)?;
        }
        file.flush()?;
        for (number, page) in changed.pages.drain() {
            self.shared.tables.insert((self.layer, number), page);
        }
        for (offset, changed) in changed.bitmaps.drain() {
            self.shared.clusters.insert((self.layer, offset), changed.bits);
        }
        state.new.clear();
        Ok(())
    }

    fn settle_or_fail(&self, state: &mut State) -> io::Result<()> {
        let outcome = self.settle(state);
        state.has_failed = outcome.is_err();
        outcome
    }
}

impl BlockDeviceMut for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let mut state = self.writer()?.lock()?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let block_size = self.layout.block_size;
            let to_end = block_size.bytes().saturating_sub(block_size.within(at));
            let (piece, after) = rest.split_at(rest.len().min(to_index(to_end)?));
            let outcome = self.write_block(&mut state, piece, at);
            state.has_failed = outcome.is_err();
            outcome?;
            rest = after;
            at = at.saturating_add(length_of(piece));
            if self.is_pending_too_large()? {
                self.settle_or_fail(&mut state)?;
            }
        }
        Ok(())
    }

    /// Until it returns, nothing that needed a new block or a new sector of one is visible in the file.
    fn flush(&self) -> io::Result<()> {
        let mut state = self.writer()?.lock()?;
        self.settle_or_fail(&mut state)
    }
}
