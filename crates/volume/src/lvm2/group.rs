//! A volume group: the newest metadata text, its physical volumes found, its logical volumes mapped.

use std::collections::{BTreeMap, BTreeSet};

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed};

use super::label::PhysicalVolume;
use super::map;
use super::text::{self, Section, Value};

const TEXT: &str = "LVM2 metadata text";

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
    /// Flags as written: `RESIZEABLE`, `READ`, `WRITE`, `EXPORTED`, `CLUSTERED`, `SHARED`.
    pub status: Vec<String>,
    /// The host that owns the group, if one does; other hosts must not touch it. See lvmsystemid(7).
    pub system_id: Option<String>,
    /// `sanlock` or `dlm` for a group that hosts share.
    pub lock_type: Option<String>,
    /// Tags of the group.
    pub tags: Vec<String>,
    /// What lvm2 was doing when it wrote this text.
    pub description: Option<String>,
    /// Seconds since 1970 at which the text was written.
    pub creation_time: Option<u64>,
    /// Every copy of the metadata on the physical volumes that were found, with its verdict.
    pub copies: Vec<MetadataCopy>,
    /// Every physical volume that the metadata names.
    pub pvs: Vec<PvRef>,
    /// Every logical volume, hidden ones included, by name. The entries that only tie a snapshot to its origin
    /// are not logical volumes and not here.
    pub lvs: Vec<LogicalVolume>,
}

impl VolumeGroup {
    /// Whether the group was exported, so that no host activates it until it is imported.
    pub fn is_exported(&self) -> bool {
        self.status.iter().any(|flag| flag == "EXPORTED")
    }

    /// Whether a physical volume is missing.
    pub fn is_partial(&self) -> bool {
        self.pvs.iter().any(|pv| pv.device.is_none())
    }
}

/// One copy of a group's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataCopy {
    /// The physical volume that carries it.
    pub pv: String,
    /// First byte of its area there.
    pub area: u64,
    /// Its sequence number, if it could be read.
    pub sequence: Option<u64>,
    /// How it compares with the one that is used.
    pub verdict: CopyVerdict,
}

/// What a copy of the metadata is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyVerdict {
    /// The same text as the one that is used.
    Current,
    /// An older text: the physical volume missed changes.
    Stale,
    /// The same sequence number with another text.
    Different,
    /// The area is out of use.
    Ignored,
    /// Written and never declared valid.
    Precommitted,
    /// Not a text that can be read, and why.
    Damaged(String),
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
    /// Extents.
    pub extent_count: u64,
    /// Bytes of the device when the metadata was written; 0 when it does not say.
    pub recorded_size: u64,
    /// Flags as written: `ALLOCATABLE`, `MISSING`.
    pub status: Vec<String>,
    /// The device, if a physical volume with this UUID was found and the metadata does not call it missing.
    pub device: Option<Device>,
}

/// One logical volume.
#[derive(Debug, Clone)]
pub struct LogicalVolume {
    /// The name within the group: `root`.
    pub name: String,
    /// The UUID, with dashes.
    pub uuid: String,
    /// Bytes by the extents of its segments. The device of an old-style snapshot is as long as its origin.
    pub size: u64,
    /// Whether it can be activated by itself; the parts of a mirror or pool cannot.
    pub is_visible: bool,
    /// Segment types in order, without repetition: `linear`, `raid1`.
    pub kinds: Vec<String>,
    /// What it is within another logical volume.
    pub role: Option<Role>,
    /// Flags as written: `READ`, `WRITE`, `VISIBLE`, `ACTIVATION_SKIP`, `NOTSYNCED`.
    pub status: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub creation_time: Option<u64>,
    /// The host that made it.
    pub creation_host: Option<String>,
    /// Segments, ascending, and what each lies on.
    pub segments: Vec<Segment>,
    /// Its bytes, or why they cannot be had.
    pub device: std::result::Result<Device, String>,
    /// What should be known about the bytes: a leg that is not read, a pool that needs a check.
    pub notes: Vec<String>,
}

impl LogicalVolume {
    /// Whether it is there to be read. A pool only lends its bytes to others.
    pub fn has_bytes(&self) -> bool {
        !self.kinds.iter().any(|kind| matches!(kind.as_str(), "thin-pool" | "cache-pool" | "vdo-pool"))
    }

