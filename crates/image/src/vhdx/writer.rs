//! Writing to the disk inside a VHDX file.
//!
//! Bytes that lie in this file are overwritten in place. A block that does not is put at the end of the file,
//! whole, or with a bit in the sector bitmap for each sector that is here while the parent still holds the
//! others. What makes new bytes visible, table entries and bits, stays in memory until [`Disk::settle`], which
//! brings all of it into the file at once, through the log. Space is never used twice, so nothing that a table
//! ever referred to changes its content.
//!
//! A cut loses what was not flushed, and at worst leaves space at the end that nothing uses.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use blockdev::{BlockDevice, BlockDeviceMut, Device, check_range};

use super::bat::{Content, Entry, FULLY_PRESENT, PARTIALLY_PRESENT};
use super::bitmap;
use super::blocks::{self, Body};
use super::geometry::{MIB, SECTOR, SECTOR_BITS, SECTOR_SIZE, length_of, overflow, to_index};
use super::log_entry::FIRST_DESCRIPTORS;
use super::reader::{Disk, PIECE};
use super::session::Session;
use super::structures::{Structures, places};
use crate::report::{Report, Severity};

/// Sectors of tables that one write within a block may change: its entry, that of its sector bitmap, and its
/// bits, which fill at most 16.
const MAX_STEP: usize = 18;

/// What an image open for writing has in addition.
#[derive(Debug)]
pub(super) struct Writer {
    /// Taken first, by writes and flushes: they come one after the other.
    state: Mutex<State>,
    /// Sectors that differ from the file. Readers hold it while they load one.
    changed: RwLock<Changed>,
}

/// Sectors of tables as they will be.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Of the block allocation table, by their number.
    pub(super) bat: BTreeMap<u64, Arc<[u64]>>,
    /// Of sector bitmaps, by their place in the file.
    pub(super) bitmaps: BTreeMap<u64, Arc<[u8]>>,
}

#[derive(Debug)]
struct State {
    session: Session,
    /// Where the next new block goes: behind everything.
    end: u64,
    /// A header or a change of tables failed halfway, so what is in memory and what is in the file may disagree.
    has_failed: bool,
}

impl Writer {
    /// Examines all blocks: a writer must know whom each byte belongs to.
    ///
    /// # Errors
    /// Those of the host; inside, why this image must not be written.
    pub(super) fn new(file: &Device, structures: &Structures) -> ondisk::Result<Result<Self, String>> {
        if let Some(problem) = structures.problems.first() {
            return Ok(Err(problem.to_string()));
        }
        let view = structures.view(file);
        let mut report = Report::default();
        let body = Body {
            view,
            bat: structures.regions.bat.start,
            geometry: structures.metadata.geometry,
            places: &places(&structures.header, &structures.regions),
            taken: &structures.taken,
        };
        blocks::examine(&body, &mut report)?;
        // What has a certain repair is certain enough to write around.
        let is_doubtful = |severity, has_repair: bool| severity == Severity::Error && !has_repair;
        let [omitted, ..] = report.omitted;
        if omitted > 0 {
            return Ok(Err(format!("{omitted} errors and more in its tables")));
        }
        if let Some(problem) = report.problems.iter().find(|p| is_doubtful(p.severity, p.repair.is_some())) {
            return Ok(Err(format!("{} at byte {}: {}", problem.structure, problem.offset, problem.summary)));
        }
        let end = view.size().max(report.end).next_multiple_of(MIB);
        let session = Session::new(structures.current, structures.header);
        let state = State { session, end, has_failed: false };
        Ok(Ok(Self { state: Mutex::new(state), changed: RwLock::default() }))
    }

    /// Sectors that differ from the file; while the guard lives, none changes.
    pub(super) fn changed(&self) -> RwLockReadGuard<'_, Changed> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_failed {
            return Err(io::Error::other("an earlier write to this image failed halfway"));
        }
        Ok(state)
    }

    /// How many sectors wait in memory.
    fn pending(&self) -> usize {
        let changed = self.changed();
        changed.bat.len().saturating_add(changed.bitmaps.len())
    }
}

/// How many sectors one entry of a log of `length` bytes can hold. QEMU cannot replay an entry whose descriptors
/// fill more than one sector, and takes a log without a free sector for an empty one.
fn capacity(length: u64) -> usize {
    let sectors = (length / SECTOR).saturating_sub(2);
    usize::try_from(sectors.min(FIRST_DESCRIPTORS)).unwrap_or(0)
}

