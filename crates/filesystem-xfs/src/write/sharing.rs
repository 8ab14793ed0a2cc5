//! Whether blocks belong to more than one file.
//!
//! XFS Algorithms & Data Structures, "Reference Count B+tree". Only extents with two or more owners have a
//! record; those with the top bit of their start set are prepared for a copy and belong to no file yet.

use ondisk::Result;

use super::allocation_group::Agf;
use super::btree::{Kind, Tree};
use super::staging::Staging;
use crate::geometry::FsBlock;
use crate::span::Span;

/// The first of the blocks that other files hold too, if any of `count` blocks from `block` on is such.
pub(super) fn first_shared(staging: &Staging<'_>, block: FsBlock, count: u64) -> Result<Option<FsBlock>> {
    let geometry = &staging.xfs.superblock.geometry;
    let Some(at) = geometry.split(block) else { return Ok(None) };
    if !staging.xfs.superblock.features.has_reflink() {
        return Ok(None);
    }
    let tree = Tree::of(&Agf::read(staging, at.ag)?, Kind::ReferenceCounts)?;
    let start = u64::from(at.block);
    let end = start.saturating_add(count);
    // Each step goes to a later leaf: keys ascend.
    let mut key = Kind::ReferenceCounts.order_of(&at.block.to_be_bytes());
    loop {
        let leaf = tree.records(staging, key)?;
        for record in &leaf.records {
            let span = Span::new("reference count record", 0, record);
            let first = u64::from(span.u32(0, "rc_startblock")?);
            let after = first.saturating_add(u64::from(span.u32(4, "rc_blockcount")?));
            let is_shared = span.u32(8, "rc_refcount")? > 1;
            if first >= end {
                return Ok(None);
            }
            if is_shared && after > start {
                let common = first.max(start).saturating_sub(start);
                return Ok(Some(FsBlock(block.0.saturating_add(common))));
            }
        }
        match leaf.next {
            Some(next) if next > key => key = next,
            _ => return Ok(None),
        }
    }
}
