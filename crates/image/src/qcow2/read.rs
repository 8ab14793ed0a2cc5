//! Reading: guest offset → cluster → bytes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use flate2::{Decompress, FlushDecompress, Status};
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes};

use super::header::{EXTENSION_BACKING_FORMAT, Header};
use super::table::{Cache, Cluster, decode_entries, l2_offset};

/// L2 tables kept in memory; 64 tables of 64 KiB map 32 GiB.
const CACHED_TABLES: usize = 64;
/// Decompressed clusters kept in memory.
const CACHED_CLUSTERS: usize = 16;

/// An opened image over its container file.
#[derive(Debug)]
pub struct Qcow2 {
    pub(crate) file: Device,
    pub(crate) header: Header,
    pub(crate) cluster_size: u64,
    /// The active L1 table.
    pub(crate) l1: RwLock<Vec<u64>>,
    pub(crate) tables: Cache<Vec<u64>>,
    decompressed: Cache<Vec<u8>>,
    backing: Option<Device>,
    /// Serialises writers; see `write.rs`.
    pub(crate) writing: Mutex<()>,
}

impl Qcow2 {
    /// Opens the image in `file`. A backing file that the header names is the caller's business: see
    /// [`backing_name`](Self::backing_name) and [`set_backing`](Self::set_backing).
    ///
    /// # Errors
    /// Damage in the header or L1 table, or a feature that is not known.
    pub fn open(file: Device) -> Result<Parsed<Self>> {
        let header = Header::read(file.as_ref())?;
        let mut problems = Vec::new();
        if header.raw.incompatible_features.get() & super::header::CORRUPT != 0 {
            let features = header.raw.incompatible_features;
            problems.push(
                Corrupt::new("qcow2 header", 0, "incompatible_features", "no corrupt bit", features).into(),
            );
        }
        let length = usize::try_from(header.raw.l1_size.get()).unwrap_or(0).saturating_mul(8);
        let l1 = decode_entries(&read_bytes(file.as_ref(), header.raw.l1_table_offset.get(), length)?);
        let cluster_size = header.cluster_size();
        let image = Self {
            file,
            header,
            cluster_size,
            l1: RwLock::new(l1),
            tables: Cache::new(CACHED_TABLES),
            decompressed: Cache::new(CACHED_CLUSTERS),
            backing: None,
            writing: Mutex::new(()),
        };
        Ok(Parsed { value: image, problems })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The name of the backing file as stored; relative to the image's folder.
    pub fn backing_name(&self) -> Option<&[u8]> {
        self.header.backing_name.as_deref()
    }

    /// The stated format of the backing file.
    pub fn backing_format(&self) -> Option<&[u8]> {
        self.header.extension(EXTENSION_BACKING_FORMAT)
    }

    /// Gives the image its opened backing file. Without one, unallocated clusters read as zeros.
    pub fn set_backing(&mut self, backing: Device) {
        self.backing = Some(backing);
    }

    /// The guest ranges, in bytes, that this file itself holds (zero clusters included), merged, ascending.
    ///
    /// # Errors
    /// Damage in the tables.
    pub fn allocated(&self) -> Result<Vec<std::ops::Range<u64>>> {
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        let mut at = 0_u64;
        while at < self.size() {
            let end_of_table = self.table_end(at);
            let Some(table) = self.l2_table(at)? else {
                at = end_of_table;
                continue;
            };
            while at < end_of_table {
                let end = at.saturating_add(self.cluster_size).min(self.size());
                if self.decode(&table, at)? != Cluster::Unallocated {
                    match ranges.last_mut() {
                        Some(last) if last.end == at => last.end = end,
                        _ => ranges.push(at..end),
                    }
                }
                at = end;
            }
        }
        Ok(ranges)
    }

    /// The L2 table that maps guest byte `offset`.
    fn l2_table(&self, offset: u64) -> Result<Option<Arc<Vec<u64>>>> {
        let index = self.l1_index(offset);
        let entry = self.l1.read().unwrap_or_else(PoisonError::into_inner).get(index).copied().unwrap_or(0);
        let Some(host) = l2_offset(entry, self.cluster_size)? else { return Ok(None) };
        let length = usize::try_from(self.cluster_size).unwrap_or(0);
        self.tables.get(host, || Ok(decode_entries(&read_bytes(self.file.as_ref(), host, length)?))).map(Some)
    }

    pub(crate) fn l1_index(&self, offset: u64) -> usize {
        let index = offset.checked_div(self.bytes_per_table()).unwrap_or(0);
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// Guest bytes that one L2 table maps.
    fn bytes_per_table(&self) -> u64 {
        (self.cluster_size / 8).saturating_mul(self.cluster_size)
    }

    /// The guest byte behind the last one that the L2 table of `offset` maps, or the end of the disk.
    fn table_end(&self, offset: u64) -> u64 {
        let table = offset.checked_div(self.bytes_per_table()).unwrap_or(0);
        table.saturating_add(1).saturating_mul(self.bytes_per_table()).min(self.size())
    }

    pub(crate) fn l2_index(&self, offset: u64) -> usize {
        let cluster = offset.checked_div(self.cluster_size).unwrap_or(0);
        usize::try_from(cluster.checked_rem(self.cluster_size / 8).unwrap_or(0)).unwrap_or(0)
    }

    fn decode(&self, table: &[u64], offset: u64) -> Result<Cluster> {
        let entry = table.get(self.l2_index(offset)).copied().unwrap_or(0);
        Cluster::decode(entry, self.header.raw.cluster_bits.get(), self.header.raw.version.get())
    }

    pub(crate) fn cluster_at(&self, offset: u64) -> Result<Cluster> {
        match self.l2_table(offset)? {
            Some(table) => self.decode(&table, offset),
            None => Ok(Cluster::Unallocated),
        }
    }

    /// Fills `buf`, which lies within the guest cluster of `offset`.
    fn read_within(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let within = offset.checked_rem(self.cluster_size).unwrap_or(0);
        match self.cluster_at(offset)? {
            Cluster::Unallocated => self.read_backing(buf, offset),
            Cluster::Zero { .. } => {
                buf.fill(0);
                Ok(())
            }
            Cluster::Data { host, .. } => read_padded(self.file.as_ref(), buf, host.saturating_add(within)),
            Cluster::Compressed { host, length } => {
                let cluster = self.decompressed.get(host, || self.decompress(host, length))?;
                let start = usize::try_from(within).unwrap_or(0);
                let bytes = cluster.get(start..start.saturating_add(buf.len())).unwrap_or_default();
                if bytes.len() == buf.len() {
                    buf.copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }

    fn read_backing(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.backing {
            Some(backing) => read_padded(backing.as_ref(), buf, offset),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }

    /// One cluster; the stream may end before the recorded length, and the last sector past the file's end.
    fn decompress(&self, host: u64, length: u64) -> Result<Vec<u8>> {
        if self.header.raw.compression_type != 0 {
            return Err(Error::unsupported("qcow2 image", "zstd compression"));
        }
        let available = self.file.size().saturating_sub(host).min(length);
        let packed = read_bytes(self.file.as_ref(), host, usize::try_from(available).unwrap_or(0))?;
        let mut cluster = vec![0; usize::try_from(self.cluster_size).unwrap_or(0)];
        let mut inflate = Decompress::new(false);
        let result = inflate.decompress(&packed, &mut cluster, FlushDecompress::Finish);
        let is_whole = inflate.total_out() == self.cluster_size;
        match result {
            Ok(Status::StreamEnd | Status::Ok | Status::BufError) if is_whole => Ok(cluster),
            Ok(_) => Err(self.bad_stream(host, format_args!("{} bytes", inflate.total_out()))),
            Err(error) => Err(self.bad_stream(host, error)),
        }
    }

    fn bad_stream(&self, host: u64, found: impl std::fmt::Display) -> Error {
        let expected = format!("{} bytes", self.cluster_size);
        Corrupt::new("qcow2 compressed cluster", host, "deflate stream", expected, found).into()
    }

    /// Splits a guest range at cluster boundaries.
    pub(crate) fn pieces(&self, offset: u64, length: usize) -> Vec<(u64, std::ops::Range<usize>)> {
        let mut pieces = Vec::new();
        let mut done = 0_usize;
        while done < length {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(0));
            let left = self.cluster_size.saturating_sub(at.checked_rem(self.cluster_size).unwrap_or(0));
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(length.saturating_sub(done));
            pieces.push((at, done..done.saturating_add(count)));
            done = done.saturating_add(count);
        }
        pieces
    }
}

/// Reads from a file that may be shorter than what it should hold: what is past its end is zeros, as QEMU reads
/// it (a cluster that was preallocated, a backing file that is smaller than its overlay).
fn read_padded(file: &dyn BlockDevice, buf: &mut [u8], offset: u64) -> Result<()> {
    let wanted = u64::try_from(buf.len()).unwrap_or(u64::MAX);
    let available = file.size().saturating_sub(offset).min(wanted);
    let (inside, past) = buf.split_at_mut(usize::try_from(available).unwrap_or(0));
    past.fill(0);
    if inside.is_empty() {
        return Ok(());
    }
    file.read_exact_at(inside, offset).map_err(|source| Error::Io { offset, length: available, source })
}

impl BlockDevice for Qcow2 {
    fn size(&self) -> u64 {
        self.header.raw.size.get()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        for (at, range) in self.pieces(offset, buf.len()) {
            let piece = buf.get_mut(range).unwrap_or_default();
            self.read_within(piece, at).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size(), offset, 1)?;
        let kind_of = |at: u64| -> io::Result<(ExtentKind, u64)> {
            let rest = self.cluster_size.saturating_sub(at.checked_rem(self.cluster_size).unwrap_or(0));
            match self.cluster_at(at).map_err(io::Error::other)? {
                Cluster::Zero { .. } => Ok((ExtentKind::Zero, rest)),
                Cluster::Unallocated => match &self.backing {
                    Some(backing) if at < backing.size() => {
                        let below = backing.extent_at(at)?;
                        Ok((below.kind, below.length.min(rest)))
                    }
                    _ => Ok((ExtentKind::Zero, rest)),
                },
                Cluster::Data { .. } | Cluster::Compressed { .. } => Ok((ExtentKind::Data, rest)),
            }
        };
        let (kind, mut length) = kind_of(offset)?;
        // Merging stops at the end of an L2 table, which bounds the work of one call.
        let end = self.table_end(offset);
        while offset.saturating_add(length) < end {
            let (next, more) = kind_of(offset.saturating_add(length))?;
            if next != kind {
                break;
            }
            length = length.saturating_add(more);
        }
        Ok(Extent { length: length.min(self.size().saturating_sub(offset)), kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.can_write().then_some(self)
    }
}
