//! From a file to a [`Disk`], with a description of the layer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use blockdev::{BlockDevice, BlockDeviceMut, Device, FileDevice};
use ondisk::{Corrupt, Error as OndiskError, Parsed, read_bytes, read_value};

use super::descriptor::{self, Access, Descriptor, Kind, NO_PARENT};
use super::disk::{Disk, Flat, Part, Placed};
use super::grains::Grains;
use super::header::{RawHeader, SECTOR};
use super::sparse::{self, Sparse};
use super::tables::Tables;
use super::writer::Writer;
use super::{check, create, names, rename, stream_writer};
use crate::decompress::{Codec, Decompressors};
use crate::open::{Opening, Source, printable};
use crate::{Error, Head, ImageFormat, Layer, LayerDisk, Mode, ParentLink, Result, Role, Stream};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "vmdk",
    qemu_name: "vmdk",
    probe,
    open,
    check: check::check,
    create: Some(create::create_files),
    stream: Some(Stream { subformat: "streamOptimized", write: write_stream }),
    rename_parent: Some(rename::rename_parent),
};

/// Bound on the length of a disk in bytes.
const MAX_SIZE: u64 = 1 << 62;

/// Writes `disk` to a new streamOptimized image at `path`.
fn write_stream(path: &Path, disk: &dyn BlockDevice) -> Result<()> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let file = FileDevice::create_new(path).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let written = stream_writer::write_stream_optimized(&file, disk, &name);
    written.map_err(|source| Error::Format {
        image: path.display().to_string(),
        format: FORMAT.name,
        source,
    })?;
    file.flush().map_err(failed)
}

fn probe(head: &Head) -> bool {
    sparse::is_sparse(&head.start) || descriptor::looks_like_one(&head.start)
}

/// What the named file itself says.
#[derive(Debug)]
pub(super) struct Plan {
    /// `None` for one extent of a disk, alone.
    pub(super) descriptor: Option<Descriptor>,
    /// The sparse extent that the file is.
    pub(super) own: Option<Sparse>,
    /// Odd lines of the descriptor.
    pub(super) oddities: Vec<OndiskError>,
    /// What is wrong with headers, with the number of the file: enough to forbid writing.
    pub(super) problems: Vec<(usize, OndiskError)>,
}

impl Plan {
    /// Reads the descriptor and, where the file is one, the headers of its sparse extent.
    pub(super) fn read(file: &dyn BlockDevice) -> ondisk::Result<Self> {
        let length = file.size().min(8);
        let start = read_bytes(file, 0, usize::try_from(length).unwrap_or(8))?;
        if !sparse::is_sparse(&start) {
            return Self::of_text(&read_text(file, 0, file.size())?, 0);
        }
        let place = embedded(file, &start)?;
        if place.as_ref().is_some_and(|(_, is_stub)| *is_stub) {
            let text = place.map(|(range, _)| (read_text(file, range.start, range.end), range.start));
            let (text, at) = text.unwrap_or((Ok(Vec::new()), 0));
            return Self::of_text(&text?, at);
        }
        let Parsed { value: own, problems } = sparse::read(file)?;
        let problems = problems.into_iter().map(|problem| (0, problem)).collect();
        let mut plan = Self { descriptor: None, own: Some(own), oddities: Vec::new(), problems };
        if let Some((range, _)) = place {
            let text = read_text(file, range.start, range.end.min(file.size()))?;
            // An extent of several leaves the place of the descriptor empty.
            if text.iter().any(|byte| *byte != 0) {
                let Parsed { value, problems } = Descriptor::parse(&text, range.start)?;
                plan.descriptor = Some(value);
                plan.oddities = problems;
            }
        }
        Ok(plan)
    }

    fn of_text(text: &[u8], at: u64) -> ondisk::Result<Self> {
        let Parsed { value, problems } = Descriptor::parse(text, at)?;
        Ok(Self { descriptor: Some(value), own: None, oddities: problems, problems: Vec::new() })
    }

