//! [`FileSystem`] for btrfs.

use std::ops::ControlFlow;
use std::sync::PoisonError;

use filesystem::{DirEntry, FileKind, FileSystem, FsInfo, Inode, Metadata};
use ondisk::{Corrupt, Error, Result};

use crate::Btrfs;
use crate::directory::{self, Entry};
use crate::extent::{Content, Extent};
use crate::inode::{self, DiskInode};
use crate::key::{Key, kind};
use crate::node::Item;
use crate::number::narrow;
use crate::subvolume::{self, Parts, RootItem};
use crate::tree::{self, Root};

/// The longest target that the kernel takes, with its NUL.
const MAX_TARGET: usize = 4096;

impl FileSystem for Btrfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        self.root
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let Some((root, parts)) = self.directory(dir)? else { return Ok(None) };
        let key = Key::new(parts.objectid, kind::DIR_ITEM, directory::name_hash(name));
        let found = tree::with_item(&self.space, &root, &key, |item| {
            let entries = directory::entries(&item)?;
            let entry = entries.iter().find(|entry| entry.name == name);
            entry.map(|entry| self.target(&root, &parts, &item, entry)).transpose()
        })?;
        Ok(found.flatten())
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let parts = Parts::of(inode);
        let root = self.subvolume(&parts)?;
        let metadata = self.inode(&root, parts.objectid)?.metadata(self.space.shape.sector_size);
        Ok(if parts.is_placeholder { inode::placeholder(&metadata) } else { metadata })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let Some((root, parts)) = self.directory(dir)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let key = |offset| Key::new(parts.objectid, kind::DIR_INDEX, offset);
        tree::for_each(&self.space, &root, (key(0), key(u64::MAX)), |item| {
            for entry in directory::entries(&item)? {
                let inode = self.target(&root, &parts, &item, &entry)?;
                found.push(DirEntry { name: entry.name.to_vec(), inode, kind: entry.file_kind() });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let (root, objectid) = self.locate(file)?;
        let inode = self.inode(&root, objectid)?;
        let length = narrow(inode.size().saturating_sub(offset)).min(buf.len());
        let buf = buf.get_mut(..length).unwrap_or_default();
        self.read_file((&root, objectid, &inode), buf, offset)?;
        Ok(length)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        let (root, objectid) = self.locate(link)?;
        let inode = self.inode(&root, objectid)?;
        inode.expect(FileKind::Symlink, "a symlink")?;
        let key = Key::new(objectid, kind::EXTENT_DATA, 0);
        let target = tree::with_item(&self.space, &root, &key, |item| {
            let extent = Extent::decode(&item, self.space.shape.sector_size)?;
            match extent.content {
                Content::Inline { .. } => self.inline(&extent),
                _ => {
                    Err(Corrupt::new("file extent item", item.at, "type", "0 in a symlink", "another").into())
                }
            }
        })?;
        let mut target = target.unwrap_or_default();
        target.truncate(narrow(inode.size()));
        if target.is_empty() || target.len() >= MAX_TARGET {
            let found = format!("{} bytes", target.len());
            return Err(Corrupt::new("inode item", inode.at, "target", "1..=4095 bytes", found).into());
        }
        Ok(target)
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((root, objectid)) = self.with_attributes(inode)? else { return Ok(None) };
        let key = Key::new(objectid, kind::XATTR_ITEM, directory::name_hash(name));
        let found = tree::with_item(&self.space, &root, &key, |item| {
            let entries = directory::entries(&item)?;
            Ok(entries.iter().find(|entry| entry.name == name).map(|entry| entry.data.to_vec()))
        })?;
        Ok(found.flatten())
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some((root, objectid)) = self.with_attributes(inode)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let key = |offset| Key::new(objectid, kind::XATTR_ITEM, offset);
        tree::for_each(&self.space, &root, (key(0), key(u64::MAX)), |item| {
            let entries = directory::entries(&item)?;
            found.extend(entries.iter().map(|entry| (entry.name.to_vec(), entry.data.to_vec())));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

impl Btrfs {
    /// The tree of the subvolume that an inode is in.
    fn subvolume(&self, parts: &Parts) -> Result<Root> {
        let no_such = || Corrupt::new("inode", 0, "number", "a subvolume that was seen", parts.subvolume);
        let (id, known) = self.numbers().get(parts.subvolume).ok_or_else(no_such)?;
        if let Some(item) = known {
            return Ok(item.root);
        }
        let item = RootItem::find(&self.space, &self.roots, id)?
            .ok_or_else(|| Error::unavailable("subvolume", format!("the subvolume {id} has no root item")))?;
        self.numbers().remember(parts.subvolume, &item);
        Ok(item.root)
    }

    /// The tree and the number in it of an inode that must be in its own item.
    fn locate(&self, inode: Inode) -> Result<(Root, u64)> {
        let parts = Parts::of(inode);
        let root = self.subvolume(&parts)?;
        if parts.is_placeholder {
            return Err(Corrupt::new("inode", 0, "number", "a file", "a subvolume that is elsewhere").into());
        }
        Ok((root, parts.objectid))
    }

    /// The tree of a directory; `None` for a placeholder, which is empty.
    fn directory(&self, dir: Inode) -> Result<Option<(Root, Parts)>> {
        let parts = Parts::of(dir);
        let root = self.subvolume(&parts)?;
        self.inode(&root, parts.objectid)?.expect(FileKind::Directory, "a directory")?;
        Ok((!parts.is_placeholder).then_some((root, parts)))
    }

    /// `None` for a placeholder, which has none.
    fn with_attributes(&self, inode: Inode) -> Result<Option<(Root, u64)>> {
        let parts = Parts::of(inode);
        let root = self.subvolume(&parts)?;
        self.inode(&root, parts.objectid)?;
        Ok((!parts.is_placeholder).then_some((root, parts.objectid)))
    }

    fn inode(&self, root: &Root, objectid: u64) -> Result<DiskInode> {
        let key = Key::new(objectid, kind::INODE_ITEM, 0);
        let found = tree::with_item(&self.space, root, &key, |item| DiskInode::decode(&item))?;
        found.ok_or_else(|| {
            let expected = format!("an inode of the tree {}", root.id);
            Corrupt::new("inode item", 0, "key", expected, format_args!("no item {key}")).into()
        })
    }

    /// The inode that an entry of a directory leads to.
    fn target(&self, root: &Root, parts: &Parts, item: &Item<'_>, entry: &Entry<'_>) -> Result<Inode> {
        let location = entry.location;
        match location.kind {
            kind::INODE_ITEM => {
                Parts { subvolume: parts.subvolume, is_placeholder: false, objectid: location.objectid }
                    .inode()
            }
            kind::ROOT_ITEM => self.subvolume_root(root, parts, location.objectid, entry.name),
            other => {
                let expected = "1 or 132, an inode or a root";
                Err(Corrupt::new("directory item", item.at, "location", expected, other).into())
            }
        }
    }

    fn subvolume_root(&self, root: &Root, parts: &Parts, id: u64, name: &[u8]) -> Result<Inode> {
        let placeholder = Parts { is_placeholder: true, ..*parts };
        let place = (root.id, parts.objectid, name);
        if !subvolume::is_listed(&self.space, &self.roots, place, id)? {
            return placeholder.inode();
        }
        let item = RootItem::find(&self.space, &self.roots, id)?.filter(|item| !item.is_deleted);
        let Some(item) = item else { return placeholder.inode() };
        let number = self.numbers().number(id)?;
        self.numbers().remember(number, &item);
        Parts { subvolume: number, is_placeholder: false, objectid: item.root_dir }.inode()
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, subvolume::Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
