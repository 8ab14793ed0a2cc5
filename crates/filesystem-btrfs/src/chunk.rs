//! Chunks: which bytes of which devices a range of logical addresses stands for.
//!
//! On-disk format documentation, "Chunk item"; `struct btrfs_chunk`. Little-endian. Everything else on disk
//! speaks of logical addresses.

use ondisk::{Corrupt, Error, Guid, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::number::wide;

const STRUCTURE: &str = "chunk item";

/// Bytes of one device before a striped chunk goes on on the next; the only length there is.
pub(crate) const STRIPE: u64 = 64 << 10;

/// A chunk as stored; its stripes follow.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawChunk {
    length: le::U64,      // 0x00 logical bytes
    owner: le::U64,       // 0x08
    stripe_len: le::U64,  // 0x10
    kind: le::U64,        // 0x18
    io_align: le::U32,    // 0x20
    io_width: le::U32,    // 0x24
    sector_size: le::U32, // 0x28
    num_stripes: le::U16, // 0x2c
    sub_stripes: le::U16, // 0x2e
}
const _: () = assert!(size_of::<RawChunk>() == 48);

/// `struct btrfs_stripe`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawStripe {
    devid: le::U64,     // 0x00
    offset: le::U64,    // 0x08 bytes on that device
    dev_uuid: [u8; 16], // 0x10
}
const _: () = assert!(size_of::<RawStripe>() == 32);

/// `BTRFS_BLOCK_GROUP_*`.
mod flags {
    pub(super) const KINDS: u64 = 0x7;
    pub(super) const PROFILES: u64 = 0x7f8;
    pub(super) const RAID0: u64 = 0x8;
    pub(super) const RAID1: u64 = 0x10;
    pub(super) const DUP: u64 = 0x20;
    pub(super) const RAID10: u64 = 0x40;
    pub(super) const RAID5: u64 = 0x80;
    pub(super) const RAID6: u64 = 0x100;
    pub(super) const RAID1C3: u64 = 0x200;
    pub(super) const RAID1C4: u64 = 0x400;
}

/// How a chunk spreads over its stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Every stripe holds everything: single, DUP, RAID1 and its kin.
    Copies,
    /// RAID0.
    Striped,
    /// RAID10: pairs that hold the same.
    StripedCopies,
    /// RAID5 or RAID6 with this many parities.
    Parity(u64),
}

/// Where a chunk lies on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stripe {
    pub(crate) devid: u64,
    /// Bytes.
    pub(crate) offset: u64,
    pub(crate) device_uuid: Guid,
}

/// A chunk that can be mapped.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) logical: u64,
    pub(crate) length: u64,
    pub(crate) profile: Profile,
    pub(crate) stripes: Vec<Stripe>,
}

/// One copy of a run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) stripe: &'a Stripe,
    /// Byte on the device.
    pub(crate) offset: u64,
    /// For how many bytes this goes on.
    pub(crate) length: u64,
}

