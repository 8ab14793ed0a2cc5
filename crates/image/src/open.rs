//! From a path to the disk it holds: probing, layers, and the way down a backing chain.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use ondisk::Corrupt;

use crate::cache::Cache;
use crate::problems::ReadProblems;
use crate::{Allowed, Error, FORMATS, Gate, Head, ImageFormat, Request, Result, Role, format_named};

/// Layers below the first. Real chains stay below twenty; QEMU itself becomes slow long before this.
const MAX_DEPTH: usize = 64;

/// Table entries of 8 bytes kept for a whole chain: 16 MiB, the tables of 128 GiB at the usual cluster size.
const TABLE_CACHE: usize = 2 << 20;

/// Bytes of decompressed clusters kept for a whole chain.
const CLUSTER_CACHE: usize = 8 << 20;

/// What the caller wants to do with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No file is opened for writing.
    ReadOnly,
    /// The first layer may be written; all below stay read-only.
    ReadWrite,
}

/// An open disk image.
#[derive(Debug)]
pub struct Image {
    /// The disk.
    pub device: Device,
    /// What it is made of, the file that the caller named first.
    pub chain: Vec<Layer>,
    /// What was wrong on the way; the disk can be read all the same.
    pub problems: Vec<ondisk::Error>,
    found_by_reads: Arc<ReadProblems>,
}

impl Image {
    /// Damage that reads met since the last call and read past: clusters beyond the end of a truncated file
    /// (which read as zeros), reserved bits. Each kind is told once for each layer.
    ///
    /// Damage that hides bytes is not here: it fails the read.
    pub fn take_read_problems(&self) -> Vec<Corrupt> {
        self.found_by_reads.take()
    }
}

/// One file of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The file; `None` for a device that the caller opened without a name.
    pub path: Option<PathBuf>,
    /// The name of its format.
    pub format: &'static str,
    /// Length of the disk that it describes, in bytes.
    pub virtual_size: u64,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// Other files that hold data of this layer.
    pub data_files: Vec<PathBuf>,
    /// Plain facts: version, cluster size, compression.
    pub features: Vec<String>,
    /// Facts that a person should know before relying on this file.
    pub notes: Vec<String>,
    /// Internal snapshots, for [`open_snapshot`].
    pub snapshots: Vec<Snapshot>,
}

/// A state of the disk that is kept inside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique identifier, most often a small number.
    pub id: String,
    /// The name that a person gave.
    pub name: String,
    /// When it was taken, in seconds since the Epoch.
    pub taken: u64,
    /// Length of the disk at that time, in bytes.
    pub virtual_size: u64,
    /// Length of the saved state of the running machine, in bytes; 0 for a snapshot of the disk alone.
    pub vm_state_size: u64,
}

/// Opens the image at `path`; `format` overrides probing.
///
/// # Errors
/// [`Error`]; damage that leaves the disk readable is in [`Image::problems`] instead.
pub fn open(path: &Path, format: Option<&str>, mode: Mode, gate: &dyn Gate) -> Result<Image> {
    let (device, identity) = open_file(path, mode)?;
    let source = Source { device, path: Some(path.to_owned()), mode, snapshot: None };
    Opening::new(gate, Some(path), Some(identity)).run(&source, format)
}

/// Opens, read-only, the internal snapshot of this name or identifier.
///
/// # Errors
/// As [`open`]; [`Error::NoSnapshot`].
pub fn open_snapshot(path: &Path, format: Option<&str>, snapshot: &str, gate: &dyn Gate) -> Result<Image> {
    let (device, identity) = open_file(path, Mode::ReadOnly)?;
    let snapshot = Some(snapshot.to_owned());
    let source = Source { device, path: Some(path.to_owned()), mode: Mode::ReadOnly, snapshot };
    Opening::new(gate, Some(path), Some(identity)).run(&source, format)
}

/// Opens the image that an already open device holds, such as an overlay of the file at `path`. Without a
/// path, no file that the image names can be found.
///
/// # Errors
/// As [`open`].
pub fn open_device(
    device: Device,
    path: Option<&Path>,
    format: Option<&str>,
    mode: Mode,
    gate: &dyn Gate,
) -> Result<Image> {
    let identity = path.and_then(|path| path.metadata().ok()).map(|metadata| identity(&metadata));
    let source = Source { device, path: path.map(Path::to_owned), mode, snapshot: None };
    Opening::new(gate, path, identity).run(&source, format)
}

fn open_file(path: &Path, mode: Mode) -> Result<(Device, Identity)> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let file = match mode {
        Mode::ReadOnly => FileDevice::open(path),
        Mode::ReadWrite => FileDevice::open_writable(path),
    }
    .map_err(failed)?;
    let identity = identity(&file.file().metadata().map_err(failed)?);
    Ok((Arc::new(file), identity))
}

/// Host device and inode: what makes two names the same file.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// One file on its way to become a layer.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) device: Device,
    pub(crate) path: Option<PathBuf>,
    pub(crate) mode: Mode,
    /// The internal snapshot to show instead of the present state.
    pub(crate) snapshot: Option<String>,
}

impl Source {
    /// How messages call this file.
    pub(crate) fn title(&self) -> String {
        self.path.as_ref().map_or_else(|| "the image".to_owned(), |path| path.display().to_string())
    }

