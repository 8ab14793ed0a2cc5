//! Probing and stacking.

use std::collections::BTreeSet;
use std::sync::Arc;

use blockdev::{Device, Slice};
use filesystem::{Error, Format, SetMember};
use luks::Keyring;
use volume::lvm2::{self, PhysicalVolume};
use volume::md::{self, Array, Member};
use volume::{Partition, read_table};

use crate::graph::{Content, Encrypted, FoundArray, Node, NodeId, NodeKind, Storage, Views};
use crate::signature;

/// Every file system format that can be opened, in the order of probing.
pub static FILESYSTEMS: &[&Format] = &[
    &filesystem_ext4::FORMAT,
    &filesystem_xfs::FORMAT,
    &filesystem_btrfs::FORMAT,
    &filesystem_fat::FORMAT,
    &filesystem_ntfs::FORMAT,
    &filesystem_iso9660::FORMAT,
    &filesystem_squashfs::FORMAT,
];

/// How many devices may lie one within the other; a bound for images made to have no end.
const MAX_DEPTH: usize = 16;

/// How many nodes a graph may have, for the same reason.
const MAX_NODES: usize = 10_000;

/// Probes `disks` and everything on them; what is encrypted is opened with `keys`. Never fails: what cannot be read is
/// a problem of its node.
pub fn discover(disks: &[Device], keys: &Keyring) -> Storage {
    let mut walk = Walk {
        storage: Storage::default(),
        keys,
        members: Vec::new(),
        unknown: Vec::new(),
        depths: Vec::new(),
    };
    for (index, disk) in disks.iter().enumerate() {
        walk.add(Node {
            path: format!("disk{index}"),
            kind: NodeKind::Disk(index),
            parents: Vec::new(),
            size: disk.size(),
            device: Some(disk.clone()),
            content: Content::Unknown,
            problems: Vec::new(),
            views: Views::default(),
        });
    }
    walk.assemble();
    walk.gather();
    walk.storage
}

struct Walk<'a> {
    storage: Storage,
    keys: &'a Keyring,
    /// Every member of an md array found so far, with its node.
    members: Vec<(NodeId, Member)>,
    /// Where nothing known was found, and a physical volume may have lost its label.
    unknown: Vec<NodeId>,
    /// For each node, how many devices lie below it, itself included.
    depths: Vec<usize>,
}

