//! Paths inside one file system.
//!
//! Symlinks are resolved inside the file system, as a process with its root there would see them: `..` at the
//! root stays at the root, an absolute target starts at the root. Nothing is ever resolved on the host.

use crate::{FileKind, FileSystem, Inode};

/// How many symlinks one walk may follow; Linux gives up at the same count with `ELOOP`.
pub const MAX_SYMLINKS: usize = 40;

/// Why a path does not lead to a file.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A component is not there.
    #[error("{0}: no such file or directory")]
    NotFound(String),
    /// A component that must be a directory is something else.
    #[error("{0}: not a directory")]
    NotADirectory(String),
    /// More than [`MAX_SYMLINKS`] symlinks on the way.
    #[error("{0}: too many levels of symbolic links")]
    TooManySymlinks(String),
    /// The file system is damaged on the way.
    #[error("{path}: {cause}")]
    Fs {
        /// The part of the path that was walked.
        path: String,
        /// What is wrong there; part of the message, so not a source of its own.
        cause: crate::Error,
    },
}

/// The inode that `path` leads to from the root; a symlink at its end is followed.
///
/// # Errors
/// [`PathError`], with the part of the path that failed.
pub fn resolve(fs: &dyn FileSystem, path: &[u8]) -> Result<Inode, PathError> {
    Walk { fs, symlinks_left: MAX_SYMLINKS }.walk(path, true)
}

/// As [`resolve`], but a symlink at the end of the path is returned itself.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_no_follow(fs: &dyn FileSystem, path: &[u8]) -> Result<Inode, PathError> {
    Walk { fs, symlinks_left: MAX_SYMLINKS }.walk(path, false)
}

/// The path without symlinks of what `path` leads to; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// As [`resolve`].
pub fn real_path(fs: &dyn FileSystem, path: &[u8]) -> Result<String, PathError> {
    Ok(display(&Walk { fs, symlinks_left: MAX_SYMLINKS }.trail(path, true)?, b""))
}

struct Walk<'a> {
    fs: &'a dyn FileSystem,
    symlinks_left: usize,
}

impl Walk<'_> {
    fn walk(&mut self, path: &[u8], follow_last: bool) -> Result<Inode, PathError> {
        Ok(self.trail(path, follow_last)?.last().map_or_else(|| self.fs.root(), |(_, inode)| *inode))
    }

    /// The names from the root to what the path leads to, and their inodes.
    fn trail(&mut self, path: &[u8], follow_last: bool) -> Result<Vec<(Vec<u8>, Inode)>, PathError> {
        // What is still to walk, last component on top; a symlink pushes its own components.
        let mut todo: Vec<Vec<u8>> = components(path);
        // The directories from the root to where we are, with the name that led into each.
        let mut trail: Vec<(Vec<u8>, Inode)> = Vec::new();
        while let Some(name) = todo.pop() {
            if name == b".." {
                trail.pop();
                continue;
            }
            let dir = trail.last().map_or_else(|| self.fs.root(), |(_, inode)| *inode);
            let here = || display(&trail, &name);
            let damaged = |cause| PathError::Fs { path: here(), cause };
            if self.fs.metadata(dir).map_err(damaged)?.kind != FileKind::Directory {
                return Err(PathError::NotADirectory(display(&trail, b"")));
            }
            let inode =
                self.fs.lookup(dir, &name).map_err(damaged)?.ok_or_else(|| PathError::NotFound(here()))?;
            let is_link = self.fs.metadata(inode).map_err(damaged)?.kind == FileKind::Symlink;
            if is_link && (follow_last || !todo.is_empty()) {
                self.symlinks_left =
                    self.symlinks_left.checked_sub(1).ok_or_else(|| PathError::TooManySymlinks(here()))?;
                let target = self.fs.read_link(inode).map_err(damaged)?;
                if target.first() == Some(&b'/') {
                    trail.clear();
                }
                todo.extend(components(&target));
            } else {
                trail.push((name, inode));
            }
        }
        Ok(trail)
    }
}

/// The components of a path in reverse, without empty ones and `.`.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

fn display(trail: &[(Vec<u8>, Inode)], last: &[u8]) -> String {
    let mut text = String::new();
    for name in trail.iter().map(|(name, _)| name.as_slice()).chain([last]).filter(|name| !name.is_empty()) {
        text.push('/');
        text.push_str(&String::from_utf8_lossy(name));
    }
    if text.is_empty() { "/".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFs;

    fn tree() -> MemoryFs {
        MemoryFs::new()
            .file("/etc/fstab", "x")
            .symlink("/etc/mtab", "../proc/mounts")
            .symlink("/bin", "usr/bin")
            .file("/usr/bin/sh", "")
            .symlink("/abs", "/etc")
            .symlink("/up", "../../../etc/fstab")
            .symlink("/loop", "/loop")
            .symlink("/a", "b/x")
            .symlink("/b", "etc")
    }

    #[test]
    fn symlinks_stay_inside() {
        let fs = tree();
        let fstab = resolve(&fs, b"/etc/fstab").unwrap();
        for path in ["etc//./fstab", "/abs/fstab", "/up", "/../etc/fstab", "/usr/../etc/fstab"] {
            assert_eq!(resolve(&fs, path.as_bytes()).unwrap(), fstab, "{path}");
        }
        assert!(resolve(&fs, b"/bin/sh").is_ok());
        assert_eq!(resolve(&fs, b"/").unwrap(), fs.root());
        assert_eq!(real_path(&fs, b"/bin/../abs/./sh/../../bin/sh").ok(), None, "abs/sh is not there");
        assert_eq!(real_path(&fs, b"/bin/sh").unwrap(), "/usr/bin/sh");
        assert_eq!(real_path(&fs, b"//up").unwrap(), "/etc/fstab");
        assert_eq!(real_path(&fs, b"..").unwrap(), "/");
    }

    #[test]
    fn errors_name_the_place() {
        let fs = tree();
        let text = |path: &str| resolve(&fs, path.as_bytes()).unwrap_err().to_string();
        assert_eq!(text("/etc/crypttab"), "/etc/crypttab: no such file or directory");
        assert_eq!(text("/etc/fstab/x"), "/etc/fstab: not a directory");
        assert_eq!(text("/loop"), "/loop: too many levels of symbolic links");
        assert_eq!(text("/a"), "/etc/x: no such file or directory");
        assert_eq!(text("/etc/mtab"), "/proc: no such file or directory");
    }

    #[test]
    fn the_last_symlink_can_be_kept() {
        let fs = tree();
        let link = resolve_no_follow(&fs, b"/bin").unwrap();
        assert_eq!(fs.metadata(link).unwrap().kind, FileKind::Symlink);
        assert!(resolve_no_follow(&fs, b"/bin/sh").is_ok());
    }
}
