//! Thin pools and the volumes in them.
//!
//! Kernel `drivers/md/dm-thin-metadata.c`, lvm2 `lib/thin/thin.c`. A tree maps a device's number to another tree,
//! which maps its blocks to blocks of the pool's data; what is not mapped is zeros, or the external origin's.
//! Volumes are read-only: a write may have to break sharing and to allocate.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{BlockDevice, Device, Extent, ExtentKind, check_range};
use ondisk::{Corrupt, Error, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::btree::{Blocks, checksum};
use super::group::Segment;
use super::map::{Mapper, Mapping};

const NAME: &str = "thin pool superblock";
const XOR: u32 = 160_774;
const MAGIC: u64 = 27_022_010;
/// Bytes of an entry of the tree of details.
const DETAILS_SIZE: usize = 24;
/// `flags`: the kernel found an error and wants thin_check to be run.
const NEEDS_CHECK: u32 = 1;
/// Sectors of the smallest and largest data block.
const BLOCK_SECTORS: std::ops::RangeInclusive<u32> = 128..=2_097_152;

/// The superblock as stored, in block 0.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    /// 0x000 CRC-32C of the block from 0x004 on, xored with 160774.
    csum: le::U32,
    /// 0x004 bit 0: needs a check.
    flags: le::U32,
    /// 0x008 0.
    blocknr: le::U64,
    /// 0x010
    uuid: [u8; 16],
    /// 0x020 27022010.
    magic: le::U64,
    /// 0x028 1 or 2.
    version: le::U32,
    /// 0x02c
    time: le::U32,
    /// 0x030 what lvm2's text must agree with.
    trans_id: le::U64,
    /// 0x038
    held_root: le::U64,
    /// 0x040
    data_space_map_root: [u8; 128],
    /// 0x0c0
    metadata_space_map_root: [u8; 128],
    /// 0x140 tree of trees.
    data_mapping_root: le::U64,
    /// 0x148
    device_details_root: le::U64,
    /// 0x150 sectors.
    data_block_size: le::U32,
    /// 0x154 sectors, 8.
    metadata_block_size: le::U32,
    /// 0x158
    metadata_nr_blocks: le::U64,
    /// 0x160
    compat_flags: le::U32,
    /// 0x164
    compat_ro_flags: le::U32,
    /// 0x168
    incompat_flags: le::U32,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x16c);

/// An open pool; its volumes share what is kept of its trees.
#[derive(Debug)]
pub(crate) struct Pool {
    blocks: Blocks,
    data: Device,
    /// Bytes.
    block_size: u64,
    mapping_root: u64,
    details_root: u64,
    notes: Vec<String>,
}

impl Pool {
    fn open(metadata: Device, data: Device) -> Result<(Self, u64)> {
        let blocks = Blocks::new(metadata);
        let bytes = blocks.read(0)?;
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(&bytes) else {
            return Err(Corrupt::new(NAME, 0, "block", "4096 bytes", bytes.len()).into());
        };
        let corrupt = |field, expected: &str, found: String| Corrupt::new(NAME, 0, field, expected, found);
        if raw.magic.get() != MAGIC {
            return Err(corrupt("magic", "27022010", raw.magic.to_string()).into());
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
        if !BLOCK_SECTORS.contains(&sectors) || !sectors.is_multiple_of(128) {
            return Err(corrupt("data_block_size", "a multiple of 128 sectors", sectors.to_string()).into());
        }
        if raw.metadata_block_size.get() != 8 {
            return Err(
                corrupt("metadata_block_size", "8 sectors", raw.metadata_block_size.to_string()).into()
            );
        }
        let mut notes = Vec::new();
        if raw.flags.get() & NEEDS_CHECK != 0 {
            notes.push("the pool wants thin_check: the kernel met an error in its metadata".to_owned());
        }
        let pool = Self {
            blocks,
            data,
            block_size: u64::from(sectors).saturating_mul(512),
            mapping_root: raw.data_mapping_root.get(),
            details_root: raw.device_details_root.get(),
            notes,
        };
        Ok((pool, raw.trans_id.get()))
    }
}

/// The pool `name` of the group; the mapper keeps it.
pub(crate) fn open_pool(mapper: &Mapper<'_>, name: &str) -> std::result::Result<Arc<Pool>, String> {
    let [segment] = mapper.segments_of(name) else { return Err(format!("there is no pool {name}")) };
    if segment.kind != "thin-pool" {
        return Err(format!("{name} is no thin pool but {}", segment.kind));
    }
    let mut notes = Vec::new();
    let metadata = mapper.part(segment, "metadata", &mut notes)?;
    let data = mapper.part(segment, "pool", &mut notes)?;
    let (mut pool, transaction) = Pool::open(metadata, data).map_err(|error| format!("{name}: {error}"))?;
    let chunk = segment.section.number("chunk_size").unwrap_or(0).saturating_mul(512);
    if chunk != pool.block_size {
        return Err(format!("{name}: blocks of {} bytes, the metadata text says {chunk}", pool.block_size));
    }
    let expected = segment.section.number("transaction_id").unwrap_or(0);
    if transaction != expected {
        pool.notes.push(format!("the pool is at transaction {transaction}, the metadata text at {expected}"));
    }
    pool.notes.extend(notes);
    Ok(Arc::new(pool))
}

pub(crate) fn open(mapper: &Mapper<'_>, segment: &Segment, size: u64, notes: &mut Vec<String>) -> Mapping {
    let name = segment.section.string("thin_pool").ok_or("thin_pool is not named")?;
    if let Some(merge) = segment.section.string("merge") {
        return Err(format!("thin snapshot {merge} is to be merged into it"));
    }
    let pool = mapper.pool(name)?;
    notes.extend(pool.notes.iter().cloned());
    let id = segment.section.number("device_id").ok_or("device_id is no number")?;
    let external = match segment.section.string("external_origin") {
        Some(_) => Some(mapper.part(segment, "external_origin", notes)?),
        None => None,
    };
    let said = |error: Error| format!("{name}: {error}");
    let is_known = pool.blocks.lookup(pool.details_root, id, DETAILS_SIZE).map_err(said)?.index.is_some();
    let root = pool.blocks.get(pool.mapping_root, id).map_err(said)?;
    let Some(root) = root.filter(|_| is_known) else {
        return Err(format!("{name}: the pool has no device {id}"));
    };
    Ok(Arc::new(ThinVolume { pool, root, size, external, last: Mutex::new(None) }))
}

/// Blocks in a row, all mapped in a row or none.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// First block of the volume.
    start: u64,
    /// Blocks, at least 1.
    count: u64,
    /// First block of the pool's data.
    data: Option<u64>,
}

