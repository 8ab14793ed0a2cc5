//! Several file systems as one tree.
//!
//! Inode numbers of the joined tree carry the index of their file system in the top byte. Those that need more bits
//! themselves, as NTFS with its sequence numbers and btrfs with many subvolumes, get numbers in the order in which they
//! are met.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use filesystem::{DirEntry, Error, FileKind, FileSystem, FsInfo, Inode, Metadata, Result};
use storage::NodeId;

use crate::model::SharedFs;

/// Bits of an inode number that belong to the file system itself.
const INODE_BITS: u32 = 56;
/// Says that the rest is not a number of the file system but one that was given out here.
const GIVEN: u64 = 1 << (INODE_BITS - 1);
/// Numbers that are given out at most, a bound on memory.
const MAX_GIVEN: usize = 1 << 22;
/// Two bits of the top byte stay free for those who number files of several trees.
const MAX_MEMBERS: usize = 64;

/// File systems joined at mount points. Read-only.
pub struct JoinedFs {
    /// Index 0 is the root.
    members: Vec<(NodeId, SharedFs)>,
    /// The directory that is covered, by file system and inode, and the member that covers it.
    covered: BTreeMap<(usize, Inode), usize>,
    given: Mutex<Given>,
}

/// The inode numbers that do not fit.
#[derive(Default)]
struct Given {
    numbers: Vec<(usize, Inode)>,
    index: HashMap<(usize, Inode), usize>,
}

impl JoinedFs {
    /// A tree of one file system, which lies on `node`.
    pub fn new(node: NodeId, root: SharedFs) -> Self {
        Self { members: vec![(node, root)], covered: BTreeMap::new(), given: Mutex::default() }
    }

    /// The root file system by itself, without what is mounted below it.
    pub fn root_alone(&self) -> &dyn FileSystem {
        self.members[0].1.as_ref()
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
        let unknown = || Error::unsupported("inode", format!("number {}", inode.0));
        let member = (inode.0 >> INODE_BITS) as usize;
        if member >= self.members.len() {
            return Err(unknown());
        }
        if inode.0 & GIVEN == 0 {
            return Ok((member, Inode(inode.0 & (GIVEN - 1))));
        }
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let found = given.numbers.get((inode.0 & (GIVEN - 1)) as usize).copied();
        found.filter(|(of, _)| *of == member).ok_or_else(unknown)
    }

    fn join(&self, member: usize, inode: Inode) -> Result<Inode> {
        if let Some(above) = self.covered.get(&(member, inode)) {
            return self.join(*above, self.members[*above].1.root());
        }
        let top = (member as u64) << INODE_BITS;
        if inode.0 < GIVEN {
            return Ok(Inode(top | inode.0));
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let next = given.numbers.len();
        let number = *given.index.entry((member, inode)).or_insert(next);
        if number == next {
            if next >= MAX_GIVEN {
                given.index.remove(&(member, inode));
                return Err(Error::unsupported(
                    "guest",
                    format!("more than {MAX_GIVEN} files with long numbers"),
                ));
            }
            given.numbers.push((member, inode));
        }
        Ok(Inode(top | GIVEN | number as u64))
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

    /// A file system whose numbers use all 64 bits.
    struct Long(MemoryFs);

    const LONG: u64 = 0xabcd << 48;

    impl FileSystem for Long {
        fn info(&self) -> &FsInfo {
            self.0.info()
        }
        fn root(&self) -> Inode {
            Inode(self.0.root().0 | LONG)
        }
        fn metadata(&self, inode: Inode) -> Result<Metadata> {
            self.0.metadata(Inode(inode.0 ^ LONG))
        }
        fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
            let entries = self.0.read_dir(Inode(dir.0 ^ LONG))?;
            Ok(entries
                .into_iter()
                .map(|entry| DirEntry { inode: Inode(entry.inode.0 | LONG), ..entry })
                .collect())
        }
        fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
            self.0.read_at(Inode(file.0 ^ LONG), buf, offset)
        }
        fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
            self.0.read_link(Inode(link.0 ^ LONG))
        }
        fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
            self.0.xattrs(Inode(inode.0 ^ LONG))
        }
    }

    #[test]
    fn numbers_of_any_length() {
        let long = || Long(MemoryFs::new().file("/a/b", "text").directory("/c"));
        let mut tree = JoinedFs::new(NodeId(1), Arc::new(long()));
        tree.mount(resolve(&tree, b"/c").unwrap(), NodeId(2), Arc::new(long())).unwrap();
        for (path, node) in [("/a/b", 1), ("/c/a/b", 2)] {
            let inode = resolve(&tree, path.as_bytes()).unwrap();
            assert_eq!(filesystem::read_to_end(&tree, inode, 100).unwrap(), b"text");
            assert_eq!(resolve(&tree, path.as_bytes()).unwrap(), inode);
            let (found, inner) = tree.locate(inode).unwrap();
            assert_eq!((found, inner.0 >> 48), (NodeId(node), 0xabcd));
        }
        assert!(tree.metadata(Inode(GIVEN | 1000)).is_err());
    }

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
