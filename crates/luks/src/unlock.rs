//! From a passphrase to the cipher of the data.

use blockdev::BlockDevice;
use ondisk::read_bytes;

use crate::{CipherError, Header, KeySlot, Secret, SectorCipher, anti_forensic};

/// Iterations that a header may ask for in all: a minute of work, ten times what tools ask for. The number is the
/// image's.
const MAX_ITERATIONS: u64 = 100_000_000;

/// Why the data stays closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Locked {
    /// No key slot opens with this passphrase.
    #[error("no key slot opens with this passphrase")]
    WrongPassphrase,
    /// The header asks for so much work that it can only be meant to stop us.
    #[error("the header asks for {0} iterations")]
    TooMuchWork(u64),
    /// The cipher is not known here.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// Key material cannot be read.
    #[error(transparent)]
    Read(#[from] ondisk::Error),
}

/// Opens the first key slot that takes `passphrase`. The header lies at byte `at` of `device`.
///
/// # Errors
/// [`Locked`].
pub fn unlock(
    header: &Header,
    device: &dyn BlockDevice,
    at: u64,
    passphrase: &[u8],
) -> Result<SectorCipher, Locked> {
    let slots = header.key_slots.iter().map(|slot| u64::from(slot.iterations));
    let work = slots.fold(0_u64, u64::saturating_add).saturating_add(
        u64::from(header.digest_iterations)
            .saturating_mul(u64::try_from(header.key_slots.len()).unwrap_or(u64::MAX)),
    );
    if work > MAX_ITERATIONS {
        return Err(Locked::TooMuchWork(work));
    }
    for slot in &header.key_slots {
        if let Some(key) = open_slot(header, slot, device, at, passphrase)? {
            return Ok(SectorCipher::new(&header.cipher, &header.mode, &key)?);
        }
    }
    Err(Locked::WrongPassphrase)
}

/// The volume key, if the slot holds it under this passphrase.
fn open_slot(
    header: &Header,
    slot: &KeySlot,
    device: &dyn BlockDevice,
    at: u64,
    passphrase: &[u8],
) -> Result<Option<Secret>, Locked> {
    let mut slot_key = Secret::new(vec![0; header.key_length]);
    header.hash.pbkdf2(passphrase, &slot.salt, slot.iterations, &mut slot_key);
    let cipher = SectorCipher::new(&header.cipher, &header.mode, &slot_key)?;
    // Whole sectors were encrypted, of which the stripes may fill the last in part.
    let length = slot.material_length.next_multiple_of(512);
    let offset = at.saturating_add(slot.material_offset);
    let mut material = Secret::new(read_bytes(device, offset, length)?);
    cipher.decrypt(&mut material, 0);
    let stripes = material.get(..slot.material_length).unwrap_or_default();
    let Some(key) = anti_forensic::merge(stripes, header.key_length, header.hash) else { return Ok(None) };
    let mut digest = [0; 20];
    header.hash.pbkdf2(&key, &header.digest_salt, header.digest_iterations, &mut digest);
    Ok((digest == header.digest).then_some(key))
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;
    use crate::header::tests::{bytes, mutated};

    #[test]
    fn a_header_cannot_ask_for_hours() {
        let mut image = bytes();
        // The iterations of the slot in use.
        image[0xd0 + 2 * 48 + 4] = 0xff;
        let device = MemoryDevice::new(image);
        let header = Header::read(&device, 0).unwrap();
        let error = unlock(&header, &device, 0, b"x").unwrap_err();
        assert!(matches!(error, Locked::TooMuchWork(_)), "{error}");
    }

    #[test]
    fn no_mutation_panics_or_hangs() {
        let mut opened = 0;
        for number in 0..20_000 {
            let device = MemoryDevice::new(mutated(number));
            let Ok(header) = Header::read(&device, 0) else { continue };
            opened += 1;
            // Deriving keys is what costs; a few show that the way there holds.
            let is_cheap =
                header.digest_iterations < 100 && header.key_slots.iter().all(|slot| slot.iterations < 100);
            if number % 200 == 0 && is_cheap {
                drop(unlock(&header, &device, 0, b"x"));
            }
        }
        assert!(opened > 2000, "{opened}");
    }
}
