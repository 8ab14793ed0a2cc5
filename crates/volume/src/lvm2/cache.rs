//! Cached volumes: an origin, and a faster device that holds some of its blocks, perhaps newer.
//!
//! Kernel `drivers/md/dm-cache-metadata.c`, lvm2 `lib/cache_segtype/cache.c`. An array says for each block of the
//! cache which block of the origin it holds. The kernel reads every such block from the cache, and so is right
//! whether or not the device was shut down cleanly; so do we.

use std::io;
use std::sync::{Arc, OnceLock};

use blockdev::{BlockDevice, Device, Slice, check_range};
use ondisk::{Corrupt, Error, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::btree::{Blocks, checksum};
use super::group::Segment;
use super::map::{Mapper, Mapping};
use super::read_only::ReadOnly;

const NAME: &str = "cache superblock";
const XOR: u32 = 9_031_977;
const MAGIC: u64 = 1_623_043;
/// `flags`: the dirty flags are those of a clean shutdown.
const CLEAN_SHUTDOWN: u32 = 1;
/// `flags`: the kernel met an error.
const NEEDS_CHECK: u32 = 2;
/// Of an entry of the array: it is one; its block is newer than the origin's.
const VALID: u64 = 1;
const DIRTY: u64 = 2;

/// The superblock as stored, in block 0.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    /// 0x000 CRC-32C of the block from 0x004 on, xored with 9031977.
    csum: le::U32,
    /// 0x004 bit 0: shut down cleanly; bit 1: needs a check.
    flags: le::U32,
    /// 0x008 0.
    blocknr: le::U64,
    /// 0x010
    uuid: [u8; 16],
    /// 0x020 1623043, in the kernel's source 06142003: octal.
    magic: le::U64,
    /// 0x028 1, or 2 with the dirty flags in an array of their own.
    version: le::U32,
    /// 0x02c
    policy_name: [u8; 16],
    /// 0x03c
    policy_hint_size: le::U32,
    /// 0x040
    metadata_space_map_root: [u8; 128],
    /// 0x0c0 array, an entry for each block of the cache.
    mapping_root: le::U64,
    /// 0x0c8
    hint_root: le::U64,
    /// 0x0d0
    discard_root: le::U64,
    /// 0x0d8
    discard_block_size: le::U64,
    /// 0x0e0
    discard_nr_blocks: le::U64,
    /// 0x0e8 sectors.
    data_block_size: le::U32,
    /// 0x0ec sectors, 8.
    metadata_block_size: le::U32,
    /// 0x0f0 blocks of the cache.
    cache_blocks: le::U32,
    /// 0x0f4
    compat_flags: le::U32,
    /// 0x0f8
    compat_ro_flags: le::U32,
    /// 0x0fc
    incompat_flags: le::U32,
    /// 0x100
    statistics: [le::U32; 4],
    /// 0x110
    policy_version: [le::U32; 3],
    /// 0x11c array of bits, in version 2.
    dirty_root: le::U64,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x124);

/// What the metadata says before its arrays are read.
#[derive(Debug)]
struct Metadata {
    blocks: Blocks,
    raw: RawSuperblock,
    /// Bytes.
    block_size: u64,
}

impl Metadata {
    /// `None` where the kernel never wrote any.
    fn open(device: Device) -> Result<Option<Self>> {
        let blocks = Blocks::new(device);
        let bytes = blocks.read(0)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(&bytes) else {
            return Err(Corrupt::new(NAME, 0, "block", "4096 bytes", bytes.len()).into());
        };
        let corrupt = |field, expected: &str, found: String| Corrupt::new(NAME, 0, field, expected, found);
        if raw.magic.get() != MAGIC {
            return Err(corrupt("magic", "1623043", raw.magic.to_string()).into());
        }
        let computed = checksum(&bytes, XOR);
        if computed != raw.csum.get() {
            return Err(Corrupt::checksum(NAME, 0, computed, raw.csum.get()).into());
        }
        if raw.blocknr.get() != 0 {
            return Err(corrupt("blocknr", "0", raw.blocknr.to_string()).into());
        }
        if !(1..=2).contains(&raw.version.get()) {
            return Err(Error::unsupported(NAME, format!("version {}", raw.version)));
        }
        if raw.incompat_flags.get() != 0 {
            return Err(Error::unsupported(NAME, format!("incompat_flags {:#x}", raw.incompat_flags)));
        }
        let sectors = raw.data_block_size.get();
        if sectors == 0 || !sectors.is_multiple_of(64) || sectors > 2_097_152 {
            return Err(corrupt("data_block_size", "a multiple of 64 sectors", sectors.to_string()).into());
        }
        Ok(Some(Self { blocks, block_size: u64::from(sectors).saturating_mul(512), raw }))
    }

