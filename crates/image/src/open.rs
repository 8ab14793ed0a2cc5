//! From a path to the disk it holds: probing, layers, and the way down a backing chain.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, Device, Extent, ExtentKind, FileDevice};
use ondisk::Corrupt;

use crate::cache::Cache;
use crate::ova::Member;
use crate::problems::ReadProblems;
use crate::staging::{Identity, Staging};
use crate::{
    Allowed, Error, FORMATS, Gate, Head, ImageFormat, Layer, LayerDisk, OwnContent, OwnRun, ParentLink,
    Patch, Refusal, Report, Request, Result, Role, format_named,
};

/// Layers below the first. Real chains stay below twenty; QEMU itself becomes slow long before this.
const MAX_DEPTH: usize = 64;

/// Table entries of 8 bytes kept for a whole chain: 16 MiB, the tables of 128 GiB at the usual cluster size.
const TABLE_CACHE: usize = 2 << 20;

/// Bytes of decompressed clusters kept for a whole chain.
const CLUSTER_CACHE: usize = 8 << 20;

/// What the caller wants to do with the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// No file is opened for writing.
    #[default]
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
    /// The name of the format of the image itself.
    pub fn format(&self) -> &'static str {
        self.chain.first().map_or("raw", |layer| layer.format)
    }

    /// Damage that reads met since the last call and read past: clusters beyond the end of a truncated file
    /// (which read as zeros), reserved bits. Each kind is told once for each layer.
    ///
    /// Damage that hides bytes is not here: it fails the read.
    pub fn take_read_problems(&self) -> Vec<Corrupt> {
        self.found_by_reads.take()
    }
}

/// How an image is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The format of the image; guessed from its content when `None`.
    pub format: Option<&'a str>,
    /// Whether the image itself may be written. Ignored with `staging`, which always allows it.
    pub mode: Mode,
    /// The internal snapshot to show, by name or identifier; read-only.
    pub snapshot: Option<&'a str>,
    /// The disk to take from an archive that holds several (OVA), by the name of its file.
    pub member: Option<&'a str>,
    /// Opens encrypted images.
    pub passphrase: Option<&'a [u8]>,
    /// Read on although a parent is not the one that its child was made from.
    pub accept_changed_parent: bool,
    /// Collects every write in memory instead of writing files.
    pub staging: Option<&'a Staging>,
    /// What the image stands on, instead of what it names.
    pub below: Option<&'a Device>,
}

/// Opens the image at `path` and everything it stands on.
///
/// # Errors
/// [`Error`]; damage that leaves the disk readable is in [`Image::problems`] instead.
pub fn open(path: &Path, options: &Options<'_>, gate: &dyn Gate) -> Result<Image> {
    let (source, identity) = Source::open(path, options)?;
    Opening::new(gate, *options, Some(path), Some(identity)).run(&source)
}

/// Opens the image that an already open device holds. Without a path, no file that the image names can be
/// found.
///
/// # Errors
/// As [`open`].
pub fn open_device(
    device: Device,
    path: Option<&Path>,
    options: &Options<'_>,
    gate: &dyn Gate,
) -> Result<Image> {
    let identity = path.and_then(|path| path.metadata().ok()).map(|metadata| Identity::of(&metadata));
    let source = Source::new(device, path, options);
    Opening::new(gate, *options, path, identity).run(&source)
}

