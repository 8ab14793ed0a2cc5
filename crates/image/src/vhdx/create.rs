//! A new, empty VHDX file.

use std::ops::Range;
use std::path::Path;

use blockdev::{BlockDeviceMut, FileDevice};
use ondisk::{Error, Guid, Result};
use zerocopy::IntoBytes;

use super::bat::{Entry, FULLY_PRESENT};
use super::file_type::RawFileType;
use super::geometry::{EntryKind, Geometry, HEADER_SECTION, MIB, length_of};
use super::guid::{fresh, parse};
use super::header::{self, Header};
use super::metadata;
use super::open::FORMAT;
use super::parent_locator::{IDENTITY, ParentLocator};
use super::region::{self, Regions};
use crate::NewImage;

const STRUCTURE: &str = "new VHDX image";

/// Bytes in the log of a new file, as Hyper-V has it.
const LOG_LENGTH: u64 = MIB;

/// Bytes of table entries that are written at once.
const WRITE: u64 = 1 << 20;

/// What a new image is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Length of the disk in bytes; rounded up to whole sectors.
    pub size: u64,
    /// Bytes in a block: a power of two, 1 to 256 MiB.
    pub block_size: u64,
    /// Logical sector size in bytes, 512 or 4096.
    pub sector_size: u32,
    /// All blocks are in the file from the start.
    pub is_fixed: bool,
    /// The file below.
    pub parent: Option<Parent>,
}

/// The file below a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its [`identity`](crate::Layer::identity).
    pub identity: String,
    /// Its name, relative to the folder of the new file, with slashes or backslashes.
    pub relative_path: String,
    /// Its path on the Windows host that will use it, if any.
    pub absolute_path: Option<String>,
}

impl CreateOptions {
    /// A disk of `size` bytes with blocks of 32 MiB and sectors of 512 bytes, which grows as it is written.
    pub fn new(size: u64) -> Self {
        Self { size, block_size: 32 * MIB, sector_size: 512, is_fixed: false, parent: None }
    }
}

/// Writes an empty image to `device`, which must be empty and able to grow.
///
/// # Errors
/// [`Error::Unsupported`] for options that no image can have, or a device that is not empty, before anything
/// is written; [`Error::Write`].
pub fn create(device: &dyn BlockDeviceMut, options: &CreateOptions) -> Result<()> {
    if device.size() != 0 {
        return Err(unsupported("creation over existing content"));
    }
    let layout = Layout::new(options)?;
    let put = |bytes: &[u8], offset: u64| {
        let failed = |source| Error::Write { offset, length: length_of(bytes), source };
        device.write_all_at(bytes, offset).map_err(failed)
    };
    let settled = |source| Error::Write { offset: 0, length: layout.end, source };
    device.grow(layout.end).map_err(settled)?;
    // What grew reads as zeros, which is what an empty table is.
    if options.is_fixed {
        layout.for_each_piece(|bytes, offset| put(bytes, offset))?;
    }
    let parent = options.parent.as_ref().map(locator).transpose()?;
    let items = metadata::encode(layout.geometry, options.is_fixed, 4096, fresh(), parent.as_ref());
    put(&items, layout.metadata.start)?;
    let table = Regions::encode(&layout.bat, &layout.metadata);
    for offset in region::OFFSETS {
        put(&table, offset)?;
    }
    let header = Header {
        sequence: 0,
        file_write: fresh(),
        data_write: fresh(),
        log_guid: Guid::NIL,
        log_version: 0,
        log_offset: HEADER_SECTION,
        log_length: LOG_LENGTH,
    };
    for (offset, sequence) in header::OFFSETS.into_iter().zip(1..) {
        put(&Header { sequence, ..header }.encode(), offset)?;
    }
    device.flush().map_err(settled)?;
    // Until this is there, the file is no image.
    put(RawFileType::new().as_bytes(), 0)?;
    device.flush().map_err(settled)
}

