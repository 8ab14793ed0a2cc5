//! ext2, ext3 and ext4: reading, recovery in memory, and replacing the content of a file.
//!
//! The reader shows the device as it is, the way a boot loader sees it; [`FORMAT`]'s `replay` returns what the
//! kernel will see after its own recovery. Modules are named after the structures on disk, which Linux
//! describes in `Documentation/filesystems/ext4/`. Nothing is trusted: damage is
//! [`ondisk::Corrupt`] with a place, every walk has a bound, and lengths are checked before they are used.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod backup;
pub mod block_map;
mod bytes;
mod cache;
pub mod checksum;
mod content;
pub mod dir_block;
pub mod dir_index;
mod directory;
pub mod disk;
pub mod extent_tree;
mod fast_commit;
pub mod features;
mod format;
pub mod group_descriptor;
pub mod inode;
pub mod journal;
pub mod mapping;
pub mod mmp;
pub mod orphan_file;
mod posix_acl;
pub mod preen;
mod reader;
mod recover;
pub mod superblock;
pub mod units;
mod writer;
pub mod xattr;

pub use format::FORMAT;
pub use reader::Ext4;
