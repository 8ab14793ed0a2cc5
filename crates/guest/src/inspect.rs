//! Finding installed systems, and joining what they mount.

use filesystem::path::{PathError, resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};
use guest_files::fstab::{Entry, Fstab};
use guest_files::os_release::OsRelease;
use storage::{Bus, DeviceNames, Hardware, NodeId, Storage, Target, View, udev_node};

use crate::joined::JoinedFs;
use crate::model::{ConfigFile, Guest, Mount, SharedFs};
use crate::timeouts;

/// Larger than any real configuration file.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Subvolumes in which a root is looked for.
const MAX_SUBVOLUMES: usize = 64;

/// Every system installed on these disks, in the order of their root file systems.
pub fn inspect(storage: &Storage) -> Vec<Guest> {
    storage.iter().filter_map(|(id, node)| inspect_root(storage, id, node)).collect()
}

fn inspect_root(storage: &Storage, root: NodeId, node: &storage::Node) -> Option<Guest> {
    let (opened, subvolume) = open_root(node)?;
    let fs: SharedFs = opened.fs;
    let mut problems: Vec<String> =
        opened.problems.iter().map(|error| format!("{}: {error}", node.path)).collect();
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
        os_release: OsRelease::default(),
        mounts: vec![Mount { target: "/".into(), node: root, line: None, subvolume }],
        tree: JoinedFs::new(root, fs),
        bus,
        device_timeout: timeouts::BUILT_IN,
        problems,
        fstab,
    };
    join_mounts(storage, &mut guest);
    // Both may lie on a /usr of its own.
    guest.os_release = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| read(&guest.tree, path).ok())
        .map(|bytes| OsRelease::parse(&bytes))
        .unwrap_or_default();
    guest.device_timeout = timeouts::device_timeout(&guest.tree);
    Some(guest)
}

/// The root file system on a node: the tree that is mounted without options, else the first subvolume that is one.
/// Snapshots are the same system at other times.
fn open_root(node: &storage::Node) -> Option<(View, Option<String>)> {
    let opened = node.kernel_view().ok()?;
    if is_root(opened.fs.as_ref()) {
        return Some((opened, None));
    }
    let subvolumes = node.subvolumes().unwrap_or_default();
    subvolumes.iter().filter(|found| !found.is_snapshot && !found.is_default).take(MAX_SUBVOLUMES).find_map(
        |found| {
            let opened = View::from(node.open_subvolume(found.id).ok()?);
            let path = String::from_utf8_lossy(&found.path).into_owned();
            is_root(opened.fs.as_ref()).then_some((opened, Some(path)))
        },
    )
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
        match mount(storage, &mut guest.tree, &target, node, entry) {
            Ok(subvolume) => guest.mounts.push(Mount { target, node, line: Some(entry.line), subvolume }),
            Err(problem) => guest.problems.push(format!("/etc/fstab line {}: {problem}", entry.line)),
        }
    }
}

/// Mounts one file system, or the subvolume of it that the entry asks for, whose path is returned.
fn mount(
    storage: &Storage,
    tree: &mut JoinedFs,
    target: &str,
    node: NodeId,
    entry: &Entry,
) -> Result<Option<String>, String> {
    let text = |error: filesystem::Error| error.to_string();
    let device = storage.node(node);
    let subvolume = subvolume_of(device, entry).map_err(text)?;
    let opened = match &subvolume {
        Some((id, _)) => View::from(device.open_subvolume(*id).map_err(text)?),
        None => device.kernel_view().map_err(|error| error.to_string())?,
    };
    let at = resolve(tree, target.as_bytes()).map_err(|error| error.to_string())?;
    tree.mount(at, node, opened.fs).map_err(text)?;
    Ok(subvolume.map(|(_, path)| path))
}

/// The subvolume that `subvol=` or `subvolid=` asks for, as the kernel reads them: the last one counts.
fn subvolume_of(node: &storage::Node, entry: &Entry) -> Result<Option<(u64, String)>, filesystem::Error> {
    let by_path = entry.option_value("subvol");
    let by_id = entry.option_value("subvolid");
    if by_path.is_none() && by_id.is_none() {
        return Ok(None);
    }
    let found = node.subvolumes()?;
    let trimmed = |path: &[u8]| -> Vec<u8> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(&b'/')
    };
    let wanted = by_path.map(trimmed);
    let number = by_id.and_then(|id| std::str::from_utf8(id).ok()?.parse::<u64>().ok());
    // 0 stands for the top level.
    let number = number.map(|number| if number == 0 { 5 } else { number });
    let subvolume = found.iter().find(|subvolume| match &wanted {
        Some(path) => subvolume.path == *path,
        None => Some(subvolume.id) == number,
    });
    match subvolume {
        Some(subvolume) if subvolume.is_default => Ok(None),
        Some(subvolume) => Ok(Some((subvolume.id, String::from_utf8_lossy(&subvolume.path).into_owned()))),
        None if found.is_empty() => Ok(None),
        None => {
            let named = by_path.or(by_id).map(String::from_utf8_lossy).unwrap_or_default();
            Err(filesystem::Error::unavailable("file system", format!("there is no subvolume {named}")))
        }
    }
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

/// A root file system holds an `etc` and either names its release or can start it. Where `/usr` is a file system of its own, what
/// is left are the links to it.
fn is_root(fs: &dyn FileSystem) -> bool {
    // What cannot be read may be there; of a tree without anything that can, nothing is known.
    let is_there = |path: &str| !matches!(resolve(fs, path.as_bytes()), Err(PathError::NotFound(_)));
    let is_read = |path: &str| resolve(fs, path.as_bytes()).is_ok();
    let has_programs =
        ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/inittab", "/usr/bin"]
            .into_iter()
            .any(is_there);
    ["/etc", "/usr", "/var"].into_iter().any(is_read)
        && is_there("/etc")
        && (is_there("/etc/os-release") || is_there("/usr/lib/os-release") || is_there("/etc/fstab"))
        && (has_programs
            || is_there("/etc/fstab") && ["/sbin", "/bin"].into_iter().all(|path| is_link(fs, path)))
}

fn is_link(fs: &dyn FileSystem, path: &str) -> bool {
    let found = resolve_no_follow(fs, path.as_bytes()).ok().and_then(|inode| fs.metadata(inode).ok());
    found.is_some_and(|found| found.kind == FileKind::Symlink)
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    #[test]
    fn roots() {
        let whole = || MemoryFs::new().file("/etc/os-release", "").file("/usr/lib/systemd/systemd", "");
        assert!(is_root(&whole()));
        let split = || {
            MemoryFs::new()
                .file("/etc/fstab", "UUID=a /usr ext4\n")
                .directory("/usr")
                .symlink("/sbin", "usr/sbin")
                .symlink("/etc/os-release", "../usr/lib/os-release")
        };
        assert!(is_root(&split().symlink("/bin", "usr/bin")));
        // A backup of an etc is no system.
        assert!(!is_root(&split()));
        assert!(!is_root(&MemoryFs::new().file("/etc/fstab", "")));
        assert!(!is_root(&MemoryFs::new().file("/home/a", "")));
    }
}
