//! `ls`.

use std::io::{self, Write};

use filesystem::path::{resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};

use super::view::{View, entry};
use crate::cli::Status;
use crate::cli::args::{Common, Look, Output};
use crate::cli::render::{date, json, plain};

pub(crate) fn ls(common: &Common, args: &Look) -> anyhow::Result<Status> {
    let view = View::open(common, &args.place)?;
    let entries = list(view.tree(), &args.path)?;
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
        let image = args.place.image.to_string_lossy().into_owned();
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
