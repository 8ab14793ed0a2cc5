//! Writing to the disk inside a qcow2 file.
//!
//! A cluster that this image alone uses is written in place. Any other is copied to a new cluster at the end
//! of the file. What makes a new cluster visible, its L2 entry, stays in memory until [`Disk::settle`], which
//! writes in an order that is safe at every cut:
//!
//! 1. data, refcounts, new tables: nothing on disk refers to them; flush
//! 2. pointers to new refcount blocks; flush
//! 3. L2 entries, and L1 entries of new tables: each switches its cluster from old to new; flush
//! 4. lower refcounts of what nothing refers to any more; flush
//!
//! A cut loses what was not flushed, and at worst leaves clusters counted that nothing uses.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use blockdev::{BlockDevice, BlockDeviceMut, Device, check_range};
use ondisk::{Corrupt, Result};

use super::entry::{ALL_ALLOCATED, COPIED, Content, Damage, L2Entry, OFFSET};
use super::geometry::{ClusterBits, length_of, overflow, to_index};
use super::reader::{Disk, Place, damaged};
use super::refcounts::{Refcounts, SECTOR, update_header};
use super::snapshot;
use super::{Header, header};

/// Bytes of changed tables after which a write settles by itself.
const MAX_PENDING: u64 = 32 << 20;

/// L2 slices in stored form, by number.
type Slices = HashMap<u64, Arc<[u64]>>;

/// What an image open for writing has in addition.
#[derive(Debug)]
pub(super) struct Writer {
    /// Taken first, by writes and flushes: they come one after the other.
    state: Mutex<State>,
    /// Slices that differ from the disk. Readers hold it while they load a slice.
    changed: RwLock<Slices>,
}

#[derive(Debug)]
struct State {
    refcounts: Refcounts,
    /// Host clusters that are never guest data.
    metadata: Metadata,
    /// Indices of L1 entries that are not on disk yet: their tables are new.
    new_tables: BTreeSet<usize>,
    /// Autoclear bits are still set in the header.
    must_clear: bool,
    /// A write failed halfway, so what is in memory and what is on disk may disagree.
    has_failed: bool,
}

/// Host clusters that hold the image's own structures. An L2 entry that points to one is damage, and writing
/// through it would destroy the image.
#[derive(Debug, Default)]
struct Metadata {
    ranges: Vec<Range<u64>>,
    clusters: HashSet<u64>,
}

impl Metadata {
    fn contains(&self, number: u64) -> bool {
        self.clusters.contains(&number) || self.ranges.iter().any(|range| range.contains(&number))
    }

    /// Adds a cluster that must not be known yet.
    fn claim(&mut self, number: u64, structure: &'static str, cluster_bits: ClusterBits) -> Result<()> {
        if self.contains(number) {
            let at = cluster_bits.offset(number).unwrap_or(u64::MAX);
            let found = "one that another structure uses";
            return Err(Corrupt::new(structure, at, "host cluster", "one of its own", found).into());
        }
        self.clusters.insert(number);
        Ok(())
    }
}

impl Writer {
    /// Reads what writing needs and refuses tables that overlap.
    pub(super) fn new(
        file: &Device,
        header: &Header,
        l1: &[u64],
        snapshots: &snapshot::Table,
    ) -> Result<Self> {
        let cluster_bits = header.cluster_bits;
        let refcounts = Refcounts::load(file, cluster_bits, header.refcount_table)?;
        let range = |offset, length| {
            let start = cluster_bits.number(offset);
            start..start.saturating_add(cluster_bits.count(length))
        };
        let table = |offset, entries: u32| range(offset, u64::from(entries).saturating_mul(8));
        let mut metadata = Metadata::default();
        metadata.ranges.push(0..1);
        metadata.ranges.push(table(header.l1_offset, header.l1_entries));
        metadata.ranges.push(refcounts.table_clusters());
        metadata.ranges.push(range(header.snapshots_offset, snapshots.length));
        metadata
            .ranges
            .extend(snapshots.entries.iter().map(|entry| table(entry.l1_offset, entry.l1_entries)));
        for block in refcounts.blocks() {
            metadata.claim(block, "qcow2 refcount block", cluster_bits)?;
        }
        for entry in l1.iter().filter(|entry| **entry & OFFSET != 0) {
            metadata.claim(cluster_bits.number(entry & OFFSET), "qcow2 L2 table", cluster_bits)?;
        }
        let state = State {
            refcounts,
            metadata,
            new_tables: BTreeSet::new(),
            must_clear: header.autoclear_features != 0,
            has_failed: false,
        };
        Ok(Self { state: Mutex::new(state), changed: RwLock::default() })
    }

