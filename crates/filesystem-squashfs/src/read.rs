//! The reader: files are named by where their inodes lie.

use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use filesystem::{DirEntry, FileKind, FileSystem, FsInfo, Inode, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Result};

use crate::block::Blocks;
use crate::directory::{self, to_inode, to_reference};
use crate::inode::{self, Content, File};
use crate::number::{narrow, wide};
use crate::superblock::Superblock;
use crate::tables;

/// An open file system.
pub(crate) struct Squashfs {
    blocks: Blocks,
    superblock: Superblock,
    info: FsInfo,
    /// The file that was read last.
    last: Mutex<Option<(Inode, Arc<Layout>)>>,
}

/// Where each block of a file is.
struct Layout {
    file: File,
    /// First byte and stored length of each.
    blocks: Vec<(u64, u32)>,
}

impl Squashfs {
    pub(crate) fn new(device: Device, superblock: Superblock, info: FsInfo) -> Self {
        let blocks = Blocks::new(device, superblock.compression);
        Self { blocks, superblock, info, last: Mutex::default() }
    }

    /// What is wrong with the root directory and the tables, as far as opening looks.
    pub(crate) fn try_root(&self) -> Vec<Error> {
        let root = self.inode(self.root()).and_then(|inode| match inode.kind {
            FileKind::Directory => Ok(()),
            _ => Err(not(self.root(), "a directory")),
        });
        let ids = tables::id(&self.blocks, &self.superblock, 0).map(drop);
        let xattrs = tables::xattrs(&self.blocks, &self.superblock).map(drop);
        [root, ids, xattrs].into_iter().filter_map(Result::err).collect()
    }

    fn inode(&self, inode: Inode) -> Result<inode::Inode> {
        inode::read(&mut self.blocks.cursor(self.superblock.inode_table, self.reference(inode)?))
    }

    /// Only what lies in the table of inodes is taken for one.
    fn reference(&self, inode: Inode) -> Result<u64> {
        let reference = to_reference(inode);
        let at = self.superblock.inode_table.saturating_add(reference >> 16);
        if inode.0 == 0 || at >= self.superblock.size {
            return Err(Error::unsupported("inode", format!("number {}", inode.0)));
        }
        Ok(reference)
    }

    fn layout(&self, inode: Inode) -> Result<Arc<Layout>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layout)) = last.as_ref().filter(|(number, _)| *number == inode) {
            return Ok(layout.clone());
        }
        let mut cursor = self.blocks.cursor(self.superblock.inode_table, self.reference(inode)?);
        let Content::File(file) = inode::read(&mut cursor)?.content else { return Err(not(inode, "a file")) };
        let mut at = file.start;
        let mut blocks = Vec::new();
        for length in file.lengths(&mut cursor, self.superblock.block_size)? {
            blocks.push((at, length));
            at = at.saturating_add((length & 0x00ff_ffff).into());
        }
        let layout = Arc::new(Layout { file, blocks });
        *last = Some((inode, layout.clone()));
        Ok(layout)
    }

    /// Fills `output` from byte `within` of block `number`, which ends no earlier.
    fn read_block(&self, layout: &Layout, number: u64, within: usize, output: &mut [u8]) -> Result<()> {
        let size = u64::from(self.superblock.block_size);
        let start = number.saturating_mul(size);
        let content = narrow(layout.file.size.saturating_sub(start).min(size));
        let part = |bytes: &[u8], from: usize, output: &mut [u8]| {
            let end = from.saturating_add(output.len());
            bytes.get(from..end).map(|bytes| output.copy_from_slice(bytes))
        };
        if let Some((at, length)) = layout.blocks.get(narrow(number)) {
            if within == 0 && output.len() == content {
                return self.blocks.read_data(*at, *length, output);
            }
            if *length & 0x00ff_ffff == 0 {
                output.fill(0);
                return Ok(());
            }
            let bytes = self.blocks.data(*at, *length, content)?;
            return part(&bytes, within, output).ok_or_else(|| {
                Corrupt::new("squashfs data block", *at, "content", content, bytes.len()).into()
            });
        }
        let Some((fragment, offset)) = layout.file.fragment else {
            let found = format!("{} blocks", layout.blocks.len());
            return Err(Corrupt::new("squashfs inode", layout.file.start, "file_size", number, found).into());
        };
        let (at, length) = tables::fragment(&self.blocks, &self.superblock, fragment)?;
        let bytes = self.blocks.fragment(at, length, self.superblock.block_size)?;
        let from = crate::number::index(offset).saturating_add(within);
        part(&bytes, from, output).ok_or_else(|| {
            let expected = format!("{} bytes from {from}", output.len());
            Corrupt::new("squashfs fragment block", at, "content", expected, bytes.len()).into()
        })
    }
}

fn not(inode: Inode, expected: &str) -> Error {
    Corrupt::new("squashfs inode", to_reference(inode) >> 16, "inode_type", expected, "another kind").into()
}

impl FileSystem for Squashfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        to_inode(self.superblock.root)
    }

    /// One time is stored; it stands for all. A directory's size is that of its listing.
    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let found = self.inode(inode)?;
        let (size, allocated, device) = match &found.content {
            Content::Directory(listing) => (listing.size.into(), 0, (0, 0)),
            Content::File(file) => (file.size, file.size.saturating_sub(file.holes), (0, 0)),
            Content::Symlink(target) => (wide(target.len()), 0, (0, 0)),
            // The kernel's encoding: 12 bits of the major number between 8 and 12 of the minor.
            Content::Device(number) => (0, 0, (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00)),
            Content::Nothing => (0, 0, (0, 0)),
        };
        let time = Timestamp { seconds: found.modified.into(), nanoseconds: 0 };
        Ok(Metadata {
            kind: found.kind,
            permissions: found.permissions.into(),
            uid: tables::id(&self.blocks, &self.superblock, found.uid)?,
            gid: tables::id(&self.blocks, &self.superblock, found.gid)?,
            links: found.links,
            size,
            allocated,
            device,
            modified: time,
            changed: time,
            accessed: time,
        })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let Content::Directory(listing) = self.inode(dir)?.content else {
            return Err(not(dir, "a directory"));
        };
        let reference = u64::from(listing.block) << 16 | u64::from(listing.offset);
        directory::read(&mut self.blocks.cursor(self.superblock.directory_table, reference), listing.size)
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let layout = self.layout(file)?;
        let rest = layout.file.size.saturating_sub(offset);
        let length = narrow(rest).min(buf.len());
        let size = u64::from(self.superblock.block_size);
        let mut done = 0_usize;
        while done < length {
            let at = offset.saturating_add(wide(done));
            let number = at.checked_div(size).unwrap_or(0);
            let within = at.saturating_sub(number.saturating_mul(size));
            let count = narrow(size.saturating_sub(within)).min(length.saturating_sub(done));
            let end = done.saturating_add(count);
            let Some(output) = buf.get_mut(done..end) else { break };
            self.read_block(&layout, number, narrow(within), output)?;
            done = end;
        }
        Ok(length)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        match self.inode(link)?.content {
            Content::Symlink(target) => Ok(target),
            _ => Err(not(link, "a symlink")),
        }
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(number) = self.inode(inode)?.xattr else { return Ok(Vec::new()) };
        match tables::xattrs(&self.blocks, &self.superblock)? {
            Some(table) => tables::read_xattrs(&self.blocks, table, number),
            None => Ok(Vec::new()),
        }
    }
}
