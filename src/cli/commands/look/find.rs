//! `find`: paths below a directory, by name and kind.

use std::io::{self, Write};

use filesystem::path::resolve;
use filesystem::{Descent, DirEntry, FileKind, FileSystem, Inode};

use super::view::{View, kind_name, text};
use crate::cli::Status;
use crate::cli::args::{Common, Find, Output};
use crate::cli::render::{json, plain};

/// Bytes of paths that are gathered at most.
const MAX_FOUND: usize = 1 << 30;

pub(crate) fn find(common: &Common, args: &Find) -> anyhow::Result<Status> {
    let view = View::open(common, &args.look.place)?;
    let tree = view.tree();
    let root = resolve(tree, args.look.path.as_bytes())?;
    let mut search = Search::new(tree, args);
    let start = args.look.path.trim_end_matches('/');
    search.walk(root, start.as_bytes());
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
    descent: Descent,
    found: Vec<(String, FileKind)>,
    /// Bytes that more paths may have.
    left: usize,
    problems: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(tree: &'a dyn FileSystem, args: &'a Find) -> Self {
        let (descent, found, problems) = Default::default();
        Self { tree, args, descent, found, left: MAX_FOUND, problems }
    }

    fn walk(&mut self, directory: Inode, path: &[u8]) {
        if let Err(reason) = self.descent.enter(directory) {
            return self.problem(path, &reason);
        }
        match self.tree.read_dir(directory) {
            Ok(entries) => self.entries(entries, path),
            Err(error) => self.problem(path, &error),
        }
        self.descent.leave();
    }

    fn problem(&mut self, path: &[u8], reason: &dyn std::fmt::Display) {
        let path = if path.is_empty() { "/".to_owned() } else { text(path) };
        self.problems.push(format!("{path}: {reason}"));
    }

    fn entries(&mut self, mut entries: Vec<DirEntry>, path: &[u8]) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = [path, b"/", &entry.name].concat();
            let kind = match self.tree.metadata(entry.inode) {
                Ok(metadata) => metadata.kind,
                Err(error) => {
                    self.problem(&path, &error);
                    continue;
                }
            };
            let is_named =
                self.args.name.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), &entry.name));
            if is_named && self.args.kind.is_none_or(|wanted| wanted.takes(kind)) {
                let Some(left) = self.left.checked_sub(path.len()) else {
                    return self.problem(&path, &"more files than are listed at once; look into a folder");
                };
                self.left = left;
                self.found.push((text(&path), kind));
            }
            if kind == FileKind::Directory {
                self.walk(entry.inode, &path);
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
    use std::path::PathBuf;

    use filesystem::MemoryFs;

    use super::*;
    use crate::cli::args::{Look, Place};

    #[test]
    fn directories_within_themselves_are_reported() {
        let fs = MemoryFs::new().file("/a/b/file", "x").link("/a/b/up", "/a").link("/c", "/a/b");
        let place = Place { image: PathBuf::new(), volume: None, disk: Vec::new() };
        let look = Look { place, path: "/".into() };
        let args = Find { look, name: None, kind: None };
        let mut search = Search::new(&fs, &args);
        search.walk(fs.root(), b"");
        let found: Vec<&str> = search.found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, ["/a", "/a/b", "/a/b/file", "/a/b/up", "/c"]);
        assert_eq!(
            search.problems,
            ["/a/b/up: a directory that is within itself", "/c: a directory that has another path too"]
        );
    }

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
