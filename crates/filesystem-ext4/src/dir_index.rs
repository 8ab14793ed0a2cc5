//! Directory index: a tree of hashes over the names, for lookup; listing needs only to pass over it.
//!
//! Linux `Documentation/filesystems/ext4/directory.rst`, "Hash Tree Directories". Little-endian. The root shares
//! the first block with `.` and `..`; other nodes are blocks with one free entry over all of it.

use ondisk::{Corrupt, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dir_block::{RawEntry, record_length};
use crate::inode::Inode;
use crate::units::{to_usize, widen};

const STRUCTURE: &str = "directory index block";

/// Where the entries of the root and of other nodes begin: the first of them holds limit and count.
const ROOT_ENTRIES: u64 = 0x20;
const NODE_ENTRIES: u64 = 0x8;

/// Bytes of an entry, and of the tail.
const ENTRY: u64 = 8;

/// What stands in place of the first hash.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawCountLimit {
    pub limit: le::U16, // 0x0 room for entries, this one counted
    pub count: le::U16, // 0x2
}

/// What follows the room for entries.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTail {
    pub dt_reserved: le::U32, // 0x0
    pub dt_checksum: le::U32, // 0x4 over the used entries, and the tail with this field zero
}

const _: () = assert!(size_of::<RawCountLimit>() == 4 && size_of::<RawTail>() == 8);

/// Whether a block of an indexed directory belongs to the index: the first one, and those that look like one
/// free entry.
pub fn is_index_block(bytes: &[u8], number: u64) -> bool {
    let is_one_free_entry =
        |raw: &RawEntry| raw.inode.get() == 0 && record_length(raw.rec_len.get(), bytes.len()) == bytes.len();
    number == 0 || RawEntry::read_from_prefix(bytes).is_ok_and(|(raw, _)| is_one_free_entry(&raw))
}

/// Compares the checksum of block `number` of the directory `inode`, which begins at byte `offset`.
///
/// # Errors
/// `Corrupt`.
pub fn verify_checksum(bytes: &[u8], offset: u64, inode: &Inode, number: u64) -> Result<(), Corrupt> {
    let Some(seed) = inode.seed else { return Ok(()) };
    let first = if number == 0 { ROOT_ENTRIES } else { NODE_ENTRIES };
    let from = |at: u64| bytes.get(to_usize(at)..).unwrap_or_default();
    let (limit, count) = RawCountLimit::read_from_prefix(from(first))
        .map_or((0, 0), |(raw, _)| (u64::from(raw.limit.get()), u64::from(raw.count.get())));
    let tail_at = first.saturating_add(limit.saturating_mul(ENTRY));
    let Ok((tail, _)) = RawTail::read_from_prefix(from(tail_at)) else {
        let room = widen(bytes.len()).saturating_sub(first.saturating_add(ENTRY)).checked_div(ENTRY);
        let expected = format!("up to {}", room.unwrap_or(0));
        return Err(Corrupt::new(STRUCTURE, offset, "limit", expected, limit));
    };
    if count > limit {
        return Err(Corrupt::new(STRUCTURE, offset, "count", format_args!("up to {limit}"), count));
    }
    let end = first.saturating_add(count.saturating_mul(ENTRY));
    let state = crc32c_raw(seed, bytes.get(..to_usize(end)).unwrap_or_default());
    let computed = crc32c_raw(crc32c_raw(state, tail.dt_reserved.as_bytes()), &[0; 4]);
    let stored = tail.dt_checksum.get();
    if computed == stored { Ok(()) } else { Err(Corrupt::checksum(STRUCTURE, offset, computed, stored)) }
}