    fn entries(&self) -> Result<Vec<u64>> {
        self.blocks.array(self.raw.mapping_root.get(), u64::from(self.raw.cache_blocks.get()))
    }

    /// Whether the origin lacks anything that the cache holds; `None` when nobody knows.
    fn is_dirty(&self) -> Result<Option<bool>> {
        if self.raw.flags.get() & CLEAN_SHUTDOWN == 0 {
            return Ok(None);
        }
        let entries = self.entries()?;
        if self.raw.version.get() == 1 {
            return Ok(Some(entries.iter().any(|entry| entry & (VALID | DIRTY) == VALID | DIRTY)));
        }
        let count = u64::from(self.raw.cache_blocks.get()).div_ceil(64);
        let bits = self.blocks.array(self.raw.dirty_root.get(), count)?;
        Ok(Some((0_usize..).zip(&entries).any(|(block, entry)| {
            let word = bits.get(block >> 6).copied().unwrap_or(u64::MAX);
            entry & VALID != 0 && word >> (block & 63) & 1 == 1
        })))
    }
}

pub(crate) fn open(mapper: &Mapper<'_>, segment: &Segment, size: u64, notes: &mut Vec<String>) -> Mapping {
    let origin = mapper.part(segment, "origin", notes)?;
    let pool_name = segment.section.string("cache_pool").ok_or("cache_pool is not named")?;
    let pool = match mapper.segments_of(pool_name) {
        [pool] if pool.kind == "cache-pool" => Some(pool),
        _ => None,
    };
    let settings = pool.unwrap_or(segment);
    // A mode that is not named may be any.
    let mode = settings.section.string("cache_mode").unwrap_or("unknown");
    let only_origin = |notes: &mut Vec<String>, why: String| -> Mapping {
        notes.push(format!("read from the origin only: {why}"));
        Ok(Arc::new(ReadOnly::new(origin.clone())))
    };
    if mode == "passthrough" {
        return only_origin(notes, "the cache is in passthrough mode".into());
    }
    // What the origin lacks is only known to the cache, except in this mode.
    let is_complete = mode == "writethrough" && segment.section.number("cleaner").unwrap_or(0) == 0;
    let (metadata, data) = match pool {
        Some(pool) => (mapper.part(pool, "metadata", notes), mapper.part(pool, "data", notes)),
        None => cachevol(mapper, segment, notes),
    };
    let opened = metadata.and_then(|metadata| Metadata::open(metadata).map_err(|error| error.to_string()));
    let metadata = match opened {
        Ok(Some(metadata)) => metadata,
        Ok(None) => return only_origin(notes, "the cache was never used".into()),
        Err(reason) if is_complete => return only_origin(notes, reason),
        Err(reason) => return Err(format!("the cache may hold newer blocks ({mode}): {reason}")),
    };
    if metadata.raw.flags.get() & NEEDS_CHECK != 0 {
        notes.push("the cache wants cache_check: the kernel met an error in its metadata".into());
    }
    let chunk = settings.section.number("chunk_size").unwrap_or(0).saturating_mul(512);
    if chunk != metadata.block_size {
        let found = metadata.block_size;
        return Err(format!("the cache has blocks of {found} bytes, the metadata text says {chunk}"));
    }
    let data = match data {
        Ok(data) => data,
        Err(reason) if is_complete => return only_origin(notes, reason),
        Err(reason) => {
            return match metadata.is_dirty() {
                Ok(Some(false)) => only_origin(notes, format!("{reason}; nothing in it was newer")),
                Ok(Some(true)) => Err(format!("the cache held newer blocks: {reason}")),
                Ok(None) => Err(format!("the cache may have held newer blocks: {reason}")),
                Err(error) => Err(format!("the cache may have held newer blocks: {reason}; {error}")),
            };
        }
    };
    if size > origin.size() {
        return Err(format!("the origin has {} bytes of {size}", origin.size()));
    }
    Ok(Arc::new(CachedVolume { origin, data, metadata, size, is_complete, held: OnceLock::new() }))
}

