//! What a rule may look at.

use boot::BootTrace;
use boot::fstab::Unit;
use guest::{ConfigFile, Guest};
use guest_files::fstab::{Entry, Field, Fstab};
use storage::{Bus, DeviceNames, Hardware, NodeId, NodeKind, Storage, Target, udev_node};

use crate::finding::Place;

/// One installed system with everything known about it.
#[derive(Debug)]
pub struct Case<'a> {
    /// What is on the disks.
    pub storage: &'a Storage,
    /// The system.
    pub guest: &'a Guest,
    /// Its simulated boots; the first is the machine as it stands.
    pub boots: Vec<&'a BootTrace>,
    /// The names on the machine as it stands.
    pub names: DeviceNames,
}

impl<'a> Case<'a> {
    /// The case of one system, with those of the boots that are its own.
    pub fn new(storage: &'a Storage, guest: &'a Guest, boots: &'a [BootTrace]) -> Self {
        let boots: Vec<&BootTrace> = boots.iter().filter(|boot| boot.guest == Some(guest.root)).collect();
        let disks = storage.iter().filter(|(_, node)| matches!(node.kind, NodeKind::Disk(_))).count();
        let as_is = Hardware::new(guest.bus.unwrap_or(Bus::VirtioBlk), disks);
        let names = DeviceNames::new(storage, boots.first().map_or(&as_is, |boot| &boot.hardware));
        Self { storage, guest, boots, names }
    }

    /// Every fstab entry with the mount or swap unit that systemd makes of it.
    pub fn fstab_units(&self) -> Vec<(&'a ConfigFile<Fstab>, &'a Entry, Unit)> {
        let Some(file) = &self.guest.fstab else { return Vec::new() };
        let (units, _) = boot::fstab::generate(&file.document);
        units
            .into_iter()
            .filter(|unit| !unit.name.ends_with(".automount"))
            .filter_map(|unit| {
                let entry = file.document.entries().iter().find(|entry| entry.line == unit.line)?;
                Some((file, entry, unit))
            })
            .collect()
    }

    /// The node that an fstab source leads to on the machine as it stands.
    pub fn resolve(&self, source: &[u8]) -> Option<Target> {
        self.names.get(&udev_node(source)?)
    }

    /// The place of one field of an fstab entry.
    pub fn place(&self, file: &ConfigFile<Fstab>, entry: &Entry, field: &Field) -> Place {
        let start = field.span.start.saturating_sub(entry.span.start);
        let end = field.span.end.saturating_sub(entry.span.start);
        let text = String::from_utf8_lossy(file.document.slice(entry.span.clone())).into_owned();
        Place { node: file.node, file: file.path.clone(), line: entry.line, columns: start..end, text }
    }

    /// The nodes other than `node` whose content has the same UUID.
    pub fn same_uuid(&self, node: NodeId) -> Vec<NodeId> {
        let Some(uuid) = self.storage.node(node).uuid() else { return Vec::new() };
        let others = self.storage.iter().filter(|(id, other)| *id != node && other.uuid() == Some(uuid));
        others.map(|(id, _)| id).collect()
    }
}
