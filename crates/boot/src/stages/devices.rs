//! The devices that a system sees at one time: those that its drivers bring up, whose tables it takes and whose layers it makes.

use std::collections::{BTreeMap, BTreeSet};

use guest_files::crypttab;
use storage::{
    Bus, Content, DeviceNames, Firmware, Hardware, NodeId, NodeKind, Slot, Storage, Target,
    depends_on_machine, kernel_disk_name, udev_node,
};

use super::drivers::{Drivers, Lack};
use crate::mdadm_conf;

/// Lines of a crypttab whose sources are asked for; real ones have a handful.
const MAX_SOURCES: usize = 16;

/// The kinds of controllers that give out names `sda`, where they are several: each is probed by itself.
fn racing(hardware: &Hardware) -> Vec<Bus> {
    let buses = hardware.slots.iter().map(|slot| slot.bus);
    let named = buses.filter(|bus| !matches!(bus, Bus::VirtioBlk | Bus::Nvme | Bus::Xen));
    let kinds: BTreeSet<Bus> = named.collect();
    if kinds.len() > 1 { kinds.into_iter().collect() } else { Vec::new() }
}

/// Why the kernel refuses a file system that is longer than its device: ext2 to ext4 and XFS compare the two.
pub(super) fn overhang(storage: &Storage, id: NodeId) -> Option<String> {
    let node = storage.node(id);
    if !matches!(node.content_type(), Some("ext2" | "ext3" | "ext4" | "xfs")) {
        return None;
    }
    // Linux cuts a partition that goes on behind its disk's end.
    let rest = match (&node.kind, node.parents.first()) {
        (NodeKind::Partition(partition), Some(disk)) => {
            storage.node(*disk).size.saturating_sub(partition.start)
        }
        _ => node.size,
    };
    let device = node.size.min(rest);
    let size = node.boot_loader_view().ok()?.fs.info().size;
    (size > device)
        .then(|| format!("{} has {device} bytes on its disk, and its file system {size}", node.path))
}

/// Devices as they appear with given drivers.
pub(crate) struct Devices<'a> {
    storage: &'a Storage,
    /// The names of what is there.
    pub(super) names: DeviceNames,
    /// Slots whose disks no driver brings up.
    undriven: Vec<(Slot, Lack)>,
    /// Nodes that are not made, though their disks are there: the rule, and why.
    blocked: BTreeMap<NodeId, (&'static str, String)>,
    /// Whether serial numbers are others than those that the guest knew.
    is_clone: bool,
    /// Names that a crypttab gives.
    mapped: BTreeMap<String, NodeId>,
    /// Names of a crypttab and of arrays whose sources are not there, with those.
    unmapped: BTreeMap<String, String>,
    /// The file whose lines number arrays, once it was read.
    array_file: Option<String>,
    /// Buses of several kinds whose disks are all called `sd`: which comes first is chance.
    racing: Vec<Bus>,
    /// Names of which nothing is known but why: what they stand for was not opened.
    sealed: BTreeMap<String, String>,
}