    /// The extents in order, each with its length in sectors; `None` for the file itself.
    pub(super) fn extents(&mut self) -> ondisk::Result<Vec<(u64, Option<descriptor::Extent>)>> {
        let Some(own) = &self.own else {
            let lines = self.descriptor.iter().flat_map(|descriptor| descriptor.extents.iter());
            return Ok(lines.map(|line| (line.sectors, Some(line.clone()))).collect());
        };
        let capacity = own.capacity / SECTOR;
        let Some(descriptor) = &self.descriptor else { return Ok(vec![(capacity, None)]) };
        let corrupt = |expected: String, found: String| {
            Corrupt::new(descriptor::STRUCTURE, descriptor.at, "extents", expected, found)
        };
        match descriptor.extents.as_slice() {
            [line] if line.kind == Kind::Sparse => {
                if line.sectors != capacity {
                    let expected = format!("{capacity} sectors, as the header says");
                    self.problems.push((0, corrupt(expected, line.sectors.to_string()).into()));
                }
                Ok(vec![(line.sectors, None)])
            }
            [] => {
                let expected = "one sparse extent".to_owned();
                self.problems.push((0, corrupt(expected, "none".to_owned()).into()));
                Ok(vec![(capacity, None)])
            }
            lines => {
                let expected = "one sparse extent, since the header of this file is one".to_owned();
                Err(corrupt(expected, format!("{} extents", lines.len())).into())
            }
        }
    }

    /// What the image was made from, if it was.
    pub(super) fn parent(&self) -> Option<ParentLink> {
        let descriptor = self.descriptor.as_ref().filter(|descriptor| descriptor.has_parent())?;
        let encoding = descriptor.encoding.as_deref();
        let hint = descriptor.parent_name.as_deref();
        Some(ParentLink {
            names: hint.map(|hint| names::parent(hint, encoding)).unwrap_or_default(),
            format: Some(FORMAT.name.to_owned()),
            identity: descriptor.parent_cid.map(identity),
        })
    }
}

/// Where the descriptor inside a sparse extent is, and whether the file has nothing else.
pub(super) fn embedded(
    file: &dyn BlockDevice,
    start: &[u8],
) -> ondisk::Result<Option<(std::ops::Range<u64>, bool)>> {
    if !start.starts_with(&super::header::MAGIC) {
        return Ok(None);
    }
    let raw: RawHeader = read_value(file, 0)?;
    if raw.is_stub() {
        let at = raw.descriptor_offset.get().checked_mul(SECTOR).filter(|at| *at < file.size());
        let at = at.ok_or_else(|| {
            let expected = format!("below {}", file.size().div_ceil(SECTOR));
            let found = raw.descriptor_offset;
            Corrupt::new("VMDK sparse extent header", 0, "descriptorOffset", expected, found)
        })?;
        // Nothing else can follow, whatever the size says.
        return Ok(Some((at..file.size(), true)));
    }
    Ok(raw.descriptor().filter(|range| range.start < file.size()).map(|range| (range, false)))
}

fn read_text(file: &dyn BlockDevice, start: u64, end: u64) -> ondisk::Result<Vec<u8>> {
    let length = end.saturating_sub(start);
    let bounded = length.min(descriptor::MAX_SIZE);
    let text = read_bytes(file, start, usize::try_from(bounded).unwrap_or(0))?;
    if length > bounded && !text.contains(&0) {
        let expected = format!("at most {bounded} bytes");
        return Err(Corrupt::new(descriptor::STRUCTURE, start, "length", expected, length).into());
    }
    Ok(text)
}

