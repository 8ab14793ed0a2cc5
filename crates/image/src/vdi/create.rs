//! A new, empty VDI: header, block map, and for a static one all blocks, as a hole.
//!
//! The header is written last: a cut before that leaves a file that is no image.

use std::path::Path;

use blockdev::{BlockDeviceMut, FileDevice};
use zerocopy::{FromZeros, IntoBytes};

use super::header::{RawHeader, SIGNATURE, VERSION};
use super::open::FORMAT;
use crate::arithmetic::{overflow, to_index};
use crate::blocks::{BlockSize, SECTOR};
use crate::create::new_uuid;
use crate::{Error, NewImage, Result};

/// Bytes in a block; QEMU reads no other.
const BLOCK_SIZE: u64 = 1 << 20;

/// Bounds of the block size, in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 4 << 10..=256 << 20;

/// Where the map starts, and the unit in which the blocks start, as VirtualBox does it.
const MAP_AT: u64 = 512;
const ALIGNMENT: u64 = 1 << 20;

/// QEMU's bound on the number of blocks.
const MAX_BLOCKS: u64 = 0x1fff_ffff;

/// Makes a new image at `path`.
pub(super) fn create(path: &Path, new: &NewImage) -> Result<()> {
    let refused = |reason: String| Error::NotCreatable { format: FORMAT.name, reason };
    if new.sector_size.is_some_and(|bytes| bytes != 512) {
        return Err(refused("its sectors have 512 bytes".to_owned()));
    }
    let is_static = match new.subformat.as_deref() {
        None | Some("dynamic") => false,
        Some("static") => true,
        Some(other) => return Err(refused(format!("there is no subformat {other}"))),
    };
    let wanted = new.cluster_size.unwrap_or(BLOCK_SIZE);
    let block_size = u32::try_from(wanted).ok().filter(|_| BLOCK_SIZES.contains(&wanted));
    let block_size = block_size.and_then(BlockSize::new);
    let block_size = block_size.ok_or_else(|| refused(format!("a block size of {wanted} bytes")))?;
    let size = new.size.checked_next_multiple_of(SECTOR);
    let size = size.filter(|size| *size > 0 && block_size.count(*size) <= MAX_BLOCKS);
    let size = size.ok_or_else(|| {
        refused(format!("a disk of {} bytes in blocks of {}", new.size, block_size.bytes()))
    })?;

    let failed = |source| Error::Open { path: path.to_owned(), source };
    let file = FileDevice::create_new(path).map_err(failed)?;
    fill(&file, size, block_size, is_static).map_err(failed)
}

fn fill(file: &FileDevice, size: u64, block_size: BlockSize, is_static: bool) -> std::io::Result<()> {
    let blocks = u32::try_from(block_size.count(size)).map_err(|_| overflow())?;
    let map = u64::from(blocks).saturating_mul(4).next_multiple_of(SECTOR);
    let data = MAP_AT.saturating_add(map).next_multiple_of(ALIGNMENT);
    let allocated = if is_static { blocks } else { 0 };
    let end = data.saturating_add(u64::from(allocated).saturating_mul(block_size.bytes()));
    file.grow(end)?;
    write_map(file, blocks, map, is_static)?;
    file.flush()?;

    let mut raw = RawHeader::new_zeroed();
    let text = b"<<< guestmend virtual disk image >>>\n";
    raw.text.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    raw.signature = SIGNATURE.into();
    raw.version = VERSION.into();
    // From this field to the end of the second geometry.
    raw.header_size = 400.into();
    raw.image_type = if is_static { 2 } else { 1 }.into();
    raw.offset_bmap = u32::try_from(MAP_AT).map_err(|_| overflow())?.into();
    raw.offset_data = u32::try_from(data).map_err(|_| overflow())?.into();
    raw.sector_size = 512.into();
    raw.disk_size = size.into();
    raw.block_size = u32::try_from(block_size.bytes()).map_err(|_| overflow())?.into();
    raw.blocks_in_image = blocks.into();
    raw.blocks_allocated = allocated.into();
    raw.uuid_image = new_uuid();
    raw.uuid_last_snap = new_uuid();
    file.write_all_at(raw.as_bytes(), 0)?;
    file.flush()
}

/// Writes `length` bytes of map: each block in its own place, or none anywhere.
fn write_map(file: &FileDevice, blocks: u32, length: u64, is_static: bool) -> std::io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut at = 0;
    while at < length {
        let count = CHUNK.min(length.saturating_sub(at));
        let first = u32::try_from(at / 4).map_err(|_| overflow())?;
        let numbers = first..first.saturating_add(u32::try_from(count / 4).map_err(|_| overflow())?);
        let entry = |number| if is_static && number < blocks { number } else { u32::MAX };
        let mut bytes = Vec::with_capacity(to_index(count)?);
        numbers.for_each(|number| bytes.extend_from_slice(&entry(number).to_le_bytes()));
        file.write_all_at(&bytes, MAP_AT.saturating_add(at))?;
        at = at.saturating_add(count);
    }
    Ok(())
}
