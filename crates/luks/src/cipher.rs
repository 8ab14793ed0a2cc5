//! Encryption of sectors: AES in the modes that disks use.
//!
//! XTS is IEEE 1619; ESSIV and plain are dm-crypt's initial vectors. The vector of a sector follows from its number,
//! counted in units of 512 bytes whatever the sectors of the device are.

use std::fmt;

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, consts::U16};
use aes::{Aes128, Aes192, Aes256};

use crate::Hash;

type Block = Array<u8, U16>;

/// Bytes in a block of AES.
const BLOCK: usize = 16;

/// Bytes in a sector.
const SECTOR: usize = 512;

/// Blocks of a sector.
const BLOCKS: usize = SECTOR / BLOCK;

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

/// Encrypts and decrypts whole sectors of 512 bytes.
pub struct SectorCipher {
    mode: Mode,
}

enum Mode {
    Xts { data: Aes, tweak: Aes },
    Cbc { data: Aes, vector: Vector },
}

/// How the initial vector of a sector is made.
enum Vector {
    /// The low 32 bits of the number.
    Plain,
    /// The number.
    Plain64,
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
    /// The cipher of this name and mode: `aes` with `xts-plain64`, `xts-plain`, `cbc-plain64`, `cbc-plain`, or
    /// `cbc-essiv:HASH`.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn new(cipher: &str, mode: &str, key: &[u8]) -> Result<Self, CipherError> {
        let name = format!("{cipher}-{mode}");
        if cipher != "aes" {
            return Err(CipherError::Unsupported(name));
        }
        let bad_key = || CipherError::KeyLength { cipher: name.clone(), length: key.len() };
        let mode = match mode {
            "xts-plain64" | "xts-plain" => {
                let (data, tweak) = key.split_at(key.len() / 2);
                let data = Aes::new(data).ok_or_else(bad_key)?;
                Mode::Xts { data, tweak: Aes::new(tweak).ok_or_else(bad_key)? }
            }
            "cbc-plain" => Mode::Cbc { data: Aes::new(key).ok_or_else(bad_key)?, vector: Vector::Plain },
            "cbc-plain64" => Mode::Cbc { data: Aes::new(key).ok_or_else(bad_key)?, vector: Vector::Plain64 },
            _ => {
                let hash = mode.strip_prefix("cbc-essiv:").and_then(Hash::named);
                let hash = hash.ok_or_else(|| CipherError::Unsupported(name.clone()))?;
                let essiv =
                    Aes::new(&hash.digest(&[key])).ok_or_else(|| CipherError::Unsupported(name.clone()))?;
                Mode::Cbc { data: Aes::new(key).ok_or_else(bad_key)?, vector: Vector::Essiv(essiv) }
            }
        };
        Ok(Self { mode })
    }

    /// Decrypts `data`, whole sectors of which the first has this number.
    pub fn decrypt(&self, data: &mut [u8], first_sector: u64) {
        self.each(data, first_sector, false);
    }

    /// Encrypts `data`, whole sectors of which the first has this number.
    pub fn encrypt(&self, data: &mut [u8], first_sector: u64) {
        self.each(data, first_sector, true);
    }

    fn each(&self, data: &mut [u8], first_sector: u64, is_encryption: bool) {
        let mut number = first_sector;
        for sector in data.chunks_exact_mut(SECTOR) {
            let mut blocks = [Block::default(); BLOCKS];
            load(&mut blocks, sector);
            match &self.mode {
                Mode::Xts { data, tweak } => xts(data, tweak, &mut blocks, number, is_encryption),
                Mode::Cbc { data, vector } if is_encryption => {
                    cbc_encrypt(data, vector.of(number), &mut blocks);
                }
                Mode::Cbc { data, vector } => cbc_decrypt(data, vector.of(number), &mut blocks),
            }
            store(&blocks, sector);
            number = number.wrapping_add(1);
        }
    }
}

fn load(blocks: &mut [Block; BLOCKS], sector: &[u8]) {
    for (block, bytes) in blocks.iter_mut().zip(sector.as_chunks::<BLOCK>().0) {
        block.copy_from_slice(bytes);
    }
}

fn store(blocks: &[Block; BLOCKS], sector: &mut [u8]) {
    for (block, bytes) in blocks.iter().zip(sector.as_chunks_mut::<BLOCK>().0) {
        bytes.copy_from_slice(block);
    }
}

impl Vector {
    fn of(&self, number: u64) -> u128 {
        match self {
            Self::Plain => u128::from(number & 0xffff_ffff),
            Self::Plain64 => u128::from(number),
            Self::Essiv(aes) => {
                let mut block = [Block::from(u128::from(number).to_le_bytes())];
                aes.encrypt(&mut block);
                let [block] = block;
                u128::from_le_bytes(block.into())
            }
        }
    }
}

/// All tweaks of the sector first, so that its blocks go through AES together.
fn xts(data: &Aes, tweak: &Aes, blocks: &mut [Block; BLOCKS], number: u64, is_encryption: bool) {
    let mut first = [Block::from(u128::from(number).to_le_bytes())];
    tweak.encrypt(&mut first);
    let [first] = first;
    let mut value = u128::from_le_bytes(first.into());
    let mut tweaks = [0_u128; BLOCKS];
    for tweak in &mut tweaks {
        *tweak = value;
        // Multiplication by x in GF(2^128), x^128 = x^7 + x^2 + x + 1.
        let carry = value.wrapping_shr(127);
        value = value.wrapping_shl(1) ^ carry.wrapping_mul(0x87);
    }
    mask(blocks, &tweaks);
    if is_encryption {
        data.encrypt(blocks);
    } else {
        data.decrypt(blocks);
    }
    mask(blocks, &tweaks);
}

fn mask(blocks: &mut [Block; BLOCKS], tweaks: &[u128; BLOCKS]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        *block = Block::from((u128::from_le_bytes((*block).into()) ^ tweak).to_le_bytes());
    }
}

fn cbc_decrypt(data: &Aes, vector: u128, blocks: &mut [Block; BLOCKS]) {
    let mut before = [0_u128; BLOCKS];
    let mut last = vector;
    for (before, block) in before.iter_mut().zip(blocks.iter()) {
        *before = last;
        last = u128::from_le_bytes((*block).into());
    }
    data.decrypt(blocks);
    mask(blocks, &before);
}

fn cbc_encrypt(data: &Aes, vector: u128, blocks: &mut [Block; BLOCKS]) {
    let mut last = vector;
    for block in blocks.iter_mut() {
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
            Mode::Cbc { .. } => "SectorCipher(CBC)",
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
