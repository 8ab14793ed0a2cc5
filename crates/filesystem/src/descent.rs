//! Walking a whole tree that damage may have made endless.

use std::collections::HashSet;

use crate::Inode;

/// Directories within each other that a walk enters; the longest path that Linux takes has room for twice as many.
pub const MAX_DEPTH: usize = 1000;

/// The directories that a walk is in, and those that it was in.
///
/// A directory has one parent, so whoever meets one twice is in a damaged tree: one that is its own ancestor has no
/// end, and a chain of directories with two names for the next has 2ⁿ paths. Each is therefore entered once.
#[derive(Debug, Default)]
pub struct Descent {
    above: Vec<Inode>,
    entered: HashSet<Inode>,
}

/// Why a directory is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEntered {
    /// It is its own ancestor.
    #[error("a directory that is within itself")]
    WithinItself,
    /// Its entries were seen under another path.
    #[error("a directory that has another path too")]
    Again,
    /// There are [`MAX_DEPTH`] above it.
    #[error("more than {MAX_DEPTH} directories within each other")]
    TooDeep,
}

impl Descent {
    /// Enters `directory`; [`Descent::leave`] comes back out of it.
    ///
    /// # Errors
    /// [`NotEntered`] when it is to be passed over; it is not to be left then.
    pub fn enter(&mut self, directory: Inode) -> Result<(), NotEntered> {
        if self.above.contains(&directory) {
            return Err(NotEntered::WithinItself);
        }
        if self.above.len() >= MAX_DEPTH {
            return Err(NotEntered::TooDeep);
        }
        if !self.entered.insert(directory) {
            return Err(NotEntered::Again);
        }
        self.above.push(directory);
        Ok(())
    }

    /// Leaves the directory that was entered last.
    pub fn leave(&mut self) {
        self.above.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileKind, FileSystem, MemoryFs};

    /// Every path that a walk comes to, and why it did not go on.
    fn walk(fs: &MemoryFs, dir: Inode, path: &str, descent: &mut Descent, said: &mut Vec<String>) {
        if let Err(reason) = descent.enter(dir) {
            return said.push(format!("{path}: {reason}"));
        }
        for entry in fs.read_dir(dir).unwrap() {
            let path = format!("{path}/{}", String::from_utf8(entry.name).unwrap());
            if entry.kind == FileKind::Directory {
                walk(fs, entry.inode, &path, descent, said);
            }
        }
        descent.leave();
    }

    fn said(fs: &MemoryFs) -> Vec<String> {
        let mut said = Vec::new();
        walk(fs, fs.root(), "", &mut Descent::default(), &mut said);
        said
    }

    #[test]
    fn a_loop_is_left_at_once() {
        let fs = MemoryFs::new().file("/a/b/file", "x").link("/a/b/up", "/a").link("/a/b/self", "/a/b");
        assert_eq!(
            said(&fs.link("/a/top", "/")),
            [
                "/a/b/self: a directory that is within itself",
                "/a/b/up: a directory that is within itself",
                "/a/top: a directory that is within itself"
            ]
        );
    }

    #[test]
    fn many_paths_to_one_directory_are_not_all_walked() {
        let mut path = String::new();
        let mut fs = MemoryFs::new();
        for _ in 0..40 {
            fs = fs.directory(&format!("{path}/one")).link(&format!("{path}/two"), &format!("{path}/one"));
            path.push_str("/one");
        }
        assert_eq!(said(&fs).len(), 40);
        assert_eq!(said(&fs)[39], "/two: a directory that has another path too");
    }

    #[test]
    fn depth_ends() {
        let fs = |depth: usize| MemoryFs::new().directory(&"/d".repeat(depth));
        assert_eq!(said(&fs(MAX_DEPTH - 1)), Vec::<String>::new());
        let said = said(&fs(MAX_DEPTH + 5));
        assert!(said[0].ends_with("d: more than 1000 directories within each other"), "{said:?}");
        assert_eq!(said.len(), 1);
    }
}
