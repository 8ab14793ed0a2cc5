//! The master boot record: four primary partitions and a chain of extended boot records.
//!
//! There is no one specification; this follows what Linux' `block/partitions/msdos.c` and sfdisk(8) accept.
//! Little-endian. Sector numbers count logical sectors. In an extended boot record the starts of partitions are
//! relative to that record, the start of the link to the extended partition.

mod boot_sector;
mod chain;
mod read;
mod types;

pub use boot_sector::{PROTECTIVE, RawBootSector, RawEntry};
pub(crate) use boot_sector::{is_file_system, is_table, lacks_signature_only};
pub(crate) use chain::{Found, Limits, walk};
pub use read::read;
pub use types::type_name;
