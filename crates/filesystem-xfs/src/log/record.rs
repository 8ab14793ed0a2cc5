//! Log record: a header of one or more basic blocks, then operations.
//!
//! XFS Algorithms & Data Structures, "Log Records". Big-endian except `h_crc`. The word that a cycle number
//! displaced from each data block is kept in the header.

use ondisk::{Result, be, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Ring;
use crate::span::Span;

/// `h_magicno`.
pub(super) const MAGIC: u32 = 0xfeed_babe;
/// Bytes of data that the cycle words of one header block cover.
const DATA_PER_HEADER: u32 = 32768;
/// Basic blocks of the longest record: 256 KiB of data and 8 header blocks.
const LONGEST: u64 = 520;
/// `oh_flags` bit of an unmount operation.
const UNMOUNT: u8 = 0x20;

/// The first header block of a record, up to its last field.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    h_magicno: be::U32,          // 0x00
    h_cycle: be::U32,            // 0x04
    h_version: be::U32,          // 0x08 1, or 2 with more than one header block
    h_len: be::U32,              // 0x0c bytes of data
    h_lsn: be::U64,              // 0x10 cycle and basic block of this record
    h_tail_lsn: be::U64,         // 0x18 the oldest record that recovery needs
    h_crc: le::U32,              // 0x20
    h_prev_block: be::U32,       // 0x24
    h_num_logops: be::U32,       // 0x28
    h_cycle_data: [be::U32; 64], // 0x2c
    h_fmt: be::U32,              // 0x12c
    h_fs_uuid: [u8; 16],         // 0x130
    h_size: be::U32,             // 0x140 bytes of data in the longest record, with version 2
}
const _: () = assert!(size_of::<RawHeader>() == 0x144);

impl RawHeader {
    /// Basic blocks of header.
    fn header_blocks(&self) -> u64 {
        match self.h_version.get() & 2 {
            0 => 1,
            _ => u64::from(self.h_size.get().div_ceil(DATA_PER_HEADER)).max(1),
        }
    }

    /// Basic blocks of header and data.
    fn blocks(&self) -> u64 {
        self.header_blocks().saturating_add(u64::from(self.h_len.get()).div_ceil(super::BASIC_BLOCK))
    }
}

/// Whether the record that ends at `head` holds nothing but the mark of an unmount.
pub(super) fn ends_with_unmount(log: &Ring<'_>, head: u64) -> Result<bool> {
    let Some((block, header)) = last_before(log, head)? else { return Ok(false) };
    if header.h_num_logops.get() != 1 || block.checked_add(header.blocks()) != head.checked_add(log.blocks) {
        return Ok(false);
    }
    let at = block.saturating_add(header.header_blocks());
    let data = log.read(at)?;
    let flags = Span::new("log operation", log.byte(at), &data).u8(9, "oh_flags")?;
    Ok(flags & UNMOUNT != 0)
}

/// The record header that is nearest before `head`, as a block number counted on from one pass earlier.
fn last_before(log: &Ring<'_>, head: u64) -> Result<Option<(u64, RawHeader)>> {
    let end = head.saturating_add(log.blocks);
    for back in 1..=LONGEST.min(log.blocks) {
        let block = end.saturating_sub(back);
        let bytes = log.read(block)?;
        let header: RawHeader = Span::new("log record", log.byte(block), &bytes).value(0, "h_magicno")?;
        if header.h_magicno.get() == MAGIC {
            return Ok(Some((block, header)));
        }
    }
    Ok(None)
}
