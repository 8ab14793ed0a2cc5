//! The numbers that the kernel knows the parts of the mount by.
//!
//! Small numbers are directories and files of our own; the others are inodes of the exported file system with a
//! mark in bit 62.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use blockdev::Device;
use filesystem::{FileSystem, Inode};

/// The mark of an inode of the exported file system.
const EXPORTED: u64 = 1 << 62;

/// What is exported.
#[derive(Default)]
pub struct Tree {
    /// Shown below `fs`, if there is one.
    pub fs: Option<Arc<dyn FileSystem>>,
    /// Paths below `volumes`, such as `centos/root`, and their bytes.
    pub volumes: Vec<(String, Device)>,
}

/// What a number stands for.
pub(crate) enum Node<'a> {
    /// A directory of our own.
    Directory(&'a Directory),
    /// A raw volume.
    Volume(&'a Device),
    /// An inode of the exported file system.
    Exported(&'a Arc<dyn FileSystem>, Inode),
}

/// A directory of our own: names and numbers.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) entries: BTreeMap<Vec<u8>, u64>,
}

pub(crate) struct Nodes {
    fs: Option<Arc<dyn FileSystem>>,
    /// By number; 1 is the root of the mount.
    own: BTreeMap<u64, Own>,
}

enum Own {
    Directory(Directory),
    Volume(Device),
}

impl Nodes {
    pub(crate) fn new(tree: Tree) -> Self {
        let mut nodes =
            Self { fs: tree.fs, own: BTreeMap::from([(1, Own::Directory(Directory::default()))]) };
        if let Some(fs) = &nodes.fs {
            let root = number_of(fs.root());
            if let (Some(root), Some(Own::Directory(top))) = (root, nodes.own.get_mut(&1)) {
                top.entries.insert(b"fs".to_vec(), root);
            }
        }
        let volumes = nodes.directory(1, b"volumes");
        for (path, device) in tree.volumes {
            let mut parent = volumes;
            let mut parts: Vec<&str> =
                path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
            let Some(name) = parts.pop() else { continue };
            for part in parts {
                parent = nodes.directory(parent, part.as_bytes());
            }
            nodes.insert(parent, name.as_bytes(), Own::Volume(device));
        }
        nodes
    }

    fn insert(&mut self, parent: u64, name: &[u8], own: Own) -> u64 {
        let number = self.own.len() as u64 + 1;
        if let Some(Own::Directory(directory)) = self.own.get_mut(&parent) {
            directory.entries.insert(name.to_vec(), number);
            self.own.insert(number, own);
        }
        number
    }

    /// The directory `name` below `parent`, made where it is missing.
    fn directory(&mut self, parent: u64, name: &[u8]) -> u64 {
        if let Some(Own::Directory(directory)) = self.own.get(&parent)
            && let Some(found) = directory.entries.get(name)
        {
            return *found;
        }
        self.insert(parent, name, Own::Directory(Directory::default()))
    }

    pub(crate) fn get(&self, number: u64) -> Option<Node<'_>> {
        if number & EXPORTED != 0 {
            return self.fs.as_ref().map(|fs| Node::Exported(fs, Inode(number & !EXPORTED)));
        }
        self.own.get(&number).map(|own| match own {
            Own::Directory(directory) => Node::Directory(directory),
            Own::Volume(device) => Node::Volume(device),
        })
    }

    /// The number of what `parent` lists under `name`.
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> filesystem::Result<Option<u64>> {
        match self.get(parent) {
            Some(Node::Directory(directory)) => Ok(directory.entries.get(name.as_bytes()).copied()),
            Some(Node::Exported(fs, dir)) => Ok(fs.lookup(dir, name.as_bytes())?.and_then(number_of)),
            Some(Node::Volume(_)) | None => Ok(None),
        }
    }
}

/// The number of an exported inode; `None` for one that is too large to carry the mark.
pub(crate) fn number_of(inode: Inode) -> Option<u64> {
    (inode.0 < EXPORTED).then_some(inode.0 | EXPORTED)
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;
    use filesystem::MemoryFs;

    use super::*;

    #[test]
    fn every_path_has_a_number_of_its_own() {
        let device: Device = Arc::new(MemoryDevice::new(vec![1; 10]));
        let volumes =
            ["disk0", "centos/root", "centos/swap", "../evil"].map(|path| (path.to_owned(), device.clone()));
        let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new().file("/etc/fstab", "x"));
        let nodes = Nodes::new(Tree { fs: Some(fs), volumes: volumes.into() });
        let walk =
            |path: &str| path.split('/').try_fold(1, |at, name| nodes.lookup(at, OsStr::new(name)).unwrap());
        assert!(matches!(nodes.get(walk("fs/etc/fstab").unwrap()), Some(Node::Exported(..))));
        assert!(matches!(nodes.get(walk("volumes/centos/root").unwrap()), Some(Node::Volume(_))));
        assert!(matches!(nodes.get(walk("volumes/evil").unwrap()), Some(Node::Volume(_))));
        assert!(matches!(nodes.get(walk("volumes/centos").unwrap()), Some(Node::Directory(_))));
        assert_ne!(walk("volumes/centos/root"), walk("volumes/centos/swap"));
        assert_eq!(walk("volumes/centos/none"), None);
        assert!(nodes.get(99).is_none());
    }
}
