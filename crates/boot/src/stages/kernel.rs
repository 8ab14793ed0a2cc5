//! The kernel and its initramfs: there, whole, and what they can drive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use boot_files::initramfs::{Compression, EntryKind, Initramfs, Limits};
use boot_files::kernel_config::{KernelConfig, Setting};
use boot_files::kernel_image::{HEAD, KernelError, KernelImage};
use boot_files::modules::Modules;
use filesystem::path::resolve;
use filesystem::{FileSystem, Inode};
use guest::Guest;
use storage::{NodeId, Storage};

use super::devices::{Devices, overhang};
use super::grub::{GuestPlace, Loaded, LoadedFile};
use super::{Step, cause};
use crate::trace::{Cause, Outcome, StageName};

/// Bytes of an index of modules, or of a kernel's configuration.
const MAX_INDEX: u64 = 16 << 20;
/// Files that an initramfs is put together from; microcode, the image and some more.
const MAX_PARTS: usize = 64;
/// Bytes of a file in an initramfs that is kept.
const MAX_KEPT: u64 = 4 << 20;

/// Where an initramfs has its programs.
const PROGRAMS: [&str; 4] = ["sbin", "bin", "usr/sbin", "usr/bin"];

/// A kernel that runs.
pub(crate) struct Kernel {
    pub(crate) release: Option<String>,
    /// The indexes on the root file system, if they are there.
    pub(crate) modules: Option<Arc<Modules>>,
    pub(crate) initramfs: Option<Arc<Unpacked>>,
    /// What it was built with, if that is there.
    pub(crate) config: Option<KernelConfig>,
    /// The words of its command line, with those that the initramfs adds.
    pub(crate) loaded: Loaded,
}

/// An initramfs and what it can load.
pub(crate) struct Unpacked {
    pub(crate) archive: Initramfs,
    pub(crate) kind: Kind,
    /// As the guest sees the file; of several the last.
    pub(crate) path: String,
    /// By release, the directory of modules in it.
    pub(crate) releases: BTreeMap<String, Vec<u8>>,
    /// What can be loaded, by release: the same for every machine.
    loadable: Mutex<BTreeMap<Option<String>, Arc<Loadable>>>,
}

/// The modules for one kernel: their indexes and the files that are there, below the kernel's directory.
#[derive(Default)]
pub(super) struct Loadable {
    pub(super) modules: Modules,
    pub(super) files: BTreeSet<Vec<u8>>,
}

/// What made an initramfs, and so how it looks for the root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dracut,
    InitramfsTools,
    Mkinitcpio,
    Unknown,
}

/// A file: its file system, and its path there.
type FileKey = (NodeId, Vec<u8>);
/// A kernel's modules: the root file system, and the release.
type ReleaseKey = (NodeId, String);

/// Initramfs images that were unpacked, by the file systems and paths of their parts.
#[derive(Default)]
pub(crate) struct Cache {
    unpacked: Mutex<BTreeMap<Vec<FileKey>, Arc<Unpacked>>>,
    modules: Mutex<BTreeMap<ReleaseKey, Option<Arc<Modules>>>>,
}

