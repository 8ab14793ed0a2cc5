//! The disk inside a VHDX file: from byte of the disk to byte of the file.
//!
//! Block → table entry → place in the file, zeros, the parent, or a sector bitmap that decides for each sector.
//! Neighbours that lie next to each other are read at once. The table and the bitmaps are read in pieces of
//! 4 KiB and cached; what reads meet and can read past is recorded in the problems of the image.

use std::fmt;
use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::Corrupt;

use super::bat::{self, Content, Damage, Entry};
use super::bitmap;
use super::geometry::{
    EntryKind, Geometry, SECTOR, SECTOR_BITS, SECTOR_SIZE, damaged, length_of, overflow, to_index,
};
use super::replayed::Replayed;
use super::space::Taken;
use super::writer::Writer;
use crate::open::Shared;
use crate::{LayerDisk, OwnContent, OwnRun};

/// Table entries that are read and cached at once: what the log writes at once.
pub(super) const PIECE: u64 = 512;

/// Runs that one question about an extent may walk.
const MAX_RUNS: usize = 64;

/// A VHDX image as a device.
pub(super) struct Disk {
    pub(super) file: Replayed,
    pub(super) parent: Option<Device>,
    pub(super) geometry: Geometry,
    /// First byte of the block allocation table.
    pub(super) bat: u64,
    /// Bytes of the file that no block may lie in.
    pub(super) taken: Taken,
    /// The number of this layer, the first part of its cache keys.
    pub(super) layer: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Option<Writer>,
}

/// Bytes of the disk with one kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// At least 1.
    length: u64,
    place: Place,
}

/// Where the bytes of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Absent,
    Zero,
    /// From this byte of the file on.
    Stored(u64),
}

impl Run {
    /// Whether `place`, which follows this run, belongs to it.
    fn continues(&self, place: Place) -> bool {
        match (self.place, place) {
            (Place::Absent, Place::Absent) | (Place::Zero, Place::Zero) => true,
            (Place::Stored(first), Place::Stored(next)) => first.checked_add(self.length) == Some(next),
            _ => false,
        }
    }
}

impl Disk {
    /// One piece of the block allocation table.
    pub(super) fn piece(&self, number: u64) -> io::Result<Arc<[u64]>> {
        let key = (self.layer, number);
        if let Some(piece) = self.shared.tables.get(key) {
            return Ok(piece);
        }
        // Held until the piece is cached: a writer that changes it meanwhile would leave a stale copy behind.
        let changed = self.writer.as_ref().map(Writer::changed);
        if let Some(piece) = changed.as_ref().and_then(|changed| changed.bat.get(&number)) {
            return Ok(piece.clone());
        }
        let mut bytes = [0; SECTOR_SIZE];
        self.file.view().read_exact_at(&mut bytes, self.piece_offset(number))?;
        let piece: Arc<[u64]> =
            bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        self.shared.tables.insert(key, piece.clone());
        Ok(piece)
    }

    /// Where a piece of the table lies.
    pub(super) fn piece_offset(&self, number: u64) -> u64 {
        self.bat.saturating_add(number.saturating_mul(SECTOR))
    }

    /// The table entry with this index.
    pub(super) fn entry(&self, index: u64) -> io::Result<Entry> {
        let piece = self.piece(index / PIECE)?;
        piece.get(to_index(index % PIECE)?).copied().map(Entry).ok_or_else(overflow)
    }

    /// What the entry of block `number` says.
    pub(super) fn content(&self, entry: Entry, number: u64) -> io::Result<Content> {
        let index = self.geometry.payload_index(number);
        if entry.reserved() != 0 {
            let found = format!("{:#x}", entry.reserved());
            let damage = Damage { field: "Reserved", expected: "0".to_owned(), found };
            self.record(self.corrupt(index, damage));
        }
        entry.payload(self.geometry, &self.taken).map_err(|damage| damaged(self.corrupt(index, damage)))
    }

    /// Names the damaged entry with this index.
    pub(super) fn corrupt(&self, index: u64, damage: Damage) -> Corrupt {
        let at = self.bat.saturating_add(index.saturating_mul(8));
        let found = match self.geometry.kind(index) {
            EntryKind::Payload(block) => format!("{} for block {block}", damage.found),
            EntryKind::Bitmap(chunk) => format!("{} for the sector bitmap of chunk {chunk}", damage.found),
        };
        Corrupt::new(bat::ENTRY, at, damage.field, damage.expected, found)
    }