impl Disk {
    fn writer(&self) -> io::Result<&Writer> {
        let read_only = || io::Error::new(io::ErrorKind::PermissionDenied, "the image was opened read-only");
        self.writer.as_ref().ok_or_else(read_only)
    }

    /// Before the first change of this opening.
    fn begin(&self, state: &mut State) -> io::Result<()> {
        if state.session.has_begun() {
            return Ok(());
        }
        state.has_failed = true;
        state.session.begin(&self.file)?;
        // No reader is just loading a sector while what is read changes below it.
        let changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
        self.file.settle();
        drop(changed);
        state.has_failed = false;
        Ok(())
    }

    /// Writes within one block.
    fn write_in_block(&self, state: &mut State, bytes: &[u8], at: u64) -> io::Result<()> {
        let geometry = self.geometry;
        let number = geometry.block(at);
        let index = geometry.payload_index(number);
        let within = geometry.within_block(at);
        let is_whole = geometry.guest(number) == (at..at.saturating_add(length_of(bytes)));
        let file = blockdev::writable(self.file.file())?;
        match self.content(self.entry(index)?, number)? {
            Content::Full(host) => file.write_all_at(bytes, host.saturating_add(within)),
            Content::Partial(host) => self.write_sectors(bytes, at, host),
            Content::Absent if !is_whole => {
                self.own_bitmap(state, geometry.chunk(number))?;
                let host = self.allocate(state, geometry.block_size())?;
                // Bits of a block that was not present mean nothing, and may be anything.
                self.set_bits(number, 0, geometry.sectors_in_block(), false)?;
                self.write_sectors(bytes, at, host)?;
                self.set_entry(index, Entry::new(PARTIALLY_PRESENT, host))
            }
            // The rest of a new block is zeros, as the block was.
            Content::Zero | Content::Absent => {
                let host = self.allocate(state, geometry.block_size())?;
                file.write_all_at(bytes, host.saturating_add(within))?;
                self.set_entry(index, Entry::new(FULLY_PRESENT, host))
            }
        }
    }

    /// Writes whole sectors of a partially present block, and says that they are here.
    fn write_sectors(&self, bytes: &[u8], at: u64, host: u64) -> io::Result<()> {
        let geometry = self.geometry;
        let end = at.saturating_add(length_of(bytes));
        let aligned = geometry.sector_start(at)..geometry.sector_end(end);
        let file = blockdev::writable(self.file.file())?;
        let to = host.saturating_add(geometry.within_block(aligned.start));
        if aligned == (at..end) {
            file.write_all_at(bytes, to)?;
        } else {
            let mut sectors = vec![0; to_index(aligned.end.saturating_sub(aligned.start))?];
            self.read_exact_at(&mut sectors, aligned.start)?;
            let within = to_index(at.saturating_sub(aligned.start))?;
            let target = sectors.get_mut(within..).and_then(|rest| rest.get_mut(..bytes.len()));
            target.ok_or_else(overflow)?.copy_from_slice(bytes);
            file.write_all_at(&sectors, to)?;
        }
        let number = geometry.block(at);
        let first = geometry.sector(geometry.within_block(aligned.start));
        let count = geometry.sector(aligned.end.saturating_sub(aligned.start));
        self.set_bits(number, first, count, true)
    }

    /// Takes space at the end of the file, which reads as zeros.
    fn allocate(&self, state: &mut State, length: u64) -> io::Result<u64> {
        let start = state.end;
        let end = start.checked_add(length).ok_or_else(overflow)?;
        blockdev::writable(self.file.file())?.grow(end)?;
        state.end = end;
        Ok(start)
    }

    /// Makes sure that this chunk has a sector bitmap.
    fn own_bitmap(&self, state: &mut State, chunk: u64) -> io::Result<()> {
        if self.bitmap_block(chunk)?.is_some() {
            return Ok(());
        }
        let host = self.allocate(state, MIB)?;
        self.set_entry(self.geometry.bitmap_index(chunk), Entry::new(FULLY_PRESENT, host))
    }

