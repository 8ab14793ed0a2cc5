//! Another project's reader and ours over the same file system: `oracle IMAGE...`, the images of one file system.
//!
//! Compares kinds, sizes, contents and targets by path. Prints what differs, and a last line with the count of
//! files; the exit status is 1 when anything differs.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode};
use fs_core::{BlockRead, FileDevice as TheirDevice};

/// Bytes that are compared of a file.
const MAX_CONTENT: u64 = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is at a path: a letter, the size, and the content, target or error.
#[derive(PartialEq)]
struct Found {
    kind: char,
    size: u64,
    content: std::result::Result<Vec<u8>, String>,
}

/// By path, without a slash at its start.
type Tree = BTreeMap<Vec<u8>, Found>;

fn main() -> Result<()> {
    let images: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let devices: Vec<Device> =
        images.iter().map(|image| Ok(Arc::new(FileDevice::open(image)?) as Device)).collect::<Result<_>>()?;
    let first = devices.first().ok_or("usage: oracle IMAGE...")?;
    let (ours, theirs) = if (filesystem_xfs::FORMAT.probe)(first.as_ref())?.is_some() {
        // The other reader recovers the log by itself.
        let recovered = (filesystem_xfs::FORMAT.replay)(first.clone())?.device;
        ((filesystem_xfs::FORMAT.open)(recovered)?, xfs(&images[0]))
    } else if (filesystem_btrfs::FORMAT.probe)(first.as_ref())?.is_some() {
        // Where it starts, whatever subvolume is the default.
        (filesystem_btrfs::open_subvolume(devices, filesystem_btrfs::Select::Id(5))?, btrfs(&images))
    } else {
        ((filesystem_ntfs::FORMAT.open)(first.clone())?, ntfs(&images[0]))
    };
    let ours = read(ours.value.as_ref());
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(error) => {
            println!("the other refuses: {error}; here {} files", ours.len());
            std::process::exit(3);
        }
    };
    let mut differences = 0;
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        let (a, b) = (ours.get(path), theirs.get(path));
        let is_refused_by_both =
            matches!((a, b), (Some(a), Some(b)) if a.content.is_err() && b.content.is_err());
        if a != b && !is_refused_by_both {
            differences += 1;
            println!("{}: ours {}, theirs {}", path.escape_ascii(), say(a), say(b));
        }
    }
    println!("{} files, {differences} different", ours.len());
    std::process::exit(i32::from(differences > 0));
}

fn say(found: Option<&Found>) -> String {
    let Some(found) = found else { return "none".into() };
    match &found.content {
        Ok(content) => format!("{} {} ({} read)", found.kind, found.size, content.len()),
        Err(error) => format!("{} {}: {error}", found.kind, found.size),
    }
}

/// Another's view: the entries of a directory by name and number, and what a number is.
trait Other {
    fn list(&self, dir: u64, path: &[u8]) -> Result<Vec<(Vec<u8>, u64)>>;
    fn look(&self, inode: u64, path: &[u8]) -> Result<Found>;
}

fn gather(other: &dyn Other, root: u64) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![(root, Vec::new())];
    while let Some((dir, path)) = todo.pop().filter(|_| tree.len() < 100_000) {
        let entries = match other.list(dir, &path) {
            Ok(entries) => entries,
            Err(error) if path.is_empty() => return Err(error),
            Err(error) => {
                tree.insert(path, Found { kind: '!', size: 0, content: Err(error.to_string()) });
                continue;
            }
        };
        for (name, inode) in entries {
            if name == b"." || name == b".." {
                continue;
            }
            let below = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
            let found = other.look(inode, &below).unwrap_or_else(|error| Found {
                kind: '!',
                size: 0,
                content: Err(error.to_string()),
            });
            if found.kind == 'd' {
                todo.push((inode, below.clone()));
            }
            tree.insert(below, found);
        }
    }
    Ok(tree)
}

struct Ours<'a>(&'a dyn FileSystem);

impl Other for Ours<'_> {
    fn list(&self, dir: u64, _: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
        Ok(self.0.read_dir(Inode(dir))?.into_iter().map(|entry| (entry.name, entry.inode.0)).collect())
    }

    fn look(&self, inode: u64, _: &[u8]) -> Result<Found> {
        let inode = Inode(inode);
        let metadata = self.0.metadata(inode)?;
        let (kind, size, content) = match metadata.kind {
            FileKind::Directory => ('d', 0, Ok(Vec::new())),
            FileKind::Symlink => ('l', 0, self.0.read_link(inode)),
            FileKind::Regular => {
                let limit = metadata.size.min(MAX_CONTENT) as usize;
                let mut content = vec![0; limit];
                let read = self.0.read_at(inode, &mut content, 0).map(|count| {
                    content.truncate(count);
                    content
                });
                ('-', metadata.size, read)
            }
            _ => ('?', 0, Ok(Vec::new())),
        };
        Ok(Found { kind, size, content: content.map_err(|error| error.to_string()) })
    }
}

