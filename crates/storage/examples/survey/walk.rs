//! Reads all that a file system shows, within bounds.

use std::collections::HashSet;

use filesystem::{FileKind, FileSystem};

/// Inodes that are looked at.
const MAX_FILES: usize = 50_000;
/// Bytes that are read of one file, and of all.
const MAX_FILE: u64 = 16 << 20;
const MAX_READ: u64 = 512 << 20;

/// What a walk came to.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Inodes that were looked at.
    pub(crate) files: usize,
    /// Bytes of content that were read.
    pub(crate) bytes: u64,
    /// Inode and error.
    pub(crate) problems: Vec<String>,
}

/// Metadata, attributes, targets and contents of everything below the root.
pub(crate) fn walk(fs: &dyn FileSystem) -> Walked {
    let mut walked = Walked::default();
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 1 << 20];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < MAX_FILES) {
        if !seen.insert(inode) {
            continue;
        }
        let mut say = |error: filesystem::Error| walked.problems.push(format!("{inode}: {error}"));
        fs.xattrs(inode).map_or_else(&mut say, drop);
        match fs.metadata(inode).map(|metadata| (metadata.kind, metadata.size)) {
            Ok((FileKind::Directory, _)) => match fs.read_dir(inode) {
                Ok(entries) => todo.extend(entries.into_iter().map(|entry| entry.inode)),
                Err(error) => say(error),
            },
            Ok((FileKind::Regular, size)) => {
                let mut at = 0;
                while at < size.min(MAX_FILE) && walked.bytes < MAX_READ {
                    match fs.read_at(inode, &mut buf, at) {
                        Ok(0) => break,
                        Ok(count) => {
                            at += count as u64;
                            walked.bytes += count as u64;
                        }
                        Err(error) => {
                            say(error);
                            break;
                        }
                    }
                }
            }
            Ok((FileKind::Symlink, _)) => fs.read_link(inode).map_or_else(&mut say, drop),
            Ok(_) => {}
            Err(error) => say(error),
        }
    }
    walked.files = seen.len();
    walked
}