    /// Whether activation leaves it out unless told otherwise (`lvchange -K`).
    pub fn is_activation_skipped(&self) -> bool {
        self.status.iter().any(|flag| flag == "ACTIVATION_SKIP")
    }
}

/// What a logical volume is for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// In words: `raid image`, `thin pool metadata`, `snapshot`.
    pub kind: &'static str,
    /// The name of the other.
    pub of: String,
}

/// One segment of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First extent of the logical volume.
    pub start: u64,
    /// Extents.
    pub count: u64,
    /// The type: `striped`, `raid1`, `thin`.
    pub kind: String,
    /// What followed the type behind plus signs, and changes its meaning.
    pub flags: Vec<String>,
    /// What the segment lies on, in order: stripes, legs, images.
    pub targets: Vec<MapTarget>,
    /// The rest of what the text says of it.
    pub(crate) section: Section,
}

impl Segment {
    /// Extents that a user of the volume sees. Of those counted, a RAID segment that was reshaped keeps some on
    /// each leg as room for the next reshape (`reshape_count`).
    pub fn usable(&self) -> u64 {
        let reserve = self.section.number("reshape_count").unwrap_or(0);
        if reserve == 0 || !self.kind.starts_with("raid") {
            return self.count;
        }
        let legs = self.targets.iter().filter(|target| !target.name.contains("_rmeta_")).count();
        let legs = u64::try_from(legs).unwrap_or(u64::MAX);
        let stripes = match self.kind.as_bytes().get(4) {
            Some(b'1') if self.kind == "raid1" => 1,
            Some(b'1') => {
                let copies = self.section.number("data_copies").unwrap_or(2).max(1);
                legs.checked_div(copies).unwrap_or(0)
            }
            Some(b'4' | b'5') => legs.saturating_sub(1),
            Some(b'6') => legs.saturating_sub(2),
            _ => legs,
        };
        self.count.saturating_sub(reserve.saturating_mul(stripes))
    }

    /// The type as `lvs -o segtype` prints it: `striped` over one stripe is `linear`.
    pub fn type_name(&self) -> &str {
        if self.kind == "striped" && self.targets.len() == 1 { "linear" } else { &self.kind }
    }
}

/// Where one stripe lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapTarget {
    /// A physical volume (`pv0`) or another logical volume.
    pub name: String,
    /// First extent there.
    pub start: u64,
}

/// A text of a group that could be read.
struct Candidate<'a> {
    pv: &'a PhysicalVolume,
    area: u64,
    bytes: &'a [u8],
    sequence: u64,
    name: String,
    root: Section,
}

/// Assembles every group that the metadata of `pvs` describes; per group, the text with the highest sequence
/// number over all physical volumes and areas wins. Groups come in the order of their UUIDs.
///
/// Problems that belong to one group are with it; those between groups, and those of physical volumes that no
/// group names, are with the list.
pub fn assemble(pvs: &[PhysicalVolume]) -> Parsed<Vec<Parsed<VolumeGroup>>> {
    let mut problems: Vec<Error> = Vec::new();
    let pvs = distinct(pvs, &mut problems);
    let mut by_group: BTreeMap<String, Vec<Candidate<'_>>> = BTreeMap::new();
    let mut damaged: Vec<(&PhysicalVolume, MetadataCopy)> = Vec::new();
    let mut set_aside: Vec<(String, MetadataCopy)> = Vec::new();
    for (pv, area) in pvs.iter().flat_map(|pv| pv.areas.iter().map(move |area| (*pv, area))) {
        let copy =
            |sequence, verdict| MetadataCopy { pv: pv.uuid.clone(), area: area.offset, sequence, verdict };
        if let Err(corrupt) = &area.header {
            damaged.push((pv, copy(None, CopyVerdict::Damaged(corrupt.to_string()))));
        }
        let committed =
            area.committed.iter().map(|text| (text, area.is_ignored.then_some(CopyVerdict::Ignored)));
        let precommitted = area.precommitted.iter().map(|text| (text, Some(CopyVerdict::Precommitted)));
        for (text, aside) in committed.chain(precommitted) {
            let candidate = match &text.text {
                Ok(bytes) => read_group(pv, area.offset, bytes).map_err(|error| error.to_string()),
                Err(corrupt) => Err(corrupt.to_string()),
            };
            match (candidate, aside) {
                (Ok(candidate), Some(aside)) => {
                    let uuid = candidate.group().string("id").unwrap_or_default().to_owned();
                    set_aside.push((uuid, copy(Some(candidate.sequence), aside)));
                }
                (Ok(candidate), None) => {
                    let uuid = candidate.group().string("id").unwrap_or_default().to_owned();
                    by_group.entry(uuid).or_default().push(candidate);
                }
                (Err(reason), None) => {
                    if text.text.is_ok() {
                        // What the area's reader could not see: the checksum was good.
                        problems
                            .push(Corrupt::new(TEXT, area.offset, "text", "a volume group", &reason).into());
                    }
                    damaged.push((pv, copy(None, CopyVerdict::Damaged(reason))));
                }
                (Err(_), Some(_)) => {}
            }
        }
    }
    let mut groups = Vec::new();
    for (uuid, candidates) in &by_group {
        if let Some(mut group) = newest(candidates, &pvs) {
            let aside = set_aside.iter().filter(|(of, _)| of == uuid).map(|(_, copy)| copy.clone());
            group.value.copies.extend(aside);
            for (pv, copy) in &damaged {
                if group.value.pvs.iter().any(|known| known.uuid == pv.uuid) {
                    group.value.copies.push(copy.clone());
                }
            }
            groups.push(group);
        }
    }
    problems.extend(between_groups(&groups));
    problems.extend(orphans(&pvs, &groups));
    Parsed { value: groups, problems }
}

