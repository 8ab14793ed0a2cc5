//! Which modules a kernel can use at one time, and so which disks and file systems.

use std::sync::Arc;

use boot_files::modules::{Missing, Modules};
use filesystem::path::{real_path, resolve};
use guest::Guest;
use storage::Bus;

use super::blacklist::{self, Blacklist};
use super::grub::GuestPlace;
use super::kernel::{Kernel, Loadable, Unpacked};

/// Why a disk or file system cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// No driver: neither built in nor to be loaded. The module, or the one it needs that is missing.
    Module(String),
    /// The kernel has no such driver at all.
    NotInKernel(String),
    /// The driver is there, and this line keeps it from being loaded.
    Blacklisted(String, GuestPlace),
    /// Nothing here says.
    Unknown(String),
}

/// Where modules are loaded from.
enum Index {
    None,
    Initramfs(Arc<Loadable>),
    Root(Arc<Modules>),
}

impl Index {
    fn modules(&self) -> Option<&Modules> {
        let modules = match self {
            Self::None => None,
            Self::Initramfs(loadable) => Some(&loadable.modules),
            Self::Root(modules) => Some(&**modules),
        };
        modules.filter(|modules| !modules.is_empty())
    }
}

/// Which modules a kernel can use at one time: those built in, and those of one directory.
pub(crate) struct Drivers<'a> {
    /// `None` when nothing is known of the kernel: it is trusted to have what it needs.
    kernel: Option<&'a Kernel>,
    index: Index,
    has_file: Box<dyn Fn(&str) -> bool + 'a>,
    /// What was loaded before, and stays.
    earlier: Option<Box<Drivers<'a>>>,
    /// What is not loaded for a device, unless it is asked for by name.
    blacklist: Blacklist,
    asked_by_name: Vec<String>,
}

impl<'a> Drivers<'a> {
    /// The kernel's release, where it is known.
    pub(super) fn release(&self) -> Option<&str> {
        self.kernel?.release.as_deref()
    }

    /// In the initramfs.
    pub(crate) fn in_initramfs(kernel: &'a Kernel, unpacked: &'a Unpacked) -> Self {
        let loadable = unpacked.loadable(kernel.release.as_ref());
        let files = loadable.clone();
        let has_file = move |path: &str| files.files.contains(path.as_bytes());
        let index = Index::Initramfs(loadable);
        let mut blacklist = Blacklist::of_words(&kernel.loaded.arguments);
        for folder in ["etc/modprobe.d", "lib/modprobe.d", "usr/lib/modprobe.d"] {
            for (path, entry) in unpacked.archive.below(folder.as_bytes()) {
                let text = String::from_utf8_lossy(entry.content.as_deref().unwrap_or_default());
                blacklist.add(&text, &format!("{}:{}", unpacked.path, String::from_utf8_lossy(path)));
            }
        }
        let list = unpacked.text("conf/modules");
        let asked_by_name = blacklist::asked_by_name(&kernel.loaded.arguments, list.as_deref());
        Self {
            kernel: Some(kernel),
            index,
            has_file: Box::new(has_file),
            earlier: None,
            blacklist,
            asked_by_name,
        }
    }

    /// On the root file system, once it is mounted.
    pub(crate) fn on_root(kernel: &'a Kernel, guest: &'a Guest) -> Self {
        let release = kernel.release.clone().unwrap_or_default();
        let has_file = move |path: &str| {
            resolve(&guest.tree, format!("/lib/modules/{release}/{path}").as_bytes()).is_ok()
        };
        let index = kernel.modules.clone().map_or(Index::None, Index::Root);
        let earlier =
            kernel.initramfs.as_deref().map(|unpacked| Box::new(Self::in_initramfs(kernel, unpacked)));
        let blacklist = Blacklist::of_words(&kernel.loaded.arguments);
        let asked_by_name = Vec::new();
        Self { kernel: Some(kernel), index, has_file: Box::new(has_file), earlier, blacklist, asked_by_name }
    }

    /// Every one: for a kernel that is not known.
    pub(crate) fn all() -> Self {
        Self::without_blacklist(None, Box::new(|_| true))
    }

    /// None that could be loaded: only what is built in.
    pub(crate) fn built_in(kernel: &'a Kernel) -> Self {
        Self::without_blacklist(Some(kernel), Box::new(|_| false))
    }

    fn without_blacklist(kernel: Option<&'a Kernel>, has_file: Box<dyn Fn(&str) -> bool + 'a>) -> Self {
        let (blacklist, asked_by_name) = (Blacklist::default(), Vec::new());
        Self { kernel, index: Index::None, has_file, earlier: None, blacklist, asked_by_name }
    }

