//! What LVM's configuration keeps from being seen or activated: its copy in an initramfs, and later that on the root file system.
//!
//! lvm.conf(5), lvmdevices(8), lvmautoactivation(7).

use std::collections::BTreeSet;

use filesystem::path::resolve;
use guest::Guest;
use storage::{Bus, Hardware, Node, NodeId, NodeKind, Storage, kernel_disk_name};

use super::devices::Devices;
use super::kernel::{Kind, Unpacked};
use crate::lvm_conf;
use crate::lvm_devices::{self, DevicesFile};

const CONF: &str = "etc/lvm/lvm.conf";
/// What it sets counts more.
const LOCAL_CONF: &str = "etc/lvm/lvmlocal.conf";
const DEVICES_FILE: &str = "etc/lvm/devices/system.devices";
/// Larger than any real configuration file.
const MAX_CONF: u64 = 1 << 20;
/// Activates at boot where events do not: of lvm2 before 2.03.15.
const GENERATOR: &str = "/usr/lib/systemd/system-generators/lvm2-activation-generator";

/// lvm2's rules that activate a group once its disks are there.
const EVENT_RULES: [&str; 2] = ["usr/lib/udev/rules.d/69-lvm.rules", "lib/udev/rules.d/69-lvm.rules"];

/// What keeps a volume away, with the rule that says so.
type Excluded = (NodeId, &'static str, String);

/// The configuration at one time.
pub(crate) struct Settings {
    conf: Option<String>,
    devices_file: Option<String>,
    /// ` of IMAGE`, or nothing on the root file system.
    owner: String,
    /// What stands before a path.
    prefix: &'static str,
    /// Whether it is events that activate: not so where a script activates by name.
    is_by_events: bool,
}

/// The file of the root file system that a rule is about.
pub(super) fn file_of(rule: &str) -> &'static str {
    match rule {
        "lvm.devices-file-excludes" => "/etc/lvm/devices/system.devices",
        "lvm.filter-excludes" | "lvm.activation-disabled" => "/etc/lvm/lvm.conf",
        _ => "",
    }
}

/// The volumes that are active when the initramfs hands over: every one that it may activate, with dracut or where initramfs-tools
/// has put lvm2's rules for events into the image; else those below the root.
pub(super) fn active(
    storage: &Storage,
    guest: &Guest,
    unpacked: &Unpacked,
    devices: &Devices<'_>,
) -> BTreeSet<NodeId> {
    if unpacked.kind == Kind::Dracut || has_event_rules(unpacked) {
        return made(storage, devices);
    }
    let is_volume = |id: &NodeId| matches!(storage.node(*id).kind, NodeKind::LogicalVolume { .. });
    let mounted = guest.mounts.iter().filter(|mount| matches!(mount.target.as_str(), "/" | "/usr"));
    below(storage, mounted.map(|mount| mount.node).collect()).into_iter().filter(is_volume).collect()
}

fn has_event_rules(unpacked: &Unpacked) -> bool {
    EVENT_RULES.iter().any(|path| unpacked.has(path))
}

/// The volumes that nothing keeps away.
pub(crate) fn made(storage: &Storage, devices: &Devices<'_>) -> BTreeSet<NodeId> {
    volumes(storage).map(|(id, _)| id).filter(|id| devices.is_made(*id)).collect()
}

fn volumes(storage: &Storage) -> impl Iterator<Item = (NodeId, &Node)> {
    storage.iter().filter(|(_, node)| matches!(node.kind, NodeKind::LogicalVolume { .. }))
}

/// These nodes and all that they lie on.
fn below(storage: &Storage, mut todo: Vec<NodeId>) -> BTreeSet<NodeId> {
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            todo.extend(&storage.node(id).parents);
        }
    }
    seen
}

impl Settings {
    pub(super) fn of_image(unpacked: &Unpacked) -> Self {
        Self {
            conf: joined([CONF, LOCAL_CONF].map(|path| unpacked.text(path))),
            devices_file: unpacked.text(DEVICES_FILE),
            owner: format!(" of {}", unpacked.path),
            prefix: "",
            is_by_events: unpacked.kind == Kind::InitramfsTools && has_event_rules(unpacked),
        }
    }

    pub(crate) fn of_root(guest: &Guest) -> Self {
        let read = |path: &str| {
            Some(String::from_utf8_lossy(&guest.read(&format!("/{path}"), MAX_CONF).ok()?).into_owned())
        };
        Self {
            conf: joined([CONF, LOCAL_CONF].map(read)),
            devices_file: read(DEVICES_FILE),
            owner: String::new(),
            prefix: "/",
            is_by_events: true,
        }
    }

    /// Blocks what the initramfs neither sees nor activates.
    pub(super) fn block_in_image(
        &self,
        storage: &Storage,
        guest: Option<&Guest>,
        hardware: &Hardware,
        devices: &mut Devices<'_>,
    ) {
        // The file is long, and most systems have no volume.
        if storage.pvs.is_empty() {
            return;
        }
        let mut excluded = self.rejected(storage, guest, hardware, devices);
        excluded.extend(self.inactive(storage, false));
        for (id, rule, reason) in excluded {
            devices.block(id, rule, reason);
        }
    }

