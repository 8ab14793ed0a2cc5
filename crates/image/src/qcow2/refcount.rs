//! Reference counts: a table of blocks, each a cluster of counters.
//!
//! A counter has 2^`refcount_order` bits; counters of less than a byte fill each byte from its low bits.

use blockdev::BlockDeviceMut;
use ondisk::{Corrupt, Error, Result, be, read_bytes, read_value};
use zerocopy::IntoBytes;

use super::read::Qcow2;

impl Qcow2 {
    /// Counters in one block.
    fn counters_per_block(&self) -> u64 {
        let bits = self.cluster_size.saturating_mul(8);
        bits.checked_shr(self.header.raw.refcount_order.get()).unwrap_or(1).max(1)
    }

    /// The host byte of the block that counts `cluster`; 0 when there is none yet.
    fn refcount_block(&self, cluster: u64) -> Result<(u64, u64)> {
        let index = cluster.checked_div(self.counters_per_block()).unwrap_or(0);
        let entries =
            u64::from(self.header.raw.refcount_table_clusters.get()).saturating_mul(self.cluster_size) / 8;
        if index >= entries {
            return Err(Error::unsupported("qcow2 image", "growing the refcount table"));
        }
        let at = self.header.raw.refcount_table_offset.get().saturating_add(index.saturating_mul(8));
        let entry: be::U64 = read_value(self.file.as_ref(), at)?;
        let block = entry.get() & !511;
        if !block.is_multiple_of(self.cluster_size) {
            let expected = format!("a multiple of {}", self.cluster_size);
            return Err(Corrupt::new("qcow2 refcount table", at, "entry", expected, block).into());
        }
        Ok((at, block))
    }

    /// The count of the host cluster with this number.
    pub(crate) fn refcount(&self, cluster: u64) -> Result<u64> {
        let (_, block) = self.refcount_block(cluster)?;
        if block == 0 {
            return Ok(0);
        }
        let (at, bits, shift) = self.counter_place(block, cluster);
        let bytes = read_bytes(self.file.as_ref(), at, (bits.div_ceil(8)).max(1))?;
        let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        Ok(if bits < 8 { value >> shift & low_bits(bits) } else { value })
    }

    /// Sets the count of a cluster whose refcount block exists.
    pub(crate) fn set_refcount(&self, writer: &dyn BlockDeviceMut, cluster: u64, count: u64) -> Result<()> {
        let (_, block) = self.refcount_block(cluster)?;
        if block == 0 {
            return Err(Error::unsupported("qcow2 image", "a cluster without refcount block"));
        }
        let (at, bits, shift) = self.counter_place(block, cluster);
        if bits < 64 && count.checked_shr(u32::try_from(bits).unwrap_or(0)).unwrap_or(0) != 0 {
            return Err(Error::unsupported(
                "qcow2 image",
                format!("a reference count of {count} in {bits} bits"),
            ));
        }
        if bits < 8 {
            let old: u8 = read_value(self.file.as_ref(), at)?;
            let mask = u8::try_from(low_bits(bits) << shift).unwrap_or(0);
            let new = old & !mask | u8::try_from(count << shift).unwrap_or(0);
            return self.write(writer, &[new], at);
        }
        let bytes = count.to_be_bytes();
        let start = 8_usize.saturating_sub(bits / 8);
        self.write(writer, bytes.get(start..).unwrap_or_default(), at)
    }

    /// The byte, the number of bits, and the shift within the byte of a cluster's counter.
    fn counter_place(&self, block: u64, cluster: u64) -> (u64, usize, usize) {
        let order = self.header.raw.refcount_order.get().min(6);
        let bits = 1_u64.checked_shl(order).unwrap_or(1);
        let index = cluster.checked_rem(self.counters_per_block()).unwrap_or(0);
        let bit = index.saturating_mul(bits);
        let shift = usize::try_from(bit % 8).unwrap_or(0);
        (block.saturating_add(bit / 8), usize::try_from(bits).unwrap_or(16), shift)
    }

    /// Counts every cluster that the bytes `host..host + length` touch once less.
    pub(crate) fn release(&self, writer: &dyn BlockDeviceMut, host: u64, length: u64) -> Result<()> {
        let first = host.checked_div(self.cluster_size).unwrap_or(0);
        let last =
            host.saturating_add(length.max(1)).saturating_sub(1).checked_div(self.cluster_size).unwrap_or(0);
        for cluster in first..=last {
            // A count of zero here is damage that was there before; leaving it is safe, wrapping it is not.
            if let Some(less) = self.refcount(cluster)?.checked_sub(1) {
                self.set_refcount(writer, cluster, less)?;
            }
        }
        Ok(())
    }

    /// A new host cluster at the end of the file, counted once; a refcount block is added where it needs one.
    pub(crate) fn allocate(&self, writer: &dyn BlockDeviceMut) -> Result<u64> {
        loop {
            let cluster = self.file.size().div_ceil(self.cluster_size);
            let host = cluster.saturating_mul(self.cluster_size);
            let (entry_at, block) = self.refcount_block(cluster)?;
            let length = self.cluster_size;
            writer.grow(host.saturating_add(length)).map_err(|source| Error::Write {
                offset: host,
                length,
                source,
            })?;
            if block != 0 {
                self.set_refcount(writer, cluster, 1)?;
                return Ok(host);
            }
            // The new cluster becomes the block that counts itself; it was grown as zeros.
            let (at, bits, shift) = self.counter_place(host, cluster);
            let one = if bits < 8 { vec![1_u8 << shift] } else { be_one(bits) };
            self.write(writer, &one, at)?;
            self.write(writer, be::U64::new(host).as_bytes(), entry_at)?;
        }
    }

    pub(crate) fn write(&self, writer: &dyn BlockDeviceMut, bytes: &[u8], offset: u64) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        writer.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, length, source })
    }
}

/// A mask of the lowest `bits` bits, for fewer than 8.
fn low_bits(bits: usize) -> u64 {
    (1_u64 << bits).wrapping_sub(1)
}

/// The number one in `bits` bits, big-endian.
fn be_one(bits: usize) -> Vec<u8> {
    let mut bytes = vec![0; bits / 8];
    if let Some(last) = bytes.last_mut() {
        *last = 1;
    }
    bytes
}
