//! File extents: where the bytes of a file are.
//!
//! On-disk format documentation, "Extent data"; `struct btrfs_file_extent_item`. Little-endian. The key's
//! offset is the byte of the file where the extent begins.

use ondisk::{Corrupt, Error, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::compression::{Codec, MOST};
use crate::node::Item;
use crate::number::wide;

const STRUCTURE: &str = "file extent item";

/// What every extent begins with; the content of an inline one follows.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    generation: le::U64,     // 0x00
    ram_bytes: le::U64,      // 0x08 bytes without compression, of the whole extent
    compression: u8,         // 0x10
    encryption: u8,          // 0x11
    other_encoding: le::U16, // 0x12
    kind: u8,                // 0x14 0 inline, 1 regular, 2 preallocated
}
const _: () = assert!(size_of::<RawExtent>() == 21);

/// What follows where the content is elsewhere.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPlace {
    disk_bytenr: le::U64,    // 0x15 logical, 0 for a hole
    disk_num_bytes: le::U64, // 0x1d bytes on disk, of the whole extent
    offset: le::U64,         // 0x25 within the uncompressed extent
    num_bytes: le::U64,      // 0x2d bytes of the file
}
const _: () = assert!(size_of::<RawPlace>() == 32);

/// A run of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent<'a> {
    /// First byte of the file.
    pub(crate) start: u64,
    /// Behind the last byte of the file.
    pub(crate) end: u64,
    pub(crate) content: Content<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// Reads as zeros: a hole, or space that was reserved and never written.
    Zeros,
    /// In the item itself; zeros follow up to the end of the run.
    Inline { bytes: &'a [u8], codec: Option<Codec>, length: usize, at: u64 },
    /// From this logical address on.
    Plain { logical: u64 },
    /// `length` bytes when decompressed, of which the run begins at `offset`.
    Compressed { logical: u64, disk_length: usize, length: usize, offset: usize, codec: Codec },
}

