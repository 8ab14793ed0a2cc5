//! Reading a structure off a device.
//!
//! Damage is a value here: a [`Corrupt`] says which structure, at which byte, which field, what was expected
//! and what was found. Decoding one structure may fail; opening a whole thing gathers problems in a
//! [`Parsed`] and goes on.

mod checksum;
mod error;
mod guid;
mod read;

pub use checksum::{crc32, crc32c, crc32c_raw, lvm_crc};
pub use error::{Corrupt, Error, Parsed, Result};
pub use guid::Guid;
pub use read::{read_bytes, read_value};

/// Little-endian integers for raw layouts.
pub mod le {
    pub use zerocopy::little_endian::{I32, I64, U16, U32, U64};
}

/// Big-endian integers for raw layouts.
pub mod be {
    pub use zerocopy::big_endian::{I32, I64, U16, U32, U64};
}
