//! What to write to make both copies good again.
//!
//! Pure functions: they return the bytes and where they go, the array before the header, so that a header is
//! never right before its array is. Nothing is written over a copy that is good and says something else.

use ondisk::{Corrupt, Error, Result};

use super::{EntryArray, Gpt, Header};
use crate::mbr::PROTECTIVE;

/// Bytes that belong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// First byte on the disk.
    pub offset: u64,
    /// What belongs there.
    pub bytes: Vec<u8>,
}

/// The primary copy from the backup, or from a good header and a good array of either; nothing where the
/// primary is good.
///
/// # Errors
/// [`Error::Corrupt`] when both copies are good and differ, when no whole copy is left, or when a partition lies
/// beyond the end of the disk.
pub fn restore_primary(gpt: &Gpt) -> Result<Vec<Write>> {
    let (header, array) = whole(gpt)?;
    if gpt.primary.good().is_some() {
        return Ok(Vec::new());
    }
    let mut restored = header.clone();
    restored.my_lba = 1;
    restored.partition_entry_lba = 2;
    if let Ok(own) = &gpt.primary.header {
        restored.partition_entry_lba = own.partition_entry_lba;
    }
    restored.alternate_lba = if gpt.backup.header.is_ok() { gpt.backup.lba } else { gpt.last_lba };
    fit(gpt, &mut restored, array, false)?;
    let free = restored.partition_entry_lba >= 2
        && restored.partition_entry_lba.saturating_add(restored.array_sectors(gpt.sector_size))
            <= restored.first_usable_lba;
    if !free {
        let expected = format!("an array between sector 1 and {}", restored.first_usable_lba);
        let found = format!("{} sectors", restored.array_sectors(gpt.sector_size));
        return Err(refuse(gpt, 1, "first_usable_lba", expected, found));
    }
    Ok(copy(gpt, &restored, array))
}

/// The backup copy at the disk's end, from the primary; also the primary's header where that names another
/// place or another end. Nothing where all is in place. Refuses what [`restore_primary`] refuses, and a primary
/// that is not good: that one comes first.
///
/// # Errors
/// [`Error::Corrupt`], as for [`restore_primary`].
pub fn restore_backup(gpt: &Gpt) -> Result<Vec<Write>> {
    let (_, array) = whole(gpt)?;
    let Some((primary, _)) = gpt.primary.good() else {
        let expected = "a good primary to copy from".into();
        return Err(refuse(gpt, 1, "content", expected, "a damaged one".into()));
    };
    let mut front = primary.clone();
    front.alternate_lba = gpt.last_lba;
    fit(gpt, &mut front, array, primary.alternate_lba != gpt.last_lba)?;
    let mut back = front.clone();
    (back.my_lba, back.alternate_lba) = (gpt.last_lba, 1);
    back.partition_entry_lba = gpt.last_lba.saturating_sub(front.array_sectors(gpt.sector_size));
    let is_placed = gpt.backup.lba == gpt.last_lba && gpt.backup.good().is_some();
    if is_placed && gpt.differences.is_empty() && &front == primary {
        return Ok(Vec::new());
    }
    let mut writes = copy(gpt, &back, array);
    if &front != primary {
        writes.push(Write { offset: gpt.sector_size, bytes: front.encode() });
    }
    Ok(writes)
}

