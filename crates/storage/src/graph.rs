//! The graph as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use blockdev::Device;
use filesystem::{Error, FileSystem, Format, Identity, Opened, Subvolume};
use filesystem_ext4::preen::{Preen, PreenOptions};
use luks::Container;
use volume::lvm2::{PhysicalVolume, VolumeGroup};
use volume::md::Array;

use crate::{Signature, Usage};

/// An index into [`Storage::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// Everything that was found on the disks of one machine.
#[derive(Debug, Default)]
pub struct Storage {
    /// Parents stand before their children.
    pub nodes: Vec<Node>,
    /// LVM2 physical volumes, each with its node.
    pub pvs: Vec<(NodeId, PhysicalVolume)>,
    /// LVM2 volume groups, by name.
    pub groups: Vec<VolumeGroup>,
    /// md arrays.
    pub arrays: Vec<FoundArray>,
    /// What was wrong above single nodes: metadata texts, groups.
    pub problems: Vec<Error>,
}

/// An md array with its node.
#[derive(Debug)]
pub struct FoundArray {
    /// The node that shows its bytes.
    pub node: NodeId,
    /// What its members say.
    pub array: Array,
    /// The nodes that the indices of [`Array::members`] stand for.
    pub members: Vec<NodeId>,
}

/// One device in the graph.
#[derive(Debug)]
pub struct Node {
    /// A name that does not depend on hardware: `disk0`, `disk0/p1`, `centos/root`.
    pub path: String,
    /// What kind of device it is.
    pub kind: NodeKind,
    /// The nodes it lies on: one, or several for a logical volume over several physical volumes.
    pub parents: Vec<NodeId>,
    /// Length in bytes.
    pub size: u64,
    /// Its bytes; `None` when they cannot be had, the reason being among the problems.
    pub device: Option<Device>,
    /// What lies on it.
    pub content: Content,
    /// What was wrong with the node or the structures on it.
    pub problems: Vec<Error>,
    /// Its file system, once somebody asked for it.
    pub views: Views,
}

/// A file system that was opened for everyone who reads it.
#[derive(Clone)]
pub struct View {
    /// The reader.
    pub fs: Arc<dyn FileSystem>,
    /// What was wrong on the way to it.
    pub problems: Vec<Arc<Error>>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({})", self.fs.info().kind)
    }
}

impl From<Opened> for View {
    fn from(opened: Opened) -> Self {
        Self { fs: Arc::from(opened.value), problems: opened.problems.into_iter().map(Arc::new).collect() }
    }
}

/// The two views of one file system, opened at most once each, and its checks.
#[derive(Debug, Default)]
pub struct Views {
    boot_loader: OnceLock<Result<View, Arc<Error>>>,
    kernel: OnceLock<Result<View, Arc<Error>>>,
    /// What a check at boot comes to: as the file system is marked, and forced.
    checked: [OnceLock<Preen>; 2],
}

/// What kind of device a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// The disk with this index in the order given.
    Disk(usize),
    /// A partition of the parent.
    Partition(volume::Partition),
    /// A logical volume.
    LogicalVolume {
        /// The name of its group.
        group: String,
        /// Its name within the group.
        name: String,
        /// Its UUID, with dashes.
        uuid: String,
        /// Segment types: `linear`.
        kinds: Vec<String>,
        /// Whether it can be activated by itself.
        is_visible: bool,
    },
    /// An md array.
    Array {
        /// As `blkid` spells it.
        uuid: String,
        /// As the superblock has it: `host:root`, or empty.
        name: Option<String>,
        /// As mdadm(8) spells it: `raid1`.
        level: String,
    },
    /// What an encrypted device holds, opened.
    Decrypted {
        /// Of the LUKS header.
        uuid: String,
        /// The number of the key slot that opened it.
        slot: u32,
    },
}

