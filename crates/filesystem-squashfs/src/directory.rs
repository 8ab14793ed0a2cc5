//! Directories: headers that name a block of inodes, each with up to 256 entries.

use filesystem::{DirEntry, FileKind, Inode};
use ondisk::{Corrupt, Result};

use crate::block::Cursor;

const NAME: &str = "squashfs directory";
/// A listing says three bytes more than it has: those that `.` and `..` would be.
const DOTS: u32 = 3;
const MAX_ENTRIES: u32 = 256;
const MAX_NAME: usize = 256;

/// All entries of a listing of `size` bytes.
pub(crate) fn read(cursor: &mut Cursor<'_>, size: u32) -> Result<Vec<DirEntry>> {
    let mut left = size.saturating_sub(DOTS);
    let mut entries = Vec::new();
    while left > 0 {
        let at = cursor.at();
        let corrupt = |field, expected: &str, found: u64| Corrupt::new(NAME, at, field, expected, found);
        let count = cursor.u32()?.saturating_add(1);
        let block = cursor.u32()?;
        let _inode_number = cursor.u32()?;
        if count > MAX_ENTRIES {
            return Err(corrupt("count", "1..=256", count.into()).into());
        }
        left = left.checked_sub(12).ok_or_else(|| corrupt("file_size", "room for a header", left.into()))?;
        for _ in 0..count {
            let offset = cursor.u16()?;
            let _inode_number = cursor.u16()?;
            let kind = match cursor.u16()? {
                1 => FileKind::Directory,
                2 => FileKind::Regular,
                3 => FileKind::Symlink,
                4 => FileKind::BlockDevice,
                5 => FileKind::CharDevice,
                6 => FileKind::Fifo,
                7 => FileKind::Socket,
                other => return Err(corrupt("type", "1..=7", other.into()).into()),
            };
            let length = usize::from(cursor.u16()?).saturating_add(1);
            if length > MAX_NAME {
                return Err(corrupt("size", "1..=256", crate::number::wide(length)).into());
            }
            let used = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(8);
            left = left
                .checked_sub(used)
                .ok_or_else(|| corrupt("file_size", "room for an entry", left.into()))?;
            let name = cursor.take(length)?;
            if name.contains(&b'/') || name.contains(&0) {
                return Err(Corrupt::new(NAME, at, "name", "no slash and no NUL", name.escape_ascii()).into());
            }
            entries.push(DirEntry {
                name,
                inode: to_inode(u64::from(block) << 16 | u64::from(offset)),
                kind,
            });
        }
    }
    Ok(entries)
}

/// A reference into the table of inodes as a number; 0, which is a reference, is no inode for many.
pub(crate) fn to_inode(reference: u64) -> Inode {
    Inode(reference.saturating_add(1))
}

/// The reference that a number stands for.
pub(crate) fn to_reference(inode: Inode) -> u64 {
    inode.0.saturating_sub(1)
}