/// A protective MBR where there is none; boot code and disk signature stay. Nothing where there is one.
///
/// # Errors
/// [`Error::Corrupt`] when sector 0 has other partitions, which would be lost, or could not be read.
pub fn restore_protective_mbr(gpt: &Gpt) -> Result<Vec<Write>> {
    let mbr = &gpt.protective_mbr;
    if gpt.is_protected() {
        return Ok(Vec::new());
    }
    let mut bytes = mbr.bytes.clone();
    let is_signed = bytes.ends_with(&[0x55, 0xaa]);
    let Some(entries) = bytes.get_mut(0x1be..0x1fe) else {
        return Err(refuse(gpt, 0, "content", "512 readable bytes".into(), "fewer".into()));
    };
    let others = entries.chunks(16).any(|entry| {
        entry.get(4).is_some_and(|kind| !matches!(*kind, 0 | PROTECTIVE))
            && entry.get(12..16).is_some_and(|sectors| sectors != [0; 4])
    });
    if others && is_signed {
        return Err(refuse(gpt, 0, "partitions", "none beside the GPT".into(), "some".into()));
    }
    entries.fill(0);
    let sectors = u32::try_from(gpt.last_lba).unwrap_or(u32::MAX);
    let entry = [[0, 0, 2, 0], [PROTECTIVE, 0xff, 0xff, 0xff], 1_u32.to_le_bytes(), sectors.to_le_bytes()];
    if let Some(first) = entries.get_mut(..16) {
        first.copy_from_slice(&entry.concat());
    }
    if let Some(signature) = bytes.get_mut(510..512) {
        signature.copy_from_slice(&[0x55, 0xaa]);
    }
    Ok(vec![Write { offset: 0, bytes }])
}

/// The one table that is meant, if there is exactly one.
fn whole(gpt: &Gpt) -> Result<(&Header, &EntryArray)> {
    if let (Some((_, first)), Some((_, second))) = (gpt.primary.good(), gpt.backup.good())
        && (first.bytes != second.bytes || gpt.differences.iter().any(|found| found.field == "disk_guid"))
    {
        let at = gpt.backup.lba;
        return Err(refuse(gpt, at, "content", "the same in both copies".into(), "two tables".into()));
    }
    match (gpt.header(), gpt.array()) {
        (Some(header), Some(array)) => Ok((header, array)),
        _ => Err(refuse(gpt, 1, "content", "one whole copy".into(), "none".into())),
    }
}

/// Fits the usable range to the disk's end: never beyond the backup's array, and with `moved` up to it.
fn fit(gpt: &Gpt, header: &mut Header, array: &EntryArray, moved: bool) -> Result<()> {
    let sectors = header.array_sectors(gpt.sector_size);
    let limit = gpt.last_lba.saturating_sub(sectors).saturating_sub(1);
    if moved || header.last_usable_lba > limit {
        header.last_usable_lba = limit;
    }
    let (first, last) = (header.first_usable_lba, header.last_usable_lba);
    if first > last {
        return Err(refuse(gpt, 1, "first_usable_lba", format!("at most {last}"), first.to_string()));
    }
    for entry in &array.entries {
        let found = |lba: u64| format!("{lba} (entry {})", entry.number);
        let at = header.partition_entry_lba;
        if entry.first_lba < first {
            let expected = format!("at least {first}");
            return Err(refuse(gpt, at, "starting_lba", expected, found(entry.first_lba)));
        }
        if entry.last_lba > last || entry.sectors() == 0 {
            let expected = format!("at most {last}, the end of the disk");
            return Err(refuse(gpt, at, "ending_lba", expected, found(entry.last_lba)));
        }
    }
    Ok(())
}

fn copy(gpt: &Gpt, header: &Header, array: &EntryArray) -> Vec<Write> {
    let mut header = header.clone();
    header.array_crc32 = ondisk::crc32(&array.bytes);
    let sector_length = usize::try_from(gpt.sector_size).unwrap_or(512);
    header.tail.resize(sector_length.saturating_sub(size_of::<super::RawHeader>()), 0);
    let offset = |lba: u64| lba.saturating_mul(gpt.sector_size);
    vec![
        Write { offset: offset(header.partition_entry_lba), bytes: array.bytes.clone() },
        Write { offset: offset(header.my_lba), bytes: header.encode() },
    ]
}

fn refuse(gpt: &Gpt, lba: u64, field: &'static str, expected: String, found: String) -> Error {
    Corrupt::new("GPT", lba.saturating_mul(gpt.sector_size), field, expected, found).into()
}