    /// Slices that differ from the disk; while the guard lives, no slice changes.
    pub(super) fn changed(&self) -> RwLockReadGuard<'_, Slices> {
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

    /// Writes within one cluster.
    fn write_cluster(&self, state: &mut State, bytes: &[u8], at: u64) -> io::Result<()> {
        let cluster_bits = self.cluster_bits();
        let guest = cluster_bits.start(at);
        let place = self.place(cluster_bits.number(at))?;
        let entry = match self.slice(place)? {
            Some(slice) => self.entry(&slice, place.entry).ok_or_else(overflow)?,
            None => L2Entry { word: 0, bitmap: 0 },
        };
        self.refuse_reserved(entry, guest)?;
        if let Some(host) = self.own_cluster(state, entry, guest)? {
            return self.write_in_place(state, bytes, at, host);
        }
        let whole = self.whole_cluster(bytes, at)?;
        let content = whole.as_deref().unwrap_or(bytes);
        let old = self.old_clusters(entry, guest)?;
        // From here on a failure leaves memory and disk apart.
        let outcome = self.write_new(state, content, guest, place, old);
        state.has_failed = outcome.is_err();
        outcome
    }

    /// Makes one whole cluster read as zeros, and gives up its place.
    fn zero_cluster(&self, state: &mut State, at: u64) -> io::Result<()> {
        let cluster_bits = self.cluster_bits();
        let has_backing = self.backing.as_ref().is_some_and(|backing| at < backing.size());
        let place = self.place(cluster_bits.number(at))?;
        let entry = match self.slice(place)? {
            Some(slice) => self.entry(&slice, place.entry).ok_or_else(overflow)?,
            None if !has_backing => return Ok(()),
            None => L2Entry { word: 0, bitmap: 0 },
        };
        self.refuse_reserved(entry, at)?;
        let nothing = L2Entry { word: 0, bitmap: 0 };
        let zero = if has_backing { self.entries.zero_entry() } else { Some(nothing) };
        let Some(zero) = zero else {
            return self.write_cluster(state, &vec![0; cluster_bits.buffer_size()], at);
        };
        if (entry.word, entry.bitmap) == (zero.word, zero.bitmap) {
            return Ok(());
        }
        let old = self.old_clusters(entry, at)?;
        // From here on a failure leaves memory and disk apart.
        let outcome = self.give_up(state, place, zero, old);
        state.has_failed = outcome.is_err();
        outcome
    }

    fn give_up(
        &self,
        state: &mut State,
        place: Place,
        entry: L2Entry,
        old: Option<RangeInclusive<u64>>,
    ) -> io::Result<()> {
        self.clear_autoclear(state)?;
        if let Some(old) = old {
            state.refcounts.release(old)?;
        }
        self.own_table(state, place.l1_index)?;
        self.set_entry(place, entry)
    }

    fn refuse_reserved(&self, entry: L2Entry, guest: u64) -> io::Result<()> {
        if self.entries.reserved_bits(entry.word) == 0 {
            return Ok(());
        }
        let damage = Damage { field: "reserved bits", expected: "0".to_owned(), found: entry.word };
        Err(damaged(self.corrupt_entry(guest, damage)))
    }

    /// The host cluster of this entry, if it holds the whole guest cluster and nobody else uses it.
    fn own_cluster(&self, state: &mut State, entry: L2Entry, guest: u64) -> io::Result<Option<u64>> {
        let is_whole = !self.entries.is_extended || entry.bitmap == ALL_ALLOCATED;
        if entry.word & COPIED == 0 || !is_whole {
            return Ok(None);
        }
        let content = self
            .entries
            .content(entry, 0, guest)
            .map_err(|damage| damaged(self.corrupt_entry(guest, damage)))?;
        let Content::Host(host) = content else { return Ok(None) };
        let number = self.cluster_bits().number(host);
        if state.metadata.contains(number) {
            let damage = Damage {
                field: "host cluster offset",
                expected: "a cluster that no table occupies".to_owned(),
                found: entry.word,
            };
            return Err(damaged(self.corrupt_entry(guest, damage)));
        }
        match state.refcounts.get(number)? {
            1 => Ok(Some(host)),
            0 => {
                let expected = "1, as its L2 entry says";
                Err(damaged(Corrupt::new("qcow2 host cluster", host, "refcount", expected, 0)))
            }
            // The flag is wrong, but a copy harms nobody.
            _ => Ok(None),
        }
    }

