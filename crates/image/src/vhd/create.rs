//! A new, empty VHD.
//!
//! Dynamic: copy of the footer, header, block allocation table, footer. Fixed: the disk, footer. The footer and
//! its copy are written last: a cut before that leaves a file that is no image.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use blockdev::{BlockDeviceMut, FileDevice};
use zerocopy::{FromZeros, IntoBytes};

use super::footer::{self, RawFooter};
use super::geometry::{Geometry, SECTOR};
use super::header::{self, RawHeader};
use super::open::FORMAT;
use crate::blocks::BlockSize;
use crate::create::new_uuid;
use crate::{Error, NewImage, Result};

/// Bytes in a block, as everybody makes them.
const BLOCK_SIZE: u64 = 2 << 20;

/// Bounds of the block size, in bytes: what the specification knows, with some room.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 20;

/// The largest disk that QEMU makes, in bytes: 2040 GiB.
const MAX_SIZE: u64 = 0xff00_0000 * SECTOR;

/// Makes a new image at `path`.
pub(super) fn create(path: &Path, new: &NewImage) -> Result<()> {
    let refused = |reason: String| Error::NotCreatable { format: FORMAT.name, reason };
    let size = new.size.checked_next_multiple_of(SECTOR).filter(|size| (1..=MAX_SIZE).contains(size));
    let size = size.ok_or_else(|| refused(format!("a disk of {} bytes, not 1 to {MAX_SIZE}", new.size)))?;
    if new.sector_size.is_some_and(|bytes| bytes != 512) {
        return Err(refused("its sectors have 512 bytes".to_owned()));
    }
    let is_fixed = match new.subformat.as_deref() {
        None | Some("dynamic") => false,
        Some("fixed") => true,
        Some(other) => return Err(refused(format!("there is no subformat {other}"))),
    };
    let wanted = new.cluster_size.filter(|_| !is_fixed).unwrap_or(BLOCK_SIZE);
    let block_size = u32::try_from(wanted).ok().filter(|_| BLOCK_SIZES.contains(&wanted));
    let block_size = block_size.and_then(BlockSize::new);
    let block_size = block_size.ok_or_else(|| refused(format!("a block size of {wanted} bytes")))?;

    let failed = |source| Error::Open { path: path.to_owned(), source };
    let file = FileDevice::create_new(path).map_err(failed)?;
    let outcome = if is_fixed { fixed(&file, size) } else { dynamic(&file, size, block_size) };
    outcome.map_err(failed)
}

fn fixed(file: &FileDevice, size: u64) -> std::io::Result<()> {
    file.grow(size.saturating_add(footer::LENGTH))?;
    file.write_all_at(new_footer(size, 2, u64::MAX).as_bytes(), size)?;
    file.flush()
}

fn dynamic(file: &FileDevice, size: u64, block_size: BlockSize) -> std::io::Result<()> {
    let table = footer::LENGTH.saturating_add(header::LENGTH);
    // At most 2^25 entries.
    let entries = block_size.count(size);
    let table_length = entries.saturating_mul(4).next_multiple_of(SECTOR);
    let end = table.saturating_add(table_length);
    let mut raw = RawHeader::new_zeroed();
    raw.cookie = header::COOKIE;
    raw.data_offset = u64::MAX.into();
    raw.table_offset = table.into();
    raw.header_version = 0x1_0000.into();
    raw.max_table_entries = u32::try_from(entries).unwrap_or(u32::MAX).into();
    raw.block_size = u32::try_from(block_size.bytes()).unwrap_or(0).into();

    file.grow(end.saturating_add(footer::LENGTH))?;
    file.write_all_at(header::sealed(raw).as_bytes(), footer::LENGTH)?;
    let absent = vec![0xff; crate::arithmetic::to_index(table_length)?];
    file.write_all_at(&absent, table)?;
    file.flush()?;
    let footer = new_footer(size, 3, footer::LENGTH);
    file.write_all_at(footer.as_bytes(), end)?;
    file.write_all_at(footer.as_bytes(), 0)?;
    file.flush()
}

/// A footer whose geometry says the same as its size field, or that the field counts: every reader shows the same
/// disk.
fn new_footer(size: u64, disk_type: u32, data_offset: u64) -> RawFooter {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time_stamp = u32::try_from(now.saturating_sub(footer::EPOCH)).unwrap_or(u32::MAX);
    let geometry = Geometry::for_size(size);
    footer::sealed(RawFooter {
        cookie: footer::COOKIE,
        features: 2.into(),
        file_format_version: 0x1_0000.into(),
        data_offset: data_offset.into(),
        time_stamp: time_stamp.into(),
        creator_application: *b"gmnd",
        creator_version: 0x1_0000.into(),
        creator_host_os: *b"Wi2k",
        original_size: size.into(),
        current_size: size.into(),
        cylinders: geometry.cylinders.into(),
        heads: geometry.heads,
        sectors_per_track: geometry.sectors,
        disk_type: disk_type.into(),
        checksum: 0.into(),
        unique_id: new_uuid(),
        saved_state: 0,
        reserved: [0; 427],
    })
}