/// What can be said of the chain of the image at `path`, the image first, as far as it can be opened, and what
/// stopped it there.
pub fn chain(path: &Path, options: &Options<'_>, gate: &dyn Gate) -> (Vec<Layer>, Option<Error>) {
    let (source, identity) = match Source::open(path, options) {
        Ok(opened) => opened,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut opening = Opening::new(gate, *options, Some(path), Some(identity));
    let error = opening.open_top(&source).err();
    (opening.chain, error)
}

/// The bytes to write into the image at `path` so that it names `parent`, a file of this format, as what it stands
/// on. Nothing else changes: the caller answers for the content of the parent.
///
/// # Errors
/// [`Error::NotRenamable`]; otherwise as [`open`].
pub fn rename_parent(
    path: &Path,
    options: &Options<'_>,
    gate: &dyn Gate,
    parent: &[u8],
    format: &ImageFormat,
) -> Result<Vec<Patch>> {
    let (source, identity) = Source::open(path, options)?;
    let opening = Opening::new(gate, *options, Some(path), Some(identity));
    let own = opening.format_of_top(&source)?;
    let rename = own
        .rename_parent
        .ok_or_else(|| source.not_renamable(parent, format!("{} images stand on nothing", own.name)))?;
    rename(&source, parent, format)
}

/// Examines every structure of the image at `path` itself, not of what it stands on.
///
/// # Errors
/// [`Error`] when the image is too damaged, or not allowed, to be examined at all; what is wrong inside is in
/// the report.
pub fn check(path: &Path, options: &Options<'_>, gate: &dyn Gate) -> Result<Report> {
    let (source, identity) = Source::open(path, options)?;
    check_source(&source, Opening::new(gate, *options, Some(path), Some(identity)))
}

/// Examines the image that an already open device holds, as [`check`].
///
/// # Errors
/// As [`check`].
pub fn check_device(
    device: Device,
    path: Option<&Path>,
    options: &Options<'_>,
    gate: &dyn Gate,
) -> Result<Report> {
    let identity = path.and_then(|path| path.metadata().ok()).map(|metadata| Identity::of(&metadata));
    let source = Source::new(device, path, options);
    check_source(&source, Opening::new(gate, *options, path, identity))
}

fn check_source(source: &Source, mut opening: Opening<'_>) -> Result<Report> {
    let format = opening.format_of_top(source)?;
    let mut report = (format.check)(source, &mut opening)?;
    report.format = format.name;
    report.files.insert(0, source.path.clone().unwrap_or_default());
    Ok(report)
}

/// One file on its way to become a layer.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) device: Device,
    pub(crate) path: Option<PathBuf>,
    pub(crate) mode: Mode,
    /// The internal snapshot to show instead of the present state.
    pub(crate) snapshot: Option<String>,
    /// The member of an archive that this is. It has no path: nothing outside the archive is opened for it.
    pub(crate) member: Option<Member>,
}

impl Source {
    fn new(device: Device, path: Option<&Path>, options: &Options<'_>) -> Self {
        let mode = match options.staging {
            Some(_) => Mode::ReadWrite,
            None => options.mode,
        };
        let snapshot = options.snapshot.map(str::to_owned);
        Self { device, path: path.map(Path::to_owned), mode, snapshot, member: None }
    }

    fn open(path: &Path, options: &Options<'_>) -> Result<(Self, Identity)> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        if let Some(staging) = options.staging {
            // Looked up by name first: a second lock on the same file would meet our own.
            let identity = Identity::of(&path.metadata().map_err(failed)?);
            if let Some(device) = staging.known(identity) {
                return Ok((Self::new(device, Some(path), options), identity));
            }
        }
        let for_writing = options.staging.map_or(options.mode == Mode::ReadWrite, Staging::is_for_commit);
        let file = if for_writing { FileDevice::open_writable(path) } else { FileDevice::open(path) };
        let file = file.map_err(failed)?;
        let identity = Identity::of(&file.file().metadata().map_err(failed)?);
        let mut device: Device = Arc::new(file);
        if let Some(staging) = options.staging {
            device = staging.overlay(path, identity, device);
        }
        Ok((Self::new(device, Some(path), options), identity))
    }

    /// How messages call this file.
    pub(crate) fn title(&self) -> String {
        if let Some(member) = &self.member {
            return member.title();
        }
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
            is_marked_corrupt: false,
            is_encrypted: false,
            snapshots: Vec::new(),
            identity: None,
            parent: None,
            disk: None,
        }
    }

    pub(crate) fn not_writable(&self, reason: impl Into<String>) -> Error {
        Error::NotWritable { image: self.title(), reason: reason.into() }
    }

    pub(crate) fn not_renamable(&self, name: &[u8], reason: impl Into<String>) -> Error {
        Error::NotRenamable { image: self.title(), name: printable(name), reason: reason.into() }
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
    pub(crate) options: Options<'a>,
    /// The file that the caller named.
    top: Option<PathBuf>,
    /// Every file that was opened so far.
    files: Vec<Identity>,
    pub(crate) chain: Vec<Layer>,
    problems: Vec<ondisk::Error>,
    pub(crate) shared: Arc<Shared>,
}

