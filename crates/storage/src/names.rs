//! Every name under `/dev` that leads to a node on given hardware.
//!
//! Kernel names (`/dev/vda1`), the links of udev's `60-persistent-storage.rules` that come from content, and
//! the device-mapper names of logical volumes. Links made from serial numbers or slots (`by-id`, `by-path`)
//! depend on what the disks do not say.

use std::collections::BTreeMap;

use crate::graph::{NodeId, NodeKind, Presence, Storage};
use crate::hardware::Hardware;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This node.
    Node(NodeId),
    /// Several nodes claim the name; which one wins is chance.
    Ambiguous,
    /// A further disk, without partitions, that the hardware adds.
    Extra,
}

/// The names on one hardware.
#[derive(Debug, Clone, Default)]
pub struct DeviceNames {
    names: BTreeMap<String, Target>,
}

impl DeviceNames {
    /// The names that `hardware` gives to the nodes of `storage`.
    pub fn new(storage: &Storage, hardware: &Hardware) -> Self {
        let mut names = Self::default();
        for (disk_name, slot) in hardware.disk_names() {
            let Some(index) = slot.disk else {
                names.insert(format!("/dev/{disk_name}"), Target::Extra);
                continue;
            };
            for (id, node) in storage.iter().filter(|(_, node)| node.kind == NodeKind::Disk(index)) {
                names.insert(format!("/dev/{disk_name}"), Target::Node(id));
                names.insert_content_links(node, id);
                names.insert_partitions(storage, id, &disk_name);
            }
        }
        names.insert_virtual(storage, hardware);
        names
    }

    fn insert(&mut self, name: String, target: Target) {
        self.names
            .entry(name)
            .and_modify(|found| {
                if *found != target {
                    *found = Target::Ambiguous;
                }
            })
            .or_insert(target);
    }

    fn insert_content_links(&mut self, node: &crate::Node, id: NodeId) {
        // udev links only what can be used by itself: members of volume groups and arrays get no by-uuid link.
        let is_member = matches!(node.content_type(), Some("LVM2_member" | "linux_raid_member"));
        if let Some(uuid) = node.uuid().filter(|_| !is_member) {
            self.insert(format!("/dev/disk/by-uuid/{}", encode(uuid.as_bytes())), Target::Node(id));
        }
        if let Some(label) = node.label().filter(|_| !is_member) {
            self.insert(format!("/dev/disk/by-label/{}", encode(label)), Target::Node(id));
        }
    }

    fn insert_partitions(&mut self, storage: &Storage, disk: NodeId, disk_name: &str) {
        let separator = if disk_name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
        for (id, node) in storage.children(disk) {
            let NodeKind::Partition(partition) = &node.kind else { continue };
            self.insert(format!("/dev/{disk_name}{separator}{}", partition.number), Target::Node(id));
            self.insert(format!("/dev/disk/by-partuuid/{}", partition.uuid), Target::Node(id));
            if let Some(label) = &partition.label {
                self.insert(format!("/dev/disk/by-partlabel/{}", encode(label.as_bytes())), Target::Node(id));
            }
            self.insert_content_links(node, id);
        }
    }

    /// Logical volumes, arrays and what was opened: there once the disks below are, as far as they need them.
    fn insert_virtual(&mut self, storage: &Storage, hardware: &Hardware) {
        let present: Vec<usize> = hardware.slots.iter().filter_map(|slot| slot.disk).collect();
        let presence = storage.presence(&present);
        for (id, node) in storage.iter() {
            let is_here = presence.get(id.0).is_some_and(|presence| *presence != Presence::Absent);
            if node.device.is_none() || !is_here {
                continue;
            }
            match &node.kind {
                NodeKind::LogicalVolume { group, name, is_visible: true, .. } => {
                    self.insert(format!("/dev/mapper/{}-{}", dashes(group), dashes(name)), Target::Node(id));
                    self.insert(format!("/dev/{group}/{name}"), Target::Node(id));
                }
                NodeKind::Array { uuid, name, .. } => self.insert_array(storage, id, uuid, name.as_deref()),
                // The name that dracut and systemd's generators give where crypttab gives none.
                NodeKind::Decrypted { uuid, .. } => {
                    self.insert(format!("/dev/mapper/luks-{uuid}"), Target::Node(id));
                }
                _ => continue,
            }
            self.insert_content_links(node, id);
        }
    }

    /// The links of mdadm's `63-md-raid-arrays.rules`; the kernel's own number depends on who comes first.
    fn insert_array(&mut self, storage: &Storage, id: NodeId, uuid: &str, name: Option<&str>) {
        // mdadm groups the digits by colons.
        let digits: Vec<char> = uuid.chars().filter(|digit| *digit != '-').collect();
        let groups: Vec<String> = digits.chunks(8).map(|group| group.iter().collect()).collect();
        self.insert(format!("/dev/disk/by-id/md-uuid-{}", groups.join(":")), Target::Node(id));
        let Some(name) = name else { return };
        self.insert(format!("/dev/disk/by-id/md-name-{name}"), Target::Node(id));
        let short = name.split_once(':').map_or(name, |(_, name)| name);
        self.insert(format!("/dev/md/{short}"), Target::Node(id));
        self.insert_partitions(storage, id, &format!("md/{short}"));
    }

    /// What `path`, as [`udev_node`] spells it, leads to; `//` in it stands for `/`.
    pub fn get(&self, path: &str) -> Option<Target> {
        self.names.get(&normalise(path)).copied()
    }

