//! An image format, as the list of formats knows it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use blockdev::BlockDevice;
use ondisk::read_bytes;

use crate::open::{Opening, Source};
use crate::{LayerDisk, NewImage, Patch, Report, Result};

/// A kind of image that is written once, from the disk it is to hold.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Its name, as [`NewImage::subformat`] has it.
    pub subformat: &'static str,
    /// Writes the disk to a new image at a path that must not exist.
    pub write: fn(&Path, &dyn BlockDevice) -> Result<()>,
}

/// See [`ImageFormat::rename_parent`].
pub(crate) type RenameParent = fn(&Source, &[u8], &ImageFormat) -> Result<Vec<Patch>>;

/// One entry of the list of formats.
#[derive(Clone, Copy)]
pub struct ImageFormat {
    /// The name that `--format` and messages use: `qcow2`, `vhd`, `raw`.
    pub name: &'static str,
    /// The name that QEMU gives it, in backing-format fields for instance: `vpc` for `vhd`.
    pub qemu_name: &'static str,
    /// Guesses from the first and last bytes of the file.
    pub probe: fn(&Head) -> bool,
    /// Opens the file as this format. Pushes the description of its layer before it opens what lies below.
    pub(crate) open: fn(&Source, &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>>,
    /// Examines every structure of this file (and of the extents that belong to it), not of what lies below.
    pub(crate) check: fn(&Source, &mut Opening<'_>) -> Result<Report>,
    /// Makes a new, empty image at a path that must not exist; `None` when this format is not written.
    pub create: Option<fn(&Path, &NewImage) -> Result<()>>,
    /// The kind of image within this format that is written as a whole and then only read.
    pub stream: Option<Stream>,
    /// The patches that make the image name another parent, of the given name and format; `None` when images of
    /// this format have no parents.
    pub(crate) rename_parent: Option<RenameParent>,
}

impl fmt::Debug for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageFormat({})", self.name)
    }
}

/// What probing may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first bytes of the file, up to 4096.
    pub start: Vec<u8>,
    /// The last bytes of the file, up to 512.
    pub end: Vec<u8>,
    /// Length of the file in bytes.
    pub size: u64,
}

impl Head {
    /// Reads both ends of `device`.
    ///
    /// # Errors
    /// [`ondisk::Error::Io`].
    pub fn read(device: &dyn BlockDevice) -> ondisk::Result<Self> {
        let size = device.size();
        let start = size.min(4096);
        let end = size.min(512);
        let bytes = |offset, length| read_bytes(device, offset, usize::try_from(length).unwrap_or(0));
        Ok(Self { start: bytes(0, start)?, end: bytes(size.saturating_sub(end), end)?, size })
    }
}
