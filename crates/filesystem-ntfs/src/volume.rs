//! The volume's bytes, with a bounded cache of those that hold metadata.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use ondisk::{Error, Result, read_bytes};

use crate::boot_sector::Geometry;
use crate::number::wide;

/// MFT records and index blocks lie together: what is read with one is wanted soon.
const PIECE: u64 = 32 << 10;
/// Pieces kept: 8 MiB.
const PIECES: usize = 256;

/// A device with the sizes of its volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) device: Device,
    pub(crate) geometry: Geometry,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    pieces: HashMap<u64, Arc<[u8]>>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl Volume {
    pub(crate) fn new(device: Device, geometry: Geometry) -> Self {
        Self { device, geometry, cache: Mutex::default() }
    }

    /// Fills `buf` from byte `offset`, straight from the device.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let length = wide(buf.len());
        self.device.read_exact_at(buf, offset).map_err(|source| Error::Io { offset, length, source })
    }

    /// The same for metadata, through the cache.
    pub(crate) fn read_metadata(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let start = at.next_multiple_of(PIECE);
            let start = if start == at { at } else { start.saturating_sub(PIECE) };
            // Where a whole piece cannot be read, what is asked for may still be readable.
            let Ok(piece) = self.piece(start) else { return self.read(rest, at) };
            let skip = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let source = piece.get(skip..).filter(|source| !source.is_empty());
            let Some(source) = source else { return self.read(rest, at) };
            let (target, after) = rest.split_at_mut(source.len().min(rest.len()));
            target.copy_from_slice(source.get(..target.len()).unwrap_or_default());
            at = at.saturating_add(wide(target.len()));
            rest = after;
        }
        Ok(())
    }

    fn piece(&self, start: u64) -> Result<Arc<[u8]>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = lock().pieces.get(&start) {
            return Ok(Arc::clone(piece));
        }
        let length = self.device.size().saturating_sub(start).min(PIECE);
        let length = usize::try_from(length).unwrap_or_default();
        let piece: Arc<[u8]> = read_bytes(&*self.device, start, length)?.into();
        let mut cache = lock();
        if cache.pieces.insert(start, Arc::clone(&piece)).is_none() {
            cache.order.push_back(start);
        }
        if cache.order.len() > PIECES
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.pieces.remove(&oldest);
        }
        Ok(piece)
    }
}
