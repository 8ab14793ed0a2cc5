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
use crate::cli::render::{json, plain};
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

/// `2026-11-24 00:17` in UTC; the civil date by the usual day-count arithmetic.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let time = seconds.rem_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", time / 3600, time % 3600 / 60)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_795_479_420), "2026-11-24 00:17");
        assert_eq!(date(-1), "1969-12-31 23:59");
    }
}
