//! The tables that are found by an index: owners, fragments, extended attributes.
//!
//! Each is a list of places of metadata blocks, which are full but for the last.

use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::block::{Blocks, Cursor};
use crate::number::index;
use crate::superblock::Superblock;

/// Attributes that one inode may have, names and values together.
const MAX_XATTRS: u32 = 1 << 16;
const MAX_VALUE: u32 = 1 << 16;
/// Set in the type of an attribute whose value lies elsewhere.
const OUT_OF_LINE: u16 = 0x100;

/// The table of attributes: where names and values begin, where the list is, how many entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Xattrs {
    names: u64,
    list: u64,
    count: u32,
}

/// A cursor at entry `number` of a table whose list begins at byte `list`, with `size` bytes an entry.
fn entry<'a>(blocks: &'a Blocks, list: u64, number: u32, size: u32) -> Result<Cursor<'a>> {
    // All sizes divide 8192.
    let each = 8192_u32.checked_div(size).unwrap_or(1).max(1);
    let block = number.checked_div(each).unwrap_or(0);
    let within = number.checked_rem(each).unwrap_or(0).saturating_mul(size);
    let at = list.saturating_add(u64::from(block).saturating_mul(8));
    let place = read_bytes(blocks.device().as_ref(), at, 8)?;
    let place = place.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(blocks.cursor(place, within.into()))
}

/// The user or group that `number` stands for.
pub(crate) fn id(blocks: &Blocks, superblock: &Superblock, number: u16) -> Result<u32> {
    if number >= superblock.ids {
        let expected = format!("below {}", superblock.ids);
        return Err(
            Corrupt::new("squashfs inode", superblock.id_table, "uid or gid", expected, number).into()
        );
    }
    entry(blocks, superblock.id_table, number.into(), 4)?.u32()
}

/// First byte and stored length of a fragment block.
pub(crate) fn fragment(blocks: &Blocks, superblock: &Superblock, number: u32) -> Result<(u64, u32)> {
    let Some(list) = superblock.fragment_table.filter(|_| number < superblock.fragments) else {
        let expected = format!("below {}", superblock.fragments);
        return Err(
            Corrupt::new("squashfs inode", superblock.inode_table, "fragment", expected, number).into()
        );
    };
    let mut cursor = entry(blocks, list, number, 16)?;
    Ok((cursor.u64()?, cursor.u32()?))
}

/// The head of the table of attributes.
pub(crate) fn xattrs(blocks: &Blocks, superblock: &Superblock) -> Result<Option<Xattrs>> {
    let Some(at) = superblock.xattr_table else { return Ok(None) };
    let head = read_bytes(blocks.device().as_ref(), at, 16)?;
    let names = head.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let count =
        head.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Ok(Some(Xattrs { names, list: at.saturating_add(16), count }))
}

/// All attributes of the inode whose entry is `number`.
pub(crate) fn read_xattrs(blocks: &Blocks, table: Xattrs, number: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let corrupt = |field, expected: &str, found: u64| {
        Error::from(Corrupt::new("squashfs extended attributes", table.list, field, expected, found))
    };
    if number >= table.count {
        return Err(corrupt("xattr", "an entry of the table", number.into()));
    }
    let mut cursor = entry(blocks, table.list, number, 16)?;
    let (reference, count, _size) = (cursor.u64()?, cursor.u32()?, cursor.u32()?);
    if count > MAX_XATTRS {
        return Err(corrupt("count", "65536 or less", count.into()));
    }
    let mut cursor = blocks.cursor(table.names, reference);
    let mut found = Vec::new();
    // Values of 64 KiB may be shared without end; so may their sum be asked for.
    let mut left: u32 = 64 << 20;
    for _ in 0..count {
        let kind = cursor.u16()?;
        let prefix: &[u8] = match kind & 0xff {
            0 => b"user.",
            1 => b"trusted.",
            2 => b"security.",
            other => return Err(Error::unsupported("squashfs extended attribute", format!("type {other}"))),
        };
        let length = cursor.u16()?;
        let name = [prefix, &cursor.take(length.into())?].concat();
        let length = cursor.u32()?;
        let value = if kind & OUT_OF_LINE == 0 {
            bounded(&mut cursor, length, &mut left)
        } else {
            let reference = cursor.u64()?;
            let mut elsewhere = blocks.cursor(table.names, reference);
            let length = elsewhere.u32()?;
            bounded(&mut elsewhere, length, &mut left)
        };
        found.push((name, value?.ok_or_else(|| corrupt("vsize", "65536 or less", length.into()))?));
    }
    Ok(found)
}

fn bounded(cursor: &mut Cursor<'_>, length: u32, left: &mut u32) -> Result<Option<Vec<u8>>> {
    match left.checked_sub(length).filter(|_| length <= MAX_VALUE) {
        Some(rest) => {
            *left = rest;
            cursor.take(index(length)).map(Some)
        }
        None => Ok(None),
    }
}
