//! Symlink: a target in the inode, or in blocks of its own.
//!
//! XFS Algorithms & Data Structures, "Symbolic Links". On version 5 each extent of a target starts with a
//! header, and its checksum covers the whole extent; on version 4 the blocks hold nothing but the target.

use filesystem::FileKind;
use ondisk::{Result, read_bytes};

use crate::Xfs;
use crate::inode::{DiskInode, Fork, Format};
use crate::mapping::{Place, run_at};
use crate::number::{index, wide};
use crate::span::{Checked, Span};
use crate::stamp::Stamp;

const MAGIC: [u8; 4] = *b"XSLM";
const HEADER: usize = 56;
/// The longest target that XFS stores, in bytes.
const LONGEST: u64 = 1024;

/// The target of `link`.
pub(crate) fn target(xfs: &Xfs, link: &DiskInode) -> Result<Vec<u8>> {
    if link.kind() != FileKind::Symlink {
        return Err(link.span().corrupt("di_mode", "a symlink", link.core.di_mode.get()).into());
    }
    let length = link.size();
    if length == 0 || length > LONGEST {
        return Err(link.span().corrupt("di_size", format_args!("1..={LONGEST}"), length).into());
    }
    let fork = link.data_fork()?;
    match fork.format {
        Format::Local => Ok(fork.local(length)?.to_vec()),
        _ => remote(xfs, &fork, usize::try_from(length).unwrap_or(usize::MAX)),
    }
}

fn remote(xfs: &Xfs, fork: &Fork<'_>, length: usize) -> Result<Vec<u8>> {
    let geometry = &xfs.superblock.geometry;
    let header = if xfs.superblock.features.crc { HEADER } else { 0 };
    let per_block = wide(geometry.block_size().saturating_sub(header)).max(1);
    // As many as the writer reserved: it counts one header for each block, even where blocks are contiguous.
    let blocks = wide(length).div_ceil(per_block);
    let mut target = Vec::with_capacity(length);
    let mut at = 0;
    while target.len() < length {
        let missing = length.saturating_sub(target.len());
        let run = run_at(xfs, fork, at)?;
        let Place::Written(block) = run.place else {
            return Err(fork.span.corrupt("br_startoff", "blocks for the whole target", missing).into());
        };
        let count = run.count.min(blocks.saturating_sub(at)).max(1);
        let offset = geometry
            .byte(block)
            .ok_or_else(|| fork.span.corrupt("br_startblock", "a block within the device", block))?;
        let bytes_length = usize::try_from(geometry.bytes(count)).unwrap_or(usize::MAX);
        let bytes = read_bytes(&*xfs.device, offset, bytes_length)?;
        let span = Span::new("symlink block", offset, &bytes);
        let held = match header {
            0 => bytes.len().min(missing),
            _ => check_header(xfs, fork, &span, target.len(), missing)?,
        };
        target.extend_from_slice(span.slice(header, held, "sl_bytes")?);
        at = at.saturating_add(count);
    }
    Ok(target)
}

/// Checks the header of one extent; returns how many bytes of the target follow it.
fn check_header(xfs: &Xfs, fork: &Fork<'_>, span: &Span<'_>, done: usize, missing: usize) -> Checked<usize> {
    let magic: [u8; 4] = span.value(0, "sl_magic")?;
    if magic != MAGIC {
        return Err(span.corrupt("sl_magic", MAGIC.escape_ascii(), magic.escape_ascii()));
    }
    Stamp::REMOTE.check(span, xfs.superblock.meta_uuid, fork.inode)?;
    let (offset, length) = (index(span.u32(4, "sl_offset")?), index(span.u32(8, "sl_bytes")?));
    if offset != done {
        return Err(span.corrupt("sl_offset", done, offset));
    }
    if length == 0 || length > missing {
        return Err(span.corrupt("sl_bytes", format_args!("1..={missing}"), length));
    }
    Ok(length)
}
