//! NTFS: a boot sector, and a copy of it in the partition's last sector, behind the volume.
//!
//! Little-endian. The copy does not say that it is one; the master file table, which only one of the two leads to, does.

use super::{Hit, Sector, le, line};
use crate::lost::Kind;

pub(super) fn probe(sector: Sector<'_>) -> Option<Hit> {
    let bs = sector.bytes;
    if bs.get(3..11) != Some(b"NTFS    ") || bs.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let sector_size = le(bs, 11, 2);
    if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
        return None;
    }
    // Above 128, the negative exponent of two.
    let cluster = match le(bs, 13, 1) {
        count @ 1..=128 => count,
        exponent => 1 << u32::try_from(256_u64.saturating_sub(exponent)).ok().filter(|shift| *shift < 16)?,
    };
    let volume = le(bs, 0x28, 8).checked_mul(sector_size)?;
    let table = le(bs, 0x30, 8).checked_mul(cluster)?.checked_mul(sector_size)?;
    let has_table = |start: u64| {
        start.checked_add(table).and_then(|at| sector.read(at, 4)).is_some_and(|record| record == b"FILE")
    };
    let from_copy = sector.at.checked_sub(volume).filter(|start| has_table(*start));
    let (start, is_primary) = match from_copy {
        _ if has_table(sector.at) => (sector.at, true),
        Some(start) => (start, false),
        None => return None,
    };
    let length = volume.checked_add(sector_size)?;
    let uuid = Some(format!("{:016X}", le(bs, 0x48, 8)));
    let what = if is_primary { "NTFS boot sector" } else { "copy of an NTFS boot sector" };
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Ntfs,
        label: None,
        is_primary,
        expected_copies: 1,
        entry: None,
        evidence: line(what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}
