//! qcow2 refcounts: which host clusters are in use, and how often.
//!
//! QEMU docs/interop/qcow2, "Host cluster management". A table of offsets to blocks of counters, 1 to 64 bits
//! wide; big-endian, and the narrow ones from the least significant bit of a byte.
//!
//! New clusters are always taken at the end of the file and released ones are never taken again, so nothing
//! that was ever referred to changes its content. Changes stay in memory until the writer asks for them in an
//! order that is safe at every cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;

use blockdev::Device;
use ondisk::{Corrupt, Error, Result, read_bytes};

use super::geometry::{ClusterBits, length_of, overflow, to_index};
use super::header::{MAX_REFCOUNT_TABLE_SIZE, RawHeader, RefcountTable};
use super::reader::damaged;

/// Bytes of a refcount block that are read and written at once.
const PAGE: u64 = 4096;

/// Pages kept in memory: 16 MiB.
const MAX_PAGES: usize = 4096;

/// The end of what an L2 entry can point to, in bytes.
const MAX_HOST: u64 = 1 << 56;

/// Clusters that one allocation may take: itself, a block for it, a block for that one, and some more.
const ROOM: u64 = 8;

/// Clusters past the end of the file whose counts are searched: 2 TiB at the usual cluster size.
const MAX_SEARCH: u64 = 32 << 20;

/// A disk writes no less than this at once, so what lies within survives a power cut as old or new. Bytes.
pub(super) const SECTOR: u64 = 512;

const TABLE: &str = "qcow2 refcount table";

/// The refcounts of an image that is open for writing.
#[derive(Debug)]
pub(super) struct Refcounts {
    file: Device,
    cluster_bits: ClusterBits,
    /// log2 of the width in bits.
    order: u32,
    /// Offsets of the blocks; 0 where there is none.
    table: Vec<u64>,
    /// Where the table lies, or will lie.
    table_offset: u64,
    /// The table was moved and the header does not know yet.
    is_moved: bool,
    /// Indices of table entries that are not on disk yet.
    new_blocks: BTreeSet<usize>,
    /// By first byte in the file.
    pages: BTreeMap<u64, Page>,
    /// Cluster number from which on nothing was ever in use.
    next: u64,
    /// Clusters to release once nothing on disk refers to them, and how often.
    released: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    is_changed: bool,
}

/// Where the count of one cluster is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// First byte of the page in the file.
    page: u64,
    /// First byte of the count within the page.
    byte: usize,
    /// First bit of the count within that byte, for counts narrower than a byte.
    bit: u32,
}

impl Refcounts {
    /// Reads the table and finds where the used part of the file ends.
    pub(super) fn load(file: &Device, cluster_bits: ClusterBits, place: RefcountTable) -> Result<Self> {
        let length = u64::from(place.clusters).saturating_mul(cluster_bits.size());
        let bytes = read_bytes(&**file, place.offset, usize::try_from(length).unwrap_or(usize::MAX))?;
        let table: Vec<u64> =
            bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect();
        for (entry, index) in table.iter().zip(0_u64..).filter(|(entry, _)| **entry != 0) {
            let ends_in_file = entry.checked_add(cluster_bits.size()).is_some_and(|end| end <= file.size());
            if !cluster_bits.is_aligned(*entry) || !ends_in_file {
                let expected = format!("an aligned block before {:#x}", file.size());
                let found = format!("{entry:#x} in entry {index}");
                return Err(
                    Corrupt::new(TABLE, place.offset, "refcount block offset", expected, found).into()
                );
            }
        }
        let mut refcounts = Self {
            file: file.clone(),
            cluster_bits,
            order: place.order,
            table,
            table_offset: place.offset,
            is_moved: false,
            new_blocks: BTreeSet::new(),
            pages: BTreeMap::new(),
            next: cluster_bits.count(file.size()),
            released: BTreeMap::new(),
        };
        refcounts.skip_used_past_end().map_err(|source| Error::Io {
            offset: place.offset,
            length,
            source,
        })?;
        Ok(refcounts)
    }

