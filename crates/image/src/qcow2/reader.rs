//! The disk inside a qcow2 file: from guest offset to bytes.
//!
//! Guest cluster → L1 entry → L2 entry → host cluster, zeros, a compressed range, or the backing file.
//! Neighbours that lie next to each other are read at once. L2 tables are read in slices and cached; what
//! reads meet and can read past is recorded in the problems of the image.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::Corrupt;

use super::encryption::{DataCipher, SECTOR};
use super::entry::{CompressedRange, Content, Damage, EntryFormat, L1_RESERVED, L2Entry, OFFSET};
use super::geometry::{ClusterBits, length_of, overflow, to_index};
use super::writer::Writer;
use crate::decompress::Decompressors;
use crate::open::Shared;
pub(super) use crate::problems::damaged;
use crate::{LayerDisk, OwnContent, OwnRun};

/// Most bytes of an L2 table that are read and cached at once.
const SLICE: u64 = 16 << 10;

/// Runs that one question about an extent may walk.
const MAX_RUNS: usize = 64;

/// Bytes of data after which an answer about an extent is long enough.
const MAX_DATA: u64 = 64 << 20;

/// A qcow2 image as a device.
pub(crate) struct Disk {
    /// Tables, and guest data unless `data` holds it.
    pub(super) file: Device,
    /// The external data file.
    pub(super) data: Option<Device>,
    pub(super) backing: Option<Device>,
    pub(super) entries: EntryFormat,
    /// The active L1 table, as far as the disk needs it, in stored form.
    pub(super) l1: Box<[AtomicU64]>,
    pub(super) l1_offset: u64,
    /// Length of the disk in bytes.
    pub(super) size: u64,
    /// The number of this layer, the first part of its cache keys.
    pub(super) layer: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) decompressors: Decompressors,
    /// Of guest data in clusters that are not compressed.
    pub(super) encryption: Option<DataCipher>,
    pub(super) writer: Option<Writer>,
}

/// Bytes of the disk with one kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// At least 1.
    length: u64,
    /// For `Host`, where the first byte of the run lies.
    content: Content,
}

/// Where the L2 entries of a guest cluster are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The number of the slice, counted over the whole disk.
    pub(super) slice: u64,
    /// The index in the L1 table.
    pub(super) l1_index: usize,
    /// First byte of the slice within its L2 table.
    pub(super) within_table: u64,
    /// The number of the entry within the slice.
    pub(super) entry: usize,
}

impl Disk {
    pub(super) fn cluster_bits(&self) -> ClusterBits {
        self.entries.cluster_bits
    }

    fn entry_size(&self) -> u64 {
        if self.entries.is_extended { 16 } else { 8 }
    }

    /// Bytes in a slice of an L2 table.
    pub(super) fn slice_size(&self) -> u64 {
        self.cluster_bits().size().min(SLICE)
    }

    /// Finds the entry for guest cluster `number`. All divisors are powers of two and at least 2.
    pub(super) fn place(&self, number: u64) -> io::Result<Place> {
        let entries_in_slice = self.slice_size().checked_div(self.entry_size()).ok_or_else(overflow)?;
        let slices_in_table =
            self.cluster_bits().size().checked_div(self.slice_size()).ok_or_else(overflow)?;
        let slice = number.checked_div(entries_in_slice).ok_or_else(overflow)?;
        let entry = number.checked_rem(entries_in_slice).ok_or_else(overflow)?;
        let l1_index = slice.checked_div(slices_in_table).ok_or_else(overflow)?;
        let within = slice.checked_rem(slices_in_table).ok_or_else(overflow)?;
        Ok(Place {
            slice,
            l1_index: to_index(l1_index)?,
            within_table: within.saturating_mul(self.slice_size()),
            entry: to_index(entry)?,
        })
    }

