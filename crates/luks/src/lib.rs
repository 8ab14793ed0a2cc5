//! LUKS: where keys are kept, how a passphrase opens them, and how sectors are encrypted.
//!
//! LUKS On-Disk Format Specification 1.2.3 and LUKS2 On-Disk Format Specification 1.1.3. No kernel is needed and no key
//! leaves the process; keys are wiped when they are dropped.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod anti_forensic;
mod cipher;
mod container;
mod decrypted;
mod hash;
mod header;
mod header2;
mod kdf;
mod keyring;
mod metadata;
mod slot;
mod unlock;

pub use cipher::{CipherError, SectorCipher};
pub use container::{Container, HeaderCopy, read, read_secondary};
pub use decrypted::Decrypted;
pub use hash::Hash;
pub use header::{Header, RawHeader, RawKeySlot};
pub use header2::RawHeader2;
pub use kdf::{Kdf, Limits};
pub use keyring::Keyring;
pub use slot::KeySlot;
pub use unlock::{Locked, unlock};

/// Bytes of a key or of anything else that must not stay in memory.
pub type Secret = zeroize::Zeroizing<Vec<u8>>;
