//! Keys: what the items of every tree are ordered by.
//!
//! On-disk format documentation, "Key types". Little-endian.

use std::fmt;

use ondisk::le;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A key as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawKey {
    pub(crate) objectid: le::U64, // 0x00
    pub(crate) kind: u8,          // 0x08
    pub(crate) offset: le::U64,   // 0x09
}
const _: () = assert!(size_of::<RawKey>() == 17);

/// A key; compared by object, kind, offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) objectid: u64,
    pub(crate) kind: u8,
    pub(crate) offset: u64,
}

impl Key {
    pub(crate) const fn new(objectid: u64, kind: u8, offset: u64) -> Self {
        Self { objectid, kind, offset }
    }
}

impl From<&RawKey> for Key {
    fn from(raw: &RawKey) -> Self {
        Self::new(raw.objectid.get(), raw.kind, raw.offset.get())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} {} {})", self.objectid, self.kind, self.offset)
    }
}

/// `BTRFS_*_KEY`.
pub(crate) mod kind {
    pub(crate) const INODE_ITEM: u8 = 1;
    pub(crate) const INODE_REF: u8 = 12;
    pub(crate) const XATTR_ITEM: u8 = 24;
    pub(crate) const DIR_ITEM: u8 = 84;
    pub(crate) const DIR_INDEX: u8 = 96;
    pub(crate) const EXTENT_DATA: u8 = 108;
    pub(crate) const EXTENT_CSUM: u8 = 128;
    pub(crate) const ROOT_ITEM: u8 = 132;
    pub(crate) const ROOT_BACKREF: u8 = 144;
    pub(crate) const ROOT_REF: u8 = 156;
    pub(crate) const DEV_ITEM: u8 = 216;
    pub(crate) const CHUNK_ITEM: u8 = 228;
}

/// `BTRFS_*_OBJECTID`.
pub(crate) mod object {
    pub(crate) const ROOT_TREE: u64 = 1;
    pub(crate) const CHUNK_TREE: u64 = 3;
    /// The top-level subvolume.
    pub(crate) const FS_TREE: u64 = 5;
    pub(crate) const CSUM_TREE: u64 = 7;
    /// In the chunk tree.
    pub(crate) const DEV_ITEMS: u64 = 1;
    pub(crate) const FIRST_CHUNK_TREE: u64 = 256;
    /// Subvolumes, and inodes within each.
    pub(crate) const FIRST_FREE: u64 = 256;
    pub(crate) const LAST_FREE: u64 = u64::MAX - 255;
    pub(crate) const EXTENT_CSUM: u64 = u64::MAX - 9;
}

/// Whether a tree holds files: blocks of such trees are shared between snapshots.
pub(crate) fn is_file_tree(id: u64) -> bool {
    id == object::FS_TREE || (object::FIRST_FREE..=object::LAST_FREE).contains(&id)
}
