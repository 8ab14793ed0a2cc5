//! Answering the kernel.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use filesystem::{FileKind, Metadata, Timestamp};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request, Session, SessionUnmounter,
};

use crate::nodes::{Node, Nodes, Tree, number_of};

/// Nothing changes below a read-only mount, so the kernel may remember for long.
const TTL: Duration = Duration::from_secs(3600);
/// The largest read that is answered at once, in bytes; the kernel asks for at most 1 MiB.
const MAX_READ: u32 = 1 << 20;

/// A mount that waits to be served.
pub struct Mounted {
    session: Session<Export>,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mounted")
    }
}

/// Ends a mount from another thread.
pub struct Unmounter(SessionUnmounter);

impl std::fmt::Debug for Unmounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unmounter")
    }
}

impl Unmounter {
    /// Unmounts; [`Mounted::serve`] then returns.
    ///
    /// # Errors
    /// Those of fusermount3: the mount is in use.
    pub fn unmount(&mut self) -> io::Result<()> {
        self.0.unmount()
    }
}

/// Mounts `tree` read-only on `directory`, as the user who runs this process; only that user sees it.
///
/// # Errors
/// `/dev/fuse` or `fusermount3` is missing, or the directory cannot be mounted on.
pub fn mount(tree: Tree, directory: &Path) -> io::Result<Mounted> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::FSName("guestmend".into()),
        MountOption::Subtype("guestmend".into()),
    ];
    config.n_threads = Some(std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4));
    Ok(Mounted { session: Session::new(Export::new(tree), directory, &config)? })
}

impl Mounted {
    /// A handle that ends this mount.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter(self.session.unmount_callable())
    }

    /// Answers until the directory is unmounted.
    ///
    /// # Errors
    /// Those of the connection to the kernel.
    pub fn serve(self) -> io::Result<()> {
        self.session.run()
    }
}

struct Export {
    nodes: Nodes,
    /// Listings of the directories that are open, so that a long one is read once and not once a page.
    listings: Mutex<BTreeMap<u64, Arc<Vec<Listed>>>>,
    next_handle: AtomicU64,
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

struct Listed {
    number: u64,
    kind: FileType,
    name: OsString,
}

impl Export {
    fn new(tree: Tree) -> Self {
        Self {
            nodes: Nodes::new(tree),
            listings: Mutex::new(BTreeMap::new()),
            next_handle: AtomicU64::new(1),
        }
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        match self.nodes.get(number).ok_or(Errno::ENOENT)? {
            Node::Directory(_) => Ok(own_attributes(number, FileType::Directory, 0o555, 0)),
            Node::Volume(device) => Ok(own_attributes(number, FileType::RegularFile, 0o444, device.size())),
            Node::Exported(fs, inode) => Ok(attributes(number, &fs.metadata(inode).map_err(damaged)?)),
        }
    }

    fn list(&self, number: u64) -> Result<Vec<Listed>, Errno> {
        let dots = [".", ".."].map(|name| Listed { number, kind: FileType::Directory, name: name.into() });
        let entries: Vec<Listed> = match self.nodes.get(number).ok_or(Errno::ENOENT)? {
            Node::Volume(_) => return Err(Errno::ENOTDIR),
            Node::Directory(directory) => directory
                .entries
                .iter()
                .map(|(name, number)| {
                    let kind =
                        self.attributes(*number).map_or(FileType::RegularFile, |attributes| attributes.kind);
                    Listed { number: *number, kind, name: OsString::from_vec(name.clone()) }
                })
                .collect(),
            Node::Exported(fs, inode) => fs
                .read_dir(inode)
                .map_err(damaged)?
                .into_iter()
                .filter_map(|entry| {
                    let number = number_of(entry.inode)?;
                    Some(Listed { number, kind: file_type(entry.kind), name: OsString::from_vec(entry.name) })
                })
                .collect(),
        };
        Ok(dots.into_iter().chain(entries).collect())
    }

    fn read(&self, number: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; size.min(MAX_READ) as usize];
        let count = match self.nodes.get(number).ok_or(Errno::ENOENT)? {
            Node::Directory(_) => return Err(Errno::EISDIR),
            Node::Volume(device) => {
                let count = device.size().saturating_sub(offset).min(buf.len() as u64) as usize;
                device.read_exact_at(&mut buf[..count], offset).map_err(|_| Errno::EIO)?;
                count
            }
            Node::Exported(fs, inode) => {
                // The kernel takes a short answer for the end of the file.
                let mut done = 0;
                while done < buf.len() {
                    match fs.read_at(inode, &mut buf[done..], offset + done as u64).map_err(damaged)? {
                        0 => break,
                        count => done += count,
                    }
                }
                done
            }
        };
        buf.truncate(count);
        Ok(buf)
    }

