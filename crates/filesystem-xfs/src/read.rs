//! [`FileSystem`] for XFS.

use std::ops::ControlFlow;

use filesystem::{DirEntry, FileKind, FileSystem, FileSystemMut, FsInfo, Inode, Metadata};
use ondisk::{Error, Result};

use crate::inode::{DiskInode, Fork, flags};
use crate::mapping::{Place, run_at};
use crate::number::wide;
use crate::{Xfs, attribute, directory, symlink};

impl FileSystem for Xfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        Inode(self.superblock.root)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let ignore_case = self.superblock.features.ignores_case();
        let inode = DiskInode::read(self, dir.0)?;
        let mut found = None;
        directory::for_each_entry(self, &inode, &mut |entry| {
            if entry.name == name || (ignore_case && directory::is_same_name(entry.name, name)) {
                found = Some(Inode(entry.inode));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        DiskInode::read(self, inode.0)?.metadata(self.superblock.geometry.block_log)
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let inode = DiskInode::read(self, dir.0)?;
        let mut entries = Vec::new();
        directory::for_each_entry(self, &inode, &mut |entry| {
            let (name, inode) = (entry.name.to_vec(), Inode(entry.inode));
            entries.push(DirEntry { name, inode, kind: entry.kind });
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inode = DiskInode::read(self, file.0)?;
        if inode.kind() != FileKind::Regular {
            return Err(inode.span().corrupt("di_mode", "a regular file", inode.core.di_mode.get()).into());
        }
        if inode.core.di_flags.get() & flags::REALTIME != 0 {
            return Err(Error::unsupported("inode", "a file on the realtime device"));
        }
        let available = usize::try_from(inode.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = available.min(buf.len());
        let Some(buf) = buf.get_mut(..length) else { return Ok(0) };
        read_fork(self, &inode.data_fork()?, buf, offset)?;
        Ok(length)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        symlink::target(self, &DiskInode::read(self, link.0)?)
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = attribute::read(self, &DiskInode::read(self, inode.0)?, Some(name))?;
        Ok(found.into_iter().next().map(|(_, value)| value))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        attribute::read(self, &DiskInode::read(self, inode.0)?, None)
    }

    fn writable(&self) -> Option<&dyn FileSystemMut> {
        self.device.writable().is_some().then_some(self)
    }
}

/// Fills `buf` from byte `offset` of a fork; what was never written reads as zeros.
fn read_fork(xfs: &Xfs, fork: &Fork<'_>, buf: &mut [u8], offset: u64) -> Result<()> {
    let geometry = &xfs.superblock.geometry;
    let block_size = wide(geometry.block_size());
    let mut rest = buf;
    let mut at = offset;
    while !rest.is_empty() {
        let block = at >> geometry.block_log;
        let skip = at & block_size.wrapping_sub(1);
        let run = run_at(xfs, fork, block)?;
        let held = geometry.bytes(run.count).saturating_sub(skip);
        let length = usize::try_from(held).unwrap_or(usize::MAX).min(rest.len());
        let (piece, after) = rest.split_at_mut(length);
        match run.place {
            Place::Hole | Place::Unwritten(_) => piece.fill(0),
            Place::Written(block) => {
                let start = geometry
                    .byte(block)
                    .ok_or_else(|| fork.span.corrupt("br_startblock", "a block within the device", block))?;
                let offset = start.saturating_add(skip);
                xfs.device.read_exact_at(piece, offset).map_err(|source| Error::Io {
                    offset,
                    length: wide(length),
                    source,
                })?;
            }
        }
        rest = after;
        at = at.saturating_add(wide(length));
    }
    Ok(())
}
