//! Old-style snapshots: what the origin was, kept as exceptions in a store.
//!
//! Kernel `drivers/md/dm-snap-persistent.c`: the store's first chunk is a header; then areas, each a chunk of pairs
//! (old chunk of the origin, new chunk of the store) followed by the chunks that it can name. Little-endian.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use blockdev::{BlockDevice, Device, check_range};
use ondisk::{Corrupt, Result, le, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::map::Mapping;

const NAME: &str = "snapshot exception store";
/// Sectors of the largest chunk: 512 KiB, as lvm2 limits it.
const MAX_CHUNK: u32 = 1024;

/// The header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0x0 "SnAp".
    magic: [u8; 4],
    /// 0x4 0 once the store was full.
    valid: le::U32,
    /// 0x8 1.
    version: le::U32,
    /// 0xc sectors, a power of two.
    chunk_size: le::U32,
}

/// One exception as stored; a new chunk of 0 ends the list.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawException {
    /// 0x0 chunk of the origin.
    old_chunk: le::U64,
    /// 0x8 chunk of the store.
    new_chunk: le::U64,
}

/// The snapshot over `origin` that `store` keeps. `chunk_size` is sectors, as the metadata text says; the header
/// knows better. The exceptions are read at the first read.
pub(crate) fn open(origin: Device, store: Device, chunk_size: u64) -> Mapping {
    let chunk = header(store.as_ref()).map_err(|error| error.to_string())?;
    let Some(chunk) = chunk else {
        // The kernel writes a header when a snapshot is activated for the first time.
        return Err(format!("a snapshot store (chunks of {chunk_size} sectors) that was never used"));
    };
    Ok(Arc::new(Snapshot { origin, store, chunk, exceptions: OnceLock::new() }))
}

/// Bytes of a chunk; `None` for a store of zeros.
fn header(store: &dyn BlockDevice) -> Result<Option<u64>> {
    let raw: RawHeader = read_value(store, 0)?;
    if raw.magic == [0; 4] {
        return Ok(None);
    }
    let corrupt = |field, expected: &str, found: String| Corrupt::new(NAME, 0, field, expected, found);
    if &raw.magic != b"SnAp" {
        return Err(corrupt("magic", "\"SnAp\"", format!("{:02x?}", raw.magic)).into());
    }
    if raw.version.get() != 1 {
        return Err(ondisk::Error::unsupported(NAME, format!("version {}", raw.version)));
    }
    if raw.valid.get() == 0 {
        return Err(corrupt("valid", "1", "0: the store was full and the snapshot lost".into()).into());
    }
    let sectors = raw.chunk_size.get();
    if !sectors.is_power_of_two() || sectors > MAX_CHUNK {
        return Err(corrupt("chunk_size", "a power of two up to 1024 sectors", sectors.to_string()).into());
    }
    Ok(Some(u64::from(sectors).saturating_mul(512)))
}

#[derive(Debug)]
struct Snapshot {
    origin: Device,
    store: Device,
    /// Bytes.
    chunk: u64,
    /// Chunk of the origin to chunk of the store, or why they cannot be had.
    exceptions: OnceLock<std::result::Result<BTreeMap<u64, u64>, String>>,
}

impl Snapshot {
    fn exceptions(&self) -> io::Result<&BTreeMap<u64, u64>> {
        let loaded = self.exceptions.get_or_init(|| self.load().map_err(|error| error.to_string()));
        loaded.as_ref().map_err(|reason| io::Error::other(reason.clone()))
    }

    fn load(&self) -> Result<BTreeMap<u64, u64>> {
        let mut exceptions = BTreeMap::new();
        let chunks = self.store.size().checked_div(self.chunk).unwrap_or(0);
        let length = usize::try_from(self.chunk).unwrap_or(usize::MAX);
        let stride = (self.chunk >> 4).saturating_add(1);
        let mut area = 1_u64;
        while area < chunks {
            let at = area.saturating_mul(self.chunk);
            let bytes = read_bytes(self.store.as_ref(), at, length)?;
            for (number, bytes) in (0_u64..).zip(bytes.chunks_exact(16)) {
                let Ok(raw) = RawException::read_from_bytes(bytes) else { break };
                let (old, new) = (raw.old_chunk.get(), raw.new_chunk.get());
                if new == 0 {
                    return Ok(exceptions);
                }
                let is_metadata = new.saturating_sub(1).checked_rem(stride) == Some(0);
                if new >= chunks || is_metadata {
                    let expected = format!("a data chunk below {chunks}");
                    let at = at.saturating_add(number.saturating_mul(16));
                    return Err(Corrupt::new(NAME, at, "new_chunk", expected, new).into());
                }
                if exceptions.insert(old, new).is_some() {
                    let at = at.saturating_add(number.saturating_mul(16));
                    return Err(Corrupt::new(NAME, at, "old_chunk", "each chunk once", old).into());
                }
            }
            area = area.saturating_add(stride);
        }
        Ok(exceptions)
    }
}

impl BlockDevice for Snapshot {
    fn size(&self) -> u64 {
        self.origin.size()
    }

    fn sector_size(&self) -> u32 {
        self.origin.sector_size()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        let exceptions = self.exceptions()?;
        while !buf.is_empty() {
            let chunk = offset.checked_div(self.chunk).unwrap_or(0);
            let within = offset.saturating_sub(chunk.saturating_mul(self.chunk));
            // Up to the end of the exception, or to the next one.
            let (found, end) = match exceptions.range(chunk..).next() {
                Some((old, new)) if *old == chunk => (Some(*new), chunk.saturating_add(1)),
                Some((old, _)) => (None, *old),
                None => (None, u64::MAX),
            };
            let left = end.saturating_mul(self.chunk).saturating_sub(offset);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let (piece, rest) = buf.split_at_mut(length);
            match found {
                Some(new) => {
                    self.store.read_exact_at(piece, new.saturating_mul(self.chunk).saturating_add(within))?;
                }
                None => self.origin.read_exact_at(piece, offset)?,
            }
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            buf = rest;
        }
        Ok(())
    }
}