    /// The host clusters that hold refcount blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.table.iter().filter(|block| **block != 0).map(|block| self.cluster_bits.number(*block))
    }

    /// Host clusters of the table itself.
    pub(super) fn table_clusters(&self) -> std::ops::Range<u64> {
        let start = self.cluster_bits.number(self.table_offset);
        start..start.saturating_add(self.cluster_bits.count(length_of(&self.table).saturating_mul(8)))
    }

    /// How often host cluster `number` is in use; 0 for one that no block covers.
    pub(super) fn get(&mut self, number: u64) -> io::Result<u64> {
        let Some(slot) = self.slot(number)? else { return Ok(0) };
        let order = self.order;
        let page = self.page(slot.page)?;
        let bytes = page.bytes.get(slot.byte..).ok_or_else(overflow)?;
        let count = match order {
            0..=2 => {
                let mask = 1_u64.wrapping_shl(1_u32.wrapping_shl(order)).wrapping_sub(1);
                bytes.first().map(|byte| u64::from(*byte).wrapping_shr(slot.bit) & mask)
            }
            3 => bytes.first().map(|byte| u64::from(*byte)),
            4 => bytes.first_chunk().map(|count| u64::from(u16::from_be_bytes(*count))),
            5 => bytes.first_chunk().map(|count| u64::from(u32::from_be_bytes(*count))),
            _ => bytes.first_chunk().map(|count| u64::from_be_bytes(*count)),
        };
        count.ok_or_else(overflow)
    }

    /// Takes a cluster at the end of the file and returns its first byte. What it holds reads as zeros.
    ///
    /// # Errors
    /// Those of growing the file; [`io::ErrorKind::FileTooLarge`] at the bounds of the format.
    pub(super) fn allocate(&mut self) -> io::Result<u64> {
        self.make_room()?;
        let number = self.take()?;
        self.count_new(number)?;
        self.cluster_bits.offset(number).ok_or_else(overflow)
    }

    /// Plans to lower the counts of these clusters by one, once nothing on disk refers to them.
    ///
    /// # Errors
    /// [`Corrupt`] when a count is already too low; nothing is planned then.
    pub(super) fn release(&mut self, clusters: RangeInclusive<u64>) -> io::Result<()> {
        for number in clusters.clone() {
            let count = self.get(number)?;
            let planned = self.released.get(&number).copied().unwrap_or(0);
            if count <= planned {
                let at = self.cluster_bits.offset(number).ok_or_else(overflow)?;
                let expected = format!("at least {}", planned.saturating_add(1));
                return Err(damaged(Corrupt::new("qcow2 host cluster", at, "refcount", expected, count)));
            }
        }
        for number in clusters {
            let planned = self.released.entry(number).or_default();
            *planned = planned.saturating_add(1);
        }
        Ok(())
    }

    /// Whether anything waits to be written.
    pub(super) fn is_pending(&self) -> bool {
        self.is_moved
            || !self.new_blocks.is_empty()
            || !self.released.is_empty()
            || self.pages.values().any(|page| page.is_changed)
    }

    /// Roughly how many bytes the changes occupy in memory.
    pub(super) fn pending_bytes(&self) -> u64 {
        let pages = length_of_map(self.pages.len()).saturating_mul(PAGE);
        pages.saturating_add(length_of_map(self.released.len()).saturating_mul(32))
    }

    /// First step: counts of new clusters, new blocks and a moved table. Nothing on disk refers to them yet.
    pub(super) fn write_counts(&mut self) -> io::Result<()> {
        let file = blockdev::writable(&self.file)?;
        for (offset, page) in self.pages.iter_mut().filter(|(_, page)| page.is_changed) {
            file.write_all_at(&page.bytes, *offset)?;
            page.is_changed = false;
        }
        if self.is_moved {
            let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            file.write_all_at(&bytes, self.table_offset)?;
        }
        Ok(())
    }

    /// Second step, after a flush: the pointers to new blocks, or to the moved table. Returns whether there
    /// were any, which then need a flush of their own.
    pub(super) fn write_pointers(&mut self) -> io::Result<bool> {
        if self.is_moved {
            let (offset, clusters) = (self.table_offset, self.table_clusters());
            let clusters =
                u32::try_from(clusters.end.saturating_sub(clusters.start)).map_err(|_| overflow())?;
            update_header(&self.file, |raw| {
                raw.refcount_table_offset = offset.into();
                raw.refcount_table_clusters = clusters.into();
            })?;
            self.is_moved = false;
            self.new_blocks.clear();
            return Ok(true);
        }
        let file = blockdev::writable(&self.file)?;
        let sectors: BTreeSet<usize> = self.new_blocks.iter().map(|index| index / 64).collect();
        for sector in &sectors {
            // A table fills whole clusters, so the sector is whole.
            let entries = self.table.chunks(64).nth(*sector).ok_or_else(overflow)?;
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            let within = u64::try_from(*sector).map_err(|_| overflow())?.saturating_mul(SECTOR);
            file.write_all_at(&bytes, self.table_offset.saturating_add(within))?;
        }
        self.new_blocks.clear();
        Ok(!sectors.is_empty())
    }

    /// Last step, once nothing on disk refers to released clusters: lowers their counts. Returns whether there
    /// were any.
    pub(super) fn write_released(&mut self) -> io::Result<bool> {
        let released = std::mem::take(&mut self.released);
        for (number, planned) in &released {
            let count = self.get(*number)?;
            self.set(*number, count.saturating_sub(*planned))?;
        }
        self.write_counts()?;
        Ok(!released.is_empty())
    }

    /// Clusters that one block counts; at least 64.
    fn block_entries(&self) -> u64 {
        self.cluster_bits.size().saturating_mul(8).wrapping_shr(self.order).max(1)
    }

    /// The index in the table of the block that counts cluster `number`.
    fn block_index(&self, number: u64) -> io::Result<usize> {
        to_index(number.checked_div(self.block_entries()).ok_or_else(overflow)?)
    }

    fn slot(&self, number: u64) -> io::Result<Option<Slot>> {
        let block = self.table.get(self.block_index(number)?).copied().unwrap_or(0);
        if block == 0 {
            return Ok(None);
        }
        let within_block = number.checked_rem(self.block_entries()).ok_or_else(overflow)?;
        // At most 2^21 bytes of 8 bits.
        let bit = within_block.wrapping_shl(self.order);
        let byte = bit / 8;
        Ok(Some(Slot {
            page: block.saturating_add(byte.saturating_sub(byte % PAGE)),
            byte: to_index(byte % PAGE)?,
            bit: u32::try_from(bit % 8).map_err(|_| overflow())?,
        }))
    }

    fn page(&mut self, offset: u64) -> io::Result<&mut Page> {
        if self.pages.len() >= MAX_PAGES && !self.pages.contains_key(&offset) {
            self.pages.retain(|_, page| page.is_changed);
        }
        let size = to_index(PAGE.min(self.cluster_bits.size()))?;
        match self.pages.entry(offset) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let mut bytes = vec![0; size];
                self.file.read_exact_at(&mut bytes, offset)?;
                Ok(entry.insert(Page { bytes, is_changed: false }))
            }
        }
    }

    /// Stores a count that fits the width: never more than the one that was there, or 1.
    fn set(&mut self, number: u64, count: u64) -> io::Result<()> {
        let slot = self.slot(number)?.ok_or_else(overflow)?;
        let order = self.order;
        let page = self.page(slot.page)?;
        page.is_changed = true;
        let bytes = page.bytes.get_mut(slot.byte..).ok_or_else(overflow)?;
        if order < 3 {
            let mask = 1_u8.wrapping_shl(1_u32.wrapping_shl(order)).wrapping_sub(1).wrapping_shl(slot.bit);
            let byte = bytes.first_mut().ok_or_else(overflow)?;
            let value = u8::try_from(count).map_err(|_| overflow())?.wrapping_shl(slot.bit);
            *byte = *byte & !mask | value & mask;
            return Ok(());
        }
        let width = to_index(1_u64.wrapping_shl(order.saturating_sub(3)))?;
        let stored = count.to_be_bytes();
        let stored = stored.get(stored.len().saturating_sub(width)..).ok_or_else(overflow)?;
        bytes.get_mut(..width).ok_or_else(overflow)?.copy_from_slice(stored);
        Ok(())
    }

    /// Grows the file by one cluster, which has no count yet.
    fn take(&mut self) -> io::Result<u64> {
        let number = self.next;
        let end = self.cluster_bits.offset(number.saturating_add(1)).filter(|end| *end <= MAX_HOST);
        let end = end.ok_or_else(|| too_large("the image has reached 2^56 bytes"))?;
        blockdev::writable(&self.file)?.grow(end)?;
        self.next = number.saturating_add(1);
        Ok(number)
    }

    /// Sets the count of a cluster just taken to 1, with a new block to count it where there is none. A block
    /// most often counts itself; where it falls into the range of the next, that one is made too.
    fn count_new(&mut self, number: u64) -> io::Result<()> {
        let mut uncounted = vec![number];
        while let Some(number) = uncounted.pop() {
            let index = self.block_index(number)?;
            if self.table.get(index).is_none_or(|block| *block == 0) {
                let block = self.take()?;
                let offset = self.cluster_bits.offset(block).ok_or_else(overflow)?;
                blockdev::writable(&self.file)?
                    .write_all_at(&vec![0; self.cluster_bits.buffer_size()], offset)?;
                *self.table.get_mut(index).ok_or_else(overflow)? = offset;
                self.new_blocks.insert(index);
                uncounted.push(block);
            }
            self.set(number, 1)?;
        }
        Ok(())
    }

    /// Moves the table to the end of the file when it is too short for what an allocation may take.
    fn make_room(&mut self) -> io::Result<()> {
        let needed =
            |after: u64| Some(self.block_index(self.next.checked_add(after)?).ok()?.saturating_add(1));
        if needed(ROOM).is_some_and(|needed| needed <= self.table.len()) {
            return Ok(());
        }
        let mut entries = self.table.len().saturating_mul(2);
        let clusters = loop {
            let clusters = self.cluster_bits.count(length_of_map(entries).saturating_mul(8));
            if clusters.saturating_mul(self.cluster_bits.size()) > MAX_REFCOUNT_TABLE_SIZE {
                return Err(too_large("the refcount table has reached 8 MiB"));
            }
            // A block counts at least 64 clusters, so a 32nd is more than enough for the table's own blocks.
            let taken = clusters.saturating_add(clusters / 32).saturating_add(ROOM.saturating_mul(2));
            let needed = needed(taken).ok_or_else(overflow)?;
            if entries >= needed {
                break clusters;
            }
            entries = needed;
        };
        let old = self.table_clusters();
        let first = self.next;
        for _ in 0..clusters {
            self.take()?;
        }
        self.table_offset = self.cluster_bits.offset(first).ok_or_else(overflow)?;
        self.table.resize(to_index(clusters.saturating_mul(self.cluster_bits.size() / 8))?, 0);
        self.is_moved = true;
        for number in first..first.saturating_add(clusters) {
            self.count_new(number)?;
        }
        self.release(old.start..=old.end.saturating_sub(1))
    }

    /// Preallocated and truncated images have clusters in use past the end of the file: starts after them.
    fn skip_used_past_end(&mut self) -> io::Result<()> {
        let first = self.block_index(self.next)?;
        let mut searched = 0_u64;
        for index in (first..self.table.len()).rev() {
            if self.table.get(index).is_none_or(|block| *block == 0) {
                continue;
            }
            searched = searched.saturating_add(self.block_entries());
            if searched > MAX_SEARCH {
                return Err(too_large("too many refcounts for clusters past the end of the file"));
            }
            let start = length_of_map(index).saturating_mul(self.block_entries());
            let end = start.saturating_add(self.block_entries());
            for number in (start.max(self.next)..end).rev() {
                if self.get(number)? != 0 {
                    self.next = number.saturating_add(1);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Rewrites fields of the header in one sector.
pub(super) fn update_header(file: &Device, change: impl FnOnce(&mut RawHeader)) -> io::Result<()> {
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0)?;
    let (header, _) = sector.split_first_chunk_mut::<{ size_of::<RawHeader>() }>().ok_or_else(overflow)?;
    let mut raw: RawHeader = zerocopy::transmute!(*header);
    change(&mut raw);
    *header = zerocopy::transmute!(raw);
    blockdev::writable(file)?.write_all_at(&sector, 0)
}

fn length_of_map(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn too_large(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, reason)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::MemoryDevice;

    use super::*;

    /// An image of a header cluster, a table and one block that counts the three of them.
    fn small(order: u32) -> Refcounts {
        let mut bytes = vec![0; 1536];
        bytes[512..520].copy_from_slice(&1024_u64.to_be_bytes());
        let file: Device = Arc::new(MemoryDevice::new(bytes));
        let place = RefcountTable { offset: 512, clusters: 1, order };
        let mut refcounts = Refcounts::load(&file, ClusterBits::new(9).unwrap(), place).unwrap();
        for number in 0..3 {
            refcounts.set(number, 1).unwrap();
        }
        refcounts
    }

    #[test]
    fn all_widths_count() {
        for order in 0..=6 {
            let mut refcounts = small(order);
            let max = if order == 6 { u64::MAX } else { (1 << (1 << order)) - 1 };
            for number in 0..64 {
                refcounts.set(number, (number * 37) & max).unwrap();
            }
            refcounts.set(7, max).unwrap();
            refcounts.set(8, 0).unwrap();
            for number in (0..64).filter(|number| !matches!(number, 7 | 8)) {
                assert_eq!(refcounts.get(number).unwrap(), (number * 37) & max, "order {order}");
            }
            assert_eq!((refcounts.get(7).unwrap(), refcounts.get(8).unwrap()), (max, 0));
            assert_eq!(refcounts.get(1 << 40).unwrap(), 0);
        }
    }

    #[test]
    fn narrow_counts_start_at_the_least_significant_bit() {
        let mut refcounts = small(1);
        refcounts.set(1, 3).unwrap();
        refcounts.set(3, 2).unwrap();
        assert_eq!(refcounts.page(1024).unwrap().bytes[0], 0b10_01_11_01);
    }

    #[test]
    fn every_cluster_that_is_ever_taken_is_counted_once() {
        for order in [0, 4, 6] {
            let mut refcounts = small(order);
            let mut taken = BTreeSet::new();
            for _ in 0..18_000 {
                assert!(taken.insert(refcounts.allocate().unwrap()));
            }
            let old_tables: BTreeSet<u64> = refcounts.released.keys().copied().collect();
            assert!(order == 0 || !old_tables.is_empty(), "the table must have moved");
            for number in 0..refcounts.next {
                assert_eq!(refcounts.get(number).unwrap(), 1, "cluster {number} at order {order}");
            }
            let blocks = refcounts.blocks().count() as u64;
            let table = refcounts.table_clusters();
            let others = old_tables.len() as u64 + (table.end - table.start) + blocks + 1;
            assert_eq!(refcounts.next - others, taken.len() as u64);
        }
    }

    #[test]
    fn a_count_never_falls_below_zero() {
        let mut refcounts = small(4);
        refcounts.release(1..=2).unwrap();
        assert!(refcounts.release(2..=2).is_err());
        assert!(refcounts.release(3..=3).is_err());
        assert!(refcounts.write_released().unwrap());
        assert_eq!(refcounts.get(2).unwrap(), 0);
        assert!(!refcounts.write_released().unwrap());
    }
}
