//! Writing to the disk inside a VMDK image.
//!
//! Flat extents and grains that are there are written in place. Any other grain is written as a whole to a new place
//! at the end of its file. What makes it visible, its word in the grain table, stays in memory until
//! [`Disk::settle`], which writes in an order that is safe at every cut:
//!
//! 1. before anything else, the content ID; flush
//! 2. grains and new tables: nothing in the file refers to them; flush
//! 3. the first copy of tables and directory; flush
//! 4. the second copy; flush
//!
//! A cut loses what was not flushed, and at worst leaves grains that nothing uses, or a second copy that does not
//! know of the last grains yet: the first one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockdev::{BlockDevice, BlockDeviceMut, Device, check_range};

use super::check::why_not_writable;
use super::cid::Change;
use super::descriptor::Descriptor;
use super::disk::{Disk, Part, Placed};
use super::grains::{Grains, Place};
use super::header::SECTOR;
use super::tables::{Content, Copy, NewPlaces, Scheme};
use crate::arithmetic::{length_of, overflow, round_up, to_index};
use crate::problems::damaged;

/// Changed tables of one extent after which a write settles by itself: 8 MiB.
const MAX_PENDING: usize = 2048;

/// The end of what a word of a grain table can point to, in bytes.
const MAX_FILE: u64 = (1 << 32) * SECTOR;

/// What an image open for writing has in addition.
#[derive(Debug)]
pub(super) struct Writer {
    /// Taken first, by writes and flushes: they come one after the other.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the next grain goes, by the start of its extent on the disk.
    next: BTreeMap<u64, u64>,
    /// Starts of extents that were written since the last flush.
    touched: BTreeSet<u64>,
    /// To be made before the first write.
    change: Option<Change>,
    /// A write failed halfway, so what is in memory and what is on disk may disagree.
    has_failed: bool,
}

impl Writer {
    /// Examines all tables.
    ///
    /// # Errors
    /// Why the state of the image is not certain enough to write to it.
    pub(super) fn new(
        file: &Device,
        descriptor: Option<&Descriptor>,
        extents: &[Placed],
    ) -> Result<Self, String> {
        let mut next = BTreeMap::new();
        for extent in extents {
            if let Part::Grains(grains) = &extent.part {
                next.insert(extent.start, why_not_writable(extent, grains)?);
            }
        }
        let change = descriptor.and_then(|descriptor| Change::new(file, descriptor));
        let state = State { next, touched: BTreeSet::new(), change, has_failed: false };
        Ok(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_failed {
            return Err(io::Error::other("an earlier write to this image failed halfway"));
        }
        Ok(state)
    }
}

impl State {
    /// Takes `length` bytes at the end of the file of the extent that starts at `extent`, and rounds what
    /// follows up to a whole grain.
    fn take(&mut self, extent: u64, grains: &Grains, length: u64) -> io::Result<u64> {
        let next = self.next.get_mut(&extent).ok_or_else(overflow)?;
        let at = *next;
        let end = at.saturating_add(length).checked_next_multiple_of(grains.grain).ok_or_else(overflow)?;
        if end > MAX_FILE {
            let reason = "the extent has reached 2 TiB, the end of what its tables can point to";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        blockdev::writable(&grains.tables.file)?.grow(end)?;
        *next = end;
        Ok(at)
    }
}

impl Disk {
    fn writer(&self) -> io::Result<&Writer> {
        let read_only = || io::Error::new(io::ErrorKind::PermissionDenied, "the image was opened read-only");
        self.writer.as_ref().ok_or_else(read_only)
    }

    /// Writes within one grain, or within one flat extent.
    fn write_piece(&self, state: &mut State, extent: &Placed, bytes: &[u8], at: u64) -> io::Result<()> {
        let within = at.saturating_sub(extent.start);
        state.touched.insert(extent.start);
        match &extent.part {
            Part::Flat(flat) => {
                blockdev::writable(&flat.file)?.write_all_at(bytes, flat.offset.saturating_add(within))
            }
            Part::Grains(grains) => self.write_grain(state, extent, grains, bytes, within),
            Part::Zero | Part::NoAccess => Err(overflow()),
        }
    }