    /// Writes guest bytes from `guest` on into `cluster`, the host cluster that holds theirs.
    fn write_in_place(&self, state: &mut State, bytes: &[u8], guest: u64, cluster: u64) -> io::Result<()> {
        let whole;
        let (bytes, guest) = match &self.encryption {
            None => (bytes, guest),
            Some(encryption) => {
                let (mut sectors, start) = self.whole_sectors(bytes, guest)?;
                let host = cluster.saturating_add(self.cluster_bits().within(start));
                encryption.encrypt(&mut sectors, host, start);
                whole = sectors;
                (whole.as_slice(), start)
            }
        };
        let at = cluster.saturating_add(self.cluster_bits().within(guest));
        self.clear_autoclear(state)?;
        let file = blockdev::writable(&self.file)?;
        if at.saturating_add(length_of(bytes)) > self.file.size() {
            // Preallocated past the end of the file.
            file.grow(cluster.saturating_add(self.cluster_bits().size()))?;
        }
        file.write_all_at(bytes, at)
    }

    /// The present content of the sectors around `bytes`, with those laid over it, and where on the disk they start.
    fn whole_sectors(&self, bytes: &[u8], at: u64) -> io::Result<(Vec<u8>, u64)> {
        let into = at % SECTOR;
        let start = at.saturating_sub(into);
        let length = into.saturating_add(length_of(bytes)).next_multiple_of(SECTOR);
        let mut sectors = vec![0; to_index(length)?];
        if into != 0 || length != length_of(bytes) {
            let on_disk = to_index(self.size.saturating_sub(start).min(length))?;
            self.read_exact_at(sectors.get_mut(..on_disk).ok_or_else(overflow)?, start)?;
        }
        let target = sectors.get_mut(to_index(into)?..).and_then(|rest| rest.get_mut(..bytes.len()));
        target.ok_or_else(overflow)?.copy_from_slice(bytes);
        Ok((sectors, start))
    }

    /// The present content of the whole cluster with `bytes` laid over it; `None` when `bytes` are all of it.
    fn whole_cluster(&self, bytes: &[u8], at: u64) -> io::Result<Option<Vec<u8>>> {
        let cluster_bits = self.cluster_bits();
        if length_of(bytes) == cluster_bits.size() {
            return Ok(None);
        }
        let guest = cluster_bits.start(at);
        let mut cluster = vec![0; cluster_bits.buffer_size()];
        let on_disk = to_index(self.size.saturating_sub(guest).min(cluster_bits.size()))?;
        self.read_exact_at(cluster.get_mut(..on_disk).ok_or_else(overflow)?, guest)?;
        let within = to_index(cluster_bits.within(at))?;
        let target = cluster.get_mut(within..).and_then(|rest| rest.get_mut(..bytes.len()));
        target.ok_or_else(overflow)?.copy_from_slice(bytes);
        Ok(Some(cluster))
    }

    /// The host clusters that this entry counts for.
    fn old_clusters(&self, entry: L2Entry, guest: u64) -> io::Result<Option<RangeInclusive<u64>>> {
        let cluster_bits = self.cluster_bits();
        let range = self.entries.compressed_range(entry.word).and_then(|range| match range {
            Some(range) => {
                let last = range.offset.saturating_add(range.length).saturating_sub(1);
                Ok(Some(cluster_bits.number(range.offset)..=cluster_bits.number(last)))
            }
            None => {
                let host = self.entries.host(entry.word, guest)?.map(|host| cluster_bits.number(host));
                Ok(host.map(|number| number..=number))
            }
        });
        range.map_err(|damage| damaged(self.corrupt_entry(guest, damage)))
    }

