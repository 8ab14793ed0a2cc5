//! What systemd mounts by the types of partitions alone: systemd-gpt-auto-generator(8), as of systemd 252.
//!
//! On the disk of the root file system it takes the first partition of each type of the Discoverable Partitions Specification that
//! is not marked `no-auto`, and mounts it on a directory that is empty and that fstab does not name.

use filesystem::FileSystem;
use filesystem::path::resolve;
use guest::Guest;
use storage::{NodeId, NodeKind, Storage};

use super::kernel::Kernel;

/// Types with the place of their file system.
const TYPES: [(&str, &str); 3] = [
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "/home"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "/srv"),
    ("7ec6f557-3bc5-4aca-b293-16ef5df639d1", "/var/tmp"),
];
/// Bit 63 of a GPT entry's attributes: no-auto.
const NO_AUTO: u64 = 1 << 63;
const GENERATOR: &str = "systemd/system-generators/systemd-gpt-auto-generator";

/// The partitions, each with its place.
pub(super) fn mounts(
    storage: &Storage,
    guest: &Guest,
    kernel: Option<&Kernel>,
) -> Vec<(NodeId, &'static str)> {
    let is_there = |path: &str| resolve(&guest.tree, path.as_bytes()).is_ok();
    let has_generator = ["/usr/lib", "/lib"].iter().any(|folder| is_there(&format!("{folder}/{GENERATOR}")));
    if !has_generator || is_off(kernel) {
        return Vec::new();
    }
    let Some(disk) = disk_of(storage, guest.root) else { return Vec::new() };
    let is_named = |place: &str| {
        guest.fstab.as_ref().is_some_and(|file| {
            file.document.entries().iter().any(|entry| entry.target.text().trim_end_matches('/') == place)
        })
    };
    let mut found = Vec::new();
    for (kind, place) in TYPES {
        let of_type = storage.children(disk).find(|(_, node)| {
            matches!(&node.kind, NodeKind::Partition(partition)
                if partition.type_id == kind && partition.attributes & NO_AUTO == 0)
        });
        if let Some((id, _)) = of_type.filter(|_| !is_named(place) && is_empty(guest, place)) {
            found.push((id, place));
        }
    }
    found
}

/// The disk whose partition holds the root file system, with what lies between them.
fn disk_of(storage: &Storage, root: NodeId) -> Option<NodeId> {
    let mut id = root;
    loop {
        let node = storage.node(id);
        // What lies on several has no disk of its own.
        let [parent] = node.parents.as_slice() else { return None };
        if matches!(node.kind, NodeKind::Partition(_)) {
            return Some(*parent);
        }
        id = *parent;
    }
}

/// A place that is not there is made.
fn is_empty(guest: &Guest, place: &str) -> bool {
    let Ok(inode) = resolve(&guest.tree, place.as_bytes()) else { return true };
    guest
        .tree
        .read_dir(inode)
        .is_ok_and(|entries| entries.iter().all(|entry| matches!(&*entry.name, b"." | b"..")))
}

fn is_off(kernel: Option<&Kernel>) -> bool {
    let words = kernel.map_or(&[][..], |kernel| &kernel.loaded.arguments);
    let value = words.iter().rev().find_map(|(word, _)| {
        word.strip_prefix("systemd.gpt_auto=").or_else(|| word.strip_prefix("rd.systemd.gpt_auto="))
    });
    matches!(value, Some("0" | "no" | "n" | "false" | "f" | "off"))
}
