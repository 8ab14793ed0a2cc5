//! LUKS version 1 header: the cipher, the digest of the key, and eight key slots.
//!
//! LUKS specification 1.2.3, §3. Big-endian. Offsets of key material and payload count sectors of 512 bytes.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, be, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Hash;

const STRUCTURE: &str = "LUKS header";

/// The first six bytes.
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// Bytes in a sector, as offsets count them.
pub(crate) const SECTOR: u64 = 512;

/// A slot that holds a key.
const ACTIVE: u32 = 0x00ac_71f3;

/// Stripes that any tool ever used; more would be memory for nothing.
const MAX_STRIPES: u32 = 4000;

/// The longest key: two of 256 bits for XTS.
const MAX_KEY: u32 = 64;

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
    pub(crate) digest: [u8; 20],
    pub(crate) digest_salt: [u8; 32],
    pub(crate) digest_iterations: u32,
    /// Those that are in use and make sense.
    pub key_slots: Vec<KeySlot>,
}

/// A key slot in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Its number, 0..=7.
    pub number: usize,
    pub(crate) iterations: u32,
    pub(crate) salt: [u8; 32],
    /// First byte of the key material, from the header on.
    pub(crate) material_offset: u64,
    /// Bytes of it.
    pub(crate) material_length: usize,
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
        if key_bytes == 0 || key_bytes > MAX_KEY {
            return Err(corrupt("key-bytes", "1..=64", key_bytes.to_string()).into());
        }
        if raw.mk_digest_iterations.get() == 0 {
            return Err(corrupt("mk-digest-iter", "at least 1", "0".to_owned()).into());
        }
        let slots = raw.key_slots.iter().enumerate();
        Ok(Self {
            cipher: text(&raw.cipher_name),
            mode: text(&raw.cipher_mode),
            hash,
            key_length: usize::try_from(key_bytes).unwrap_or(0),
            payload_offset: u64::from(raw.payload_offset.get()).saturating_mul(SECTOR),
            uuid: text(&raw.uuid),
            digest: raw.mk_digest,
            digest_salt: raw.mk_digest_salt,
            digest_iterations: raw.mk_digest_iterations.get(),
            key_slots: slots
                .filter_map(|(number, slot)| KeySlot::decode(slot, number, key_bytes, available))
                .collect(),
        })
    }
}

impl KeySlot {
    fn decode(raw: &RawKeySlot, number: usize, key_bytes: u32, available: u64) -> Option<Self> {
        let stripes = raw.stripes.get();
        if raw.active.get() != ACTIVE || raw.iterations.get() == 0 || stripes == 0 || stripes > MAX_STRIPES {
            return None;
        }
        let material_offset = u64::from(raw.key_material_offset.get()).checked_mul(SECTOR)?;
        let length = u64::from(key_bytes).checked_mul(u64::from(stripes))?;
        let end = material_offset.checked_add(length.next_multiple_of(SECTOR))?;
        (end <= available).then_some(Self {
            number,
            iterations: raw.iterations.get(),
            salt: raw.salt,
            material_offset,
            material_length: usize::try_from(length).ok()?,
        })
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
