//! A file system in memory, for tests that describe a guest in a few lines.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use ondisk::Corrupt;

use crate::{
    DirEntry, Error, FileKind, FileSystem, FileSystemMut, FsInfo, Inode, Metadata, Result, Timestamp,
};

/// Directories, files and symlinks in memory. Inode numbers count from 1, the root.
pub struct MemoryFs {
    info: FsInfo,
    nodes: RwLock<Vec<Node>>,
}

#[derive(Clone)]
struct Node {
    content: Content,
    modified: Timestamp,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Inode>),
    Symlink(Vec<u8>),
}

const ROOT: Inode = Inode(1);

impl Default for MemoryFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFs {
    /// An empty file system of type `memory`.
    pub fn new() -> Self {
        let info = FsInfo { kind: "memory", block_size: 4096, ..FsInfo::default() };
        let root = Node::new(Content::Directory(BTreeMap::new()));
        Self { info, nodes: RwLock::new(vec![root]) }
    }

    /// The same with these facts.
    #[must_use]
    pub fn with_info(mut self, info: FsInfo) -> Self {
        self.info = info;
        self
    }

    /// Adds a file and the directories above it.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.add(path, &Content::File(content.into()))
    }

    /// Adds a directory and those above it.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.add(path, &Content::Directory(BTreeMap::new()))
    }

    /// Adds a symlink and the directories above it.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, &Content::Symlink(target.into()))
    }

    /// Adds another name of what is at `existing`; of a directory too, as damage makes them, so that it may be within
    /// itself.
    #[must_use]
    pub fn link(self, path: &str, existing: &str) -> Self {
        let inode = crate::path::resolve_no_follow(&self, existing.as_bytes());
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = crate::path::resolve(&self, parent.as_bytes());
        let (Ok(inode), Ok(parent)) = (inode, parent) else { panic!("{path}, {existing}: no such file") };
        {
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let Content::Directory(entries) = &mut nodes[parent.0 as usize - 1].content else {
                panic!("{path}: a component is not a directory");
            };
            entries.insert(name.as_bytes().to_vec(), inode);
        }
        self
    }

    fn add(self, path: &str, content: &Content) -> Self {
        {
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let mut dir = ROOT;
            let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
            for (index, name) in names.iter().enumerate() {
                let is_last = index + 1 == names.len();
                let next = Inode(nodes.len() as u64 + 1);
                let Content::Directory(entries) = &mut nodes[dir.0 as usize - 1].content else {
                    panic!("{path}: a component is not a directory");
                };
                match entries.get(name.as_bytes()) {
                    Some(found) if !is_last => dir = *found,
                    Some(_) if matches!(content, Content::Directory(_)) => {}
                    Some(found) => {
                        let found = *found;
                        nodes[found.0 as usize - 1] = Node::new(content.clone());
                    }
                    None => {
                        entries.insert(name.as_bytes().to_vec(), next);
                        let empty = Content::Directory(BTreeMap::new());
                        nodes.push(Node::new(if is_last { content.clone() } else { empty }));
                        dir = next;
                    }
                }
            }
        }
        self
    }

    fn node(&self, inode: Inode) -> Result<Node> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(inode.0).ok().and_then(|number| number.checked_sub(1));
        index.and_then(|index| nodes.get(index).cloned()).ok_or_else(|| {
            Corrupt::new("inode", 0, "number", format_args!("1..={}", nodes.len()), inode.0).into()
        })
    }
}

impl Node {
    fn new(content: Content) -> Self {
        Self { content, modified: Timestamp::default(), xattrs: BTreeMap::new() }
    }
}

fn wrong_kind(inode: Inode, expected: &'static str) -> Error {
    Corrupt::new("inode", 0, "kind", expected, inode).into()
}

impl FileSystem for MemoryFs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        ROOT
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let node = self.node(inode)?;
        let (kind, permissions, size) = match &node.content {
            // A program can be run.
            Content::File(content) if content.starts_with(b"#!") || content.starts_with(b"\x7fELF") => {
                (FileKind::Regular, 0o755, content.len())
            }
            Content::File(content) => (FileKind::Regular, 0o644, content.len()),
            Content::Directory(entries) => (FileKind::Directory, 0o755, entries.len()),
            Content::Symlink(target) => (FileKind::Symlink, 0o777, target.len()),
        };
        Ok(Metadata {
            kind,
            permissions,
            uid: 0,
            gid: 0,
            links: 1,
            size: size as u64,
            allocated: size as u64,
            device: (0, 0),
            modified: node.modified,
            changed: node.modified,
            accessed: node.modified,
        })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let Content::Directory(entries) = self.node(dir)?.content else {
            return Err(wrong_kind(dir, "directory"));
        };
        entries
            .into_iter()
            .map(|(name, inode)| Ok(DirEntry { name, inode, kind: self.metadata(inode)?.kind }))
            .collect()
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let Content::File(content) = self.node(file)?.content else {
            return Err(wrong_kind(file, "regular file"));
        };
        let rest = usize::try_from(offset).ok().and_then(|start| content.get(start..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        match self.node(link)?.content {
            Content::Symlink(target) => Ok(target),
            _ => Err(wrong_kind(link, "symlink")),
        }
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(self.node(inode)?.xattrs.into_iter().collect())
    }

    fn writable(&self) -> Option<&dyn FileSystemMut> {
        Some(self)
    }
}

impl FileSystemMut for MemoryFs {
    fn replace(&self, file: Inode, content: &[u8], now: Timestamp) -> Result<()> {
        let Content::File(_) = self.node(file)?.content else {
            return Err(wrong_kind(file, "regular file"));
        };
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let node = &mut nodes[file.0 as usize - 1];
        node.content = Content::File(content.to_vec());
        node.modified = now;
        Ok(())
    }
}
