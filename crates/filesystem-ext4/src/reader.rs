//! [`FileSystem`] over the structures of this crate.

use std::ops::ControlFlow;
use std::sync::Mutex;

use blockdev::Device;
use filesystem::{DirEntry, FileKind, FileSystem, FileSystemMut, FsInfo, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Parsed, Result};

use crate::disk::Disk;
use crate::features::incompat;
use crate::inode::{self, Inode, flags};
use crate::units::{FsBlock, to_usize};
use crate::{content, directory, writer, xattr};

/// An open ext2, ext3 or ext4 file system.
#[derive(Debug)]
pub struct Ext4 {
    disk: Disk,
    info: FsInfo,
    /// Held while the file system is changed: a change reads, decides, and then writes.
    change: Mutex<()>,
}

impl Ext4 {
    /// Opens the file system as it is on the device; its journal is not looked at.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when the superblock cannot be understood; `Unsupported` with the names of the features
    /// that this code cannot read. Damage that leaves files readable is a problem instead.
    pub fn open(device: Device) -> Result<Parsed<Self>> {
        let Parsed { value: disk, mut problems } = Disk::open(device)?;
        problems.extend(disk.group_problems());
        let superblock = &disk.superblock;
        let info = FsInfo {
            kind: superblock.features.kind(),
            uuid: superblock.uuid.map(|uuid| uuid.to_string()),
            label: superblock.label.clone(),
            block_size: u32::try_from(superblock.block_size.bytes()).unwrap_or(u32::MAX),
            size: superblock.size(),
            free: Some(superblock.block_size.offset_of(FsBlock(superblock.free_blocks))),
            needs_recovery: superblock.features.has_incompat(incompat::RECOVER),
            features: superblock.features.names(),
        };
        Ok(Parsed { value: Self { disk, info, change: Mutex::new(()) }, problems })
    }

    fn inode(&self, inode: filesystem::Inode) -> Result<Inode> {
        self.disk.inode(self.number(inode)?)
    }

    fn inode_of_kind(&self, inode: filesystem::Inode, kind: FileKind, name: &'static str) -> Result<Inode> {
        self.disk.inode_of_kind(self.number(inode)?, kind, name)
    }

    fn number(&self, inode: filesystem::Inode) -> Result<u32> {
        inode::number(inode, &self.disk.superblock).ok_or_else(|| {
            let expected = format!("1..={}", self.disk.superblock.inodes);
            Corrupt::new(inode::STRUCTURE, 0, "number", expected, inode.0).into()
        })
    }

    fn entry(&self, entry: &crate::dir_block::Entry<'_>) -> DirEntry {
        let has_kinds = self.disk.superblock.features.has_incompat(incompat::FILETYPE);
        DirEntry {
            name: entry.name.to_vec(),
            inode: filesystem::Inode(entry.inode.into()),
            kind: if has_kinds { entry.kind() } else { FileKind::Unknown },
        }
    }
}

fn refuse_encrypted(inode: &Inode) -> Result<()> {
    if inode.has_flag(flags::ENCRYPT) {
        return Err(Error::unsupported("inode", "encrypted content"));
    }
    Ok(())
}

impl FileSystem for Ext4 {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> filesystem::Inode {
        filesystem::Inode(inode::ROOT.into())
    }

    fn lookup(&self, dir: filesystem::Inode, name: &[u8]) -> Result<Option<filesystem::Inode>> {
        let inode = self.inode_of_kind(dir, FileKind::Directory, "a directory")?;
        let mut found = None;
        directory::walk(&self.disk, &inode, &mut |entry| {
            if entry.name != name {
                return ControlFlow::Continue(());
            }
            found = Some(filesystem::Inode(entry.inode.into()));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn metadata(&self, inode: filesystem::Inode) -> Result<Metadata> {
        let inode = self.inode(inode)?;
        let superblock = &self.disk.superblock;
        let kind = inode.kind();
        let is_node = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Ok(Metadata {
            kind,
            permissions: u32::from(inode.raw.i_mode.get()) & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            links: inode.raw.i_links_count.get().into(),
            size: inode.size,
            allocated: inode.allocated_units(superblock).saturating_mul(inode.allocation_unit(superblock)),
            device: if is_node { inode.device() } else { (0, 0) },
            modified: inode.modified(),
            changed: inode.changed(),
            accessed: inode.accessed(),
        })
    }

    /// Names in an encrypted directory are the bytes that are stored, not what a user with the key would see.
    fn read_dir(&self, dir: filesystem::Inode) -> Result<Vec<DirEntry>> {
        let inode = self.inode_of_kind(dir, FileKind::Directory, "a directory")?;
        let mut entries = Vec::new();
        directory::walk(&self.disk, &inode, &mut |entry| {
            entries.push(self.entry(&entry));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    fn read_at(&self, file: filesystem::Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inode = self.inode_of_kind(file, FileKind::Regular, "a regular file")?;
        refuse_encrypted(&inode)?;
        content::read_at(&self.disk, &inode, buf, offset)
    }

    fn read_link(&self, link: filesystem::Inode) -> Result<Vec<u8>> {
        let inode = self.inode_of_kind(link, FileKind::Symlink, "a symlink")?;
        refuse_encrypted(&inode)?;
        let max = self.disk.superblock.block_size.bytes();
        if inode.size > max {
            let expected = format!("up to {max} for a symlink");
            return Err(Corrupt::new(inode::STRUCTURE, inode.offset, "i_size", expected, inode.size).into());
        }
        if is_fast_symlink(&inode) {
            let target = inode.raw.i_block.get(..to_usize(inode.size)).unwrap_or_default();
            return Ok(target.to_vec());
        }
        let mut target = vec![0; to_usize(inode.size)];
        content::read_at(&self.disk, &inode, &mut target, 0)?;
        Ok(target)
    }

    fn xattrs(&self, inode: filesystem::Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        xattr::list(&self.disk, &self.inode(inode)?)
    }

    fn writable(&self) -> Option<&dyn FileSystemMut> {
        self.disk.device.writable().map(|_| {
            let writable: &dyn FileSystemMut = self;
            writable
        })
    }
}

/// Whether the target lies in `i_block` itself: it is shorter than that, and nothing says otherwise.
fn is_fast_symlink(inode: &Inode) -> bool {
    !inode.has_flag(flags::INLINE_DATA)
        && !inode.has_flag(flags::EXTENTS)
        && usize::try_from(inode.size).is_ok_and(|size| size < inode.raw.i_block.len())
}

impl FileSystemMut for Ext4 {
    fn replace(&self, file: filesystem::Inode, content: &[u8], now: Timestamp) -> Result<()> {
        let _alone = self.change.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer::replace(&self.disk.device, self.number(file)?, content, now)
    }
}
