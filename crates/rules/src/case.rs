//! What a rule may look at.

use boot::BootTrace;
use boot::fstab::Unit;
use filesystem::path::resolve;
use filesystem::{FileSystem, Inode};
use guest::{ConfigFile, Guest};
use guest_files::fstab::{Entry, Field, Fstab};
use repair::FileEdit;
use storage::{Bus, DeviceNames, Hardware, NodeId, NodeKind, Storage, Target, udev_node};

use crate::finding::{Line, Place, Spot};

/// Larger than any file that is quoted or edited, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

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
    /// Whether no other system is on the disks: what names nothing can then mean only this one.
    pub is_only_system: bool,
}

/// A file of the guest, wherever it lies.
#[derive(Debug)]
pub struct GuestFile {
    /// The node whose file system holds it.
    pub node: NodeId,
    /// The file there.
    pub inode: Inode,
    /// Its path as the guest sees it, or on its file system where the guest does not mount that.
    pub path: String,
    /// Its content, unless it is too large to be text or cannot be read.
    content: Option<Vec<u8>>,
}

impl GuestFile {
    fn new(fs: &dyn FileSystem, at: Inode, node: NodeId, inode: Inode, path: &str) -> Self {
        let content = filesystem::read_to_end(fs, at, FILE_LIMIT).ok();
        Self { node, inode, path: path.to_owned(), content }
    }

    /// Its content, if it may be text.
    pub fn text(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// An edit of this file.
    pub fn edit(&self, edit: guest_files::Edit) -> FileEdit {
        FileEdit { node: self.node, inode: self.inode, path: self.path.clone(), edit }
    }
}

impl<'a> Case<'a> {
    /// The case of one system, with those of the boots that are its own.
    pub fn new(storage: &'a Storage, guest: &'a Guest, boots: &'a [BootTrace]) -> Self {
        let is_only_system = boots.iter().all(|boot| boot.guest == Some(guest.root));
        let boots: Vec<&BootTrace> = boots.iter().filter(|boot| boot.guest == Some(guest.root)).collect();
        let disks = storage.iter().filter(|(_, node)| matches!(node.kind, NodeKind::Disk(_))).count();
        let as_is = Hardware::new(guest.bus.unwrap_or(Bus::VirtioBlk), disks);
        let names = DeviceNames::new(storage, boots.first().map_or(&as_is, |boot| &boot.hardware));
        Self { storage, guest, boots, names, is_only_system }
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

    /// How a boot ends at this line before systemd of the system itself reads it: in the initramfs. The machine as it stands is told
    /// before others.
    pub(crate) fn ends_early(&self, file: &ConfigFile<Fstab>, entry: &Entry) -> Option<String> {
        self.boots.iter().find_map(|boot| {
            let cause = boot.cause.as_ref()?;
            let is_here = cause.file == file.path && cause.line == Some(entry.line);
            let is_early = !boot.outcome.is_up() && boot.outcome != boot::Outcome::Emergency;
            let is_late = boot.stages.iter().any(|stage| stage.name == boot::StageName::LocalFileSystems);
            (is_here && is_early && !is_late)
                .then(|| format!("boot: in the initramfs, {}: \"{}\"", boot.outcome, cause.symptom))
        })
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
        let line = Line { file: file.path.clone(), number: entry.line, columns: start..end, text };
        Place { node: file.node, spot: Spot::Line(line) }
    }

    /// A file by the name that a trace gives it: a path as the guest sees it, or `disk0/p1:/path` on a volume that the
    /// guest does not mount. What lies within a file, as in `/boot/initrd.img:etc/x`, is the file.
    pub fn file(&self, name: &str) -> Option<GuestFile> {
        self.file_there(name).or_else(|| self.file_there(name.rsplit_once(':')?.0))
    }

    fn file_there(&self, name: &str) -> Option<GuestFile> {
        if name.starts_with('/') {
            let at = resolve(&self.guest.tree, name.as_bytes()).ok()?;
            let (node, inode) = self.guest.tree.locate(at).ok()?;
            return Some(GuestFile::new(&self.guest.tree, at, node, inode, name));
        }
        let (node, path) = self.on_volume(name)?;
        let fs = self.storage.node(node).kernel_view().ok()?.fs;
        let inode = resolve(fs.as_ref(), path.as_bytes()).ok()?;
        Some(GuestFile::new(fs.as_ref(), inode, node, inode, path))
    }

    /// The node that would hold a file, and the file's path there or in the guest.
    pub(crate) fn owner(&self, name: &str) -> (NodeId, String) {
        if let Some((node, path)) = self.on_volume(name) {
            return (node, path.to_owned());
        }
        let is_below = |target: &str| {
            let rest = name.strip_prefix(target.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let mounts = self.guest.mounts.iter().filter(|mount| is_below(&mount.target));
        let deepest = mounts.max_by_key(|mount| mount.target.len());
        (deepest.map_or(self.guest.root, |mount| mount.node), name.to_owned())
    }

    fn on_volume<'n>(&self, name: &'n str) -> Option<(NodeId, &'n str)> {
        let (volume, path) = name.split_once(":/")?;
        let path = name.get(name.len().checked_sub(path.len())?.checked_sub(1)?..)?;
        let found = self.storage.iter().find(|(_, node)| node.path == volume)?;
        Some((found.0, path))
    }

    /// The UUID of a node, if no other node has the same.
    pub fn own_uuid(&self, node: NodeId) -> Option<&'a str> {
        self.storage.node(node).uuid().filter(|_| self.same_uuid(node).is_empty())
    }

    /// Whether files on a node can be edited.
    pub fn is_writable(&self, node: NodeId) -> bool {
        self.storage.node(node).open_bare().is_ok_and(|opened| opened.value.writable().is_some())
    }

    /// The nodes other than `node` whose content has the same UUID.
    pub fn same_uuid(&self, node: NodeId) -> Vec<NodeId> {
        let Some(uuid) = self.storage.node(node).uuid() else { return Vec::new() };
        let others = self.storage.iter().filter(|(id, other)| *id != node && other.uuid() == Some(uuid));
        others.map(|(id, _)| id).collect()
    }
}
