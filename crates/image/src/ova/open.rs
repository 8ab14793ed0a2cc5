//! From an archive to one of its disks.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, Extent, FileDevice};
use ondisk::{Error as OndiskError, Parsed};
use zerocopy::FromBytes;

use super::archive::{Archive, Disk, Member};
use super::check;
use super::tar::{RawHeader, normal};
use crate::arithmetic::{round_up, to_index};
use crate::open::{Opening, Source, probe as probe_format};
use crate::{Error, Head, ImageFormat, LayerDisk, Mode, OwnContent, OwnRun, Result};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "ova",
    // QEMU has no name for it.
    qemu_name: "ova",
    probe,
    open,
    check: check::check,
    create: None,
    stream: None,
    rename_parent: None,
};

/// What the first member of an appliance is: its description by the standard, and with some writers another part.
const FIRST: [&str; 8] = ["ovf", "mf", "cert", "vmdk", "vhd", "vhdx", "img", "iso"];

/// A valid header of tar whose first file is a part of an appliance: no disk starts like this.
fn probe(head: &Head) -> bool {
    let mut at = 0_u64;
    while let Some(bytes) = to_index(at).ok().and_then(|at| head.start.get(at..)) {
        let Ok((header, _)) = RawHeader::read_from_prefix(bytes) else { return false };
        let Some(length) = header.length().filter(|_| header.is_valid()) else { return false };
        if header.is_file() {
            let name = normal(&header.own_name()).to_ascii_lowercase();
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            return FIRST.contains(&extension);
        }
        at = at.saturating_add(512).saturating_add(round_up(length, 512));
    }
    false
}

/// The disks of the appliance at `path`, by the names that [`Options::member`](crate::Options::member) takes; none for
/// a file of any other format.
///
/// # Errors
/// [`Error::Open`], and [`Error::Format`] for an appliance that cannot be read.
pub fn members(path: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let device: Device = Arc::new(FileDevice::open(path).map_err(failed)?);
    let title = path.display().to_string();
    let failed = |source| Error::Format { image: title.clone(), format: FORMAT.name, source };
    if !probe(&Head::read(&*device).map_err(failed)?) {
        return Ok(Vec::new());
    }
    Ok(Archive::read(&device, title.clone()).map_err(failed)?.value.names())
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let Parsed { value: archive, problems } =
        Archive::read(&source.device, source.title()).map_err(&failed)?;
    if source.mode == Mode::ReadWrite {
        let reason =
            "an appliance is an archive with digests; convert its disk to another file, and write there";
        return Err(source.not_writable(reason));
    }
    let archive = Arc::new(archive);
    let disk = chosen(&archive, opening.options.member)?;
    for problem in problems {
        opening.report(problem);
    }
    let inner = member(&archive, disk, source).map_err(&failed)?;
    let format = probe_format(&inner)?;
    if format.name == FORMAT.name {
        return Err(failed(OndiskError::unsupported("OVA", "an appliance within an appliance")));
    }
    let number = opening.chain.len();
    let disk = opening.open_layer(format, &inner)?;
    let mut starts = vec![start(&archive, &inner)];
    if let Some(layer) = opening.chain.get_mut(number) {
        for file in layer.data_files.drain(..) {
            starts.push(archive.entry(&file.to_string_lossy()).map_or(0, |entry| entry.offset));
        }
        let member = inner.member.as_ref().map_or("", |member| member.name.as_str());
        layer.features.splice(0..0, [format!("member {member}"), format!("format {}", format.name)]);
        layer.path.clone_from(&source.path);
        layer.file_size = source.device.size();
        layer.format = FORMAT.name;
    }
    Ok(Arc::new(InArchive { disk, starts }))
}

/// The disk that the caller wants, or the only one.
fn chosen<'a>(archive: &'a Archive, wanted: Option<&str>) -> Result<&'a Disk> {
    let image = archive.title.clone();
    match (wanted, archive.disks.as_slice()) {
        (Some(wanted), disks) => {
            let found = disks.iter().find(|disk| disk.name == normal(wanted.as_bytes()));
            found.ok_or_else(|| Error::NoMember { image, name: wanted.to_owned(), names: archive.names() })
        }
        (None, [disk]) => Ok(disk),
        (None, _) => Err(Error::SeveralMembers { image, names: archive.names() }),
    }
}

/// The member that holds `disk`, ready to be opened as its own format.
///
/// # Errors
/// [`OndiskError::Unsupported`] for a disk that is not there as it is; [`OndiskError::Io`].
pub(super) fn member(archive: &Arc<Archive>, disk: &Disk, source: &Source) -> ondisk::Result<Source> {
    let refused = |reason: &str| OndiskError::unsupported("OVA", format!("{reason} ({})", disk.name));
    if let Some(reason) = &disk.refusal {
        return Err(refused(reason));
    }
    let entry = archive.entry(&disk.name).ok_or_else(|| refused("a missing member"))?;
    let failed = |source| OndiskError::Io { offset: entry.offset, length: entry.length, source };
    Ok(Source {
        device: archive.device(entry).map_err(failed)?,
        path: None,
        mode: Mode::ReadOnly,
        snapshot: source.snapshot.clone(),
        member: Some(Member { archive: archive.clone(), name: entry.name.clone() }),
    })
}

/// Where the member lies in the archive.
pub(super) fn start(archive: &Archive, inner: &Source) -> u64 {
    let name = inner.member.as_ref().map(|member| member.name.as_str());
    name.and_then(|name| archive.entry(name)).map_or(0, |entry| entry.offset)
}

/// A disk whose files are members of an archive.
struct InArchive {
    disk: Arc<dyn LayerDisk>,
    /// First byte of each of its files in the archive.
    starts: Vec<u64>,
}

impl fmt::Debug for InArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ova({:?})", self.disk)
    }
}

impl BlockDevice for InArchive {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.disk.extent_at(offset)
    }
}

impl LayerDisk for InArchive {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        let OwnRun { length, content } = self.disk.own_run_at(offset)?;
        let content = match content {
            OwnContent::Stored { file, offset } => {
                let start = self.starts.get(file).copied().unwrap_or(0);
                OwnContent::Stored { file: 0, offset: start.saturating_add(offset) }
            }
            other => other,
        };
        Ok(OwnRun { length, content })
    }
}