    /// Puts `content`, a whole cluster from byte `guest` of the disk on, into a new cluster and points the entry at `place` to it, in memory.
    fn write_new(
        &self,
        state: &mut State,
        content: &[u8],
        guest: u64,
        place: Place,
        old: Option<RangeInclusive<u64>>,
    ) -> io::Result<()> {
        self.clear_autoclear(state)?;
        if let Some(old) = old {
            state.refcounts.release(old)?;
        }
        self.own_table(state, place.l1_index)?;
        let host = state.refcounts.allocate()?;
        let file = blockdev::writable(&self.file)?;
        match &self.encryption {
            None => file.write_all_at(content, host)?,
            Some(encryption) => {
                let mut content = content.to_vec();
                encryption.encrypt(&mut content, host, guest);
                file.write_all_at(&content, host)?;
            }
        }
        self.set_entry(place, L2Entry { word: host | COPIED, bitmap: ALL_ALLOCATED })
    }

    /// Makes sure that the L2 table of this L1 entry exists and that nobody else uses it.
    fn own_table(&self, state: &mut State, l1_index: usize) -> io::Result<()> {
        let cluster_bits = self.cluster_bits();
        let mut content = vec![0; cluster_bits.buffer_size()];
        if let Some(table) = self.l2_table(l1_index)? {
            let number = cluster_bits.number(table);
            let is_flagged = self.l1_entry(l1_index) & COPIED != 0;
            if is_flagged && state.refcounts.get(number)? == 1 {
                return Ok(());
            }
            self.file.read_exact_at(&mut content, table)?;
            state.refcounts.release(number..=number)?;
        }
        let host = state.refcounts.allocate()?;
        blockdev::writable(&self.file)?.write_all_at(&content, host)?;
        state.metadata.clusters.insert(cluster_bits.number(host));
        state.new_tables.insert(l1_index);
        self.l1.get(l1_index).ok_or_else(overflow)?.store(host | COPIED, Ordering::Release);
        Ok(())
    }

    fn set_entry(&self, place: Place, entry: L2Entry) -> io::Result<()> {
        // Loaded before the lock is taken: loading takes it too.
        let present = self.slice(place)?.ok_or_else(overflow)?;
        let mut changed = self.writer()?.changed.write().unwrap_or_else(PoisonError::into_inner);
        let slice = Arc::make_mut(changed.entry(place.slice).or_insert(present));
        if self.entries.is_extended {
            let [word, bitmap] = slice.as_chunks_mut::<2>().0.get_mut(place.entry).ok_or_else(overflow)?;
            (*word, *bitmap) = (entry.word, entry.bitmap);
        } else {
            *slice.get_mut(place.entry).ok_or_else(overflow)? = entry.word;
        }
        self.shared.tables.remove((self.layer, place.slice));
        Ok(())
    }

    /// Autoclear bits promise that other structures fit the data; the first write breaks the promise.
    fn clear_autoclear(&self, state: &mut State) -> io::Result<()> {
        if !state.must_clear {
            return Ok(());
        }
        update_header(&self.file, |raw| raw.autoclear_features = 0.into())?;
        blockdev::writable(&self.file)?.flush()?;
        state.must_clear = false;
        Ok(())
    }

    fn is_pending_too_large(&self, state: &State) -> io::Result<bool> {
        let slices = u64::try_from(self.writer()?.changed().len()).unwrap_or(u64::MAX);
        let bytes = slices.saturating_mul(self.slice_size()).saturating_add(state.refcounts.pending_bytes());
        Ok(bytes > MAX_PENDING)
    }

