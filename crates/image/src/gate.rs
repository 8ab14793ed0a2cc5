//! Which files an image may lead to.
//!
//! A guest can write what its host later reads as an image header, so a name inside an image is a request,
//! not an order. The default answer is narrow: plain file names, below the folder of the image that asks, with
//! symlinks resolved before the decision.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file that an image asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The image that names it.
    pub from: &'a Path,
    /// The name as it stands in the image.
    pub name: &'a [u8],
    /// What it would be: "backing file".
    pub role: &'static str,
}

/// Why a file may not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: the {role} {name:?} {reason}", from.display())]
pub struct Refused {
    /// The image that names it.
    pub from: PathBuf,
    /// The name as it stands in the image, with bytes that are not UTF-8 replaced.
    pub name: String,
    /// What it would be.
    pub role: &'static str,
    /// Why not, as the end of the sentence.
    pub reason: String,
}

impl Request<'_> {
    /// Refuses this request.
    pub fn refuse(&self, reason: impl fmt::Display) -> Refused {
        Refused {
            from: self.from.to_owned(),
            name: String::from_utf8_lossy(self.name).into_owned(),
            role: self.role,
            reason: reason.to_string(),
        }
    }
}

/// Decides which files an image may lead to.
pub trait Gate: fmt::Debug {
    /// The file to open for this request, with every symlink resolved.
    ///
    /// # Errors
    /// [`Refused`], with the reason in words.
    fn allow(&self, request: &Request<'_>) -> Result<PathBuf, Refused>;
}

/// Allows nothing: an image must stand alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenyAll;

impl Gate for DenyAll {
    fn allow(&self, request: &Request<'_>) -> Result<PathBuf, Refused> {
        Err(request.refuse("is not opened: no further file is allowed"))
    }
}

/// Allows regular files in the folder of the image that asks, and below, and below further folders.
#[derive(Debug, Clone, Default)]
pub struct FolderGate {
    further: Vec<PathBuf>,
}

impl FolderGate {
    /// The folder of the image that asks, and nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also allows what lies below `folder`.
    #[must_use]
    pub fn allow_path(mut self, folder: &Path) -> Self {
        self.further.push(folder.to_owned());
        self
    }
}

impl Gate for FolderGate {
    fn allow(&self, request: &Request<'_>) -> Result<PathBuf, Refused> {
        if let Some(protocol) = protocol(request.name) {
            return Err(request.refuse(format_args!("is not opened: {protocol}: is not a plain file name")));
        }
        let folder = match request.from.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let named = folder.join(Path::new(std::ffi::OsStr::from_bytes(request.name)));
        let resolve = |path: &Path| path.canonicalize();
        let path =
            resolve(&named).map_err(|error| request.refuse(format_args!("cannot be opened: {error}")))?;
        let is_below = |folder: &Path| resolve(folder).is_ok_and(|folder| path.starts_with(folder));
        if !is_below(folder) && !self.further.iter().any(|folder| is_below(folder)) {
            let parent = path.parent().unwrap_or(&path).display();
            return Err(request.refuse(format_args!(
                "is not opened: it lies outside of the image's folder (--allow-path {parent} would allow it)"
            )));
        }
        Ok(path)
    }
}

/// `json:…`, `nbd://…`: what QEMU would not take for a file name.
fn protocol(name: &[u8]) -> Option<String> {
    let end = name.iter().position(|byte| *byte == b':')?;
    let scheme = name.get(..end)?;
    let is_scheme =
        !scheme.is_empty() && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    is_scheme.then(|| String::from_utf8_lossy(scheme).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(gate: &dyn Gate, from: &Path, name: &str) -> Result<PathBuf, String> {
        let request = Request { from, name: name.as_bytes(), role: "backing file" };
        gate.allow(&request).map_err(|refused| refused.reason)
    }

    #[test]
    fn only_the_folder_and_below() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for sub in ["vm", "vm/base", "other"] {
            std::fs::create_dir(root.join(sub)).unwrap();
            std::fs::write(root.join(sub).join("disk"), "x").unwrap();
        }
        std::os::unix::fs::symlink("../other/disk", root.join("vm/out")).unwrap();
        std::os::unix::fs::symlink("base/disk", root.join("vm/in")).unwrap();
        let image = root.join("vm/leaf.qcow2");
        let gate = FolderGate::new();
        for name in ["disk", "base/disk", "./base/../disk", "in"] {
            assert!(ask(&gate, &image, name).is_ok(), "{name}");
        }
        let outside = root.join("other/disk");
        for name in ["../other/disk", "out", outside.to_str().unwrap()] {
            assert!(ask(&gate, &image, name).unwrap_err().contains("outside"), "{name}");
            assert!(ask(&gate.clone().allow_path(&root.join("other")), &image, name).is_ok(), "{name}");
        }
        for name in ["json:{}", "nbd://x/y", "file:disk", "http://x"] {
            assert!(ask(&gate, &image, name).unwrap_err().contains("not a plain file name"), "{name}");
        }
        assert!(ask(&gate, &image, "missing").unwrap_err().contains("No such file"));
        assert!(ask(&DenyAll, &image, "disk").is_err());
    }
}