/// Judges what GRUB has loaded.
pub(crate) fn run(storage: &Storage, guest: Option<&Guest>, loaded: Loaded, cache: &Cache) -> Step<Kernel> {
    let name = StageName::Kernel;
    let image = match head(&loaded.kernel) {
        Ok((head, size)) => KernelImage::parse(&head, size),
        Err(reason) => return Step::unknown(name, format!("{}: {reason}", loaded.kernel.guest_path)),
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            let path = loaded.kernel.guest_path.clone();
            let (outcome, symptom) = match error {
                KernelError::NotAKernel => (Outcome::GrubError, "error: invalid magic number.".to_owned()),
                KernelError::Empty => (Outcome::GrubError, format!("error: premature end of file {path}.")),
                // What is there is started, and falls over itself.
                KernelError::Truncated { .. } => (Outcome::RebootLoop, "the machine starts again".to_owned()),
            };
            let cause = Cause { file: path.clone(), ..cause("kernel.image-invalid", symptom) };
            return Step::stops(name, outcome, cause, format!("{path}: {error}"));
        }
    };
    let config = image.release.as_ref().and_then(|release| {
        let kernel = String::from_utf8_lossy(&loaded.kernel.path);
        let folder = kernel.rsplit_once('/').map_or("", |(folder, _)| folder);
        KernelConfig::parse(&read(loaded.kernel.fs.as_ref(), &format!("{folder}/config-{release}"))?)
    });
    let modules = image.release.as_ref().and_then(|release| cache.modules_of(guest?, release));
    let initramfs = if loaded.initrds.is_empty() {
        None
    } else {
        match cache.unpack(&loaded.initrds) {
            Ok(unpacked) => Some(unpacked),
            Err(reason) => {
                let cut = loaded.initrds.iter().find_map(|file| overhang(storage, file.node));
                let Some(cut) = cut else { return Step::unknown(name, reason) };
                // GRUB says so, and starts the kernel without it.
                let symptom = "error: attempt to read or write outside of disk";
                let summary = format!("{reason}; {cut}");
                return Step::stops(
                    name,
                    Outcome::KernelPanic,
                    cause("part.out-of-bounds", symptom),
                    summary,
                );
            }
        }
    };
    if let Some(step) = initramfs.as_deref().and_then(|unpacked| refused(unpacked, config.as_ref())) {
        return step;
    }
    let release = image.release.as_deref().unwrap_or("of unknown release");
    let summary = match &initramfs {
        Some(unpacked) => format!("Linux {release} with {}", unpacked.path),
        None => format!("Linux {release} without an initramfs"),
    };
    let next = Kernel { release: image.release.clone(), modules, initramfs, config, loaded };
    Step::goes(name, summary, next)
}

/// An archive that the kernel cannot unpack to a usable `/init`.
fn refused(unpacked: &Unpacked, config: Option<&KernelConfig>) -> Option<Step<Kernel>> {
    let name = StageName::Kernel;
    let panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
    for segment in &unpacked.archive.segments {
        let Some(option) = segment.compression.kernel_option() else { continue };
        if config.is_some_and(|config| config.get(option) == Setting::Off) {
            let cause =
                Cause { file: unpacked.path.clone(), ..cause("initramfs.compression-unsupported", panic) };
            let summary = format!("{}: this kernel cannot unpack {}", unpacked.path, segment.compression);
            return Some(Step::stops(name, Outcome::KernelPanic, cause, summary));
        }
    }
    let has_init = unpacked.archive.resolve(b"init").is_some();
    // Of a file with several names the last brings the content; until then they are all empty.
    let is_whole =
        |path: &str| unpacked.archive.resolve(path.as_bytes()).is_some_and(|(_, entry)| entry.size > 0);
    let has_shell = PROGRAMS
        .iter()
        .any(|folder| is_whole(&format!("{folder}/sh")) || is_whole(&format!("{folder}/systemd")));
    match &unpacked.archive.damage {
        Some(damage) if damage.is_limit && !has_init => {
            Some(Step::unknown(name, format!("{}: {}", unpacked.path, damage.reason)))
        }
        Some(damage) if !(damage.is_limit || has_init && has_shell && unpacked.has_libraries()) => {
            let panic = match has_init {
                true => "Kernel panic - not syncing: No working init found.",
                false => panic,
            };
            let cause = Cause { file: unpacked.path.clone(), ..cause("initramfs.corrupt", panic) };
            let kind = damage.compression.unwrap_or(Compression::None);
            let summary = format!(
                "{}: unpacking the archive at byte {} ({kind}) fails: {}",
                unpacked.path, damage.segment, damage.reason
            );
            Some(Step::stops(name, Outcome::KernelPanic, cause, summary))
        }
        Some(damage) if damage.is_limit => Some(Step::unknown(
            name,
            format!("{}: only a part of it is unpacked: {}", unpacked.path, damage.reason),
        )),
        // What comes before the damage was unpacked, and is all that there is.
        Some(_) => None,
        None if !has_init => {
            let cause = Cause { file: unpacked.path.clone(), ..cause("initramfs.corrupt", panic) };
            Some(Step::stops(name, Outcome::KernelPanic, cause, format!("{} holds no /init", unpacked.path)))
        }
        None => None,
    }
}

fn head(file: &LoadedFile) -> Result<(Vec<u8>, u64), String> {
    let inode = resolve(file.fs.as_ref(), &file.path).map_err(|error| error.to_string())?;
    let size = file.fs.metadata(inode).map_err(|error| error.to_string())?.size;
    let mut head = vec![0; HEAD];
    let count = file.fs.read_at(inode, &mut head, 0).map_err(|error| error.to_string())?;
    head.truncate(count);
    Ok((head, size))
}