impl Chunk {
    /// Decodes the item at byte `at` of its device; returns how many bytes it took too.
    pub(crate) fn decode(bytes: &[u8], logical: u64, sector: u32, at: u64) -> Result<(Self, usize)> {
        let corrupt = |field, expected: &str, found: u64| Corrupt::new(STRUCTURE, at, field, expected, found);
        let (raw, rest) = RawChunk::ref_from_prefix(bytes)
            .map_err(|_| corrupt("size", "at least 48 bytes", wide(bytes.len())))?;
        let (length, kind) = (raw.length.get(), raw.kind.get());
        let sector = u64::from(sector);
        if length == 0 || !length.is_multiple_of(sector) || logical.checked_add(length).is_none() {
            return Err(corrupt("length", "whole sectors", length).into());
        }
        if !logical.is_multiple_of(sector) {
            return Err(corrupt("logical", "whole sectors", logical).into());
        }
        if raw.stripe_len.get() != STRIPE {
            return Err(corrupt("stripe_len", "65536", raw.stripe_len.get()).into());
        }
        if kind & flags::KINDS == 0 {
            return Err(corrupt("type", "data, system or metadata", kind).into());
        }
        if kind & !(flags::KINDS | flags::PROFILES) != 0 {
            return Err(Error::unsupported(STRUCTURE, format!("the type {kind:#x}")));
        }
        let count = u64::from(raw.num_stripes.get());
        let (profile, is_right) = match kind & flags::PROFILES {
            0 => (Profile::Copies, count == 1),
            flags::DUP | flags::RAID1 => (Profile::Copies, count == 2),
            flags::RAID1C3 => (Profile::Copies, count == 3),
            flags::RAID1C4 => (Profile::Copies, count == 4),
            flags::RAID0 => (Profile::Striped, count >= 1),
            flags::RAID10 => {
                (Profile::StripedCopies, raw.sub_stripes.get() == 2 && count >= 2 && count.is_multiple_of(2))
            }
            flags::RAID5 => (Profile::Parity(1), count >= 2),
            flags::RAID6 => (Profile::Parity(2), count >= 3),
            profile => return Err(corrupt("type", "at most one profile", profile).into()),
        };
        if !is_right {
            return Err(corrupt("num_stripes", "as many as the profile asks for", count).into());
        }
        let bytes_of_stripes = usize::from(raw.num_stripes.get()).saturating_mul(size_of::<RawStripe>());
        let stripes = rest
            .get(..bytes_of_stripes)
            .and_then(|bytes| <[RawStripe]>::ref_from_bytes(bytes).ok())
            .ok_or_else(|| corrupt("num_stripes", "as many as the item holds", count))?;
        let stripes = stripes
            .iter()
            .map(|raw| Stripe {
                devid: raw.devid.get(),
                offset: raw.offset.get(),
                device_uuid: Guid::from_bytes(raw.dev_uuid),
            })
            .collect();
        let size = size_of::<RawChunk>().saturating_add(bytes_of_stripes);
        Ok((Self { logical, length, profile, stripes }, size))
    }

    /// How many times every byte is there.
    pub(crate) fn copies(&self) -> usize {
        match self.profile {
            Profile::Copies => self.stripes.len(),
            Profile::Striped => 1,
            // With parity, the second is computed from everything else in its row.
            Profile::StripedCopies | Profile::Parity(_) => 2,
        }
    }

