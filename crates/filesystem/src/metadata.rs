//! Plain data about files.

use std::fmt;

/// An inode number, meaningful only to the file system it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// Facts of a whole file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsInfo {
    /// The type as `blkid` names it.
    pub kind: &'static str,
    /// The UUID, spelled as `blkid` spells it.
    pub uuid: Option<String>,
    /// The label without padding; any bytes.
    pub label: Option<Vec<u8>>,
    /// Block size in bytes.
    pub block_size: u32,
    /// Size in bytes.
    pub size: u64,
    /// Free bytes as the superblock counts them; the count may be stale.
    pub free: Option<u64>,
    /// Whether the journal holds changes that the kernel would replay at mount.
    pub needs_recovery: bool,
    /// Feature names as the format's own tools print them.
    pub features: Vec<String>,
}

/// What kind of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device node.
    CharDevice,
    /// A block device node.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A type that this code does not know (or, in a directory entry, that the format does not store).
    Unknown,
}

impl FileKind {
    /// From the `S_IFMT` bits of a Unix mode.
    pub fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// The letter that `ls -l` prints first.
    pub fn letter(self) -> char {
        match self {
            Self::Regular => '-',
            Self::Directory => 'd',
            Self::Symlink => 'l',
            Self::CharDevice => 'c',
            Self::BlockDevice => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
            Self::Unknown => '?',
        }
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, 0..1_000_000_000.
    pub nanoseconds: u32,
}

/// Owner, mode, size and times of one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What kind of file it is.
    pub kind: FileKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky: 0..=0o7777.
    pub permissions: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Length in bytes: of the content, of the symlink target, of the directory as stored.
    pub size: u64,
    /// Bytes that the file occupies on the device.
    pub allocated: u64,
    /// Major and minor number of a device node; zeros for everything else.
    pub device: (u32, u32),
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
    /// Last access.
    pub accessed: Timestamp,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// The inode it names.
    pub inode: Inode,
    /// The kind that the entry stores; [`FileKind::Unknown`] where the format stores none.
    pub kind: FileKind,
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.0)
    }
}
