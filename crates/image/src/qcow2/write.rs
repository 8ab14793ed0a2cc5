//! Writing: in place where a cluster belongs to this image alone, else into a new cluster.
//!
//! The order is safe at every cut: a new cluster is counted and filled before a table points to it, and what it
//! replaces is released last. A cut leaves at worst clusters that are counted and not used.

use std::io;
use std::sync::PoisonError;

use blockdev::{BlockDevice, BlockDeviceMut, check_range, writable};
use ondisk::{Corrupt, Error, Result, be};
use zerocopy::IntoBytes;

use super::header::{CORRUPT, DIRTY};
use super::read::Qcow2;
use super::table::{COPIED, Cluster, l2_offset};

impl Qcow2 {
    /// Whether this image may be written: its file was opened for that, and nothing in the header forbids it.
    pub(crate) fn can_write(&self) -> bool {
        self.file.writable().is_some() && self.header.raw.incompatible_features.get() & (DIRTY | CORRUPT) == 0
    }

    /// Writes `bytes`, which lie within the guest cluster of `offset`.
    fn write_within(&self, writer: &dyn BlockDeviceMut, bytes: &[u8], offset: u64) -> Result<()> {
        let within = offset.checked_rem(self.cluster_size).unwrap_or(0);
        let old = self.cluster_at(offset)?;
        if let Cluster::Data { host, is_copied: true } = old
            && self.is_l2_own(offset)
        {
            if host >= self.file.size() {
                let expected = format!("below the file's end, {}", self.file.size());
                return Err(Corrupt::new("qcow2 L2 entry", 0, "host cluster offset", expected, host).into());
            }
            let at = host.saturating_add(within);
            let end = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
            writer.grow(end).map_err(|source| Error::Write { offset: at, length: 0, source })?;
            return self.write(writer, bytes, at);
        }
        let start = offset.saturating_sub(within);
        let present = self.size().saturating_sub(start).min(self.cluster_size);
        let mut cluster = vec![0; usize::try_from(self.cluster_size).unwrap_or(0)];
        let inside = cluster.get_mut(..usize::try_from(present).unwrap_or(0)).unwrap_or_default();
        self.read_exact_at(inside, start).map_err(|source| Error::Io {
            offset: start,
            length: present,
            source,
        })?;
        let from = usize::try_from(within).unwrap_or(0);
        if let Some(target) = cluster.get_mut(from..from.saturating_add(bytes.len())) {
            target.copy_from_slice(bytes);
        }
        let l2 = self.own_l2(writer, offset)?;
        let host = self.allocate(writer)?;
        self.write(writer, &cluster, host)?;
        self.barrier(writer)?;
        let index = u64::try_from(self.l2_index(offset)).unwrap_or(0);
        let entry = be::U64::new(Cluster::encode_data(host));
        self.write(writer, entry.as_bytes(), l2.saturating_add(index.saturating_mul(8)))?;
        self.tables.clear();
        self.barrier(writer)?;
        match old {
            Cluster::Data { host, .. } | Cluster::Zero { host: Some(host) } => {
                self.release(writer, host, self.cluster_size)
            }
            Cluster::Compressed { host, length } => self.release(writer, host, length),
            Cluster::Unallocated | Cluster::Zero { host: None } => Ok(()),
        }
    }

    /// Whether the L2 table of `offset` is this image's alone: a snapshot may share it.
    fn is_l2_own(&self, offset: u64) -> bool {
        let l1 = self.l1.read().unwrap_or_else(PoisonError::into_inner);
        l1.get(self.l1_index(offset)).is_some_and(|entry| entry & COPIED != 0)
    }

    /// The host byte of an L2 table for `offset` that is this image's alone, made where there is none.
    fn own_l2(&self, writer: &dyn BlockDeviceMut, offset: u64) -> Result<u64> {
        let index = self.l1_index(offset);
        let entry = self.l1.read().unwrap_or_else(PoisonError::into_inner).get(index).copied().unwrap_or(0);
        let old = l2_offset(entry, self.cluster_size)?;
        if let Some(host) = old
            && entry & COPIED != 0
        {
            return Ok(host);
        }
        if old.is_some() {
            // Without internal snapshots nobody else can own it, so the flag contradicts the refcounts.
            return Err(Error::unsupported("qcow2 image", "writing through an L2 table without COPIED flag"));
        }
        let host = self.allocate(writer)?;
        self.barrier(writer)?;
        let at = u64::try_from(index).unwrap_or(0).saturating_mul(8);
        let at = self.header.raw.l1_table_offset.get().saturating_add(at);
        self.write(writer, be::U64::new(host | COPIED).as_bytes(), at)?;
        if let Some(slot) = self.l1.write().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *slot = host | COPIED;
        }
        self.tables.clear();
        Ok(host)
    }

    fn barrier(&self, writer: &dyn BlockDeviceMut) -> Result<()> {
        writer.flush().map_err(|source| Error::Write { offset: 0, length: 0, source })
    }

    /// A writer clears the feature bits that it does not maintain: bitmaps go stale with the first write.
    fn clear_autoclear(&self, writer: &dyn BlockDeviceMut) -> Result<()> {
        if self.header.raw.version.get() < 3 {
            return Ok(());
        }
        let bits: be::U64 = ondisk::read_value(self.file.as_ref(), 0x58)?;
        if bits.get() == 0 { Ok(()) } else { self.write(writer, &[0; 8], 0x58) }
    }
}

impl BlockDeviceMut for Qcow2 {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.header.raw.nb_snapshots.get() != 0 {
            let error = Error::unsupported("qcow2 image", "writing beside internal snapshots");
            return Err(io::Error::other(error));
        }
        let writer = writable(&self.file)?;
        self.clear_autoclear(writer).map_err(io::Error::other)?;
        for (at, range) in self.pieces(offset, buf.len()) {
            let piece = buf.get(range).unwrap_or_default();
            self.write_within(writer, piece, at).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        writable(&self.file)?.flush()
    }
}
