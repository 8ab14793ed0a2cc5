//! Encryption of sectors: AES in the modes that disks use.
//!
//! XTS is IEEE 1619; the initial vectors are those of dm-crypt (`Documentation/admin-guide/device-mapper/dm-crypt.rst`).
//! The vector of a sector follows from its number, counted in units of 512 bytes whatever the sectors of the device
//! are.

use std::fmt;

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, consts::U16};
use aes::{Aes128, Aes192, Aes256};

use crate::Hash;

type Block = Array<u8, U16>;

/// Bytes in a block of AES.
const BLOCK: usize = 16;

/// What numbers of sectors count.
const UNIT: usize = 512;

/// Blocks that go through AES together: enough for its pipeline, and few enough to stay in the fastest cache.
const BATCH: usize = 32;

/// Sectors whose initial vectors are made together.
const SECTORS: usize = 8;

/// Why there is no such cipher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// A cipher or mode that is not known here.
    #[error("the cipher {0} is not supported")]
    Unsupported(String),
    /// The key does not fit the cipher.
    #[error("{cipher} takes no key of {length} bytes")]
    KeyLength {
        /// The cipher and its mode.
        cipher: String,
        /// Bytes in the key.
        length: usize,
    },
}

/// Encrypts and decrypts whole sectors.
pub struct SectorCipher {
    mode: Mode,
    vector: Vector,
    /// Bytes in a sector: 512, 1024, 2048 or 4096.
    sector_size: usize,
}

enum Mode {
    Xts { data: Aes, tweak: Aes },
    Cbc(Aes),
}

/// How the initial vector of a sector is made.
enum Vector {
    /// The low 32 bits of the number.
    Plain,
    /// The number.
    Plain64,
    /// The number, big-endian at the vector's end.
    Plain64Be,
    /// The number, encrypted with a hash of the key.
    Essiv(Aes),
}

enum Aes {
    Bits128(Box<Aes128>),
    Bits192(Box<Aes192>),
    Bits256(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(|aes| Self::Bits128(Box::new(aes))),
            24 => Aes192::new_from_slice(key).ok().map(|aes| Self::Bits192(Box::new(aes))),
            32 => Aes256::new_from_slice(key).ok().map(|aes| Self::Bits256(Box::new(aes))),
            _ => None,
        }
    }

    fn encrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Bits128(aes) => aes.encrypt_blocks(blocks),
            Self::Bits192(aes) => aes.encrypt_blocks(blocks),
            Self::Bits256(aes) => aes.encrypt_blocks(blocks),
        }
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Bits128(aes) => aes.decrypt_blocks(blocks),
            Self::Bits192(aes) => aes.decrypt_blocks(blocks),
            Self::Bits256(aes) => aes.decrypt_blocks(blocks),
        }
    }
}

