//! `stat`: everything that is known of one file.

use std::io::{self, Write};

use filesystem::path::resolve_no_follow;
use filesystem::{FileKind, Timestamp};

use super::view::{View, kind_name, text};
use crate::cli::Status;
use crate::cli::args::{Common, Look, Output};
use crate::cli::render::{date, json, plain};

pub(crate) fn stat(common: &Common, args: &Look) -> anyhow::Result<Status> {
    let view = View::open(common, &args.place)?;
    let tree = view.tree();
    let inode = resolve_no_follow(tree, args.path.as_bytes())?;
    let metadata = tree.metadata(inode)?;
    let mut xattrs = tree.xattrs(inode)?;
    xattrs.sort();
    let is_device = matches!(metadata.kind, FileKind::CharDevice | FileKind::BlockDevice);
    let body = json::StatJson {
        image: args.place.image.to_string_lossy().into_owned(),
        path: args.path.clone(),
        kind: kind_name(metadata.kind),
        inode: inode.0,
        size: metadata.size,
        allocated: metadata.allocated,
        links: metadata.links,
        mode: format!("{:04o}", metadata.permissions),
        uid: metadata.uid,
        gid: metadata.gid,
        modified: metadata.modified.seconds,
        changed: metadata.changed.seconds,
        accessed: metadata.accessed.seconds,
        device: is_device.then_some([metadata.device.0, metadata.device.1]),
        target: if metadata.kind == FileKind::Symlink { Some(text(&tree.read_link(inode)?)) } else { None },
        xattrs: xattrs
            .iter()
            .map(|(name, value)| json::XattrJson { name: text(name), value: value_text(value) })
            .collect(),
    };
    let mut out = io::stdout().lock();
    if common.output != Output::Human {
        json::print(&mut out, &json::document("stat", body), common.output)?;
        return Ok(Status::Clean);
    }
    let target = body.target.as_deref().map_or_else(String::new, |target| format!(" -> {}", plain(target)));
    writeln!(out, "{}{target}", plain(&body.path))?;
    writeln!(
        out,
        "  {}, {} bytes, {} allocated, {} links, inode {}",
        body.kind, body.size, body.allocated, body.links, body.inode
    )?;
    writeln!(out, "  mode {}, owner {}, group {}", body.mode, body.uid, body.gid)?;
    if let Some([major, minor]) = body.device {
        writeln!(out, "  device {major}:{minor}")?;
    }
    for (name, time) in
        [("modified", metadata.modified), ("changed", metadata.changed), ("accessed", metadata.accessed)]
    {
        writeln!(out, "  {name:<8} {}", precise(time))?;
    }
    for xattr in &body.xattrs {
        writeln!(out, "  {} = {}", plain(&xattr.name), plain(&xattr.value))?;
    }
    Ok(Status::Clean)
}

fn precise(time: Timestamp) -> String {
    format!("{}:{:02}.{:09} UTC", date(time.seconds), time.seconds.rem_euclid(60), time.nanoseconds)
}

/// Text where it is text, else `0x` and hexadecimal digits, as getfattr(1) prints it.
fn value_text(value: &[u8]) -> String {
    let trimmed = value.strip_suffix(b"\0").unwrap_or(value);
    match std::str::from_utf8(trimmed) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => value.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}
