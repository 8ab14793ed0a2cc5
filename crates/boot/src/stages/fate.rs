//! What happens to one mount or swap on this hardware.

use filesystem::path::{PathError, resolve};
use filesystem::{FileKind, FileSystem};
use guest::Guest;
use guest_files::fstab::Entry;
use storage::{Content, NodeId, Storage};

use super::checks::{Checked, Checks};
use super::devices::{Devices, Found, overhang};
use super::drivers::{Drivers, Lack};
use super::features::{self, Refusal};
use super::mount_options;
use crate::fstab::{Unit, is_mountable_as};

/// How it ends.
pub(super) enum Fate {
    Works,
    /// The device never comes: why, and the rule that says so where it is not that nothing has such a name.
    NoDevice(String, Option<&'static str>),
    /// The device is there and cannot be mounted as asked.
    CannotMount(&'static str, String),
    /// It is the root, which is mounted already; the command that mounts it anew with fstab's options fails.
    StaysAsItIs(&'static str, String),
    /// It works or fails by which of two equal devices comes first.
    Chance(String),
    /// Nothing here says whether it works.
    Unknown(String),
}

/// What decides over a mount at one time of the boot.
pub(super) struct Time<'a> {
    pub(super) storage: &'a Storage,
    pub(super) guest: &'a Guest,
    pub(super) devices: &'a Devices<'a>,
    pub(super) drivers: &'a Drivers<'a>,
    pub(super) checks: &'a Checks<'a>,
}

/// What happens to a unit, by the device that it names and its line.
pub(super) fn of(time: &Time<'_>, unit: &Unit, entry: &Entry) -> Fate {
    let Time { storage, guest, devices, .. } = *time;
    if let Some(reason) = not_a_directory(guest, unit, entry) {
        return Fate::CannotMount("fstab.mountpoint-or-bind-invalid", reason);
    }
    if unit.device.is_none() {
        return without_device(guest, unit, entry);
    }
    match devices.find(&unit.what) {
        Found::Node(node) if unit.target == "/" && node != guest.root => {
            Fate::Unknown(format!("/ is {}, which is not the root file system that was found", unit.what))
        }
        Found::Node(node) => mounted(time, node, unit, entry),
        Found::Ambiguous if has_btrfs_twins(storage, &unit.what) => Fate::Chance(format!(
            "several devices claim {}, and btrfs takes only the one that it saw first",
            unit.what
        )),
        Found::Ambiguous => Fate::Unknown(format!("several devices claim {}", unit.what)),
        Found::Extra => {
            let rule = "fstab.unstable-device";
            Fate::CannotMount(rule, format!("{} is a further disk without this content", unit.what))
        }
        // The initramfs has mounted it; systemd only mounts it anew with other options. mount(8) looks for what a tag
        // names, and does not look at a path.
        Found::Nothing(_) if unit.target == "/" => match entry.source.text().contains('=') {
            true => Fate::StaysAsItIs(
                "fstab.unresolved-source",
                format!("no disk provides {}, so that / stays read-only", unit.what),
            ),
            false => Fate::Works,
        },
        Found::Unknown(reason) => Fate::Unknown(reason),
        Found::Nothing(Some((rule, reason))) => Fate::NoDevice(reason, Some(rule)),
        Found::Nothing(None) => {
            Fate::NoDevice(format!("no disk of this machine provides {}", unit.what), None)
        }
    }
}

/// Whether a UUID is that of two btrfs that are not one.
fn has_btrfs_twins(storage: &Storage, what: &str) -> bool {
    let Some(uuid) = what.strip_prefix("/dev/disk/by-uuid/") else { return false };
    let is_twin = |node: &storage::Node| node.content_type() == Some("btrfs") && node.uuid() == Some(uuid);
    storage.iter().filter(|(_, node)| is_twin(node)).count() > 1
}

/// A mount point that is a file: only a file can be bound on it.
pub(super) fn not_a_directory(guest: &Guest, unit: &Unit, entry: &Entry) -> Option<String> {
    let is_bind = entry.has_option("bind") || entry.has_option("rbind");
    if unit.target.is_empty() || is_bind {
        return None;
    }
    let inode = resolve(&guest.tree, unit.target.as_bytes()).ok()?;
    let kind = guest.tree.metadata(inode).ok()?.kind;
    (kind != FileKind::Directory).then(|| format!("{} is no directory", unit.target))
}

/// A bind mount, tmpfs, overlay, swap file or network: no device to wait for.
fn without_device(guest: &Guest, unit: &Unit, entry: &Entry) -> Fate {
    let kind = entry.kind.text();
    if kind == "swap" {
        return match resolve(&guest.tree, unit.what.as_bytes()) {
            Err(PathError::NotFound(_)) => {
                Fate::CannotMount("fstab.swap-missing", format!("there is no file {}", unit.what))
            }
            _ => Fate::Works,
        };
    }
    // systemd makes the directory that a bind mount shows where there is none.
    let is_bind = entry.has_option("bind") || entry.has_option("rbind");
    if is_bind && matches!(resolve(&guest.tree, unit.what.as_bytes()), Err(PathError::NotADirectory(_))) {
        let reason = format!("{} cannot be made: a part of it is no directory", unit.what);
        return Fate::CannotMount("fstab.mountpoint-or-bind-invalid", reason);
    }
    if kind == "overlay" {
        let is_missing = |path: &&str| !path.is_empty() && resolve(&guest.tree, path.as_bytes()).is_err();
        for key in ["lowerdir", "upperdir", "workdir"] {
            let value = entry.option_value(key).map(String::from_utf8_lossy).unwrap_or_default();
            if let Some(path) = value.split(':').find(is_missing) {
                return Fate::CannotMount(
                    "fstab.mountpoint-or-bind-invalid",
                    format!("there is no {path} for {key}="),
                );
            }
        }
    }
    if let Some(option) = mount_options::unknown(&kind, entry.options()).filter(|_| kind == "tmpfs") {
        return Fate::CannotMount("fstab.option-hazard", format!("{kind} knows no option {option}"));
    }
    // Types that have a program of their own to mount them, and cannot be mounted without. A tree without mount(8) itself is no
    // whole system.
    let is_there = |path: &str| resolve(&guest.tree, path.as_bytes()).is_ok();
    let has_program = |kind: &str| {
        ["/sbin", "/usr/sbin"].iter().any(|folder| is_there(&format!("{folder}/mount.{kind}")))
            || !is_there("/usr/bin/mount") && !is_there("/bin/mount")
    };
    if matches!(&*kind, "nfs" | "nfs4" | "cifs" | "smb3" | "glusterfs" | "ceph" | "davfs") {
        return match has_program(&kind) {
            false => Fate::CannotMount(
                "fstab.fstype-wrong",
                format!("there is no mount.{kind} to mount {}", unit.what),
            ),
            true => Fate::Unknown(format!("{} lies on the network", unit.what)),
        };
    }
    Fate::Works
}

/// What happens to it on its device.
pub(super) fn mounted(time: &Time<'_>, node: NodeId, unit: &Unit, entry: &Entry) -> Fate {
    let Time { storage, guest, drivers, .. } = *time;
    let found = storage.node(node);
    let kind = entry.kind.text();
    let Some(content) = found.content_type() else {
        let reason = format!("{} leads to {}, which holds nothing known", unit.what, found.path);
        return Fate::CannotMount("fs.wrong-type-or-missing", reason);
    };
    if matches!(found.content, Content::PhysicalVolume { .. } | Content::Partitions(_)) {
        let reason = format!("{} leads to {}, which is {content}", unit.what, found.path);
        return Fate::CannotMount("fstab.unresolved-source", reason);
    }
    if let Some(reason) = overhang(storage, node) {
        return Fate::CannotMount("part.out-of-bounds", reason);
    }
    // The initramfs has checked the root.
    if unit.is_checked && unit.target != "/" {
        match time.checks.of(found) {
            Checked::GoesOn => {}
            Checked::Stops(reason) => return Fate::CannotMount("fs.ext4-errors", reason),
            Checked::Unknown(reason) => return Fate::Unknown(reason),
        }
    }
    if !is_mountable_as(&kind, content) {
        return Fate::CannotMount("fstab.fstype-wrong", format!("{} holds {content}, not {kind}", unit.what));
    }
    let subvolume = entry.option_value("subvol").filter(|_| content == "btrfs");
    if let Some(subvolume) = subvolume
        && let Ok(known) = found.subvolumes()
    {
        let trimmed = String::from_utf8_lossy(subvolume).trim_matches('/').to_owned();
        if !trimmed.is_empty() && !known.iter().any(|known| known.path == trimmed.as_bytes()) {
            let reason = format!("{} has no subvolume {trimmed}", found.path);
            return Fate::CannotMount("fstab.option-hazard", reason);
        }
    }
    let id = entry.option_value("subvolid").filter(|_| content == "btrfs");
    if let Some(id) = id.and_then(|id| std::str::from_utf8(id).ok()?.parse::<u64>().ok())
        && let Ok(known) = found.subvolumes()
    {
        // The top level has two numbers.
        if !matches!(id, 0 | 5) && !known.iter().any(|known| known.id == id) {
            let reason = format!("{} has no subvolume with the number {id}", found.path);
            return Fate::CannotMount("fstab.option-hazard", reason);
        }
    }
    if let Some(option) = mount_options::unknown(content, entry.options()) {
        let (rule, reason) = ("fstab.option-hazard", format!("{content} knows no option {option}"));
        return match unit.target.as_str() {
            "/" => Fate::StaysAsItIs(rule, format!("{reason}, so that / stays read-only")),
            _ => Fate::CannotMount(rule, reason),
        };
    }
    let is_root = unit.target == "/";
    let is_read_only = entry.last_of("ro", "rw") == Some(true);
    match features::refused(found, drivers) {
        // It is mounted already, by a driver that took it.
        Some(Refusal::Mount(rule, reason)) if !is_root => return Fate::CannotMount(rule, reason),
        Some(Refusal::Write(rule, reason)) if is_root => {
            return Fate::StaysAsItIs(rule, format!("{reason}, so that / stays read-only"));
        }
        Some(Refusal::Write(rule, reason)) if !is_read_only => return Fate::CannotMount(rule, reason),
        _ => {}
    }
    // What the initramfs has loaded for the root stays loaded.
    if unit.target == "/" || storage.node(guest.root).content_type() == Some(content) {
        return Fate::Works;
    }
    let module = match content {
        "iso9660" => "isofs",
        "vfat" | "xfs" | "btrfs" | "ext4" | "f2fs" => content,
        _ => return Fate::Works,
    };
    match drivers.check(module) {
        Ok(()) | Err(Lack::Unknown(_) | Lack::Blacklisted(..)) => Fate::Works,
        Err(Lack::Module(module) | Lack::NotInKernel(module)) => {
            let reason = format!("{content} needs the module {module}, which is not there");
            Fate::CannotMount("kernel.modules-missing", reason)
        }
    }
}

/// Whether the mount point is not there, and would have to be made on the root file system.
pub(super) fn is_missing(guest: &Guest, unit: &Unit) -> bool {
    let is_elsewhere =
        ["/dev/", "/proc/", "/run/", "/sys/"].iter().any(|folder| unit.target.starts_with(folder));
    !unit.target.is_empty()
        && !is_elsewhere
        && matches!(resolve(&guest.tree, unit.target.as_bytes()), Err(PathError::NotFound(_)))
}
