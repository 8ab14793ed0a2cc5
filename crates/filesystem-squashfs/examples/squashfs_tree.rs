//! `squashfs_tree IMAGE`: lists everything in a squashfs image, one line a file, for comparison with another reader.
//!
//! Tab-separated: path, `ls` letter, mode, links, uid, gid, size, mtime, inode, device, SHA-256 of the
//! content, symlink target, extended attributes. Bytes that are not printable ASCII are escaped.
#![expect(clippy::print_stderr, reason = "a command-line program")]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode};
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args_os().nth(1).ok_or("usage: squashfs_tree IMAGE")?;
    let device: Device = Arc::new(FileDevice::open(Path::new(&image))?);
    let opened = (filesystem_squashfs::FORMAT.open)(device)?;
    for problem in &opened.problems {
        eprintln!("problem: {problem}");
    }
    let fs = &*opened.value;
    eprintln!("{:?}", fs.info());
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut todo = vec![(b".".to_vec(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        writeln!(out, "{}", line(fs, &path, inode)?)?;
        if fs.metadata(inode)?.kind == FileKind::Directory {
            for entry in fs.read_dir(inode)? {
                let stored = fs.metadata(entry.inode)?.kind;
                if entry.kind != FileKind::Unknown && entry.kind != stored {
                    return Err(format!("{:?}: the entry says {:?}", entry.name, entry.kind).into());
                }
                todo.push(([&path[..], b"/", &entry.name].concat(), entry.inode));
            }
        }
    }
    Ok(())
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
        0,
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
