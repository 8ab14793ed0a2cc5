//! Reading many small files of a guest within a bound.

use std::collections::BTreeSet;

use filesystem::path::{PathError, resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};
use guest_files::shell_conf::{ShellConf, Variable};

/// Larger than any real configuration file.
const CONFIG_LIMIT: u64 = 1 << 20;
/// Bytes of all files together.
const TOTAL_LIMIT: u64 = 16 << 20;
/// Names of a folder that are looked at.
const MAX_NAMES: usize = 1000;

/// Reads files, and keeps what was wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a dyn FileSystem,
    /// What is there and could not be read, in words.
    pub(crate) problems: Vec<String>,
    /// Bytes that may still be read.
    left: u64,
    /// Whether a file was left out because of that.
    is_spent: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(tree: &'a dyn FileSystem) -> Self {
        Self { tree, problems: Vec::new(), left: TOTAL_LIMIT, is_spent: false }
    }

    /// The content of a file; empty for a link to `/dev/null`, by which a file of the same name elsewhere is masked.
    pub(crate) fn file(&mut self, path: &str) -> Option<Vec<u8>> {
        let inode = match resolve(self.tree, path.as_bytes()) {
            Ok(inode) => inode,
            Err(PathError::NotFound(_)) if self.link(path).as_deref() == Some("/dev/null") => {
                return Some(Vec::new());
            }
            Err(error) => {
                self.note(&error);
                return None;
            }
        };
        let content = self.tree.metadata(inode).and_then(|metadata| match metadata.kind {
            FileKind::Regular if metadata.size.min(CONFIG_LIMIT) > self.left => {
                if !std::mem::replace(&mut self.is_spent, true) {
                    self.problems.push(format!("{path}: too much configuration, the rest is not read"));
                }
                self.left = 0;
                Ok(None)
            }
            FileKind::Regular => filesystem::read_to_end(self.tree, inode, CONFIG_LIMIT).map(Some),
            FileKind::CharDevice => Ok(Some(Vec::new())),
            _ => Ok(None),
        });
        match content {
            Ok(content) => {
                let length = content.as_ref().map_or(0, Vec::len);
                self.left = self.left.saturating_sub(length as u64);
                content
            }
            Err(error) => {
                self.problems.push(format!("{path}: {error}"));
                None
            }
        }
    }

    /// The names in a folder that `accepts` likes, sorted by their bytes; none where there is no folder.
    pub(crate) fn names(&mut self, folder: &str, accepts: fn(&str) -> bool) -> BTreeSet<String> {
        let entries = match resolve(self.tree, folder.as_bytes()) {
            Ok(inode) => self.tree.read_dir(inode),
            Err(error) => {
                self.note(&error);
                return BTreeSet::new();
            }
        };
        let entries = entries.unwrap_or_else(|error| {
            self.problems.push(format!("{folder}: {error}"));
            Vec::new()
        });
        let names = entries.iter().map(|entry| String::from_utf8_lossy(&entry.name));
        // A pattern of a shell does not match hidden files.
        let mut names = names.filter(|name| !name.starts_with('.') && accepts(name));
        let found = names.by_ref().take(MAX_NAMES).map(std::borrow::Cow::into_owned).collect();
        if names.next().is_some() {
            self.problems.push(format!("{folder}: more than {MAX_NAMES} names, the others are left out"));
        }
        found
    }

    /// Sources files in this order; of each list the first that is there.
    pub(crate) fn sourced(&mut self, files: &[Vec<String>]) -> Vec<Variable> {
        let mut conf = ShellConf::default();
        for alternatives in files {
            if let Some((path, content)) = alternatives.iter().find_map(|path| Some((path, self.file(path)?)))
            {
                conf.source(path, &content);
            }
        }
        conf.into_variables()
    }

    /// What the link at `path` holds, if it is one.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let inode = resolve_no_follow(self.tree, path.as_bytes()).ok()?;
        let is_link = self.tree.metadata(inode).ok()?.kind == FileKind::Symlink;
        let target = is_link.then(|| self.tree.read_link(inode).ok()).flatten()?;
        Some(String::from_utf8_lossy(&target).into_owned())
    }

    /// The kind of what is at `path`, symlinks followed.
    pub(crate) fn kind(&self, path: &str) -> Option<FileKind> {
        let inode = resolve(self.tree, path.as_bytes()).ok()?;
        self.tree.metadata(inode).ok().map(|metadata| metadata.kind)
    }

    /// Keeps an error, unless it says only that nothing is there.
    fn note(&mut self, error: &PathError) {
        if !matches!(error, PathError::NotFound(_) | PathError::NotADirectory(_)) {
            self.problems.push(error.to_string());
        }
    }
}
