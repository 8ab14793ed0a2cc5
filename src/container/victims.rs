//! Which files of the guest suffer from damage of the container.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blockdev::{BlockDevice, Device, Extent};
use filesystem::{FileKind, FileSystem, Inode};
use image::{Gate, Options, Report};
use luks::Keyring;

/// Bytes that are read at most in the search, of the disk and of files, holes included.
const MAX_READ: u64 = 8 << 30;

/// Files that are named at most.
const MAX_FILES: usize = 100;

/// Bytes that are read of a file at once.
const PIECE: usize = 1 << 20;

/// Directories within each other that are entered.
const MAX_DEPTH: usize = 64;

/// A file of the guest with bytes in a damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// The volume: `centos/root`.
    pub volume: String,
    /// The path within that volume; any bytes.
    pub path: Vec<u8>,
}

/// What the search came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Victims {
    /// In the order of the search.
    pub files: Vec<Victim>,
    /// Whether there may be more: the guest is larger than what is read, or more than are named.
    pub is_cut_short: bool,
}

/// The files that have bytes, or structures on the way to them, in the guest ranges of the report. Empty when it
/// names no ranges or the guest cannot be read.
pub fn of(report: &Report, path: &Path, options: &Options<'_>, gate: &dyn Gate) -> Victims {
    let mut damaged: Vec<Range<u64>> =
        report.problems.iter().flat_map(|problem| problem.guest.iter().cloned()).collect();
    damaged.sort_by_key(|range| range.start);
    if damaged.is_empty() {
        return Victims::default();
    }
    let Ok(opened) = image::open(path, options, gate) else { return Victims::default() };
    let watch = Arc::new(Watch {
        inner: opened.device,
        damaged,
        is_hit: AtomicBool::new(false),
        read: AtomicU64::new(0),
    });
    let storage = storage::discover(&[watch.clone() as Device], &Keyring::default());
    let mut search = Search { watch: &watch, found: Victims::default(), seen: HashSet::new() };
    for node in &storage.nodes {
        let Ok(opened) = node.open() else { continue };
        search.seen.clear();
        let root = opened.value.root();
        search.walk(&node.path, opened.value.as_ref(), root, &[], 0);
    }
    search.found.is_cut_short |= search.is_over();
    search.found
}

struct Search<'a> {
    watch: &'a Watch,
    found: Victims,
    /// Inodes of the volume that were looked at: hard links, and loops that damage made.
    seen: HashSet<Inode>,
}

impl Search<'_> {
    fn walk(&mut self, volume: &str, fs: &dyn FileSystem, inode: Inode, path: &[u8], depth: usize) {
        if !self.seen.insert(inode) || self.is_over() {
            return;
        }
        if depth > MAX_DEPTH {
            self.found.is_cut_short = true;
            return;
        }
        self.watch.is_hit.store(false, Ordering::Relaxed);
        let kind = fs.metadata(inode).map(|metadata| metadata.kind);
        let mut entries = Vec::new();
        match kind {
            Ok(FileKind::Directory) => entries = fs.read_dir(inode).unwrap_or_default(),
            Ok(FileKind::Regular) => self.read(fs, inode),
            Ok(FileKind::Symlink) => drop(fs.read_link(inode)),
            _ => {}
        }
        if self.watch.is_hit.load(Ordering::Relaxed) {
            let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
            self.found.files.push(Victim { volume: volume.to_owned(), path });
        }
        for entry in entries {
            let path = [path, b"/", &entry.name].concat();
            self.walk(volume, fs, entry.inode, &path, depth + 1);
        }
    }

    /// Reads a whole file, however much of it is damaged.
    fn read(&self, fs: &dyn FileSystem, file: Inode) {
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        let Ok(size) = fs.metadata(file).map(|metadata| metadata.size) else { return };
        while offset < size && !self.is_over() && !self.watch.is_hit.load(Ordering::Relaxed) {
            // A piece that cannot be read was asked for all the same, which is what counts.
            drop(fs.read_at(file, &mut buffer, offset));
            // Holes ask nothing of the disk, and a file may be longer than anyone can wait.
            self.watch.read.fetch_add(PIECE as u64, Ordering::Relaxed);
            offset += PIECE as u64;
        }
    }

    fn is_over(&self) -> bool {
        self.found.files.len() >= MAX_FILES || self.watch.read.load(Ordering::Relaxed) > MAX_READ
    }
}

/// Notes whether a read touches a damaged range.
#[derive(Debug)]
struct Watch {
    inner: Device,
    /// Ascending by start.
    damaged: Vec<Range<u64>>,
    is_hit: AtomicBool,
    read: AtomicU64,
}

impl BlockDevice for Watch {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if self.damaged.iter().take_while(|range| range.start < end).any(|range| range.end > offset) {
            self.is_hit.store(true, Ordering::Relaxed);
        }
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.inner.extent_at(offset)
    }
}
