//! What GRUB sees of the disks: its names for them, its file systems, its own drivers.
//!
//! GRUB reads file systems without replaying their journals, so every file is looked for in the boot loader's view.

#[cfg(test)]
mod fstest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use filesystem::path::{PathError, resolve};
use filesystem::{FileKind, FileSystem};
use storage::{Content, Hardware, NodeId, NodeKind, Presence, Storage};

use crate::grub::{
    Answer, ErrorCode, GrubError, Lookup, Place, Platform, ProbeWhat, SearchBy, SearchRequest, World,
};

/// Files that one script may look up, where reading a directory counts as [`DIRECTORY`] of them.
const BUDGET: usize = 100_000;
const DIRECTORY: usize = 200;
/// Bytes of a module.
const MAX_MODULE: u64 = 4 << 20;
/// The number of the subvolume that holds all others.
const TOP_LEVEL: u64 = 5;

/// Features of ext4 that GRUB refuses, by the build: RULES.md A5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Red Hat Enterprise Linux, by its major release.
    RedHat(u32),
    /// Debian 12 and its like: 2.06 with upstream's later file system code.
    Debian,
    /// Not measured.
    Other,
}

impl Build {
    /// Whether this build takes a file system with this feature; `None` where nobody measured.
    fn takes(self, kind: &str, feature: &str) -> Option<bool> {
        let is_ext = kind.starts_with("ext");
        let ext_always = [
            "filetype",
            "extents",
            "extent",
            "flex_bg",
            "64bit",
            "needs_recovery",
            "has_journal",
            "journal_dev",
        ];
        // GRUB only reads: what is safe for readers is safe for it.
        const EXT_READ_ONLY: [&str; 3] = ["inline_data", "ea_inode", "casefold"];
        const EXT_LATER: [&str; 6] =
            ["metadata_csum_seed", "meta_bg", "mmp", "encrypt", "large_dir", "largedir"];
        if is_ext {
            if ext_always.contains(&feature) {
                return Some(true);
            }
            if EXT_READ_ONLY.contains(&feature) {
                return Some(false);
            }
            if EXT_LATER.contains(&feature) {
                return match self {
                    Self::RedHat(..=7) => Some(false),
                    Self::RedHat(8) => Some(matches!(feature, "meta_bg" | "mmp" | "encrypt")),
                    Self::RedHat(9) => Some(!matches!(feature, "large_dir" | "largedir")),
                    Self::RedHat(_) | Self::Debian => Some(true),
                    Self::Other => None,
                };
            }
            return Some(true);
        }
        if kind == "xfs" && matches!(feature, "bigtime" | "nrext64") {
            return match self {
                Self::RedHat(..=7) => Some(false),
                Self::RedHat(_) | Self::Debian => Some(true),
                Self::Other => None,
            };
        }
        if kind == "xfs" && matches!(feature, "exchange" | "parent" | "metadir") {
            return if self == Self::Other { None } else { Some(false) };
        }
        Some(true)
    }
}

/// The module that reads a file system.
fn driver(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "ext2" | "ext3" | "ext4" => "ext2",
        "xfs" => "xfs",
        "btrfs" => "btrfs",
        "vfat" => "fat",
        "ntfs" => "ntfs",
        "iso9660" => "iso9660",
        "squashfs" => "squash4",
        _ => return None,
    })
}

/// GRUB on one machine.
pub(crate) struct GrubWorld<'a> {
    storage: &'a Storage,
    platform: Platform,
    build: Build,
    /// `hd0,msdos1` and the like, in the order in which GRUB goes through them.
    devices: Vec<(String, NodeId)>,
    /// Drives, also those without content.
    drives: BTreeSet<String>,
    /// Modules in the core image.
    core: BTreeSet<String>,
    /// Where modules are: device and directory, once it is known.
    prefix: Option<(String, String)>,
    trees: Mutex<BTreeMap<NodeId, Arc<dyn FileSystem>>>,
    /// Whether the file of a module is there, by its path; scripts name few.
    modules: Mutex<BTreeMap<String, bool>>,
    /// What may still be looked up: a script of thousands of searches over thousands of partitions has no end that matters.
    budget: AtomicUsize,
}