impl Candidate<'_> {
    fn group(&self) -> &Section {
        static EMPTY: Section = Section { values: BTreeMap::new(), sections: BTreeMap::new() };
        self.root.sections.get(&self.name).unwrap_or(&EMPTY)
    }
}

/// Those with a UUID that no earlier one has. lvm2 refuses both; one is enough to read.
fn distinct<'a>(pvs: &'a [PhysicalVolume], problems: &mut Vec<Error>) -> Vec<&'a PhysicalVolume> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for pv in pvs {
        if seen.insert(pv.uuid.as_str()) {
            kept.push(pv);
        } else {
            let at = pv.label_sector.unwrap_or(1).saturating_mul(512);
            let expected = format!("no other physical volume {}", pv.uuid);
            problems.push(Corrupt::new("LVM2 label", at, "pv_uuid", expected, "a second one").into());
        }
    }
    kept
}

fn read_group<'a>(
    pv: &'a PhysicalVolume,
    area: u64,
    bytes: &'a [u8],
) -> std::result::Result<Candidate<'a>, Corrupt> {
    let corrupt = |field, expected: &str, found: String| Corrupt::new(TEXT, area, field, expected, found);
    let root = text::parse(bytes)
        .map_err(|error| corrupt("text", "LVM2's configuration syntax", error.to_string()))?;
    let mut groups = root.sections.iter().filter(|(_, section)| section.string("id").is_some());
    let Some((name, section)) = groups.next() else {
        return Err(corrupt("id", "a section with an id", "none".into()));
    };
    let Some(sequence) = section.number("seqno") else {
        return Err(corrupt("seqno", "a number", "none".into()));
    };
    let name = name.clone();
    if groups.next().is_some() {
        return Err(corrupt("text", "one volume group", "several".into()));
    }
    Ok(Candidate { pv, area, bytes, sequence, name, root })
}

