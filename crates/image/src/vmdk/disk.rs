//! The disk inside a VMDK image: extents laid end to end, over the parent where they hold nothing.

use std::fmt;
use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::Corrupt;

use super::grains::{Grains, Run};
use super::tables::{Content, Scheme};
use super::writer::Writer;
use crate::arithmetic::{length_of, overflow, to_index};
use crate::{LayerDisk, OwnContent, OwnRun};

/// Runs that one question about an extent may walk.
const MAX_RUNS: usize = 64;

/// A VMDK image as a device.
pub(super) struct Disk {
    /// Ascending and without gaps.
    pub(super) extents: Vec<Placed>,
    pub(super) parent: Option<Device>,
    /// Length in bytes.
    pub(super) size: u64,
    pub(super) writer: Option<Writer>,
}

/// One extent and its place on the disk.
#[derive(Debug)]
pub(super) struct Placed {
    /// First byte on the disk.
    pub(super) start: u64,
    /// Bytes, at least 1.
    pub(super) length: u64,
    /// The number of its file: 0 is the image itself.
    pub(super) file: usize,
    pub(super) part: Part,
}

/// What an extent is made of.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes of a file from `offset` on.
    Flat(Flat),
    Zero,
    /// Nobody may see it.
    NoAccess,
    Grains(Box<Grains>),
}

/// The bytes themselves.
#[derive(Debug)]
pub(super) struct Flat {
    pub(super) file: Device,
    pub(super) offset: u64,
    /// The number of the layer and its problems, for a file that ends early.
    pub(super) layer: usize,
    pub(super) problems: std::sync::Arc<crate::problems::ReadProblems>,
}

/// Where bytes of the disk come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Parent,
    Zero,
    Hidden,
    /// Byte of the extent's file.
    At(u64),
    /// Marker of the grain, and the bytes up to the next.
    Packed(u64, u64),
}

impl Disk {
    /// The extent that holds byte `offset` of the disk, which has such a byte.
    pub(super) fn extent(&self, offset: u64) -> io::Result<&Placed> {
        let after = self.extents.partition_point(|extent| extent.start <= offset);
        after.checked_sub(1).and_then(|index| self.extents.get(index)).ok_or_else(overflow)
    }

    /// The run that starts at `offset`, at most `limit` bytes long and within one extent.
    fn run_at(&self, offset: u64, limit: u64) -> io::Result<(&Placed, u64, Source)> {
        let extent = self.extent(offset)?;
        let within = offset.saturating_sub(extent.start);
        let limit = limit.min(extent.length.saturating_sub(within));
        let (length, source) = match &extent.part {
            Part::Flat(flat) => (limit, Source::At(flat.offset.saturating_add(within))),
            Part::Zero => (limit, Source::Zero),
            Part::NoAccess => (limit, Source::Hidden),
            Part::Grains(grains) => {
                let Run { length, content, span } = grains.run_at(within, limit)?;
                let source = match content {
                    Content::Absent => Source::Parent,
                    Content::Zero => Source::Zero,
                    Content::At(at) => Source::At(at),
                    Content::Packed(at) => Source::Packed(at, span),
                };
                (length, source)
            }
        };
        Ok((extent, length, source))
    }

    fn read_parent(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(parent) = &self.parent else {
            buf.fill(0);
            return Ok(());
        };
        let available = parent.size().saturating_sub(offset).min(length_of(buf));
        let (present, past) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        past.fill(0);
        if present.is_empty() { Ok(()) } else { parent.read_exact_at(present, offset) }
    }

    /// Whether bytes that are absent here are zeros: the parent does not reach them.
    pub(super) fn is_zero_below(&self, offset: u64) -> bool {
        self.parent.as_ref().is_none_or(|parent| parent.size() <= offset)
    }

    /// What a run means to those who only want to know whether it must be read.
    fn extent_of(&self, offset: u64, (extent, length, source): (&Placed, u64, Source)) -> io::Result<Extent> {
        let whole = |kind| Ok(Extent { length, kind });
        match source {
            Source::Zero => whole(ExtentKind::Zero),
            Source::Hidden | Source::Packed(..) => whole(ExtentKind::Data),
            Source::At(at) => match &extent.part {
                Part::Flat(flat) => flat.extent_at(at, length),
                _ => whole(ExtentKind::Data),
            },
            Source::Parent => match &self.parent {
                Some(parent) if offset < parent.size() => {
                    let below = parent.extent_at(offset)?;
                    Ok(Extent { length: below.length.min(length), kind: below.kind })
                }
                _ => whole(ExtentKind::Zero),
            },
        }
    }
}

