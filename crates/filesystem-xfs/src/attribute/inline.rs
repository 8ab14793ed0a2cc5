//! Short-form attributes: all inside the inode.
//!
//! XFS Algorithms & Data Structures, "Short Form Attributes". A header (total size in bytes, entry count),
//! then packed entries: name length, value length, flags, name, value.

use ondisk::Result;

use super::{Entry, Value};
use crate::span::{Checked, Span};

const HEADER: usize = 4;

/// Shows `add` every attribute of the fork.
pub(super) fn for_each(span: &Span<'_>, mut add: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
    let total = usize::from(span.u16(0, "totsize")?);
    let span = span.part(0..total, "totsize")?;
    let mut at = HEADER;
    for _ in 0..span.u8(2, "count")? {
        let (entry, next) = entry(&span, at)?;
        add(entry)?;
        at = next;
    }
    Ok(())
}

/// The entry at byte `at`, and the byte after it.
fn entry<'a>(span: &Span<'a>, at: usize) -> Checked<(Entry<'a>, usize)> {
    let [name_length, value_length, flags]: [u8; 3] = span.value(at, "list")?;
    let name_at = at.saturating_add(3);
    let name = span.slice(name_at, usize::from(name_length), "namelen")?;
    let value_at = name_at.saturating_add(name.len());
    let value = span.slice(value_at, usize::from(value_length), "valuelen")?;
    let next = value_at.saturating_add(value.len());
    Ok((Entry { flags, name, value: Value::Here(value) }, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `security.selinux` with 3 bytes and `user.a` without any, then the unused rest of the fork.
    const TWO: &[u8] = b"\x00\x15\x02\x00\x07\x03\x04selinuxs:t\x01\x00\x00a\xff\xff\xff";

    fn names(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>> {
        let mut found = Vec::new();
        for_each(&Span::new("test", 0, bytes), |entry| {
            let Value::Here(value) = entry.value else { panic!("short-form values are here") };
            found.push((entry.flags, [entry.name, b"=", value].concat()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn two_attributes() {
        assert_eq!(names(TWO).unwrap(), [(4, b"selinux=s:t".to_vec()), (0, b"a=".to_vec())]);
        for cut in 0..0x15 {
            assert!(names(&TWO[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn one_bad_field_is_named() {
        let field = |at: usize, byte: u8| {
            let mut bytes = TWO.to_vec();
            bytes[at] = byte;
            names(&bytes).unwrap_err().as_corrupt().unwrap().field
        };
        assert_eq!(field(0, 1), "totsize");
        assert_eq!(field(2, 3), "list");
        assert_eq!(field(4, 255), "namelen");
        assert_eq!(field(5, 255), "valuelen");
    }
}