fn identity(cid: u32) -> String {
    format!("CID {cid:08x}")
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let mut plan = Plan::read(&*source.device).map_err(&failed)?;
    let lines = plan.extents().map_err(&failed)?;
    let link = plan.parent();
    let number = opening.push(describe(source, &plan, &lines, link.clone()));
    if let Some(name) = &source.snapshot {
        return Err(source.no_snapshot(name));
    }
    let is_for_writing = source.mode == Mode::ReadWrite;
    if is_for_writing {
        refuse(source, &plan, &lines)?;
    }
    let orphan = match plan.descriptor {
        Some(_) => None,
        None => Some(orphan(opening).map_err(&failed)?),
    };
    let mut extents = Extents::new(number, is_for_writing);
    for (sectors, line) in &lines {
        extents.open(source, opening, &mut plan, *sectors, line.as_ref())?;
    }
    let Extents { placed, size, refusals, short, .. } = extents;
    let problems = plan.problems.drain(..).map(|(_, problem)| problem);
    for problem in problems.chain(plan.oddities.drain(..)).chain(short) {
        opening.report(problem);
    }
    if size == 0 || size > MAX_SIZE {
        let expected = format!("1..={} sectors together", MAX_SIZE / SECTOR);
        let corrupt = Corrupt::new(descriptor::STRUCTURE, 0, "extents", expected, size / SECTOR);
        return Err(failed(corrupt.into()));
    }
    let writer = match (is_for_writing, refusals.into_iter().next()) {
        (false, _) => None,
        (true, Some(reason)) => return Err(source.not_writable(reason)),
        (true, None) => {
            let writer = Writer::new(&source.device, plan.descriptor.as_ref(), &placed);
            Some(writer.map_err(|reason| source.not_writable(reason))?)
        }
    };
    let parent: Option<Device> = match (&link, orphan.flatten()) {
        (Some(link), _) => Some(opening.parent(source, link)?),
        (None, below) => below,
    };
    describe_extents(opening, number, &placed);
    Ok(Arc::new(Disk { extents: placed, parent, size, writer }))
}

/// One extent alone: nothing says whether it stands on another disk, so that its holes may be anything. Returns
/// what the caller says it stands on.
fn orphan(opening: &mut Opening<'_>) -> ondisk::Result<Option<Device>> {
    let found = "none: this is one extent of a disk, and nothing says what it stands on";
    let corrupt = Corrupt::new(descriptor::STRUCTURE, 0, "text", "a descriptor", found);
    match opening.options.below.filter(|_| opening.chain.len() == 1) {
        Some(below) => Ok(Some(below.clone())),
        None if opening.options.accept_changed_parent => {
            opening.report(corrupt);
            Ok(None)
        }
        None => Err(corrupt.into()),
    }
}

/// Why the image cannot be written, as far as the named file alone tells.
fn refuse(source: &Source, plan: &Plan, lines: &[(u64, Option<descriptor::Extent>)]) -> Result<()> {
    if source.device.writable().is_none() {
        return Err(source.not_writable("it was opened read-only"));
    }
    if plan.descriptor.as_ref().is_none_or(|descriptor| descriptor.cid.is_none()) {
        return Err(source.not_writable("it has no content ID, by which children would notice"));
    }
    if let Some((_, problem)) = plan.problems.first() {
        return Err(source.not_writable(problem.to_string()));
    }
    let is_closed = |line: &descriptor::Extent| line.access != Access::ReadWrite || line.kind == Kind::Zero;
    if lines.iter().any(|(_, line)| line.as_ref().is_some_and(is_closed)) {
        return Err(source.not_writable("its descriptor has parts that are not to be written"));
    }
    Ok(())
}

/// Extents on their way to become a disk.
#[derive(Debug)]
pub(super) struct Extents {
    /// The number of the layer.
    layer: usize,
    is_for_writing: bool,
    pub(super) placed: Vec<Placed>,
    /// Length of what is placed, in bytes.
    pub(super) size: u64,
    /// Why it cannot be written.
    pub(super) refusals: Vec<String>,
    /// Flat files that end before their extent does.
    pub(super) short: Vec<OndiskError>,
    /// Devices and file numbers by stored name: several extents may lie in one file.
    files: HashMap<Vec<u8>, (Device, usize)>,
    next_key: u64,
}

impl Extents {
    pub(super) fn new(layer: usize, is_for_writing: bool) -> Self {
        Self {
            layer,
            is_for_writing,
            placed: Vec::new(),
            size: 0,
            refusals: Vec::new(),
            short: Vec::new(),
            files: HashMap::new(),
            next_key: 0,
        }
    }

