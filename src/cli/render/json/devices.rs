//! The storage graph in JSON.

use filesystem::FsInfo;
use serde::Serialize;
use storage::{Content, FoundArray, Node, NodeId, NodeKind, Storage};
use volume::lvm2::{CopyVerdict, VolumeGroup};
use volume::md::Role;

use crate::Examination;

#[derive(Debug, Serialize)]
pub(crate) struct DeviceJson {
    path: String,
    kind: &'static str,
    parents: Vec<String>,
    /// Bytes.
    size: u64,
    /// Byte on the parent at which a partition starts.
    start: Option<u64>,
    #[serde(rename = "type")]
    content: Option<String>,
    uuid: Option<String>,
    label: Option<String>,
    partuuid: Option<String>,
    partlabel: Option<String>,
    volume_group: Option<String>,
    /// What it is for, in the words of blkid: `filesystem`, `raid`, `crypto`, `other`.
    usage: Option<&'static str>,
    /// Of an array, the level; of a logical volume, its segment types.
    level: Option<String>,
    /// Of a member, the array's path; how the array uses it.
    array: Option<String>,
    state: Option<String>,
    /// Of an encrypted device, how; and why it stays closed.
    encryption: Option<String>,
    locked: Option<String>,
    /// Of a partition table, who would accept it.
    table: Option<TableJson>,
    /// What the file system says of itself.
    filesystem: Option<FileSystemJson>,
    /// Where the systems mount it.
    mounted: Vec<String>,
}

impl DeviceJson {
    pub(crate) fn new(id: NodeId, node: &Node, examination: &Examination, facts: Option<&FsInfo>) -> Self {
        let partition = match &node.kind {
            NodeKind::Partition(partition) => Some(partition),
            _ => None,
        };
        let volume_group = match (&node.kind, &node.content) {
            (NodeKind::LogicalVolume { group, .. }, _) => Some(group.clone()),
            (_, Content::PhysicalVolume { group, .. }) => group.clone(),
            _ => None,
        };
        Self {
            path: node.path.clone(),
            kind: match node.kind {
                NodeKind::Disk(_) => "disk",
                NodeKind::Partition(_) => "partition",
                NodeKind::LogicalVolume { .. } => "logical volume",
                NodeKind::Array { .. } => "array",
                NodeKind::Decrypted { .. } => "decrypted",
            },
            parents: node.parents.iter().map(|id| examination.storage.node(*id).path.clone()).collect(),
            size: node.size,
            start: partition.map(|partition| partition.start),
            content: node.content_type().map(str::to_owned),
            uuid: node.uuid().map(str::to_owned),
            label: node.label().map(|label| String::from_utf8_lossy(label).into_owned()),
            partuuid: partition.map(|partition| partition.uuid.clone()),
            partlabel: partition.and_then(|partition| partition.label.clone()),
            volume_group,
            usage: node.usage().map(storage::Usage::name),
            level: match &node.kind {
                NodeKind::Array { level, .. } => Some(level.clone()),
                NodeKind::LogicalVolume { kinds, .. } => Some(kinds.join("+")),
                _ => None,
            },
            array: match &node.content {
                Content::RaidMember { array, .. } => array.clone(),
                _ => None,
            },
            state: match &node.content {
                Content::RaidMember { state, .. } => state.clone(),
                _ => None,
            },
            encryption: match &node.content {
                Content::Encrypted(encrypted) => Some(encrypted.container.encryption.clone()),
                _ => None,
            },
            locked: match &node.content {
                Content::Encrypted(encrypted) => encrypted.locked.clone(),
                _ => None,
            },
            table: match &node.content {
                Content::Partitions(table) => Some(TableJson::new(table)),
                _ => None,
            },
            filesystem: facts.map(|info| FileSystemJson {
                block_size: info.block_size,
                size: info.size,
                free: info.free,
                needs_recovery: info.needs_recovery,
                features: info.features.clone(),
            }),
            mounted: examination
                .guests
                .iter()
                .flat_map(|guest| &guest.mounts)
                .filter(|mount| mount.node == id)
                .map(|mount| mount.target.clone())
                .collect(),
        }
    }
}

/// Facts of a whole file system.
#[derive(Debug, Serialize)]
pub(crate) struct FileSystemJson {
    /// Bytes, as the next two.
    block_size: u32,
    size: u64,
    free: Option<u64>,
    /// Whether the kernel would replay a journal, or finds it not unmounted.
    needs_recovery: bool,
    features: Vec<String>,
}

/// A partition table: what three readers would make of it, and both copies of a GPT.
#[derive(Debug, Serialize)]
pub(crate) struct TableJson {
    id: String,
    linux: JudgementJson,
    grub: JudgementJson,
    ovmf: JudgementJson,
    copies: Vec<TableCopy>,
}