impl Flat {
    fn read(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let size = self.file.size();
        let available = size.saturating_sub(at).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        if !missing.is_empty() {
            missing.fill(0);
            let at = at.saturating_add(available);
            let expected = format!("below {size}, the end of the file");
            self.problems.record(self.layer, Corrupt::new("VMDK flat extent", at, "offset", expected, at));
        }
        if present.is_empty() { Ok(()) } else { self.file.read_exact_at(present, at) }
    }

    /// The run of the file itself, which may know its holes.
    fn extent_at(&self, at: u64, limit: u64) -> io::Result<Extent> {
        if at >= self.file.size() {
            return Ok(Extent { length: limit, kind: ExtentKind::Zero });
        }
        let extent = self.file.extent_at(at)?;
        Ok(Extent { length: extent.length.min(limit), kind: extent.kind })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vmdk({} extents, parent {:?})", self.extents.len(), self.parent)
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length_of(buf))?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (extent, length, source) = self.run_at(at, length_of(rest))?;
            let (piece, after) = rest.split_at_mut_checked(to_index(length)?).ok_or_else(overflow)?;
            let within = at.saturating_sub(extent.start);
            match (source, &extent.part) {
                (Source::Zero, _) => piece.fill(0),
                (Source::Parent, _) => self.read_parent(piece, at)?,
                (Source::At(at), Part::Flat(flat)) => flat.read(piece, at)?,
                (Source::At(at), Part::Grains(grains)) => grains.read_stored(piece, within, at)?,
                (Source::Packed(at, span), Part::Grains(grains)) => {
                    grains.read_packed(piece, within, at, span)?;
                }
                _ => {
                    let reason = "the descriptor allows no access to this part of the disk";
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
                }
            }
            rest = after;
            at = at.saturating_add(length);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let mut total: Option<Extent> = None;
        for _ in 0..MAX_RUNS {
            let at = offset.saturating_add(total.map_or(0, |extent| extent.length));
            if at >= self.size {
                break;
            }
            let next = self.run_at(at, self.size.saturating_sub(at)).and_then(|run| self.extent_of(at, run));
            match (&mut total, next) {
                (None, next) => total = Some(next?),
                (Some(extent), Ok(next)) if next.kind == extent.kind => {
                    extent.length = extent.length.saturating_add(next.length);
                }
                // A new kind, or damage: a later question meets it.
                (Some(_), _) => break,
            }
        }
        total.ok_or_else(overflow)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.writer.is_some() { Some(self) } else { None }
    }
}

impl LayerDisk for Disk {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        check_range(self.size, offset, 1)?;
        let (extent, length, source) = self.run_at(offset, self.size.saturating_sub(offset))?;
        let (length, content) = match (source, &extent.part) {
            (Source::Parent, _) => (length, OwnContent::Absent),
            (Source::Zero, _) => (length, OwnContent::Zero),
            (Source::Hidden | Source::Packed(..), _) => (length, OwnContent::Encoded),
            (Source::At(at), Part::Flat(flat)) => {
                let run = flat.extent_at(at, length)?;
                let is_zero = run.kind == ExtentKind::Zero;
                let stored = OwnContent::Stored { file: extent.file, offset: at };
                (run.length, if is_zero { OwnContent::Zero } else { stored })
            }
            (Source::At(at), part) => {
                // What lies past the end of a truncated file is not stored anywhere.
                let size = match part {
                    Part::Grains(grains) => grains.tables.file.size(),
                    _ => u64::MAX,
                };
                match size.saturating_sub(at) {
                    0 => (length, OwnContent::Zero),
                    stored => (length.min(stored), OwnContent::Stored { file: extent.file, offset: at }),
                }
            }
        };
        Ok(OwnRun { length, content })
    }
}

impl Placed {
    /// Whether grains of this extent are compressed.
    pub(super) fn is_packed(&self) -> bool {
        match &self.part {
            Part::Grains(grains) => match &grains.tables.scheme {
                Scheme::Hosted(hosted) => hosted.is_packed,
                Scheme::Scanned(_) => true,
                _ => false,
            },
            _ => false,
        }
    }
}
