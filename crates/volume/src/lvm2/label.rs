//! The label in one of a device's first four sectors, and the physical volume header behind it.
//!
//! lvm2 `lib/label/label.h`, `lib/format_text/layout.h`. The header is followed by two NUL-terminated lists of
//! areas: data, then metadata.

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed, Result, le, lvm_crc, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::metadata_area::{self, MetadataCopy};

/// Labels are searched in this many sectors of 512 bytes.
const LABEL_SCAN_SECTORS: u64 = 4;
const SECTOR: u64 = 512;
/// More areas than lvm2 ever writes (one data, two metadata).
const MAX_AREAS: usize = 16;

/// The label as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawLabel {
    /// 0x00 "LABELONE".
    id: [u8; 8],
    /// 0x08 the sector that this label lies in.
    sector_xl: le::U64,
    /// 0x10 checksum of the sector from 0x14 on.
    crc_xl: le::U32,
    /// 0x14 bytes from the label to the header.
    offset_xl: le::U32,
    /// 0x18 "LVM2 001".
    kind: [u8; 8],
}
const _: () = assert!(size_of::<RawLabel>() == 32);

/// The fixed part of the header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPvHeader {
    /// 0x00 UUID without dashes.
    pv_uuid: [u8; 32],
    /// 0x20 bytes.
    device_size_xl: le::U64,
}

/// One entry of an area list as stored; an entry of zeros ends the list.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDiskLocation {
    /// 0x0 first byte on the device.
    offset: le::U64,
    /// 0x8 bytes; 0 is "to the end of the device".
    size: le::U64,
}

/// A device that LVM2 owns.
#[derive(Debug, Clone)]
pub struct PhysicalVolume {
    /// With dashes, as the tools print it.
    pub uuid: String,
    /// The device that carries the label.
    pub device: Device,
    /// Size in bytes as the header records it.
    pub recorded_size: u64,
    /// The committed metadata of each area that could be read, in the order of the areas.
    pub metadata: Vec<MetadataCopy>,
}

/// Reads the label of `device`; `None` when there is none.
///
/// # Errors
/// [`Error::Io`], or damage in the label or header itself. Damaged metadata areas are problems.
pub fn read_pv(device: &Device) -> Result<Option<Parsed<PhysicalVolume>>> {
    for sector in 0..LABEL_SCAN_SECTORS {
        let at = sector.saturating_mul(SECTOR);
        if device.size() < at.saturating_add(SECTOR) {
            break;
        }
        let bytes = read_bytes(device.as_ref(), at, 512)?;
        let Ok((label, _)) = RawLabel::read_from_prefix(&bytes) else { continue };
        if &label.id == b"LABELONE" && label.sector_xl.get() == sector {
            return decode(device, &bytes, &label, at).map(Some);
        }
    }
    Ok(None)
}

fn decode(device: &Device, sector: &[u8], label: &RawLabel, at: u64) -> Result<Parsed<PhysicalVolume>> {
    let computed = lvm_crc(sector.get(0x14..).unwrap_or_default());
    if computed != label.crc_xl.get() {
        return Err(Corrupt::checksum("LVM2 label", at, computed, label.crc_xl.get()).into());
    }
    if &label.kind != b"LVM2 001" {
        let kind = String::from_utf8_lossy(&label.kind).into_owned();
        return Err(Error::unsupported("LVM2 label", format!("type {kind:?}")));
    }
    let offset = usize::try_from(label.offset_xl.get()).unwrap_or(usize::MAX);
    let header = sector.get(offset..).and_then(|bytes| RawPvHeader::read_from_prefix(bytes).ok());
    let Some((header, lists)) = header else {
        return Err(Corrupt::new("LVM2 label", at, "offset_xl", "within the sector", offset).into());
    };
    let mut locations =
        lists.chunks_exact(16).filter_map(|bytes| RawDiskLocation::read_from_bytes(bytes).ok());
    // The data areas only repeat what the metadata says as pe_start.
    let _data_areas = locations.by_ref().take_while(|area| area.offset.get() != 0).take(MAX_AREAS).count();
    let areas: Vec<RawDiskLocation> =
        locations.take_while(|area| area.offset.get() != 0).take(MAX_AREAS).collect();
    let mut problems = Vec::new();
    let mut metadata = Vec::new();
    for area in areas {
        let at = area.offset.get();
        let size = match area.size.get() {
            0 => device.size().saturating_sub(at),
            size => size,
        };
        match metadata_area::read_committed(device.as_ref(), at, size) {
            Ok(copy) => metadata.extend(copy),
            Err(error) => problems.push(error),
        }
    }
    let uuid = dashed(&header.pv_uuid);
    let value =
        PhysicalVolume { uuid, device: device.clone(), recorded_size: header.device_size_xl.get(), metadata };
    Ok(Parsed { value, problems })
}

/// The groups 6-4-4-4-4-4-6 of a 32-character UUID.
fn dashed(uuid: &[u8; 32]) -> String {
    let mut text = String::with_capacity(38);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(if byte.is_ascii_graphic() { char::from(*byte) } else { '?' });
    }
    text
}
