//! Inodes, basic and extended.
//!
//! `struct squashfs_*_inode` in `fs/squashfs/squashfs_fs.h`. They have no fixed size: a file is followed by the
//! lengths of its blocks, a symlink by its target.

use filesystem::FileKind;
use ondisk::{Corrupt, Error, Result};

use crate::block::Cursor;
use crate::number::index;

const NAME: &str = "squashfs inode";
/// What stands for a file without a fragment, and an inode without attributes.
const NONE: u32 = u32::MAX;
/// The longest target: a page of the kernel's, without its end.
const MAX_TARGET: u32 = 4095;
/// Blocks of the largest file that is read, 16 MiB of lengths: 512 GiB at the usual size of blocks.
const MAX_BLOCKS: u64 = 1 << 22;

/// What all inodes have, and what theirs have in particular.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) kind: FileKind,
    pub(crate) permissions: u16,
    /// Indexes of the table of owners.
    pub(crate) uid: u16,
    pub(crate) gid: u16,
    /// Seconds since 1970.
    pub(crate) modified: u32,
    pub(crate) links: u32,
    /// Index of the table of attributes.
    pub(crate) xattr: Option<u32>,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Directory(Listing),
    File(File),
    Symlink(Vec<u8>),
    Device(u32),
    Nothing,
}

/// Where the entries of a directory are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// Their length in bytes and 3 more.
    pub(crate) size: u32,
    /// The block's distance from the start of the table of directories.
    pub(crate) block: u32,
    pub(crate) offset: u16,
}

/// Where the content of a file is.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) size: u64,
    /// First byte of the first block; the others follow.
    pub(crate) start: u64,
    /// Index of the fragment that holds its end, and the byte in it.
    pub(crate) fragment: Option<(u32, u32)>,
    /// Bytes of holes, as the extended inode counts them.
    pub(crate) holes: u64,
}

impl File {
    /// Whole blocks, not counting what a fragment holds.
    pub(crate) fn blocks(&self, block_size: u32) -> u64 {
        let size = u64::from(block_size.max(1));
        if self.fragment.is_some() {
            self.size.checked_div(size).unwrap_or(0)
        } else {
            self.size.div_ceil(size)
        }
    }

    /// The stored lengths of the blocks, which follow the inode.
    pub(crate) fn lengths(&self, cursor: &mut Cursor<'_>, block_size: u32) -> Result<Vec<u32>> {
        let count = self.blocks(block_size);
        if count > MAX_BLOCKS {
            return Err(Error::unsupported(NAME, format!("a file of {count} blocks")));
        }
        let mut lengths = Vec::new();
        for _ in 0..count {
            lengths.push(cursor.u32()?);
        }
        Ok(lengths)
    }
}

/// Reads the inode at `cursor`, which is left behind it: before the lengths of a file's blocks.
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Inode> {
    let at = cursor.at();
    let corrupt =
        |field, expected: &str, found: u64| Error::from(Corrupt::new(NAME, at, field, expected, found));
    let number = cursor.u16()?;
    let permissions = cursor.u16()? & 0o7777;
    let (uid, gid) = (cursor.u16()?, cursor.u16()?);
    let modified = cursor.u32()?;
    let _inode_number = cursor.u32()?;
    let is_extended = number > 7;
    let kind = match number {
        1 | 8 => FileKind::Directory,
        2 | 9 => FileKind::Regular,
        3 | 10 => FileKind::Symlink,
        4 | 11 => FileKind::BlockDevice,
        5 | 12 => FileKind::CharDevice,
        6 | 13 => FileKind::Fifo,
        7 | 14 => FileKind::Socket,
        other => return Err(corrupt("inode_type", "1..=14", other.into())),
    };
    let some = |value: u32| Some(value).filter(|value| *value != NONE);
    let (mut links, mut xattr) = (1, None);
    let content = match (kind, is_extended) {
        (FileKind::Directory, false) => {
            let block = cursor.u32()?;
            links = cursor.u32()?;
            let (size, offset) = (cursor.u16()?.into(), cursor.u16()?);
            Content::Directory(Listing { size, block, offset })
        }
        (FileKind::Directory, true) => {
            links = cursor.u32()?;
            let (size, block) = (cursor.u32()?, cursor.u32()?);
            let (_parent, _index_count) = (cursor.u32()?, cursor.u16()?);
            let offset = cursor.u16()?;
            xattr = some(cursor.u32()?);
            Content::Directory(Listing { size, block, offset })
        }
        (FileKind::Regular, false) => {
            let start = cursor.u32()?.into();
            let (fragment, offset) = (some(cursor.u32()?), cursor.u32()?);
            let size = cursor.u32()?.into();
            Content::File(File { size, start, fragment: fragment.map(|index| (index, offset)), holes: 0 })
        }
        (FileKind::Regular, true) => {
            let (start, size, holes) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
            links = cursor.u32()?;
            let (fragment, offset) = (some(cursor.u32()?), cursor.u32()?);
            xattr = some(cursor.u32()?);
            if i64::try_from(size).is_err() {
                return Err(corrupt("file_size", "below 2^63", size));
            }
            Content::File(File { size, start, fragment: fragment.map(|index| (index, offset)), holes })
        }
        (FileKind::Symlink, _) => {
            links = cursor.u32()?;
            let length = cursor.u32()?;
            if length > MAX_TARGET {
                return Err(corrupt("symlink_size", "4095 or less", length.into()));
            }
            let target = cursor.take(index(length))?;
            if is_extended {
                xattr = some(cursor.u32()?);
            }
            Content::Symlink(target)
        }
        (FileKind::BlockDevice | FileKind::CharDevice, _) => {
            links = cursor.u32()?;
            let device = cursor.u32()?;
            if is_extended {
                xattr = some(cursor.u32()?);
            }
            Content::Device(device)
        }
        _ => {
            links = cursor.u32()?;
            if is_extended {
                xattr = some(cursor.u32()?);
            }
            Content::Nothing
        }
    };
    Ok(Inode { kind, permissions, uid, gid, modified, links, xattr, content })
}
