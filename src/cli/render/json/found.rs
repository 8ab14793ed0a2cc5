//! What a search found, in JSON.

use serde::Serialize;

use crate::cli::render::found::{Search, Version};

#[derive(Debug, Serialize)]
pub(crate) struct LostPartitions {
    pub(crate) disks: Vec<LostJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LostJson {
    image: String,
    /// Bytes.
    size: u64,
    partitions: Vec<ProposedJson>,
    rejected: Vec<RejectedJson>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ProposedJson {
    number: u32,
    /// Bytes.
    start: u64,
    /// Bytes.
    length: u64,
    content: &'static str,
    /// Two hexadecimal digits.
    mbr_type: String,
    gpt_type: String,
    evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RejectedJson {
    /// Bytes.
    start: u64,
    content: &'static str,
    reason: String,
}

impl LostJson {
    pub(crate) fn new(search: &Search) -> Self {
        Self {
            image: search.disk.clone(),
            size: search.size,
            partitions: search
                .proposal
                .partitions
                .iter()
                .map(|partition| ProposedJson {
                    number: partition.number,
                    start: partition.start,
                    length: partition.length,
                    content: partition.kind.name(),
                    mbr_type: format!("{:02x}", partition.mbr_type),
                    gpt_type: partition.gpt_type.clone(),
                    evidence: partition.evidence.clone(),
                })
                .collect(),
            rejected: search
                .candidates
                .iter()
                .filter_map(|candidate| {
                    let reason = candidate.rejected.clone()?;
                    Some(RejectedJson { start: candidate.start, content: candidate.kind.name(), reason })
                })
                .collect(),
            problems: search.problems.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct MetadataHistory {
    pub(crate) versions: Vec<VersionJson>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VersionJson {
    group: String,
    group_uuid: String,
    sequence: u64,
    /// The path of a device, or of a file in the guest.
    source: String,
    /// First byte on the device.
    offset: Option<u64>,
    is_split: bool,
    is_committed: bool,
    /// Seconds since 1970-01-01 00:00 UTC.
    created: Option<u64>,
    host: Option<String>,
    description: Option<String>,
    text: String,
}

impl VersionJson {
    pub(crate) fn new(version: &Version) -> Self {
        let entry = &version.entry;
        Self {
            group: entry.group.clone(),
            group_uuid: entry.group_uuid.clone(),
            sequence: entry.sequence,
            source: version.source.clone(),
            offset: entry.place.map(|place| place.area.saturating_add(place.offset)),
            is_split: entry.place.is_some_and(|place| place.is_split),
            is_committed: entry.is_committed,
            created: entry.creation_time,
            host: entry.creation_host.clone(),
            description: entry.description.clone(),
            text: String::from_utf8_lossy(&entry.text).into_owned(),
        }
    }
}
