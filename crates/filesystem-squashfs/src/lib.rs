//! squashfs 4.0: a bounded reader.
//!
//! The kernel's documentation (`Documentation/filesystems/squashfs.rst`) and its header `fs/squashfs/squashfs_fs.h`
//! give the format. Little-endian. There is no journal: what a boot loader sees is what the kernel sees.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod block;
mod codec;
mod directory;
mod inode;
mod number;
mod open;
mod read;
mod superblock;
mod tables;

use filesystem::Format;

/// squashfs in the list of formats.
pub static FORMAT: Format =
    Format { name: "squashfs", probe: open::probe, open: open::open, replay: open::replay, set: None };
