//! An installed system as plain data.

use std::sync::Arc;
use std::time::Duration;

use filesystem::path::PathError;
use filesystem::{FileSystem, Inode};
use guest_files::fstab::Fstab;
use guest_files::os_release::OsRelease;
use storage::{Bus, NodeId};

use crate::JoinedFs;

/// An opened file system that several parts share.
pub type SharedFs = Arc<dyn FileSystem>;

/// One installed system.
pub struct Guest {
    /// The node of its root file system.
    pub root: NodeId,
    /// Its release.
    pub os_release: OsRelease,
    /// Its `/etc/fstab`; `None` when it has none.
    pub fstab: Option<ConfigFile<Fstab>>,
    /// The file systems that make up its tree, the root first.
    pub mounts: Vec<Mount>,
    /// Its tree as the guest sees it.
    pub tree: JoinedFs,
    /// The bus of its disks as far as its own files speak of one.
    pub bus: Option<Bus>,
    /// How long systemd waits for a device, as the guest configures it.
    pub device_timeout: Duration,
    /// Parts of the system that could not be read, in words.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guest({} on {:?})", self.name(), self.root)
    }
}

/// A parsed file with the place it was read from, which is also the place to write it.
#[derive(Debug, Clone)]
pub struct ConfigFile<T> {
    /// Its path in the guest.
    pub path: String,
    /// The node whose file system holds it.
    pub node: NodeId,
    /// Its inode there.
    pub inode: Inode,
    /// Its content.
    pub document: T,
}

/// One file system in the guest's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where: `/`, `/boot`.
    pub target: String,
    /// What.
    pub node: NodeId,
    /// The fstab line, from 1, that says so; `None` for the root when fstab does not name it.
    pub line: Option<usize>,
    /// The subvolume of the file system, where it is not the one that is mounted without options.
    pub subvolume: Option<String>,
}

impl Guest {
    /// The release for people; "unknown system" when it does not say.
    pub fn name(&self) -> &str {
        self.os_release.pretty_name().unwrap_or("unknown system")
    }

    /// The content of a file as the guest sees it, at most `limit` bytes.
    ///
    /// # Errors
    /// [`PathError`]: not there, or damaged on the way.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, PathError> {
        let inode = filesystem::path::resolve(&self.tree, path.as_bytes())?;
        filesystem::read_to_end(&self.tree, inode, limit)
            .map_err(|cause| PathError::Fs { path: path.to_owned(), cause })
    }
}
