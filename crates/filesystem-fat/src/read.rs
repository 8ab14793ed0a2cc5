//! The reader: files are named by where their directory entries lie.

use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use filesystem::{DirEntry, FileKind, FileSystem, FsInfo, Inode, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Result, read_bytes, read_value};

use crate::boot_sector::BootSector;
use crate::directory::{self, ENTRY, Entry, Facts, RawEntry};
use crate::table::{Run, Table};

/// The root directory has no entry. No entry lies in the boot sector.
const ROOT: Inode = Inode(1);

/// Bytes of the largest directory: 65,536 entries.
const MAX_DIRECTORY: u64 = 65_536 * 32;

/// An open file system.
pub(crate) struct Fat {
    device: Device,
    boot: BootSector,
    table: Table,
    info: FsInfo,
    /// The chain of the file that was read last, by its first cluster.
    last: Mutex<Option<(u32, Arc<Vec<Run>>)>>,
}

impl Fat {
    pub(crate) fn new(device: Device, boot: BootSector, table: Table, info: FsInfo) -> Self {
        Self { device, boot, table, info, last: Mutex::default() }
    }

    /// The entry that an inode stands for; `None` for the root.
    fn facts(&self, inode: Inode) -> Result<Option<Facts>> {
        if inode == ROOT {
            return Ok(None);
        }
        let at = inode.0.saturating_mul(32);
        let (root, length) = self.boot.root;
        let is_in_root = (root..root.saturating_add(length)).contains(&at);
        if !is_in_root && at < self.boot.data_start {
            return Err(Error::unsupported("inode", format!("number {}", inode.0)));
        }
        let raw: RawEntry = read_value(self.device.as_ref(), at)?;
        Ok(Some(Facts::decode(&raw)))
    }

    /// The pieces of a directory: where they lie on the device, and how long they are.
    fn pieces(&self, dir: Inode) -> Result<Vec<(u64, u64)>> {
        let cluster = match self.facts(dir)? {
            None if self.boot.root.1 > 0 => return Ok(vec![self.boot.root]),
            None => self.boot.root_cluster,
            Some(facts) if facts.is_directory => facts.cluster,
            Some(_) => return Err(not(dir, "a directory")),
        };
        let limit = MAX_DIRECTORY.div_ceil(self.boot.cluster.max(1));
        let runs = self.table.chain(cluster, limit)?;
        Ok(runs.iter().map(|run| self.bytes_of(*run)).collect())
    }

    /// First byte and length of a run.
    fn bytes_of(&self, run: Run) -> (u64, u64) {
        let start = self.boot.cluster_at(run.first).unwrap_or(u64::MAX);
        (start, u64::from(run.count).saturating_mul(self.boot.cluster))
    }

    /// All entries of a directory, each with its inode.
    fn entries(&self, dir: Inode) -> Result<Vec<(Inode, Entry)>> {
        let pieces = self.pieces(dir)?;
        let mut bytes = Vec::new();
        for (at, length) in &pieces {
            bytes.extend(read_bytes(
                self.device.as_ref(),
                *at,
                usize::try_from(*length).unwrap_or(usize::MAX),
            )?);
        }
        let mut found = Vec::new();
        directory::entries(&bytes, |entry| {
            found.push((self.inode_of(&pieces, entry.index), entry));
            true
        });
        Ok(found)
    }

    /// Entries lie at multiples of 32 bytes, so the number of the place is an inode.
    fn inode_of(&self, pieces: &[(u64, u64)], index: usize) -> Inode {
        let mut within = u64::try_from(index.saturating_mul(ENTRY)).unwrap_or(u64::MAX);
        for (at, length) in pieces {
            match within.checked_sub(*length) {
                Some(rest) => within = rest,
                None => return Inode(at.saturating_add(within) / 32),
            }
        }
        ROOT
    }

