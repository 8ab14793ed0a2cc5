//! The reader: files are named by where their records lie, directories by where their first one does.

use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{BlockDevice, Device};
use filesystem::{DirEntry, FileKind, FileSystem, FsInfo, Inode, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::descriptor::{Descriptor, SECTOR};
use crate::name;
use crate::number::{index, narrow, wide};
use crate::record::{ASSOCIATED, CONTINUED, DIRECTORY, Record};
use crate::system_use::{self, RockRidge};

const DIRECTORY_NAME: &str = "ISO 9660 directory";
/// Bytes of the largest directory.
const MAX_DIRECTORY: u32 = 64 << 20;
/// Continuation areas that are read for one directory.
const MAX_AREAS: usize = 200_000;
/// Pieces of one file, 4 GiB each.
const MAX_PIECES: usize = 1000;

/// Which names are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Plain,
    Joliet,
    /// With the bytes that come before the entries of each record.
    RockRidge(usize),
}

impl Names {
    /// Looks for Rock Ridge in the first record of the root.
    pub(crate) fn rock_ridge(device: &dyn BlockDevice, tree: &Descriptor) -> Result<Option<Self>> {
        let at = tree.root.start;
        let sector = read_bytes(device, at, 2048)?;
        let first = Record::decode(&sector, at, tree.block_size)?;
        Ok(first.and_then(|record| system_use::marker(&record.system_use)).map(Self::RockRidge))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain names",
            Self::Joliet => "Joliet",
            Self::RockRidge(_) => "Rock Ridge",
        }
    }
}

/// An open file system.
pub(crate) struct Iso {
    device: Device,
    names: Names,
    block_size: u32,
    root: Inode,
    info: FsInfo,
    /// The file that was read last.
    last: Mutex<Option<(Inode, Arc<Vec<Piece>>)>>,
}

/// A run of a file: first byte on the device, length.
type Piece = (u64, u32);

/// A file, as all its records and their Rock Ridge describe it.
struct File {
    record: Record,
    rock_ridge: RockRidge,
    pieces: Vec<Piece>,
}

impl Iso {
    pub(crate) fn new(device: Device, names: Names, tree: &Descriptor, info: FsInfo) -> Self {
        let root = Inode(tree.root.start);
        Self { device, names, block_size: tree.block_size, root, info, last: Mutex::default() }
    }

    /// The sector around byte `at`, from there on.
    fn rest_of_sector(&self, at: u64) -> Result<Vec<u8>> {
        let rest = SECTOR.saturating_sub(at.checked_rem(SECTOR).unwrap_or(0));
        read_bytes(self.device.as_ref(), at, narrow(rest))
    }

    fn rock_ridge(&self, record: &Record, areas: &mut usize) -> Result<RockRidge> {
        let Names::RockRidge(skip) = self.names else { return Ok(RockRidge::default()) };
        // The first record of the root has nothing before its entries.
        let skip = if system_use::marker(&record.system_use) == Some(skip) { 0 } else { skip };
        let entries = record.system_use.get(skip..).unwrap_or_default();
        system_use::read(self.device.as_ref(), entries, self.block_size, areas)
    }

    /// The file whose first record is at byte `inode`.
    fn file(&self, inode: Inode) -> Result<File> {
        let mut at = inode.0;
        let Some(record) = Record::decode(&self.rest_of_sector(at)?, at, self.block_size)? else {
            return Err(Corrupt::new("ISO 9660 directory record", at, "length", "34 or more", 0).into());
        };
        let rock_ridge = self.rock_ridge(&record, &mut MAX_PIECES.clone())?;
        let mut pieces = vec![(record.start, record.size)];
        let mut last = record.clone();
        while last.is(CONTINUED) && !last.is(DIRECTORY) {
            at = at.saturating_add(wide(last.length));
            let next = self.rest_of_sector(at)?;
            let next = match Record::decode(&next, at, self.block_size)? {
                Some(next) => next,
                None => {
                    at = at.saturating_add(wide(next.len()));
                    let corrupt =
                        || Corrupt::new("ISO 9660 directory record", at, "flags", "a last piece", "none");
                    Record::decode(&self.rest_of_sector(at)?, at, self.block_size)?.ok_or_else(corrupt)?
                }
            };
            if next.name != record.name || pieces.len() >= MAX_PIECES {
                let found = format!("{} pieces", pieces.len());
                return Err(
                    Corrupt::new("ISO 9660 directory record", at, "flags", "a last piece", found).into()
                );
            }
            pieces.push((next.start, next.size));
            last = next;
        }
        Ok(File { record, rock_ridge, pieces })
    }

    /// The name that is shown; `None` for what is not shown.
    fn name(&self, record: &Record, rock_ridge: &RockRidge) -> Option<Vec<u8>> {
        let name = match (self.names, &rock_ridge.name) {
            (Names::RockRidge(_), Some(name)) => name.clone(),
            (Names::Joliet, _) => name::joliet(&record.name),
            _ => name::plain(&record.name),
        };
        Some(name).filter(|name| !name.is_empty() && name != b"." && name != b"..")
    }

    fn kind(record: &Record, rock_ridge: &RockRidge) -> FileKind {
        match &rock_ridge.posix {
            _ if rock_ridge.child.is_some() || record.is(DIRECTORY) => FileKind::Directory,
            Some(posix) => match FileKind::from_mode(posix.mode) {
                // What has no content of a directory cannot be one.
                FileKind::Directory | FileKind::Unknown => FileKind::Regular,
                kind => kind,
            },
            None => FileKind::Regular,
        }
    }