    /// Where the sector bitmap of chunk `number` lies; `None` where there is none.
    pub(super) fn bitmap_block(&self, number: u64) -> io::Result<Option<u64>> {
        let index = self.geometry.bitmap_index(number);
        self.entry(index)?.bitmap(&self.taken).map_err(|damage| damaged(self.corrupt(index, damage)))
    }

    /// 4 KiB of a sector bitmap, from byte `offset` of the file on.
    pub(super) fn bitmap_piece(&self, offset: u64) -> io::Result<Arc<[u8]>> {
        let key = (self.layer, offset);
        if let Some(piece) = self.shared.clusters.get(key) {
            return Ok(piece);
        }
        let changed = self.writer.as_ref().map(Writer::changed);
        if let Some(piece) = changed.as_ref().and_then(|changed| changed.bitmaps.get(&offset)) {
            return Ok(piece.clone());
        }
        let mut bytes = vec![0; SECTOR_SIZE];
        let view = self.file.view();
        if offset.saturating_add(SECTOR) > view.size() {
            let expected = format!("before {:#x}, the end of the file", view.size());
            let found = format_args!("{offset:#x}").to_string();
            return Err(damaged(Corrupt::new("VHDX sector bitmap", offset, "FileOffsetMB", expected, found)));
        }
        view.read_exact_at(&mut bytes, offset)?;
        let piece: Arc<[u8]> = bytes.into();
        self.shared.clusters.insert(key, piece.clone());
        Ok(piece)
    }

    /// Whether the sector that holds byte `at` of a partially present block is in this file, and how many
    /// bytes from `at` on, at most `limit`, are in the same place.
    fn bitmap_run(&self, at: u64, limit: u64) -> io::Result<(bool, u64)> {
        let geometry = self.geometry;
        let number = geometry.block(at);
        let Some(bitmap_block) = self.bitmap_block(geometry.chunk(number))? else {
            let damage = Damage {
                field: "State",
                expected: "6, for a block of this chunk is only partially present".to_owned(),
                found: "0".to_owned(),
            };
            return Err(damaged(self.corrupt(geometry.bitmap_index(geometry.chunk(number)), damage)));
        };
        let first = geometry.sector(geometry.within_block(at));
        let behind = geometry.within_block(at).saturating_add(limit).min(geometry.block_size());
        let wanted = geometry.sector(geometry.sector_end(behind));
        let mut sector = first;
        let mut is_here = None;
        while sector < wanted {
            let bit = geometry.first_bit(number).saturating_add(sector);
            let piece = self.bitmap_piece(bitmap_block.saturating_add(Geometry::bitmap_piece(bit)))?;
            let run = bitmap::run(&piece, to_index(bit % SECTOR_BITS)?).ok_or_else(overflow)?;
            if is_here.is_some_and(|is_here| is_here != run.0) {
                break;
            }
            is_here = Some(run.0);
            sector = sector.saturating_add(u64::try_from(run.1).map_err(|_| overflow())?);
            // A run that ends before its piece does is over.
            if !geometry.first_bit(number).saturating_add(sector).is_multiple_of(SECTOR_BITS) {
                break;
            }
        }
        let end = geometry.sector_bytes(sector.min(wanted));
        let length = end.saturating_sub(geometry.within_block(at)).min(limit);
        Ok((is_here.ok_or_else(overflow)?, length))
    }

    /// The run of one kind that starts at `offset`, at most `limit` bytes long, both within the disk.
    fn run_at(&self, offset: u64, limit: u64) -> io::Result<Run> {
        let geometry = self.geometry;
        let first = geometry.payload_index(geometry.block(offset));
        let number = first / PIECE;
        let piece = self.piece(number)?;
        let mut run: Option<Run> = None;
        for (word, index) in piece.iter().skip(to_index(first % PIECE)?).zip(first..) {
            let EntryKind::Payload(block) = geometry.kind(index) else { continue };
            let at = offset.saturating_add(run.map_or(0, |run| run.length));
            if at >= geometry.guest(block).end {
                break;
            }
            let rest = limit.saturating_sub(run.map_or(0, |run| run.length));
            let next = match self.run_in_block(Entry(*word), block, at, rest) {
                Ok(next) => next,
                // The run before the damage can still be read.
                Err(error) => match run {
                    Some(run) => return Ok(run),
                    None => return Err(error),
                },
            };
            match &mut run {
                None => run = Some(next),
                Some(run) if run.continues(next.place) => run.length = run.length.saturating_add(next.length),
                Some(run) => return Ok(*run),
            }
            let end = offset.saturating_add(run.map_or(0, |run| run.length));
            if end < geometry.guest(block).end || end >= offset.saturating_add(limit) {
                break;
            }
        }
        run.ok_or_else(overflow)
    }