impl<'a> Opening<'a> {
    fn new(gate: &'a dyn Gate, options: Options<'a>, top: Option<&Path>, identity: Option<Identity>) -> Self {
        let shared = Shared {
            tables: Cache::new(TABLE_CACHE),
            clusters: Cache::new(CLUSTER_CACHE),
            problems: Arc::default(),
        };
        Self {
            gate,
            options,
            top: top.map(Path::to_owned),
            files: identity.into_iter().collect(),
            chain: Vec::new(),
            problems: Vec::new(),
            shared: Arc::new(shared),
        }
    }

    fn run(mut self, source: &Source) -> Result<Image> {
        let device = self.open_top(source)?;
        let found_by_reads = self.shared.problems.clone();
        Ok(Image { device, chain: self.chain, problems: self.problems, found_by_reads })
    }

    fn open_top(&mut self, source: &Source) -> Result<Device> {
        let format = self.format_of_top(source)?;
        Ok(self.open_layer(format, source)?)
    }

    fn format_of_top(&self, source: &Source) -> Result<&'static ImageFormat> {
        match self.options.format {
            Some(name) => stated(source, name),
            None => probe(source),
        }
    }

    /// Opens `source` as one layer of this format, with all that it stands on.
    pub(crate) fn open_layer(
        &mut self,
        format: &'static ImageFormat,
        source: &Source,
    ) -> Result<Arc<dyn LayerDisk>> {
        let number = self.chain.len();
        let disk = (format.open)(source, self)?;
        if let Some(layer) = self.chain.get_mut(number) {
            layer.disk = Some(disk.clone());
        }
        Ok(disk)
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

    /// Opens what `image` stands on. An unstated format is raw, if nothing speaks against it.
    ///
    /// The names are tried in order; a name that the host does not have gives way to the next. The identity
    /// that the link records must be the one that the layer below has.
    pub(crate) fn parent(&mut self, image: &Source, link: &ParentLink) -> Result<Arc<dyn LayerDisk>> {
        if let Some(device) = self.options.below.filter(|_| self.chain.len() == 1) {
            return Ok(Arc::new(Below(device.clone())));
        }
        let (Allowed { file, path }, name) = self.first_present(image, link)?;
        let device: Device = Arc::new(file);
        let below = Source { device, path: Some(path), mode: Mode::ReadOnly, snapshot: None, member: None };
        let wrapped = |source| Error::Backing { image: image.title(), source: Box::new(source) };
        let format = match &link.format {
            Some(format) => stated(&below, format).map_err(wrapped)?,
            None => match probe(&below).map_err(wrapped)? {
                format if format.name == "raw" => format,
                found => {
                    let (image, name) = (image.title(), printable(name));
                    return Err(Error::UnstatedFormat { image, name, found: found.name });
                }
            },
        };
        let number = self.chain.len();
        let disk = self.open_layer(format, &below).map_err(wrapped)?;
        self.check_identity(image, number, link.identity.as_slice())?;
        Ok(disk)
    }

    /// Refuses layer `number`, the parent of `image`, if it has none of the identities that the link allows, or
    /// notes that where the caller accepts it. A link that names none allows any.
    pub(crate) fn check_identity(&mut self, image: &Source, number: usize, allowed: &[String]) -> Result<()> {
        let Some(layer) = self.chain.get_mut(number) else { return Ok(()) };
        let [expected, ..] = allowed else { return Ok(()) };
        if layer.identity.as_ref().is_some_and(|found| allowed.contains(found)) {
            return Ok(());
        }
        let error = Error::ChangedParent {
            image: image.title(),
            parent: layer
                .path
                .as_ref()
                .map_or_else(|| "parent".to_owned(), |path| path.display().to_string()),
            expected: expected.clone(),
            found: layer.identity.clone().unwrap_or_else(|| "none".to_owned()),
        };
        if !self.options.accept_changed_parent {
            return Err(error);
        }
        layer.notes.push(error.to_string());
        Ok(())
    }

    /// Opens the first of the linked names that exists; the error is that of the first name.
    fn first_present<'n>(&mut self, image: &Source, link: &'n ParentLink) -> Result<(Allowed, &'n [u8])> {
        let mut first_error = None;
        for name in &link.names {
            match self.named_file(image, Role::BackingFile, name, false) {
                Ok(allowed) => return Ok((allowed, name)),
                Err(error @ (Error::Loop { .. } | Error::TooDeep { .. })) => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::Refused {
            image: image.title(),
            role: Role::BackingFile,
            name: String::new(),
            source: Refusal::NotAName,
        }))
    }

    /// Opens a file that holds guest data of layer `number`; for writing, or staged, if the layer is.
    pub(crate) fn data_file(
        &mut self,
        image: &Source,
        number: usize,
        role: Role,
        name: &[u8],
    ) -> Result<Device> {
        if let Some(member) = &image.member {
            return self.sibling(image, member, number, role, name);
        }
        let for_writing = image.mode == Mode::ReadWrite;
        let staging = self.options.staging.filter(|_| for_writing);
        let allowed = self.named_file(image, role, name, for_writing && staging.is_none())?;
        let path = allowed.path.clone();
        let identity = self.files.last().copied();
        let mut device: Device = Arc::new(allowed.file);
        if let (Some(staging), Some(identity)) = (staging, identity) {
            device = match staging.known(identity) {
                Some(known) => known,
                None if staging.is_for_commit() => {
                    self.files.pop();
                    drop(device);
                    let Allowed { file, path } = self.named_file(image, role, name, true)?;
                    staging.overlay(&path, identity, Arc::new(file))
                }
                None => staging.overlay(&path, identity, device),
            };
        }
        if let Some(layer) = self.chain.get_mut(number) {
            layer.data_files.push(path);
        }
        Ok(device)
    }

    /// What a member of an archive names can only be another member.
    fn sibling(
        &mut self,
        image: &Source,
        member: &Member,
        number: usize,
        role: Role,
        name: &[u8],
    ) -> Result<Device> {
        let (device, path) = member.sibling(name).ok_or_else(|| Error::Refused {
            image: image.title(),
            role,
            name: printable(name),
            source: Refusal::Denied,
        })?;
        if let Some(layer) = self.chain.get_mut(number) {
            layer.data_files.push(path);
        }
        Ok(device)
    }

    fn named_file(&mut self, image: &Source, role: Role, name: &[u8], for_writing: bool) -> Result<Allowed> {
        if self.chain.len() > MAX_DEPTH {
            return Err(Error::TooDeep { image: image.title(), limit: MAX_DEPTH });
        }
        let refused = |source| Error::Refused { image: image.title(), role, name: printable(name), source };
        let (Some(path), Some(top)) = (&image.path, &self.top) else {
            return Err(refused(Refusal::Denied));
        };
        let request = Request { role, name: OsStr::from_bytes(name), image: path, top, for_writing };
        let allowed = self.gate.open(&request).map_err(refused)?;
        let metadata = allowed
            .file
            .file()
            .metadata()
            .map_err(|source| Error::Open { path: allowed.path.clone(), source })?;
        let identity = Identity::of(&metadata);
        if self.files.contains(&identity) {
            return Err(Error::Loop { image: image.title(), role, name: printable(name) });
        }
        self.files.push(identity);
        Ok(allowed)
    }
}

/// A device that the caller put below an image.
#[derive(Debug)]
struct Below(Device);

impl BlockDevice for Below {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.0.extent_at(offset)
    }
}

impl LayerDisk for Below {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        let Extent { length, kind } = self.0.extent_at(offset)?;
        let content = if kind == ExtentKind::Zero { OwnContent::Zero } else { OwnContent::Encoded };
        Ok(OwnRun { length, content })
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
pub(crate) fn probe(source: &Source) -> Result<&'static ImageFormat> {
    let head = head(source)?;
    FORMATS
        .iter()
        .copied()
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
pub(crate) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
