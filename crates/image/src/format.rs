//! An image format, as the list of formats knows it.

use std::fmt;

use blockdev::{BlockDevice, Device};
use ondisk::read_bytes;

use crate::Result;
use crate::open::{Opening, Source};

/// One entry of the list of formats.
#[derive(Clone, Copy)]
pub struct ImageFormat {
    /// The name that `--format` and backing-format fields use: `qcow2`, `raw`.
    pub name: &'static str,
    /// Guesses from the first and last bytes of the file.
    pub probe: fn(&Head) -> bool,
    /// Opens the file as this format and describes its layers in the `Opening`.
    pub(crate) open: fn(&Source, &mut Opening<'_>) -> Result<Device>,
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
        Ok(Self { start: bytes(0, start)?, end: bytes(size.saturating_sub(end), end)? })
    }
}
