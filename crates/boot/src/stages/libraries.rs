//! Whether the libraries of init are there: ld.so(8).
//!
//! Searched as the dynamic loader does without its cache: the folders that a file names, those of `/etc/ld.so.conf`, the usual
//! ones. The cache lists the same folders.

use std::collections::{BTreeSet, VecDeque};

use boot_files::elf::{self, Needs};
use filesystem::path::{PathError, real_path, resolve};
use filesystem::{FileSystem, Inode};

/// Files that are looked at; systemd needs about thirty.
const MAX_FILES: usize = 200;
/// Folders of libraries; a large desktop has a handful.
const MAX_FOLDERS: usize = 50;
const USUAL: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// A library that keeps a program from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// Its file, or its name where there is none.
    pub(super) path: String,
    pub(super) reason: String,
}

/// The loader and the first library of a program, or of its libraries, that is not there or empty. `None` as well where
/// something cannot be read.
pub(super) fn lost(fs: &dyn FileSystem, program: &str) -> Option<Lost> {
    let folders = folders(fs);
    // What is loaded already is not looked for again, wherever it was found: breadth first, as ld.so does.
    let mut loaded = BTreeSet::new();
    let mut todo = VecDeque::from([real_path(fs, program.as_bytes()).ok()?]);
    while let Some(path) = todo.pop_front() {
        let needs = of_file(fs, resolve(fs, path.as_bytes()).ok()?)?;
        if let Some(loader) = &needs.interpreter
            && resolve(fs, loader.as_bytes()).is_err()
        {
            return Some(Lost {
                path: loader.clone(),
                reason: format!("{program} needs {loader}, which is not there"),
            });
        }
        let origin = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let first = needs
            .search
            .iter()
            .take(MAX_FOLDERS)
            .map(|folder| folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
        let search: Vec<String> = first.chain(folders.iter().cloned()).collect();
        for name in &needs.libraries {
            if loaded.len() >= MAX_FILES || !loaded.insert(name.clone()) {
                continue;
            }
            match find(fs, &search, name) {
                Search::Found(path) => todo.push_back(path),
                Search::Empty(path) => {
                    return Some(Lost {
                        reason: format!("{path}, which {program} needs, is too short"),
                        path,
                    });
                }
                Search::Missing => {
                    return Some(Lost {
                        path: name.clone(),
                        reason: format!("{program} needs {name}, which is not there"),
                    });
                }
                Search::Unknown => return None,
            }
        }
    }
    None
}

enum Search {
    Found(String),
    /// There, and shorter than the header of a program.
    Empty(String),
    Missing,
    Unknown,
}

fn find(fs: &dyn FileSystem, folders: &[String], name: &str) -> Search {
    for folder in folders {
        let path = format!("{folder}/{name}");
        match resolve(fs, path.as_bytes()) {
            Ok(inode) => {
                let (Ok(metadata), Ok(path)) = (fs.metadata(inode), real_path(fs, path.as_bytes())) else {
                    return Search::Unknown;
                };
                return if metadata.size < 64 { Search::Empty(path) } else { Search::Found(path) };
            }
            Err(PathError::Fs { .. }) => return Search::Unknown,
            Err(_) => {}
        }
    }
    Search::Missing
}

/// What a file needs; nothing for what is no program of 64 bits.
fn of_file(fs: &dyn FileSystem, inode: Inode) -> Option<Needs> {
    let mut magic = [0; 5];
    let count = fs.read_at(inode, &mut magic, 0).ok()?;
    if count < magic.len() || magic != *b"\x7fELF\x02" {
        return Some(Needs::default());
    }
    elf::needs(&|offset, length| {
        let mut bytes = vec![0; length];
        let count = fs.read_at(inode, &mut bytes, offset).ok()?;
        bytes.truncate(count);
        Some(bytes)
    })
}

/// The folders of `/etc/ld.so.conf` and of what it includes, then the usual ones, and those that Debian compiles in.
fn folders(fs: &dyn FileSystem) -> Vec<String> {
    let text = |path: &str| {
        let inode = resolve(fs, path.as_bytes()).ok()?;
        Some(String::from_utf8_lossy(&filesystem::read_to_end(fs, inode, 1 << 16).ok()?).into_owned())
    };
    let mut found: Vec<String> = Vec::new();
    let mut add = |text: &str| {
        found.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned));
    };
    add(&text("/etc/ld.so.conf").unwrap_or_default());
    if let Ok(folder) = resolve(fs, b"/etc/ld.so.conf.d") {
        let mut names: Vec<Vec<u8>> = fs
            .read_dir(folder)
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| name.ends_with(b".conf"))
            .collect();
        names.sort();
        for name in names.iter().take(MAX_FOLDERS) {
            add(&text(&format!("/etc/ld.so.conf.d/{}", String::from_utf8_lossy(name))).unwrap_or_default());
        }
    }
    found.truncate(MAX_FOLDERS);
    found.extend(["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"].map(str::to_owned));
    found.extend(USUAL.map(str::to_owned));
    found
}
