//! Opening what the command line names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{Counter, Device};
use image::{FolderGate, Image, Options};

use crate::cli::args::Common;

/// The opened disks of one machine.
pub(crate) struct Disks {
    /// As given on the command line.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) images: Vec<Image>,
}

impl Disks {
    /// Opens every image read-only.
    pub(crate) fn open(common: &Common, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let images = paths.iter().map(|path| open(common, path)).collect::<Result<_, _>>()?;
        Ok(Self { paths: paths.to_vec(), images })
    }

    pub(crate) fn devices(&self) -> Vec<Device> {
        self.images.iter().map(|image| image.device.clone()).collect()
    }

    /// The name of one disk for people: its file name, or its path where several share a file name.
    pub(crate) fn name(&self, disk: usize) -> String {
        self.paths.get(disk).map_or_else(|| format!("disk{disk}"), |path| display_name(path))
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

/// Opens one image read-only with the gate that the common arguments ask for.
pub(crate) fn open(common: &Common, path: &Path) -> anyhow::Result<Image> {
    let options = Options { format: common.format.as_deref(), ..Options::default() };
    let mut image = image::open(path, &options, &gate(common))?;
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