/// What a name leads to.
pub(crate) enum Found {
    Node(NodeId),
    /// A further disk without content.
    Extra,
    /// Several claim it.
    Ambiguous,
    /// Nothing: because of this rule, for this reason; without one, nothing has such a name at all.
    Nothing(Option<(&'static str, String)>),
    /// Cannot be said.
    Unknown(String),
}

impl<'a> Devices<'a> {
    pub(crate) fn new(
        storage: &'a Storage,
        hardware: &Hardware,
        firmware: Firmware,
        drivers: &Drivers<'_>,
    ) -> Self {
        let mut undriven = Vec::new();
        let mut visible = Hardware { slots: Vec::new(), ..hardware.clone() };
        for slot in &hardware.slots {
            match drivers.bus(slot.bus) {
                Ok(()) => visible.slots.push(*slot),
                Err(lack) => undriven.push((*slot, lack)),
            }
        }
        let mut devices = Self {
            storage,
            names: DeviceNames::new(storage, &visible),
            undriven,
            is_clone: hardware.is_clone,
            blocked: BTreeMap::new(),
            mapped: BTreeMap::new(),
            unmapped: BTreeMap::new(),
            array_file: None,
            racing: racing(hardware),
            sealed: BTreeMap::new(),
        };
        devices.block_partitions(firmware);
        devices.block_twins();
        // What only we conclude, lvm2 does not see.
        for (id, pv) in storage.pvs.iter().filter(|(_, pv)| pv.label_sector.is_none()) {
            let reason = format!("the label of the physical volume {} is lost", pv.uuid);
            devices.block(*id, "lvm.pv-missing", reason);
        }
        devices
    }

    /// Partitions of tables that Linux does not take. OVMF writes a good copy over a bad one before.
    fn block_partitions(&mut self, firmware: Firmware) {
        for (id, node) in self.storage.iter() {
            let Content::Partitions(table) = &node.content else { continue };
            let judges = &table.judges;
            let is_mended = firmware == Firmware::Uefi && judges.ovmf.is_accepted();
            if let volume::Judgement::Rejects { reason } = &judges.linux
                && !is_mended
            {
                for (child, node) in self.storage.children(id) {
                    if matches!(node.kind, NodeKind::Partition(_)) {
                        self.blocked.insert(child, ("gpt.primary-invalid", reason.clone()));
                    }
                }
            }
        }
    }

    /// Physical volumes that are there twice: lvm2 takes neither for a group that it is to activate.
    fn block_twins(&mut self) {
        let mut by_uuid: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (id, pv) in &self.storage.pvs {
            if self.names.of(*id).next().is_some() {
                by_uuid.entry(&pv.uuid).or_default().push(*id);
            }
        }
        for (uuid, twins) in by_uuid.into_iter().filter(|(_, twins)| twins.len() > 1) {
            let paths: Vec<&str> = twins.iter().map(|id| self.storage.node(*id).path.as_str()).collect();
            let reason = format!("{} are both the physical volume {uuid}", paths.join(" and "));
            for id in &twins {
                self.blocked.insert(*id, ("id.duplicate", reason.clone()));
            }
        }
    }

    pub(crate) fn block(&mut self, id: NodeId, rule: &'static str, reason: impl Into<String>) {
        self.blocked.insert(id, (rule, reason.into()));
    }

    /// A name that will be there, with content that nobody here has seen.
    pub(crate) fn seal(&mut self, name: String, reason: String) {
        self.sealed.insert(name, reason);
    }

    /// The names that a crypttab gives to what it opens.
    pub(crate) fn add_crypttab(&mut self, text: &str) {
        for crypttab::Entry { name, source, .. } in crypttab::parse(text.as_bytes()) {
            let Some(path) = udev_node(source.as_bytes()) else { continue };
            let Some(Target::Node(container)) = self.names.get(&path) else {
                self.unmapped.insert(format!("/dev/mapper/{name}"), path);
                continue;
            };
            let opened = self
                .storage
                .children(container)
                .find(|(_, node)| matches!(node.kind, NodeKind::Decrypted { .. }));
            if let Some((id, _)) = opened {
                self.mapped.insert(format!("/dev/mapper/{name}"), id);
            }
        }
    }

    /// The numbers that mdadm gives to arrays by the text of its configuration `file`: those that it asks for, and 127 to one
    /// that it does not name and that is another host's. What was read before no longer counts.
    pub(crate) fn add_mdadm_conf(&mut self, text: &str, file: String) {
        self.mapped.retain(|name, _| mdadm_conf::number_of(name).is_none());
        self.unmapped.retain(|name, _| mdadm_conf::number_of(name).is_none());
        let asked = mdadm_conf::arrays(text);
        let (mut numbered, mut rest) = (Vec::new(), Vec::new());
        for (id, node) in self.storage.iter() {
            let NodeKind::Array { uuid, name, .. } = &node.kind else { continue };
            let digits: String =
                uuid.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase();
            match asked.iter().find(|(asked, _)| *asked == digits) {
                Some((_, Some(number))) => numbered.push((id, *number)),
                _ => rest.push((id, name.as_deref().is_some_and(|name| name.contains(':')))),
            }
        }
        // Of several it is chance which gets that; one that is no host's, or taken for this one's, may get its own.
        let is_sure = match rest.as_slice() {
            [] => true,
            [(id, true)] if !text.contains("<ignore>") => {
                numbered.push((*id, 127));
                true
            }
            _ => false,
        };
        self.array_file = is_sure.then_some(file);
        self.number_arrays(&numbered);
    }

    fn number_arrays(&mut self, numbered: &[(NodeId, u32)]) {
        // By any name that an array would have, so that what keeps it away is found.
        let is_here = |id: NodeId| self.names.of(id).next().is_some();
        let all = numbered
            .iter()
            .any(|(id, _)| !is_here(*id))
            .then(|| DeviceNames::new(self.storage, &self.all_disks()));
        for (id, number) in numbered {
            let name = format!("/dev/md{number}");
            if self.names.of(*id).next().is_some() {
                self.mapped.insert(name, *id);
            } else if let Some(known) = all.as_ref().and_then(|all| all.of(*id).next()) {
                self.unmapped.insert(name, known.to_owned());
            }
        }
    }

    /// Every disk, on the bus of those without a driver.
    fn all_disks(&self) -> Hardware {
        let slots = self.storage.iter().filter_map(|(_, node)| match node.kind {
            NodeKind::Disk(disk) => Some(disk),
            _ => None,
        });
        let bus = self.undriven.first().map_or(storage::Bus::VirtioBlk, |(slot, _)| slot.bus);
        Hardware { slots: slots.map(|disk| Slot { bus, disk: Some(disk) }).collect(), ..Hardware::default() }
    }

    /// What `path` leads to.
    pub(crate) fn find(&self, path: &str) -> Found {
        if path.starts_with("/dev/sd") && !self.racing.is_empty() {
            let buses: Vec<String> = self.racing.iter().map(ToString::to_string).collect();
            return Found::Unknown(format!(
                "which disk is {path} is chance: {} are probed side by side",
                buses.join(" and ")
            ));
        }
        let target = self.mapped.get(path).map(|id| Target::Node(*id)).or_else(|| self.names.get(path));
        match target {
            Some(Target::Node(id)) => match self.block_of(id) {
                Some((rule, reason)) => Found::Nothing(Some((rule, reason))),
                None => Found::Node(id),
            },
            Some(Target::Extra) => Found::Extra,
            Some(Target::Ambiguous) => Found::Ambiguous,
            None if self.sealed.contains_key(path) => {
                Found::Unknown(format!("{path} {}", self.sealed.get(path).map_or("", String::as_str)))
            }
            None if self.is_clone && path.starts_with("/dev/disk/by-id/") => Found::Nothing(None),
            None if mdadm_conf::number_of(path).is_some() && self.array_file.is_some() => {
                match (self.unmapped.contains_key(path), &self.array_file) {
                    (false, Some(file)) => {
                        Found::Nothing(Some(("md.conf-stale", format!("{file} calls no array {path}"))))
                    }
                    _ => self.missing(path),
                }
            }
            None if depends_on_machine(path) => {
                Found::Unknown(format!("{path} is made from what only the machine knows"))
            }
            None => self.missing(path),
        }
    }

    /// Why what a crypttab or mdadm.conf names is not made: its disk has no driver.
    pub(crate) fn undriven_source(&self) -> Option<(&'static str, String)> {
        self.unmapped.values().take(MAX_SOURCES).find_map(|source| match self.missing(source) {
            Found::Nothing(why) => why,
            _ => None,
        })
    }

    /// Why nothing has this name: a disk without a driver, or no disk at all.
    fn missing(&self, path: &str) -> Found {
        if self.undriven.is_empty() {
            return Found::Nothing(None);
        }
        let path = self.unmapped.get(path).map_or(path, String::as_str);
        // Whether it would be there with all drivers.
        let all =
            Hardware { slots: self.undriven.iter().map(|(slot, _)| *slot).collect(), ..Hardware::default() };
        let would_be =
            DeviceNames::new(self.storage, &all).get(path).is_some() || kernel_disk_name(path).is_some();
        let Some((slot, lack)) = self.undriven.first().filter(|_| would_be) else {
            // A volume over several disks needs each of them.
            return self.missing_part(path);
        };
        self.lack(slot, lack)
    }

    fn missing_part(&self, path: &str) -> Found {
        let all = self.all_disks();
        match (DeviceNames::new(self.storage, &all).get(path), self.undriven.first()) {
            (Some(_), Some((slot, lack))) => self.lack(slot, lack),
            _ => Found::Nothing(None),
        }
    }

    fn lack(&self, slot: &Slot, lack: &Lack) -> Found {
        match lack {
            Lack::Module(module) => Found::Nothing(Some((
                "initramfs.missing-driver",
                format!("disks on {} need the module {module}, which is not there", slot.bus),
            ))),
            Lack::NotInKernel(module) => Found::Nothing(Some((
                "kernel.bus-driver-unavailable",
                format!("this kernel has no {module}, which disks on {} need", slot.bus),
            ))),
            Lack::Blacklisted(module, place) => Found::Nothing(Some((
                "modprobe.storage-blacklisted",
                format!(
                    "{}:{} keeps {module} from being loaded, which disks on {} need",
                    place.file, place.line, slot.bus
                ),
            ))),
            Lack::Unknown(reason) => Found::Unknown(reason.clone()),
        }
    }

    /// Whether a node appears: its disks are driven, and nothing keeps it away.
    pub(super) fn is_made(&self, id: NodeId) -> bool {
        self.names.of(id).next().is_some() && self.block_of(id).is_none()
    }

    fn block_of(&self, id: NodeId) -> Option<(&'static str, String)> {
        let mut todo = vec![id];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            if let Some(block) = self.blocked.get(&id) {
                return Some(block.clone());
            }
            todo.extend(&self.storage.node(id).parents);
        }
        None
    }
}
