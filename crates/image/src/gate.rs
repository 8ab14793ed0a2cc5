//! The gate: which of the files that an image names may be opened.
//!
//! Whoever made the image chose the names, so a name is an attempt to read any file of this host. Opening
//! goes through the caller's [`Gate`]; there is no other way to a second file.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blockdev::FileDevice;

/// Decides over, and opens, the files that images name.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Opens the file that `request` asks for, read-only unless it asks for more.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    fn open(&self, request: &Request<'_>) -> Result<Allowed, Refusal>;
}

/// An image asks for another file.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the file is to the image.
    pub role: Role,
    /// The name as the image stores it: any bytes.
    pub name: &'a OsStr,
    /// The file that holds the name; relative names mean its folder.
    pub image: &'a Path,
    /// The file that the user named, at the top of the chain.
    pub top: &'a Path,
    /// Whether the file is to be written: it belongs to an image that the user wants written.
    pub for_writing: bool,
}

/// What a named file is to the image that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Holds what this layer does not.
    BackingFile,
    /// Holds this layer's guest data, while the image holds only tables.
    DataFile,
    /// Holds a part of this layer's disk.
    Extent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackingFile => "backing file",
            Self::DataFile => "data file",
            Self::Extent => "extent",
        })
    }
}

/// A file that may be read.
#[derive(Debug)]
pub struct Allowed {
    /// Open for reading.
    pub file: FileDevice,
    /// The path before symlinks were resolved; names inside this file are relative to its folder.
    pub path: PathBuf,
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The gate opens nothing, or does not know where the image lies.
    #[error("no other file may be opened for this image")]
    Denied,
    /// The name is empty or holds a zero byte.
    #[error("this cannot be the name of a file")]
    NotAName,
    /// The name asks for something else than a file.
    #[error("`{0}:` is a protocol, and only files are opened")]
    Protocol(String),
    /// The file, with symlinks resolved, lies outside every allowed folder.
    #[error("{} lies outside the folder of the image", .0.display())]
    Outside(PathBuf),
    /// Something else than a regular file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The host refused.
    #[error("cannot open {}", path.display())]
    Open {
        /// The path that was tried.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// Opens nothing: for images whose single file is all there may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenyAll;

impl Gate for DenyAll {
    fn open(&self, _: &Request<'_>) -> Result<Allowed, Refusal> {
        Err(Refusal::Denied)
    }
}

/// The default gate: regular files within the folder of the image that the user named, or below it.
///
/// A name is relative to the file that holds it, as everywhere. Whether the result is allowed is decided
/// after symlinks were resolved, so neither `..` nor an absolute name nor a link leads out.
#[derive(Debug, Clone, Default)]
pub struct FolderGate {
    allowed: Vec<PathBuf>,
}

impl FolderGate {
    /// Only the folder of the image.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also `folder` and everything below it.
    #[must_use]
    pub fn allow_path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.allowed.push(folder.into());
        self
    }

    /// Whether `real`, a path without symlinks, lies in an allowed folder.
    fn allows(&self, real: &Path, top: &Path) -> bool {
        let folders = std::iter::once(folder_of(top)).chain(self.allowed.iter().map(PathBuf::as_path));
        folders.filter_map(|folder| folder.canonicalize().ok()).any(|folder| real.starts_with(folder))
    }
}

impl Gate for FolderGate {
    fn open(&self, request: &Request<'_>) -> Result<Allowed, Refusal> {
        check_name(request.name)?;
        let path = folder_of(request.image).join(request.name);
        let failed = |source| Refusal::Open { path: path.clone(), source };
        let real = path.canonicalize().map_err(failed)?;
        if !self.allows(&real, request.top) {
            return Err(Refusal::Outside(real));
        }
        // Opening can have effects of its own on a device node, so the kind is looked at first.
        if !real.metadata().map_err(failed)?.is_file() {
            return Err(Refusal::NotAFile(real));
        }
        let file = match request.for_writing {
            true => FileDevice::open_writable(&real),
            false => FileDevice::open(&real),
        };
        let file = file.map_err(failed)?;
        // The path may have been exchanged since: what counts is what was opened.
        if !file.file().metadata().map_err(failed)?.is_file() {
            return Err(Refusal::NotAFile(real));
        }
        match opened_path(&file) {
            Some(opened) if !self.allows(&opened, request.top) => Err(Refusal::Outside(opened)),
            _ => Ok(Allowed { file, path }),
        }
    }
}

/// Refuses what other tools take for something else than a file: `json:{…}`, `nbd://…`. The rule is QEMU's,
/// a colon before the first slash; a file of such a name is written `./a:b`.
fn check_name(name: &OsStr) -> Result<(), Refusal> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Refusal::NotAName);
    }
    let first = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
    match first.iter().position(|byte| *byte == b':').and_then(|colon| first.get(..colon)) {
        Some(protocol) => Err(Refusal::Protocol(String::from_utf8_lossy(protocol).into_owned())),
        None => Ok(()),
    }
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Where an open file lies, by the kernel's account; `None` where `/proc` does not tell.
fn opened_path(file: &FileDevice) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.file().as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the default gate says to `name` in `folder/vm/disk.qcow2`.
    fn ask(folder: &Path, gate: &FolderGate, name: &str) -> Result<Vec<u8>, String> {
        let image = folder.join("vm/disk.qcow2");
        let request = Request {
            role: Role::BackingFile,
            name: OsStr::new(name),
            image: &image,
            top: &image,
            for_writing: false,
        };
        let allowed = gate.open(&request).map_err(|refusal| refusal.to_string())?;
        Ok(fs::read(allowed.file.path()).unwrap())
    }

    #[test]
    fn only_what_lies_in_the_folder_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("vm/base")).unwrap();
        fs::write(root.join("secret"), "secret").unwrap();
        fs::write(root.join("vm/base/old.raw"), "old").unwrap();
        std::os::unix::fs::symlink("base/old.raw", root.join("vm/inside")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("vm/outside")).unwrap();
        std::os::unix::fs::symlink("/", root.join("vm/root")).unwrap();
        let gate = FolderGate::new();
        let secret = root.join("secret");
        let absolute = root.join("vm/base/old.raw");
        for name in ["base/old.raw", "./base/../base/old.raw", "inside", absolute.to_str().unwrap()] {
            assert_eq!(ask(&root, &gate, name), Ok(b"old".to_vec()), "{name}");
        }
        for name in ["../secret", "outside", "base/../../secret", "root/etc/passwd", secret.to_str().unwrap()]
        {
            let said = ask(&root, &gate, name).unwrap_err();
            assert!(said.ends_with("lies outside the folder of the image"), "{name}: {said}");
        }
        assert!(ask(&root, &gate, "base").unwrap_err().ends_with("is not a regular file"));
        assert!(ask(&root, &gate, "absent").unwrap_err().starts_with("cannot open"));
        for name in ["json:{\"driver\":\"raw\"}", "nbd://host/x", "http://x", "file:base/old.raw"] {
            assert!(ask(&root, &gate, name).unwrap_err().contains("is a protocol"), "{name}");
        }
        assert!(ask(&root, &gate, "").is_err() && ask(&root, &gate, "a\0b").is_err());
        let wider = FolderGate::new().allow_path(&root);
        assert_eq!(ask(&root, &wider, "../secret"), Ok(b"secret".to_vec()));
    }

    #[test]
    fn devices_and_pipes_stay_closed() {
        let gate = FolderGate::new().allow_path("/dev");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("vm")).unwrap();
        assert!(ask(folder.path(), &gate, "/dev/null").unwrap_err().ends_with("is not a regular file"));
    }
}
