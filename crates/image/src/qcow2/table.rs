//! L1 and L2 entries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ondisk::{Corrupt, Error, Result, be};
use zerocopy::FromBytes;

/// The entry's cluster has a reference count of exactly one.
pub(crate) const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Bits 9..=55: a host offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Version 3: reads as zeros.
const ZERO: u64 = 1;

/// Where the bytes of a guest cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// In the backing file, or zeros.
    Unallocated,
    /// Zeros, perhaps with a host cluster reserved.
    Zero { host: Option<u64> },
    /// At this byte of the file.
    Data { host: u64, is_copied: bool },
    /// Compressed, in at most `length` bytes from this byte on.
    Compressed { host: u64, length: u64 },
}

impl Cluster {
    pub(crate) fn decode(entry: u64, cluster_bits: u32, version: u32) -> Result<Self> {
        if entry & COMPRESSED != 0 {
            // The offset has 62 - (cluster_bits - 8) bits; the rest counts further sectors.
            let offset_bits = 70_u32.saturating_sub(cluster_bits);
            let mask = 1_u64.checked_shl(offset_bits).unwrap_or(0).wrapping_sub(1);
            let host = entry & mask;
            let sectors = (entry & (COMPRESSED - 1)).checked_shr(offset_bits).unwrap_or(0);
            let length = sectors.saturating_add(1).saturating_mul(512).saturating_sub(host % 512);
            return Ok(Self::Compressed { host, length });
        }
        let host = entry & OFFSET;
        let cluster_size = 1_u64.checked_shl(cluster_bits).unwrap_or(1);
        if !host.is_multiple_of(cluster_size) {
            let expected = format!("a multiple of {cluster_size}");
            return Err(Corrupt::new("qcow2 L2 entry", 0, "host cluster offset", expected, host).into());
        }
        if version >= 3 && entry & ZERO != 0 {
            return Ok(Self::Zero { host: (host != 0).then_some(host) });
        }
        if host == 0 {
            return Ok(Self::Unallocated);
        }
        Ok(Self::Data { host, is_copied: entry & COPIED != 0 })
    }

    /// The entry of a data cluster with a reference count of one.
    pub(crate) fn encode_data(host: u64) -> u64 {
        host | COPIED
    }
}

/// The host offset of an L1 entry; `None` when there is no L2 table.
pub(crate) fn l2_offset(entry: u64, cluster_size: u64) -> Result<Option<u64>> {
    let host = entry & OFFSET;
    if !host.is_multiple_of(cluster_size) {
        let expected = format!("a multiple of {cluster_size}");
        return Err(Error::from(Corrupt::new("qcow2 L1 entry", 0, "L2 table offset", expected, host)));
    }
    Ok((host != 0).then_some(host))
}

/// Big-endian entries of a table.
pub(crate) fn decode_entries(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).filter_map(|chunk| be::U64::read_from_bytes(chunk).ok()).map(be::U64::get).collect()
}

/// The most recently used values, by host offset. Small: a linear search beats a map.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    limit: usize,
    recent: Mutex<VecDeque<(u64, Arc<T>)>>,
}

impl<T> Cache<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, recent: Mutex::new(VecDeque::new()) }
    }

    /// The value at `key`, loaded when it is not at hand. Loading runs outside the lock.
    pub(crate) fn get(&self, key: u64, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(found) = self.touch(key) {
            return Ok(found);
        }
        let value = Arc::new(load()?);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(found, _)| *found != key);
        recent.push_front((key, value.clone()));
        recent.truncate(self.limit);
        Ok(value)
    }

    fn touch(&self, key: u64) -> Option<Arc<T>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let index = recent.iter().position(|(found, _)| *found == key)?;
        let entry = recent.remove(index)?;
        recent.push_front(entry);
        recent.front().map(|(_, value)| value.clone())
    }

    pub(crate) fn clear(&self) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let decode = |entry| Cluster::decode(entry, 16, 3);
        assert_eq!(decode(0).unwrap(), Cluster::Unallocated);
        assert_eq!(decode(1).unwrap(), Cluster::Zero { host: None });
        assert_eq!(decode(COPIED | 0x5_0000).unwrap(), Cluster::Data { host: 0x5_0000, is_copied: true });
        assert!(decode(0x5_0200).is_err());
        // 64 KiB clusters: 54 bits of offset, then the sector count.
        let entry = COMPRESSED | 3 << 54 | 0x1_0210;
        assert_eq!(decode(entry).unwrap(), Cluster::Compressed { host: 0x1_0210, length: 4 * 512 - 0x10 });
        assert_eq!(Cluster::decode(1, 16, 2).unwrap(), Cluster::Unallocated);
        assert_eq!(decode_entries(&[0, 0, 0, 0, 0, 0, 0, 1, 0]), [1]);
    }

    #[test]
    fn the_cache_forgets_the_oldest() {
        let cache = Cache::new(2);
        for key in [1, 2, 1, 3] {
            cache.get(key, || Ok(key)).unwrap();
        }
        assert!(cache.touch(1).is_some() && cache.touch(2).is_none() && cache.touch(3).is_some());
    }
}
