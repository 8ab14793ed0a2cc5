//! What a user gave to open encrypted devices, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use blockdev::Device;

use crate::{Container, Limits, Locked, Secret};

/// Passphrases, and the volume keys that they opened: examining a machine a second time asks for no work again.
#[derive(Default)]
pub struct Keyring {
    passphrases: Vec<Secret>,
    limits: Limits,
    /// By the digest that proves a volume key.
    known: Mutex<BTreeMap<Vec<u8>, Opened>>,
}

/// The slot and the volume key that it holds; `None` where none of the passphrases opens it.
type Opened = Option<(u32, Secret)>;

impl Keyring {
    /// Tries these passphrases, in this order, on every encrypted device.
    pub fn new(passphrases: Vec<Secret>, limits: Limits) -> Self {
        Self { passphrases, limits, known: Mutex::default() }
    }

    /// The passphrases, in the order in which they are tried.
    pub fn passphrases(&self) -> impl Iterator<Item = &[u8]> {
        self.passphrases.iter().map(|passphrase| passphrase.as_slice())
    }

    /// Opens `container`, which was read from `device`; also says which key slot opened.
    ///
    /// # Errors
    /// [`Locked`]; with several passphrases, the reason of the last.
    pub fn unlock(&self, container: &Container, device: &Device) -> Result<(u32, Device), Locked> {
        if let Some(obstacle) = &container.obstacle {
            return Err(Locked::Unsupported(obstacle.clone()));
        }
        let mut name = container.digest().map(|digest| digest.salt.clone()).unwrap_or_default();
        name.extend(container.digest().into_iter().flat_map(|digest| &digest.value));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&name) {
            Some(Some((slot, key))) => return Ok((*slot, container.open(device, key)?)),
            Some(None) => return Err(Locked::WrongPassphrase),
            None => {}
        }
        let mut last = Locked::NoPassphrase;
        for passphrase in &self.passphrases {
            match container.volume_key(device, passphrase, self.limits) {
                Ok((slot, key)) => {
                    let opened = container.open(device, &key)?;
                    known.insert(name, Some((slot, key)));
                    return Ok((slot, opened));
                }
                Err(error) => last = error,
            }
        }
        if matches!(last, Locked::WrongPassphrase) {
            known.insert(name, None);
        }
        Err(last)
    }
}

impl fmt::Debug for Keyring {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("passphrases", &self.passphrases.len()).finish_non_exhaustive()
    }
}
