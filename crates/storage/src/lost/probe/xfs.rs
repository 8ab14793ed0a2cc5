//! XFS: a superblock at the start of every allocation group.
//!
//! XFS Algorithms & Data Structures, "Superblocks". Big-endian. The copy does not say which group it is in; the AGF
//! in the next sector does.

use super::{Hit, Sector, be, guid, line, text};
use crate::lost::Kind;

pub(super) fn probe(sector: Sector<'_>) -> Option<Hit> {
    let sb = sector.bytes;
    if !sb.starts_with(b"XFSB") {
        return None;
    }
    let (block_size, blocks) = (be(sb, 4, 4), be(sb, 8, 8));
    let (ag_blocks, ag_count) = (be(sb, 84, 4), be(sb, 88, 4));
    let sector_size = be(sb, 102, 2);
    let has_sense = block_size.is_power_of_two()
        && (512..=65_536).contains(&block_size)
        && sector_size.is_power_of_two()
        && (512..=32_768).contains(&sector_size)
        && ag_count != 0
        && ag_blocks != 0
        && blocks != 0
        && blocks <= ag_blocks.saturating_mul(ag_count)
        && blocks > ag_blocks.saturating_mul(ag_count.saturating_sub(1));
    if !has_sense {
        return None;
    }
    let agf = sector.read(sector.at.checked_add(sector_size)?, 12)?;
    let number = agf.starts_with(b"XAGF").then(|| be(&agf, 8, 4)).filter(|number| *number < ag_count);
    // Without its AGF, a superblock is taken for the first.
    let number = number.unwrap_or(0);
    let start = sector.at.checked_sub(number.checked_mul(ag_blocks)?.checked_mul(block_size)?)?;
    let length = blocks.checked_mul(block_size)?;
    let uuid = guid(sb, 32);
    let what = match number {
        0 => "XFS superblock".to_owned(),
        number => format!("copy of an XFS superblock in group {number}"),
    };
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Xfs,
        label: text(sb, 108, 12),
        is_primary: number == 0,
        expected_copies: u32::try_from(ag_count.saturating_sub(1)).unwrap_or(u32::MAX),
        entry: None,
        evidence: line(&what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}