    /// Opens the next extent, of `sectors` sectors; without a line it is the file itself.
    ///
    /// # Errors
    /// Those of the gate, and of the extent's own headers.
    pub(super) fn open(
        &mut self,
        source: &Source,
        opening: &mut Opening<'_>,
        plan: &mut Plan,
        sectors: u64,
        line: Option<&descriptor::Extent>,
    ) -> Result<()> {
        let length = sectors.saturating_mul(SECTOR);
        if let Some(line) = line.filter(|_| length == 0) {
            let corrupt = Corrupt::new(descriptor::STRUCTURE, line.at, "size of an extent", "at least 1", 0);
            plan.problems.push((0, corrupt.into()));
            return Ok(());
        }
        let Some(line) = line else {
            let Some(own) = plan.own.take() else { return Ok(()) };
            return self.add_grains(opening, source.device.clone(), 0, length, own);
        };
        if line.kind == Kind::Zero {
            self.place(length, 0, Part::Zero);
            return Ok(());
        }
        if line.access == Access::None {
            self.place(length, 0, Part::NoAccess);
            return Ok(());
        }
        let encoding = plan.descriptor.as_ref().and_then(|descriptor| descriptor.encoding.as_deref());
        let (file, number) = self.file(source, opening, &line.name, encoding)?;
        if line.kind == Kind::Flat {
            self.add_flat(opening, line, file, number);
            return Ok(());
        }
        let name = printable(&line.name);
        let failed = |source| Error::Format { image: name.clone(), format: FORMAT.name, source };
        let Parsed { value: sparse, problems } = sparse::read(&*file).map_err(failed)?;
        if let Some(problem) = problems.first() {
            self.refusals.push(problem.to_string());
        }
        plan.problems.extend(problems.into_iter().map(|problem| (number, problem)));
        if sparse.capacity != length {
            let expected = format!("{} sectors, as the header of {name} says", sparse.capacity / SECTOR);
            let corrupt =
                Corrupt::new(descriptor::STRUCTURE, line.at, "size of an extent", expected, sectors);
            self.refusals.push(corrupt.to_string());
            plan.problems.push((0, corrupt.into()));
        }
        self.add_grains(opening, file, number, length, sparse)
    }

    /// Keeps the place of an extent that could not be opened.
    pub(super) fn leave_out(&mut self, sectors: u64) {
        self.place(sectors.saturating_mul(SECTOR), 0, Part::NoAccess);
    }