/// The group by its newest text, with what is wrong with the others.
fn newest(candidates: &[Candidate<'_>], pvs: &[&PhysicalVolume]) -> Option<Parsed<VolumeGroup>> {
    // The first of equals, so that the order of devices decides nothing else.
    let best = candidates.iter().rev().max_by_key(|candidate| candidate.sequence)?;
    let mut group = build(best, pvs);
    for candidate in candidates {
        let mut wrong = |expected: String, found: String| {
            group.problems.push(Corrupt::new(TEXT, candidate.area, "seqno", expected, found).into());
        };
        let pv = &candidate.pv.uuid;
        let verdict = if candidate.bytes == best.bytes {
            CopyVerdict::Current
        } else if candidate.sequence < best.sequence {
            wrong(best.sequence.to_string(), format!("{} on {pv}, which missed changes", candidate.sequence));
            CopyVerdict::Stale
        } else {
            wrong(format!("the same text as on {}", best.pv.uuid), format!("another one on {pv}"));
            CopyVerdict::Different
        };
        let sequence = Some(candidate.sequence);
        group.value.copies.push(MetadataCopy { pv: pv.clone(), area: candidate.area, sequence, verdict });
    }
    Some(group)
}

/// Groups that lvm2 could not tell apart, physical volumes that two groups claim.
fn between_groups(groups: &[Parsed<VolumeGroup>]) -> Vec<Error> {
    let mut problems: Vec<Error> = Vec::new();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for group in groups.iter().map(|group| &group.value) {
        if let Some(first) = names.insert(&group.name, &group.uuid) {
            let expected = format!("a name that group {first} does not have");
            problems.push(
                Corrupt::new(TEXT, 0, "name", expected, format!("{} of {}", group.name, group.uuid)).into(),
            );
        }
        for pv in &group.pvs {
            if let Some(first) = owners.insert(&pv.uuid, &group.name) {
                let expected = format!("physical volume {} in one group", pv.uuid);
                let found = format!("in {first} and {}", group.name);
                problems.push(Corrupt::new(TEXT, 0, "physical_volumes", expected, found).into());
            }
        }
    }
    problems
}

/// Physical volumes whose header says that they are in use, and that no group names.
fn orphans(pvs: &[&PhysicalVolume], groups: &[Parsed<VolumeGroup>]) -> Vec<Error> {
    let is_named = |uuid: &str| groups.iter().any(|group| group.value.pvs.iter().any(|pv| pv.uuid == uuid));
    let is_in_use = |pv: &PhysicalVolume| {
        pv.extension.as_ref().is_some_and(|extension| extension.is_in_use == Some(true))
    };
    pvs.iter()
        .filter(|pv| is_in_use(pv) && !is_named(&pv.uuid))
        .map(|pv| {
            let at = pv.label_sector.unwrap_or(1).saturating_mul(512);
            let expected = format!("a group that names {}", pv.uuid);
            Corrupt::new("LVM2 label", at, "flags", expected, "in use by a group that does not").into()
        })
        .collect()
}

fn build(best: &Candidate<'_>, found: &[&PhysicalVolume]) -> Parsed<VolumeGroup> {
    let mut problems: Vec<Error> = Vec::new();
    let section = best.group();
    let mut wrong = |field: &'static str, expected: String, found: String| {
        problems.push(Corrupt::new(TEXT, best.area, field, expected, found).into());
    };
    // The metadata counts extents in sectors of 512 bytes, whatever the device's own sector size.
    let extent_size = section.number("extent_size").unwrap_or(0).saturating_mul(512);
    if extent_size == 0 {
        wrong("extent_size", "more than 0".into(), "0".into());
    }
    let status = section.strings("status");
    if status.iter().any(|flag| flag == "EXPORTED") {
        wrong("status", "a group that hosts may activate".into(), "EXPORTED".into());
    }
    let pvs: Vec<PvRef> =
        sections(section, "physical_volumes").map(|(name, pv)| pv_ref(name, pv, found)).collect();
    for pv in &pvs {
        match (&pv.device, pv.status.iter().any(|flag| flag == "MISSING")) {
            (_, true) => {
                wrong("status", format!("{} in use", pv.uuid), "MISSING: its content may be old".into());
            }
            (None, false) => {
                let hint = pv.device_hint.as_deref().unwrap_or("no known path");
                wrong("physical_volumes", format!("{} (was {hint})", pv.uuid), "no such device".into());
            }
            (Some(device), false) if pv.recorded_size > device.size() => {
                wrong("dev_size", format!("at most {}", device.size()), pv.recorded_size.to_string());
            }
            (Some(_), false) => {}
        }
    }
    let segments: BTreeMap<&str, Vec<Segment>> =
        sections(section, "logical_volumes").map(|(name, lv)| (name.as_str(), read_segments(lv))).collect();
    let mapper = map::Mapper::new(extent_size, &pvs, &segments);
    let mut lvs: Vec<LogicalVolume> = sections(section, "logical_volumes")
        .filter(|(name, _)| !mapper.is_snapshot_tie(name))
        .map(|(name, lv)| logical_volume(name, lv, extent_size, &mapper))
        .collect();
    hide_and_name_snapshots(&mut lvs, &mapper);
    let text = |key: &str| section.string(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let value = VolumeGroup {
        name: best.name.clone(),
        uuid: section.string("id").unwrap_or_default().to_owned(),
        sequence: best.sequence,
        extent_size,
        status,
        system_id: text("system_id"),
        lock_type: text("lock_type").filter(|kind| kind != "none"),
        tags: section.strings("tags"),
        description: best.root.string("description").map(str::to_owned),
        creation_time: best.root.number("creation_time"),
        copies: Vec::new(),
        pvs,
        lvs,
    };
    Parsed { value, problems }
}

fn sections<'a>(
    section: &'a Section,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Section)> + use<'a> {
    section.sections.get(key).into_iter().flat_map(|section| &section.sections)
}

fn pv_ref(name: &str, pv: &Section, found: &[&PhysicalVolume]) -> PvRef {
    let uuid = pv.string("id").unwrap_or_default().to_owned();
    // MISSING is written both as a status and, by newer versions, as a flag.
    let mut status = pv.strings("status");
    status.extend(pv.strings("flags"));
    status.dedup();
    let is_missing = status.iter().any(|flag| flag == "MISSING");
    let device =
        found.iter().find(|known| known.uuid == uuid && !is_missing).map(|known| known.device.clone());
    PvRef {
        name: name.to_owned(),
        uuid,
        device_hint: pv.string("device").map(str::to_owned),
        extents_start: pv.number("pe_start").unwrap_or(0).saturating_mul(512),
        extent_count: pv.number("pe_count").unwrap_or(0),
        recorded_size: pv.number("dev_size").unwrap_or(0).saturating_mul(512),
        status,
        device,
    }
}

fn logical_volume(name: &str, lv: &Section, extent_size: u64, mapper: &map::Mapper<'_>) -> LogicalVolume {
    let segments = mapper.segments_of(name).to_vec();
    let extents = segments.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.usable()));
    let mut kinds: Vec<String> = segments.iter().map(|segment| segment.type_name().to_owned()).collect();
    kinds.dedup();
    let mut status = lv.strings("status");
    status.extend(lv.strings("flags"));
    let mapped = mapper.volume(name);
    LogicalVolume {
        name: name.to_owned(),
        uuid: lv.string("id").unwrap_or_default().to_owned(),
        size: extents.saturating_mul(extent_size),
        is_visible: lv.lists("status", "VISIBLE"),
        kinds,
        role: mapper.role(name),
        status,
        tags: lv.strings("tags"),
        creation_time: lv.number("creation_time"),
        creation_host: lv.string("creation_host").map(str::to_owned),
        segments,
        device: mapped.device,
        notes: mapped.notes,
    }
}