    fn xattrs(&self, number: u64) -> Result<Xattrs, Errno> {
        match self.nodes.get(number).ok_or(Errno::ENOENT)? {
            Node::Exported(fs, inode) => fs.xattrs(inode).map_err(damaged),
            Node::Directory(_) | Node::Volume(_) => Ok(Vec::new()),
        }
    }
}

/// Every kind of damage is an input/output error to a reader; `check` says more.
fn damaged(_: filesystem::Error) -> Errno {
    Errno::EIO
}

fn own_attributes(number: u64, kind: FileType, perm: u16, size: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let (major, minor) = metadata.device;
    FileAttr {
        blocks: metadata.allocated.div_ceil(512),
        atime: time(metadata.accessed),
        mtime: time(metadata.modified),
        ctime: time(metadata.changed),
        nlink: metadata.links,
        uid: metadata.uid,
        gid: metadata.gid,
        // The kernel's `new_encode_dev`.
        rdev: minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12,
        ..own_attributes(
            number,
            file_type(metadata.kind),
            (metadata.permissions & 0o7777) as u16,
            metadata.size,
        )
    }
}

fn time(stamp: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(stamp.nanoseconds.into());
    let seconds = Duration::from_secs(stamp.seconds.unsigned_abs());
    let whole =
        if stamp.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::Regular | FileKind::Unknown => FileType::RegularFile,
    }
}

impl Filesystem for Export {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.nodes.lookup(parent.0, name).map_err(damaged);
        match found.and_then(|number| self.attributes(number.ok_or(Errno::ENOENT)?)) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.nodes.get(number.0) {
            Some(Node::Exported(fs, inode)) => match fs.read_link(inode) {
                Ok(target) => reply.data(&target),
                Err(_) => reply.error(Errno::EIO),
            },
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read(number.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.list(number.0) {
            Ok(listing) => {
                let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
                let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
                listings.insert(handle, Arc::new(listing));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = self.listings.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned();
        let Some(listing) = listing else { return reply.error(Errno::EBADF) };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, entry) in (offset + 1..).zip(listing.iter().skip(first)) {
            if reply.add(INodeNo(entry.number), next, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.xattrs(number.0).and_then(|xattrs| {
            let found = xattrs.into_iter().find(|(found, _)| found == name.as_bytes());
            found.map(|(_, value)| value).ok_or(Errno::ENODATA)
        });
        answer_xattr(value, size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self
            .xattrs(number.0)
            .map(|xattrs| xattrs.into_iter().flat_map(|(name, _)| name.into_iter().chain([0])).collect());
        answer_xattr(names, size, reply);
    }
}

/// A size of zero asks how long the answer would be.
fn answer_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Err(error) => reply.error(error),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::read_dir;

    use filesystem::MemoryFs;

    use super::*;

    /// Every path below `folder` that the kernel shows, and those that it refuses.
    fn walk(folder: &Path, found: &mut Vec<String>, refused: &mut Vec<String>) {
        assert!(found.len() < 100, "no end: {found:?}");
        let mut paths: Vec<_> = read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let text = path.to_str().unwrap().to_owned();
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) => {
                    found.push(text);
                    if metadata.is_dir() {
                        walk(&path, found, refused);
                    }
                }
                Err(_) => refused.push(text),
            }
        }
    }

    /// The kernel knows directories by their numbers, so that one within itself has no second name in the mount.
    #[test]
    fn a_directory_within_itself_ends() {
        let fs = MemoryFs::new().file("/a/b/file", "x").link("/a/b/up", "/a").link("/a/top", "/");
        let folder = tempfile::tempdir().unwrap();
        let mut mounted = match mount(Tree { fs: Some(Arc::new(fs)), volumes: Vec::new() }, folder.path()) {
            Ok(mounted) => mounted,
            Err(error) => return println!("skipped: no FUSE here: {error}"),
        };
        let mut unmounter = mounted.unmounter();
        let server = std::thread::spawn(move || mounted.serve());
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        let root = folder.path().join("fs");
        walk(&root, &mut found, &mut refused);
        unmounter.unmount().unwrap();
        server.join().unwrap().unwrap();
        let under = |path: &str| format!("{}/{path}", root.display());
        assert_eq!(found, [under("a"), under("a/b"), under("a/b/file")]);
        assert_eq!(refused, [under("a/b/up"), under("a/top")]);
    }
}