impl Walk<'_> {
    /// Adds a node, probes it, and adds what lies on it.
    fn add(&mut self, mut node: Node) -> NodeId {
        let id = NodeId(self.storage.nodes.len());
        let mut partitions = Vec::new();
        let mut opened = None;
        let below = node.parents.iter().filter_map(|parent| self.depths.get(parent.0));
        let depth = below.max().copied().unwrap_or(0);
        self.depths.push(depth + 1);
        if depth > MAX_DEPTH || id.0 > MAX_NODES {
            node.problems.push(Error::unsupported("device", "so many devices one within the other"));
        } else if let Some(device) = node.device.clone() {
            match self.probe(id, &node.kind, &device, &mut node.problems) {
                Ok(content) => node.content = content,
                Err(error) => node.problems.push(error),
            }
            match &mut node.content {
                Content::Partitions(table) => partitions = table.partitions.clone(),
                Content::Encrypted(encrypted) => match self.keys.unlock(&encrypted.container, &device) {
                    Ok(found) => opened = Some((encrypted.container.uuid.clone(), found)),
                    Err(reason) => encrypted.locked = Some(reason.to_string()),
                },
                _ => {}
            }
        }
        self.storage.nodes.push(node);
        for partition in partitions {
            self.add_partition(id, partition);
        }
        if let Some((uuid, (slot, device))) = opened {
            self.add(Node {
                path: self.unique(format!("luks-{uuid}")),
                kind: NodeKind::Decrypted { uuid, slot },
                parents: vec![id],
                size: device.size(),
                device: Some(device),
                content: Content::Unknown,
                problems: Vec::new(),
                views: Views::default(),
            });
        }
        id
    }

    /// `path`, or, where a node has it already, `path` with a number behind it.
    fn unique(&self, path: String) -> String {
        let is_taken = |path: &str| self.storage.nodes.iter().any(|node| node.path == path);
        if !is_taken(&path) {
            return path;
        }
        (2..).map(|number| format!("{path}~{number}")).find(|path| !is_taken(path)).unwrap_or(path)
    }

    fn probe(
        &mut self,
        id: NodeId,
        kind: &NodeKind,
        device: &Device,
        problems: &mut Vec<Error>,
    ) -> Result<Content, Error> {
        // The kernel looks for partitions on disks and arrays, never within a partition or a logical volume.
        let may_have_partitions = matches!(kind, NodeKind::Disk(_) | NodeKind::Array { .. });
        // The order is blkid's: what owns a device before what may only be left over on it.
        match md::read_member(device) {
            // A 0.90 superblock does not say where it belongs: at the end of a disk it may be its last partition's.
            Ok(Some(found)) if may_have_partitions && is_of_a_partition(device, &found.value) => {}
            Ok(Some(found)) => {
                problems.extend(found.problems);
                let identity = found.value.identity();
                self.members.push((id, found.value));
                return Ok(Content::RaidMember {
                    uuid: identity.uuid,
                    name: identity.label,
                    array: None,
                    state: None,
                });
            }
            Ok(None) => {}
            Err(error) => problems.push(error),
        }
        match luks::read(device) {
            Ok(Some(found)) => {
                problems.extend(found.problems);
                return Ok(Content::Encrypted(Box::new(Encrypted { container: found.value, locked: None })));
            }
            Ok(None) => {}
            Err(error) => problems.push(error),
        }
        if let Some(content) = self.physical_volume(id, device, problems) {
            return Ok(content);
        }
        let container = signature::container(device.as_ref())?;
        if may_have_partitions && let Some(table) = read_table(device.as_ref())? {
            problems.extend(table.problems);
            if let Some(signature) = container {
                problems
                    .push(Error::unsupported("disk", format!("{} beside a partition table", signature.kind)));
            }
            return Ok(Content::Partitions(table.value));
        }
        if let Some(signature) = container {
            return Ok(Content::Recognised(signature));
        }
        for format in FILESYSTEMS {
            match (format.probe)(device.as_ref()) {
                Ok(Some(identity)) => {
                    return Ok(Content::FileSystem { format, identity, others: Vec::new() });
                }
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        if let Some(signature) = signature::file_system(device.as_ref())? {
            return Ok(Content::Recognised(signature));
        }
        self.remains(id, may_have_partitions, device, problems)
    }

    fn physical_volume(&mut self, id: NodeId, device: &Device, problems: &mut Vec<Error>) -> Option<Content> {
        match lvm2::read_pv(device) {
            Ok(Some(found)) => {
                problems.extend(found.problems);
                let uuid = found.value.uuid.clone();
                self.storage.pvs.push((id, found.value));
                Some(Content::PhysicalVolume { uuid, group: None })
            }
            Ok(None) => None,
            Err(error) => {
                problems.push(error);
                None
            }
        }
    }

    /// What is left where a first structure is gone: second copies, or noise.
    fn remains(
        &mut self,
        id: NodeId,
        may_have_partitions: bool,
        device: &Device,
        problems: &mut Vec<Error>,
    ) -> Result<Content, Error> {
        self.unknown.push(id);
        if let Some(found) = luks::read_secondary(device)? {
            problems.extend(found.problems);
            return Ok(Content::Encrypted(Box::new(Encrypted { container: found.value, locked: None })));
        }
        if let Some(kind) = signature::table(device.as_ref())?.filter(|_| may_have_partitions) {
            problems.push(Error::unsupported("partition table", kind));
            return Ok(Content::Unknown);
        }
        if signature::is_noise(device.as_ref())? {
            return Ok(Content::Noise);
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
        self.add(Node {
            path,
            kind,
            parents: vec![disk],
            size,
            device,
            content: Content::Unknown,
            problems,
            views: Views::default(),
        });
    }

    /// Assembles arrays and volume groups until nothing is new. What is whole comes first: a missing part may lie on it.
    fn assemble(&mut self) {
        while self.storage.nodes.len() <= MAX_NODES
            && (self.next_arrays(true)
                || self.next_groups(true)
                || self.recover()
                || self.next_arrays(false)
                || self.next_groups(false))
        {}
        let pvs: Vec<PhysicalVolume> = self.storage.pvs.iter().map(|(_, pv)| pv.clone()).collect();
        self.storage.problems.extend(lvm2::assemble(&pvs).problems);
    }

    /// Tells every device of a file system on several of the others.
    fn gather(&mut self) {
        let mut members: Vec<(NodeId, SetMember)> = Vec::new();
        for (id, node) in self.storage.iter() {
            let (Content::FileSystem { format, .. }, Some(device)) = (&node.content, &node.device) else {
                continue;
            };
            let Some(set) = &format.set else { continue };
            if let Ok(Some(member)) = (set.member)(device.as_ref())
                && member.count > 1
            {
                members.push((id, member));
            }
        }
        for (id, member) in &members {
            let mut numbers = vec![member.number];
            let mut found = Vec::new();
            for (other, theirs) in &members {
                // A copy of a device that is there already is not another device of the set.
                if theirs.set == member.set && !numbers.contains(&theirs.number) {
                    numbers.push(theirs.number);
                    found.extend(self.storage.node(*other).device.clone());
                }
            }
            if let Some(node) = self.storage.nodes.get_mut(id.0)
                && let Content::FileSystem { others, .. } = &mut node.content
            {
                *others = found;
            }
        }
    }

    /// Finds one physical volume whose label is gone, by the metadata that is still there.
    fn recover(&mut self) -> bool {
        let pvs: Vec<PhysicalVolume> = self.storage.pvs.iter().map(|(_, pv)| pv.clone()).collect();
        while let Some(id) = self.unknown.pop() {
            let Some(node) = self.storage.nodes.get_mut(id.0) else { continue };
            let Some(device) = node.device.clone().filter(|_| matches!(node.content, Content::Unknown))
            else {
                continue;
            };
            match lvm2::recover_pv(&device, &pvs) {
                Ok(Some(found)) => {
                    node.problems.extend(found.problems);
                    node.content = Content::PhysicalVolume { uuid: found.value.uuid.clone(), group: None };
                    self.storage.pvs.push((id, found.value));
                    return true;
                }
                Ok(None) => {}
                Err(error) => node.problems.push(error),
            }
        }
        false
    }

    /// Adds the arrays that are not yet there; whether there were any. All at once, for assembling costs as much as there
    /// are members.
    fn next_arrays(&mut self, must_be_whole: bool) -> bool {
        let known: Vec<_> = self.storage.arrays.iter().map(|found| found.array.uuid).collect();
        if self.members.iter().all(|(_, member)| known.contains(&member.superblock.array_uuid)) {
            return false;
        }
        let members: Vec<Member> = self.members.iter().map(|(_, member)| member.clone()).collect();
        let is_next = |array: &Array| {
            !known.contains(&array.uuid) && (!must_be_whole || !array.is_degraded && array.device.is_ok())
        };
        let next: Vec<_> = md::assemble(&members).into_iter().filter(|found| is_next(&found.value)).collect();
        let is_any = !next.is_empty();
        for found in next {
            // Members that are found from here on are behind those that the array counts.
            self.add_array(found.value, found.problems);
        }
        is_any
    }

    fn add_array(&mut self, array: Array, problems: Vec<Error>) {
        let uuid = array.uuid.to_string();
        let name = array.name.clone().filter(|name| !name.is_empty());
        // `host:name` is called by its name on that host; without one, the start of the UUID tells arrays apart.
        let short = name.as_deref().map_or(uuid.get(..8).unwrap_or("array"), |name| {
            name.split_once(':').map_or(name, |(_, name)| name)
        });
        let path = self.unique(format!("md/{short}"));
        let mut parents = Vec::new();
        for member in &array.members {
            let Some((id, _)) = member.member.and_then(|index| self.members.get(index)) else { continue };
            parents.push(*id);
            if let Some(node) = self.storage.nodes.get_mut(id.0)
                && let Content::RaidMember { array, state, .. } = &mut node.content
            {
                *array = Some(path.clone());
                *state = Some(member.state.to_string());
            }
        }
        let device = array.device.as_ref().ok().cloned();
        let members = self.members.iter().map(|(id, _)| *id).collect();
        let kind = NodeKind::Array { uuid, name, level: array.level.clone() };
        let size = array.size;
        // Its place in the list is taken before what lies on it is looked at.
        let node = NodeId(self.storage.nodes.len());
        self.storage.arrays.push(FoundArray { node, array, members });
        self.add(Node {
            path,
            kind,
            parents,
            size,
            device,
            content: Content::Unknown,
            problems,
            views: Views::default(),
        });
    }

    /// Adds the volume groups that are not yet there; whether there were any.
    fn next_groups(&mut self, must_be_whole: bool) -> bool {
        let pvs: Vec<PhysicalVolume> = self.storage.pvs.iter().map(|(_, pv)| pv.clone()).collect();
        let known: BTreeSet<String> = self.storage.groups.iter().map(|group| group.uuid.clone()).collect();
        let is_next = |group: &lvm2::VolumeGroup| {
            let is_whole = group.pvs.iter().all(|pv| pv.device.is_some());
            !known.contains(&group.uuid) && (is_whole || !must_be_whole)
        };
        let assembled = lvm2::assemble(&pvs).value;
        let next: Vec<_> = assembled.into_iter().filter(|found| is_next(&found.value)).collect();
        let is_any = !next.is_empty();
        for found in next {
            self.storage.problems.extend(found.problems);
            self.add_group(found.value);
        }
        is_any
    }

    fn add_group(&mut self, group: lvm2::VolumeGroup) {
        let mut parents = Vec::new();
        for (id, pv) in &self.storage.pvs {
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
                // What lies on a hidden part says so; the part itself would only say it again.
                Err(reason) if lv.is_visible => (None, vec![Error::unavailable("logical volume", reason)]),
                Err(_) => (None, Vec::new()),
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
                views: Views::default(),
            });
        }
        self.storage.groups.push(group);
    }
}

/// Whether the superblock that was found on a whole device lies in a partition, which then is the member.
fn is_of_a_partition(device: &Device, member: &Member) -> bool {
    let superblock = &member.superblock;
    if !matches!(superblock.version, md::Version::V0_90 { .. }) {
        return false;
    }
    let Ok(Some(table)) = read_table(device.as_ref()) else { return false };
    table.value.partitions.iter().any(|partition| {
        (partition.start..partition.start.saturating_add(partition.length)).contains(&superblock.offset)
            && partition.type_name != Some("extended")
    })
}
