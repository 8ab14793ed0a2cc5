//! Volume descriptors: where the root directories of the trees are.
//!
//! ECMA-119 §8; one in each sector of 2048 bytes from the sixteenth on.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::field::{u8_at, u16_at, u32_at};
use crate::name;
use crate::record::Record;
use crate::time;

pub(crate) const SECTOR: u64 = 2048;
pub(crate) const FIRST: u64 = 16 * SECTOR;
const MAX_DESCRIPTORS: u64 = 64;

/// What is read of the descriptors.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    pub(crate) primary: Descriptor,
    pub(crate) joliet: Option<Descriptor>,
    pub(crate) uuid: Option<String>,
    pub(crate) label: Option<Vec<u8>>,
    /// Whether the same disc has a UDF tree, by which it is called then.
    pub(crate) has_udf: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    /// Bytes of a logical block.
    pub(crate) block_size: u32,
    /// Bytes of the volume.
    pub(crate) size: u64,
    pub(crate) root: Record,
}

/// Reads them; `None` where there is no primary one.
pub(crate) fn read(device: &dyn BlockDevice) -> Result<Option<Descriptors>> {
    let (mut primary, mut joliet) = (None, None);
    let mut at = FIRST;
    for _ in 0..MAX_DESCRIPTORS {
        if at.saturating_add(SECTOR) > device.size() {
            break;
        }
        let bytes = read_bytes(device, at, 2048)?;
        if bytes.get(1..6) != Some(b"CD001") {
            break;
        }
        match u8_at(&bytes, 0) {
            Some(255) => {
                at = at.saturating_add(SECTOR);
                break;
            }
            Some(1) if primary.is_none() => primary = Some((at, bytes)),
            Some(2) if joliet.is_none() && is_joliet(&bytes) => joliet = Some((at, bytes)),
            _ => {}
        }
        at = at.saturating_add(SECTOR);
    }
    let Some((primary_at, primary)) = primary else { return Ok(None) };
    let has_udf =
        at.saturating_add(6) <= device.size() && read_bytes(device, at, 6)?.get(1..6) == Some(b"BEA01");
    Ok(Some(Descriptors {
        uuid: primary.get(830..).and_then(time::uuid).or_else(|| primary.get(813..).and_then(time::uuid)),
        label: label(&primary, joliet.as_ref().map(|(_, bytes)| bytes.as_slice())),
        has_udf,
        joliet: match joliet {
            Some((at, bytes)) => decode(&bytes, at)?,
            None => None,
        },
        primary: decode(&primary, primary_at)?.ok_or_else(|| {
            Error::from(Corrupt::new(
                "ISO 9660 volume descriptor",
                primary_at,
                "root directory",
                "a record",
                "none",
            ))
        })?,
    }))
}

/// The escape sequences of UCS-2 levels 1 to 3.
fn is_joliet(bytes: &[u8]) -> bool {
    bytes.get(88..91).is_some_and(|escape| [b"%/@", b"%/C", b"%/E"].iter().any(|level| escape == *level))
}

fn decode(bytes: &[u8], at: u64) -> Result<Option<Descriptor>> {
    let block_size = u32::from(u16_at(bytes, 128).unwrap_or(0));
    if ![512, 1024, 2048].contains(&block_size) {
        let expected = "512, 1024 or 2048";
        return Err(Corrupt::new(
            "ISO 9660 volume descriptor",
            at,
            "logical block size",
            expected,
            block_size,
        )
        .into());
    }
    let blocks = u64::from(u32_at(bytes, 80).unwrap_or(0));
    let root = bytes.get(156..190).unwrap_or_default();
    let Some(root) = Record::decode(root, at.saturating_add(156), block_size)? else { return Ok(None) };
    Ok(Some(Descriptor { block_size, size: blocks.saturating_mul(block_size.into()), root }))
}

/// As `blkid` tells it: Joliet has room for 16 characters, the primary descriptor for 32, of fewer kinds; where they
/// agree, the former are followed by the rest of the latter.
fn label(primary: &[u8], joliet: Option<&[u8]>) -> Option<Vec<u8>> {
    let plain = primary.get(40..72).unwrap_or_default();
    let end = plain.iter().position(|byte| *byte == 0).unwrap_or(plain.len());
    let plain = plain.get(..end).unwrap_or_default();
    let full = |text: &[u8]| Some(text.trim_ascii_end().to_vec()).filter(|text| !text.is_empty());
    let wide = joliet.and_then(|bytes| bytes.get(40..72)).map(name::wide).unwrap_or_default();
    if wide.trim_end().is_empty() {
        return full(plain);
    }
    let upper: Vec<char> = String::from_utf8_lossy(plain).chars().collect();
    let count = wide.chars().count();
    let agrees = wide.chars().zip(&upper).all(|(wide, plain)| {
        *plain == '_' || *plain == '?' || wide == *plain || wide.to_uppercase().eq(plain.to_uppercase())
    });
    let rest: String = match upper.get(count..) {
        Some(rest) if agrees && count >= 16 => rest.iter().collect(),
        _ => String::new(),
    };
    full(format!("{wide}{rest}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the third as blkid 2.38 says of discs that xorriso made; the others by its rules.
    #[test]
    fn labels_of_both_descriptors() {
        let plain = |text: &str| [&[0; 40][..], format!("{text:32}").as_bytes()].concat();
        let wide = |text: &str| {
            let units = format!("{text:16}").encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
            [&[0; 40][..], &units].concat()
        };
        for (primary, joliet, expected) in [
            ("CDROM", None, Some("CDROM")),
            ("", None, None),
            ("A label of some length", Some("A label of some "), Some("A label of some length")),
            ("MIXED_CASE", Some("Mixed Case"), Some("Mixed Case")),
            ("SIXTEEN_LETTERS_AND_MORE", Some("Sixteen Letters "), Some("Sixteen Letters AND_MORE")),
            ("OTHER", Some("Different"), Some("Different")),
        ] {
            let joliet = joliet.map(wide);
            let found = label(&plain(primary), joliet.as_deref());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{primary}");
        }
    }
}
