//! The label in one of a device's first four sectors, and the physical volume header behind it.
//!
//! lvm2 `lib/label/label.h`, `lib/format_text/layout.h`. The header is followed by two lists of areas, each ended
//! by an entry of zeros: data, then metadata; behind them an extension with flags and a third list.

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed, Result, le, lvm_crc, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::metadata_area::{self, MetadataArea};

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

/// The fixed part of the header's extension as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtension {
    /// 0x0 0 where there is none, 1 with a list of boot loader areas, 2 with flags too.
    version: le::U32,
    /// 0x4 bit 0: a group uses this physical volume.
    flags: le::U32,
}

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

/// `RawExtension.flags`: a group uses the physical volume.
const IN_USE: u32 = 1;

/// A device that LVM2 owns.
#[derive(Debug, Clone)]
pub struct PhysicalVolume {
    /// With dashes, as the tools print it.
    pub uuid: String,
    /// The device that carries the label.
    pub device: Device,
    /// The sector of 512 bytes that the label lies in, 0 to 3; `None` for one that [`recover_pv`] guessed.
    ///
    /// [`recover_pv`]: super::recover_pv
    pub label_sector: Option<u64>,
    /// Size in bytes as the header records it; a group's metadata may say otherwise.
    pub recorded_size: u64,
    /// Where extents lie, as the header says; the group's metadata decides.
    pub data_areas: Vec<Area>,
    /// The header's extension, which lvm2 writes since 2.02.99.
    pub extension: Option<Extension>,
    /// Every metadata area in the order of the header, readable or not; none is legal.
    pub areas: Vec<MetadataArea>,
}

/// A range of a physical volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First byte on the device.
    pub offset: u64,
    /// Bytes; 0 is "to the end of the device".
    pub size: u64,
}

/// What follows the lists of the physical volume header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// 1 or 2, or what a newer lvm2 writes.
    pub version: u32,
    /// Whether a group uses the physical volume; `None` before version 2.
    pub is_in_use: Option<bool>,
    /// Reserved for boot loaders.
    pub bootloader_areas: Vec<Area>,
}

/// Reads the label of `device`; `None` when there is none.
///
/// The first label whose checksum is good wins, as with lvm2; every other one that disagrees is a problem.
///
/// # Errors
/// [`Error::Io`], or damage in the only label or its header. Damaged metadata areas are problems.
pub fn read_pv(device: &Device) -> Result<Option<Parsed<PhysicalVolume>>> {
    let sectors = LABEL_SCAN_SECTORS.min(device.size().checked_div(SECTOR).unwrap_or(0));
    let length = usize::try_from(sectors.saturating_mul(SECTOR)).unwrap_or(0);
    let bytes = read_bytes(device.as_ref(), 0, length)?;
    let mut best: Option<Parsed<PhysicalVolume>> = None;
    let mut damage: Vec<Error> = Vec::new();
    for (sector, bytes) in (0_u64..).zip(bytes.chunks_exact(512)) {
        let Ok((label, _)) = RawLabel::read_from_prefix(bytes) else { continue };
        if &label.id != b"LABELONE" {
            continue;
        }
        let at = sector.saturating_mul(SECTOR);
        if let Some(best) = &best {
            // A copy at a sector that it does not name is left over from an image that was moved.
            if let Ok(header) = header(bytes, &label, at, sector)
                && header.uuid != best.value.uuid
            {
                let expected = format!("{} or no label", best.value.uuid);
                damage.push(Corrupt::new("LVM2 label", at, "pv_uuid", expected, header.uuid).into());
            }
            continue;
        }
        match header(bytes, &label, at, sector) {
            Ok(header) => best = Some(open(device, sector, header)),
            Err(error) => damage.push(error),
        }
    }
    match best {
        Some(mut best) => {
            best.problems.extend(damage);
            Ok(Some(best))
        }
        None => damage.into_iter().next().map_or(Ok(None), Err),
    }
}

/// What a label's sector says, before anything else is read.
struct Header {
    uuid: String,
    recorded_size: u64,
    data_areas: Vec<Area>,
    metadata_areas: Vec<Area>,
    extension: Option<Extension>,
}

fn header(sector: &[u8], label: &RawLabel, at: u64, number: u64) -> Result<Header> {
    let computed = lvm_crc(sector.get(0x14..).unwrap_or_default());
    if computed != label.crc_xl.get() {
        return Err(Corrupt::checksum("LVM2 label", at, computed, label.crc_xl.get()).into());
    }
    if label.sector_xl.get() != number {
        return Err(Corrupt::new("LVM2 label", at, "sector_xl", number, label.sector_xl).into());
    }
    if &label.kind != b"LVM2 001" {
        let kind = String::from_utf8_lossy(&label.kind).into_owned();
        return Err(Error::unsupported("LVM2 label", format!("type {kind:?}")));
    }
    let offset = usize::try_from(label.offset_xl.get()).unwrap_or(usize::MAX);
    let header = sector.get(offset..).and_then(|bytes| RawPvHeader::read_from_prefix(bytes).ok());
    let Some((header, mut lists)) = header else {
        return Err(Corrupt::new("LVM2 label", at, "offset_xl", "within the sector", offset).into());
    };
    let unended =
        || Corrupt::new("LVM2 label", at, "disk_areas_xl", "lists that end within the sector", "more areas");
    let data_areas = take_areas(&mut lists).ok_or_else(unended)?;
    let metadata_areas = take_areas(&mut lists).ok_or_else(unended)?;
    let extension = RawExtension::read_from_prefix(lists).ok().and_then(|(raw, mut rest)| {
        let version = raw.version.get();
        let is_in_use = (version >= 2).then_some(raw.flags.get() & IN_USE != 0);
        let bootloader_areas = take_areas(&mut rest).unwrap_or_default();
        (version > 0).then_some(Extension { version, is_in_use, bootloader_areas })
    });
    let uuid = dashed(&header.pv_uuid);
    let recorded_size = header.device_size_xl.get();
    Ok(Header { uuid, recorded_size, data_areas, metadata_areas, extension })
}

/// Takes one list off the front; `None` when it does not end.
fn take_areas(lists: &mut &[u8]) -> Option<Vec<Area>> {
    let mut areas = Vec::new();
    loop {
        let (raw, rest) = RawDiskLocation::read_from_prefix(lists).ok()?;
        *lists = rest;
        if raw.offset.get() == 0 {
            return Some(areas);
        }
        if areas.len() >= MAX_AREAS {
            return None;
        }
        areas.push(Area { offset: raw.offset.get(), size: raw.size.get() });
    }
}

fn open(device: &Device, sector: u64, header: Header) -> Parsed<PhysicalVolume> {
    let mut problems = Vec::new();
    let at = sector.saturating_mul(SECTOR);
    if header.recorded_size > device.size() {
        let expected = format!("at most {}, the size of the device", device.size());
        problems
            .push(Corrupt::new("LVM2 label", at, "device_size_xl", expected, header.recorded_size).into());
    }
    let areas = header.metadata_areas.iter().map(|area| {
        let size = match area.size {
            0 => device.size().saturating_sub(area.offset),
            size => size,
        };
        let area = metadata_area::read(device.as_ref(), area.offset, size);
        problems.extend(area.problems);
        area.value
    });
    let areas = areas.collect();
    let value = PhysicalVolume {
        uuid: header.uuid,
        device: device.clone(),
        label_sector: Some(sector),
        recorded_size: header.recorded_size,
        data_areas: header.data_areas,
        extension: header.extension,
        areas,
    };
    Parsed { value, problems }
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