impl<'a> GrubWorld<'a> {
    /// GRUB started from disk `boot_disk` of `hardware`, with the modules of its core image.
    pub(crate) fn new(
        storage: &'a Storage,
        hardware: &Hardware,
        boot_disk: usize,
        platform: Platform,
        core: &[String],
    ) -> Self {
        let mut world = Self {
            storage,
            platform,
            build: Build::Other,
            devices: Vec::new(),
            drives: BTreeSet::new(),
            core: core.iter().cloned().collect(),
            prefix: None,
            trees: Mutex::default(),
            modules: Mutex::default(),
            budget: AtomicUsize::new(BUDGET),
        };
        // The drive that a BIOS started is the first; UEFI's handles come in the order of the slots.
        let mut slots = hardware.drives();
        if platform == Platform::Bios {
            slots.sort_by_key(|disk| *disk != Some(boot_disk));
        }
        for (number, disk) in slots.into_iter().enumerate() {
            let name = format!("hd{number}");
            world.drives.insert(name.clone());
            let Some(disk) = disk else { continue };
            for (id, node) in storage.iter().filter(|(_, node)| node.kind == NodeKind::Disk(disk)) {
                world.devices.push((name.clone(), id));
                world.add_partitions(&name, id, node);
            }
        }
        world.add_virtual(hardware);
        world
    }

    /// Modules in the core image count as loaded; others are files below `directory` on `device`.
    pub(crate) fn set_prefix(&mut self, device: &str, directory: &str) {
        self.prefix = Some((device.to_owned(), directory.to_owned()));
    }

    /// Which GRUB it is, once its own code was read.
    pub(crate) fn set_build(&mut self, build: Build) {
        self.build = build;
    }

    /// The code of `normal`, which knows GRUB's version.
    pub(crate) fn normal_code(&self) -> Option<Vec<u8>> {
        let (device, _) = self.prefix.as_ref()?;
        let path = self.module_path("normal")?;
        let fs = self.tree(self.resolve(device).ok()?, false).ok()?;
        let inode = resolve(fs.as_ref(), path.as_bytes()).ok()?;
        filesystem::read_to_end(fs.as_ref(), inode, MAX_MODULE).ok()
    }

    fn add_partitions(&mut self, drive: &str, disk: NodeId, node: &storage::Node) {
        let Content::Partitions(table) = &node.content else { return };
        // OVMF writes a good copy of the table over a bad one before it starts anything.
        let accepted = match (&table.judges.grub, self.platform) {
            (volume::Judgement::Rejects { .. }, Platform::Efi) => &table.judges.ovmf,
            (judgement, _) => judgement,
        };
        let volume::Judgement::Accepts { source, partitions, .. } = accepted else { return };
        let scheme = if *source == volume::Source::Mbr { "msdos" } else { "gpt" };
        for (id, child) in self.storage.children(disk) {
            let NodeKind::Partition(partition) = &child.kind else { continue };
            if partitions.iter().any(|seen| seen.number == partition.number && seen.start == partition.start)
            {
                self.devices.push((format!("{drive},{scheme}{}", partition.number), id));
            }
        }
    }

    fn add_virtual(&mut self, hardware: &Hardware) {
        let present: Vec<usize> = hardware.slots.iter().filter_map(|slot| slot.disk).collect();
        let presence = self.storage.presence(&present);
        for (id, node) in self.storage.iter() {
            let is_here = presence.get(id.0).is_some_and(|presence| *presence != Presence::Absent);
            if node.device.is_none() || !is_here {
                continue;
            }
            match &node.kind {
                NodeKind::LogicalVolume { group, name, uuid, .. } => {
                    let dashes = |name: &str| name.replace('-', "--");
                    self.devices.push((format!("lvm/{}-{}", dashes(group), dashes(name)), id));
                    if let Some(group) = self.storage.groups.iter().find(|found| found.name == *group) {
                        self.devices.push((format!("lvmid/{}/{uuid}", group.uuid), id));
                    }
                }
                NodeKind::Array { uuid, name, .. } => {
                    let name = name.as_deref().unwrap_or_default();
                    let short = name.split_once(':').map_or(name, |(_, name)| name);
                    self.devices.push((format!("md/{short}"), id));
                    self.devices.push((format!("mduuid/{}", uuid.replace(['-', ':'], "")), id));
                }
                _ => {}
            }
        }
    }

