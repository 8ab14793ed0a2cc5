//! Another name for the parent of a differencing disk: the relative locator, and the name in the header.

use zerocopy::IntoBytes;

use super::footer::Footers;
use super::header::{Header, sealed};
use super::open::choose;
use crate::open::Source;
use crate::{ImageFormat, Patch, Result};

/// Bytes of a sector: the unit of a locator's room, where it is not bytes.
const SECTOR: u32 = 512;

/// The name in its place first, then the header that says how long it is.
pub(super) fn rename_parent(source: &Source, name: &[u8], format: &ImageFormat) -> Result<Vec<Patch>> {
    let refused = |reason: &str| source.not_renamable(name, reason);
    let failed = source.failed("vhd");
    if format.name != "vhd" {
        return Err(refused("the parent of a VHD must be one"));
    }
    let path = std::str::from_utf8(name).map_err(|_| refused("the name is not UTF-8"))?;
    if path.starts_with('/') {
        return Err(refused("only a relative name can be stored"));
    }
    let file = &*source.device;
    let footers = Footers::read(file).map_err(&failed)?;
    let (_, footer) = choose(&footers, file.size()).map_err(&failed)?;
    let header = Header::read(file, footer).map_err(&failed)?.value;
    if footer.disk_type != super::footer::DiskType::Differencing {
        return Err(refused("it was made from nothing"));
    }
    let windows = format!(".\\{}", path.replace('/', "\\"));
    let little: Vec<u8> = windows.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = windows.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let mut raw = header.raw;
    let mut patches = Vec::new();
    let length = u32::try_from(little.len()).unwrap_or(u32::MAX);
    if let Some(locator) = raw.parent_locators.iter_mut().find(|locator| locator.platform_code == *b"W2ru") {
        // Sectors by the specification, bytes by some writers; no name takes more sectors than there are bytes.
        let space = locator.platform_data_space.get();
        let room = if space < SECTOR { space.saturating_mul(SECTOR) } else { space };
        let room = room.max(locator.platform_data_length.get());
        if length > room {
            return Err(refused("there is no room for the name"));
        }
        let mut bytes = little;
        let old = usize::try_from(locator.platform_data_length.get()).unwrap_or(0);
        bytes.resize(bytes.len().max(old), 0);
        patches.push(Patch { file: 0, offset: locator.platform_data_offset.get(), bytes });
        locator.platform_data_length = length.into();
    }
    if big.len() > raw.parent_unicode_name.len() {
        return Err(refused("there is no room for the name"));
    }
    raw.parent_unicode_name.fill(0);
    raw.parent_unicode_name.iter_mut().zip(&big).for_each(|(to, from)| *to = *from);
    let raw = sealed(raw);
    patches.push(Patch { file: 0, offset: header.at, bytes: raw.as_bytes().to_vec() });
    Ok(patches)
}