/// What lies on a node.
#[derive(Debug)]
pub enum Content {
    /// Nothing that is known.
    Unknown,
    /// A partition table, whose partitions are nodes.
    Partitions(volume::Table),
    /// An LVM2 physical volume.
    PhysicalVolume {
        /// Its UUID, with dashes.
        uuid: String,
        /// The group that names it, if one does.
        group: Option<String>,
    },
    /// A member of an md array.
    RaidMember {
        /// The array's UUID as `blkid` spells it.
        uuid: String,
        /// The array's name, if it has one.
        name: Option<String>,
        /// The path of the array's node, once it was assembled.
        array: Option<String>,
        /// How the array uses it: `in use`, `spare`, `stale`.
        state: Option<String>,
    },
    /// An encrypted device.
    Encrypted(Box<Encrypted>),
    /// Random bytes without any signature: encrypted by VeraCrypt or plain dm-crypt, or wiped.
    Noise,
    /// A file system that can be opened.
    FileSystem {
        /// How to open it.
        format: &'static Format,
        /// What names it.
        identity: Identity,
        /// The other devices of a file system on several, as far as they were found.
        others: Vec<Device>,
    },
    /// Something recognised by its signature only: swap, LUKS, a file system that cannot be read yet.
    Recognised(Signature),
}

/// A LUKS device.
#[derive(Debug)]
pub struct Encrypted {
    /// Its header.
    pub container: Container,
    /// Why it stays closed; an opened one has a child node.
    pub locked: Option<String>,
}

impl Storage {
    /// The node with this id, which must come from this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Ids and nodes, parents first.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// The nodes that lie directly on `parent`.
    pub fn children(&self, parent: NodeId) -> impl Iterator<Item = (NodeId, &Node)> {
        self.iter().filter(move |(_, node)| node.parents.contains(&parent))
    }

    /// The disks below a node, as indices in the order given, ascending.
    pub fn disks_below(&self, id: NodeId) -> Vec<usize> {
        // Each node once: the ways down through groups of groups can be more than anyone can walk.
        let (mut seen, mut todo) = (BTreeSet::new(), vec![id]);
        let mut disks = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.node(id).kind {
                NodeKind::Disk(index) => drop(disks.insert(index)),
                _ => todo.extend(&self.node(id).parents),
            }
        }
        disks.into_iter().collect()
    }
}

/// Whether a device can be used on a machine that has only some of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// With everything that it lies on.
    Whole,
    /// It lies on an array that lacks members and runs without them.
    Degraded,
    /// It cannot be made.
    Absent,
}

impl Storage {
    /// For each node, by its index: whether it can be used where only `disks` are attached.
    pub fn presence(&self, disks: &[usize]) -> Vec<Presence> {
        let arrays: BTreeMap<NodeId, &FoundArray> =
            self.arrays.iter().map(|array| (array.node, array)).collect();
        let mut known: Vec<Presence> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.iter() {
            // What a node lies on was found before it.
            let of = |parent: &NodeId| known.get(parent.0).copied().unwrap_or(Presence::Absent);
            let found = match &node.kind {
                NodeKind::Disk(index) if disks.contains(index) => Presence::Whole,
                NodeKind::Disk(_) => Presence::Absent,
                NodeKind::Array { .. } => {
                    arrays.get(&id).map_or(Presence::Absent, |array| array.presence(of))
                }
                _ => node.parents.iter().map(of).max().unwrap_or(Presence::Absent),
            };
            known.push(found);
        }
        known
    }
}

impl FoundArray {
    fn presence(&self, of: impl Fn(&NodeId) -> Presence) -> Presence {
        let in_use = self.array.members.iter().filter(|member| member.state == volume::md::State::InUse);
        let of_member = |index: Option<usize>| index.and_then(|index| self.members.get(index)).map(&of);
        let states: Vec<Option<Presence>> = in_use.map(|member| of_member(member.member)).collect();
        let is_there = |state: &&Option<Presence>| state.is_some_and(|state| state != Presence::Absent);
        let there = states.iter().filter(is_there).count();
        let all = self.array.raid_disks as usize;
        // Members that may be lost; of RAID 10 one always, and more by luck, which is that of the array that was found.
        let spare = match self.array.level.as_str() {
            "raid1" => all.saturating_sub(1),
            "raid4" | "raid5" | "raid10" => 1,
            "raid6" => 2,
            _ => 0,
        };
        let is_as_found = there == states.len() && self.array.device.is_ok();
        if there == 0 || there + spare < all && !is_as_found {
            Presence::Absent
        } else if there < all || states.contains(&Some(Presence::Degraded)) {
            Presence::Degraded
        } else {
            Presence::Whole
        }
    }
}