    /// Every name with its target, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Target)> {
        self.names.iter().map(|(name, target)| (name.as_str(), *target))
    }

    /// The names of one node, sorted.
    pub fn of(&self, id: NodeId) -> impl Iterator<Item = &str> {
        self.iter().filter(move |(_, target)| *target == Target::Node(id)).map(|(name, _)| name)
    }
}

/// Device-mapper separates group and volume by one dash, so their own dashes are doubled.
fn dashes(name: &str) -> String {
    name.replace('-', "--")
}

/// The device path that systemd makes of an fstab source: `UUID=x` becomes `/dev/disk/by-uuid/x`; paths stay.
///
/// As `fstab_node_to_udev_node` of systemd 252: one pair of quotes around the value is dropped, the letter case
/// is kept. `None` for what names no device: `tmpfs`, `server:/export`.
pub fn udev_node(source: &[u8]) -> Option<String> {
    const TAGS: [(&[u8], &str); 4] = [
        (b"LABEL=", "by-label"),
        (b"UUID=", "by-uuid"),
        (b"PARTUUID=", "by-partuuid"),
        (b"PARTLABEL=", "by-partlabel"),
    ];
    for (tag, folder) in TAGS {
        if let Some(value) = source.strip_prefix(tag) {
            return Some(format!("/dev/disk/{folder}/{}", encode(unquote(value))));
        }
    }
    source.starts_with(b"/dev/").then(|| String::from_utf8_lossy(source).into_owned())
}

/// Whether a path under `/dev` is a name that enumeration order, bus or slot decides: `/dev/vda1`,
/// `/dev/disk/by-path/…`, the `by-id` links that start with a bus, `/dev/dm-0`, `/dev/md0`.
pub fn is_unstable_name(path: &str) -> bool {
    depends_on_machine(path) || kernel_disk_name(path).is_some()
}

/// Whether a name is made from serial numbers or slots, so that the disks alone do not say what it leads to.
pub fn depends_on_machine(path: &str) -> bool {
    const BY_BUS: [&str; 6] = ["virtio-", "scsi-", "ata-", "nvme-", "usb-", "wwn-"];
    let by_id = path.strip_prefix("/dev/disk/by-id/");
    path.starts_with("/dev/disk/by-path/")
        || by_id.is_some_and(|name| BY_BUS.iter().any(|bus| name.starts_with(bus)))
        || ["/dev/dm-", "/dev/md"].iter().any(|prefix| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
}

/// The kernel's name of a disk or partition, without `/dev/`: `vda1`, `nvme0n1p2`; `None` for any other path.
pub fn kernel_disk_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/dev/")?;
    let is_lettered = ["vd", "sd", "hd", "xvd"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let number = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
            number.len() < rest.len() && number.bytes().all(|b| b.is_ascii_digit())
        })
    });
    let is_numbered = ["nvme", "mmcblk"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.bytes().all(|b| b.is_ascii_digit() || b"np".contains(&b))
        })
    });
    (is_lettered || is_numbered).then_some(name)
}

/// `//` and `/./` stand for `/`.
fn normalise(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.fold(String::new(), |path, part| path + "/" + part)
}

fn unquote(value: &[u8]) -> &[u8] {
    for quote in [b'"', b'\''] {
        if let [first, inner @ .., last] = value
            && *first == quote
            && *last == quote
        {
            return inner;
        }
    }
    value
}

/// udev's encoding of a value in a link name: what is neither a plain character nor UTF-8 becomes `\xHH`.
fn encode(value: &[u8]) -> String {
    let mut text = String::new();
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            let is_plain = character.is_ascii_alphanumeric() || "#+-.:=@_".contains(character);
            if is_plain || !character.is_ascii() {
                text.push(character);
            } else {
                text.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unstable_names() {
        for path in [
            "/dev/vda1",
            "/dev/sdaa",
            "/dev/nvme0n1p2",
            "/dev/xvdf",
            "/dev/dm-0",
            "/dev/md127",
            "/dev/mmcblk0p1",
        ] {
            assert!(is_unstable_name(path), "{path}");
        }
        for path in
            ["/dev/disk/by-path/pci-0-part1", "/dev/disk/by-id/virtio-abc", "/dev/disk/by-id/ata-QEMU-part1"]
        {
            assert!(is_unstable_name(path), "{path}");
        }
        for path in [
            "/dev/mapper/centos-root",
            "/dev/centos/root",
            "/dev/disk/by-uuid/x",
            "/dev/sr0",
            "/dev/md/root",
            "/dev/disk/by-id/dm-name-x",
            "/dev/disk/by-id/lvm-pv-uuid-x",
            "/dev/vdata/lv",
            "/dev/sd",
            "/dev/zram0",
        ] {
            assert!(!is_unstable_name(path), "{path}");
        }
    }

    #[test]
    fn sources_become_device_paths() {
        let node = |source: &str| udev_node(source.as_bytes());
        assert_eq!(node("UUID=AB-12").as_deref(), Some("/dev/disk/by-uuid/AB-12"));
        assert_eq!(node("UUID=\"x\"").as_deref(), Some("/dev/disk/by-uuid/x"));
        assert_eq!(node("LABEL=my disk/1").as_deref(), Some("/dev/disk/by-label/my\\x20disk\\x2f1"));
        assert_eq!(node("PARTLABEL=ü").as_deref(), Some("/dev/disk/by-partlabel/ü"));
        assert_eq!(node("/dev//vda1").as_deref(), Some("/dev//vda1"));
        assert_eq!(node("tmpfs"), None);
        assert_eq!(node("ID=x"), None);
    }
}
