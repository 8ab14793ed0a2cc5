//! Several file systems as one tree.
//!
//! Inode numbers of the joined tree carry the index of their file system in the top byte.

use std::collections::BTreeMap;

use filesystem::{DirEntry, Error, FileKind, FileSystem, FsInfo, Inode, Metadata, Result};
use storage::NodeId;

use crate::model::SharedFs;

/// Bits of an inode number that belong to the file system itself.
const INODE_BITS: u32 = 56;
/// Two bits of the top byte stay free for those who number files of several trees.
const MAX_MEMBERS: usize = 64;

/// File systems joined at mount points. Read-only.
pub struct JoinedFs {
    /// Index 0 is the root.
    members: Vec<(NodeId, SharedFs)>,
    /// The directory that is covered, by file system and inode, and the member that covers it.
    covered: BTreeMap<(usize, Inode), usize>,
}

impl JoinedFs {
    /// A tree of one file system, which lies on `node`.
    pub fn new(node: NodeId, root: SharedFs) -> Self {
        Self { members: vec![(node, root)], covered: BTreeMap::new() }
    }

    /// Mounts `fs`, which lies on `node`, on a directory of this tree; a later mount covers an earlier one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when `at` is no directory, or the tree has too many members.
    pub fn mount(&mut self, at: Inode, node: NodeId, fs: SharedFs) -> Result<()> {
        let (member, inode) = self.split(at)?;
        if self.metadata(at)?.kind != FileKind::Directory {
            return Err(Error::unsupported("mount point", "a file that is no directory"));
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(Error::unsupported(
                "guest",
                format!("more than {MAX_MEMBERS} file systems in one tree"),
            ));
        }
        self.members.push((node, fs));
        self.covered.insert((member, inode), self.members.len() - 1);
        Ok(())
    }

    /// The node and the inode there that an inode of the tree stands for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a number that this tree did not give out.
    pub fn locate(&self, inode: Inode) -> Result<(NodeId, Inode)> {
        let (member, inode) = self.split(inode)?;
        Ok((self.members[member].0, inode))
    }

    fn split(&self, inode: Inode) -> Result<(usize, Inode)> {
        let member = (inode.0 >> INODE_BITS) as usize;
        if member >= self.members.len() {
            return Err(Error::unsupported("inode", format!("number {}", inode.0)));
        }
        Ok((member, Inode(inode.0 & ((1 << INODE_BITS) - 1))))
    }

    fn join(&self, member: usize, inode: Inode) -> Result<Inode> {
        if let Some(above) = self.covered.get(&(member, inode)) {
            return self.join(*above, self.members[*above].1.root());
        }
        if inode.0 >> INODE_BITS != 0 {
            return Err(Error::unsupported("inode", format!("number {} in a joined tree", inode.0)));
        }
        Ok(Inode((member as u64) << INODE_BITS | inode.0))
    }

    fn member(&self, inode: Inode) -> Result<(&dyn FileSystem, Inode)> {
        let (member, inode) = self.split(inode)?;
        Ok((self.members[member].1.as_ref(), inode))
    }
}

impl FileSystem for JoinedFs {
    fn info(&self) -> &FsInfo {
        self.members[0].1.info()
    }

    fn root(&self) -> Inode {
        self.join(0, self.members[0].1.root()).unwrap_or(Inode(0))
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let (member, inner) = self.split(dir)?;
        let found = self.members[member].1.lookup(inner, name)?;
        found.map(|inode| self.join(member, inode)).transpose()
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let (fs, inode) = self.member(inode)?;
        fs.metadata(inode)
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let (member, inner) = self.split(dir)?;
        let entries = self.members[member].1.read_dir(inner)?;
        entries
            .into_iter()
            .map(|entry| Ok(DirEntry { inode: self.join(member, entry.inode)?, ..entry }))
            .collect()
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let (fs, inode) = self.member(file)?;
        fs.read_at(inode, buf, offset)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        let (fs, inode) = self.member(link)?;
        fs.read_link(inode)
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (fs, inode) = self.member(inode)?;
        fs.xattrs(inode)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use filesystem::MemoryFs;
    use filesystem::path::resolve;

    use super::*;

    #[test]
    fn mounts_cover_directories_and_symlinks_cross_them() {
        let root = MemoryFs::new()
            .file("/etc/fstab", "root")
            .file("/boot/hidden", "")
            .symlink("/kernel", "/boot/vmlinuz")
            .directory("/boot/efi");
        let boot =
            MemoryFs::new().file("/vmlinuz", "kernel").symlink("/back", "../etc/fstab").directory("/efi");
        let esp = MemoryFs::new().file("/EFI/BOOT/BOOTX64.EFI", "shim");
        let mut tree = JoinedFs::new(NodeId(7), Arc::new(root));
        tree.mount(resolve(&tree, b"/boot").unwrap(), NodeId(8), Arc::new(boot)).unwrap();
        tree.mount(resolve(&tree, b"/boot/efi").unwrap(), NodeId(9), Arc::new(esp)).unwrap();
        let read = |path: &str| {
            let inode = resolve(&tree, path.as_bytes()).unwrap();
            String::from_utf8(filesystem::read_to_end(&tree, inode, 100).unwrap()).unwrap()
        };
        assert_eq!(read("/kernel"), "kernel");
        assert_eq!(read("/boot/back"), "root");
        assert_eq!(read("/boot/efi/EFI/BOOT/BOOTX64.EFI"), "shim");
        assert!(resolve(&tree, b"/boot/hidden").is_err());
        let inode = resolve(&tree, b"/boot/vmlinuz").unwrap();
        assert_eq!(tree.locate(inode).unwrap().0, NodeId(8));
        assert!(tree.mount(inode, NodeId(1), Arc::new(MemoryFs::new())).is_err());
        assert!(tree.metadata(Inode(u64::MAX)).is_err());
    }
}