impl SectorCipher {
    /// The cipher of this name and mode over sectors of 512 bytes: `aes` with `xts-` or `cbc-`, and `plain`,
    /// `plain64`, `plain64be` or `essiv:HASH`.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn new(cipher: &str, mode: &str, key: &[u8]) -> Result<Self, CipherError> {
        let name = || format!("{cipher}-{mode}");
        let unsupported = || CipherError::Unsupported(name());
        let bad_key = || CipherError::KeyLength { cipher: name(), length: key.len() };
        if cipher != "aes" {
            return Err(unsupported());
        }
        let (chaining, vector) = mode.split_once('-').ok_or_else(unsupported)?;
        let vector = match vector {
            "plain" => Vector::Plain,
            "plain64" => Vector::Plain64,
            "plain64be" => Vector::Plain64Be,
            _ => {
                let hash = vector.strip_prefix("essiv:").and_then(Hash::named).ok_or_else(unsupported)?;
                Vector::Essiv(Aes::new(&hash.digest(&[key])).ok_or_else(unsupported)?)
            }
        };
        let mode = match chaining {
            "xts" => {
                let (data, tweak) = key.split_at(key.len() / 2);
                let data = Aes::new(data).ok_or_else(bad_key)?;
                Mode::Xts { data, tweak: Aes::new(tweak).ok_or_else(bad_key)? }
            }
            "cbc" => Mode::Cbc(Aes::new(key).ok_or_else(bad_key)?),
            _ => return Err(unsupported()),
        };
        Ok(Self { mode, vector, sector_size: UNIT })
    }

    /// The same over sectors of `sector_size` bytes; `None` unless that is 512, 1024, 2048 or 4096.
    pub fn with_sector_size(self, sector_size: u32) -> Option<Self> {
        let sector_size = usize::try_from(sector_size).ok()?;
        matches!(sector_size, 512 | 1024 | 2048 | 4096).then_some(Self { sector_size, ..self })
    }

    /// Bytes in a sector.
    pub fn sector_size(&self) -> usize {
        self.sector_size
    }

    /// Decrypts `data`, whole sectors of which the first has this number, counted in units of 512 bytes.
    pub fn decrypt(&self, data: &mut [u8], first: u64) {
        self.each(data, first, false);
    }

    /// Encrypts `data`, whole sectors of which the first has this number, counted in units of 512 bytes.
    pub fn encrypt(&self, data: &mut [u8], first: u64) {
        self.each(data, first, true);
    }

    fn each(&self, data: &mut [u8], first: u64, is_encryption: bool) {
        let units = u64::try_from(self.sector_size / UNIT).unwrap_or(1);
        let mut number = first;
        for group in data.chunks_mut(self.sector_size.saturating_mul(SECTORS)) {
            let mut vectors = [Block::default(); SECTORS];
            for vector in &mut vectors {
                *vector = self.vector.of(number);
                number = number.wrapping_add(units);
            }
            if let Vector::Essiv(aes) = &self.vector {
                aes.encrypt(&mut vectors);
            }
            if let Mode::Xts { tweak, .. } = &self.mode {
                tweak.encrypt(&mut vectors);
            }
            for (sector, vector) in group.chunks_exact_mut(self.sector_size).zip(vectors) {
                let blocks = Array::cast_slice_from_core_mut(sector.as_chunks_mut::<BLOCK>().0);
                let vector = u128::from_le_bytes(vector.into());
                match &self.mode {
                    Mode::Xts { data, .. } => xts(data, vector, blocks, is_encryption),
                    Mode::Cbc(data) if is_encryption => cbc_encrypt(data, vector, blocks),
                    Mode::Cbc(data) => cbc_decrypt(data, vector, blocks),
                }
            }
        }
    }
}

impl Vector {
    /// The vector before any encryption.
    fn of(&self, number: u64) -> Block {
        let value = match self {
            Self::Plain => u128::from(number & 0xffff_ffff),
            Self::Plain64 | Self::Essiv(_) => u128::from(number),
            Self::Plain64Be => u128::from(number).swap_bytes(),
        };
        Block::from(value.to_le_bytes())
    }
}

/// The tweaks of a batch first, so that its blocks go through AES together.
fn xts(data: &Aes, mut tweak: u128, blocks: &mut [Block], is_encryption: bool) {
    for batch in blocks.chunks_mut(BATCH) {
        let mut tweaks = [0_u128; BATCH];
        for slot in &mut tweaks {
            *slot = tweak;
            // Multiplication by x in GF(2^128), x^128 = x^7 + x^2 + x + 1.
            let carry = tweak.wrapping_shr(127);
            tweak = tweak.wrapping_shl(1) ^ carry.wrapping_mul(0x87);
        }
        mask(batch, &tweaks);
        if is_encryption {
            data.encrypt(batch);
        } else {
            data.decrypt(batch);
        }
        mask(batch, &tweaks);
    }
}

fn mask(blocks: &mut [Block], masks: &[u128; BATCH]) {
    for (block, mask) in blocks.iter_mut().zip(masks) {
        *block = Block::from((u128::from_le_bytes((*block).into()) ^ mask).to_le_bytes());
    }
}