fn read(fs: &dyn FileSystem) -> Tree {
    gather(&Ours(fs), fs.root().0).expect("our own reader reads the test images")
}

fn open(image: &Path) -> Result<Arc<dyn BlockRead>> {
    Ok(Arc::new(TheirDevice::open(image)?))
}

struct Xfs(fs_xfs::Filesystem);

impl Other for Xfs {
    fn list(&self, dir: u64, _: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
        let (inode, raw) = self.0.read_inode_raw(dir)?;
        Ok(self.0.read_dir(&inode, &raw)?.into_iter().map(|entry| (entry.name, entry.ino)).collect())
    }

    fn look(&self, number: u64, _: &[u8]) -> Result<Found> {
        let (inode, raw) = self.0.read_inode_raw(number)?;
        let say = |error: fs_xfs::Error| error.to_string();
        let (kind, size, content) = if inode.is_dir() {
            ('d', 0, Ok(Vec::new()))
        } else if inode.is_symlink() {
            ('l', 0, self.0.read_link(&inode, &raw).map_err(say))
        } else if inode.is_regular_file() {
            let size = self.0.open_ino(number)?.len();
            let mut content = vec![0; size.min(MAX_CONTENT) as usize];
            let read = self.0.read_at(&inode, &raw, 0, &mut content).map(|count| {
                content.truncate(count);
                content
            });
            ('-', size, read.map_err(say))
        } else {
            ('?', 0, Ok(Vec::new()))
        };
        Ok(Found { kind, size, content })
    }
}

fn xfs(image: &Path) -> Result<Tree> {
    let fs = fs_xfs::Filesystem::mount(open(image)?)?;
    let root = fs.superblock().rootino;
    gather(&Xfs(fs), root)
}

struct Btrfs(fs_btrfs::Filesystem);

impl Other for Btrfs {
    fn list(&self, dir: u64, _: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
        let entries = self.0.read_dir(dir)?.into_iter();
        // It does not enter subvolumes.
        Ok(entries
            .map(|entry| {
                let is_inode = entry.location_type == fs_btrfs::inode::INODE_ITEM_KEY;
                (entry.name, if is_inode { entry.ino } else { u64::MAX })
            })
            .collect())
    }

    fn look(&self, number: u64, _: &[u8]) -> Result<Found> {
        if number == u64::MAX {
            return Ok(Found { kind: 's', size: 0, content: Ok(Vec::new()) });
        }
        let inode = self.0.read_inode(number)?;
        let say = |error: fs_btrfs::Error| error.to_string();
        let (kind, size, content) = if inode.is_dir() {
            ('d', 0, Ok(Vec::new()))
        } else if inode.is_symlink() {
            ('l', 0, self.0.read_link(number).map_err(say))
        } else if inode.is_regular_file() {
            let mut content = vec![0; inode.size.min(MAX_CONTENT) as usize];
            let read = self.0.read_at(number, 0, &mut content).map(|count| {
                content.truncate(count);
                content
            });
            ('-', inode.size, read.map_err(say))
        } else {
            ('?', 0, Ok(Vec::new()))
        };
        Ok(Found { kind, size, content })
    }
}

fn btrfs(images: &[PathBuf]) -> Result<Tree> {
    let mut devices = images.iter().map(|image| open(image)).collect::<Result<Vec<_>>>()?;
    let fs = match (devices.pop(), devices.is_empty()) {
        (Some(device), true) => fs_btrfs::Filesystem::mount(device)?,
        (last, _) => fs_btrfs::Filesystem::mount_pool(devices.into_iter().chain(last).collect())?,
    };
    let root = fs.root_inode()?.ino;
    gather(&Btrfs(fs), root)
}

struct Ntfs(fs_ntfs::facade::Filesystem);

impl Other for Ntfs {
    fn list(&self, _: u64, path: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
        let entries = self.0.read_dir(&at(path))?;
        Ok(entries.into_iter().map(|entry| (entry.name.into_bytes(), entry.file_record_number)).collect())
    }

    fn look(&self, _: u64, path: &[u8]) -> Result<Found> {
        use fs_ntfs::facade::FileType;
        let path = at(path);
        let found = self.0.stat(&path)?;
        let (kind, size, content) = match found.file_type {
            FileType::Directory => ('d', 0, Ok(Vec::new())),
            FileType::Regular => {
                let mut content = vec![0; found.size.min(MAX_CONTENT) as usize];
                let read = self.0.read_file(&path, 0, &mut content).map(|count| {
                    content.truncate(count);
                    content
                });
                ('-', found.size, read.map_err(|error| error.to_string()))
            }
            // Each names the target in a way of its own.
            FileType::Symlink | FileType::Junction => ('l', 0, Err("a reparse point".into())),
            FileType::Other => ('?', 0, Ok(Vec::new())),
        };
        Ok(Found { kind, size, content })
    }
}

fn at(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn ntfs(image: &Path) -> Result<Tree> {
    gather(&Ntfs(fs_ntfs::facade::Filesystem::mount(image)?), 0)
}
