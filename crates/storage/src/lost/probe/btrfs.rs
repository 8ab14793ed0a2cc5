//! btrfs: a superblock at 64 KiB, copies at 64 MiB and 256 GiB.
//!
//! Each says its own place in `bytenr`. Little-endian; the checksum covers 0x20..0x1000.

use super::{Hit, Sector, guid, le, line, text};
use crate::lost::Kind;

pub(super) fn probe(sector: Sector<'_>) -> Option<Hit> {
    if sector.bytes.get(0x40..0x48) != Some(b"_BHRfS_M") {
        return None;
    }
    let sb = sector.read(sector.at, 4096)?;
    let place = le(&sb, 0x30, 8);
    let copy = [0x1_0000, 0x400_0000, 0x40_0000_0000].into_iter().position(|known| known == place)?;
    let is_crc32c = le(&sb, 0xc4, 2) == 0;
    if is_crc32c && u64::from(ondisk::crc32c(sb.get(0x20..)?)) != le(&sb, 0, 4) {
        return None;
    }
    let start = sector.at.checked_sub(place)?;
    // The size of this device; `total_bytes` at 0x70 is that of all devices together.
    let length = le(&sb, 0xd1, 8);
    let expected = [0x400_0000_u64, 0x40_0000_0000].iter().filter(|copy| copy.saturating_add(4096) <= length);
    let uuid = guid(&sb, 0x20);
    let what = if copy == 0 { "btrfs superblock" } else { "copy of a btrfs superblock" };
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Btrfs,
        label: text(&sb, 0x12b, 256),
        is_primary: copy == 0,
        expected_copies: u32::try_from(expected.count()).unwrap_or(0),
        entry: None,
        evidence: line(what, sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}
