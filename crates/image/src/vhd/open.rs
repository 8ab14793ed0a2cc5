//! From a file to a disk, with a description of the layer.

use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::{Corrupt, Error, Parsed};
use zerocopy::FromBytes;

use super::check::check;
use super::create::create;
use super::footer::{self, DiskType, Footer, Footers, Place};
use super::header::{Header, RawHeader};
use super::parent::{self, read_names};
use super::room::Room;
use crate::arithmetic::{length_of, overflow, to_index};
use crate::blocks::{Disk, Layout, Writer, survey};
use crate::open::{Opening, Source};
use crate::{Head, ImageFormat, Layer, LayerDisk, Mode, OwnContent, OwnRun, ParentLink, Result};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "vhd",
    qemu_name: "vpc",
    probe,
    open,
    check,
    create: Some(create),
    stream: None,
    rename_parent: Some(super::rename::rename_parent),
};

/// A copy of the footer at the start, or a footer at the end that fits the file exactly.
///
/// QEMU looks at the start alone, and so takes a fixed disk for a raw one with a sector too many. A footer with
/// its checksum in the last sector, for a disk of exactly the rest of the file, is no accident. A disk in blocks
/// whose copy at the start is gone must have a sound header behind it.
fn probe(head: &Head) -> bool {
    head.start.starts_with(&footer::COOKIE)
        || footer::is_of_fixed_disk(&head.end, head.size)
        || has_sound_header(head)
}

fn has_sound_header(head: &Head) -> bool {
    let Some((raw, length)) = footer::at_end(&head.end) else { return false };
    let place = Place::new(footer::STRUCTURE, head.size.saturating_sub(length), raw);
    let Some(footer) = place.sound().filter(|footer| footer.disk_type != DiskType::Fixed) else {
        return false;
    };
    let at = footer.raw.data_offset.get();
    let bytes = usize::try_from(at).ok().and_then(|at| head.start.get(at..));
    let Some(Ok((header, _))) = bytes.map(RawHeader::read_from_prefix) else { return false };
    let decoded = Header::decode(header, at, footer.sizes.disk(), head.size);
    decoded.is_ok_and(|header| header.problems.is_empty())
}

/// The footer to go by.
pub(super) fn choose(footers: &Footers, file_size: u64) -> ondisk::Result<(&Place, &Footer)> {
    let chosen = footers.chosen().and_then(|place| Some((place, place.footer.as_ref()?)));
    chosen.ok_or_else(|| {
        let places = [&footers.copy, &footers.end];
        let problem = places.into_iter().flatten().find_map(|place| place.problem.clone());
        let at = file_size.saturating_sub(footer::LENGTH);
        let none = || Corrupt::new(footer::STRUCTURE, at, "cookie", "`conectix`", "something else");
        problem.unwrap_or_else(none).into()
    })
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let file = &source.device;
    let footers = Footers::read(&**file).map_err(&failed)?;
    let (place, footer) = choose(&footers, file.size()).map_err(&failed)?;
    let problems = footer::problems(&footers, place, file.size());
    let layer = Layer {
        virtual_size: footer.sizes.disk(),
        features: footer.describe(),
        notes: footer.notes(),
        identity: Some(footer.raw.identity()),
        ..source.layer(FORMAT.name)
    };
    if let Some(name) = &source.snapshot {
        return Err(source.no_snapshot(name));
    }
    let problems = problems.into_iter().map(Error::from).collect();
    match footer.disk_type {
        DiskType::Fixed => open_fixed(source, opening, footer, place, layer, problems),
        DiskType::Dynamic | DiskType::Differencing => {
            open_blocks(source, opening, footer, &footers, layer, problems)
        }
    }
}

fn open_fixed(
    source: &Source,
    opening: &mut Opening<'_>,
    footer: &Footer,
    place: &Place,
    layer: Layer,
    mut problems: Vec<Error>,
) -> Result<Arc<dyn LayerDisk>> {
    let size = footer.sizes.disk();
    if size > place.at {
        let problem =
            Corrupt::new(place.structure, place.at, "current_size", format!("at most {}", place.at), size);
        problems.push(problem.into());
    }
    opening.push(layer);
    let can_write = source.mode == Mode::ReadWrite;
    if can_write {
        refuse_writing(source, footer, &problems)?;
    }
    problems.into_iter().for_each(|problem| opening.report(problem));
    Ok(Arc::new(Fixed { file: source.device.clone(), size, stored: size.min(place.at), can_write }))
}

