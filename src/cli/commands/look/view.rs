//! The tree that is looked at.

use anyhow::{Context, bail};
use filesystem::{FileKind, FileSystem, Inode, Opened};

use crate::Examination;
use crate::cli::args::{Common, Place};
use crate::cli::input::Disks;
use crate::cli::render::json;
use crate::examine;

/// What was opened: the system of an image, or one of its volumes.
pub(crate) struct View {
    examination: Examination,
    /// The file system of `--volume`.
    volume: Option<Opened>,
}

impl View {
    /// Opens what the arguments name.
    ///
    /// # Errors
    /// There is no such volume, it holds no file system, or, without one named, there is no system.
    pub(crate) fn open(common: &Common, place: &Place) -> anyhow::Result<Self> {
        let paths: Vec<_> = std::iter::once(&place.image).chain(&place.disk).cloned().collect();
        let disks = Disks::open(common, &paths)?;
        let examination = examine(&disks.devices(), &disks.keys, &[]);
        let volume = match &place.volume {
            Some(path) => {
                let node = examination.storage.nodes.iter().find(|node| node.path == *path);
                let node =
                    node.with_context(|| format!("no volume {path}; `inspect --output json` lists them"))?;
                Some(node.open().with_context(|| format!("cannot open {path}"))?)
            }
            None if examination.guests.is_empty() => {
                bail!(
                    "{}: no installed system found; --volume looks into one file system",
                    place.image.display()
                )
            }
            None => None,
        };
        Ok(Self { examination, volume })
    }

    /// The tree: of the volume, else of the only system, or the first of several.
    pub(crate) fn tree(&self) -> &dyn FileSystem {
        match (&self.volume, self.examination.guests.first()) {
            (Some(volume), _) => volume.value.as_ref(),
            (None, Some(guest)) => &guest.tree,
            (None, None) => unreachable!("`open` wants a volume or a system"),
        }
    }
}

/// Facts of one file, for a listing.
pub(crate) fn entry(tree: &dyn FileSystem, name: &[u8], inode: Inode) -> anyhow::Result<json::ListingEntry> {
    let metadata = tree.metadata(inode)?;
    let is_link = metadata.kind == FileKind::Symlink;
    Ok(json::ListingEntry {
        name: text(name),
        kind: kind_name(metadata.kind),
        mode: format!("{:04o}", metadata.permissions),
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        modified: metadata.modified.seconds,
        target: if is_link { Some(text(&tree.read_link(inode)?)) } else { None },
        selinux: tree.xattr(inode, b"security.selinux").ok().flatten().map(|label| text(&label)),
    })
}

/// A kind of file, in a word or two.
pub(crate) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "link",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "pipe",
        FileKind::Socket => "socket",
        FileKind::Unknown => "unknown",
    }
}

/// Bytes as text; a NUL at the end, as SELinux labels have it, is dropped.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
