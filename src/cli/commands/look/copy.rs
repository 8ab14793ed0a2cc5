//! `cp-out`: a file or a tree from the guest to the host.
//!
//! Nothing that the guest says leads out of the destination: names with a slash, `.` and `..` are refused, everything is
//! made anew and nothing is followed, so that a link that the guest planted cannot send a later file elsewhere.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use filesystem::path::resolve;
use filesystem::{Descent, FileKind, FileSystem, Inode, Metadata, Timestamp};

use super::view::{View, kind_name};
use crate::cli::Status;
use crate::cli::args::{Common, CopyOut, Output};
use crate::cli::render::{count, json, plain};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Zeros in whole blocks of this size become holes.
const BLOCK: usize = 4096;

pub(crate) fn cp_out(common: &Common, args: &CopyOut) -> anyhow::Result<Status> {
    let view = View::open(common, &args.place)?;
    let tree = view.tree();
    let inode = resolve(tree, args.path.as_bytes())?;
    let name = args.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let target = match std::fs::symlink_metadata(&args.target) {
        Ok(found) if found.is_dir() && name.is_empty() => {
            bail!("{} exists; name a folder that does not", args.target.display())
        }
        Ok(found) if found.is_dir() => args.target.join(name),
        _ => args.target.clone(),
    };
    let mut copy = Copy::new(tree);
    copy.any(inode, &target);
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        for problem in &copy.problems {
            writeln!(io::stderr(), "guestmend: {}", plain(problem))?;
        }
        writeln!(out, "{} copied to {}", count(copy.files, "file"), target.display())?;
    } else {
        let body = json::Copied {
            image: args.place.image.to_string_lossy().into_owned(),
            path: args.path.clone(),
            target: target.to_string_lossy().into_owned(),
            files: copy.files,
            problems: copy.problems.clone(),
        };
        json::print(&mut out, &json::document("cp-out", body), common.output)?;
    }
    Ok(if copy.problems.is_empty() { Status::Clean } else { Status::Failed })
}

struct Copy<'a> {
    tree: &'a dyn FileSystem,
    /// Where each file with several links was put first.
    made: HashMap<Inode, PathBuf>,
    descent: Descent,
    /// Files of every kind that were made.
    files: usize,
    problems: Vec<String>,
}

impl<'a> Copy<'a> {
    fn new(tree: &'a dyn FileSystem) -> Self {
        let (made, descent, problems) = Default::default();
        Self { tree, made, descent, files: 0, problems }
    }

    /// Copies what `inode` is; a failure is told and the rest goes on.
    fn any(&mut self, inode: Inode, target: &Path) {
        if let Err(error) = self.one(inode, target) {
            self.problems.push(format!("{}: {error:#}", target.display()));
        }
    }

    fn one(&mut self, inode: Inode, target: &Path) -> anyhow::Result<()> {
        let metadata = self.tree.metadata(inode)?;
        match metadata.kind {
            FileKind::Directory => {
                self.descent.enter(inode)?;
                let copied = self.directory(inode, &metadata, target);
                self.descent.leave();
                return copied;
            }
            FileKind::Regular => {
                if metadata.links > 1
                    && let Some(first) = self.made.get(&inode)
                {
                    std::fs::hard_link(first, target)?;
                } else {
                    self.file(inode, &metadata, target)?;
                    self.made.insert(inode, target.to_owned());
                }
            }
            FileKind::Symlink => {
                std::os::unix::fs::symlink(OsStr::from_bytes(&self.tree.read_link(inode)?), target)?;
            }
            kind => bail!("a {} is not copied", kind_name(kind)),
        }
        self.files += 1;
        Ok(())
    }

    fn directory(&mut self, inode: Inode, metadata: &Metadata, target: &Path) -> anyhow::Result<()> {
        // Only what we made ourselves is filled.
        std::fs::create_dir(target)?;
        self.files += 1;
        for entry in self.tree.read_dir(inode)? {
            let is_safe = !entry.name.is_empty()
                && entry.name != b"."
                && entry.name != b".."
                && !entry.name.iter().any(|byte| matches!(byte, b'/' | 0));
            if !is_safe {
                self.problems.push(format!(
                    "{}: a name that no file can have: {:?}",
                    target.display(),
                    entry.name
                ));
                continue;
            }
            self.any(entry.inode, &target.join(OsStr::from_bytes(&entry.name)));
        }
        // Last, for a directory that may not be written would stay empty.
        let folder = File::open(target)?;
        finish(&folder, metadata)
    }

    /// Blocks of zeros are not written: what was sparse stays sparse.
    fn file(&self, inode: Inode, metadata: &Metadata, target: &Path) -> anyhow::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        let mut buf = vec![0; PIECE];
        let mut at = 0;
        loop {
            let length = self.tree.read_at(inode, &mut buf, at).with_context(|| format!("at byte {at}"))?;
            if length == 0 {
                break;
            }
            for (index, block) in buf[..length].chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, at + (index * BLOCK) as u64)?;
                }
            }
            at += length as u64;
        }
        file.set_len(at)?;
        finish(&file, metadata)
    }
}

/// Permissions without set-user-ID and the like, for the owner is another one here; and the time of the last change.
fn finish(file: &File, metadata: &Metadata) -> anyhow::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(metadata.permissions & 0o777))?;
    if let Some(time) = system_time(metadata.modified) {
        file.set_times(std::fs::FileTimes::new().set_modified(time))?;
    }
    Ok(())
}

fn system_time(time: Timestamp) -> Option<SystemTime> {
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(seconds)?,
        _ => SystemTime::UNIX_EPOCH.checked_sub(seconds)?,
    };
    whole.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    #[test]
    fn directories_within_themselves_are_reported() {
        let fs = MemoryFs::new().file("/a/b/file", "x").link("/a/b/up", "/a").link("/c", "/a/b");
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let mut copy = Copy::new(&fs);
        copy.any(fs.root(), &target);
        assert_eq!(copy.files, 4);
        assert_eq!(std::fs::read(target.join("a/b/file")).unwrap(), b"x");
        assert!(!target.join("a/b/up").exists() && !target.join("c").exists());
        let root = target.display();
        assert_eq!(
            copy.problems,
            [
                format!("{root}/a/b/up: a directory that is within itself"),
                format!("{root}/c: a directory that has another path too")
            ]
        );
    }
}