/// A new image at `path`, which must not exist.
pub(super) fn create_file(path: &Path, new: &NewImage) -> crate::Result<()> {
    let refused = |reason: String| crate::Error::NotCreatable { format: FORMAT.name, reason };
    let is_fixed = match new.subformat.as_deref() {
        None | Some("dynamic") => false,
        Some("fixed") => true,
        Some(other) => return Err(refused(format!("there is no subformat {other}, only dynamic and fixed"))),
    };
    let usual = CreateOptions::new(new.size);
    let options = CreateOptions {
        block_size: new.cluster_size.unwrap_or(usual.block_size),
        sector_size: new.sector_size.unwrap_or(usual.sector_size),
        is_fixed,
        ..usual
    };
    Layout::new(&options).map_err(|error| refused(error.to_string()))?;
    let failed = |source| crate::Error::Open { path: path.to_owned(), source };
    let file = FileDevice::create_new(path).map_err(failed)?;
    create(&file, &options).map_err(|error| refused(error.to_string()))
}

fn locator(parent: &Parent) -> Result<ParentLocator> {
    let guid = parent.identity.strip_prefix(IDENTITY).and_then(parse);
    let guid =
        guid.ok_or_else(|| unsupported(format!("a parent with the identity `{}`", parent.identity)))?;
    Ok(ParentLocator {
        linkage: Some(format!("{{{guid}}}")),
        relative_path: Some(parent.relative_path.replace('/', "\\")),
        absolute_win32_path: parent.absolute_path.clone(),
        ..ParentLocator::default()
    })
}

/// Where each structure of a new file lies.
#[derive(Debug)]
struct Layout {
    geometry: Geometry,
    metadata: Range<u64>,
    bat: Range<u64>,
    /// First byte behind everything.
    end: u64,
}

impl Layout {
    fn new(options: &CreateOptions) -> Result<Self> {
        let CreateOptions { size, block_size, sector_size, is_fixed, parent } = options;
        let has_parent = parent.is_some();
        if *is_fixed && has_parent {
            return Err(unsupported("a fixed image with a parent"));
        }
        if Geometry::new(*block_size, 512, 0, false).is_none() {
            return Err(unsupported(format!("a block size of {block_size} bytes")));
        }
        if !matches!(sector_size, 512 | 4096) {
            return Err(unsupported(format!("a sector size of {sector_size} bytes")));
        }
        // QEMU does not open a disk without any block.
        let geometry = Some(*size)
            .filter(|size| *size > 0)
            .and_then(|size| size.checked_next_multiple_of(u64::from(*sector_size)))
            .and_then(|size| Geometry::new(*block_size, *sector_size, size, has_parent));
        let geometry = geometry.ok_or_else(|| unsupported(format!("a disk of {size} bytes")))?;
        let metadata = HEADER_SECTION.saturating_add(LOG_LENGTH);
        let metadata = metadata..metadata.saturating_add(MIB);
        let length = geometry.entries().saturating_mul(8).next_multiple_of(MIB);
        let bat = metadata.end..metadata.end.saturating_add(length);
        let blocks = if *is_fixed { geometry.blocks().saturating_mul(*block_size) } else { 0 };
        let end = bat.end.saturating_add(blocks);
        Ok(Self { geometry, metadata, bat, end })
    }

    /// Calls `put` with the table of a fixed image, whose blocks follow it in order.
    fn for_each_piece(&self, mut put: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let mut index = 0;
        while index < self.geometry.entries() {
            let behind = index.saturating_add(WRITE / 8).min(self.geometry.entries());
            let bytes: Vec<u8> =
                (index..behind).flat_map(|index| self.entry(index).0.to_le_bytes()).collect();
            put(&bytes, self.bat.start.saturating_add(index.saturating_mul(8)))?;
            index = behind;
        }
        Ok(())
    }

    fn entry(&self, index: u64) -> Entry {
        match self.geometry.kind(index) {
            EntryKind::Payload(block) => {
                let within = block.saturating_mul(self.geometry.block_size());
                Entry::new(FULLY_PRESENT, self.bat.end.saturating_add(within))
            }
            EntryKind::Bitmap(_) => Entry(0),
        }
    }
}

fn unsupported(feature: impl Into<String>) -> Error {
    Error::unsupported(STRUCTURE, feature)
}
