//! Directories: names and the inodes they stand for.
//!
//! XFS Algorithms & Data Structures, "Directories". A small directory lives in its inode; a larger one in
//! blocks that hold entries, followed by an index of hashes. Only the entries are read here: the index adds
//! speed and can be wrong, the entries are the truth that `xfs_repair` rebuilds it from.

mod block;
mod inline;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use filesystem::FileKind;
use ondisk::Result;

use crate::Xfs;
use crate::geometry::FsBlock;
use crate::inode::{DiskInode, Fork, Format};
use crate::mapping::{Place, run_at};
use crate::span::{Checked, Span};

/// The index starts at this byte of a directory's address space; entries come before it.
const INDEX_AT: u64 = 32 << 30;

/// One entry as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u64,
    pub(crate) kind: FileKind,
}

/// Sees one entry after the other, and may end the walk.
pub(crate) type Visit<'a> = dyn FnMut(Entry<'_>) -> ControlFlow<()> + 'a;

/// Shows `visit` the entries of `directory` in on-disk order, without `.` and `..`.
pub(crate) fn for_each_entry(xfs: &Xfs, directory: &DiskInode, visit: &mut Visit<'_>) -> Result<()> {
    if directory.kind() != FileKind::Directory {
        return Err(directory.span().corrupt("di_mode", "a directory", directory.core.di_mode.get()).into());
    }
    let fork = directory.data_fork()?;
    match fork.format {
        Format::Local => {
            let bytes = fork.local(directory.size())?;
            let span = Span { structure: "short-form directory", bytes, ..fork.span };
            Ok(inline::for_each_entry(&span, xfs.superblock.features.has_file_type(), visit)?)
        }
        _ => for_each_block(xfs, directory, &fork, visit),
    }
}

fn for_each_block(xfs: &Xfs, directory: &DiskInode, fork: &Fork<'_>, visit: &mut Visit<'_>) -> Result<()> {
    let geometry = &xfs.superblock.geometry;
    let most = INDEX_AT.min(geometry.size());
    if directory.size() > most {
        let expected = format!("at most {most}");
        return Err(directory.span().corrupt("di_size", expected, directory.size()).into());
    }
    let unit = 1_u64 << geometry.dir_block_log;
    let end = geometry.blocks_for(directory.size());
    let mut seen = Seen::default();
    let mut at = 0;
    while at < end {
        let run = run_at(xfs, fork, at)?;
        if run.place == Place::Hole {
            at = at.saturating_add(run.count);
            if at < end && !at.is_multiple_of(unit) {
                let expected = format!("whole directory blocks of {unit} blocks");
                return Err(fork.span.corrupt("br_startoff", expected, at).into());
            }
            continue;
        }
        let (offset, bytes) = read_block(xfs, fork, at, &mut seen)?;
        let span = Span::new("directory block", offset, &bytes);
        if block::for_each_entry(xfs, directory.number, &span, visit)?.is_break() {
            return Ok(());
        }
        at = at.saturating_add(unit);
    }
    Ok(())
}

/// Reads the directory block at file block `at`, which may lie in several pieces; the offset is that of the
/// first one.
fn read_block(xfs: &Xfs, fork: &Fork<'_>, at: u64, seen: &mut Seen) -> Result<(u64, Vec<u8>)> {
    let geometry = &xfs.superblock.geometry;
    let mut bytes = vec![0; geometry.dir_block_size()];
    let mut first = None;
    for (piece, at) in bytes.chunks_mut(geometry.block_size()).zip(at..) {
        let Place::Written(block) = run_at(xfs, fork, at)?.place else {
            let expected = "written blocks for the whole directory block";
            return Err(fork.span.corrupt("br_startoff", expected, format_args!("none at {at}")).into());
        };
        if !seen.add(block) {
            return Err(fork.span.corrupt("br_startblock", "blocks used once", block).into());
        }
        let offset =
            geometry.byte(block).ok_or_else(|| fork.span.corrupt("br_startblock", "a block", block))?;
        let length = crate::number::wide(piece.len());
        xfs.device.read_exact_at(piece, offset).map_err(|source| ondisk::Error::Io {
            offset,
            length,
            source,
        })?;
        first.get_or_insert(offset);
    }
    Ok((first.unwrap_or_default(), bytes))
}

/// The device blocks that a walk has read: a damaged directory may name one block for many places, and its
/// entries must not be listed for each.
#[derive(Debug, Default)]
struct Seen {
    /// Runs by their first block, with the block after their last.
    runs: BTreeMap<u64, u64>,
}

impl Seen {
    /// Notes `block`; `false` when it was noted before.
    fn add(&mut self, block: FsBlock) -> bool {
        let next = block.0.saturating_add(1);
        match self.runs.range_mut(..=block.0).next_back() {
            Some((_, end)) if *end > block.0 => return false,
            Some((_, end)) if *end == block.0 => *end = next,
            _ => {
                self.runs.insert(block.0, next);
            }
        }
        true
    }
}

/// The kind that an entry stores.
fn kind(file_type: u8) -> FileKind {
    match file_type {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => FileKind::Unknown,
    }
}

/// Whether two names are the same with the feature `ascii-ci`, which in spite of its name folds ISO 8859-1.
pub(crate) fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    let fold = |byte: &u8| match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte | 0x20,
        _ => *byte,
    };
    a.iter().map(fold).eq(b.iter().map(fold))
}

/// A name that no path can hold must not reach anyone who builds paths.
fn check_name(span: &Span<'_>, name: &[u8]) -> Checked<()> {
    if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(span.corrupt("name", "bytes other than NUL and '/', at least one", name.escape_ascii()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_case() {
        assert!(is_same_name(b"Grub.CFG", b"gRUB.cfg"));
        assert!(is_same_name(b"\xc4\xd6\xdc", b"\xe4\xf6\xfc"));
        for (a, b) in [(&b"a"[..], &b"ab"[..]), (b"\xd7", b"\xf7"), (b"@", b"`"), (b"\xdf", b"\xff")] {
            assert!(!is_same_name(a, b));
        }
    }

    #[test]
    fn a_block_is_seen_once() {
        let mut seen = Seen::default();
        for block in [5, 6, 7, 100, 4, 99] {
            assert!(seen.add(FsBlock(block)));
        }
        for block in [4, 5, 6, 7, 99, 100] {
            assert!(!seen.add(FsBlock(block)));
        }
        assert!(seen.add(FsBlock(8)));
        assert_eq!(seen.runs.len(), 4);
    }
}
