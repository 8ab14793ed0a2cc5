//! Opening what the command line names.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use blockdev::{Counter, Device, FileDevice};
use image::{FolderGate, Image, ImageFormat, Options};
use zeroize::Zeroizing;

use crate::cli::args::Common;

/// Bytes of a passphrase that are read at most.
const MAX_PASSPHRASE: u64 = 8 << 10;

/// The opened disks of one machine.
pub(crate) struct Disks {
    /// The file of each disk; an archive stands once for every disk in it.
    pub(crate) paths: Vec<PathBuf>,
    /// The name of each disk within an archive.
    members: Vec<Option<String>>,
    /// What opened the encrypted ones; kept, for standard input can be read only once.
    pub(crate) passphrase: Option<Zeroizing<Vec<u8>>>,
    pub(crate) images: Vec<Image>,
}

impl Disks {
    /// Opens every image read-only; of an archive, every disk in it.
    pub(crate) fn open(common: &Common, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let key = passphrase(common)?;
        let mut disks = Self { paths: Vec::new(), members: Vec::new(), passphrase: None, images: Vec::new() };
        for path in paths {
            let named = common.member.is_some() || common.format.as_deref().is_some_and(|name| name != "ova");
            // What cannot be listed is opened all the same, for its error.
            let members = if named { Vec::new() } else { image::members(path).unwrap_or_default() };
            let members: Vec<_> = match members.is_empty() {
                true => vec![None],
                false => members.into_iter().map(Some).collect(),
            };
            for member in members {
                let mut options = options(common, key.as_deref().map(Vec::as_slice));
                options.member = member.as_deref().or(options.member);
                disks.images.push(open_with(path, &options, &gate(common))?);
                disks.paths.push(path.clone());
                disks.members.push(member);
            }
        }
        disks.passphrase = key;
        Ok(disks)
    }

    pub(crate) fn devices(&self) -> Vec<Device> {
        self.images.iter().map(|image| image.device.clone()).collect()
    }

    /// The name of one disk for people: its file name, or its path where several share a file name.
    pub(crate) fn name(&self, disk: usize) -> String {
        let Some(path) = self.paths.get(disk) else { return format!("disk{disk}") };
        match self.members.get(disk) {
            Some(Some(member)) => format!("{}:{member}", display_name(path)),
            _ => display_name(path),
        }
    }

    /// The name of the machine: its first disk's.
    pub(crate) fn machine_name(&self) -> String {
        self.name(0)
    }
}

/// The gate that the common arguments ask for.
pub(crate) fn gate(common: &Common) -> FolderGate {
    common.allow_path.iter().fold(FolderGate::new(), FolderGate::allow_path)
}

/// The passphrase that the common arguments point to.
pub(crate) fn passphrase(common: &Common) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(path) = &common.passphrase_file else { return Ok(None) };
    // Room for all of it, so that growing leaves no copies behind.
    let mut key = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE as usize));
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_PASSPHRASE).read_to_end(&mut key)?;
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(MAX_PASSPHRASE).read_to_end(&mut key)?;
    }
    if key.last() == Some(&b'\n') {
        key.pop();
    }
    Ok(Some(key))
}

/// How the common arguments want images opened.
pub(crate) fn options<'a>(common: &'a Common, passphrase: Option<&'a [u8]>) -> Options<'a> {
    Options {
        format: common.format.as_deref(),
        snapshot: common.snapshot.as_deref(),
        member: common.member.as_deref(),
        passphrase,
        accept_changed_parent: common.accept_changed_parent,
        ..Options::default()
    }
}

/// Whether another program has the file open for writing; false where the host cannot tell.
pub(crate) fn is_in_use(path: &Path) -> bool {
    FileDevice::open(path).and_then(|file| file.is_being_written()).unwrap_or(false)
}

/// The format that the name of a new file speaks of.
pub(crate) fn format_of_name(path: &Path) -> anyhow::Result<&'static ImageFormat> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let name = match extension.to_ascii_lowercase().as_str() {
        "img" | "raw" | "dd" => "raw".to_owned(),
        "avhd" => "vhd".to_owned(),
        other => other.to_owned(),
    };
    image::format_named(&name)
        .with_context(|| format!("the name {} does not say a format; use --to", path.display()))
}

/// What was wrong with an image, on opening and on all reads since.
pub(crate) fn problems_of(image: &Image) -> Vec<String> {
    let opening = image.problems.iter().map(ToString::to_string);
    let notes = image.chain.iter().flat_map(|layer| layer.notes.iter().cloned());
    let reads = image.take_read_problems().into_iter().map(|problem| problem.to_string());
    opening.chain(notes).chain(reads).collect()
}

/// Opens one image read-only as the common arguments want it.
pub(crate) fn open(common: &Common, path: &Path) -> anyhow::Result<Image> {
    let key = passphrase(common)?;
    open_with(path, &options(common, key.as_deref().map(Vec::as_slice)), &gate(common))
}

fn open_with(path: &Path, options: &Options<'_>, gate: &FolderGate) -> anyhow::Result<Image> {
    let mut image = image::open(path, options, gate)?;
    // For measuring what a command reads; see docs/architecture.md.
    if std::env::var_os("GUESTMEND_COUNT_READS").is_some() {
        image.device = Arc::new(CountOnDrop(Counter::new(image.device)));
    }
    Ok(image)
}

/// The last component, which is how people speak of an image.
pub(crate) fn display_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reports on standard error how much was read, once the command is done.
#[derive(Debug)]
struct CountOnDrop(Counter);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        use std::io::Write;
        drop(writeln!(std::io::stderr(), "read {} bytes in {} reads", self.0.bytes(), self.0.reads()));
    }
}

impl blockdev::BlockDevice for CountOnDrop {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> std::io::Result<blockdev::Extent> {
        self.0.extent_at(offset)
    }

    fn writable(&self) -> Option<&dyn blockdev::BlockDeviceMut> {
        self.0.writable()
    }
}
