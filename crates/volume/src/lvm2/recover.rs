//! A physical volume whose label is lost, guessed from its metadata area.

use blockdev::Device;
use ondisk::{Corrupt, Parsed, Result};

use super::label::PhysicalVolume;
use super::metadata_area;
use super::text::{self, Section};

/// Where lvm2 puts the first metadata area, whatever its size.
const FIRST_AREA: u64 = 4096;

/// A physical volume whose label cannot be read but whose first metadata area can.
///
/// `found` are the physical volumes that are known otherwise. The text names all of its group's; this one is the
/// only one of them that was not found, or the only such one that was as large as this device. `None` where there
/// is no metadata area or it cannot be told which one this is. What was concluded, and from what, is a problem.
///
/// # Errors
/// [`ondisk::Error::Io`].
pub fn recover_pv(device: &Device, found: &[PhysicalVolume]) -> Result<Option<Parsed<PhysicalVolume>>> {
    if device.size() < FIRST_AREA.saturating_add(512) {
        return Ok(None);
    }
    let Some(size) = metadata_area::recorded_size(device.as_ref(), FIRST_AREA) else { return Ok(None) };
    let area = metadata_area::read(device.as_ref(), FIRST_AREA, size);
    let texts = area.value.committed.iter().filter(|_| !area.value.is_ignored);
    let Some(text) = texts.filter_map(|text| text.text.as_ref().ok()).next() else { return Ok(None) };
    let Ok(root) = text::parse(text) else { return Ok(None) };
    let Some((group, pvs)) = root.sections.iter().find_map(|(name, section)| {
        section.string("id")?;
        Some((name, section.sections.get("physical_volumes")?))
    }) else {
        return Ok(None);
    };
    let is_lost =
        |pv: &&Section| pv.string("id").is_some_and(|uuid| !found.iter().any(|known| known.uuid == uuid));
    let lost: Vec<&Section> = pvs.sections.values().filter(is_lost).collect();
    let sectors = device.size() >> 9;
    let same_size: Vec<&Section> =
        lost.iter().copied().filter(|pv| pv.number("dev_size") == Some(sectors)).collect();
    let (pv, evidence) = match (lost.as_slice(), same_size.as_slice()) {
        ([pv], _) => (*pv, "the only one that was not found"),
        (_, [pv]) => (*pv, "the only one of this size that was not found"),
        _ => return Ok(None),
    };
    let uuid = pv.string("id").unwrap_or_default().to_owned();
    let mut problems = area.problems;
    let expected = format!("the label of {uuid}, {evidence} of group {group}");
    problems.push(Corrupt::new("LVM2 label", 512, "id", expected, "no valid label").into());
    let value = PhysicalVolume {
        uuid,
        device: device.clone(),
        label_sector: None,
        recorded_size: pv.number("dev_size").unwrap_or(0).saturating_mul(512),
        data_areas: Vec::new(),
        extension: None,
        areas: vec![area.value],
    };
    Ok(Some(Parsed { value, problems }))
}
