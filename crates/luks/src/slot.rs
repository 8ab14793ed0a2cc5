//! A key slot, the same for both versions: key material that a passphrase turns into the volume key.

use blockdev::BlockDevice;
use ondisk::read_bytes;

use crate::kdf::{Digest, Kdf, Limits};
use crate::{Hash, Locked, Secret, SectorCipher, anti_forensic};

/// Stripes that any tool ever used; more would be memory for nothing.
pub(crate) const MAX_STRIPES: u32 = 4000;

/// The longest key: two of 256 bits for XTS.
pub(crate) const MAX_KEY: usize = 64;

/// A key slot in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Its number.
    pub number: u32,
    /// 2 is tried first, 0 last.
    pub priority: u8,
    /// How a passphrase opens it.
    pub kdf: Kdf,
    /// Bytes in the volume key.
    pub(crate) key_length: usize,
    /// Bytes in the key of the key material.
    pub(crate) area_key_length: usize,
    pub(crate) stripes: u32,
    pub(crate) stripe_hash: Hash,
    /// First byte of the key material, from the header on.
    pub(crate) area_offset: u64,
    pub(crate) area_cipher: String,
    pub(crate) area_mode: String,
}

impl KeySlot {
    /// Where its key material lies, in bytes from the header on.
    pub fn area(&self) -> std::ops::Range<u64> {
        self.area_offset
            ..self.area_offset.saturating_add(self.material_length().unwrap_or(0).next_multiple_of(512))
    }

    /// Bytes of all stripes.
    pub(crate) fn material_length(&self) -> Option<u64> {
        u64::try_from(self.key_length).ok()?.checked_mul(u64::from(self.stripes))
    }

    /// The volume key, if the slot holds it under this passphrase. The header lies at byte `at` of `device`.
    pub(crate) fn open(
        &self,
        digest: &Digest,
        device: &dyn BlockDevice,
        at: u64,
        passphrase: &[u8],
        limits: Limits,
    ) -> Result<Option<Secret>, Locked> {
        // `check` has bounded both.
        let length = usize::try_from(self.material_length().unwrap_or(0)).unwrap_or(0);
        let mut slot_key = Secret::new(vec![0; self.area_key_length]);
        self.kdf.derive(passphrase, limits, &mut slot_key)?;
        let cipher = SectorCipher::new(&self.area_cipher, &self.area_mode, &slot_key)?;
        // Whole sectors were encrypted, of which the stripes may fill the last in part.
        let offset = at.saturating_add(self.area_offset);
        let mut material = Secret::new(read_bytes(device, offset, length.next_multiple_of(512))?);
        cipher.decrypt(&mut material, 0);
        let stripes = material.get(..length).unwrap_or_default();
        let key = anti_forensic::merge(stripes, self.key_length, self.stripe_hash);
        Ok(key.filter(|key| digest.proves(key)))
    }
}

/// Whether the numbers of a slot make sense; `available` bytes follow the start of the header.
pub(crate) fn check(slot: &KeySlot, available: u64) -> Option<()> {
    let keys = 1..=MAX_KEY;
    if slot.stripes == 0
        || slot.stripes > MAX_STRIPES
        || !keys.contains(&slot.key_length)
        || !keys.contains(&slot.area_key_length)
    {
        return None;
    }
    let end = slot.area_offset.checked_add(slot.material_length()?.next_multiple_of(512))?;
    (end <= available).then_some(())
}
