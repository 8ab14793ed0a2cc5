//! A volume group: the newest metadata text, its physical volumes found, its logical volumes mapped.

use std::collections::BTreeMap;

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed};

use super::label::PhysicalVolume;
use super::map;
use super::text::{self, Section, Value};

/// A volume group as its newest valid metadata describes it.
#[derive(Debug, Clone)]
pub struct VolumeGroup {
    /// The name: `centos`.
    pub name: String,
    /// The UUID, with dashes.
    pub uuid: String,
    /// Counts the changes of the group; the highest is the newest.
    pub sequence: u64,
    /// Bytes of one extent.
    pub extent_size: u64,
    /// Every physical volume that the metadata names.
    pub pvs: Vec<PvRef>,
    /// Every logical volume, hidden ones included, by name.
    pub lvs: Vec<LogicalVolume>,
}

/// A physical volume as the metadata names it.
#[derive(Debug, Clone)]
pub struct PvRef {
    /// The name within the metadata: `pv0`.
    pub name: String,
    /// The UUID, with dashes.
    pub uuid: String,
    /// The device path it had when the metadata was written; only a hint.
    pub device_hint: Option<String>,
    /// First byte of extent 0 on the device.
    pub extents_start: u64,
    /// The device, if a physical volume with this UUID was found.
    pub device: Option<Device>,
}

/// One logical volume.
#[derive(Debug, Clone)]
pub struct LogicalVolume {
    /// The name within the group: `root`.
    pub name: String,
    /// The UUID, with dashes.
    pub uuid: String,
    /// Bytes.
    pub size: u64,
    /// Whether it can be activated by itself; the parts of a mirror or pool cannot.
    pub is_visible: bool,
    /// Segment types in order, without repetition: `linear`, `raid1`.
    pub kinds: Vec<String>,
    /// Its bytes, or why they cannot be had.
    pub device: std::result::Result<Device, String>,
}

/// One segment of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First extent of the logical volume.
    pub start: u64,
    /// Extents.
    pub count: u64,
    /// The type as written, with its flags: `striped`, `raid1`, `thin`.
    pub kind: String,
    /// For `striped`: what the stripes lie on, in order.
    pub targets: Vec<MapTarget>,
}

/// Where one stripe lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapTarget {
    /// A physical volume (`pv0`) or another logical volume.
    pub name: String,
    /// First extent there.
    pub start: u64,
}

/// Assembles every group that the metadata of `pvs` describes; per group, the text with the highest sequence
/// number wins.
pub fn assemble(pvs: &[PhysicalVolume]) -> Vec<Parsed<VolumeGroup>> {
    let mut newest: BTreeMap<String, (u64, String, Section)> = BTreeMap::new();
    let mut unreadable: Vec<Error> = Vec::new();
    for (pv, copy) in pvs.iter().flat_map(|pv| pv.metadata.iter().map(move |copy| (pv, copy))) {
        match text::parse(&copy.text) {
            Ok(root) => {
                let groups = root.sections.into_iter().filter(|(_, section)| section.string("id").is_some());
                for (name, section) in groups {
                    let sequence = section.number("seqno").unwrap_or(0);
                    let uuid = section.string("id").unwrap_or_default().to_owned();
                    let known =
                        newest.entry(uuid).or_insert_with(|| (sequence, name.clone(), section.clone()));
                    if sequence > known.0 {
                        *known = (sequence, name, section);
                    }
                }
            }
            Err(error) => unreadable.push(
                Corrupt::new(
                    "LVM2 metadata text",
                    copy.area,
                    "text",
                    error.to_string(),
                    format!("{} …", pv.uuid),
                )
                .into(),
            ),
        }
    }
    let mut groups: Vec<Parsed<VolumeGroup>> =
        newest.into_values().map(|(_, name, section)| build(name, &section, pvs)).collect();
    if let Some(first) = groups.first_mut() {
        first.problems.extend(unreadable);
    }
    groups
}

