//! New, empty images.

use std::path::Path;

use crate::{Error, Result, format_named};

/// What a new image is to be, in terms that all formats share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewImage {
    /// Length of the disk in bytes.
    pub size: u64,
    /// The kind of image within its format, by QEMU's name: `dynamic`, `fixed`, `monolithicSparse`, …; the
    /// format's usual one when `None`.
    pub subformat: Option<String>,
    /// Bytes in a cluster, grain or block; the format's usual size when `None`.
    pub cluster_size: Option<u64>,
    /// Logical sector size in bytes; 512 when `None`.
    pub sector_size: Option<u32>,
}

/// Makes a new, empty image at `path`, which must not exist, and the further files that it needs beside it.
///
/// # Errors
/// [`Error::UnknownFormat`], [`Error::NotCreatable`] for what the format cannot be, and errors of the host.
pub fn create(path: &Path, format: &str, new: &NewImage) -> Result<()> {
    let format = format_named(format)?;
    let create = format.create.ok_or_else(|| Error::NotCreatable {
        format: format.name,
        reason: "this format is only read".to_owned(),
    })?;
    create(path, new)
}
