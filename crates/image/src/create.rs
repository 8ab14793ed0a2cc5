//! New, empty images.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
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

/// A new random UUID (version 4), as the bytes that its text form spells.
pub(crate) fn new_uuid() -> [u8; 16] {
    // Keyed with random numbers of the host, for another purpose: unique is all that an image must be.
    let half = || RandomState::new().build_hasher().finish();
    let [a, b, c, d, e, f, g, h] = half().to_be_bytes();
    let [i, j, k, l, m, n, o, p] = half().to_be_bytes();
    [a, b, c, d, e, f, g & 0x0f | 0x40, h, i & 0x3f | 0x80, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_differ() {
        let (first, second) = (new_uuid(), new_uuid());
        assert_ne!(first, second);
        assert_eq!((first[6] >> 4, first[8] >> 6), (4, 2));
    }
}
