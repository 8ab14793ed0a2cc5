//! LUKS: where keys are kept, how a passphrase opens them, and how sectors are encrypted.
//!
//! LUKS On-Disk Format Specification 1.2.3. So far version 1, as encrypted qcow2 images use it; version 2 and devices
//! of their own follow. No kernel is needed and no key leaves the process; keys are wiped when they are dropped.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod anti_forensic;
mod cipher;
mod hash;
mod header;
mod unlock;

pub use cipher::{CipherError, SectorCipher};
pub use hash::Hash;
pub use header::{Header, KeySlot, RawHeader, RawKeySlot};
pub use unlock::{Locked, unlock};

/// Bytes of a key or of anything else that must not stay in memory.
pub type Secret = zeroize::Zeroizing<Vec<u8>>;