/// Metadata and data on one volume.
fn cachevol(mapper: &Mapper<'_>, segment: &Segment, notes: &mut Vec<String>) -> (Mapping, Mapping) {
    let whole = mapper.part(segment, "cache_pool", notes);
    let slice = |start: &str, length: &str| -> Mapping {
        let sectors = |key: &str| {
            segment
                .section
                .number(key)
                .map(|sectors| sectors.saturating_mul(512))
                .ok_or_else(|| format!("{key} is no number"))
        };
        let slice = Slice::new(whole.clone()?, sectors(start)?, sectors(length)?);
        Ok(Arc::new(slice.map_err(|error| format!("{start}: {error}"))?))
    };
    (slice("metadata_start", "metadata_len"), slice("data_start", "data_len"))
}

#[derive(Debug)]
struct CachedVolume {
    origin: Device,
    data: Device,
    metadata: Metadata,
    size: u64,
    /// Whether the origin has everything, so that a cache that cannot be read does not matter.
    is_complete: bool,
    /// (block of the origin, block of the cache), ascending, or why they cannot be had; read at the first read.
    held: OnceLock<std::result::Result<Vec<(u64, u64)>, String>>,
}

impl CachedVolume {
    fn held(&self) -> io::Result<&[(u64, u64)]> {
        let loaded = self.held.get_or_init(|| match self.load() {
            Err(_) if self.is_complete => Ok(Vec::new()),
            loaded => loaded.map_err(|error| error.to_string()),
        });
        loaded.as_deref().map_err(|reason| io::Error::other(reason.clone()))
    }

    fn load(&self) -> Result<Vec<(u64, u64)>> {
        let size = self.metadata.block_size;
        let corrupt =
            |expected: String, found: String| Corrupt::new("cache mapping", 0, "entry", expected, found);
        let blocks = u64::from(self.metadata.raw.cache_blocks.get());
        if blocks.saturating_mul(size) > self.data.size() {
            let expected = format!("at most {} bytes", self.data.size());
            return Err(Corrupt::new(NAME, 0, "cache_blocks", expected, blocks.saturating_mul(size)).into());
        }
        let most = self.size.div_ceil(size);
        let mut held = Vec::new();
        for (block, entry) in (0_u64..).zip(self.metadata.entries()?) {
            if entry & VALID != 0 {
                let of = entry >> 16;
                if of >= most {
                    return Err(corrupt(format!("a block of the origin below {most}"), of.to_string()).into());
                }
                held.push((of, block));
            }
        }
        held.sort_unstable();
        if let Some((twice, _)) = held.iter().zip(held.iter().skip(1)).find(|(a, b)| a.0 == b.0) {
            return Err(corrupt("each block of the origin once".into(), format!("{} twice", twice.0)).into());
        }
        Ok(held)
    }
}

impl BlockDevice for CachedVolume {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.origin.sector_size()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        check_range(self.size, offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        let held = self.held()?;
        let size = self.metadata.block_size;
        while !buf.is_empty() {
            let block = offset.checked_div(size).unwrap_or(0);
            let within = offset.saturating_sub(block.saturating_mul(size));
            let next = held.partition_point(|(of, _)| *of < block);
            let (found, end) = match held.get(next) {
                Some((of, cached)) if *of == block => (Some(*cached), block.saturating_add(1)),
                Some((of, _)) => (None, *of),
                None => (None, u64::MAX),
            };
            let left = end.saturating_mul(size).saturating_sub(offset);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let (piece, rest) = buf.split_at_mut(length);
            match found {
                Some(cached) => {
                    self.data.read_exact_at(piece, cached.saturating_mul(size).saturating_add(within))?;
                }
                None => self.origin.read_exact_at(piece, offset)?,
            }
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            buf = rest;
        }
        Ok(())
    }
}
