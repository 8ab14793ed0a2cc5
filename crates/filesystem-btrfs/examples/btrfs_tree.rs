//! `btrfs_tree [subvol=PATH|subvolid=ID] IMAGE...`: lists everything in a btrfs file system, one line a file, for
//! comparison with another reader. `btrfs_tree subvolumes IMAGE...` lists the subvolumes instead.
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
use filesystem_btrfs::Select;
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = arguments.iter().position(|argument| argument.starts_with("subvol"));
    let option = option.map(|index| arguments.remove(index)).unwrap_or_default();
    let mut devices: Vec<Device> = Vec::new();
    for image in &arguments {
        devices.push(Arc::new(FileDevice::open(Path::new(image))?));
    }
    if option == "subvolumes" {
        return list_subvolumes(devices);
    }
    let select = match option.split_once('=') {
        Some(("subvolid", id)) => Select::Id(id.parse()?),
        Some((_, path)) => Select::Path(path.as_bytes()),
        None => Select::Default,
    };
    let opened = filesystem_btrfs::open_subvolume(devices, select)?;
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

fn list_subvolumes(devices: Vec<Device>) -> Result<(), Box<dyn Error>> {
    let found = filesystem_btrfs::subvolumes(devices)?;
    for problem in &found.problems {
        eprintln!("problem: {problem}");
    }
    let mut out = std::io::stdout().lock();
    for subvolume in found.value {
        let path = subvolume.path.unwrap_or_default();
        let parent = subvolume.parent_uuid.map_or_else(|| "-".to_owned(), |uuid| uuid.to_string());
        writeln!(
            out,
            "ID {} parent {} parent_uuid {parent} uuid {} path {} {}{}",
            subvolume.id,
            subvolume.parent.unwrap_or_default(),
            subvolume.uuid,
            path.escape_ascii(),
            if subvolume.is_read_only { "ro" } else { "rw" },
            if subvolume.is_default { " default" } else { "" },
        )?;
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
        // The kernel shows the number within the subvolume; for a placeholder, always 2.
        if inode.0 >> 47 & 1 == 1 { 2 } else { inode.0 & 0x7fff_ffff_ffff },
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
