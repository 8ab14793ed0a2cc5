//! `find`: paths below a directory, by name and kind.

use std::collections::HashSet;
use std::io::{self, Write};

use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem, Inode};

use super::view::{View, kind_name, text};
use crate::cli::Status;
use crate::cli::args::{Common, Find, Output};
use crate::cli::render::{json, plain};

/// Directories one within the other; more is a loop that damage made.
const MAX_DEPTH: usize = 1000;

pub(crate) fn find(common: &Common, args: &Find) -> anyhow::Result<Status> {
    let view = View::open(common, &args.look.place)?;
    let tree = view.tree();
    let root = resolve(tree, args.look.path.as_bytes())?;
    let mut search = Search { tree, args, seen: HashSet::new(), found: Vec::new(), problems: Vec::new() };
    let start = args.look.path.trim_end_matches('/');
    search.walk(root, start.as_bytes(), 0);
    let mut out = io::stdout().lock();
    let status = if search.problems.is_empty() { Status::Clean } else { Status::Failed };
    if common.output == Output::Human {
        for (path, _) in &search.found {
            writeln!(out, "{}", plain(path))?;
        }
        for problem in &search.problems {
            writeln!(io::stderr(), "guestmend: {}", plain(problem))?;
        }
    } else {
        let files =
            search.found.into_iter().map(|(path, kind)| json::FoundFile { path, kind: kind_name(kind) });
        let body = json::FoundFiles {
            image: args.look.place.image.to_string_lossy().into_owned(),
            files: files.collect(),
            problems: search.problems,
        };
        json::print(&mut out, &json::document("find", body), common.output)?;
    }
    Ok(status)
}

struct Search<'a> {
    tree: &'a dyn FileSystem,
    args: &'a Find,
    /// Directories that were entered: damage can make loops.
    seen: HashSet<Inode>,
    found: Vec<(String, FileKind)>,
    problems: Vec<String>,
}

impl Search<'_> {
    fn walk(&mut self, directory: Inode, path: &[u8], depth: usize) {
        if depth > MAX_DEPTH || !self.seen.insert(directory) {
            return;
        }
        let mut entries = match self.tree.read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return self.problems.push(format!("{}: {error}", text(path))),
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = [path, b"/", &entry.name].concat();
            let kind = match self.tree.metadata(entry.inode) {
                Ok(metadata) => metadata.kind,
                Err(error) => {
                    self.problems.push(format!("{}: {error}", text(&path)));
                    continue;
                }
            };
            let is_named =
                self.args.name.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), &entry.name));
            if is_named && self.args.kind.is_none_or(|wanted| wanted.takes(kind)) {
                self.found.push((text(&path), kind));
            }
            if kind == FileKind::Directory {
                self.walk(entry.inode, &path, depth + 1);
            }
        }
    }
}

/// Whether `name` is what `pattern` describes: `*` stands for anything, `?` for one byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut with) = (0, 0);
    // Where to go on when what followed the last `*` does not fit.
    let mut retry = None;
    while at < name.len() {
        match pattern.get(with) {
            Some(b'*') => {
                retry = Some((at, with));
                with += 1;
            }
            Some(b'?') => (at, with) = (at + 1, with + 1),
            Some(byte) if *byte == name[at] => (at, with) = (at + 1, with + 1),
            _ => match retry {
                Some((taken, star)) => {
                    retry = Some((taken + 1, star));
                    (at, with) = (taken + 1, star + 1);
                }
                None => return false,
            },
        }
    }
    pattern[with..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, is_match) in [
            ("fstab", "fstab", true),
            ("fstab", "fstab.bak", false),
            ("*.conf", "dracut.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "x.config", false),
            ("?ab*", "tab", true),
            ("*a*b*c", "aabbcabc", true),
            ("*a*b*c", "aabbca", false),
            ("", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is_match, "{pattern} {name}");
        }
        assert!(!matches("*a".repeat(40).as_bytes(), "a".repeat(39).as_bytes()));
    }
}