    /// A description with what is known of any file.
    pub(crate) fn layer(&self, format: &'static str) -> Layer {
        Layer {
            path: self.path.clone(),
            format,
            virtual_size: 0,
            file_size: self.device.size(),
            data_files: Vec::new(),
            features: Vec::new(),
            notes: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    pub(crate) fn not_writable(&self, reason: impl Into<String>) -> Error {
        Error::NotWritable { image: self.title(), reason: reason.into() }
    }

    pub(crate) fn no_snapshot(&self, name: &str) -> Error {
        Error::NoSnapshot { image: self.title(), name: name.to_owned() }
    }

    /// Wraps what reading this file as `format` met.
    pub(crate) fn failed(&self, format: &'static str) -> impl Fn(ondisk::Error) -> Error {
        let image = self.title();
        move |source| Error::Format { image: image.clone(), format, source }
    }
}

/// What all layers of one image share while it is open.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tables: Cache<u64>,
    pub(crate) clusters: Cache<u8>,
    pub(crate) problems: Arc<ReadProblems>,
}

/// The state of opening one chain.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    gate: &'a dyn Gate,
    /// The file that the caller named.
    top: Option<PathBuf>,
    /// Every file that was opened so far.
    files: Vec<Identity>,
    chain: Vec<Layer>,
    problems: Vec<ondisk::Error>,
    pub(crate) shared: Arc<Shared>,
}

impl<'a> Opening<'a> {
    fn new(gate: &'a dyn Gate, top: Option<&Path>, identity: Option<Identity>) -> Self {
        let shared = Shared {
            tables: Cache::new(TABLE_CACHE),
            clusters: Cache::new(CLUSTER_CACHE),
            problems: Arc::default(),
        };
        Self {
            gate,
            top: top.map(Path::to_owned),
            files: identity.into_iter().collect(),
            chain: Vec::new(),
            problems: Vec::new(),
            shared: Arc::new(shared),
        }
    }

    fn run(mut self, source: &Source, format: Option<&str>) -> Result<Image> {
        let format = match format {
            Some(name) => stated(source, name)?,
            None => probe(source)?,
        };
        let device = (format.open)(source, &mut self)?;
        let found_by_reads = self.shared.problems.clone();
        Ok(Image { device, chain: self.chain, problems: self.problems, found_by_reads })
    }

    /// Adds the description of the layer that is being opened, before any layer below it; returns its number.
    pub(crate) fn push(&mut self, layer: Layer) -> usize {
        self.chain.push(layer);
        self.chain.len().saturating_sub(1)
    }

    /// Keeps a problem that does not prevent reading.
    pub(crate) fn report(&mut self, problem: impl Into<ondisk::Error>) {
        self.problems.push(problem.into());
    }

    /// Opens the backing file that `image` names. An unstated format is raw, if nothing speaks against it.
    pub(crate) fn backing(&mut self, image: &Source, name: &[u8], format: Option<&str>) -> Result<Device> {
        let Allowed { file, path } = self.named_file(image, Role::BackingFile, name)?;
        let below = Source { device: Arc::new(file), path: Some(path), mode: Mode::ReadOnly, snapshot: None };
        let wrapped = |source| Error::Backing { image: image.title(), source: Box::new(source) };
        let format = match format {
            Some(format) => stated(&below, format).map_err(wrapped)?,
            None => match probe(&below).map_err(wrapped)? {
                format if format.name == "raw" => format,
                found => {
                    let (image, name) = (image.title(), printable(name));
                    return Err(Error::UnstatedFormat { image, name, found: found.name });
                }
            },
        };
        (format.open)(&below, self).map_err(wrapped)
    }

    /// Opens the file that holds the guest data of layer `number`.
    pub(crate) fn data_file(&mut self, image: &Source, number: usize, name: &[u8]) -> Result<Device> {
        let Allowed { file, path } = self.named_file(image, Role::DataFile, name)?;
        if let Some(layer) = self.chain.get_mut(number) {
            layer.data_files.push(path);
        }
        Ok(Arc::new(file))
    }

    fn named_file(&mut self, image: &Source, role: Role, name: &[u8]) -> Result<Allowed> {
        if self.chain.len() > MAX_DEPTH {
            return Err(Error::TooDeep { image: image.title(), limit: MAX_DEPTH });
        }
        let refused = |source| Error::Refused { image: image.title(), role, name: printable(name), source };
        let (Some(path), Some(top)) = (&image.path, &self.top) else {
            return Err(refused(crate::Refusal::Denied));
        };
        let request = Request { role, name: OsStr::from_bytes(name), image: path, top };
        let allowed = self.gate.open(&request).map_err(refused)?;
        let metadata = allowed
            .file
            .file()
            .metadata()
            .map_err(|source| Error::Open { path: allowed.path.clone(), source })?;
        let identity = identity(&metadata);
        if self.files.contains(&identity) {
            return Err(Error::Loop { image: image.title(), role, name: printable(name) });
        }
        self.files.push(identity);
        Ok(allowed)
    }
}

/// The format that the caller or the image above states, if the content does not contradict.
fn stated(source: &Source, name: &str) -> Result<&'static ImageFormat> {
    let format = format_named(name)?;
    if !(format.probe)(&head(source)?) {
        return Err(Error::WrongFormat { image: source.title(), format: format.name });
    }
    Ok(format)
}

/// The first format that recognises the content; raw at the latest.
fn probe(source: &Source) -> Result<&'static ImageFormat> {
    let head = head(source)?;
    FORMATS
        .iter()
        .find(|format| (format.probe)(&head))
        .ok_or_else(|| Error::UnknownFormat { name: "unknown".to_owned() })
}

fn head(source: &Source) -> Result<Head> {
    if source.device.size() == 0 {
        return Err(Error::Empty { image: source.title() });
    }
    Head::read(&*source.device).map_err(source.failed("an image"))
}

/// A name from inside an image, fit for a terminal.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
