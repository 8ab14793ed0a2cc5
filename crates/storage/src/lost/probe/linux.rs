//! What Linux puts on partitions besides file systems: swap, LVM2, md, LUKS.

use super::{Hit, Sector, be, guid, le, line, text};
use crate::lost::Kind;

/// The end of the first page; include/linux/swap.h. The page's size is that where the version is 1.
pub(super) fn swap(sector: Sector<'_>) -> Option<Hit> {
    if sector.bytes.get(502..512) != Some(b"SWAPSPACE2") {
        return None;
    }
    for page in [4096_u64, 8192, 16_384, 65_536] {
        let Some(start) = sector.at.checked_add(512).and_then(|end| end.checked_sub(page)) else { continue };
        let Some(header) = sector.read(start.saturating_add(1024), 44) else { continue };
        let last_page = le(&header, 4, 4);
        if le(&header, 0, 4) == 1 && last_page != 0 {
            let length = last_page.saturating_add(1).saturating_mul(page);
            let uuid = guid(&header, 12);
            return Some(Hit {
                start,
                length: Some(length),
                kind: Kind::Swap,
                label: text(&header, 28, 16),
                is_primary: true,
                expected_copies: 0,
                entry: None,
                evidence: line("swap header", start, Some(length), uuid.as_ref()),
                uuid,
            });
        }
    }
    None
}

/// The label of a physical volume, which says its own sector; lib/label/label.h and format_text/layout.h.
pub(super) fn lvm(sector: Sector<'_>) -> Option<Hit> {
    let label = sector.bytes;
    if !label.starts_with(b"LABELONE") || label.get(0x18..0x20) != Some(b"LVM2 001") {
        return None;
    }
    let stored = u32::try_from(le(label, 0x10, 4)).ok()?;
    if ondisk::lvm_crc(label.get(0x14..)?) != stored {
        return None;
    }
    let number = le(label, 8, 8);
    let start = sector.at.checked_sub(number.checked_mul(512).filter(|_| number < 4)?)?;
    let header = usize::try_from(le(label, 0x14, 4)).ok()?;
    let id = text(label, header, 32).filter(|id| id.len() == 32 && id.is_ascii())?;
    let length = le(label, header.checked_add(32)?, 8);
    let mut uuid = String::new();
    for (index, letter) in id.chars().enumerate() {
        // 6-4-4-4-4-4-6.
        if (6..=26).contains(&index) && index.checked_sub(6).and_then(|rest| rest.checked_rem(4)) == Some(0) {
            uuid.push('-');
        }
        uuid.push(letter);
    }
    let uuid = Some(uuid);
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Lvm,
        label: None,
        is_primary: true,
        expected_copies: 0,
        entry: None,
        evidence: line("LVM2 label", sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}

/// A superblock of version 1, which says its own place; include/uapi/linux/raid/md_p.h.
pub(super) fn raid(sector: Sector<'_>) -> Option<Hit> {
    let sb = sector.bytes;
    if le(sb, 0, 4) != 0xa92b_4efc || le(sb, 4, 4) != 1 {
        return None;
    }
    let place = le(sb, 0x90, 8).checked_mul(512)?;
    let start = sector.at.checked_sub(place)?;
    let data_end = le(sb, 0x80, 8).checked_add(le(sb, 0x88, 8))?.checked_mul(512)?;
    // Version 1.0 has it near the end, 8 KiB to 12 KiB before it.
    let length = data_end.max(place.saturating_add(8192));
    let uuid = guid(sb, 16);
    Some(Hit {
        start,
        length: Some(length),
        kind: Kind::Raid,
        label: text(sb, 32, 32),
        is_primary: true,
        expected_copies: 0,
        entry: None,
        evidence: line("md superblock", sector.at, Some(length), uuid.as_ref()),
        uuid,
    })
}

/// Headers of LUKS1 and LUKS2; the second one of LUKS2 says how far it is from the start. Big-endian. The length of
/// the encrypted data is not in them.
pub(super) fn luks(sector: Sector<'_>) -> Option<Hit> {
    let header = sector.bytes;
    let is_second = header.starts_with(b"SKUL\xba\xbe");
    if !is_second && !header.starts_with(b"LUKS\xba\xbe") {
        return None;
    }
    let version = be(header, 6, 2);
    let place = if version == 2 { be(header, 0x100, 8) } else { 0 };
    if !matches!(version, 1 | 2) || (place == 0) == is_second {
        return None;
    }
    let start = sector.at.checked_sub(place)?;
    let uuid = text(header, 0xa8, 40);
    let what = if is_second { "second LUKS header" } else { "LUKS header" };
    Some(Hit {
        start,
        length: None,
        kind: Kind::Luks,
        label: (version == 2).then(|| text(header, 0x18, 48)).flatten(),
        is_primary: !is_second,
        expected_copies: u32::from(version == 2),
        entry: None,
        evidence: line(what, sector.at, None, uuid.as_ref()),
        uuid,
    })
}