impl Node {
    /// The UUID of the content as `blkid` spells it.
    pub fn uuid(&self) -> Option<&str> {
        match &self.content {
            Content::FileSystem { identity, .. } => identity.uuid.as_deref(),
            Content::Recognised(signature) => signature.uuid.as_deref(),
            Content::PhysicalVolume { uuid, .. } | Content::RaidMember { uuid, .. } => Some(uuid),
            Content::Encrypted(encrypted) => Some(&encrypted.container.uuid),
            Content::Unknown | Content::Noise | Content::Partitions(_) => None,
        }
    }

    /// The label of the content.
    pub fn label(&self) -> Option<&[u8]> {
        match &self.content {
            Content::FileSystem { identity, .. } => identity.label.as_deref(),
            Content::Recognised(signature) => signature.label.as_deref(),
            Content::RaidMember { name, .. } => name.as_deref().map(str::as_bytes),
            Content::Encrypted(encrypted) => encrypted.container.label.as_deref().map(str::as_bytes),
            Content::Unknown | Content::Noise | Content::Partitions(_) | Content::PhysicalVolume { .. } => {
                None
            }
        }
    }

    /// The type of the content as `blkid` names it.
    pub fn content_type(&self) -> Option<&str> {
        match &self.content {
            Content::FileSystem { identity, .. } => Some(identity.kind),
            Content::Recognised(signature) => Some(signature.kind),
            Content::PhysicalVolume { .. } => Some("LVM2_member"),
            Content::RaidMember { .. } => Some("linux_raid_member"),
            Content::Encrypted(_) => Some("crypto_LUKS"),
            Content::Partitions(table) => Some(table.kind.name()),
            Content::Unknown | Content::Noise => None,
        }
    }

    /// What the content is for, in the words of `blkid`; `None` for tables and what is not known.
    pub fn usage(&self) -> Option<Usage> {
        match &self.content {
            Content::FileSystem { .. } => Some(Usage::FileSystem),
            Content::Recognised(signature) => Some(signature.usage),
            Content::PhysicalVolume { .. } | Content::RaidMember { .. } => Some(Usage::Raid),
            Content::Encrypted(_) => Some(Usage::Crypto),
            Content::Unknown | Content::Noise | Content::Partitions(_) => None,
        }
    }