    /// The chain of a file.
    fn chain(&self, facts: &Facts) -> Result<Arc<Vec<Run>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cluster, runs)) = last.as_ref()
            && *cluster == facts.cluster
        {
            return Ok(runs.clone());
        }
        let runs =
            Arc::new(self.table.chain(facts.cluster, u64::from(facts.size).div_ceil(self.boot.cluster))?);
        *last = Some((facts.cluster, runs.clone()));
        Ok(runs)
    }
}

fn not(inode: Inode, expected: &str) -> Error {
    Corrupt::new("FAT directory entry", inode.0.saturating_mul(32), "DIR_Attr", expected, "another kind")
        .into()
}

impl FileSystem for Fat {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        ROOT
    }

    /// As FAT compares names: an equal one first, else one that differs in case only.
    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let entries = self.entries(dir)?;
        if let Some((inode, _)) = entries.iter().find(|(_, entry)| entry.name == name) {
            return Ok(Some(*inode));
        }
        let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        let wanted = lower(name);
        Ok(entries.iter().find(|(_, entry)| lower(&entry.name) == wanted).map(|(inode, _)| *inode))
    }

    /// Owner and permissions are not stored; root's 0755 stands for them, as a mount without options shows.
    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let at = |seconds: i64, nanoseconds: u32| Timestamp { seconds, nanoseconds };
        let (kind, permissions, size, facts) = match self.facts(inode)? {
            None => (FileKind::Directory, 0o755, 0, None),
            Some(facts) => {
                let kind = if facts.is_directory { FileKind::Directory } else { FileKind::Regular };
                let permissions = if facts.is_read_only { 0o555 } else { 0o755 };
                (kind, permissions, u64::from(facts.size), Some(facts))
            }
        };
        // A directory says no size: that of its chain is what a mount shows.
        let allocated = match kind {
            FileKind::Directory => {
                let pieces = self.pieces(inode)?;
                pieces.iter().fold(0_u64, |sum, (_, length)| sum.saturating_add(*length))
            }
            _ => size.div_ceil(self.boot.cluster).saturating_mul(self.boot.cluster),
        };
        Ok(Metadata {
            kind,
            permissions,
            uid: 0,
            gid: 0,
            links: 1,
            size: if kind == FileKind::Directory { allocated } else { size },
            allocated,
            device: (0, 0),
            modified: facts.map_or(at(0, 0), |facts| at(facts.modified.0, facts.modified.1)),
            changed: facts.map_or(at(0, 0), |facts| at(facts.created.0, facts.created.1)),
            accessed: facts.map_or(at(0, 0), |facts| at(facts.accessed, 0)),
        })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let of = |(inode, entry): (Inode, Entry)| {
            let kind = if entry.facts.is_directory { FileKind::Directory } else { FileKind::Regular };
            DirEntry { name: entry.name, inode, kind }
        };
        Ok(self.entries(dir)?.into_iter().map(of).collect())
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let facts =
            self.facts(file)?.filter(|facts| !facts.is_directory).ok_or_else(|| not(file, "a file"))?;
        let rest = u64::from(facts.size).saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        if length == 0 {
            return Ok(0);
        }
        let runs = self.chain(&facts)?;
        let (mut at, mut done) = (offset, 0_usize);
        for run in runs.iter() {
            let (start, bytes) = self.bytes_of(*run);
            if at >= bytes {
                at = at.saturating_sub(bytes);
                continue;
            }
            let piece = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let piece = piece.min(length.saturating_sub(done));
            let Some(target) = buf.get_mut(done..done.saturating_add(piece)) else { break };
            let from = start.saturating_add(at);
            self.device.read_exact_at(target, from).map_err(|source| Error::Io {
                offset: from,
                length: u64::try_from(piece).unwrap_or(u64::MAX),
                source,
            })?;
            done = done.saturating_add(piece);
            at = 0;
            if done == length {
                return Ok(done);
            }
        }
        let expected = format!("clusters for {} bytes", facts.size);
        let found = "a chain that ends before";
        Err(Corrupt::new("FAT directory entry", file.0.saturating_mul(32), "DIR_FileSize", expected, found)
            .into())
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        Err(not(link, "a link, which FAT has not"))
    }

    fn xattrs(&self, _inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }
}
