//! Images made by the real tools when a test runs, and the judges of what became of them.

#![allow(dead_code, clippy::allow_attributes, reason = "each test crate uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode, path};
use filesystem_ext4::FORMAT;
use sha2::{Digest, Sha256};

/// Feature sets that guests have, or had, and what `mke2fs` needs to be told to make them.
pub(crate) const MATRIX: &[(&str, &str)] = &[
    ("ext2", "-t ext2 -b 4096"),
    ("ext3", "-t ext3 -b 4096"),
    ("ext4", "-t ext4 -b 4096"),
    ("ext4-upstream", "-t ext4 -b 4096 -O metadata_csum,64bit,metadata_csum_seed,orphan_file"),
    ("1k-blocks", "-t ext4 -b 1024"),
    ("ext2-1k", "-t ext2 -b 1024"),
    ("no-64bit", "-t ext4 -b 4096 -O ^64bit"),
    ("uninit_bg", "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg"),
    ("uninit_bg-32", "-t ext4 -b 4096 -O ^metadata_csum,^64bit,uninit_bg"),
    ("no-checksums", "-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg"),
    ("meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    ("no-flex_bg", "-t ext4 -b 1024 -O ^flex_bg"),
    ("sparse_super2", "-t ext4 -b 1024 -O sparse_super2"),
    ("inline_data", "-t ext4 -b 4096 -O inline_data"),
    ("inline_data-1k", "-t ext4 -b 1024 -I 512 -O inline_data"),
    ("bigalloc", "-t ext4 -b 4096 -O bigalloc -C 16384"),
    ("128-byte-inodes", "-t ext4 -b 4096 -I 128"),
    ("large_dir", "-t ext4 -b 4096 -O large_dir"),
    ("casefold", "-t ext4 -b 4096 -O casefold -E encoding=utf8"),
    ("ea_inode", "-t ext4 -b 4096 -O ea_inode"),
    ("quota", "-t ext4 -b 4096 -O quota"),
    ("mmp", "-t ext4 -b 4096 -O mmp"),
    ("no-journal", "-t ext4 -b 4096 -O ^has_journal"),
    ("no-filetype", "-t ext2 -b 4096 -O ^filetype"),
    ("64k-blocks", "-t ext4 -b 65536 -N 4096"),
];

/// Whether these tools are installed; prints what is not.
pub(crate) fn have(tools: &[&str]) -> bool {
    let missing: Vec<&&str> = tools.iter().filter(|tool| find(tool).is_none()).collect();
    for tool in &missing {
        println!("skipped: {tool} is not installed");
    }
    missing.is_empty()
}

/// Tools for file systems often lie outside an ordinary user's path.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(tool)).find(|candidate| candidate.is_file())
}

pub(crate) fn run(tool: &str, args: &[&OsStr]) -> Output {
    let path = find(tool).expect("the test has asked for the tool");
    Command::new(path).args(args).env("LC_ALL", "C").env("MKE2FS_SKIP_PROGRESS", "1").output().unwrap()
}

/// A folder that goes away with its images.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image of `megabytes` MiB with the tree below `source`; `None`, with a word about it, when this
    /// `mke2fs` does not know the features.
    pub(crate) fn image(
        &self,
        name: &str,
        args: &str,
        megabytes: u32,
        source: Option<&Path>,
    ) -> Option<PathBuf> {
        let path = self.path(name);
        let size = format!("{megabytes}M");
        let mut all: Vec<&OsStr> = vec!["-q".as_ref(), "-F".as_ref()];
        all.extend(args.split(' ').map(OsStr::new));
        if let Some(source) = source {
            all.extend([OsStr::new("-d"), source.as_os_str()]);
        }
        all.extend([path.as_os_str(), size.as_ref()]);
        let output = run("mke2fs", &all);
        if output.status.success() {
            return Some(path);
        }
        println!("skipped: this mke2fs cannot do {name}: {}", String::from_utf8_lossy(&output.stderr));
        None
    }
}

