//! What every file system offers, whatever its format.
//!
//! Access is by inode; paths and symlinks are walked in one place, [`path`]. A reader knows nothing of
//! journals: opened on the bare device it sees what a boot loader sees; opened on the device that the
//! format's `replay` returns it sees what the kernel will see.

mod descent;
mod format;
mod memory;
mod metadata;
pub mod path;

pub use descent::{Descent, MAX_DEPTH, NotEntered};
pub use format::{Format, Identity, Opened, Replayed, Set, SetMember, Subvolume};
pub use memory::MemoryFs;
pub use metadata::{DirEntry, FileKind, FsInfo, Inode, Metadata, Timestamp};
pub use ondisk::{Error, Parsed, Result};

/// A file system that was opened for reading.
///
/// Implementations are bounded: a loop on disk is an error, never a hang, and no allocation follows an
/// unchecked on-disk length.
pub trait FileSystem: Send + Sync {
    /// Facts of the whole file system.
    fn info(&self) -> &FsInfo;

    /// The root directory.
    fn root(&self) -> Inode;

    /// The inode that `dir` lists under `name`; `None` when there is no such entry.
    ///
    /// # Errors
    /// Damage on the way, or `dir` is not a directory.
    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        Ok(self.read_dir(dir)?.into_iter().find(|entry| entry.name == name).map(|entry| entry.inode))
    }

    /// Owner, mode, size and times.
    ///
    /// # Errors
    /// Damage in the inode, or a number that no inode has.
    fn metadata(&self, inode: Inode) -> Result<Metadata>;

    /// The entries of a directory in on-disk order, without `.` and `..`.
    ///
    /// # Errors
    /// Damage on the way, or `dir` is not a directory.
    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>>;

    /// Reads from byte `offset` of a regular file; returns how many bytes were filled, 0 at or past the end.
    /// Holes read as zeros. Only the end of the file makes the count shorter than `buf`.
    ///
    /// # Errors
    /// Damage on the way, or `file` is not a regular file.
    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// The target of a symlink, as stored.
    ///
    /// # Errors
    /// Damage on the way, or `link` is not a symlink.
    fn read_link(&self, link: Inode) -> Result<Vec<u8>>;

    /// The value of the extended attribute with this full name (`security.selinux`), if it is there.
    ///
    /// # Errors
    /// Damage on the way.
    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.xattrs(inode)?.into_iter().find(|(found, _)| found == name).map(|(_, value)| value))
    }

    /// All extended attributes, with full names.
    ///
    /// # Errors
    /// Damage on the way.
    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// The way to write, if the device below was opened for writing and this format can be written.
    fn writable(&self) -> Option<&dyn FileSystemMut> {
        None
    }
}

/// A file system that can be changed.
///
/// Works on a device whose changes nobody sees until they were verified (an overlay), so nothing here is
/// journalled: what counts is that the final state is clean for the format's own checker.
pub trait FileSystemMut: FileSystem {
    /// Replaces the whole content of a regular file. Inode number, owner, mode and extended attributes stay;
    /// modification and change time become `now`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the reason when this file cannot be replaced safely, before anything is
    /// written: an unclean journal, an unknown feature, shared or encrypted extents, no space.
    fn replace(&self, file: Inode, content: &[u8], now: Timestamp) -> Result<()>;
}

/// The whole content of a regular file.
///
/// # Errors
/// As [`FileSystem::read_at`]; [`Error::Unsupported`] when the file is larger than `limit` bytes.
pub fn read_to_end(fs: &dyn FileSystem, file: Inode, limit: u64) -> Result<Vec<u8>> {
    let size = fs.metadata(file)?.size;
    if size > limit {
        return Err(Error::unsupported("file", format!("reading {size} bytes at once (limit {limit})")));
    }
    let mut content = vec![0; size as usize];
    let mut done = 0;
    while done < content.len() {
        match fs.read_at(file, &mut content[done..], done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    content.truncate(done);
    Ok(content)
}