fn build(name: String, section: &Section, pvs: &[PhysicalVolume]) -> Parsed<VolumeGroup> {
    let mut problems = Vec::new();
    let uuid = section.string("id").unwrap_or_default().to_owned();
    // The metadata counts extents in sectors of 512 bytes, whatever the device's own sector size.
    let extent_size = section.number("extent_size").unwrap_or(0).saturating_mul(512);
    if extent_size == 0 {
        problems.push(Corrupt::new("LVM2 metadata text", 0, "extent_size", "more than 0", 0).into());
    }
    let pv_refs: Vec<PvRef> = section
        .sections
        .get("physical_volumes")
        .into_iter()
        .flat_map(|section| &section.sections)
        .map(|(name, pv)| {
            let uuid = pv.string("id").unwrap_or_default().to_owned();
            let device = pvs.iter().find(|found| found.uuid == uuid).map(|found| found.device.clone());
            let device_hint = pv.string("device").map(str::to_owned);
            let extents_start = pv.number("pe_start").unwrap_or(0).saturating_mul(512);
            PvRef { name: name.clone(), uuid, device_hint, extents_start, device }
        })
        .collect();
    let segments: BTreeMap<&str, Vec<Segment>> = section
        .sections
        .get("logical_volumes")
        .into_iter()
        .flat_map(|section| &section.sections)
        .map(|(name, lv)| (name.as_str(), read_segments(lv)))
        .collect();
    let mapper = map::Mapper { extent_size, pvs: &pv_refs, segments: &segments };
    let lvs = section
        .sections
        .get("logical_volumes")
        .into_iter()
        .flat_map(|section| &section.sections)
        .map(|(lv_name, lv)| {
            let parts = segments.get(lv_name.as_str()).map(Vec::as_slice).unwrap_or_default();
            let extents = parts.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.count));
            let mut kinds: Vec<String> = parts.iter().map(kind_name).collect();
            kinds.dedup();
            LogicalVolume {
                name: lv_name.clone(),
                uuid: lv.string("id").unwrap_or_default().to_owned(),
                size: extents.saturating_mul(extent_size),
                is_visible: lv.lists("status", "VISIBLE"),
                kinds,
                device: mapper.device(lv_name).map_err(|error| error.to_string()),
            }
        })
        .collect();
    let sequence = section.number("seqno").unwrap_or(0);
    let value = VolumeGroup { name, uuid, sequence, extent_size, pvs: pv_refs, lvs };
    Parsed { value, problems }
}

/// `striped` over one stripe is what people call linear.
fn kind_name(segment: &Segment) -> String {
    if segment.kind == "striped" && segment.targets.len() == 1 {
        "linear".into()
    } else {
        segment.kind.clone()
    }
}

/// The segments of one logical volume, ascending.
fn read_segments(lv: &Section) -> Vec<Segment> {
    let mut segments: Vec<Segment> = lv
        .sections
        .iter()
        .filter(|(name, _)| name.starts_with("segment"))
        .map(|(_, segment)| {
            let kind = segment.string("type").unwrap_or_default();
            Segment {
                start: segment.number("start_extent").unwrap_or(0),
                count: segment.number("extent_count").unwrap_or(0),
                // Flags may follow behind a plus sign: `raid1+FOO`. They make another type of it, so they stay.
                kind: kind.to_owned(),
                targets: read_targets(segment.list("stripes")),
            }
        })
        .collect();
    segments.sort_by_key(|segment| segment.start);
    segments
}

/// `["pv0", 0, "pv1", 12]`: names and first extents in turn.
fn read_targets(list: &[Value]) -> Vec<MapTarget> {
    list.chunks_exact(2)
        .filter_map(|pair| match pair {
            [Value::String(name), Value::Number(start)] => {
                Some(MapTarget { name: name.clone(), start: u64::try_from(*start).ok()? })
            }
            _ => None,
        })
        .collect()
}