    /// Blocks what is not active yet, and is not activated by the events of its disks either.
    pub(crate) fn block_on_root(
        &self,
        storage: &Storage,
        guest: &Guest,
        hardware: &Hardware,
        active: &BTreeSet<NodeId>,
        devices: &mut Devices<'_>,
    ) {
        let generated = resolve(&guest.tree, GENERATOR.as_bytes()).is_ok();
        let mut excluded = self.inactive(storage, generated);
        let volumes: Vec<NodeId> = volumes(storage).map(|(id, _)| id).collect();
        for (pv, rule, reason) in self.rejected(storage, Some(guest), hardware, devices) {
            let on_it = volumes.iter().filter(|id| below(storage, vec![**id]).contains(&pv));
            excluded.extend(on_it.map(|id| (*id, rule, reason.clone())));
        }
        for (id, rule, reason) in excluded.into_iter().filter(|(id, ..)| !active.contains(id)) {
            devices.block(id, rule, reason);
        }
    }

    /// Volumes that are not activated once their disks are there; `has_service` where a service does so without events.
    fn inactive(&self, storage: &Storage, has_service: bool) -> Vec<Excluded> {
        let mut excluded = self.unlisted(storage, "volume_list", lvm_conf::volume_list);
        if !self.is_by_events {
            return excluded;
        }
        let (key, list) = ("auto_activation_volume_list", lvm_conf::auto_activation_volume_list);
        excluded.extend(self.unlisted(storage, key, list));
        if !has_service && !self.conf.as_deref().is_none_or(lvm_conf::has_event_activation) {
            let (prefix, owner) = (self.prefix, &self.owner);
            let reason =
                format!("event_activation in {prefix}{CONF}{owner} is off, and nothing else activates it");
            excluded.extend(volumes(storage).map(|(id, _)| (id, "lvm.activation-disabled", reason.clone())));
        }
        excluded
    }

    /// Volumes that a list of those that may be activated does not name.
    fn unlisted(&self, storage: &Storage, key: &str, list: fn(&str) -> Option<Vec<String>>) -> Vec<Excluded> {
        let Some(list) = self.conf.as_deref().and_then(list) else { return Vec::new() };
        let excluded = storage.iter().filter_map(|(id, node)| {
            let NodeKind::LogicalVolume { group, name, .. } = &node.kind else { return None };
            let is_listed = list.iter().any(|entry| entry == group || *entry == format!("{group}/{name}"));
            let reason = format!("{key} in {}{CONF}{} does not list {group}", self.prefix, self.owner);
            (!is_listed).then_some((id, "lvm.activation-disabled", reason))
        });
        excluded.collect()
    }

    /// Physical volumes that are passed over.
    fn rejected(
        &self,
        storage: &Storage,
        guest: Option<&Guest>,
        hardware: &Hardware,
        devices: &Devices<'_>,
    ) -> Vec<Excluded> {
        let is_default = has_devices_file_by_default(guest);
        match &self.devices_file {
            // Where it is used, filters do not count.
            Some(file) if lvm_devices::is_used(self.conf.as_deref(), is_default) => {
                let file = DevicesFile::parse(file);
                let excluded = storage.pvs.iter().filter_map(|(id, pv)| {
                    let disks = storage.disks_below(*id);
                    let slots = hardware.slots.iter();
                    let below = slots.filter(|slot| slot.disk.is_some_and(|disk| disks.contains(&disk)));
                    let buses: Vec<Bus> = below.map(|slot| slot.bus).collect();
                    let reason = file.excludes(&pv.uuid, hardware.is_clone, &buses)?;
                    let reason = format!("{}{DEVICES_FILE}{}: {reason}", self.prefix, self.owner);
                    Some((*id, "lvm.devices-file-excludes", reason))
                });
                excluded.collect()
            }
            _ => {
                let Some(filter) = self.conf.as_deref().and_then(lvm_conf::Filter::parse) else {
                    return Vec::new();
                };
                let rejected = storage.pvs.iter().filter_map(|(id, _)| {
                    let names: Vec<&str> = devices.names.of(*id).collect();
                    let is_rejected = !names.is_empty() && !filter.accepts(&names);
                    let kernel = names.iter().find(|name| kernel_disk_name(name).is_some()).or(names.first());
                    let name = kernel.filter(|_| is_rejected)?;
                    let reason =
                        format!("the filter in {}{CONF}{} passes {name} over", self.prefix, self.owner);
                    Some((*id, "lvm.filter-excludes", reason))
                });
                rejected.collect()
            }
        }
    }
}

/// Red Hat builds lvm2 so from its release 9 on, Fedora from 36 on.
fn has_devices_file_by_default(guest: Option<&Guest>) -> bool {
    let Some(guest) = guest else { return false };
    let get = |key: &str| guest.os_release.get(key).unwrap_or_default();
    let major = get("VERSION_ID").split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    let is_like = |id: &str| get("ID") == id || get("ID_LIKE").split_whitespace().any(|like| like == id);
    get("ID") == "fedora" && major >= 36 || is_like("rhel") && major >= 9
}

fn joined(texts: [Option<String>; 2]) -> Option<String> {
    texts.into_iter().flatten().map(|text| lvm_conf::code_of(&text)).reduce(|all, local| all + "\n" + &local)
}