impl<'a> Extent<'a> {
    pub(crate) fn decode(item: &Item<'a>, sector_size: u32) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: u64| Corrupt::new(STRUCTURE, item.at, field, expected, found);
        let sector = u64::from(sector_size);
        let start = item.key.offset;
        let (raw, rest) = RawExtent::ref_from_prefix(item.data)
            .map_err(|_| corrupt("size", "at least 21 bytes", wide(item.data.len())))?;
        if raw.encryption != 0 || raw.other_encoding.get() != 0 {
            return Err(Error::unsupported(STRUCTURE, "encryption or another encoding"));
        }
        let codec = match raw.compression {
            0 => None,
            1 => Some(Codec::Zlib),
            2 => Some(Codec::Lzo),
            3 => Some(Codec::Zstd),
            other => return Err(Error::unsupported(STRUCTURE, format!("the compression {other}"))),
        };
        let ram_bytes = raw.ram_bytes.get();
        if !start.is_multiple_of(sector) {
            return Err(corrupt("key offset", "whole sectors", start).into());
        }
        let end_of = |length: u64| {
            start.checked_add(length).ok_or_else(|| corrupt("num_bytes", "an end below 2^64", length))
        };
        if raw.kind == 0 {
            let most = if codec.is_some() { MOST } else { wide(rest.len()) };
            if ram_bytes > most || (codec.is_none() && ram_bytes != most) {
                return Err(corrupt("ram_bytes", "the length of the content", ram_bytes).into());
            }
            let end = end_of(ram_bytes.checked_next_multiple_of(sector).unwrap_or(ram_bytes))?;
            let at = item.at.saturating_add(wide(size_of::<RawExtent>()));
            let length = usize::try_from(ram_bytes).unwrap_or(usize::MAX);
            return Ok(Self { start, end, content: Content::Inline { bytes: rest, codec, length, at } });
        }
        let place =
            RawPlace::ref_from_bytes(rest).map_err(|_| corrupt("size", "53 bytes", wide(item.data.len())))?;
        let (logical, disk_length) = (place.disk_bytenr.get(), place.disk_num_bytes.get());
        let (offset, length) = (place.offset.get(), place.num_bytes.get());
        let end = end_of(length)?;
        for (field, value) in [
            ("disk_bytenr", logical),
            ("disk_num_bytes", disk_length),
            ("offset", offset),
            ("num_bytes", length),
        ] {
            if !value.is_multiple_of(sector) {
                return Err(corrupt(field, "whole sectors", value).into());
            }
        }
        if length == 0 {
            return Err(corrupt("num_bytes", "more than 0", length).into());
        }
        let zeros = Self { start, end, content: Content::Zeros };
        match raw.kind {
            1 if logical == 0 => return Ok(zeros),
            1 => {}
            2 => return Ok(zeros),
            kind => return Err(corrupt("type", "0, 1 or 2", kind.into()).into()),
        }
        let within = if codec.is_some() { ram_bytes } else { disk_length };
        if offset.checked_add(length).is_none_or(|end| end > within) {
            return Err(corrupt("offset", "an end within the extent", offset).into());
        }
        let Some(codec) = codec else {
            let logical =
                logical.checked_add(offset).ok_or_else(|| corrupt("disk_bytenr", "less", logical))?;
            return Ok(Self { start, end, content: Content::Plain { logical } });
        };
        for (field, value) in [("ram_bytes", ram_bytes), ("disk_num_bytes", disk_length)] {
            if value > MOST || value == 0 {
                return Err(corrupt(field, "1..=131072 with compression", value).into());
            }
        }
        let narrow = crate::number::narrow;
        let (disk_length, length, offset) = (narrow(disk_length), narrow(ram_bytes), narrow(offset));
        Ok(Self { start, end, content: Content::Compressed { logical, disk_length, length, offset, codec } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn item(kind: u8, compression: u8) -> Vec<u8> {
        let extent = RawExtent {
            generation: 7.into(),
            ram_bytes: 65536.into(),
            compression,
            encryption: 0,
            other_encoding: 0.into(),
            kind,
        };
        let place = RawPlace {
            disk_bytenr: (1 << 24).into(),
            disk_num_bytes: 65536.into(),
            offset: 4096.into(),
            num_bytes: 8192.into(),
        };
        [extent.as_bytes(), place.as_bytes()].concat()
    }

    fn decode(data: &[u8], offset: u64) -> Result<(u64, u64, String)> {
        let item = Item { key: Key::new(257, 108, offset), data, at: 9 };
        let extent = Extent::decode(&item, 4096)?;
        Ok((extent.start, extent.end, format!("{:?}", extent.content)))
    }

    #[test]
    fn every_kind() {
        let plain = decode(&item(1, 0), 12288).unwrap();
        assert_eq!(plain, (12288, 20480, "Plain { logical: 16781312 }".into()));
        let packed = decode(&item(1, 3), 0).unwrap().2;
        assert_eq!(
            packed,
            "Compressed { logical: 16777216, disk_length: 65536, length: 65536, offset: 4096, codec: Zstd }"
        );
        assert_eq!(decode(&item(2, 0), 0).unwrap().2, "Zeros");
        let mut inline = item(0, 0);
        inline[8..16].copy_from_slice(&32_u64.to_le_bytes());
        assert_eq!(decode(&inline, 0).unwrap().1, 4096);
    }

    #[test]
    fn damage_is_named() {
        let text = |compression: u8, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = item(1, compression);
            change(&mut bytes);
            decode(&bytes, 0).unwrap_err().to_string()
        };
        assert!(text(0, &|b| b.truncate(52)).ends_with("size is 52, expected 53 bytes"));
        assert!(text(0, &|b| b[0x11] = 1).ends_with("encryption or another encoding is not supported"));
        assert!(text(4, &|_| ()).ends_with("the compression 4 is not supported"));
        assert!(text(0, &|b| b[0x2d] = 1).ends_with("num_bytes is 8193, expected whole sectors"));
        assert!(text(0, &|b| b[0x2e] = 0).ends_with("num_bytes is 0, expected more than 0"));
        assert!(text(0, &|b| b[0x27] = 1).ends_with("offset is 69632, expected an end within the extent"));
        assert!(
            text(1, &|b| b[0x0a] = 3).ends_with("ram_bytes is 196608, expected 1..=131072 with compression")
        );
        assert!(
            text(0, &|b| b[0x14] = 0).ends_with("ram_bytes is 65536, expected the length of the content")
        );
        assert!(text(0, &|b| b[0x14] = 3).ends_with("type is 3, expected 0, 1 or 2"));
        assert!(decode(&item(1, 0), 5).unwrap_err().to_string().contains("key offset is 5"));
    }
}
