//! Short-form directory: all entries inside the inode.
//!
//! XFS Algorithms & Data Structures, "Short Form Directories". A header (entry count, count of entries that
//! need 8 bytes for their inode, inode of the parent), then packed entries. Inode numbers take 8 bytes when
//! any of them needs to, else 4.

use super::{Entry, Visit, check_name, kind};
use crate::span::{Checked, Span};

/// Shows `visit` every entry; `.` and `..` are not stored.
pub(super) fn for_each_entry(span: &Span<'_>, has_file_type: bool, visit: &mut Visit<'_>) -> Checked<()> {
    let (number_size, entries_at) = if span.u8(1, "i8count")? == 0 { (4, 6) } else { (8, 10) };
    let mut cursor = Cursor { span, at: entries_at };
    for _ in 0..span.u8(0, "count")? {
        let name_length = usize::from(cursor.take(1, "namelen")?.u8(0, "namelen")?);
        cursor.take(2, "offset")?;
        let name = cursor.take(name_length, "name")?.bytes;
        let kind = match has_file_type {
            true => kind(cursor.take(1, "ftype")?.u8(0, "ftype")?),
            false => kind(0),
        };
        let number = cursor.take(number_size, "inumber")?;
        let inode = match number_size {
            4 => u64::from(number.u32(0, "inumber")?),
            _ => number.u64(0, "inumber")?,
        };
        check_name(span, name)?;
        if visit(Entry { name, inode, kind }).is_break() {
            break;
        }
    }
    Ok(())
}

/// A place in the packed entries.
struct Cursor<'a> {
    span: &'a Span<'a>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Checked<Span<'a>> {
        let end = self.at.saturating_add(length);
        let part = self.span.part(self.at..end, field)?;
        self.at = end;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use filesystem::FileKind;

    use super::*;

    /// Parent 128; `grub` (directory, inode 131) and `x` (file, inode 132), with file types.
    const TWO: &[u8] = b"\x02\x00\0\0\0\x80\x04\0\x60grub\x02\0\0\0\x83\x01\0\x78x\x01\0\0\0\x84";

    fn list(bytes: &[u8], has_file_type: bool) -> Checked<Vec<(Vec<u8>, u64, FileKind)>> {
        let mut found = Vec::new();
        for_each_entry(&Span::new("test", 0, bytes), has_file_type, &mut |entry| {
            found.push((entry.name.to_vec(), entry.inode, entry.kind));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    #[test]
    fn both_widths_of_inode_numbers() {
        let expected =
            [(b"grub".to_vec(), 131, FileKind::Directory), (b"x".to_vec(), 132, FileKind::Regular)];
        assert_eq!(list(TWO, true).unwrap(), expected);
        let wide = b"\x01\x01\0\0\0\0\0\0\0\x80\x01\0\x60y\0\0\0\x01\0\0\0\x05";
        assert_eq!(list(wide, false).unwrap(), [(b"y".to_vec(), 1 << 32 | 5, FileKind::Unknown)]);
    }

    #[test]
    fn damage_is_named() {
        for cut in 0..TWO.len() {
            assert!(list(&TWO[..cut], true).is_err(), "cut at {cut}");
        }
        let mut slash = TWO.to_vec();
        slash[10] = b'/';
        assert_eq!(list(&slash, true).unwrap_err().field, "name");
        let mut long = TWO.to_vec();
        long[6] = 255;
        assert_eq!(list(&long, true).unwrap_err().field, "name");
    }
}