    fn set_entry(&self, index: u64, entry: Entry) -> io::Result<()> {
        let number = index / PIECE;
        // Loaded before the lock is taken: loading takes it too.
        let present = self.piece(number)?;
        let mut changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
        let piece = Arc::make_mut(changed.bat.entry(number).or_insert(present));
        *piece.get_mut(to_index(index % PIECE)?).ok_or_else(overflow)? = entry.0;
        self.shared.tables.remove((self.layer, number));
        Ok(())
    }

    /// Sets or clears the bits of `count` sectors of block `number`, from its sector `first` on.
    fn set_bits(&self, number: u64, first: u64, count: u64, is_set: bool) -> io::Result<()> {
        let bitmap_block = self.bitmap_block(self.geometry.chunk(number))?.ok_or_else(overflow)?;
        let start = self.geometry.first_bit(number).saturating_add(first);
        let end = start.saturating_add(count);
        let mut bit = start;
        while bit < end {
            let piece_start = bit.saturating_sub(bit % SECTOR_BITS);
            let stop = piece_start.saturating_add(SECTOR_BITS).min(end);
            let offset = bitmap_block.saturating_add(piece_start / 8);
            let present = self.bitmap_piece(offset)?;
            let mut changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
            let range =
                to_index(bit.saturating_sub(piece_start))?..to_index(stop.saturating_sub(piece_start))?;
            bitmap::fill(Arc::make_mut(changed.bitmaps.entry(offset).or_insert(present)), range, is_set);
            self.shared.clusters.remove((self.layer, offset));
            bit = stop;
        }
        Ok(())
    }

    /// Brings everything that waits in memory into the file, at once.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        let writer = self.writer()?;
        let sectors = self.changed_sectors(&writer.changed());
        let file = self.file.file();
        if sectors.is_empty() {
            return blockdev::writable(file)?.flush();
        }
        state.has_failed = true;
        state.session.commit(file, &sectors, state.end)?;
        state.has_failed = false;
        let mut changed = writer.changed.write().unwrap_or_else(PoisonError::into_inner);
        for (number, piece) in std::mem::take(&mut changed.bat) {
            self.shared.tables.insert((self.layer, number), piece);
        }
        for (offset, piece) in std::mem::take(&mut changed.bitmaps) {
            self.shared.clusters.insert((self.layer, offset), piece);
        }
        Ok(())
    }

    /// Each changed sector, with its place in the file.
    fn changed_sectors(&self, changed: &Changed) -> Vec<(u64, [u8; SECTOR_SIZE])> {
        let sector = |bytes: &mut dyn Iterator<Item = u8>| {
            let mut sector = [0; SECTOR_SIZE];
            sector.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            sector
        };
        let bitmaps =
            changed.bitmaps.iter().map(|(offset, bytes)| (*offset, sector(&mut bytes.iter().copied())));
        let bat = changed.bat.iter().map(|(number, words)| {
            let mut bytes = words.iter().flat_map(|word| word.to_le_bytes());
            (self.piece_offset(*number), sector(&mut bytes))
        });
        bitmaps.chain(bat).collect()
    }
}

impl BlockDeviceMut for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, length_of(buf))?;
        let writer = self.writer()?;
        let mut state = writer.lock()?;
        if buf.is_empty() {
            return Ok(());
        }
        self.begin(&mut state)?;
        let capacity = capacity(state.session.log_length());
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            if writer.pending().saturating_add(MAX_STEP) > capacity {
                self.settle(&mut state)?;
            }
            let to_end = self.geometry.guest(self.geometry.block(at)).end.saturating_sub(at);
            let (piece, after) = rest.split_at(rest.len().min(to_index(to_end)?));
            self.write_in_block(&mut state, piece, at)?;
            rest = after;
            at = at.saturating_add(length_of(piece));
        }
        Ok(())
    }

    /// Until it returns, nothing that needed new space is visible in the file.
    fn flush(&self) -> io::Result<()> {
        let mut state = self.writer()?.lock()?;
        self.settle(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_entry::descriptor_sectors;
    use super::*;

    #[test]
    fn one_entry_holds_what_may_wait() {
        for length in [MIB, 2 * MIB, 64 * MIB] {
            assert_eq!(capacity(length), 126);
            assert_eq!(descriptor_sectors(126), 1);
        }
        assert_eq!(capacity(0), 0);
        const { assert!(MAX_STEP < 126) };
    }
}