    /// The run from byte `at` on within block `number`.
    fn run_in_block(&self, entry: Entry, number: u64, at: u64, limit: u64) -> io::Result<Run> {
        let rest = self.geometry.guest(number).end.saturating_sub(at).min(limit);
        let within = self.geometry.within_block(at);
        let run = |place, length| Ok(Run { length, place });
        match self.content(entry, number)? {
            Content::Absent => run(Place::Absent, rest),
            Content::Zero => run(Place::Zero, rest),
            Content::Full(host) => run(Place::Stored(host.saturating_add(within)), rest),
            Content::Partial(host) => match self.bitmap_run(at, rest)? {
                (true, length) => run(Place::Stored(host.saturating_add(within)), length),
                (false, length) => run(Place::Absent, length),
            },
        }
    }

    pub(super) fn record(&self, corrupt: Corrupt) {
        self.shared.problems.record(self.layer, corrupt);
    }

    /// Bytes of a block, with zeros where the file has ended. QEMU refuses such a read.
    fn read_stored(&self, buf: &mut [u8], host: u64) -> io::Result<()> {
        let view = self.file.view();
        let available = view.size().saturating_sub(host).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        if !missing.is_empty() {
            missing.fill(0);
            let at = host.saturating_add(available);
            let expected = format!("below {}, the end of the file", view.size());
            self.record(Corrupt::new("VHDX payload block", at, "FileOffsetMB", expected, at));
        }
        if present.is_empty() { Ok(()) } else { view.read_exact_at(present, host) }
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

    /// What a run means to those who only want to know whether it must be read. Blocks are large, and most of a
    /// new one is a hole of the file.
    fn extent_of(&self, run: Run, offset: u64) -> io::Result<Extent> {
        let zeros = Extent { length: run.length, kind: ExtentKind::Zero };
        let (device, at) = match (run.place, &self.parent) {
            (Place::Stored(host), _) => (self.file.view(), host),
            (Place::Absent, Some(parent)) => (&**parent, offset),
            (Place::Zero, _) | (Place::Absent, None) => return Ok(zeros),
        };
        if at >= device.size() {
            return Ok(zeros);
        }
        let below = device.extent_at(at)?;
        Ok(Extent { length: below.length.min(run.length), kind: below.kind })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, parent, .. } = self;
        write!(f, "vhdx({file:?}, parent {parent:?})")
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.geometry.size()
    }

    fn sector_size(&self) -> u32 {
        // 512 or 4096.
        u32::try_from(self.geometry.sector_size()).unwrap_or(512)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, length_of(buf))?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let run = self.run_at(at, length_of(rest))?;
            let (piece, after) = rest.split_at_mut_checked(to_index(run.length)?).ok_or_else(overflow)?;
            match run.place {
                Place::Zero => piece.fill(0),
                Place::Absent => self.read_parent(piece, at)?,
                Place::Stored(host) => self.read_stored(piece, host)?,
            }
            rest = after;
            at = at.saturating_add(run.length);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size(), offset, 1)?;
        let mut total: Option<Extent> = None;
        for _ in 0..MAX_RUNS {
            let at = offset.saturating_add(total.map_or(0, |extent| extent.length));
            if at >= self.size() {
                break;
            }
            let next =
                self.run_at(at, self.size().saturating_sub(at)).and_then(|run| self.extent_of(run, at));
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
        check_range(self.size(), offset, 1)?;
        let Run { length, place } = self.run_at(offset, self.size().saturating_sub(offset))?;
        let content = match place {
            Place::Absent => OwnContent::Absent,
            Place::Zero => OwnContent::Zero,
            Place::Stored(offset) => OwnContent::Stored { file: 0, offset },
        };
        Ok(OwnRun { length, content })
    }
}
