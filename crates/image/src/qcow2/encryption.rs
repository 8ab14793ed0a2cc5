//! Encrypted guest data: AES as QEMU did it first, and LUKS with its header in clusters of the image.
//!
//! QEMU docs/interop/qcow2, "Full disk encryption header pointer" and "Data encryption". Tables, snapshots and
//! compressed clusters are not encrypted.

use luks::{Header as LuksHeader, SectorCipher};

use super::Header;
use super::header::{Encryption, extension};
use crate::open::Source;
use crate::{Error, Result};

/// Bytes that are encrypted on their own.
pub(super) const SECTOR: u64 = 512;

/// Bytes in the key of the old method.
const AES_KEY: usize = 16;

/// How guest data is encrypted and decrypted.
#[derive(Debug)]
pub(super) struct DataCipher {
    cipher: SectorCipher,
    /// Sectors are numbered by their place in the file, not on the disk.
    counts_host: bool,
}

impl DataCipher {
    /// The cipher of an encrypted image; `None` for one that is not.
    ///
    /// # Errors
    /// [`Error::Locked`] without the right passphrase; damage of the LUKS header.
    pub(super) fn open(source: &Source, header: &Header, passphrase: Option<&[u8]>) -> Result<Option<Self>> {
        let Some(method) = header.encryption else { return Ok(None) };
        let locked = |reason: String| Error::Locked { image: source.title(), reason };
        let passphrase = passphrase.ok_or_else(|| locked("a passphrase is needed".to_owned()))?;
        let (cipher, counts_host) = match method {
            Encryption::Aes => (aes(passphrase).map_err(|error| locked(error.to_string()))?, false),
            Encryption::Luks => (Self::luks(source, header, passphrase)?, true),
        };
        Ok(Some(Self { cipher, counts_host }))
    }

    fn luks(source: &Source, header: &Header, passphrase: &[u8]) -> Result<SectorCipher> {
        let failed = source.failed("qcow2");
        let missing = || {
            let expected = "an extension of 16 bytes";
            ondisk::Corrupt::new("qcow2 header", 0, "encryption header pointer", expected, "none")
        };
        let place = header.extension(extension::ENCRYPTION).and_then(|data| data.first_chunk::<8>());
        let offset = u64::from_be_bytes(*place.ok_or_else(|| failed(missing().into()))?);
        let found = LuksHeader::read(&*source.device, offset).map_err(&failed)?;
        luks::unlock(&found, &*source.device, offset, passphrase).map_err(|error| match error {
            luks::Locked::Read(error) => failed(error),
            other => Error::Locked { image: source.title(), reason: other.to_string() },
        })
    }

    pub(super) fn decrypt(&self, sectors: &mut [u8], host: u64, guest: u64) {
        self.cipher.decrypt(sectors, self.number(host, guest));
    }

    pub(super) fn encrypt(&self, sectors: &mut [u8], host: u64, guest: u64) {
        self.cipher.encrypt(sectors, self.number(host, guest));
    }

    fn number(&self, host: u64, guest: u64) -> u64 {
        if self.counts_host { host / SECTOR } else { guest / SECTOR }
    }
}

/// The passphrase itself is the key, cut or filled with zeros. There is no way to see that it is wrong.
fn aes(passphrase: &[u8]) -> std::result::Result<SectorCipher, luks::CipherError> {
    let mut key = luks::Secret::new(vec![0; AES_KEY]);
    key.iter_mut().zip(passphrase).for_each(|(key, byte)| *key = *byte);
    SectorCipher::new("aes", "cbc-plain64", &key)
}