/// Runs `debugfs -w` with one command a line; returns what it printed.
pub(crate) fn debugfs(image: &Path, commands: &str) -> String {
    let script = image.with_extension("debugfs");
    fs::write(&script, commands).unwrap();
    let output = run("debugfs", &["-w".as_ref(), "-f".as_ref(), script.as_os_str(), image.as_os_str()]);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The answer of `debugfs` to one question.
pub(crate) fn ask_debugfs(image: &Path, question: &str) -> String {
    let output = run("debugfs", &["-R".as_ref(), question.as_ref(), image.as_os_str()]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The content of a file, as `debugfs` reads it.
pub(crate) fn debugfs_cat(image: &Path, path: &str) -> Vec<u8> {
    run("debugfs", &["-R".as_ref(), format!("cat {path}").as_ref(), image.as_os_str()]).stdout
}

/// What `e2fsck -fn` has to say; nothing when it finds nothing.
pub(crate) fn e2fsck(image: &Path) -> Result<(), String> {
    let output = run("e2fsck", &["-fn".as_ref(), image.as_os_str()]);
    if output.status.code() == Some(0) {
        return Ok(());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stdout)))
}

pub(crate) fn device(image: &Path) -> Device {
    Arc::new(FileDevice::open(image).unwrap())
}

pub(crate) fn writable(image: &Path) -> Device {
    Arc::new(FileDevice::open_writable(image).unwrap())
}

/// Opens a healthy file system.
pub(crate) fn open(device: Device) -> Box<dyn FileSystem> {
    let opened = (FORMAT.open)(device).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.value
}

pub(crate) fn find_file(fs: &dyn FileSystem, path: &str) -> Inode {
    path::resolve_no_follow(fs, path.as_bytes()).unwrap()
}

pub(crate) fn read(fs: &dyn FileSystem, path: &str) -> Vec<u8> {
    filesystem::read_to_end(fs, find_file(fs, path), 1 << 30).unwrap()
}

/// One file as a line: kind, permissions, owner, links, time, and what is in it.
pub(crate) type Listing = BTreeMap<String, String>;

/// Everything below the root of an open file system.
pub(crate) fn list(fs: &dyn FileSystem) -> Listing {
    let mut listing = Listing::new();
    let mut todo = vec![(String::new(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        let metadata = fs.metadata(inode).unwrap();
        let detail = match metadata.kind {
            FileKind::Directory => {
                for entry in fs.read_dir(inode).unwrap() {
                    let kind = fs.metadata(entry.inode).unwrap().kind;
                    assert!(entry.kind == kind || entry.kind == FileKind::Unknown, "{path}");
                    todo.push((format!("{path}/{}", entry.name.escape_ascii()), entry.inode));
                }
                String::new()
            }
            FileKind::Regular => format!("{} {}", metadata.size, hash_file(fs, inode, metadata.size)),
            FileKind::Symlink => fs.read_link(inode).unwrap().escape_ascii().to_string(),
            _ => format!("{:?}", metadata.device),
        };
        let line = format!(
            "{}{:04o} {}:{} {} {}",
            metadata.kind.letter(),
            metadata.permissions,
            metadata.uid,
            metadata.gid,
            metadata.modified.seconds,
            detail
        );
        listing.insert(path, line);
    }
    listing
}

fn hash_file(fs: &dyn FileSystem, inode: Inode, size: u64) -> String {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 300_000];
    let mut offset = 0;
    while offset < size {
        let count = fs.read_at(inode, &mut buf, offset).unwrap();
        assert!(count > 0);
        hasher.update(&buf[..count]);
        offset += count as u64;
    }
    assert_eq!(fs.read_at(inode, &mut buf, size).unwrap(), 0);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same of a tree on the host.
pub(crate) fn list_host(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut todo = vec![(String::new(), root.to_owned())];
    while let Some((path, host)) = todo.pop() {
        let metadata = fs::symlink_metadata(&host).unwrap();
        let kind = metadata.file_type();
        let detail = if kind.is_dir() {
            for entry in fs::read_dir(&host).unwrap() {
                let entry = entry.unwrap();
                todo.push((format!("{path}/{}", entry.file_name().as_bytes().escape_ascii()), entry.path()));
            }
            String::new()
        } else if kind.is_file() {
            format!("{} {}", metadata.len(), hex(&Sha256::digest(fs::read(&host).unwrap())))
        } else if kind.is_symlink() {
            fs::read_link(&host).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
        } else {
            assert!(kind.is_fifo());
            "(0, 0)".into()
        };
        let line = format!(
            "{}{:04o} {}:{} {} {}",
            FileKind::from_mode(metadata.mode()).letter(),
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            detail
        );
        listing.insert(path, line);
    }
    listing
}

/// Bytes that differ from block to block: a random piece of odd length, each time with another number.
pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut piece = [0; 4099];
    for byte in &mut piece {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    let mut bytes = Vec::with_capacity(length + piece.len());
    while bytes.len() < length {
        piece[..8].copy_from_slice(&(bytes.len() as u64 ^ state).to_le_bytes());
        bytes.extend_from_slice(&piece);
    }
    bytes.truncate(length);
    bytes
}

/// A tree with a bit of everything that needs no root: sizes around every boundary, holes, symlinks, a hard
/// link, a FIFO, and directories large enough for an index.
pub(crate) fn make_tree(root: &Path) {
    let _ = fs::remove_dir_all(root);
    for folder in ["etc", "boot/grub", "dirs/d10", "dirs/d200", "dirs/d1200", "links", "odd"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/fstab"), "UUID=1 / ext4 defaults 0 1\n").unwrap();
    for size in
        [0, 1, 59, 60, 61, 100, 150, 400, 1023, 1024, 1025, 4096, 5000, 12288, 12289, 49152, 49153, 300_000]
    {
        fs::write(root.join(format!("boot/f{size}")), pattern(size, size as u64)).unwrap();
    }
    fs::write(root.join("boot/big"), pattern(3_000_000, 7)).unwrap();
    let sparse = fs::File::create(root.join("odd/sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    sparse.write_all_at(b"begin", 8192).unwrap();
    sparse.write_all_at(b"middle", 1_000_000).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    sparse.set_len(6_000_001).unwrap();
    fs::File::create(root.join("odd/hole")).unwrap().set_len(123_456).unwrap();
    for length in [1, 10, 59, 60, 61, 200, 400, 1000] {
        symlink("t".repeat(length), root.join(format!("links/s{length}"))).unwrap();
    }
    fs::hard_link(root.join("etc/fstab"), root.join("links/hard")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("odd/fifo")).status().unwrap().success());
    for (folder, count) in [("d10", 10), ("d200", 200), ("d1200", 1200)] {
        for number in 0..count {
            let name = format!("dirs/{folder}/entry-with-a-fairly-long-name-{number}");
            fs::File::create(root.join(name)).unwrap();
        }
    }
    let long = "n".repeat(255);
    fs::write(root.join("odd").join(long), "long").unwrap();
    fs::write(root.join("odd").join(OsStr::from_bytes(b"\xff\n \\")), "bytes").unwrap();
}
