//! [`FileSystem`] over the structures of this crate.

use std::ops::ControlFlow;
use std::sync::Mutex;

use blockdev::Device;
use filesystem::{DirEntry, FileKind, FileSystem, FileSystemMut, FsInfo, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Parsed, Result};

use crate::disk::Disk;
use crate::features::{compat, incompat};
use crate::inode::{self, Inode, flags};
use crate::journal::Journal;
use crate::superblock::RawSuperblock;
use crate::units::{FsBlock, to_usize};
use crate::{backup, content, directory, writer, xattr};

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
        let disk = disk.cached();
        problems.extend(disk.group_problems());
        if let Some(raw) = RawSuperblock::read(&*disk.device)? {
            problems.extend(backup::problems(&disk, &raw));
        }
        problems.extend(special_inode_problems(&disk));
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
        let inode = self.disk.inode(self.number(inode)?)?;
        judge_in_use(&inode)?;
        Ok(inode)
    }

    fn inode_of_kind(&self, inode: filesystem::Inode, kind: FileKind, name: &'static str) -> Result<Inode> {
        let inode = self.disk.inode_of_kind(self.number(inode)?, kind, name)?;
        judge_in_use(&inode)?;
        Ok(inode)
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

/// Refuses an inode that Linux would not hand out: of no known kind, without a name, or of two layouts at once.
fn judge_in_use(inode: &Inode) -> Result<(), Corrupt> {
    let corrupt =
        |field, expected, found: String| Corrupt::new(inode::STRUCTURE, inode.offset, field, expected, found);
    if inode.kind() == FileKind::Unknown {
        return Err(corrupt("i_mode", "a kind of file", format!("{:#o}", inode.raw.i_mode)));
    }
    if inode.raw.i_links_count.get() == 0 {
        return Err(corrupt("i_links_count", "at least 1", "0".into()));
    }
    if inode.has_flag(flags::INLINE_DATA) && inode.has_flag(flags::EXTENTS) {
        let expected = "inline data or extents, not both";
        return Err(corrupt("i_flags", expected, format!("{:#x}", inode.raw.i_flags)));
    }
    Ok(())
}

/// What is wrong with the root directory and the journal, without which the kernel does not mount.
fn special_inode_problems(disk: &Disk) -> Vec<Error> {
    let root = disk.inode_of_kind(inode::ROOT, FileKind::Directory, "the root directory");
    let root = root.and_then(|inode| Ok(judge_in_use(&inode)?));
    let journal = match disk.superblock.journal_inode {
        Some(number) => Journal::open(disk, number).map(|_| ()).map_err(|error| match error {
            Error::Corrupt(mut corrupt) => {
                corrupt.expected.push_str(", in the journal");
                Error::Corrupt(corrupt)
            }
            other => other,
        }),
        None if disk.superblock.features.has_compat(compat::HAS_JOURNAL) => {
            Err(Error::unsupported("superblock", "a journal on another device (s_journal_dev)"))
        }
        None => Ok(()),
    };
    [root, journal].into_iter().filter_map(Result::err).collect()
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
        // A NUL follows the target, so a whole block is too long.
        let max = self.disk.superblock.block_size.bytes().saturating_sub(1);
        let corrupt = |expected: String, found: u64| {
            Corrupt::new(inode::STRUCTURE, inode.offset, "i_size", expected, found)
        };
        if inode.size > max || inode.size == 0 {
            return Err(corrupt(format!("1..={max} for a symlink"), inode.size).into());
        }
        let length = to_usize(inode.size);
        let mut stored = if is_fast_symlink(&inode) {
            inode.raw.i_block.to_vec()
        } else if inode.has_flag(flags::INLINE_DATA) {
            content::inline(&inode)?
        } else {
            // What follows the target must be the NUL that ends it.
            let mut target = vec![0; length.saturating_add(1)];
            let mut longer = inode.clone();
            longer.size = inode.size.saturating_add(1);
            content::read_at(&self.disk, &longer, &mut target, 0)?;
            target
        };
        let end = stored.iter().position(|byte| *byte == 0).unwrap_or(stored.len());
        if end != length {
            return Err(corrupt(format!("{end}, where the target ends"), inode.size).into());
        }
        stored.truncate(length);
        Ok(stored)
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
        let replaced = writer::replace(&self.disk.device, self.number(file)?, content, now);
        self.disk.forget();
        replaced
    }
}
