//! Tables away from their place: a copy of a GPT anywhere, records of an MBR chain.

use volume::gpt::{EntryArray, Header};
use zerocopy::FromBytes;

use super::{Hit, Sector, size};
use crate::lost::Kind;

/// The entries of a GPT whose header says that it is here, and whose array has its checksum.
pub(super) fn gpt(sector: Sector<'_>) -> Vec<Hit> {
    if !sector.bytes.starts_with(b"EFI PART") {
        return Vec::new();
    }
    for sector_size in [512_u64, 4096] {
        let Some(lba) = sector.at.checked_div(sector_size) else { continue };
        if lba.checked_mul(sector_size) != Some(sector.at) {
            continue;
        }
        let Some(bytes) = sector.read(sector.at, sector_size) else { continue };
        let Ok(header) = Header::decode(&bytes, lba, "GPT header") else { continue };
        let at = header.partition_entry_lba.saturating_mul(sector_size);
        let Some(array) = sector.read(at, header.array_length()) else { continue };
        if ondisk::crc32(&array) != header.array_crc32 {
            continue;
        }
        let entries = EntryArray::decode(array, header.entry_size).entries;
        return entries
            .iter()
            .filter(|entry| entry.sectors() != 0)
            .map(|entry| {
                let length = entry.sectors().saturating_mul(sector_size);
                hit(
                    entry.first_lba.saturating_mul(sector_size),
                    length,
                    entry.type_guid.to_string(),
                    format!(
                        "entry {} of the GPT header at byte {}, {}",
                        entry.number,
                        sector.at,
                        size(length)
                    ),
                )
            })
            .collect();
    }
    Vec::new()
}

/// The partition of an extended boot record: no boot code, at most a partition and a link, both plausible.
pub(super) fn extended(sector: Sector<'_>) -> Option<Hit> {
    let record = volume::mbr::RawBootSector::read_from_bytes(sector.bytes.as_slice()).ok()?;
    let [first, link, third, fourth] = &record.entries;
    let is_blank = |entry: &volume::mbr::RawEntry| entry.partition_type == 0 && !entry.is_used();
    let has_sense = record.signature == [0x55, 0xaa]
        && record.boot_code.iter().all(|byte| *byte == 0)
        && matches!(first.boot_indicator, 0 | 0x80)
        && first.partition_type != 0
        && first.partition_type != volume::mbr::PROTECTIVE
        && first.is_used()
        && first.start.get() != 0
        && !first.is_extended()
        && (is_blank(link) || link.is_extended())
        && is_blank(third)
        && is_blank(fourth);
    if !has_sense || sector.at == 0 {
        return None;
    }
    let unit = u64::from(sector.disk.sector_size());
    let start = sector.at.checked_add(u64::from(first.start.get()).checked_mul(unit)?)?;
    let length = u64::from(first.sectors.get()).checked_mul(unit)?;
    let is_inside = start.checked_add(length).is_some_and(|end| end <= sector.disk.size());
    is_inside.then(|| {
        let evidence = format!("extended boot record at byte {}, {}", sector.at, size(length));
        hit(start, length, format!("{:02x}", first.partition_type), evidence)
    })
}

fn hit(start: u64, length: u64, kind: String, evidence: String) -> Hit {
    Hit {
        start,
        length: Some(length),
        kind: Kind::Entry,
        uuid: None,
        label: None,
        is_primary: false,
        expected_copies: 0,
        entry: Some((kind, length)),
        evidence,
    }
}
