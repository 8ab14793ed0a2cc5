//! Writing a whole streamOptimized image, front to back.
//!
//! VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents": header, descriptor, the grains that are
//! not zeros, each table behind its grains, directory, footer, end marker. Two threads read and compress, a bounded
//! batch at a time.

use std::thread;

use blockdev::{BlockDevice, BlockDeviceMut, ExtentKind};
use flate2::{Compress, Compression, FlushCompress, Status};
use ondisk::{Error, Result};
use zerocopy::IntoBytes;

use super::create::{DESCRIPTOR_SECTORS, GRAIN, TABLE_SECTORS, descriptor, directory_sectors};
use super::header::{AT_END, NewHeader, SECTOR, flag};
use super::stream::{GRAIN_MARKER, RawMarker, kind};
use crate::arithmetic::length_of;

const STRUCTURE: &str = "VMDK stream";

/// Grains that are compressed before they are written: 4 MiB of the disk.
const BATCH: usize = 64;

/// Threads that compress.
const THREADS: usize = 2;

/// Bytes in a grain.
const GRAIN_SIZE: u64 = GRAIN * SECTOR;

/// Grains of a table.
const IN_TABLE: u64 = 512;

/// Sectors before the first grain.
const OVERHEAD: u64 = 128;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSummary {
    /// Length of the image in bytes.
    pub length: u64,
    /// Grains of 64 KiB that are stored; all others are zeros.
    pub grains: u64,
}

/// Writes `disk` to `out`, which must be empty and able to grow, as a streamOptimized image whose descriptor calls its
/// extent `name`.
///
/// # Errors
/// [`Error::Unsupported`] for a device that is not empty, a name that no descriptor can hold, and a disk whose stream
/// exceeds 2 TiB; [`Error::Io`]; [`Error::Write`].
pub fn write_stream_optimized(
    out: &dyn BlockDeviceMut,
    disk: &dyn BlockDevice,
    name: &str,
) -> Result<StreamSummary> {
    if out.size() != 0 {
        return Err(Error::unsupported(STRUCTURE, "writing over existing content"));
    }
    if name.chars().any(|c| c == '"' || c.is_control()) {
        return Err(Error::unsupported(STRUCTURE, "this name of an extent"));
    }
    let sectors = disk.size().div_ceil(SECTOR);
    if sectors == 0 || sectors >= 1 << 40 {
        return Err(Error::unsupported(STRUCTURE, format!("a disk of {} bytes", disk.size())));
    }
    let mut stream = Stream { out, at: 0 };
    let header = NewHeader {
        version: 3,
        flags: flag::LINE_END_TEST | flag::COMPRESSED | flag::MARKERS,
        capacity: sectors,
        grain: GRAIN,
        descriptor: (1, DESCRIPTOR_SECTORS),
        redundant: 0,
        directory: AT_END,
        overhead: OVERHEAD,
    };
    stream.start(&header, name)?;
    let tables = sectors.div_ceil(GRAIN * IN_TABLE);
    let mut directory = Vec::new();
    let mut grains = 0_u64;
    let mut source = Source { disk, next: 0 };
    for number in 0..tables {
        let first = number.saturating_mul(IN_TABLE);
        let mut table = vec![0_u32; 512];
        while let Some(batch) = source.batch(first.saturating_add(IN_TABLE))? {
            for (grain, packed) in batch {
                let within = usize::try_from(grain.saturating_sub(first)).unwrap_or(usize::MAX);
                *table.get_mut(within).ok_or_else(too_long)? = stream.sector()?;
                stream.grain(grain, &packed)?;
                grains = grains.saturating_add(1);
            }
        }
        let is_empty = table.iter().all(|word| *word == 0);
        directory.push(if is_empty { 0 } else { stream.words(&table, kind::TABLE, TABLE_SECTORS)? });
    }
    let directory_at = stream.words(&directory, kind::DIRECTORY, directory_sectors(tables))?;
    stream.marker(kind::FOOTER, 1)?;
    let footer = NewHeader { directory: u64::from(directory_at), ..header };
    stream.put(footer.encode().as_bytes())?;
    stream.marker(kind::END, 0)?;
    let length = stream.at;
    out.flush().map_err(|source| Error::Write { offset: 0, length, source })?;
    Ok(StreamSummary { length, grains })
}

fn too_long() -> Error {
    Error::unsupported(STRUCTURE, "more than 2 TiB of compressed data")
}

/// The disk, read in order.
struct Source<'a> {
    disk: &'a dyn BlockDevice,
    /// The number of the first grain that was not looked at.
    next: u64,
}

/// A grain by its number, with its compressed bytes.
type Packed = (u64, Vec<u8>);

