//! Another name for the parent: a new parent locator in the metadata.

use super::metadata;
use super::parent_locator::ParentLocator;
use super::structures::Structures;
use crate::open::Source;
use crate::{ImageFormat, Patch, Result};

/// The new item first, then the entry of the table that points to it.
pub(super) fn rename_parent(source: &Source, name: &[u8], format: &ImageFormat) -> Result<Vec<Patch>> {
    let refused = |reason: &str| source.not_renamable(name, reason);
    let failed = source.failed("vhdx");
    if format.name != "vhdx" {
        return Err(refused("the parent of a VHDX must be one"));
    }
    let path = std::str::from_utf8(name).map_err(|_| refused("the name is not UTF-8"))?;
    let structures = Structures::read(&source.device).map_err(&failed)?;
    if structures.replay.is_some() {
        return Err(refused("it was not closed cleanly; `image check --repair all` writes its log first"));
    }
    let old = structures.metadata.parent.ok_or_else(|| refused("it was made from nothing"))?;
    if path.starts_with('/') {
        return Err(refused("only a relative name can be stored"));
    }
    let relative = format!(".\\{}", path.replace('/', "\\"));
    // The locator counts the bytes of a value in 16 bits.
    if relative.encode_utf16().count() > usize::from(u16::MAX / 2) {
        return Err(refused("the name is longer than 32767 characters"));
    }
    // The absolute paths would still lead to a file of the old name.
    let locator = ParentLocator {
        linkage: old.linkage,
        linkage2: old.linkage2,
        relative_path: Some(relative),
        volume_path: None,
        absolute_win32_path: None,
    };
    let region = &structures.regions.metadata;
    let patches = metadata::renamed_parent(&*source.device, region, &locator).map_err(&failed)?;
    patches.ok_or_else(|| refused("there is no room for the name"))
}