#[derive(Debug, Serialize)]
pub(crate) struct JudgementJson {
    accepted: bool,
    /// Which table, how many partitions, or why there is none.
    says: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct TableCopy {
    name: &'static str,
    lba: u64,
    /// How it was found.
    place: &'static str,
    /// What is wrong with its header; nothing if it is good.
    header: Option<String>,
    /// What is wrong with its array of entries.
    entries: Option<String>,
}

impl TableJson {
    fn new(table: &volume::Table) -> Self {
        let of = |judgement: &volume::Judgement| JudgementJson {
            accepted: judgement.is_accepted(),
            says: judgement.to_string(),
        };
        let copies = table.gpt.iter().flat_map(|gpt| [("primary", &gpt.primary), ("backup", &gpt.backup)]);
        Self {
            id: table.id.clone(),
            linux: of(&table.judges.linux),
            grub: of(&table.judges.grub),
            ovmf: of(&table.judges.ovmf),
            copies: copies
                .map(|(name, copy)| TableCopy {
                    name,
                    lba: copy.lba,
                    place: copy.place.name(),
                    header: copy.header.as_ref().err().map(ToString::to_string),
                    entries: copy.array.as_ref().err().map(ToString::to_string),
                })
                .collect(),
        }
    }
}

/// A volume group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupJson {
    name: String,
    uuid: String,
    sequence: u64,
    /// Bytes.
    extent_size: u64,
    status: Vec<String>,
    system_id: Option<String>,
    pvs: Vec<PvJson>,
    copies: Vec<MetadataCopyJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PvJson {
    uuid: String,
    is_missing: bool,
    /// The path it had when the metadata was written.
    device_hint: Option<String>,
}

/// One copy of a group's metadata.
#[derive(Debug, Serialize)]
pub(crate) struct MetadataCopyJson {
    pv: String,
    /// First byte of its area.
    area: u64,
    sequence: Option<u64>,
    /// `current`, `stale`, `different`, `ignored`, `precommitted`, or what is wrong.
    verdict: String,
}

impl GroupJson {
    pub(crate) fn new(group: &VolumeGroup) -> Self {
        Self {
            name: group.name.clone(),
            uuid: group.uuid.clone(),
            sequence: group.sequence,
            extent_size: group.extent_size,
            status: group.status.clone(),
            system_id: group.system_id.clone(),
            pvs: group
                .pvs
                .iter()
                .map(|pv| PvJson {
                    uuid: pv.uuid.clone(),
                    is_missing: pv.device.is_none(),
                    device_hint: pv.device_hint.clone(),
                })
                .collect(),
            copies: group
                .copies
                .iter()
                .map(|copy| MetadataCopyJson {
                    pv: copy.pv.clone(),
                    area: copy.area,
                    sequence: copy.sequence,
                    verdict: match &copy.verdict {
                        CopyVerdict::Current => "current".into(),
                        CopyVerdict::Stale => "stale".into(),
                        CopyVerdict::Different => "different".into(),
                        CopyVerdict::Ignored => "ignored".into(),
                        CopyVerdict::Precommitted => "precommitted".into(),
                        CopyVerdict::Damaged(reason) => reason.clone(),
                    },
                })
                .collect(),
        }
    }
}

/// An md array.
#[derive(Debug, Serialize)]
pub(crate) struct ArrayJson {
    path: String,
    uuid: String,
    name: Option<String>,
    metadata: String,
    level: String,
    layout: Option<String>,
    /// Bytes; 0 where there are none.
    chunk: u64,
    is_degraded: bool,
    is_dirty: bool,
    members: Vec<MemberJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemberJson {
    /// The device's path; none for a missing member.
    path: Option<String>,
    role: Option<u32>,
    state: String,
}

impl ArrayJson {
    pub(crate) fn new(found: &FoundArray, storage: &Storage) -> Self {
        let array = &found.array;
        let path = |index: usize| Some(storage.node(*found.members.get(index)?).path.clone());
        Self {
            path: storage.node(found.node).path.clone(),
            uuid: array.uuid.to_string(),
            name: array.name.clone(),
            metadata: array.version.to_string(),
            level: array.level.clone(),
            layout: array.layout.clone(),
            chunk: array.chunk,
            is_degraded: array.is_degraded,
            is_dirty: array.is_dirty,
            members: array
                .members
                .iter()
                .map(|member| MemberJson {
                    path: member.member.and_then(path),
                    role: match member.role {
                        Role::Active(number) => Some(number),
                        Role::Spare | Role::Faulty | Role::Journal => None,
                    },
                    state: member.state.to_string(),
                })
                .collect(),
        }
    }
}