    fn pieces(&self, file: Inode) -> Result<Arc<Vec<Piece>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pieces)) = last.as_ref().filter(|(inode, _)| *inode == file) {
            return Ok(pieces.clone());
        }
        let found = self.file(file)?;
        if Self::kind(&found.record, &found.rock_ridge) != FileKind::Regular {
            return Err(not(file, "a file"));
        }
        if let Some(packed) = found.rock_ridge.packed {
            return Err(Error::unsupported("ISO 9660 file", packed));
        }
        if found.record.is_interleaved {
            return Err(Error::unsupported("ISO 9660 file", "interleaved content"));
        }
        let pieces = Arc::new(found.pieces);
        *last = Some((file, pieces.clone()));
        Ok(pieces)
    }
}

fn not(inode: Inode, expected: &str) -> Error {
    Corrupt::new("ISO 9660 directory record", inode.0, "file flags", expected, "another kind").into()
}

impl FileSystem for Iso {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        self.root
    }

    /// Without Rock Ridge all is root's, and can be read by all, as Linux shows it.
    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let file = self.file(inode)?;
        let kind = Self::kind(&file.record, &file.rock_ridge);
        let stored: u64 = file.pieces.iter().fold(0, |sum, (_, size)| sum.saturating_add((*size).into()));
        let (size, device) = match kind {
            FileKind::Symlink => {
                (file.rock_ridge.target.as_ref().map_or(0, |target| wide(target.len())), (0, 0))
            }
            FileKind::CharDevice | FileKind::BlockDevice => (0, device_number(file.rock_ridge.device)),
            FileKind::Fifo | FileKind::Socket => (0, (0, 0)),
            _ => (stored, (0, 0)),
        };
        let found = &file.rock_ridge;
        let posix = found.posix;
        let of_record = file.record.time.unwrap_or_default();
        let or = |time: Option<Timestamp>| time.unwrap_or(of_record);
        Ok(Metadata {
            kind,
            permissions: posix.map_or(0o555, |posix| posix.mode & 0o7777),
            uid: posix.map_or(0, |posix| posix.uid),
            gid: posix.map_or(0, |posix| posix.gid),
            links: posix.map_or(1, |posix| posix.links),
            size,
            allocated: stored.div_ceil(self.block_size.max(1).into()).saturating_mul(self.block_size.into()),
            device,
            modified: or(found.modified),
            changed: or(found.changed.or(found.created)),
            accessed: or(found.accessed),
        })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let first = self.file(dir)?.record;
        if !first.is(DIRECTORY) || !first.is_dot() {
            return Err(not(dir, "a directory"));
        }
        let corrupt = |field, expected: &str, found: u64| {
            Error::from(Corrupt::new(DIRECTORY_NAME, dir.0, field, expected, found))
        };
        if first.start != dir.0 {
            return Err(corrupt("location of extent", "that of its first record", first.start));
        }
        if first.size > MAX_DIRECTORY {
            return Err(corrupt("data length", "64 MiB or less", first.size.into()));
        }
        let bytes = read_bytes(self.device.as_ref(), dir.0, index(first.size))?;
        let mut entries = Vec::new();
        let (mut areas, mut is_continued) = (MAX_AREAS, false);
        for (number, sector) in bytes.chunks(narrow(SECTOR)).enumerate() {
            let start = dir.0.saturating_add(wide(number).saturating_mul(SECTOR));
            let mut within = 0_usize;
            while let Some(rest) = sector.get(within..) {
                let at = start.saturating_add(wide(within));
                let Some(record) = Record::decode(rest, at, self.block_size)? else { break };
                within = within.saturating_add(record.length);
                let is_piece = is_continued;
                is_continued = record.is(CONTINUED);
                if is_piece || record.is_dot() || record.is(ASSOCIATED) {
                    continue;
                }
                let rock_ridge = self.rock_ridge(&record, &mut areas)?;
                let Some(name) = self.name(&record, &rock_ridge).filter(|_| !rock_ridge.is_moved) else {
                    continue;
                };
                let inode = match rock_ridge.child {
                    Some(block) => Inode(u64::from(block).saturating_mul(self.block_size.into())),
                    None if record.is(DIRECTORY) => Inode(record.start),
                    None => Inode(at),
                };
                entries.push(DirEntry { name, inode, kind: Self::kind(&record, &rock_ridge) });
            }
        }
        Ok(entries)
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let pieces = self.pieces(file)?;
        let (mut at, mut done) = (offset, 0_usize);
        for (start, size) in pieces.iter() {
            let size = u64::from(*size);
            if at >= size {
                at = at.saturating_sub(size);
                continue;
            }
            let count = narrow(size.saturating_sub(at)).min(buf.len().saturating_sub(done));
            let end = done.saturating_add(count);
            let Some(target) = buf.get_mut(done..end).filter(|target| !target.is_empty()) else { break };
            let from = start.saturating_add(at);
            let length = wide(count);
            let failed = |source| Error::Io { offset: from, length, source };
            self.device.read_exact_at(target, from).map_err(failed)?;
            (at, done) = (0, end);
        }
        Ok(done)
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        let file = self.file(link)?;
        if Self::kind(&file.record, &file.rock_ridge) != FileKind::Symlink {
            return Err(not(link, "a symlink"));
        }
        file.rock_ridge.target.ok_or_else(|| {
            Corrupt::new("ISO 9660 directory record", link.0, "SL", "a target of 4095 bytes or less", "none")
                .into()
        })
    }

    fn xattrs(&self, _inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

/// As Linux takes the two halves: the lower may hold both numbers.
fn device_number(halves: Option<(u32, u32)>) -> (u32, u32) {
    match halves {
        Some((0, low)) if low > 0xff => (low >> 8, low & 0xff),
        Some(halves) => halves,
        None => (0, 0),
    }
}
