//! LUKS version 1 header: the cipher, the digest of the key, and eight key slots.
//!
//! LUKS specification 1.2.3, §3. Big-endian. Offsets of key material and payload count sectors of 512 bytes.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, be, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Hash;
use crate::kdf::{Digest, Kdf};
use crate::slot::{self, KeySlot, MAX_KEY};

const STRUCTURE: &str = "LUKS header";

/// The first six bytes.
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// Bytes in a sector, as offsets count them.
pub(crate) const SECTOR: u64 = 512;

/// A slot that holds a key.
const ACTIVE: u32 = 0x00ac_71f3;

/// The header as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 `LUKS\xba\xbe`.
    pub magic: [u8; 6],
    /// 0x06 1.
    pub version: be::U16,
    /// 0x08 `aes`, padded with zeros.
    pub cipher_name: [u8; 32],
    /// 0x28 `xts-plain64`, padded with zeros.
    pub cipher_mode: [u8; 32],
    /// 0x48 `sha256`, padded with zeros.
    pub hash_spec: [u8; 32],
    /// 0x68 first sector of the encrypted data.
    pub payload_offset: be::U32,
    /// 0x6c bytes in the volume key.
    pub key_bytes: be::U32,
    /// 0x70 digest of the volume key.
    pub mk_digest: [u8; 20],
    /// 0x84 salt of that digest.
    pub mk_digest_salt: [u8; 32],
    /// 0xa4 iterations of that digest.
    pub mk_digest_iterations: be::U32,
    /// 0xa8 text, padded with zeros.
    pub uuid: [u8; 40],
    /// 0xd0.
    pub key_slots: [RawKeySlot; 8],
}
const _: () = assert!(size_of::<RawHeader>() == 592);

/// A key slot as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawKeySlot {
    /// 0x00 0x00ac71f3 in use, 0x0000dead not.
    pub active: be::U32,
    /// 0x04 iterations of PBKDF2.
    pub iterations: be::U32,
    /// 0x08 salt.
    pub salt: [u8; 32],
    /// 0x28 first sector of the key material.
    pub key_material_offset: be::U32,
    /// 0x2c anti-forensic stripes.
    pub stripes: be::U32,
}
const _: () = assert!(size_of::<RawKeySlot>() == 48);

/// A header that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `aes`.
    pub cipher: String,
    /// `xts-plain64`.
    pub mode: String,
    /// Of key slots, stripes and digest.
    pub hash: Hash,
    /// Bytes in the volume key, at most 64.
    pub key_length: usize,
    /// First byte of the encrypted data, in a device of its own.
    pub payload_offset: u64,
    /// As text.
    pub uuid: String,
    pub(crate) digest: Digest,
    /// Those that are in use and make sense.
    pub key_slots: Vec<KeySlot>,
}

impl Header {
    /// Reads and judges the header at byte `at` of `device`. A slot that makes no sense is left out.
    ///
    /// # Errors
    /// Damage; [`Error::Unsupported`] for another version, hash or key length.
    pub fn read(device: &dyn BlockDevice, at: u64) -> Result<Self> {
        let raw: RawHeader = read_value(device, at)?;
        Self::decode(&raw, at, device.size().saturating_sub(at))
    }

    fn decode(raw: &RawHeader, at: u64, available: u64) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
        if raw.magic != MAGIC {
            return Err(corrupt("magic", "`LUKS\\xba\\xbe`", format!("{:02x?}", raw.magic)).into());
        }
        if raw.version.get() != 1 {
            return Err(Error::unsupported(STRUCTURE, format!("version {}", raw.version)));
        }
        let hash = text(&raw.hash_spec);
        let hash =
            Hash::named(&hash).ok_or_else(|| Error::unsupported(STRUCTURE, format!("the hash {hash}")))?;
        let key_bytes = raw.key_bytes.get();
        let key_length = usize::try_from(key_bytes).unwrap_or(usize::MAX);
        if key_length == 0 || key_length > MAX_KEY {
            return Err(corrupt("key-bytes", "1..=64", key_bytes.to_string()).into());
        }
        if raw.mk_digest_iterations.get() == 0 {
            return Err(corrupt("mk-digest-iter", "at least 1", "0".to_owned()).into());
        }
        raw.check_areas(key_bytes, at)?;
        let (cipher, mode) = (text(&raw.cipher_name), text(&raw.cipher_mode));
        let slots = raw.key_slots.iter().zip(0_u32..).filter(|(slot, _)| slot.active.get() == ACTIVE);
        let key_slots = slots
            .map(|(slot, number)| KeySlot {
                number,
                priority: 1,
                kdf: Kdf::Pbkdf2 { hash, iterations: slot.iterations.get(), salt: slot.salt.to_vec() },
                key_length,
                area_key_length: key_length,
                stripes: slot.stripes.get(),
                stripe_hash: hash,
                area_offset: u64::from(slot.key_material_offset.get()).saturating_mul(SECTOR),
                area_cipher: cipher.clone(),
                area_mode: mode.clone(),
            })
            .filter(|found| slot::check(found, available).is_some() && found.kdf.work().0 > 0)
            .collect();
        Ok(Self {
            cipher,
            mode,
            hash,
            key_length,
            payload_offset: u64::from(raw.payload_offset.get()).saturating_mul(SECTOR),
            uuid: text(&raw.uuid),
            digest: Digest {
                hash,
                iterations: raw.mk_digest_iterations.get(),
                salt: raw.mk_digest_salt.to_vec(),
                value: raw.mk_digest.to_vec(),
            },
            key_slots,
        })
    }
}