    /// Where the bytes are whose exclusive or is the byte `within` of the chunk: the rest of its row, with the
    /// first parity. `None` for a profile without parity.
    pub(crate) fn rest_of_row(&self, within: u64) -> Option<Vec<Place<'_>>> {
        let Profile::Parity(parities) = self.profile else { return None };
        let own = self.place(within, 0)?;
        let count = wide(self.stripes.len());
        let data = count.checked_sub(parities)?;
        let number = within.checked_div(STRIPE)?;
        let (row, column) = (number.checked_div(data)?, number.checked_rem(data)?);
        let inner = row.checked_mul(STRIPE)?.checked_add(within.checked_rem(STRIPE)?)?;
        (0..=data)
            .filter(|other| *other != column)
            .map(|other| {
                let index = row.checked_add(other)?.checked_rem(count)?;
                let stripe = self.stripes.get(usize::try_from(index).ok()?)?;
                Some(Place { stripe, offset: stripe.offset.checked_add(inner)?, length: own.length })
            })
            .collect()
    }

    /// Where byte `within` of the chunk is, in this copy.
    pub(crate) fn place(&self, within: u64, copy: usize) -> Option<Place<'_>> {
        let left = self.length.checked_sub(within).filter(|left| *left > 0)?;
        if self.profile == Profile::Copies {
            let stripe = self.stripes.get(copy)?;
            return Some(Place { stripe, offset: stripe.offset.checked_add(within)?, length: left });
        }
        let count = wide(self.stripes.len());
        let (number, inner) = (within.checked_div(STRIPE)?, within.checked_rem(STRIPE)?);
        let (row, column) = match self.profile {
            Profile::Copies | Profile::Striped => (number.checked_div(count)?, number.checked_rem(count)?),
            Profile::StripedCopies => {
                let pairs = count.checked_div(2)?;
                let first = number.checked_rem(pairs)?.checked_mul(2)?;
                (number.checked_div(pairs)?, first.checked_add(wide(copy))?)
            }
            Profile::Parity(parities) => {
                let data = count.checked_sub(parities)?;
                let (row, column) = (number.checked_div(data)?, number.checked_rem(data)?);
                // Parity rotates over the devices, row by row.
                (row, row.checked_add(column)?.checked_rem(count)?)
            }
        };
        let stripe = self.stripes.get(usize::try_from(column).ok()?)?;
        let offset = stripe.offset.checked_add(row.checked_mul(STRIPE)?)?.checked_add(inner)?;
        Some(Place { stripe, offset, length: left.min(STRIPE.checked_sub(inner)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: u64, count: u16) -> Vec<u8> {
        let raw = RawChunk {
            length: (8 << 20).into(),
            owner: 2.into(),
            stripe_len: STRIPE.into(),
            kind: kind.into(),
            io_align: 65536.into(),
            io_width: 65536.into(),
            sector_size: 4096.into(),
            num_stripes: count.into(),
            sub_stripes: 2.into(),
        };
        let mut bytes = raw.as_bytes().to_vec();
        for number in 0..u64::from(count) {
            let (devid, offset) = ((number + 1).into(), ((number + 1) << 20).into());
            bytes.extend_from_slice(RawStripe { devid, offset, dev_uuid: [7; 16] }.as_bytes());
        }
        bytes
    }

    fn places(kind: u64, count: u16, copy: usize) -> Vec<(u64, u64)> {
        let (chunk, size) = Chunk::decode(&item(kind, count), 1 << 30, 4096, 0).unwrap();
        assert_eq!(size, 48 + 32 * usize::from(count));
        (0..6)
            .map(|number| chunk.place(number * STRIPE + 5, copy).unwrap())
            .map(|place| (place.stripe.devid, (place.offset - 5 - (place.stripe.devid << 20)) / STRIPE))
            .collect()
    }

    #[test]
    fn every_profile() {
        let whole = |device| (0..6).map(|row| (device, row)).collect::<Vec<_>>();
        assert_eq!(places(1, 1, 0), whole(1));
        assert_eq!(places(flags::DUP | 2, 2, 1), whole(2));
        assert_eq!(places(flags::RAID1C4 | 1, 4, 3), whole(4));
        assert_eq!(places(flags::RAID0 | 1, 3, 0), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]);
        assert_eq!(places(flags::RAID10 | 1, 4, 1), [(2, 0), (4, 0), (2, 1), (4, 1), (2, 2), (4, 2)]);
        assert_eq!(places(flags::RAID5 | 1, 3, 0), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (1, 2)]);
        let (chunk, _) = Chunk::decode(&item(flags::RAID6 | 1, 4), 1 << 30, 4096, 0).unwrap();
        let row = chunk.rest_of_row(3 * STRIPE + 5).unwrap();
        // Row 1: data on devices 2 and 3, then both parities.
        assert_eq!(row.iter().map(|place| place.stripe.devid).collect::<Vec<_>>(), [2, 4]);
        assert!(row.iter().all(|place| place.offset - 5 - (place.stripe.devid << 20) == STRIPE));
        assert_eq!(places(flags::RAID6 | 1, 4, 0), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2)]);
    }

    #[test]
    fn damage_is_named() {
        let text = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = item(1, 1);
            change(&mut bytes);
            Chunk::decode(&bytes, 1 << 30, 4096, 9).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(text(&|b| b[0] = 1), "chunk item at byte 9: length is 8388609, expected whole sectors");
        assert_eq!(text(&|b| b[0x10] = 1), "chunk item at byte 9: stripe_len is 65537, expected 65536");
        assert_eq!(
            text(&|b| b[0x18] = 0),
            "chunk item at byte 9: type is 0, expected data, system or metadata"
        );
        assert_eq!(text(&|b| b[0x19] = 0x80), "chunk item: the type 0x8001 is not supported");
        assert_eq!(
            text(&|b| b[0x18] = 0x19),
            "chunk item at byte 9: type is 24, expected at most one profile"
        );
        assert_eq!(
            text(&|b| b[0x2c] = 2),
            "chunk item at byte 9: num_stripes is 2, expected as many as the profile asks for"
        );
        assert_eq!(
            text(&|b| b.truncate(70)),
            "chunk item at byte 9: num_stripes is 1, expected as many as the item holds"
        );
    }
}