    /// The file of this name, opened once; the first name that the host has counts.
    fn file(
        &mut self,
        source: &Source,
        opening: &mut Opening<'_>,
        stored: &[u8],
        encoding: Option<&str>,
    ) -> Result<(Device, usize)> {
        if let Some((device, number)) = self.files.get(stored) {
            return Ok((device.clone(), *number));
        }
        let mut first_error = None;
        for name in names::extent(stored, encoding) {
            match opening.data_file(source, self.layer, Role::Extent, &name) {
                Ok(device) => {
                    let number = opening.chain.get(self.layer).map_or(0, |layer| layer.data_files.len());
                    self.files.insert(stored.to_vec(), (device.clone(), number));
                    return Ok((device, number));
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| source.not_writable("an extent has no name")))
    }

    fn add_flat(&mut self, opening: &Opening<'_>, line: &descriptor::Extent, file: Device, number: usize) {
        let offset = line.offset.saturating_mul(SECTOR);
        let length = line.sectors.saturating_mul(SECTOR);
        let end = offset.saturating_add(length);
        if end > file.size() {
            let expected = format!("{end} bytes in {}", printable(&line.name));
            let found = file.size();
            let corrupt = Corrupt::new(descriptor::STRUCTURE, line.at, "size of an extent", expected, found);
            self.refusals.push(corrupt.to_string());
            self.short.push(corrupt.into());
        }
        let problems = opening.shared.problems.clone();
        self.place(length, number, Part::Flat(Flat { file, offset, layer: self.layer, problems }));
    }

    fn add_grains(
        &mut self,
        opening: &Opening<'_>,
        file: Device,
        number: usize,
        length: u64,
        sparse: Sparse,
    ) -> Result<()> {
        self.refusals.extend(sparse.refusal.map(str::to_owned));
        let tables = Tables {
            file,
            scheme: sparse.scheme,
            entries: sparse.table_entries,
            count: sparse.tables,
            layer: self.layer,
            first_key: self.next_key,
            shared: opening.shared.clone(),
            changes: self.is_for_writing.then(RwLock::default),
        };
        self.next_key = self.next_key.saturating_add(Tables::keys(sparse.tables));
        let grains = Grains {
            tables,
            grain: sparse.grain,
            capacity: sparse.capacity,
            start: self.size,
            decompressors: Decompressors::new(Codec::Zlib),
        };
        self.place(length, number, Part::Grains(Box::new(grains)));
        Ok(())
    }

    fn place(&mut self, length: u64, file: usize, part: Part) {
        self.placed.push(Placed { start: self.size, length, file, part });
        self.size = self.size.saturating_add(length);
    }
}

pub(super) fn describe(
    source: &Source,
    plan: &Plan,
    lines: &[(u64, Option<descriptor::Extent>)],
    parent: Option<ParentLink>,
) -> Layer {
    let sectors = lines.iter().fold(0_u64, |sum, (sectors, _)| sum.saturating_add(*sectors));
    let mut layer =
        Layer { virtual_size: sectors.saturating_mul(SECTOR), parent, ..source.layer(FORMAT.name) };
    let header = plan.own.as_ref().and_then(|own| own.header.as_ref());
    if let Some(header) = header {
        layer.features.push(format!("version {}", header.version));
        if header.is_unclean {
            layer.notes.push("marked unclean: it was not closed cleanly".to_owned());
        }
    }
    let Some(descriptor) = &plan.descriptor else { return layer };
    let text = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    let create_type = text("type", &descriptor.create_type);
    let extents = (lines.len() > 1).then(|| format!("{} extents", lines.len()));
    let hardware = text("hardware version", &descriptor.hardware_version);
    let adapter = text("adapter", &descriptor.adapter);
    layer.identity = descriptor.cid.as_ref().map(|cid| identity(cid.value));
    let cid = layer.identity.clone();
    layer.features.splice(0..0, create_type);
    layer.features.extend([extents, cid, hardware, adapter].into_iter().flatten());
    if let Some(name) = &descriptor.change_tracking {
        layer.notes.push(change_tracking(source, name));
    }
    if descriptor.parent_cid == Some(NO_PARENT) && descriptor.parent_name.is_some() {
        layer.notes.push("names a parent although its parent's CID says that there is none".to_owned());
    }
    layer
}

/// Whether the file with the tracked changes is there is only looked at beside the image; it is never opened.
fn change_tracking(source: &Source, name: &[u8]) -> String {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = source.path.as_deref().and_then(Path::parent);
    let is_plain = !name.contains(&b'/') && name != b"..";
    let is_missing = folder
        .filter(|_| is_plain)
        .is_some_and(|folder| !folder.join(Path::new(OsStr::from_bytes(name))).exists());
    let name = printable(name);
    match is_missing {
        true => format!("tracks changes in {name}, which is missing"),
        false => format!("tracks changes in {name}, which will be wrong after any write"),
    }
}

/// Adds what only the extents know.
pub(super) fn describe_extents(opening: &mut Opening<'_>, number: usize, placed: &[Placed]) {
    let Some(layer) = opening.chain.get_mut(number) else { return };
    let mut sizes: Vec<u64> = placed
        .iter()
        .filter_map(|placed| match &placed.part {
            Part::Grains(grains) => Some(grains.grain),
            _ => None,
        })
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    layer.features.extend(sizes.iter().map(|size| format!("grain size {size}")));
    if placed.iter().any(Placed::is_packed) {
        layer.features.push("compression deflate".to_owned());
    }
}