    /// Writes `bytes` from byte `within` of the extent on.
    fn write_grain(
        &self,
        state: &mut State,
        extent: &Placed,
        grains: &Grains,
        bytes: &[u8],
        within: u64,
    ) -> io::Result<()> {
        let place = grains.place(within)?;
        let start = grains.grain_start(within);
        let table = grains.tables.table(place.table)?;
        let word = match &table {
            Some(table) => table.get(to_index(place.entry)?).copied().ok_or_else(overflow)?,
            None => 0,
        };
        let content = grains.tables.content(word).map_err(|expected| {
            damaged(grains.tables.corrupt_word(place.table, place.entry, expected, word))
        })?;
        let is_zero_now = match content {
            Content::At(host) => {
                let file = blockdev::writable(&grains.tables.file)?;
                // The last grain of the file may be cut short.
                file.grow(host.saturating_add(grains.grain))?;
                return file.write_all_at(bytes, host.saturating_add(within.saturating_sub(start)));
            }
            Content::Packed(_) => return Err(overflow()),
            Content::Zero => true,
            Content::Absent => self.is_zero_below(extent.start.saturating_add(start)),
        };
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if is_zero && is_zero_now {
            return Ok(());
        }
        let on_disk = grains.grain.min(extent.length.saturating_sub(start));
        let is_whole = length_of(bytes) == on_disk;
        let may_be_zero = matches!(&grains.tables.scheme, Scheme::Hosted(hosted) if hosted.has_zero_grains);
        if is_zero && is_whole && may_be_zero {
            return self.set_word(state, extent, grains, place, 1);
        }
        let mut whole = vec![0; to_index(grains.grain)?];
        let length = to_index(on_disk)?;
        if !is_whole {
            let old = whole.get_mut(..length).ok_or_else(overflow)?;
            self.read_exact_at(old, extent.start.saturating_add(start))?;
        }
        let from = to_index(within.saturating_sub(start))?;
        let target = whole.get_mut(from..).and_then(|rest| rest.get_mut(..bytes.len()));
        target.ok_or_else(overflow)?.copy_from_slice(bytes);
        let host = state.take(extent.start, grains, grains.grain)?;
        blockdev::writable(&grains.tables.file)?.write_all_at(&whole, host)?;
        self.set_word(state, extent, grains, place, host / SECTOR)
    }

    /// Changes a word of a table in memory; a table that is absent gets its place.
    fn set_word(
        &self,
        state: &mut State,
        extent: &Placed,
        grains: &Grains,
        place: Place,
        word: u64,
    ) -> io::Result<()> {
        let tables = &grains.tables;
        // Loaded before the lock is taken: loading takes it too.
        let present = tables.table(place.table)?;
        let new_places = new_places(state, extent, grains, place.table, present.is_some())?;
        let present = match present {
            Some(present) => present,
            None => vec![0; to_index(tables.entries)?].into(),
        };
        let mut changes = tables.changes_mut()?;
        if let Some(new_places) = new_places {
            changes.places.insert(place.table, new_places);
        }
        let table = Arc::make_mut(changes.tables.entry(place.table).or_insert(present));
        *table.get_mut(to_index(place.entry)?).ok_or_else(overflow)? = word;
        tables.cache(place.table, None);
        Ok(())
    }

    /// Brings everything that waits in memory to disk, in the order of the head of this file.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        for extent in self.extents.iter().filter(|extent| state.touched.contains(&extent.start)) {
            match &extent.part {
                Part::Flat(flat) => blockdev::writable(&flat.file)?.flush()?,
                Part::Grains(grains) => settle_grains(grains)?,
                Part::Zero | Part::NoAccess => {}
            }
        }
        state.touched.clear();
        Ok(())
    }
}