fn open_blocks(
    source: &Source,
    opening: &mut Opening<'_>,
    footer: &Footer,
    footers: &Footers,
    mut layer: Layer,
    mut problems: Vec<Error>,
) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let file = &source.device;
    let size = footer.sizes.disk();
    let Parsed { value: header, problems: in_header } = Header::read(&**file, footer).map_err(&failed)?;
    problems.extend(in_header);
    layer.features.push(format!("block size {}", header.block_size.bytes()));
    let mut names = parent::Names::default();
    let mut link = None;
    if footer.disk_type == DiskType::Differencing {
        names = read_names(&**file, &header);
        problems.extend(names.problems.into_iter().map(Error::from));
        let changed = footer::date(header.raw.parent_time_stamp.get());
        layer.notes.push(format!("made from its parent as that was last written, at {changed}"));
        link = Some(ParentLink {
            names: names.names,
            format: Some(FORMAT.name.to_owned()),
            identity: Some(header.raw.parent_identity()),
        });
    }
    layer.parent.clone_from(&link);
    let number = opening.push(layer);
    let layout = header.layout(footer.disk_type, names.ranges);
    let writer = match source.mode {
        Mode::ReadOnly => None,
        Mode::ReadWrite => {
            refuse_writing(source, footer, &problems)?;
            Some(writer(source, &layout, footers)?)
        }
    };
    problems.into_iter().for_each(|problem| opening.report(problem));
    let backing: Option<Device> = match &link {
        Some(link) => Some(opening.parent(source, link)?),
        None => None,
    };
    let (file, shared) = (file.clone(), opening.shared.clone());
    Ok(Arc::new(Disk { file, backing, layout, size, layer: number, shared, writer }))
}

fn refuse_writing(source: &Source, footer: &Footer, problems: &[Error]) -> Result<()> {
    if source.device.writable().is_none() {
        return Err(source.not_writable("it was opened read-only"));
    }
    if footer.raw.saved_state == 1 {
        return Err(source.not_writable("it belongs to a saved state of a machine"));
    }
    match problems.first() {
        Some(problem) => Err(source.not_writable(problem.to_string())),
        None => Ok(()),
    }
}

/// Looks at every block before the first is written. Both footers are sound and the same.
fn writer(source: &Source, layout: &Layout, footers: &Footers) -> Result<Writer> {
    let failed = |source_error| {
        let length = u64::from(layout.entries).saturating_mul(4);
        source.failed(FORMAT.name)(Error::Io { offset: layout.table_offset, length, source: source_error })
    };
    let Some(end) = &footers.end else { return Err(source.not_writable("it has no footer at its end")) };
    let mut flawed = None;
    let survey =
        survey(&*source.device, layout, |block, _| flawed = flawed.or(Some(block))).map_err(failed)?;
    if let Some(block) = flawed.or(survey.stopped_at) {
        return Err(source.not_writable(format!("block {block} of its table is damaged")));
    }
    if let Some((first, second)) = survey.overlaps(layout).next() {
        let (first, second) = (first.block, second.block);
        return Err(source.not_writable(format!("its blocks {first} and {second} share bytes of the file")));
    }
    let used = layout.reserved.iter().map(|range| range.end).max().max(survey.end(layout)).unwrap_or(0);
    if used > end.at {
        return Err(source.not_writable(format!("its footer at byte {} lies within other data", end.at)));
    }
    let room = Room::new(layout, end.raw, end.at).map_err(failed)?;
    Ok(Writer::new(Box::new(room)))
}

/// A fixed disk: the file without its footer.
#[derive(Debug)]
struct Fixed {
    file: Device,
    /// Length of the disk in bytes.
    size: u64,
    /// How many of them the file has; the others read as zeros.
    stored: u64,
    can_write: bool,
}

impl BlockDevice for Fixed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let available = self.stored.saturating_sub(offset).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        missing.fill(0);
        if present.is_empty() { Ok(()) } else { self.file.read_exact_at(present, offset) }
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let left = self.stored.saturating_sub(offset);
        if left == 0 {
            return Ok(Extent { length: self.size.saturating_sub(offset), kind: ExtentKind::Zero });
        }
        let Extent { length, kind } = self.file.extent_at(offset)?;
        Ok(Extent { length: length.min(left), kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.can_write { Some(self) } else { None }
    }
}

impl BlockDeviceMut for Fixed {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.stored, offset, length_of(buf))?;
        blockdev::writable(&self.file)?.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        blockdev::writable(&self.file)?.flush()
    }
}

impl LayerDisk for Fixed {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        let Extent { length, kind } = self.extent_at(offset)?;
        let content = match kind {
            ExtentKind::Data => OwnContent::Stored { file: 0, offset },
            ExtentKind::Zero => OwnContent::Zero,
        };
        Ok(OwnRun { length, content })
    }
}
