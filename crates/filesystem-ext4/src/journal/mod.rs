//! The journal: blocks on their way to their place, in a ring of transactions.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`. Big-endian, unlike everything else. Each block of the
//! log that is not a copy begins with a header; one transaction is descriptor blocks, each followed by the
//! copies it names, revocation blocks, and a commit block without which the rest does not count.

pub mod block_header;
pub mod commit_block;
pub mod descriptor_block;
pub mod fast_commit;
mod log;
pub mod revocation_block;
pub mod superblock;

pub use log::{Copy, Journal, Recovery};