    /// The node that a name without parentheses leads to.
    pub(crate) fn resolve(&self, device: &str) -> Result<NodeId, GrubError> {
        let same = |name: &str| {
            name == device
                || match (name.split_once(','), device.split_once(',')) {
                    (Some((drive, part)), Some((asked, number))) => {
                        drive == asked && part.trim_start_matches(|c: char| c.is_ascii_lowercase()) == number
                    }
                    _ => false,
                }
        };
        if let Some((_, id)) = self.devices.iter().find(|(name, _)| same(name)) {
            return Ok(*id);
        }
        let drive = device.split(',').next().unwrap_or_default();
        let has_drive = self.drives.contains(drive) || self.devices.iter().any(|(name, _)| name == drive);
        Err(match has_drive {
            true if device.contains(',') => GrubError::no_such_partition(),
            true => GrubError::unknown_filesystem(),
            false => GrubError::disk_not_found(device),
        })
    }

    /// GRUB's first name for a node.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<String> {
        self.devices.iter().find(|(_, id)| *id == node).map(|(name, _)| name.clone())
    }

    /// Whether any drive has a GPT that GRUB takes.
    pub(crate) fn has_gpt(&self) -> bool {
        self.devices.iter().any(|(name, _)| name.contains(",gpt"))
    }

    /// Whether the core image has a module.
    pub(crate) fn is_in_core(&self, module: &str) -> bool {
        self.core.contains(module)
    }

    /// What is at a path, as far as the core image's own drivers reach.
    pub(crate) fn lookup_by_core(&self, place: Place<'_>, path: &[u8]) -> Answer<Lookup> {
        let kind = match self.resolve(place.device) {
            Ok(id) => self.storage.node(id).content_type().and_then(driver),
            Err(error) => return Answer::Known(Lookup::Failed(error)),
        };
        match kind {
            Some(module) if self.core.contains(module) => self.lookup(place, path),
            _ => Answer::Known(Lookup::Failed(GrubError::unknown_filesystem())),
        }
    }

    /// The rule that describes why a device's file system is unknown to GRUB.
    pub(crate) fn unreadable_rule(&self, device: &str) -> &'static str {
        let kind =
            self.resolve(device).ok().and_then(|id| self.storage.node(id).content_type().map(str::to_owned));
        match kind.as_deref().map(driver) {
            Some(Some(module)) if !self.core.contains(module) => "grub.core-lacks-module",
            Some(Some(_)) => "grub.fs-unreadable",
            _ => "fs.wrong-type-or-missing",
        }
    }

    /// Whether a module can be used: in the core image, or a file beside the configuration.
    fn has_module(&self, name: &str) -> bool {
        self.core.contains(name) || matches!(self.module_file(name), Some(Lookup::File { .. }))
    }

    fn module_file(&self, name: &str) -> Option<Lookup> {
        let (device, _) = self.prefix.as_ref()?;
        let path = self.module_path(name)?;
        let node = self.resolve(device).ok()?;
        // Without asking whether its file system can be read: that needs modules again.
        let fs = self.tree(node, false).ok()?;
        Some(look(fs.as_ref(), path.as_bytes()))
    }

    fn module_path(&self, name: &str) -> Option<String> {
        let platform = match self.platform {
            Platform::Bios => "i386-pc",
            Platform::Efi => "x86_64-efi",
        };
        self.prefix.as_ref().map(|(_, directory)| format!("{directory}/{platform}/{name}.mod"))
    }

    /// Takes from what may be looked up; whether there was as much.
    fn spend(&self, units: usize) -> bool {
        let left = |left: usize| left.checked_sub(units);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    /// The tree on a device as GRUB sees it, or its error.
    fn fs(&self, place: Place<'_>) -> Result<Answer<Arc<dyn FileSystem>>, GrubError> {
        if !self.spend(1) {
            return Ok(Answer::Unknown("more files than are looked up for one boot".into()));
        }
        let id = self.resolve(place.device)?;
        let node = self.storage.node(id);
        let Content::FileSystem { identity, .. } = &node.content else {
            return Err(GrubError::unknown_filesystem());
        };
        let is_driven = driver(identity.kind).is_some_and(|module| {
            self.core.contains(module) || self.prefix.is_some() && self.has_module(module)
        });
        if !is_driven {
            return Err(GrubError::unknown_filesystem());
        }
        let fs = self.tree(id, place.is_btrfs_relative)?;
        for feature in &fs.info().features {
            match self.build.takes(identity.kind, feature) {
                Some(true) => {}
                Some(false) => return Err(GrubError::unknown_filesystem()),
                None => {
                    let reason = format!("whether this GRUB reads {} with {feature}", identity.kind);
                    return Ok(Answer::Unknown(reason));
                }
            }
        }
        Ok(Answer::Known(fs))
    }

    fn tree(&self, id: NodeId, is_relative: bool) -> Result<Arc<dyn FileSystem>, GrubError> {
        let node = self.storage.node(id);
        let is_btrfs = node.content_type() == Some("btrfs");
        if !is_btrfs || is_relative {
            return match node.boot_loader_view() {
                Ok(view) => Ok(view.fs),
                Err(_) => Err(GrubError::unknown_filesystem()),
            };
        }
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fs) = trees.get(&id) {
            return Ok(fs.clone());
        }
        let opened = node.open_subvolume(TOP_LEVEL).map_err(|_| GrubError::unknown_filesystem())?;
        let fs: Arc<dyn FileSystem> = Arc::from(opened.value);
        trees.insert(id, fs.clone());
        Ok(fs)
    }

    fn on_fs<T>(
        &self,
        place: Place<'_>,
        with: impl FnOnce(&dyn FileSystem) -> T,
        failed: impl FnOnce(GrubError) -> T,
    ) -> Answer<T> {
        match self.fs(place) {
            Ok(Answer::Known(fs)) => Answer::Known(with(fs.as_ref())),
            Ok(Answer::Unknown(reason)) => Answer::Unknown(reason),
            Err(error) => Answer::Known(failed(error)),
        }
    }

    /// The whole file at a path, for what comes after GRUB: its node, its inode, its tree.
    pub(crate) fn open(&self, place: Place<'_>, path: &[u8]) -> Option<(NodeId, Arc<dyn FileSystem>)> {
        let id = self.resolve(place.device).ok()?;
        let fs = self.tree(id, place.is_btrfs_relative).ok()?;
        resolve(fs.as_ref(), path).is_ok().then_some((id, fs))
    }
}

