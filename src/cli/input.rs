//! Opening what the command line names.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use blockdev::{Counter, Device, FileDevice};
use definition::{Definition, Source};
use image::{FolderGate, Image, ImageFormat, Options};
use luks::{Keyring, Limits};
use storage::Hardware;
use zeroize::Zeroizing;

use crate::cli::args::{Common, Images};
use crate::machine::Machine;

/// Bytes of a passphrase or key; cryptsetup's own limit is the same.
const MAX_PASSPHRASE: u64 = 8 << 20;

/// Bytes that a usual key fits in.
const KEY_ROOM: usize = 64 << 10;

/// The opened disks of one machine.
pub(crate) struct Disks {
    /// The file of each disk; an archive stands once for every disk in it.
    pub(crate) paths: Vec<PathBuf>,
    /// The name of each disk within an archive.
    members: Vec<Option<String>>,
    /// What opens encrypted images and the encrypted devices in them.
    pub(crate) keys: Arc<Keyring>,
    /// Which of the keys opened each image.
    opened_with: Vec<Option<usize>>,
    pub(crate) images: Vec<Image>,
    /// The machine that a definition describes.
    defined: Option<Hardware>,
    /// What is to be known of that definition.
    pub(crate) notes: Vec<String>,
}

impl Disks {
    /// Opens every image read-only; of an archive, every disk in it.
    pub(crate) fn open(common: &Common, paths: &[PathBuf]) -> anyhow::Result<Self> {
        Self::open_with(common, Arc::new(keys(common)?), paths)
    }

    /// The same with keys that were read before: standard input can be read only once.
    pub(crate) fn open_with(common: &Common, keys: Arc<Keyring>, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut disks = Self::none(keys);
        for path in paths {
            let named = common.member.is_some() || common.format.as_deref().is_some_and(|name| name != "ova");
            // What cannot be listed is opened all the same, for its error.
            let members = if named { Vec::new() } else { image::members(path).unwrap_or_default() };
            let members: Vec<_> = match members.is_empty() {
                true => vec![None],
                false => members.into_iter().map(Some).collect(),
            };
            for member in members {
                disks.add(common, path, common.format.as_deref(), member)?;
            }
        }
        Ok(disks)
    }

    /// Opens the disks of the machine that the arguments name: given one by one, or by a definition.
    pub(crate) fn of_machine(common: &Common, args: &Images) -> anyhow::Result<Self> {
        let Some((file, definition)) = definition_of(args)? else { return Self::open(common, &args.images) };
        let name = display_name(file);
        anyhow::ensure!(!definition.disks.is_empty(), "{name} defines no hard disk");
        let mut disks = Self::none(Arc::new(keys(common)?));
        let mut given: Vec<&PathBuf> = args.images.iter().collect();
        for disk in &definition.disks {
            let path = locate(file, disk, &mut given)
                .with_context(|| format!("{name}: disk {}: give a copy of it as IMAGE", disk.name))?;
            // What a definition states is not guessed: a raw disk may hold what looks like another format.
            let stated = disk.format.as_deref().filter(|stated| image::format_named(stated).is_ok());
            disks
                .add(common, &path, common.format.as_deref().or(stated), None)
                .with_context(|| format!("{name}: disk {}", disk.name))?;
        }
        if let Some(path) = given.first() {
            anyhow::bail!("{} is the file of no disk in {name}", path.display());
        }
        disks.defined = Some(definition.hardware());
        disks.notes = definition.notes.iter().map(|note| format!("{name}: {note}")).collect();
        Ok(disks)
    }

    fn none(keys: Arc<Keyring>) -> Self {
        Self {
            paths: Vec::new(),
            members: Vec::new(),
            keys,
            opened_with: Vec::new(),
            images: Vec::new(),
            defined: None,
            notes: Vec::new(),
        }
    }

    fn add(
        &mut self,
        common: &Common,
        path: &Path,
        format: Option<&str>,
        member: Option<String>,
    ) -> anyhow::Result<()> {
        let (image, key) = open_with(common, path, format, member.as_deref(), &self.keys)?;
        self.images.push(image);
        self.opened_with.push(key);
        self.paths.push(path.to_owned());
        self.members.push(member);
        Ok(())
    }

    /// `machines` as changes to the machine that was defined, if one was.
    pub(crate) fn defined(&self, machines: Vec<Machine>) -> Vec<Machine> {
        let defined = &self.defined;
        machines.into_iter().map(|machine| Machine { defined: defined.clone(), ..machine }).collect()
    }

