//! Probing and stacking.

use std::sync::Arc;

use blockdev::{Device, Slice};
use filesystem::{Error, Format};
use volume::lvm2::{self, PhysicalVolume};
use volume::{Partition, read_table};

use crate::graph::{Content, Node, NodeId, NodeKind, Storage};
use crate::signature;

/// Every file system format that can be opened, in the order of probing.
pub static FILESYSTEMS: &[&Format] = &[&filesystem_ext4::FORMAT, &filesystem_xfs::FORMAT];

/// Probes `disks` and everything on them. Never fails: what cannot be read is a problem of its node.
pub fn discover(disks: &[Device]) -> Storage {
    let mut walk = Walk { storage: Storage::default(), pvs: Vec::new() };
    for (index, disk) in disks.iter().enumerate() {
        walk.add(Node {
            path: format!("disk{index}"),
            kind: NodeKind::Disk(index),
            parents: Vec::new(),
            size: disk.size(),
            device: Some(disk.clone()),
            content: Content::Unknown,
            problems: Vec::new(),
        });
    }
    walk.assemble();
    walk.storage
}

struct Walk {
    storage: Storage,
    /// Every physical volume found so far, with its node.
    pvs: Vec<(NodeId, PhysicalVolume)>,
}

impl Walk {
    /// Adds a node, probes it, and adds what lies on it.
    fn add(&mut self, mut node: Node) -> NodeId {
        let id = NodeId(self.storage.nodes.len());
        let mut partitions = Vec::new();
        if let Some(device) = node.device.clone() {
            let is_disk = matches!(node.kind, NodeKind::Disk(_));
            match self.probe(id, is_disk, &device, &mut node.problems) {
                Ok(content) => node.content = content,
                Err(error) => node.problems.push(error),
            }
            if let Content::Partitions(table) = &node.content {
                partitions = table.partitions.clone();
            }
        }
        self.storage.nodes.push(node);
        for partition in partitions {
            self.add_partition(id, partition);
        }
        id
    }

    fn probe(
        &mut self,
        id: NodeId,
        is_disk: bool,
        device: &Device,
        problems: &mut Vec<Error>,
    ) -> Result<Content, Error> {
        // The order is blkid's: what owns a device before what may only be left over on it.
        match lvm2::read_pv(device) {
            Ok(Some(found)) => {
                problems.extend(found.problems);
                let uuid = found.value.uuid.clone();
                self.pvs.push((id, found.value));
                return Ok(Content::PhysicalVolume { uuid, group: None });
            }
            Ok(None) => {}
            Err(error) => problems.push(error),
        }
        // The kernel looks for partitions on disks only, never within a partition or a logical volume.
        if is_disk && let Some(table) = read_table(device.as_ref())? {
            problems.extend(table.problems);
            return Ok(Content::Partitions(table.value));
        }
        if let Some(signature) = signature::container(device.as_ref())? {
            return Ok(Content::Recognised(signature));
        }
        for format in FILESYSTEMS {
            match (format.probe)(device.as_ref()) {
                Ok(Some(identity)) => return Ok(Content::FileSystem { format, identity }),
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        if let Some(signature) = signature::file_system(device.as_ref())? {
            return Ok(Content::Recognised(signature));
        }
        Ok(Content::Unknown)
    }

    fn add_partition(&mut self, disk: NodeId, partition: Partition) {
        let parent = self.storage.node(disk);
        let mut problems = Vec::new();
        let is_extended = partition.type_name == Some("extended");
        let device = parent.device.clone().filter(|_| !is_extended).and_then(|device| {
            // The kernel cuts a partition that reaches past the end of its disk.
            let length = partition.length.min(device.size().saturating_sub(partition.start));
            match Slice::new(device, partition.start, length) {
                Ok(slice) => Some(Arc::new(slice) as Device),
                Err(source) => {
                    problems.push(Error::Io { offset: partition.start, length, source });
                    None
                }
            }
        });
        let path = format!("{}/p{}", parent.path, partition.number);
        let size = partition.length;
        let kind = NodeKind::Partition(partition);
        self.add(Node { path, kind, parents: vec![disk], size, device, content: Content::Unknown, problems });
    }

    /// Assembles volume groups until no logical volume carries a physical volume that is new.
    fn assemble(&mut self) {
        let mut known = 0;
        let mut problems = Vec::new();
        while self.pvs.len() > known {
            known = self.pvs.len();
            let pvs: Vec<PhysicalVolume> = self.pvs.iter().map(|(_, pv)| pv.clone()).collect();
            let assembled = lvm2::assemble(&pvs);
            problems = assembled.problems;
            for group in assembled.value {
                if !self.storage.groups.iter().any(|found| found.uuid == group.value.uuid) {
                    self.storage.problems.extend(group.problems);
                    self.add_group(group.value);
                }
            }
        }
        self.storage.problems.extend(problems);
    }

    fn add_group(&mut self, group: lvm2::VolumeGroup) {
        let mut parents = Vec::new();
        for (id, pv) in &self.pvs {
            if group.pvs.iter().any(|found| found.uuid == pv.uuid) {
                parents.push(*id);
                let content = &mut self.storage.nodes[id.0].content;
                if let Content::PhysicalVolume { group: name, .. } = content {
                    *name = Some(group.name.clone());
                }
            }
        }
        for lv in &group.lvs {
            let (device, problems) = match &lv.device {
                Ok(device) => (Some(device.clone()), Vec::new()),
                Err(_) if !lv.has_bytes() => (None, Vec::new()),
                Err(reason) => (None, vec![Error::unsupported("logical volume", reason)]),
            };
            self.add(Node {
                path: format!("{}/{}", group.name, lv.name),
                kind: NodeKind::LogicalVolume {
                    group: group.name.clone(),
                    name: lv.name.clone(),
                    uuid: lv.uuid.clone(),
                    kinds: lv.kinds.clone(),
                    is_visible: lv.is_visible,
                },
                parents: parents.clone(),
                size: lv.size,
                device,
                content: Content::Unknown,
                problems,
            });
        }
        self.storage.groups.push(group);
    }
}