    /// Where the root file system has, or should have, the kernel's modules.
    pub(crate) fn folder(&self, guest: &Guest) -> Option<String> {
        let release = self.kernel?.release.as_ref()?;
        let parent = real_path(&guest.tree, b"/lib/modules").unwrap_or_else(|_| "/lib/modules".into());
        Some(format!("{parent}/{release}"))
    }

    /// What the copy in the initramfs lists, which knows, too, what is built in.
    fn listed_in_initramfs(&self) -> Option<Arc<Loadable>> {
        let kernel = self.kernel?;
        kernel.initramfs.as_deref().map(|unpacked| unpacked.loadable(kernel.release.as_ref()))
    }

    fn is_builtin(&self, name: &str) -> bool {
        let root = self.kernel.and_then(|kernel| kernel.modules.as_deref());
        root.is_some_and(|modules| modules.is_builtin(name))
            || self.index.modules().is_some_and(|modules| modules.is_builtin(name))
            || self.listed_in_initramfs().is_some_and(|loadable| loadable.modules.is_builtin(name))
    }

    /// Whether a module is built in or can be loaded with all that it needs.
    pub(crate) fn check(&self, name: &str) -> Result<(), Lack> {
        let Some(kernel) = self.kernel else { return Ok(()) };
        if self.is_builtin(name) {
            return Ok(());
        }
        let root = kernel.modules.as_deref();
        let initramfs = self.listed_in_initramfs();
        let Some(modules) = self.index.modules() else {
            let is_listed = initramfs.as_ref().is_some_and(|loadable| !loadable.modules.is_empty());
            return Err(match root {
                None if is_listed => Lack::Module(name.to_owned()),
                Some(root) if root.get(name).is_some() => Lack::Module(name.to_owned()),
                Some(_) => Lack::NotInKernel(name.to_owned()),
                None => {
                    Lack::Unknown(format!("whether {name} is built in: the kernel's indexes are not there"))
                }
            });
        };
        match modules.load_order(name, &*self.has_file) {
            Ok(_) => Ok(()),
            Err(missing) => {
                let is_known = root.is_none_or(|root| root.get(name).is_some());
                Err(match missing {
                    Missing::NotListed(_) if !is_known => Lack::NotInKernel(name.to_owned()),
                    Missing::NotListed(module) => Lack::Module(module),
                    Missing::NoFile(path) => Lack::Module(boot_files::modules::module_name(&path)),
                })
            }
        }
    }

    /// Whether a module is loaded for a device that has an alias of it.
    pub(crate) fn is_let(&self, name: &str) -> Result<(), Lack> {
        let Some(place) = self.blacklist.place_of(name) else { return Ok(()) };
        let is_asked = self.asked_by_name.iter().any(|asked| asked == name);
        if is_asked || self.is_builtin(name) {
            return Ok(());
        }
        Err(Lack::Blacklisted(name.to_owned(), place.clone()))
    }

    /// Whether disks on a bus appear.
    pub(crate) fn bus(&self, bus: Bus) -> Result<(), Lack> {
        let earlier = || self.earlier.as_ref().filter(|earlier| earlier.bus(bus).is_ok());
        self.bus_now(bus).or_else(|lack| earlier().map(|_| ()).ok_or(lack))
    }

    fn bus_now(&self, bus: Bus) -> Result<(), Lack> {
        let all = |names: &[&str]| {
            names.iter().try_for_each(|name| self.check(name).and_then(|()| self.is_let(name)))
        };
        match bus {
            Bus::VirtioBlk => all(&["virtio_pci", "virtio_blk"]),
            Bus::VirtioScsi => all(&["virtio_pci", "virtio_scsi", "sd_mod"]),
            Bus::Sata => all(&["ahci", "sd_mod"]),
            Bus::Ide => {
                all(&["ata_piix", "sd_mod"]).or_else(|lack| all(&["ata_generic", "sd_mod"]).map_err(|_| lack))
            }
            Bus::Nvme => all(&["nvme"]),
            Bus::Pvscsi => all(&["vmw_pvscsi", "sd_mod"]),
            Bus::Lsi => all(&["mptspi", "sd_mod"]),
            Bus::LsiSas => all(&["mptsas", "sd_mod"]),
            Bus::Lsi53c895a => all(&["sym53c8xx", "sd_mod"]),
            Bus::Megasas => all(&["megaraid_sas", "sd_mod"]),
            Bus::BusLogic => all(&["BusLogic", "sd_mod"]),
            Bus::HyperV => all(&["hv_storvsc", "sd_mod"]),
            Bus::Xen => all(&["xen_blkfront"]),
        }
    }
}