    /// The L1 entry as stored; 0 past the table, which covers the disk.
    pub(super) fn l1_entry(&self, index: usize) -> u64 {
        self.l1.get(index).map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    /// Where the L2 table of an L1 entry lies; `None` when there is none.
    pub(super) fn l2_table(&self, index: usize) -> io::Result<Option<u64>> {
        let entry = self.l1_entry(index);
        let offset = entry & OFFSET;
        let corrupt = |field, expected: String| {
            let at = self.l1_offset.saturating_add(u64::try_from(index).unwrap_or(0).saturating_mul(8));
            Corrupt::new("qcow2 L1 table entry", at, field, expected, format_args!("{entry:#x}"))
        };
        if entry & L1_RESERVED & !OFFSET != 0 {
            self.record(corrupt("reserved bits", "0".to_owned()));
        }
        if offset == 0 {
            return Ok(None);
        }
        let size = self.file.size();
        let ends_in_file = offset.saturating_add(self.cluster_bits().size()) <= size;
        if !self.cluster_bits().is_aligned(offset) || !ends_in_file {
            let expected =
                format!("a table of {:#x} bytes, aligned, before {size:#x}", self.cluster_bits().size());
            return Err(damaged(corrupt("L2 table offset", expected)));
        }
        Ok(Some(offset))
    }

    /// The entries of one slice; `None` when the whole L2 table is absent.
    pub(super) fn slice(&self, place: Place) -> io::Result<Option<Arc<[u64]>>> {
        let key = (self.layer, place.slice);
        if let Some(slice) = self.shared.tables.get(key) {
            return Ok(Some(slice));
        }
        // Held until the slice is cached: a writer that changes it meanwhile would leave a stale copy behind.
        let changed = self.writer.as_ref().map(Writer::changed);
        if let Some(slice) = changed.as_ref().and_then(|changed| changed.get(&place.slice)) {
            return Ok(Some(slice.clone()));
        }
        let Some(table) = self.l2_table(place.l1_index)? else { return Ok(None) };
        let mut bytes = vec![0; to_index(self.slice_size())?];
        self.file.read_exact_at(&mut bytes, table.saturating_add(place.within_table))?;
        let slice: Arc<[u64]> =
            bytes.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
        self.shared.tables.insert(key, slice.clone());
        Ok(Some(slice))
    }

    /// The entry with this number within a slice.
    pub(super) fn entry(&self, slice: &[u64], number: usize) -> Option<L2Entry> {
        if self.entries.is_extended {
            let [word, bitmap] = *slice.as_chunks::<2>().0.get(number)?;
            Some(L2Entry { word, bitmap })
        } else {
            Some(L2Entry { word: *slice.get(number)?, bitmap: 0 })
        }
    }

    /// Names the damaged entry of the guest cluster that starts at byte `guest`.
    pub(super) fn corrupt_entry(&self, guest: u64, damage: Damage) -> Corrupt {
        let place = self.place(self.cluster_bits().number(guest)).ok();
        let at = place.and_then(|place| {
            let table = self.l1_entry(place.l1_index) & OFFSET;
            let entry = u64::try_from(place.entry).ok()?.checked_mul(self.entry_size())?;
            table.checked_add(place.within_table)?.checked_add(entry)
        });
        let Damage { field, expected, found } = damage;
        let found = format_args!("{found:#x} for guest byte {guest:#x}").to_string();
        Corrupt::new("qcow2 L2 table entry", at.unwrap_or(0), field, expected, found)
    }

    /// The run of one content that starts at `offset`, at most `limit` bytes long.
    fn run_at(&self, offset: u64, limit: u64) -> io::Result<Run> {
        let cluster_bits = self.cluster_bits();
        let place = self.place(cluster_bits.number(offset))?;
        let Some(slice) = self.slice(place)? else {
            return self.absent_tables(offset, limit, place);
        };
        let part_size = self.entries.part_size();
        let parts_in_cluster = 1_u32.wrapping_shl(self.entries.part_bits());
        let mut entry_number = place.entry;
        let mut guest = cluster_bits.start(offset);
        let first_part = cluster_bits.within(offset).checked_div(part_size).unwrap_or(0);
        let mut part = u32::try_from(first_part).unwrap_or(0);
        let mut run: Option<Run> = None;
        while let Some(entry) = self.entry(&slice, entry_number) {
            self.check_reserved(entry, guest);
            while part < parts_in_cluster {
                let content = match self.entries.content(entry, part, guest) {
                    Ok(content) => content,
                    // The run before the damage can still be read.
                    Err(damage) => match run {
                        Some(run) => return Ok(run),
                        None => return Err(damaged(self.corrupt_entry(guest, damage))),
                    },
                };
                let start = guest.saturating_add(u64::from(part).saturating_mul(part_size));
                if let Content::Compressed(_) = content {
                    let length = cluster_bits.size().saturating_sub(offset.saturating_sub(guest)).min(limit);
                    return Ok(run.unwrap_or(Run { length, content }));
                }
                match &mut run {
                    None => {
                        let within = offset.saturating_sub(start);
                        let content = match content {
                            Content::Host(host) => Content::Host(host.saturating_add(within)),
                            other => other,
                        };
                        run = Some(Run { length: part_size.saturating_sub(within), content });
                    }
                    Some(run) if continues(run, content) => run.length = run.length.saturating_add(part_size),
                    Some(run) => return Ok(*run),
                }
                if let Some(run) = run.as_mut().filter(|run| run.length >= limit) {
                    run.length = limit;
                    return Ok(*run);
                }
                part = part.saturating_add(1);
            }
            part = 0;
            entry_number = entry_number.saturating_add(1);
            guest = guest.saturating_add(cluster_bits.size());
        }
        run.ok_or_else(overflow)
    }

    /// The run over L1 entries without an L2 table.
    fn absent_tables(&self, offset: u64, limit: u64, place: Place) -> io::Result<Run> {
        let entries_in_table =
            self.cluster_bits().size().checked_div(self.entry_size()).ok_or_else(overflow)?;
        let span = self.cluster_bits().size().saturating_mul(entries_in_table);
        let tables = self.l1.get(place.l1_index..).unwrap_or_default();
        let wanted = to_index(limit.checked_div(span).ok_or_else(overflow)?)?.saturating_add(2);
        let absent = tables
            .iter()
            .take(wanted)
            .take_while(|entry| entry.load(Ordering::Acquire) & OFFSET == 0)
            .count();
        let end = u64::try_from(place.l1_index)
            .unwrap_or(u64::MAX)
            .saturating_add(u64::try_from(absent.max(1)).unwrap_or(u64::MAX))
            .saturating_mul(span);
        Ok(Run { length: end.saturating_sub(offset).min(limit).max(1), content: Content::Unallocated })
    }

    fn check_reserved(&self, entry: L2Entry, guest: u64) {
        let reserved = self.entries.reserved_bits(entry.word);
        if reserved != 0 {
            let damage = Damage { field: "reserved bits", expected: "0".to_owned(), found: entry.word };
            self.record(self.corrupt_entry(guest, damage));
        }
    }

    pub(super) fn record(&self, corrupt: Corrupt) {
        self.shared.problems.record(self.layer, corrupt);
    }

    /// Guest data at byte `host`, which is byte `guest` of the disk, decrypted.
    fn read_data(&self, buf: &mut [u8], host: u64, guest: u64) -> io::Result<()> {
        let Some(encryption) = &self.encryption else { return self.read_host(buf, host) };
        if host.is_multiple_of(SECTOR) && length_of(buf).is_multiple_of(SECTOR) {
            self.read_host(buf, host)?;
            encryption.decrypt(buf, host, guest);
            return Ok(());
        }
        // Sectors are decrypted whole. Both offsets lie equally far into their sector.
        let into = host % SECTOR;
        let length = into.saturating_add(length_of(buf)).next_multiple_of(SECTOR);
        let (host, guest) = (host.saturating_sub(into), guest.saturating_sub(into));
        let mut sectors = vec![0; to_index(length)?];
        self.read_host(&mut sectors, host)?;
        encryption.decrypt(&mut sectors, host, guest);
        let bytes = sectors.get(to_index(into)?..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or_else(overflow)?);
        Ok(())
    }

    /// Guest data at byte `host`, with zeros where the file has ended.
    fn read_host(&self, buf: &mut [u8], host: u64) -> io::Result<()> {
        let file = self.data.as_ref().unwrap_or(&self.file);
        let size = file.size();
        let last = host.saturating_add(length_of(buf)).saturating_sub(1);
        let available = size.saturating_sub(host).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        if !missing.is_empty() {
            missing.fill(0);
            // The last cluster of a healthy file may be cut short: what was never written there is zero.
            if self.cluster_bits().number(last) > self.cluster_bits().number(size.saturating_sub(1)) {
                self.record_truncated(host.saturating_add(available), size);
            }
        }
        if present.is_empty() { Ok(()) } else { file.read_exact_at(present, host) }
    }

    fn record_truncated(&self, at: u64, size: u64) {
        let expected = format!("below {size}, the end of the file");
        self.record(Corrupt::new("qcow2 data cluster", at, "host offset", expected, at));
    }

    fn read_backing(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let available = backing.size().saturating_sub(offset).min(length_of(buf));
        let (present, past) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        past.fill(0);
        if present.is_empty() { Ok(()) } else { backing.read_exact_at(present, offset) }
    }

    /// Part of a compressed cluster, from byte `within` of it.
    fn read_compressed(&self, buf: &mut [u8], guest: u64, range: CompressedRange) -> io::Result<()> {
        let size = self.cluster_bits().buffer_size();
        if buf.len() == size {
            return self.decompress(buf, guest, range);
        }
        let within = to_index(self.cluster_bits().within(guest))?;
        let key = (self.layer, range.offset);
        let cluster = match self.shared.clusters.get(key).filter(|cluster| cluster.len() == size) {
            Some(cluster) => cluster,
            None => {
                let mut cluster = vec![0; size];
                self.decompress(&mut cluster, guest, range)?;
                let cluster: Arc<[u8]> = cluster.into();
                self.shared.clusters.insert(key, cluster.clone());
                cluster
            }
        };
        let bytes = cluster.get(within..).and_then(|rest| rest.get(..buf.len())).ok_or_else(overflow)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    /// A whole compressed cluster. The last sector of its range may lie past the end of the file.
    fn decompress(&self, cluster: &mut [u8], guest: u64, range: CompressedRange) -> io::Result<()> {
        let size = self.file.size();
        let available = size.saturating_sub(range.offset).min(range.length);
        let length = to_index(available)?;
        let outcome = self.decompressors.with(|decompressor| -> io::Result<Result<(), String>> {
            decompressor.input.resize(length, 0);
            if length > 0 {
                self.file.read_exact_at(&mut decompressor.input, range.offset)?;
            }
            Ok(decompressor.decompress(0, cluster))
        })?;
        let Err(reason) = outcome else { return Ok(()) };
        if available < range.length {
            self.record_truncated(size.max(range.offset), size);
            cluster.fill(0);
            return Ok(());
        }
        let place = format_args!("guest byte {:#x}: {reason}", self.cluster_bits().start(guest)).to_string();
        let expected = format!("{} bytes", self.cluster_bits().size());
        Err(damaged(Corrupt::new("qcow2 compressed cluster", range.offset, "stream", expected, place)))
    }

    /// What a run means to those who only want to know whether it must be read.
    fn extent_of(&self, run: Run, offset: u64) -> io::Result<Extent> {
        let extent = |kind| Extent { length: run.length, kind };
        let Content::Unallocated = run.content else {
            let is_zero = run.content == Content::Zero;
            return Ok(extent(if is_zero { ExtentKind::Zero } else { ExtentKind::Data }));
        };
        match &self.backing {
            Some(backing) if offset < backing.size() => {
                let below = backing.extent_at(offset)?;
                Ok(Extent { length: below.length.min(run.length), kind: below.kind })
            }
            _ => Ok(extent(ExtentKind::Zero)),
        }
    }
}

/// Whether `content`, one part further on, belongs to the same run.
fn continues(run: &Run, content: Content) -> bool {
    match (run.content, content) {
        (Content::Unallocated, Content::Unallocated) | (Content::Zero, Content::Zero) => true,
        (Content::Host(first), Content::Host(next)) => first.checked_add(run.length) == Some(next),
        _ => false,
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, data, backing, .. } = self;
        write!(f, "qcow2({file:?}, data file {data:?}, backing {backing:?})")
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let run = self.run_at(at, length_of(rest))?;
            let (piece, after) = rest.split_at_mut_checked(to_index(run.length)?).ok_or_else(overflow)?;
            match run.content {
                Content::Zero => piece.fill(0),
                Content::Unallocated => self.read_backing(piece, at)?,
                Content::Host(host) => self.read_data(piece, host, at)?,
                Content::Compressed(range) => self.read_compressed(piece, at, range)?,
            }
            rest = after;
            at = at.saturating_add(run.length);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let mut total: Option<Extent> = None;
        for _ in 0..MAX_RUNS {
            let at = offset.saturating_add(total.map_or(0, |extent| extent.length));
            let is_enough =
                total.is_some_and(|extent| extent.kind == ExtentKind::Data && extent.length >= MAX_DATA);
            if at >= self.size || is_enough {
                break;
            }
            let next = self.run_at(at, self.size.saturating_sub(at)).and_then(|run| self.extent_of(run, at));
            match (&mut total, next) {
                (None, next) => total = Some(next?),
                (Some(extent), Ok(next)) if next.kind == extent.kind => {
                    extent.length = extent.length.saturating_add(next.length);
                }
                // A new kind, or damage: a later question meets it.
                (Some(_), _) => break,
            }
        }
        total.ok_or_else(overflow)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.writer.is_some() { Some(self) } else { None }
    }
}

impl LayerDisk for Disk {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        check_range(self.size, offset, 1)?;
        let Run { length, content } = self.run_at(offset, self.size.saturating_sub(offset))?;
        let content = match content {
            Content::Unallocated => OwnContent::Absent,
            Content::Zero => OwnContent::Zero,
            Content::Host(_) if self.encryption.is_some() => OwnContent::Encoded,
            Content::Host(offset) => OwnContent::Stored { file: usize::from(self.data.is_some()), offset },
            Content::Compressed(_) => OwnContent::Encoded,
        };
        Ok(OwnRun { length, content })
    }
}
