//! ext2, ext3, ext4: the superblock at byte 1024, and its copies at the starts of block groups.
//!
//! Documentation/filesystems/ext4/super.rst. Little-endian. A copy says in `s_block_group_nr` which group it is in.

use super::{Hit, Sector, guid, le, line, text};
use crate::lost::Kind;

const SPARSE_SUPER: u64 = 0x1;
const METADATA_CSUM: u64 = 0x400;
const SPARSE_SUPER2: u64 = 0x200;
const META_BG_OR_64BIT: u64 = 0x80;

pub(super) fn probe(sector: Sector<'_>) -> Option<Hit> {
    if le(sector.bytes, 0x38, 2) != 0xef53 {
        return None;
    }
    let sb = sector.read(sector.at, 1024)?;
    let exponent = u32::try_from(le(&sb, 0x18, 4)).ok().filter(|exponent| *exponent <= 6)?;
    let block_size = 1024_u64 << exponent;
    let first_data_block = le(&sb, 0x14, 4);
    let (compat, incompat, ro_compat) = (le(&sb, 0x5c, 4), le(&sb, 0x60, 4), le(&sb, 0x64, 4));
    let high = if incompat & META_BG_OR_64BIT == 0 { 0 } else { le(&sb, 0x150, 4) };
    let blocks = le(&sb, 4, 4) | high << 32;
    let per_group = le(&sb, 0x20, 4);
    let has_sense = first_data_block == u64::from(exponent == 0)
        && blocks > first_data_block
        && le(&sb, 0, 4) != 0
        && le(&sb, 0x28, 4) != 0
        && le(&sb, 0x4c, 4) <= 1
        && (1..=block_size.saturating_mul(8).saturating_mul(le(&sb, 0x1c, 4).max(1))).contains(&per_group)
        && le(&sb, 0xc, 4) <= blocks;
    let is_sound = ro_compat & METADATA_CSUM == 0
        || ondisk::crc32c_raw(!0, sb.get(..1020)?) == u32::try_from(le(&sb, 1020, 4)).ok()?;
    if !has_sense || !is_sound {
        return None;
    }
    let length = blocks.checked_mul(block_size)?;
    let group = le(&sb, 0x5a, 2);
    let before = match group {
        0 => 1024,
        group => group.checked_mul(per_group)?.checked_add(first_data_block)?.checked_mul(block_size)?,
    };
    let start = sector.at.checked_sub(before)?;
    let groups = blocks.saturating_sub(first_data_block).div_ceil(per_group);
    let uuid = guid(&sb, 0x68);
    let what = match group {
        0 => "ext superblock".to_owned(),
        group => format!("copy of an ext superblock for group {group}"),
    };
    // Without sparse_super every group has a copy; with it those of 1 and of powers of 3, 5, 7.
    let expected_copies = if compat & SPARSE_SUPER2 != 0 {
        [le(&sb, 0x24c, 4), le(&sb, 0x250, 4)].into_iter().filter(|group| *group != 0).count()
    } else if ro_compat & SPARSE_SUPER != 0 {
        sparse_copies(groups)
    } else {
        usize::try_from(groups.saturating_sub(1)).unwrap_or(usize::MAX)
    };
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Ext,
        label: text(&sb, 0x78, 16),
        is_primary: group == 0,
        expected_copies: u32::try_from(expected_copies).unwrap_or(u32::MAX),
        entry: None,
        evidence: line(&what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}

/// How many of the groups above 0 are 1 or powers of 3, 5, 7.
fn sparse_copies(groups: u64) -> usize {
    let powers = |base: u64| {
        std::iter::successors(Some(base), move |power| power.checked_mul(base))
            .take_while(|power| *power < groups)
            .count()
    };
    [3, 5, 7].into_iter().map(powers).sum::<usize>().saturating_add(usize::from(groups > 1))
}
