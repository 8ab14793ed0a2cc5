//! Inode creation item: a run of inodes that were not logged one by one.
//!
//! XFS Algorithms & Data Structures, "Inode Creation Item". All fields but the first two are big-endian.

use ondisk::{Result, le};

use super::item::{Item, get};
use super::recovery::Recovery;
use super::transaction::Transaction;
use crate::geometry::AgBlock;
use crate::inode::CRC_AT;
use crate::number::{index, wide};
use crate::span::{put, put_crc};

const STRUCTURE: &str = "log inode creation item";
/// Inodes of a chunk.
const CHUNK: u32 = 64;

pub(super) fn apply(recovery: &mut Recovery<'_>, transaction: &Transaction, item: &Item) -> Result<()> {
    let span = item.region(0, STRUCTURE, transaction.offset)?;
    let geometry = recovery.superblock.geometry;
    let size = geometry.inode_size();
    let regions = get::<le::U16>(&span, 2, "icl_size")?.get();
    let at = AgBlock { ag: span.u32(4, "icl_ag")?, block: span.u32(8, "icl_agbno")? };
    let (count, inode_size) = (span.u32(12, "icl_count")?, span.u32(16, "icl_isize")?);
    let (blocks, generation) = (span.u32(20, "icl_length")?, span.u32(24, "icl_gen")?);
    if regions != 1 || index(inode_size) != size {
        return Err(span.corrupt("icl_isize", size, inode_size).into());
    }
    let bytes = u64::from(count).saturating_mul(wide(size));
    if count == 0 || count > CHUNK || geometry.bytes(u64::from(blocks)) != bytes {
        return Err(span.corrupt("icl_count", "up to 64 inodes that fill the blocks", count).into());
    }
    let last = AgBlock { block: at.block.saturating_add(blocks).saturating_sub(1), ..at };
    let (Some(offset), Some(_)) = (geometry.byte_in_ag(at), geometry.byte_in_ag(last)) else {
        return Err(span.corrupt("icl_agbno", "blocks of a group", at.block).into());
    };
    let end = offset.saturating_add(bytes);
    recovery.check_place(STRUCTURE, transaction.offset, "icl_agbno", offset..end)?;
    if recovery.any_cancelled(offset >> 9..end >> 9) {
        return Ok(());
    }
    let first = geometry.join(at).0 << u32::from(geometry.inodes_per_block_log());
    let has_crc = recovery.superblock.features.crc;
    let mut chunk = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    for number in 0..u64::from(count) {
        let mut inode = vec![0; size];
        put(&mut inode, 0, b"IN");
        put(&mut inode, 4, &[if has_crc { 3 } else { 2 }]);
        put(&mut inode, 0x5c, &generation.to_be_bytes());
        put(&mut inode, 0x60, &u32::MAX.to_be_bytes());
        if has_crc {
            put(&mut inode, 0x98, &first.saturating_add(number).to_be_bytes());
            put(&mut inode, 0xa0, &recovery.superblock.meta_uuid.0);
            put_crc(&mut inode, CRC_AT);
        }
        chunk.extend(inode);
    }
    recovery.write(offset, &chunk)
}