    /// The passphrase that opened one image.
    pub(crate) fn passphrase(&self, disk: usize) -> Option<&[u8]> {
        self.keys.passphrases().nth((*self.opened_with.get(disk)?)?)
    }

    pub(crate) fn devices(&self) -> Vec<Device> {
        self.images.iter().map(|image| image.device.clone()).collect()
    }

    /// The name of one disk for people: its file name, or its path where several share a file name.
    pub(crate) fn name(&self, disk: usize) -> String {
        let Some(path) = self.paths.get(disk) else { return format!("disk{disk}") };
        match self.members.get(disk) {
            Some(Some(member)) => format!("{}:{member}", display_name(path)),
            _ => display_name(path),
        }
    }

    /// The name of the machine: its first disk's.
    pub(crate) fn machine_name(&self) -> String {
        self.name(0)
    }
}

/// The definition that the arguments name, and its file.
fn definition_of(args: &Images) -> anyhow::Result<Option<(&Path, Definition)>> {
    let (file, is_domain) = match (&args.domain, &args.vmx) {
        (Some(file), _) => (file, true),
        (None, Some(file)) => (file, false),
        (None, None) => return Ok(None),
    };
    let cannot = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let limit = definition::MAX_SIZE as u64 + 1;
    File::open(file).and_then(|open| open.take(limit).read_to_end(&mut bytes)).with_context(cannot)?;
    let definition = match is_domain {
        true => definition::libvirt(&String::from_utf8_lossy(&bytes)),
        false => definition::vmx(&bytes),
    };
    Ok(Some((file, definition.with_context(cannot)?)))
}

/// The file of a defined disk: the one of `given` with its name, which is taken out, else where the definition says.
fn locate(definition: &Path, disk: &definition::Disk, given: &mut Vec<&PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match &disk.source {
        Source::File(path) => path,
        Source::Elsewhere(_) if given.len() == 1 => return Ok(given.remove(0).clone()),
        Source::Elsewhere(place) => anyhow::bail!("it is {place}"),
    };
    // VMware writes the paths of its hosts, some with backslashes.
    let name_of = |path: &Path| {
        let text = path.to_string_lossy();
        text.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
    };
    let name = name_of(path);
    if let Some(at) = given.iter().position(|given| name_of(given) == name) {
        return Ok(given.remove(at).clone());
    }
    let path = definition.parent().unwrap_or(Path::new("")).join(path);
    path.metadata().with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The gate that the common arguments ask for.
pub(crate) fn gate(common: &Common) -> FolderGate {
    common.allow_path.iter().fold(FolderGate::new(), FolderGate::allow_path)
}

/// Everything that the common arguments give to open what is encrypted, in the order in which it is tried.
pub(crate) fn keys(common: &Common) -> anyhow::Result<Keyring> {
    let mut passphrases = Vec::new();
    for path in &common.passphrase_file {
        let mut key = if path.as_os_str() == "-" { read_key(io::stdin().lock())? } else { read_file(path)? };
        drop_line_break(&mut key);
        passphrases.push(key);
    }
    for descriptor in &common.passphrase_fd {
        let mut key = read_file(Path::new(&format!("/dev/fd/{descriptor}")))?;
        drop_line_break(&mut key);
        passphrases.push(key);
    }
    for path in &common.key_file {
        passphrases.push(read_file(path)?);
    }
    if common.ask_passphrase {
        let answer = Zeroizing::new(
            rpassword::prompt_password("Passphrase: ").context("cannot ask for a passphrase")?,
        );
        passphrases.push(Zeroizing::new(answer.as_bytes().to_vec()));
    }
    let limits = Limits { memory: common.key_memory.saturating_mul(1024) };
    Ok(Keyring::new(passphrases, limits))
}

fn read_file(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read_key(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
}

fn read_key(from: impl Read) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Room for any usual key, so that growing leaves no copies of it behind.
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_ROOM));
    from.take(MAX_PASSPHRASE + 1).read_to_end(&mut key)?;
    anyhow::ensure!(key.len() as u64 <= MAX_PASSPHRASE, "a key is longer than {MAX_PASSPHRASE} bytes");
    Ok(key)
}

fn drop_line_break(key: &mut Zeroizing<Vec<u8>>) {
    if key.last() == Some(&b'\n') {
        key.pop();
    }
}

/// How the common arguments want images opened.
pub(crate) fn options<'a>(common: &'a Common, passphrase: Option<&'a [u8]>) -> Options<'a> {
    Options {
        format: common.format.as_deref(),
        snapshot: common.snapshot.as_deref(),
        member: common.member.as_deref(),
        passphrase,
        accept_changed_parent: common.accept_changed_parent,
        ..Options::default()
    }
}