impl Source<'_> {
    /// The next grains below number `end` that are not zeros, in order; `None` when there are no more.
    fn batch(&mut self, end: u64) -> Result<Option<Vec<Packed>>> {
        let end = end.min(self.disk.size().div_ceil(GRAIN_SIZE));
        let mut wanted = Vec::with_capacity(BATCH);
        while wanted.len() < BATCH && self.next < end {
            let at = self.next.saturating_mul(GRAIN_SIZE);
            let failed = |source| Error::Io { offset: at, length: GRAIN_SIZE, source };
            let extent = self.disk.extent_at(at).map_err(failed)?;
            let to_end = self.disk.size().saturating_sub(at);
            let zeros = if extent.kind == ExtentKind::Zero { extent.length } else { 0 };
            if zeros >= GRAIN_SIZE.min(to_end) {
                self.next = self.next.saturating_add((zeros / GRAIN_SIZE).max(1)).min(end);
                continue;
            }
            wanted.push(self.next);
            self.next = self.next.saturating_add(1);
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let share = wanted.len().div_ceil(THREADS).max(1);
        let disk = self.disk;
        let parts = thread::scope(|scope| {
            let workers: Vec<_> =
                wanted.chunks(share).map(|numbers| scope.spawn(|| pack_all(disk, numbers))).collect();
            let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())));
            joined.collect::<Result<Vec<_>>>()
        })?;
        Ok(Some(parts.into_iter().flatten().collect()))
    }
}

fn panicked() -> Error {
    Error::unsupported(STRUCTURE, "a disk whose reading panics")
}

/// Reads and compresses these grains; those that are all zeros are left out.
fn pack_all(disk: &dyn BlockDevice, numbers: &[u64]) -> Result<Vec<Packed>> {
    let mut compress = Compress::new(Compression::default(), true);
    let mut grain = vec![0; usize::try_from(GRAIN_SIZE).unwrap_or(65_536)];
    let mut packed = Vec::with_capacity(numbers.len());
    for number in numbers {
        let offset = number.saturating_mul(GRAIN_SIZE);
        let length = disk.size().saturating_sub(offset).min(GRAIN_SIZE);
        let (present, past) = grain.split_at_mut(usize::try_from(length).unwrap_or(0));
        disk.read_exact_at(present, offset).map_err(|source| Error::Io { offset, length, source })?;
        past.fill(0);
        if grain.iter().any(|byte| *byte != 0) {
            packed.push((*number, pack(&mut compress, &grain)?));
        }
    }
    Ok(packed)
}

fn pack(compress: &mut Compress, grain: &[u8]) -> Result<Vec<u8>> {
    compress.reset();
    // The bound of zlib for what cannot be compressed is far below this.
    let mut packed = Vec::with_capacity(grain.len().saturating_add(4096));
    match compress.compress_vec(grain, &mut packed, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => Ok(packed),
        _ => Err(Error::unsupported(STRUCTURE, "a grain that cannot be compressed")),
    }
}

/// The image, written in order.
struct Stream<'a> {
    out: &'a dyn BlockDeviceMut,
    /// Where the next byte goes.
    at: u64,
}

impl Stream<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let (offset, length) = (self.at, length_of(bytes));
        let end = offset.saturating_add(length);
        let written = self.out.grow(end).and_then(|()| self.out.write_all_at(bytes, offset));
        written.map_err(|source| Error::Write { offset, length, source })?;
        self.at = end;
        Ok(())
    }

    /// The sector at which the next thing starts.
    fn sector(&self) -> Result<u32> {
        u32::try_from(self.at / SECTOR).map_err(|_| too_long())
    }

    fn start(&mut self, header: &NewHeader, name: &str) -> Result<()> {
        let line = format!("RW {} SPARSE \"{name}\"\n", header.capacity);
        let text = descriptor(header.capacity, "streamOptimized", &line);
        if length_of(text.as_bytes()) >= DESCRIPTOR_SECTORS.saturating_mul(SECTOR) {
            return Err(Error::unsupported(STRUCTURE, "this name of an extent"));
        }
        let mut bytes = header.encode().as_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(usize::try_from(OVERHEAD * SECTOR).unwrap_or(65_536), 0);
        self.put(&bytes)
    }

    fn grain(&mut self, number: u64, packed: &[u8]) -> Result<()> {
        let size = u32::try_from(packed.len()).map_err(|_| too_long())?;
        let marker =
            RawMarker { value: number.saturating_mul(GRAIN).into(), size: size.into(), kind: 0.into() };
        let (marker, _) = marker.as_bytes().split_at(usize::try_from(GRAIN_MARKER).unwrap_or(12));
        let mut bytes = [marker, packed].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        self.put(&bytes)
    }

    fn marker(&mut self, kind: u32, sectors: u64) -> Result<()> {
        let marker = RawMarker { value: sectors.into(), size: 0.into(), kind: kind.into() };
        let mut bytes = marker.as_bytes().to_vec();
        bytes.resize(512, 0);
        self.put(&bytes)
    }

    /// A table or directory behind its marker; returns its sector.
    fn words(&mut self, words: &[u32], kind: u32, sectors: u64) -> Result<u32> {
        self.marker(kind, sectors)?;
        let at = self.sector()?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        self.put(&bytes)?;
        Ok(at)
    }
}
