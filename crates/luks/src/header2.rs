//! LUKS version 2 header: a fixed part and a JSON text, both stored twice.
//!
//! LUKS2 On-Disk Format Specification 1.1.3, §2. The fixed part is big-endian. Offsets are bytes. The second copy lies
//! directly behind the first, so its place tells the size of both.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, be, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Hash;

/// Of the primary copy.
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// Of the secondary copy.
const MAGIC_SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";

/// The sizes that a header may have, in bytes: the places where its second copy may lie.
pub(crate) const SIZES: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// Bytes of the fixed part.
const FIXED: usize = 4096;

/// The fixed part as stored, without the zeros that fill it up.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader2 {
    /// 0x000 `LUKS\xba\xbe`, `SKUL\xba\xbe` in the second copy.
    pub magic: [u8; 6],
    /// 0x006 2.
    pub version: be::U16,
    /// 0x008 bytes of this copy, JSON included.
    pub hdr_size: be::U64,
    /// 0x010 counts changes; the higher of two copies is the newer.
    pub seqid: be::U64,
    /// 0x018 text, padded with zeros.
    pub label: [u8; 48],
    /// 0x048 `sha256`, padded with zeros.
    pub csum_alg: [u8; 32],
    /// 0x068 makes the checksums of both copies differ.
    pub salt: [u8; 64],
    /// 0x0a8 text, padded with zeros.
    pub uuid: [u8; 40],
    /// 0x0d0 text, padded with zeros.
    pub subsystem: [u8; 48],
    /// 0x100 first byte of this copy.
    pub hdr_offset: be::U64,
    /// 0x108 zeros.
    pub padding: [u8; 184],
    /// 0x1c0 checksum of this copy with this field zero, padded with zeros.
    pub csum: [u8; 64],
}
const _: () = assert!(size_of::<RawHeader2>() == 512);

/// One copy whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) size: u64,
    pub(crate) sequence_id: u64,
    pub(crate) label: Option<String>,
    pub(crate) subsystem: Option<String>,
    pub(crate) uuid: String,
    /// Up to its NUL.
    pub(crate) json: Vec<u8>,
}

impl Copy {
    /// Reads and judges the copy at byte `at`; the secondary one unless that is 0.
    pub(crate) fn read(device: &dyn BlockDevice, at: u64) -> Result<Self> {
        let (structure, magic) = match at {
            0 => ("LUKS2 primary header", MAGIC),
            _ => ("LUKS2 secondary header", MAGIC_SECONDARY),
        };
        let corrupt = |field, expected: String, found: String| -> Error {
            Corrupt::new(structure, at, field, expected, found).into()
        };
        let raw: RawHeader2 = read_value(device, at)?;
        if raw.magic != magic {
            let [found, expected] = [raw.magic, magic].map(|magic| magic.escape_ascii().to_string());
            return Err(corrupt("magic", expected, found));
        }
        if raw.version.get() != 2 {
            return Err(Error::unsupported(structure, format!("version {}", raw.version)));
        }
        if raw.hdr_offset.get() != at {
            return Err(corrupt("hdr_offset", at.to_string(), raw.hdr_offset.to_string()));
        }
        let size = raw.hdr_size.get();
        if !SIZES.contains(&size) || (at != 0 && size != at) {
            return Err(corrupt("hdr_size", "16 KiB·2ⁿ, at most 4 MiB".into(), size.to_string()));
        }
        let name = text(&raw.csum_alg).unwrap_or_default();
        let hash = Hash::named(&name)
            .ok_or_else(|| Error::unsupported(structure, format!("the checksum {name:?}")))?;
        let mut bytes = read_bytes(device, at, usize::try_from(size).unwrap_or(FIXED))?;
        if let Some(checksum) = bytes.get_mut(0x1c0..0x200) {
            checksum.fill(0);
        }
        let computed = hash.digest(&[&bytes]);
        let stored = raw.csum.get(..computed.len()).unwrap_or_default();
        if stored != computed {
            return Err(corrupt("csum", hex(&computed), hex(stored)));
        }
        let json = bytes.get(FIXED..).unwrap_or_default();
        let length = json.iter().position(|byte| *byte == 0).unwrap_or(json.len());
        Ok(Self {
            size,
            sequence_id: raw.seqid.get(),
            label: text(&raw.label),
            subsystem: text(&raw.subsystem),
            uuid: text(&raw.uuid).unwrap_or_default(),
            json: json.get(..length).unwrap_or_default().to_vec(),
        })
    }
}

/// The version of the LUKS header at the start of `device`, if one is there.
pub(crate) fn version(device: &dyn BlockDevice) -> Result<Option<u16>> {
    if device.size() < 512 {
        return Ok(None);
    }
    let raw: RawHeader2 = read_value(device, 0)?;
    Ok((raw.magic == MAGIC).then(|| raw.version.get()))
}

/// Where a secondary header begins, at one of the places that the specification allows.
pub(crate) fn find_secondary(device: &dyn BlockDevice) -> Result<Option<u64>> {
    for at in SIZES {
        if at.saturating_add(512) > device.size() {
            break;
        }
        let raw: RawHeader2 = read_value(device, at)?;
        if raw.magic == MAGIC_SECONDARY && raw.version.get() == 2 && raw.hdr_offset.get() == at {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn text(padded: &[u8]) -> Option<String> {
    let text = padded.split(|byte| *byte == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

/// The first bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    let start: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{start}…")
}
