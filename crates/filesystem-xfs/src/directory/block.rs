//! Directory block: a header, then entries and free space in any order.
//!
//! XFS Algorithms & Data Structures, "Block Directories" and "Leaf Directories". A directory of one block
//! keeps its hash index at the end of that block; its magic number says so.

use std::ops::ControlFlow;

use super::{Entry, Visit, check_name, kind};
use crate::Xfs;
use crate::number::index;
use crate::span::{Checked, Span};
use crate::stamp::Stamp;

/// A block with its index at the end, version 4 and 5.
const SINGLE: [[u8; 4]; 2] = [*b"XD2B", *b"XDB3"];
/// A block of entries only, version 4 and 5.
const MANY: [[u8; 4]; 2] = [*b"XD2D", *b"XDD3"];
/// Where an inode number would start with these two bytes, free space starts.
const FREE_TAG: u16 = 0xffff;

/// Shows `visit` every entry but `.` and `..`.
pub(super) fn for_each_entry(
    xfs: &Xfs,
    owner: u64,
    span: &Span<'_>,
    visit: &mut Visit<'_>,
) -> Checked<ControlFlow<()>> {
    let crc = xfs.superblock.features.crc;
    let is_single = check_magic(span, crc)?;
    if crc {
        Stamp::DIRECTORY.check(span, xfs.superblock.meta_uuid, owner)?;
    }
    let start = if crc { 64 } else { 16 };
    let end = if is_single { index_start(span)? } else { span.bytes.len() };
    entries(span, start..end, xfs.superblock.features.has_file_type(), visit)
}

/// Whether the block keeps the index of its directory.
fn check_magic(span: &Span<'_>, crc: bool) -> Checked<bool> {
    let found: [u8; 4] = span.value(0, "magic")?;
    let version = usize::from(crc);
    let (single, many) = (SINGLE.get(version), MANY.get(version));
    if Some(&found) == single || Some(&found) == many {
        return Ok(Some(&found) == single);
    }
    let expected = if crc { "\"XDB3\" or \"XDD3\"" } else { "\"XD2B\" or \"XD2D\"" };
    Err(span.corrupt("magic", expected, found.escape_ascii()))
}

/// Byte where the index begins: its length is in the last 8 bytes of the block, 8 bytes an item.
fn index_start(span: &Span<'_>) -> Checked<usize> {
    let tail = span.bytes.len().saturating_sub(8);
    let count = span.u32(tail, "btp_count")?;
    index(count)
        .checked_mul(8)
        .and_then(|length| tail.checked_sub(length))
        .ok_or_else(|| span.corrupt("btp_count", format_args!("at most {}", tail / 8), count))
}

fn entries(
    span: &Span<'_>,
    range: std::ops::Range<usize>,
    has_file_type: bool,
    visit: &mut Visit<'_>,
) -> Checked<ControlFlow<()>> {
    let mut at = range.start;
    while at < range.end {
        let length = if span.u16(at, "freetag")? == FREE_TAG {
            usize::from(span.u16(at.saturating_add(2), "length")?)
        } else {
            let (entry, length) = entry(span, at, has_file_type)?;
            let is_own = matches!(entry.name, b"." | b"..");
            if !is_own && visit(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            length
        };
        let room = range.end.saturating_sub(at);
        if length == 0 || length % 8 != 0 || length > room {
            return Err(span.corrupt("length", format_args!("a multiple of 8 in 8..={room}"), length));
        }
        at = at.saturating_add(length);
    }
    Ok(ControlFlow::Continue(()))
}

/// The entry at byte `at`, and its length on disk.
fn entry<'a>(span: &Span<'a>, at: usize, has_file_type: bool) -> Checked<(Entry<'a>, usize)> {
    let inode = span.u64(at, "inumber")?;
    let name_length = usize::from(span.u8(at.saturating_add(8), "namelen")?);
    let name_at = at.saturating_add(9);
    let name = span.slice(name_at, name_length, "name")?;
    check_name(span, name)?;
    let after_name = name_at.saturating_add(name_length);
    let kind = match has_file_type {
        true => kind(span.u8(after_name, "ftype")?),
        false => kind(0),
    };
    // The tag, 2 bytes, ends the entry: its own offset within the block.
    let length = name_length.saturating_add(11).saturating_add(usize::from(has_file_type));
    let length = length.next_multiple_of(8);
    let tag_at = at.saturating_add(length).saturating_sub(2);
    let tag = span.u16(tag_at, "tag")?;
    if usize::from(tag) != at {
        return Err(span.corrupt("tag", at, tag));
    }
    Ok((Entry { name, inode, kind }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: &[u8]) -> Checked<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let _ = entries(&Span::new("test", 0, bytes), 0..bytes.len(), true, &mut |entry| {
            found.push(entry.name.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// `.`, 8 bytes of free space, `name`.
    const SOUND: &[u8] = b"\0\0\0\0\0\0\0\x80\x01.\x02\0\0\0\0\0\
        \xff\xff\0\x08\0\0\0\x10\
        \0\0\0\0\0\0\0\x81\x04name\x01\0\x18";

    #[test]
    fn free_space_and_own_names_are_skipped() {
        assert_eq!(list(SOUND).unwrap(), [b"name".to_vec()]);
    }

    #[test]
    fn damage_is_named() {
        let field = |at: usize, byte: u8| {
            let mut bytes = SOUND.to_vec();
            bytes[at] = byte;
            list(&bytes).unwrap_err().field
        };
        assert_eq!(field(19, 0), "length");
        assert_eq!(field(19, 7), "length");
        assert_eq!(field(18, 0xff), "length");
        assert_eq!(field(32, 0), "name");
        assert_eq!(field(32, 255), "name");
        assert_eq!(field(33, b'/'), "name");
        assert_eq!(field(39, 0x10), "tag");
    }
}