fn read(fs: &dyn FileSystem, path: &str) -> Option<Vec<u8>> {
    let inode = resolve(fs, path.as_bytes()).ok()?;
    filesystem::read_to_end(fs, inode, MAX_INDEX).ok()
}

impl Cache {
    /// The indexes of a kernel's modules on the guest's root.
    fn modules_of(&self, guest: &Guest, release: &str) -> Option<Arc<Modules>> {
        let mut known = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry((guest.root, release.to_owned())).or_insert_with(|| {
            let [dep, builtin, alias, soft] = ["dep", "builtin", "alias", "softdep"].map(|name| {
                read(&guest.tree, &format!("/lib/modules/{release}/modules.{name}")).unwrap_or_default()
            });
            let modules = Modules::parse(&dep, &builtin, &alias, &soft);
            (!modules.is_empty()).then(|| Arc::new(modules))
        });
        found.clone()
    }

    fn unpack(&self, files: &[LoadedFile]) -> Result<Arc<Unpacked>, String> {
        let key: Vec<FileKey> = files.iter().map(|file| (file.node, file.path.clone())).collect();
        let mut known = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let path = files.last().map(|file| file.guest_path.clone()).unwrap_or_default();
        // Each part lies one deeper in the reader below.
        if files.len() > MAX_PARTS {
            return Err(format!("{path}: more than {MAX_PARTS} parts of an initramfs"));
        }
        let mut parts: Box<dyn Read> = Box::new(io::empty());
        for file in files {
            let inode = resolve(file.fs.as_ref(), &file.path).map_err(|error| error.to_string())?;
            // GRUB aligns each to four bytes; the zeros between archives stand for nothing.
            let size = file.fs.metadata(inode).map_err(|error| error.to_string())?.size;
            let padding = io::repeat(0).take(size.next_multiple_of(4) - size);
            let reader = FileReader { fs: file.fs.clone(), inode, at: 0 };
            parts = Box::new(parts.chain(reader).chain(padding));
        }
        let mut input = BufReader::with_capacity(1 << 20, parts);
        let archive = Initramfs::read(&mut input, Limits::default(), &wants)
            .map_err(|error| format!("{path}: {error}"))?;
        let unpacked = Arc::new(Unpacked::new(archive, path));
        known.insert(key, unpacked.clone());
        Ok(unpacked)
    }
}

/// The files of an initramfs that decide what it does.
fn wants(path: &[u8], size: u64) -> bool {
    if size > MAX_KEPT {
        return false;
    }
    let has = |text: &[u8]| path.windows(text.len()).any(|window| window == text);
    let is_index = [&b"/modules.dep"[..], b"/modules.builtin", b"/modules.alias", b"/modules.softdep"]
        .iter()
        .any(|name| path.ends_with(name));
    is_index
        || [
            &b"etc/cmdline"[..],
            b"etc/lvm/",
            b"etc/fstab",
            b"etc/crypttab",
            b"etc/mdadm",
            b"etc/modprobe.d/",
            b"lib/modprobe.d/",
            b"usr/lib/modprobe.d/",
            b"conf/",
            b"cryptroot/",
        ]
        .iter()
        .any(|start| path.starts_with(start))
        || has(b"dracut/hooks/initqueue/finished/")
        || has(b"dracut/hooks/emergency/")
}

/// A file of a guest as a stream.
struct FileReader {
    fs: Arc<dyn FileSystem>,
    inode: Inode,
    at: u64,
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count =
            self.fs.read_at(self.inode, buf, self.at).map_err(|error| io::Error::other(error.to_string()))?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Unpacked {
    fn new(archive: Initramfs, path: String) -> Self {
        let is_there = |path: &str| archive.resolve(path.as_bytes()).is_some();
        let kind = if is_there("usr/lib/dracut-lib.sh") || is_there("lib/dracut-lib.sh") {
            Kind::Dracut
        } else if is_there("scripts/functions") && is_there("conf/initramfs.conf") {
            Kind::InitramfsTools
        } else if is_there("init_functions") && is_there("hooks") {
            Kind::Mkinitcpio
        } else {
            Kind::Unknown
        };
        let mut releases = BTreeMap::new();
        for folder in ["lib/modules", "usr/lib/modules"] {
            let Some((base, _)) = archive.resolve(folder.as_bytes()) else { continue };
            for (path, entry) in archive.below(folder.as_bytes()) {
                let name = path.get(base.len() + 1..).unwrap_or_default();
                if entry.kind == EntryKind::Directory && !name.contains(&b'/') {
                    releases.insert(String::from_utf8_lossy(name).into_owned(), path.to_vec());
                }
            }
        }
        Self { archive, kind, path, releases, loadable: Mutex::default() }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.archive.resolve(path.as_bytes()).is_some()
    }

    /// Whether a program of this name is in one of the usual directories.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        PROGRAMS.iter().any(|folder| self.has(&format!("{folder}/{name}")))
    }