/// Takes room for the copies of a table that do not exist yet: both of a new one, or a second one that a power cut
/// prevented.
fn new_places(
    state: &mut State,
    extent: &Placed,
    grains: &Grains,
    number: u64,
    has_first: bool,
) -> io::Result<Option<NewPlaces>> {
    let tables = &grains.tables;
    let has_second = {
        let changes = tables.changes();
        if changes.as_ref().is_some_and(|changes| changes.places.contains_key(&number)) {
            return Ok(None);
        }
        tables.directory(Copy::Second).is_none()
            || tables.place(Copy::Second, number)?.map_err(damaged)?.is_some()
    };
    if has_first && has_second {
        return Ok(None);
    }
    let size = round_up(tables.table_size(), SECTOR);
    let copies = u64::from(!has_first).saturating_add(u64::from(!has_second));
    let at = state.take(extent.start, grains, size.saturating_mul(copies))?;
    let first = (!has_first).then_some(at);
    let second_at = if has_first { at } else { at.saturating_add(size) };
    Ok(Some(NewPlaces { first, second: (!has_second).then_some(second_at) }))
}

fn settle_grains(grains: &Grains) -> io::Result<()> {
    let tables = &grains.tables;
    let file = blockdev::writable(&tables.file)?;
    let mut changes = tables.changes_mut()?;
    for (number, places) in &changes.places {
        let table = changes.tables.get(number).ok_or_else(overflow)?;
        for at in [places.first, places.second].into_iter().flatten() {
            file.write_all_at(&encode(table), at)?;
        }
    }
    file.flush()?;
    if changes.tables.is_empty() {
        return Ok(());
    }
    for copy in [Copy::First, Copy::Second] {
        let Some(directory) = tables.directory(copy) else { continue };
        for (number, table) in &changes.tables {
            if let Some(at) = changes.places.get(number).and_then(|places| places.of(copy)) {
                let word = u32::try_from(at / SECTOR).map_err(|_| overflow())?;
                let within = number.saturating_mul(tables.word_size());
                file.write_all_at(&word.to_le_bytes(), directory.start.saturating_add(within))?;
                tables.forget_directory(copy, *number);
            } else {
                let at = tables.place(copy, *number)?.map_err(damaged)?.ok_or_else(overflow)?;
                file.write_all_at(&encode(table), at)?;
            }
        }
        file.flush()?;
    }
    for (number, table) in std::mem::take(&mut changes.tables) {
        tables.cache(number, Some(table));
    }
    changes.places.clear();
    Ok(())
}

/// A hosted table as stored; no word exceeds 32 bits.
fn encode(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes()).collect()
}

impl BlockDeviceMut for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let mut state = self.writer()?.lock()?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            if let Some(change) = state.change.take() {
                // Until this is durable, nothing else may be.
                let outcome = change.write();
                state.has_failed = outcome.is_err();
                outcome?;
            }
            let extent = self.extent(at)?;
            let within = at.saturating_sub(extent.start);
            let to_end = extent.length.saturating_sub(within);
            let room = match &extent.part {
                Part::Grains(grains) => {
                    let in_grain = within.saturating_sub(grains.grain_start(within));
                    grains.grain.saturating_sub(in_grain).min(to_end)
                }
                _ => to_end,
            };
            let (piece, after) = rest.split_at(rest.len().min(to_index(room)?));
            // A failure here leaves at worst a grain that nothing uses; one in settling leaves memory and disk
            // apart.
            self.write_piece(&mut state, extent, piece, at)?;
            if let Part::Grains(grains) = &extent.part
                && is_too_much(grains)
            {
                let outcome = settle_grains(grains);
                state.has_failed = outcome.is_err();
                outcome?;
            }
            rest = after;
            at = at.saturating_add(length_of(piece));
        }
        Ok(())
    }

    /// Until it returns, nothing that needed a new grain is visible in the file.
    fn flush(&self) -> io::Result<()> {
        let mut state = self.writer()?.lock()?;
        let outcome = self.settle(&mut state);
        state.has_failed = outcome.is_err();
        outcome
    }
}

fn is_too_much(grains: &Grains) -> bool {
    grains.tables.changes().is_some_and(|changes| changes.tables.len() > MAX_PENDING)
}