    /// The file system as the kernel will see it, opened once for all who read it; see [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn kernel_view(&self) -> Result<View, Arc<Error>> {
        let opened = self.views.kernel.get_or_init(|| {
            let (format, device, others) = self.openable()?;
            match (format.replay)(device.clone()) {
                // Nothing was replayed: both see the same.
                Ok(replayed) if Arc::ptr_eq(&replayed.device, &device) => self.boot_loader_view(),
                Ok(replayed) => Ok(open_all(format, replayed.device, others)?.into()),
                Err(reason) => {
                    let mut view = self.boot_loader_view()?;
                    view.problems.push(Arc::new(reason));
                    Ok(view)
                }
            }
        });
        opened.clone()
    }

    /// The file system as a boot loader sees it, opened once for all who read it; see [`open_bare`](Self::open_bare).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn boot_loader_view(&self) -> Result<View, Arc<Error>> {
        let opened = self.views.boot_loader.get_or_init(|| {
            let (format, device, others) = self.openable()?;
            Ok(open_all(format, device, others)?.into())
        });
        opened.clone()
    }

    /// What the check at boot, `fsck -a`, comes to; `is_forced` also where the file system is marked as clean. Only those of ext2
    /// to ext4 look at anything, or stop anybody.
    pub fn boot_check(&self, is_forced: bool) -> &Preen {
        self.views.checked[usize::from(is_forced)].get_or_init(|| {
            let is_ext = matches!(self.content_type(), Some("ext2" | "ext3" | "ext4"));
            let Some(device) = self.device.as_ref().filter(|_| is_ext) else { return Preen::Skipped };
            // Some file systems are to be checked when months have passed: as if the machine started now.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
            let now = now.and_then(|now| i64::try_from(now.as_secs()).ok());
            let options = PreenOptions { is_forced, now };
            filesystem_ext4::preen::preen(device.clone(), &options)
                .unwrap_or_else(|error| Preen::Unknown(error.to_string()))
        })
    }

    /// Opens the file system as the kernel will see it: with its journal replayed in memory. What is read through it stays as it
    /// is now, whatever is written later: for looking only, [`kernel_view`](Self::kernel_view) is cheaper.
    ///
    /// Where the journal cannot be replayed, the reason is among the problems and the view is that of a boot
    /// loader, which is better than none.
    ///
    /// # Errors
    /// Those of the format; [`Error::Unsupported`] when there is no file system that can be opened.
    pub fn open(&self) -> Result<Opened, Error> {
        let (format, device, others) = self.openable()?;
        match (format.replay)(device.clone()) {
            Ok(replayed) => open_all(format, replayed.device, others),
            Err(reason) => {
                let mut opened = open_all(format, device, others)?;
                opened.problems.push(reason);
                Ok(opened)
            }
        }
    }

    /// Opens the file system as a boot loader sees it: with its journal not replayed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_bare(&self) -> Result<Opened, Error> {
        let (format, device, others) = self.openable()?;
        open_all(format, device, others)
    }

    /// The subvolumes of the file system, the top level first; none where its format has none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn subvolumes(&self) -> Result<Vec<Subvolume>, Error> {
        let (format, device, others) = self.openable()?;
        let Some(set) = &format.set else { return Ok(Vec::new()) };
        let devices = std::iter::once(device).chain(others.iter().cloned());
        (set.subvolumes)(devices.collect())
    }

    /// As [`open`](Self::open), with the subvolume of this number as root.
    ///
    /// # Errors
    /// As [`open`](Self::open); there is no such subvolume.
    pub fn open_subvolume(&self, id: u64) -> Result<Opened, Error> {
        let (format, device, others) = self.openable()?;
        let set = format.set.as_ref().ok_or_else(|| Error::unsupported(format.name, "a subvolume"))?;
        // What cannot be replayed is read as it lies there, and says so.
        let (device, reason) = match (format.replay)(device.clone()) {
            Ok(replayed) => (replayed.device, None),
            Err(reason) => (device, Some(reason)),
        };
        let devices = std::iter::once(device).chain(others.iter().cloned());
        let mut opened = (set.open_subvolume)(devices.collect(), id)?;
        opened.problems.extend(reason);
        Ok(opened)
    }

    fn openable(&self) -> Result<(&'static Format, Device, &[Device]), Error> {
        match (&self.content, &self.device) {
            (Content::FileSystem { format, others, .. }, Some(device)) => {
                Ok((*format, device.clone(), others.as_slice()))
            }
            _ => Err(Error::unsupported(
                "device",
                format!("opening {} as a file system", self.content_type().unwrap_or("unknown content")),
            )),
        }
    }
}

/// Opens a device with the others of its set, if it has any.
fn open_all(format: &Format, device: Device, others: &[Device]) -> Result<Opened, Error> {
    match &format.set {
        Some(set) if !others.is_empty() => {
            let mut devices = vec![device];
            devices.extend(others.iter().cloned());
            (set.open)(devices)
        }
        _ => (format.open)(device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten volumes over ten volumes, twenty times: 10^20 ways down, and one disk.
    #[test]
    fn ways_down_are_not_counted() {
        let node = |kind, parents| Node {
            path: String::new(),
            kind,
            parents,
            size: 0,
            device: None,
            content: Content::Unknown,
            problems: Vec::new(),
            views: Views::default(),
        };
        let decrypted = || NodeKind::Decrypted { uuid: String::new(), slot: 0 };
        let mut storage = Storage::default();
        storage.nodes.push(node(NodeKind::Disk(3), Vec::new()));
        let mut last = vec![NodeId(0)];
        for _ in 0..20 {
            let first = storage.nodes.len();
            for _ in 0..10 {
                storage.nodes.push(node(decrypted(), last.clone()));
            }
            last = (first..first + 10).map(NodeId).collect();
        }
        assert_eq!(storage.disks_below(last[9]), [3]);
    }
}