fn cbc_decrypt(data: &Aes, vector: u128, blocks: &mut [Block]) {
    let mut last = vector;
    for batch in blocks.chunks_mut(BATCH) {
        let mut before = [0_u128; BATCH];
        for (before, block) in before.iter_mut().zip(batch.iter()) {
            *before = last;
            last = u128::from_le_bytes((*block).into());
        }
        data.decrypt(batch);
        mask(batch, &before);
    }
}

fn cbc_encrypt(data: &Aes, vector: u128, blocks: &mut [Block]) {
    let mut last = vector;
    for block in blocks {
        let mut one = [Block::from((u128::from_le_bytes((*block).into()) ^ last).to_le_bytes())];
        data.encrypt(&mut one);
        let [one] = one;
        last = u128::from_le_bytes(one.into());
        *block = one;
    }
}

impl fmt::Debug for SectorCipher {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            Mode::Xts { .. } => "SectorCipher(XTS)",
            Mode::Cbc(_) => "SectorCipher(CBC)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_decrypted() {
        let key: Vec<u8> = (0..64).collect();
        for (mode, length) in [
            ("xts-plain64", 64),
            ("xts-plain64", 32),
            ("cbc-plain64", 32),
            ("cbc-plain", 16),
            ("cbc-essiv:sha256", 32),
            ("xts-essiv:sha256", 64),
            ("cbc-plain64be", 24),
        ] {
            let cipher = SectorCipher::new("aes", mode, &key[..length]).unwrap();
            let plain: Vec<u8> = (0..2048_u32).map(|n| (n * 7) as u8).collect();
            let mut data = plain.clone();
            cipher.encrypt(&mut data, 1 << 33);
            assert_ne!(data, plain);
            let mut second = data[512..1024].to_vec();
            cipher.decrypt(&mut second, (1 << 33) + 1);
            assert_eq!(second, plain[512..1024], "{mode}: a sector can be read alone");
            cipher.decrypt(&mut data, 1 << 33);
            assert_eq!(data, plain, "{mode}");
        }
    }

    /// IEEE 1619-2007, annex B, vector 10: AES-256, data unit 0xff, 512 bytes.
    #[test]
    fn the_vector_of_the_standard() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let key = hex(
            "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197\
             169399375105820974944592",
        );
        let mut data: Vec<u8> = (0..512_u32).map(|n| n as u8).collect();
        SectorCipher::new("aes", "xts-plain64", &key).unwrap().encrypt(&mut data, 0xff);
        assert_eq!(data[..16], hex("1c3b3a102f770386e4836c99e370cf9b"));
        assert_eq!(data[496..], hex("c4f36ffda9fcea70b9c6e693e148c151"));
    }

    /// dm-crypt counts 512-byte units also where sectors are larger, so the first 512 bytes are the same.
    #[test]
    fn larger_sectors() {
        let cipher =
            |size| SectorCipher::new("aes", "xts-plain64", &[7; 64]).unwrap().with_sector_size(size).unwrap();
        let mut large = vec![3; 16 << 10];
        cipher(4096).encrypt(&mut large, 40);
        let mut small = vec![3; 16 << 10];
        cipher(512).encrypt(&mut small, 40);
        for at in (0..16 << 10).step_by(4096) {
            assert_eq!(large[at..at + 512], small[at..at + 512]);
            assert_ne!(large[at + 512..at + 1024], small[at + 512..at + 1024]);
        }
        let mut last = large[12 << 10..].to_vec();
        cipher(4096).decrypt(&mut last, 40 + 24);
        assert_eq!(last, vec![3; 4096]);
        assert!(SectorCipher::new("aes", "cbc-plain", &[7; 16]).unwrap().with_sector_size(8192).is_none());
    }

    #[test]
    fn what_is_not_known_is_named() {
        let of = |cipher, mode, length: usize| {
            SectorCipher::new(cipher, mode, &vec![0; length]).unwrap_err().to_string()
        };
        assert_eq!(of("serpent", "xts-plain64", 64), "the cipher serpent-xts-plain64 is not supported");
        assert_eq!(of("aes", "ecb", 32), "the cipher aes-ecb is not supported");
        assert_eq!(of("aes", "xts-plain64", 20), "aes-xts-plain64 takes no key of 20 bytes");
    }
}
