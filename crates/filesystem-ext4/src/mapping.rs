//! The map from a file's blocks to the file system's, whichever of the two formats holds it.

use std::collections::HashSet;
use std::ops::Range;

use ondisk::{Corrupt, Result};

use crate::disk::Disk;
use crate::inode::{Inode, flags};
use crate::units::FsBlock;
use crate::{block_map, extent_tree};

/// Blocks of a file that lie side by side on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block, counted within the file.
    pub logical: u64,
    /// How many; at least one.
    pub length: u64,
    /// Where the first one lies.
    pub physical: FsBlock,
    /// Whether the blocks hold content; those that do not are reserved, and read as zeros.
    pub is_written: bool,
}

impl Run {
    /// The file block after the last.
    pub fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// The part that lies within `range`, if any.
    pub(crate) fn clipped(&self, range: &Range<u64>) -> Option<Self> {
        let logical = self.logical.max(range.start);
        let length = self.end().min(range.end).checked_sub(logical).filter(|length| *length > 0)?;
        let physical = self.physical.after(logical.saturating_sub(self.logical));
        Some(Self { logical, length, physical, is_written: self.is_written })
    }

    /// Takes `next` in, if it goes on where this run ends.
    pub fn join(&mut self, next: &Self) -> bool {
        let follows = next.logical == self.end()
            && next.physical == self.physical.after(self.length)
            && next.is_written == self.is_written;
        if follows {
            self.length = self.length.saturating_add(next.length);
        }
        follows
    }
}

/// What a walk through a map meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A block of the map itself: extent tree node or indirect block. Comes before what it maps.
    Node(FsBlock),
    /// Blocks of the file. Holes are left out.
    Run(Run),
}

/// Walks the part of the map that covers the file blocks `range`, ascending, and calls `visit` with every run,
/// cut to the range and as long as possible, and with every node on the way.
///
/// # Errors
/// Those of `visit`, `Io`, and `Corrupt` for a damaged map.
pub fn walk(
    disk: &Disk,
    inode: &Inode,
    range: Range<u64>,
    visit: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let mut last: Option<Run> = None;
    let mut nodes = HashSet::new();
    let mut joined = |piece: Piece| match piece {
        // A node that maps itself, or one that is used everywhere, would make a small map endless.
        Piece::Node(block) if !nodes.insert(block) => {
            let offset = disk.offset_of(block);
            Err(Corrupt::new("block map", offset, "use", "once in a file", "twice").into())
        }
        Piece::Node(_) => visit(piece),
        Piece::Run(run) => {
            let Some(run) = run.clipped(&range) else { return Ok(()) };
            if last.as_mut().is_some_and(|last| last.join(&run)) {
                return Ok(());
            }
            last.replace(run).map_or(Ok(()), |done| visit(Piece::Run(done)))
        }
    };
    if inode.has_flag(flags::EXTENTS) {
        extent_tree::walk(disk, inode, &range, &mut joined)?;
    } else {
        block_map::walk(disk, inode, &range, &mut joined)?;
    }
    last.map_or(Ok(()), |run| visit(Piece::Run(run)))
}

/// Calls `visit` with the runs that cover the file blocks `range`, as [`walk`] does.
///
/// # Errors
/// As [`walk`].
pub fn runs(
    disk: &Disk,
    inode: &Inode,
    range: Range<u64>,
    visit: &mut dyn FnMut(Run) -> Result<()>,
) -> Result<()> {
    walk(disk, inode, range, &mut |piece| match piece {
        Piece::Node(_) => Ok(()),
        Piece::Run(run) => visit(run),
    })
}