    /// Brings everything that waits in memory to disk, in the order of the head of this file.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        let writer = self.writer()?;
        let file = blockdev::writable(&self.file)?;
        if writer.changed().is_empty() && state.new_tables.is_empty() && !state.refcounts.is_pending() {
            return file.flush();
        }
        state.refcounts.write_counts()?;
        self.write_slices(&writer.changed(), |l1_index| state.new_tables.contains(&l1_index))?;
        file.flush()?;
        if state.refcounts.write_pointers()? {
            file.flush()?;
        }
        {
            let mut changed = writer.changed.write().unwrap_or_else(PoisonError::into_inner);
            self.write_slices(&changed, |l1_index| !state.new_tables.contains(&l1_index))?;
            self.write_l1(&state.new_tables)?;
            file.flush()?;
            for (number, slice) in changed.drain() {
                self.shared.tables.insert((self.layer, number), slice);
            }
            state.new_tables.clear();
        }
        if state.refcounts.write_released()? {
            file.flush()?;
        }
        Ok(())
    }

    /// Writes the slices whose table `is_chosen` by its L1 index.
    fn write_slices(&self, slices: &Slices, is_chosen: impl Fn(usize) -> bool) -> io::Result<()> {
        let file = blockdev::writable(&self.file)?;
        let slices_in_table =
            self.cluster_bits().size().checked_div(self.slice_size()).ok_or_else(overflow)?;
        for (number, slice) in slices {
            let l1_index = to_index(number.checked_div(slices_in_table).ok_or_else(overflow)?)?;
            if !is_chosen(l1_index) {
                continue;
            }
            let table = self.l2_table(l1_index)?.ok_or_else(overflow)?;
            let within = number.checked_rem(slices_in_table).ok_or_else(overflow)?;
            let offset = table.saturating_add(within.saturating_mul(self.slice_size()));
            let bytes: Vec<u8> = slice.iter().flat_map(|word| word.to_be_bytes()).collect();
            file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    /// Writes the sectors of the L1 table that hold these entries.
    fn write_l1(&self, indices: &BTreeSet<usize>) -> io::Result<()> {
        let file = blockdev::writable(&self.file)?;
        let sectors: BTreeSet<usize> = indices.iter().map(|index| index / 64).collect();
        for sector in sectors {
            let within = u64::try_from(sector).map_err(|_| overflow())?.saturating_mul(SECTOR);
            let offset = self.l1_offset.saturating_add(within);
            file.grow(offset.saturating_add(SECTOR))?;
            let mut bytes = [0; 512];
            self.file.read_exact_at(&mut bytes, offset)?;
            let entries = self.l1.chunks(64).nth(sector).unwrap_or_default();
            for (stored, entry) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(entries) {
                *stored = entry.load(Ordering::Acquire).to_be_bytes();
            }
            file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }
}

impl BlockDeviceMut for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let mut state = self.writer()?.lock()?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let cluster_bits = self.cluster_bits();
            let to_end = cluster_bits.size().saturating_sub(cluster_bits.within(at));
            let (piece, after) = rest.split_at(rest.len().min(to_index(to_end)?));
            self.write_cluster(&mut state, piece, at)?;
            rest = after;
            at = at.saturating_add(length_of(piece));
            if self.is_pending_too_large(&state)? {
                let outcome = self.settle(&mut state);
                state.has_failed = outcome.is_err();
                outcome?;
            }
        }
        Ok(())
    }

    fn write_zeros_at(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(self.size, offset, length)?;
        let mut state = self.writer()?.lock()?;
        let cluster_bits = self.cluster_bits();
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let next = cluster_bits.start(at).saturating_add(cluster_bits.size()).min(end);
            let is_whole = cluster_bits.is_aligned(at)
                && (next == self.size || next.saturating_sub(at) == cluster_bits.size());
            if is_whole {
                self.zero_cluster(&mut state, at)?;
            } else {
                self.write_cluster(&mut state, &vec![0; to_index(next.saturating_sub(at))?], at)?;
            }
            at = next;
            if self.is_pending_too_large(&state)? {
                let outcome = self.settle(&mut state);
                state.has_failed = outcome.is_err();
                outcome?;
            }
        }
        Ok(())
    }

    /// Until it returns, nothing that needed a new cluster is visible in the file.
    fn flush(&self) -> io::Result<()> {
        let mut state = self.writer()?.lock()?;
        let outcome = self.settle(&mut state);
        state.has_failed = outcome.is_err();
        outcome
    }
}

/// Why an image must not be written, if so.
pub(super) fn refusal(header: &Header) -> Option<&'static str> {
    use header::feature;
    if header.has(feature::CORRUPT) {
        Some("it is marked corrupt")
    } else if header.has(feature::DIRTY) {
        Some("it is marked dirty: its refcounts may be wrong")
    } else if header.has(feature::DATA_FILE) {
        Some("writing to an external data file is not supported")
    } else if header.compatible_features & !feature::LAZY_REFCOUNTS != 0 {
        Some("it has unknown compatible features")
    } else {
        None
    }
}
