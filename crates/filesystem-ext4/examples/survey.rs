//! Walks all that can be reached from the root, and prints what was wrong, for `scripts/oracles/ext4-corpus.py`.
//!
//! `survey IMAGE`: lines `problem TEXT`, `error INODE PATH TEXT`, `inode NUMBER`, with tabs between.

#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode, Result};
use filesystem_ext4::FORMAT;

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args().nth(1).ok_or("usage: survey IMAGE")?;
    let device: Device = Arc::new(FileDevice::open(Path::new(&image))?);
    match (FORMAT.replay)(device.clone()) {
        Ok(replayed) => println!("replayed\t{}", replayed.transactions),
        Err(error) => println!("problem\treplay: {error}"),
    }
    match (FORMAT.open)(device) {
        Ok(opened) => {
            for problem in &opened.problems {
                println!("problem\t{problem}");
            }
            walk(&*opened.value);
        }
        Err(error) => println!("problem\topen: {error}"),
    }
    Ok(())
}

fn walk(fs: &dyn FileSystem) {
    let mut seen = HashSet::new();
    let mut todo = vec![(String::new(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        if !seen.insert(inode) {
            continue;
        }
        println!("inode\t{}", inode.0);
        let say = |found: Result<()>| {
            if let Err(error) = found {
                println!("error\t{}\t{path}\t{error}", inode.0);
            }
        };
        say(fs.xattrs(inode).map(|_| ()));
        let Ok(metadata) = fs.metadata(inode) else { continue };
        match metadata.kind {
            FileKind::Directory => match fs.read_dir(inode) {
                Ok(entries) => {
                    for entry in entries {
                        todo.push((format!("{path}/{}", entry.name.escape_ascii()), entry.inode));
                    }
                }
                Err(error) => say(Err(error)),
            },
            FileKind::Regular => say(read(fs, inode)),
            FileKind::Symlink => say(fs.read_link(inode).map(|_| ())),
            _ => {}
        }
    }
}

/// Reads a file; of very long ones the first and the last part.
fn read(fs: &dyn FileSystem, inode: Inode) -> Result<()> {
    let size = fs.metadata(inode)?.size;
    let mut buf = vec![0; 1 << 20];
    let mut offset: u64 = 0;
    while offset < size {
        fs.read_at(inode, &mut buf, offset)?;
        offset = offset.saturating_add(1 << 20);
        if offset > 64 << 20 && offset < size.saturating_sub(4 << 20) {
            offset = size.saturating_sub(4 << 20);
        }
    }
    Ok(())
}