impl RawHeader {
    /// Key material of slots, used or not, lies apart from each other and in front of the data, as cryptsetup demands:
    /// else a slot that is added would destroy something.
    fn check_areas(&self, key_bytes: u32, at: u64) -> Result<()> {
        let mut areas: Vec<(u64, u64)> = self
            .key_slots
            .iter()
            .filter(|slot| slot.stripes.get() > 0)
            .map(|slot| {
                let start = u64::from(slot.key_material_offset.get());
                let bytes = u64::from(key_bytes).saturating_mul(u64::from(slot.stripes.get()));
                (start, start.saturating_add(bytes.div_ceil(SECTOR)))
            })
            .collect();
        areas.sort_unstable();
        let payload = u64::from(self.payload_offset.get());
        let bounds = areas.iter().skip(1).map(|(start, _)| *start);
        for ((start, end), next) in areas.iter().zip(bounds.chain([u64::MAX])) {
            let limit = if payload == 0 { next } else { next.min(payload) };
            if *end > limit {
                let expected = format!("an end by sector {limit}");
                let found = format!("sectors {start}..{end}");
                return Err(Corrupt::new(STRUCTURE, at, "key-material-offset", expected, found).into());
            }
        }
        Ok(())
    }
}

/// Text up to the first zero byte.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A device with a good header and the room that its key material needs.
    pub(crate) fn bytes() -> Vec<u8> {
        let mut raw = good();
        raw.mk_digest_iterations = 7.into();
        let mut bytes = raw.as_bytes().to_vec();
        bytes.resize(270_000, 0x5a);
        bytes
    }

    /// The same with a few bytes of the header changed; the same for the same number.
    pub(crate) fn mutated(number: u64) -> Vec<u8> {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % bound
        };
        let mut bytes = bytes();
        for _ in 0..=below(3) {
            let at = below(592) as usize;
            bytes[at] =
                if below(2) == 0 { bytes[at] ^ 1 << below(8) } else { [0, 1, 0x7f, 0xff][below(4) as usize] };
        }
        if below(10) == 0 {
            bytes.truncate(below(270_000) as usize);
        }
        bytes
    }

    fn good() -> RawHeader {
        let mut raw = RawHeader::read_from_bytes(&[0; 592]).unwrap();
        raw.magic = MAGIC;
        raw.version = 1.into();
        raw.cipher_name[..3].copy_from_slice(b"aes");
        raw.cipher_mode[..11].copy_from_slice(b"xts-plain64");
        raw.hash_spec[..6].copy_from_slice(b"sha256");
        raw.key_bytes = 64.into();
        raw.mk_digest_iterations = 1000.into();
        raw.key_slots[2].active = ACTIVE.into();
        raw.key_slots[2].iterations = 7.into();
        raw.key_slots[2].stripes = 4000.into();
        raw.key_slots[2].key_material_offset = 8.into();
        raw
    }

    fn decode(raw: &RawHeader) -> std::result::Result<Header, String> {
        Header::decode(raw, 0, 1 << 20).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_header_and_one_wrong_field_each() {
        let header = decode(&good()).unwrap();
        assert_eq!(
            (header.cipher.as_str(), header.mode.as_str(), header.key_length),
            ("aes", "xts-plain64", 64)
        );
        assert_eq!((header.key_slots.len(), header.key_slots[0].number), (1, 2));
        let wrong = |change: fn(&mut RawHeader)| {
            let mut raw = good();
            change(&mut raw);
            decode(&raw)
        };
        assert!(wrong(|raw| raw.magic[0] = 0).unwrap_err().contains("magic"));
        assert!(wrong(|raw| raw.version = 2.into()).unwrap_err().contains("version 2"));
        assert!(wrong(|raw| raw.key_bytes = 65.into()).unwrap_err().contains("key-bytes"));
        assert!(wrong(|raw| raw.hash_spec[0] = b'x').unwrap_err().contains("hash"));
        for change in [
            (|raw| raw.key_slots[2].stripes = 4001.into()) as fn(&mut RawHeader),
            |raw| raw.key_slots[2].iterations = 0.into(),
            |raw| raw.key_slots[2].key_material_offset = u32::MAX.into(),
            |raw| raw.key_slots[2].active = 0xdead.into(),
        ] {
            assert!(wrong(change).unwrap().key_slots.is_empty());
        }
    }
}
