//! btrfs: a bounded reader over one or several devices, with subvolumes, snapshots and compression.
//!
//! The specification is the on-disk format documentation of btrfs-progs; head comments name its parts. All
//! integers on disk are little-endian. Tree blocks and data are verified, and read from a copy that is right.
//! The log tree is not replayed: files are as of the last commit, and [`FORMAT`]'s `replay` says so.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod checksum;
mod chunk;
mod compression;
mod data;
mod directory;
mod extent;
mod features;
mod inode;
mod key;
mod lzo;
mod node;
mod number;
mod open;
mod read;
mod space;
mod subvolume;
mod superblock;
mod tree;
mod xxhash;

use std::sync::Mutex;

use filesystem::{Format, FsInfo, Inode, Set};

use crate::compression::Decompressors;
use crate::space::Space;
use crate::subvolume::Numbers;
use crate::tree::Root;

pub use crate::open::{Membership, Select, membership, open_set, open_subvolume, subvolumes};
pub use crate::subvolume::Subvolume;
pub use crate::superblock::{SuperblockCopy, superblocks};

/// btrfs in the list of formats.
pub static FORMAT: Format = Format {
    name: "btrfs",
    probe: open::probe,
    open: open::open,
    replay: open::replay,
    set: Some(Set {
        member: open::set_member,
        open: open_set,
        subvolumes: open::list_subvolumes,
        open_subvolume: |devices, id| open_subvolume(devices, Select::Id(id)),
    }),
};

/// An open file system.
struct Btrfs {
    space: Space,
    /// The tree of roots.
    roots: Root,
    /// The tree of data checksums; `None` when it cannot be had.
    sums: Option<Root>,
    /// The subvolume that is mounted without options.
    default: u64,
    info: FsInfo,
    root: Inode,
    numbers: Mutex<Numbers>,
    codecs: Decompressors,
    decompressed: data::Decompressed,
}
