//! The GUID partition table: a header and an entry array, each stored twice.
//!
//! UEFI 2.10 §5.3. Little-endian. `*_lba` count logical sectors; every other size is bytes. The backup header
//! lies in the disk's last sector, or, after the disk was resized, where the primary's `alternate_lba` says.
//! All four structures are judged by themselves: [`Gpt`].

mod array;
mod copy;
mod header;
mod protective;
mod read;
mod restore;
mod scan;
mod types;

pub use array::{Entry, EntryArray, RawEntry};
pub use copy::{Copy, Place};
pub use header::{Header, MAX_ARRAY, RawHeader};
pub use protective::{ProtectiveKind, ProtectiveMbr};
pub use read::{Gpt, read};
pub use restore::{Write, restore_backup, restore_primary, restore_protective_mbr};
pub use types::type_name;
