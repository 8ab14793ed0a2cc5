//! `ntfs_tree [--identity | --state | --go-on] IMAGE`: lists everything in an NTFS image, one line a file, for comparison with another reader.
//!
//! Tab-separated: path, `ls` letter, mode, links, uid, gid, size, mtime, inode, device, SHA-256 of the
//! content, symlink target, extended attributes. Bytes that are not printable ASCII are escaped.
#![expect(clippy::print_stderr, reason = "a command-line program")]

use std::collections::HashSet;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode};
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let image = arguments.last().ok_or("usage: ntfs_tree [--identity | --state | --go-on] IMAGE")?;
    let device: Device = Arc::new(FileDevice::open(Path::new(image))?);
    if arguments.contains(&"--identity".to_owned()) {
        let identity = (filesystem_ntfs::FORMAT.probe)(&*device)?.ok_or("not NTFS")?;
        write!(std::io::stdout(), "{} {} ", identity.uuid.unwrap_or_default(), identity.kind)?;
        return Ok(());
    }
    let opened = filesystem_ntfs::Ntfs::open(device)?;
    if arguments.contains(&"--state".to_owned()) {
        writeln!(std::io::stdout(), "{:?} {:?}", opened.value.state(), opened.problems)?;
        return Ok(());
    }
    for problem in &opened.problems {
        eprintln!("problem: {problem}");
    }
    let fs: &dyn FileSystem = &opened.value;
    eprintln!("{:?}", fs.info());
    let mut walk = Walk { fs, goes_on: arguments.contains(&"--go-on".to_owned()), seen: HashSet::new() };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut todo = vec![(b".".to_vec(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        match walk.visit(&path, inode, &mut todo) {
            Ok(line) => writeln!(out, "{line}")?,
            Err(error) if walk.goes_on => writeln!(out, "{}\terror\t{error}", path.escape_ascii())?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Walk<'a> {
    fs: &'a dyn FileSystem,
    /// Whether damage is a line, and not the end.
    goes_on: bool,
    /// Directories that were entered; a damaged one may be in itself.
    seen: HashSet<Inode>,
}

impl Walk<'_> {
    fn visit(
        &mut self,
        path: &[u8],
        inode: Inode,
        todo: &mut Vec<(Vec<u8>, Inode)>,
    ) -> Result<String, Box<dyn Error>> {
        let line = line(self.fs, path, inode)?;
        if self.fs.metadata(inode)?.kind != FileKind::Directory || !self.seen.insert(inode) {
            return Ok(line);
        }
        for entry in self.fs.read_dir(inode)? {
            let kind = self.fs.metadata(entry.inode).map(|metadata| metadata.kind);
            if !self.goes_on && entry.kind != FileKind::Unknown && entry.kind != kind? {
                return Err(format!("{:?}: the entry says {:?}", entry.name, entry.kind).into());
            }
            if self.fs.lookup(inode, &entry.name)? != Some(entry.inode) && !self.goes_on {
                return Err(format!("{:?} is listed and not found", entry.name.escape_ascii()).into());
            }
            todo.push(([path, b"/", &entry.name].concat(), entry.inode));
        }
        Ok(line)
    }
}

fn line(fs: &dyn FileSystem, path: &[u8], inode: Inode) -> Result<String, Box<dyn Error>> {
    let meta = fs.metadata(inode)?;
    let content = match meta.kind {
        FileKind::Regular if meta.size > 1 << 40 => "huge".into(),
        FileKind::Regular => hash(fs, inode)?,
        _ => "-".into(),
    };
    let target = match meta.kind {
        FileKind::Symlink => fs.read_link(inode)?.escape_ascii().to_string(),
        _ => "-".into(),
    };
    let mut xattrs = fs.xattrs(inode)?;
    xattrs.sort();
    for (name, value) in &xattrs {
        assert_eq!(fs.xattr(inode, name)?.as_ref(), Some(value), "one attribute is as in the list of all");
    }
    let xattrs: Vec<String> =
        xattrs.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), digest(value))).collect();
    // A directory's size on disk is not what Linux shows.
    let size = if meta.kind == FileKind::Directory { 0 } else { meta.size };
    Ok(format!(
        "{}\t{}\t{:04o}\t{}\t{}\t{}\t{size}\t{}.{:09}\t{}\t{}:{}\t{content}\t{target}\t{}",
        path.escape_ascii(),
        meta.kind.letter(),
        meta.permissions,
        meta.links,
        meta.uid,
        meta.gid,
        meta.modified.seconds,
        meta.modified.nanoseconds,
        inode.0 & 0xffff_ffff_ffff,
        meta.device.0,
        meta.device.1,
        xattrs.join(","),
    ))
}

fn hash(fs: &dyn FileSystem, inode: Inode) -> Result<String, Box<dyn Error>> {
    let mut hasher = Sha256::new();
    // An odd length, so that reads begin and end inside blocks.
    let mut buf = vec![0; 1_000_003];
    let mut offset = 0;
    loop {
        match fs.read_at(inode, &mut buf, offset)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => {
                hasher.update(&buf[..count]);
                offset += count as u64;
            }
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
