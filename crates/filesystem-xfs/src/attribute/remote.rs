//! A large attribute value: blocks of the attribute fork that hold nothing else.
//!
//! XFS Algorithms & Data Structures, "Remote Attribute Values". On version 5 every block has a header.

use ondisk::Result;

use super::read_block;
use crate::Xfs;
use crate::inode::Fork;
use crate::number::index;
use crate::span::{Checked, Span};
use crate::stamp::Stamp;

const MAGIC: [u8; 4] = *b"XARM";
const HEADER: usize = 56;

/// The value of `length` bytes (checked by the caller) that starts at block `first`.
pub(super) fn read(xfs: &Xfs, fork: &Fork<'_>, first: u32, length: u32) -> Result<Vec<u8>> {
    let length = index(length);
    let mut value = Vec::with_capacity(length);
    let mut at = first;
    while value.len() < length {
        let missing = length.saturating_sub(value.len());
        let (offset, bytes) = read_block(xfs, fork, at)?;
        let span = Span::new("attribute value block", offset, &bytes);
        let content = match xfs.superblock.features.crc {
            true => {
                let room = bytes.len().saturating_sub(HEADER);
                check_header(xfs, fork, &span, value.len(), missing.min(room))?;
                span.slice(HEADER, missing.min(room), "rm_bytes")?
            }
            false => span.slice(0, missing.min(bytes.len()), "valuelen")?,
        };
        value.extend_from_slice(content);
        at = at.saturating_add(1);
    }
    Ok(value)
}

/// Checks the header of a block that should hold `length` bytes of the value from byte `done` on.
fn check_header(xfs: &Xfs, fork: &Fork<'_>, span: &Span<'_>, done: usize, length: usize) -> Checked<()> {
    let magic: [u8; 4] = span.value(0, "rm_magic")?;
    if magic != MAGIC {
        return Err(span.corrupt("rm_magic", MAGIC.escape_ascii(), magic.escape_ascii()));
    }
    Stamp::REMOTE.check(span, xfs.superblock.meta_uuid, fork.inode)?;
    let (offset, bytes) = (index(span.u32(4, "rm_offset")?), index(span.u32(8, "rm_bytes")?));
    if offset != done {
        return Err(span.corrupt("rm_offset", done, offset));
    }
    if bytes != length {
        return Err(span.corrupt("rm_bytes", length, bytes));
    }
    Ok(())
}
