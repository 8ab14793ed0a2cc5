//! `ls`, `cat`: look inside, as the guest sees its tree.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use filesystem::path::{PathError, resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem, Inode};
use guest::Guest;

use crate::cli::Status;
use crate::cli::args::{Common, Look, Output};
use crate::cli::input::Disks;
use crate::cli::render::{date, json, plain};
use crate::examine;

/// The only system, or the first of several.
fn first_guest<'a>(guests: &'a [Guest], image: &Path) -> anyhow::Result<&'a Guest> {
    guests.first().with_context(|| format!("{}: no installed system found", image.display()))
}

pub(crate) fn ls(common: &Common, args: &Look) -> anyhow::Result<Status> {
    let disks = Disks::open(common, std::slice::from_ref(&args.image.image))?;
    let examination = examine(&disks.devices(), &disks.keys, &[]);
    let tree = &first_guest(&examination.guests, &args.image.image)?.tree;
    let entries = list(tree, &args.path)?;
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        for entry in &entries {
            let target =
                entry.target.as_deref().map_or_else(String::new, |target| format!(" -> {}", plain(target)));
            writeln!(
                out,
                "{}{} {:>5} {:>5} {:>12} {} {}{target}",
                if entry.kind == "file" { '-' } else { entry.kind.chars().next().unwrap_or('?') },
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                date(entry.modified),
                plain(&entry.name)
            )?;
        }
    } else {
        let image = args.image.image.to_string_lossy().into_owned();
        let body = json::Listing { image, path: args.path.clone(), entries };
        json::print(&mut out, &json::document("ls", body), common.output)?;
    }
    Ok(Status::Clean)
}

fn list(tree: &dyn FileSystem, path: &str) -> anyhow::Result<Vec<json::ListingEntry>> {
    let inode = resolve(tree, path.as_bytes())?;
    if tree.metadata(inode)?.kind != FileKind::Directory {
        let inode = resolve_no_follow(tree, path.as_bytes())?;
        let name = path.rsplit('/').next().unwrap_or(path);
        return Ok(vec![entry(tree, name.as_bytes(), inode)?]);
    }
    let mut found = tree.read_dir(inode)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.iter().map(|found| entry(tree, &found.name, found.inode)).collect()
}

fn entry(tree: &dyn FileSystem, name: &[u8], inode: Inode) -> anyhow::Result<json::ListingEntry> {
    let metadata = tree.metadata(inode)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
    Ok(json::ListingEntry {
        name: text(name.to_vec()),
        kind: match metadata.kind {
            FileKind::Regular => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "link",
            FileKind::CharDevice => "character device",
            FileKind::BlockDevice => "block device",
            FileKind::Fifo => "pipe",
            FileKind::Socket => "socket",
            FileKind::Unknown => "unknown",
        },
        mode: format!("{:04o}", metadata.permissions),
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        modified: metadata.modified.seconds,
        target: if metadata.kind == FileKind::Symlink { Some(text(tree.read_link(inode)?)) } else { None },
        selinux: tree.xattr(inode, b"security.selinux").ok().flatten().map(text),
    })
}

pub(crate) fn cat(common: &Common, args: &Look) -> anyhow::Result<Status> {
    let disks = Disks::open(common, std::slice::from_ref(&args.image.image))?;
    let examination = examine(&disks.devices(), &disks.keys, &[]);
    let tree = &first_guest(&examination.guests, &args.image.image)?.tree;
    let inode = resolve(tree, args.path.as_bytes())?;
    if tree.metadata(inode)?.kind != FileKind::Regular {
        bail!("{}: not a regular file", args.path);
    }
    let mut out = io::stdout().lock();
    let mut buf = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        let count = tree
            .read_at(inode, &mut buf, at)
            .map_err(|cause| PathError::Fs { path: args.path.clone(), cause })?;
        if count == 0 {
            break;
        }
        out.write_all(&buf[..count])?;
        at += count as u64;
    }
    out.flush()?;
    Ok(Status::Clean)
}