/// Whether another program has the file open for writing; false where the host cannot tell.
pub(crate) fn is_in_use(path: &Path) -> bool {
    FileDevice::open(path).and_then(|file| file.is_being_written()).unwrap_or(false)
}

/// The format that the name of a new file speaks of.
pub(crate) fn format_of_name(path: &Path) -> anyhow::Result<&'static ImageFormat> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let name = match extension.to_ascii_lowercase().as_str() {
        "img" | "raw" | "dd" => "raw".to_owned(),
        "avhd" => "vhd".to_owned(),
        other => other.to_owned(),
    };
    image::format_named(&name)
        .with_context(|| format!("the name {} does not say a format; use --to", path.display()))
}

/// What was wrong with an image, on opening and on all reads since.
pub(crate) fn problems_of(image: &Image) -> Vec<String> {
    let opening = image.problems.iter().map(ToString::to_string);
    let notes = image.chain.iter().flat_map(|layer| layer.notes.iter().cloned());
    let reads = image.take_read_problems().into_iter().map(|problem| problem.to_string());
    opening.chain(notes).chain(reads).collect()
}

/// Opens one image read-only as the common arguments want it.
pub(crate) fn open(common: &Common, path: &Path) -> anyhow::Result<Image> {
    Ok(open_with(common, path, common.format.as_deref(), None, &keys(common)?)?.0)
}

/// Opens one image with the first of `keys` that does, and says which one that was. What is not encrypted takes any.
fn open_with(
    common: &Common,
    path: &Path,
    format: Option<&str>,
    member: Option<&str>,
    keys: &Keyring,
) -> anyhow::Result<(Image, Option<usize>)> {
    let gate = gate(common);
    let mut tried =
        keys.passphrases().enumerate().map(|(index, key)| (Some(index), Some(key))).collect::<Vec<_>>();
    if tried.is_empty() {
        tried.push((None, None));
    }
    let mut last = None;
    for (index, key) in tried {
        let mut options = options(common, key);
        options.format = format;
        options.member = member.or(options.member);
        match image::open(path, &options, &gate) {
            Ok(mut image) => {
                // For measuring what a command reads; see docs/architecture.md.
                if std::env::var_os("GUESTMEND_COUNT_READS").is_some() {
                    image.device = Arc::new(CountOnDrop(Counter::new(image.device)));
                }
                if let Some(trace) = std::env::var_os("GUESTMEND_TRACE_READS") {
                    image.device = Arc::new(Trace::new(image.device, path, Path::new(&trace))?);
                }
                return Ok((image, index));
            }
            Err(error @ image::Error::Locked { .. }) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("{} was not opened", path.display()), Into::into))
}

/// The last component, which is how people speak of an image.
pub(crate) fn display_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reports on standard error how much was read, once the command is done.
#[derive(Debug)]
struct CountOnDrop(Counter);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        use std::io::Write;
        drop(writeln!(std::io::stderr(), "read {} bytes in {} reads", self.0.bytes(), self.0.reads()));
    }
}

impl blockdev::BlockDevice for CountOnDrop {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> std::io::Result<blockdev::Extent> {
        self.0.extent_at(offset)
    }

    fn writable(&self) -> Option<&dyn blockdev::BlockDeviceMut> {
        self.0.writable()
    }
}

/// Writes a line for every read of the guest's disk to a file: the image, the offset and the length in bytes.
#[derive(Debug)]
struct Trace {
    inner: Device,
    path: PathBuf,
    to: File,
}

impl Trace {
    fn new(inner: Device, path: &Path, to: &Path) -> anyhow::Result<Self> {
        // Appended to, as several disks of one machine are traced into one file.
        let to = File::options().create(true).append(true).open(to);
        Ok(Self {
            inner,
            path: path.to_owned(),
            to: to.context("cannot open the file of GUESTMEND_TRACE_READS")?,
        })
    }
}

impl blockdev::BlockDevice for Trace {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::Write;
        // One write a line: reads of several threads do not mix.
        let line = format!("{} {offset} {}\n", self.path.display(), buf.len());
        (&self.to).write_all(line.as_bytes())?;
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<blockdev::Extent> {
        self.inner.extent_at(offset)
    }

    fn writable(&self) -> Option<&dyn blockdev::BlockDeviceMut> {
        self.inner.writable()
    }
}
