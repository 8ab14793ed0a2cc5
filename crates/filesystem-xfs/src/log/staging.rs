//! Blocks that hold copies which never became part of a file: the kernel frees them after recovery.
//!
//! XFS Algorithms & Data Structures, "Reference Count B+tree". Their records have the highest bit of the start
//! set, so they come last; whether there is one is seen from the last record of a tree.

use blockdev::BlockDevice;
use ondisk::{Result, read_bytes};

use crate::geometry::AgBlock;
use crate::span::Span;
use crate::superblock::Superblock;

const MAGIC: &[u8] = b"R3FC";
/// Bytes of the header, of a record, and of a key in a node.
const HEADER: usize = 56;
const RECORD: usize = 12;
const KEY: usize = 4;
/// Higher than any tree of 2^31 records.
const MOST_LEVELS: u32 = 12;
const STAGING: u32 = 0x8000_0000;

/// Whether group `ag`, whose AGF this is, has such blocks.
pub(super) fn has_any(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    ag: u32,
    agf: &Span<'_>,
) -> Result<bool> {
    if !superblock.features.has_reflink() {
        return Ok(false);
    }
    let geometry = &superblock.geometry;
    let (mut block, levels) = (agf.u32(0x58, "agf_refcount_root")?, agf.u32(0x5c, "agf_refcount_level")?);
    if levels == 0 || levels > MOST_LEVELS {
        return Err(agf.corrupt("agf_refcount_level", format_args!("1..={MOST_LEVELS}"), levels).into());
    }
    for level in (0..levels).rev() {
        let offset = geometry
            .byte_in_ag(AgBlock { ag, block })
            .ok_or_else(|| agf.corrupt("agf_refcount_root", "a block of the group", block))?;
        let bytes = read_bytes(device, offset, geometry.block_size())?;
        let span = Span::new("refcount btree block", offset, &bytes);
        span.check_crc(0x34)?;
        if span.slice(0, 4, "bb_magic")? != MAGIC || u32::from(span.u16(4, "bb_level")?) != level {
            return Err(span.corrupt("bb_level", level, span.u16(4, "bb_level")?).into());
        }
        let count = usize::from(span.u16(6, "bb_numrecs")?);
        let Some(last) = count.checked_sub(1) else { return Ok(false) };
        if level == 0 {
            let at = last.saturating_mul(RECORD).saturating_add(HEADER);
            return Ok(span.u32(at, "rc_startblock")? & STAGING != 0);
        }
        let most = bytes.len().saturating_sub(HEADER) / 8;
        let pointers = most.saturating_mul(KEY).saturating_add(HEADER);
        block = span.u32(last.saturating_mul(4).saturating_add(pointers), "bb_ptr")?;
    }
    Ok(false)
}