fn look(fs: &dyn FileSystem, path: &[u8]) -> Lookup {
    let inode = match resolve(fs, path) {
        Ok(inode) => inode,
        Err(PathError::Fs { .. }) => {
            return Lookup::Failed(GrubError::new(ErrorCode::BadFs, "the file system is damaged"));
        }
        Err(PathError::TooManySymlinks(_)) => {
            return Lookup::Failed(GrubError::new(ErrorCode::SymlinkLoop, "too deep nesting of symlinks"));
        }
        Err(PathError::NotFound(_) | PathError::NotADirectory(_)) => return Lookup::Missing,
    };
    match fs.metadata(inode) {
        Ok(metadata) if metadata.kind == FileKind::Directory => Lookup::Directory,
        Ok(metadata) => Lookup::File { size: metadata.size, damage: None },
        Err(_) => Lookup::Failed(GrubError::new(ErrorCode::BadFs, "the file system is damaged")),
    }
}

impl World for GrubWorld<'_> {
    fn device(&self, device: &str) -> Answer<Result<(), GrubError>> {
        let found = self.resolve(device).map(drop);
        Answer::Known(found.or_else(|error| match error.code {
            ErrorCode::UnknownFs => Ok(()),
            _ => Err(error),
        }))
    }

    fn search(&self, request: &SearchRequest<'_>) -> Answer<Option<String>> {
        let key = String::from_utf8_lossy(request.key);
        let is_it = |name: &str, id: NodeId| -> Answer<bool> {
            let node = self.storage.node(id);
            let place = Place { device: name, is_btrfs_relative: false };
            let fits = match request.by {
                SearchBy::FsUuid => node.uuid().is_some_and(|uuid| uuid.eq_ignore_ascii_case(&key)),
                SearchBy::Label => node.label().is_some_and(|label| label == request.key),
                SearchBy::File => true,
            };
            if !fits {
                return Answer::Known(false);
            }
            match self.lookup(place, if request.by == SearchBy::File { request.key } else { b"/" }) {
                Answer::Known(found) => {
                    Answer::Known(matches!(found, Lookup::File { .. } | Lookup::Directory))
                }
                Answer::Unknown(reason) => Answer::Unknown(reason),
            }
        };
        let hinted = request.hints.iter().flat_map(|hint| {
            let hint = String::from_utf8_lossy(hint).into_owned();
            let drive = hint.strip_suffix(',').map(str::to_owned);
            self.devices.iter().filter(move |(name, _)| match &drive {
                Some(drive) => name == drive || name.starts_with(&format!("{drive},")),
                None => *name == hint,
            })
        });
        for (name, id) in hinted.chain(&self.devices) {
            match is_it(name, *id) {
                Answer::Known(true) => return Answer::Known(Some(name.clone())),
                Answer::Known(false) => {}
                Answer::Unknown(reason) => return Answer::Unknown(reason),
            }
        }
        Answer::Known(None)
    }

    fn lookup(&self, place: Place<'_>, path: &[u8]) -> Answer<Lookup> {
        self.on_fs(place, |fs| look(fs, path), Lookup::Failed)
    }

    fn read(&self, place: Place<'_>, path: &[u8], limit: usize) -> Answer<Result<Vec<u8>, GrubError>> {
        let read = |fs: &dyn FileSystem| -> Answer<Result<Vec<u8>, GrubError>> {
            let Ok(inode) = resolve(fs, path) else {
                return Answer::Known(Err(GrubError::file_not_found(path)));
            };
            match filesystem::read_to_end(fs, inode, limit as u64) {
                Ok(bytes) => Answer::Known(Ok(bytes)),
                Err(filesystem::Error::Unsupported { feature, .. }) => Answer::Unknown(feature),
                Err(_) => Answer::Known(Err(GrubError::new(ErrorCode::BadFs, "the file system is damaged"))),
            }
        };
        match self.on_fs(place, read, |error| Answer::Known(Err(error))) {
            Answer::Known(answer) => answer,
            Answer::Unknown(reason) => Answer::Unknown(reason),
        }
    }

    fn list(&self, place: Place<'_>, path: &[u8]) -> Answer<Result<Vec<Vec<u8>>, GrubError>> {
        if !self.spend(DIRECTORY) {
            return Answer::Unknown("more files than are looked up for one boot".into());
        }
        let list = |fs: &dyn FileSystem| {
            let inode = resolve(fs, path).map_err(|_| GrubError::file_not_found(path))?;
            let entries = fs.read_dir(inode).map_err(|_| GrubError::file_not_found(path))?;
            Ok(entries.into_iter().map(|entry| entry.name).collect())
        };
        self.on_fs(place, list, Err)
    }

    fn probe(&self, device: &str, what: ProbeWhat) -> Answer<Result<Option<Vec<u8>>, GrubError>> {
        let id = match self.resolve(device) {
            Ok(id) => id,
            Err(error) => return Answer::Known(Err(error)),
        };
        let node = self.storage.node(id);
        let text = |text: &str| Some(text.as_bytes().to_vec());
        Answer::Known(Ok(match what {
            ProbeWhat::Driver if device.starts_with("lvm") => text("lvm"),
            ProbeWhat::Driver if device.starts_with("md") => text("diskfilter"),
            ProbeWhat::Driver => text(if self.platform == Platform::Bios { "biosdisk" } else { "efidisk" }),
            ProbeWhat::PartitionMap => match device.split_once(',') {
                Some((_, part)) => text(part.trim_end_matches(|c: char| c.is_ascii_digit())),
                None => None,
            },
            ProbeWhat::Fs => node.content_type().and_then(driver).and_then(text),
            ProbeWhat::FsUuid => node.uuid().and_then(text),
            ProbeWhat::FsLabel => node.label().map(<[u8]>::to_vec),
            ProbeWhat::PartitionUuid => match &node.kind {
                NodeKind::Partition(partition) => text(&partition.uuid),
                _ => None,
            },
        }))
    }

    fn module(&self, name: &str) -> Answer<Result<(), GrubError>> {
        if self.core.contains(name) {
            return Answer::Known(Ok(()));
        }
        // Every command asks for its module.
        let path = self.module_path(name).unwrap_or_default();
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = match modules.get(&path) {
            Some(known) => *known,
            None => {
                let found = matches!(self.module_file(name), Some(Lookup::File { .. }));
                *modules.entry(path.clone()).or_insert(found)
            }
        };
        Answer::Known(if is_there { Ok(()) } else { Err(GrubError::file_not_found(path.as_bytes())) })
    }
}
