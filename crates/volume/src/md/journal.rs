//! The write journal of RAID 4, 5 and 6: whether it holds anything that the members lack.
//!
//! `drivers/md/raid5-cache.c`. Little-endian. The journal is a ring of 4 KiB blocks; from its tail on, each meta
//! block carries the next sequence number. A clean stop leaves one meta block at the tail, whose payload the members
//! have already.

use blockdev::BlockDevice;
use ondisk::{le, read_bytes};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const MAGIC: u32 = 0x6433_c509;
const BLOCK: u64 = 4096;

#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMetaBlock {
    magic: le::U32,     // 0x00 0x6433c509
    checksum: le::U32,  // 0x04
    version: u8,        // 0x08 1
    pad: [u8; 3],       // 0x09
    meta_size: le::U32, // 0x0c bytes, 32 for a block without payload
    seq: le::U64,       // 0x10
    position: le::U64,  // 0x18 sectors from the journal's beginning
}
const _: () = assert!(size_of::<RawMetaBlock>() == 32);

/// What precedes the checksums of the blocks that follow the meta block.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPayload {
    kind: le::U16,     // 0x00 data, parity or flush
    flags: le::U16,    // 0x02
    size: le::U32,     // 0x04 sectors; of a flush, bytes of its list
    location: le::U64, // 0x08 sectors: of the array for data, of the members for parity
}
const _: () = assert!(size_of::<RawPayload>() == 16);

const DATA: u16 = 0;
const FLUSH: u16 = 2;

/// The most blocks that are followed: 4 GiB of journal.
const MAX_BLOCKS: u64 = 1 << 20;

/// Data in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Its byte on the journal's device.
    pub(super) at: u64,
    /// Where it belongs, in bytes of the array.
    pub(super) target: u64,
}

/// Blocks of 4 KiB that recovery may write to the array, from the journal of `size` bytes at byte `start` of
/// `device`; `None` if that cannot be told.
///
/// Checksums are not looked at: what the kernel would refuse counts as well.
pub(super) fn pending(device: &dyn BlockDevice, start: u64, size: u64, tail: u64) -> Option<Vec<Block>> {
    let wrap = |at: u64| if at >= size { at.checked_sub(size) } else { Some(at) };
    let mut found = Vec::new();
    let mut at = tail;
    let mut seq = None;
    let mut blocks = 0_u64;
    while blocks < (size / BLOCK).min(MAX_BLOCKS) {
        let bytes = read_bytes(device, start.checked_add(at)?, 4096).ok()?;
        let (raw, payloads) = RawMetaBlock::read_from_prefix(&bytes).ok()?;
        let is_next = raw.magic == MAGIC
            && raw.version == 1
            && raw.position.get() == at / 512
            && seq.is_none_or(|seq| raw.seq.get() == seq);
        if !is_next {
            return Some(found);
        }
        seq = Some(raw.seq.get().checked_add(1)?);
        let length = usize::try_from(raw.meta_size.get()).ok()?.checked_sub(size_of::<RawMetaBlock>())?;
        let mut payloads = payloads.get(..length)?;
        let mut next = wrap(at.checked_add(BLOCK)?)?;
        while !payloads.is_empty() {
            let (payload, rest) = RawPayload::read_from_prefix(payloads).ok()?;
            let length = usize::try_from(payload.size.get()).ok()?;
            if payload.kind == FLUSH {
                // A list of stripes, of which the first is what other payloads have as their place.
                payloads = payloads.get(8..)?.get(length..)?;
                continue;
            }
            let count = payload.size.get() / 8;
            for number in 0..u64::from(count) {
                if payload.kind == DATA {
                    let target = payload.location.get().checked_mul(512)?;
                    let target = target.checked_add(number.checked_mul(BLOCK)?)?;
                    found.push(Block { at: start.checked_add(next)?, target });
                }
                next = wrap(next.checked_add(BLOCK)?)?;
                blocks = blocks.checked_add(1)?;
                if blocks > MAX_BLOCKS {
                    return None;
                }
            }
            payloads = rest.get((length / 8).checked_mul(4)?..)?;
        }
        at = next;
        blocks = blocks.checked_add(1)?;
    }
    None
}

/// Whether `array` holds what `blocks` of the journal's `device` do.
pub(super) fn are_written(device: &dyn BlockDevice, blocks: &[Block], array: &dyn BlockDevice) -> bool {
    blocks.iter().all(|block| {
        let journal = read_bytes(device, block.at, 4096);
        let written = read_bytes(array, block.target, 4096);
        matches!((journal, written), (Ok(journal), Ok(written)) if journal == written)
    })
}