/// A snapshot is as visible as its origin; the text calls its store hidden.
fn hide_and_name_snapshots(lvs: &mut [LogicalVolume], mapper: &map::Mapper<'_>) {
    let visible: BTreeSet<String> = lvs.iter().filter(|lv| lv.is_visible).map(|lv| lv.name.clone()).collect();
    for lv in lvs {
        if let Some(origin) = mapper.snapshot_origin(&lv.name) {
            lv.is_visible = visible.contains(origin);
            lv.kinds = vec!["snapshot".into()];
        }
    }
}

/// The segments of one logical volume, ascending.
fn read_segments(lv: &Section) -> Vec<Segment> {
    let mut segments: Vec<Segment> = lv
        .sections
        .iter()
        .filter(|(name, _)| name.starts_with("segment"))
        .map(|(_, segment)| {
            let mut words = segment.string("type").unwrap_or("striped").split('+').map(str::to_owned);
            Segment {
                start: segment.number("start_extent").unwrap_or(0),
                count: segment.number("extent_count").unwrap_or(0),
                kind: words.next().unwrap_or_default(),
                flags: words.collect(),
                targets: read_targets(segment),
                section: segment.clone(),
            }
        })
        .collect();
    segments.sort_by_key(|segment| segment.start);
    segments
}

/// `["pv0", 0, "pv1", 12]`: names and first extents in turn; RAID's lists have names only.
fn read_targets(segment: &Section) -> Vec<MapTarget> {
    let lists = ["stripes", "mirrors", "raids", "raid0_lvs"];
    let list = lists.iter().map(|key| segment.list(key)).find(|list| !list.is_empty()).unwrap_or_default();
    let mut targets: Vec<MapTarget> = Vec::new();
    for value in list {
        match value {
            Value::String(name) => targets.push(MapTarget { name: name.clone(), start: 0 }),
            Value::Number(start) => {
                if let Some(last) = targets.last_mut() {
                    // A negative number is damage, and reaches past any device.
                    last.start = u64::try_from(*start).unwrap_or(u64::MAX);
                }
            }
            Value::List(_) => {}
        }
    }
    targets
}