/// The bytes of one thin volume.
#[derive(Debug)]
struct ThinVolume {
    pool: Arc<Pool>,
    /// Block of the tree of this volume.
    root: u64,
    size: u64,
    /// What unmapped blocks show instead of zeros.
    external: Option<Device>,
    /// The last run that was looked up.
    last: Mutex<Option<Run>>,
}

impl ThinVolume {
    fn run_at(&self, block: u64) -> Result<Run> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = *last()
            && block.checked_sub(run.start).is_some_and(|within| within < run.count)
        {
            return Ok(run);
        }
        let found = self.pool.blocks.lookup(self.root, block, 8)?;
        let run = match found.index {
            None => Run { start: block, count: found.next.saturating_sub(block).max(1), data: None },
            Some(index) => {
                // The upper 40 bits are the block, the lower ones the time it was mapped at.
                let data = found.node.value(index) >> 24;
                let mut count = 1_u64;
                for next in index.saturating_add(1)..found.node.count() {
                    let follows = found.node.key(next) == block.saturating_add(count)
                        && found.node.value(next) >> 24 == data.saturating_add(count);
                    if !follows {
                        break;
                    }
                    count = count.saturating_add(1);
                }
                Run { start: block, count, data: Some(data) }
            }
        };
        *last() = Some(run);
        Ok(run)
    }

    /// The run at byte `offset`: its data's byte in the pool, and how many bytes of it are left.
    fn bytes_at(&self, offset: u64) -> io::Result<(Option<u64>, u64)> {
        let size = self.pool.block_size;
        let block = offset.checked_div(size).unwrap_or(0);
        let run = self.run_at(block).map_err(io::Error::other)?;
        let within = offset.saturating_sub(run.start.saturating_mul(size));
        let left = run.count.saturating_mul(size).saturating_sub(within);
        Ok((run.data.map(|data| data.saturating_mul(size).saturating_add(within)), left))
    }
}

impl BlockDevice for ThinVolume {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.pool.data.sector_size()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        check_range(self.size, offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        while !buf.is_empty() {
            let (data, left) = self.bytes_at(offset)?;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let (piece, rest) = buf.split_at_mut(length);
            match (data, &self.external) {
                (Some(at), _) => self.pool.data.read_exact_at(piece, at)?,
                (None, Some(origin)) => read_padded(origin.as_ref(), piece, offset)?,
                (None, None) => piece.fill(0),
            }
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            buf = rest;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let (data, left) = self.bytes_at(offset)?;
        let length = left.min(self.size.saturating_sub(offset)).max(1);
        let kind =
            if data.is_none() && self.external.is_none() { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { length, kind })
    }
}

/// Reads with zeros behind the end.
fn read_padded(device: &dyn BlockDevice, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let there = usize::try_from(device.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
    let (front, back) = buf.split_at_mut(there);
    back.fill(0);
    if front.is_empty() { Ok(()) } else { device.read_exact_at(front, offset) }
}
