//! Finding installed systems, and joining what they mount.

use std::sync::Arc;

use filesystem::FileSystem;
use filesystem::path::{PathError, resolve};
use guest_files::fstab::{Entry, Fstab};
use guest_files::os_release::OsRelease;
use storage::{Bus, DeviceNames, Hardware, NodeId, Storage, Target, udev_node};

use crate::joined::JoinedFs;
use crate::model::{ConfigFile, Guest, Mount, SharedFs};
use crate::timeouts;

/// Larger than any real configuration file.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Every system installed on these disks, in the order of their root file systems.
pub fn inspect(storage: &Storage) -> Vec<Guest> {
    storage.iter().filter_map(|(id, node)| inspect_root(storage, id, node)).collect()
}

fn inspect_root(storage: &Storage, root: NodeId, node: &storage::Node) -> Option<Guest> {
    let opened = node.open().ok()?;
    let fs: SharedFs = Arc::from(opened.value);
    if !is_root(fs.as_ref()) {
        return None;
    }
    let mut problems: Vec<String> =
        opened.problems.iter().map(|error| format!("{}: {error}", node.path)).collect();
    let os_release = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| read(fs.as_ref(), path).ok())
        .map(|bytes| OsRelease::parse(&bytes))
        .unwrap_or_default();
    let fstab = match read_config(fs.as_ref(), root, "/etc/fstab") {
        Ok(file) => Some(file),
        Err(PathError::NotFound(_)) => None,
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    let bus = fstab.as_ref().and_then(|fstab| bus_in(&fstab.document));
    let mut guest = Guest {
        root,
        os_release,
        mounts: vec![Mount { target: "/".into(), node: root, line: None }],
        tree: JoinedFs::new(root, fs),
        bus,
        device_timeout: timeouts::BUILT_IN,
        problems,
        fstab,
    };
    join_mounts(storage, &mut guest);
    guest.device_timeout = timeouts::device_timeout(&guest.tree);
    Some(guest)
}

/// Mounts what fstab names, the shorter paths first, on hardware as the guest's own files speak of it.
fn join_mounts(storage: &Storage, guest: &mut Guest) {
    let Some(fstab) = &guest.fstab else { return };
    let disks = storage.iter().filter(|(_, node)| matches!(node.kind, storage::NodeKind::Disk(_))).count();
    let hardware = Hardware::new(guest.bus.unwrap_or(Bus::VirtioBlk), disks);
    let names = DeviceNames::new(storage, &hardware);
    let mut entries: Vec<(&Entry, String)> = fstab
        .document
        .entries()
        .iter()
        .filter(|entry| entry.target.value.starts_with(b"/"))
        .map(|entry| (entry, normalised(&entry.target.text())))
        .collect();
    entries.sort_by_key(|(_, target)| target.split('/').count());
    for (entry, target) in entries {
        let Some(Target::Node(node)) = udev_node(&entry.source.value).and_then(|name| names.get(&name))
        else {
            continue;
        };
        if target == "/" {
            if node == guest.root {
                guest.mounts[0].line = Some(entry.line);
            } else {
                let path = &storage.node(node).path;
                guest.problems.push(format!("/etc/fstab line {}: / is {path}, not this root", entry.line));
            }
            continue;
        }
        match mount(storage, &mut guest.tree, &target, node) {
            Ok(()) => guest.mounts.push(Mount { target, node, line: Some(entry.line) }),
            Err(problem) => guest.problems.push(format!("/etc/fstab line {}: {problem}", entry.line)),
        }
    }
}

fn mount(storage: &Storage, tree: &mut JoinedFs, target: &str, node: NodeId) -> Result<(), String> {
    let opened = storage.node(node).open().map_err(|error| error.to_string())?;
    let at = resolve(tree, target.as_bytes()).map_err(|error| error.to_string())?;
    tree.mount(at, node, Arc::from(opened.value)).map_err(|error| error.to_string())
}

/// The bus that the kernel names in an fstab speak of.
fn bus_in(fstab: &Fstab) -> Option<Bus> {
    fstab.entries().iter().find_map(|entry| Bus::of_kernel_name(entry.source.text().strip_prefix("/dev/")?))
}

/// `//` and a trailing `/` dropped.
fn normalised(path: &str) -> String {
    let path: String = path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
    if path.is_empty() { "/".into() } else { path }
}

fn read(fs: &dyn FileSystem, path: &str) -> Result<Vec<u8>, PathError> {
    let inode = resolve(fs, path.as_bytes())?;
    filesystem::read_to_end(fs, inode, CONFIG_LIMIT)
        .map_err(|cause| PathError::Fs { path: path.into(), cause })
}

fn read_config(fs: &dyn FileSystem, node: NodeId, path: &str) -> Result<ConfigFile<Fstab>, PathError> {
    let inode = resolve(fs, path.as_bytes())?;
    let document = Fstab::parse(read(fs, path)?);
    Ok(ConfigFile { path: path.into(), node, inode, document })
}

/// A root file system holds an `etc` and either names its release or can start it.
fn is_root(fs: &dyn FileSystem) -> bool {
    let is_there = |path: &str| !matches!(resolve(fs, path.as_bytes()), Err(PathError::NotFound(_)));
    is_there("/etc")
        && (is_there("/etc/os-release") || is_there("/usr/lib/os-release") || is_there("/etc/fstab"))
        && ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/inittab", "/usr/bin"]
            .into_iter()
            .any(is_there)
}
