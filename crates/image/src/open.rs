//! Opening a file as an image, with everything it stands on.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, Device, FileDevice};
use ondisk::Parsed;

use crate::gate::{Gate, Refused, Request};
use crate::qcow2::Qcow2;

/// How many images may stand on one another.
const MAX_DEPTH: usize = 64;

/// Whether the image is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is written.
    ReadOnly,
    /// The image itself may be written, what it stands on never.
    ReadWrite,
}

/// An opened image.
#[derive(Debug)]
pub struct Image {
    /// The disk as the guest sees it.
    pub device: Device,
    /// The image and what it stands on, the image first.
    pub layers: Vec<Layer>,
    /// What was wrong and could be read past.
    pub problems: Vec<ondisk::Error>,
}

/// One file of a chain.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// `raw`, `qcow2`.
    pub format: &'static str,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Size of the file in bytes.
    pub file_size: u64,
    /// The layer as qcow2, if it is one.
    pub qcow2: Option<Arc<Qcow2>>,
}

impl Image {
    /// The format of the image itself.
    pub fn format(&self) -> &'static str {
        self.layers.first().map_or("raw", |layer| layer.format)
    }
}

/// Why a file cannot be opened as an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host does not open it.
    #[error(transparent)]
    File(#[from] io::Error),
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is too small for any disk.
    #[error("{0} bytes are no disk image")]
    TooSmall(u64),
    /// A format that is recognised and cannot be opened.
    #[error("{0} images cannot be opened yet")]
    UnknownFormat(String),
    /// The bytes break the format's rules or need an unknown feature.
    #[error(transparent)]
    Format(#[from] ondisk::Error),
    /// The gate does not allow a file that the image names.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The chain comes back to a file that it already passed.
    #[error("{}: the chain of backing files comes back to this file", .0.display())]
    Loop(PathBuf),
    /// More than 64 images on one another.
    #[error("more than {MAX_DEPTH} images stand on one another")]
    TooDeep,
    /// An error in a file that the image stands on.
    #[error("{}", path.display())]
    Below {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
}

/// The format that the first bytes of a file speak of; `raw` when they speak of none.
///
/// # Errors
/// Any error of the device.
pub fn probe(container: &dyn BlockDevice) -> io::Result<&'static str> {
    const MAGICS: [(&[u8], &str); 5] = [
        (b"QFI\xfb", "qcow2"),
        (b"KDMV", "vmdk"),
        (b"COWD", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
    ];
    let mut head = [0; 512];
    if container.size() < 512 {
        return Ok("raw");
    }
    container.read_exact_at(&mut head, 0)?;
    if head.starts_with(b"# Disk DescriptorFile") {
        return Ok("vmdk");
    }
    if head.get(64..68) == Some(&0xbeda_107f_u32.to_le_bytes()) {
        return Ok("vdi");
    }
    Ok(MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map_or("raw", |(_, format)| format))
}

/// Opens `path` and everything it stands on.
///
/// # Errors
/// [`Error`], one line that says which file and why.
pub fn open(path: &Path, format: Option<&str>, mode: Mode, gate: &dyn Gate) -> Result<Image, Error> {
    let mut chain = Chain { gate, seen: Vec::new(), layers: Vec::new(), problems: Vec::new() };
    let device = chain.open(path, format, mode)?;
    Ok(Image { device, layers: chain.layers, problems: chain.problems })
}

struct Chain<'a> {
    gate: &'a dyn Gate,
    /// Device and inode numbers of the files passed.
    seen: Vec<(u64, u64)>,
    layers: Vec<Layer>,
    problems: Vec<ondisk::Error>,
}

impl Chain<'_> {
    fn open(&mut self, path: &Path, format: Option<&str>, mode: Mode) -> Result<Device, Error> {
        let file = match mode {
            Mode::ReadOnly => FileDevice::open(path)?,
            Mode::ReadWrite => FileDevice::open_writable(path)?,
        };
        let metadata = file.file().metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        if self.seen.contains(&identity) {
            return Err(Error::Loop(path.to_owned()));
        }
        if self.seen.len() >= MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.seen.push(identity);
        match file.size() {
            0 => return Err(Error::Empty),
            size if size < 512 => return Err(Error::TooSmall(size)),
            _ => {}
        }
        let container: Device = Arc::new(file);
        let format = match format {
            Some(format) => format,
            None => probe(container.as_ref())?,
        };
        match format {
            "raw" => {
                self.push(path, "raw", container.size(), container.size(), None);
                Ok(container)
            }
            "qcow2" => self.open_qcow2(path, container),
            other => Err(Error::UnknownFormat(other.to_owned())),
        }
    }

    fn push(
        &mut self,
        path: &Path,
        format: &'static str,
        virtual_size: u64,
        file_size: u64,
        qcow2: Option<Arc<Qcow2>>,
    ) {
        self.layers.push(Layer { path: path.to_owned(), format, virtual_size, file_size, qcow2 });
    }

    fn open_qcow2(&mut self, path: &Path, container: Device) -> Result<Device, Error> {
        let file_size = container.size();
        let Parsed { value: mut image, problems } = Qcow2::open(container)?;
        self.problems.extend(problems);
        let index = self.layers.len();
        self.push(path, "qcow2", image.size(), file_size, None);
        if let Some(name) = image.backing_name() {
            let request = Request { from: path, name, role: "backing file" };
            let backing_path = self.gate.allow(&request)?;
            let backing_format = self.backing_format(&image, &request, &backing_path)?;
            let backing = self
                .open(&backing_path, Some(&backing_format), Mode::ReadOnly)
                .map_err(|source| Error::Below { path: backing_path, source: Box::new(source) })?;
            image.set_backing(backing);
        }
        let image = Arc::new(image);
        if let Some(layer) = self.layers.get_mut(index) {
            layer.qcow2 = Some(image.clone());
        }
        Ok(image)
    }

    /// The stated format. An unstated one is raw, unless the file's first bytes say otherwise: then a guest may
    /// have written them, and guessing would hand it any file of the host.
    fn backing_format(&self, image: &Qcow2, request: &Request<'_>, path: &Path) -> Result<String, Error> {
        if let Some(format) = image.backing_format() {
            return Ok(String::from_utf8_lossy(format).into_owned());
        }
        match probe(&FileDevice::open(path)?)? {
            "raw" => Ok("raw".into()),
            found => Err(request.refuse(format_args!("has no stated format and looks like {found}")).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FolderGate;

    fn text(path: &Path) -> String {
        open(path, None, Mode::ReadOnly, &FolderGate::new()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_image_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("small"), "hello").unwrap();
        std::fs::write(path("cut.qcow2"), [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 700]].concat()).unwrap();
        std::fs::write(path("disk.vmdk"), [b"KDMV".as_slice(), &[0; 700]].concat()).unwrap();
        assert_eq!(text(&path("empty")), "the file is empty");
        assert_eq!(text(&path("small")), "5 bytes are no disk image");
        assert_eq!(text(folder.path()), "a directory");
        assert!(text(&path("missing")).starts_with("No such file"));
        assert!(text(&path("disk.vmdk")).starts_with("vmdk images"));
        assert!(text(&path("cut.qcow2")).starts_with("qcow2 header"), "{}", text(&path("cut.qcow2")));
    }
}