    /// What a kernel can load from it, and what its index says to be built in.
    pub(super) fn loadable(&self, release: Option<&String>) -> Arc<Loadable> {
        let mut known = self.loadable.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(release.cloned()).or_insert_with(|| Arc::new(self.loadable_anew(release))).clone()
    }

    fn loadable_anew(&self, release: Option<&String>) -> Loadable {
        let Some(base) = release.and_then(|release| self.releases.get(release)) else {
            return Loadable::default();
        };
        let index = |name: &str| {
            let path = [base.as_slice(), b"/modules.", name.as_bytes()].concat();
            self.archive.content(&path).unwrap_or_default()
        };
        let modules = Modules::parse(index("dep"), index("builtin"), index("alias"), index("softdep"));
        let below = self.archive.below(base).filter_map(|(path, _)| path.get(base.len() + 1..));
        Loadable { modules, files: below.map(<[u8]>::to_vec).collect() }
    }

    /// Numbers the arrays as mdadm in the image does; without mdadm nothing is assembled there.
    pub(crate) fn number_arrays(&self, devices: &mut Devices<'_>) {
        if self.has_program("mdadm") {
            let found = ["etc/mdadm/mdadm.conf", "etc/mdadm.conf"]
                .into_iter()
                .find_map(|path| Some((path, self.text(path)?)));
            let (path, text) = found.unwrap_or(("etc/mdadm/mdadm.conf", String::new()));
            devices.add_mdadm_conf(&text, format!("{path} of {}", self.path));
        }
    }

    /// Whether what `/init` needs of libraries is there: klibc's or musl's one, or the C library with its loader where
    /// programs look for that, and for systemd its own.
    fn has_libraries(&self) -> bool {
        let has = |prefix: &[u8]| {
            self.archive
                .entries
                .keys()
                .any(|path| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().starts_with(prefix))
        };
        if self.starts_systemd() && !has(b"libsystemd-shared") {
            return false;
        }
        // x86-64's loader has this one path; those of others are not asked for theirs.
        let is_loader_lost = has(b"ld-linux-x86-64") && !self.has("lib64/ld-linux-x86-64.so.2");
        has(b"klibc-") || has(b"ld-musl") || has(b"ld-linux") && has(b"libc.so.6") && !is_loader_lost
    }

    /// What dracut's image adds to the command line.
    pub(crate) fn embedded_arguments(&self) -> Vec<(String, GuestPlace)> {
        let files = self.archive.below(b"etc/cmdline.d");
        let words = files.flat_map(|(path, entry)| {
            let text = String::from_utf8_lossy(entry.content.as_deref().unwrap_or_default()).into_owned();
            let place =
                GuestPlace { file: format!("{}:{}", self.path, String::from_utf8_lossy(path)), line: 1 };
            let words =
                text.split_whitespace().map(|word| (word.trim_matches('"').to_owned(), place.clone()));
            words.collect::<Vec<_>>()
        });
        words.collect()
    }

    /// The last of them that starts with `key`.
    pub(crate) fn embedded(&self, key: &str) -> Option<(String, GuestPlace)> {
        let mut words = self.embedded_arguments().into_iter().rev();
        words.find_map(|(word, place)| Some((word.strip_prefix(key)?.to_owned(), place)))
    }

    /// Whether its `/init` is systemd.
    pub(crate) fn starts_systemd(&self) -> bool {
        self.archive.resolve(b"init").is_some_and(|(path, _)| path.ends_with(b"systemd"))
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.archive.content(path.as_bytes())?).into_owned())
    }
}
