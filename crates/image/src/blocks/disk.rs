//! The disk inside a file of blocks: from an offset of the disk to bytes.
//!
//! Disk block → table entry → place in the file, zeros, or the layer below; where a bitmap decides, sector by
//! sector. The table is read in pages and cached; blocks that lie next to each other are read at once.

use std::fmt;
use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::Corrupt;

use super::layout::{Bitmaps, Content, Layout, SECTOR};
use super::writer::Writer;
use crate::arithmetic::{length_of, overflow, to_index};
use crate::open::Shared;
use crate::problems::damaged;
use crate::{LayerDisk, OwnContent, OwnRun};

/// Entries of the table that are read and cached at once: 16 KiB.
pub(super) const PAGE: u64 = 4096;

/// Sectors that one sector of a bitmap speaks of.
pub(super) const BITS: u64 = SECTOR * 8;

/// Runs that one question about an extent may walk.
const MAX_RUNS: usize = 64;

/// An image in blocks as a device.
pub(crate) struct Disk {
    pub(crate) file: Device,
    pub(crate) backing: Option<Device>,
    pub(crate) layout: Layout,
    /// Length of the disk in bytes, which the table covers.
    pub(crate) size: u64,
    /// The number of this layer, the first part of its cache keys.
    pub(crate) layer: usize,
    pub(crate) shared: Arc<Shared>,
    /// Only for layers without one below, or with bitmaps that decide.
    pub(crate) writer: Option<Writer>,
}

/// Bytes of the disk with one kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// At least 1.
    length: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The layer below.
    Below,
    Zero,
    /// From this byte of the file on.
    Host(u64),
}

impl Disk {
    /// Entries `number * PAGE..` of the table, one page of them.
    pub(super) fn page(&self, number: u64) -> io::Result<Arc<[u64]>> {
        // Held until the page is cached: a writer that changes it meanwhile would leave a stale copy behind.
        let changed = self.writer.as_ref().map(Writer::changed);
        if let Some(page) = changed.as_ref().and_then(|changed| changed.pages.get(&number)) {
            return Ok(page.clone());
        }
        let key = (self.layer, number);
        if let Some(page) = self.shared.tables.get(key) {
            return Ok(page);
        }
        let first = number.saturating_mul(PAGE);
        let entries = u64::from(self.layout.entries).saturating_sub(first).min(PAGE);
        let mut bytes = vec![0; to_index(entries.saturating_mul(4))?];
        self.file.read_exact_at(&mut bytes, self.layout.entry_offset(first))?;
        let decode = |stored: &[u8; 4]| u64::from(self.layout.decode(*stored));
        let page: Arc<[u64]> = bytes.as_chunks::<4>().0.iter().map(decode).collect();
        self.shared.tables.insert(key, page.clone());
        Ok(page)
    }

    /// The entry of block `number`.
    pub(super) fn entry(&self, number: u64) -> io::Result<u32> {
        let page = self.page(number / PAGE)?;
        let entry = page.get(to_index(number % PAGE)?).copied().ok_or_else(overflow)?;
        u32::try_from(entry).map_err(|_| overflow())
    }

    /// The sector at byte `offset` of the file, which is one of a bitmap. Zeros where the file has ended.
    pub(super) fn bitmap_sector(&self, offset: u64) -> io::Result<Arc<[u8]>> {
        let changed = self.writer.as_ref().map(Writer::changed);
        if let Some(changed) = changed.as_ref().and_then(|changed| changed.bitmaps.get(&offset)) {
            return Ok(changed.bits.clone());
        }
        let key = (self.layer, offset);
        if let Some(sector) = self.shared.clusters.get(key) {
            return Ok(sector);
        }
        let mut bytes = vec![0; to_index(SECTOR)?];
        self.read_file(&mut bytes, offset, self.layout.names.bitmap)?;
        let sector: Arc<[u8]> = bytes.into();
        self.shared.clusters.insert(key, sector.clone());
        Ok(sector)
    }

    /// The longest known run from byte `offset` on, at most `limit` bytes.
    fn run_at(&self, offset: u64, limit: u64) -> io::Result<Run> {
        let block_size = self.layout.block_size;
        let mut number = block_size.number(offset);
        let mut within = block_size.within(offset);
        let page = self.page(number / PAGE)?;
        let entries = page.get(to_index(number % PAGE)?..).unwrap_or_default();
        let mut run: Option<Run> = None;
        for entry in entries {
            let next = u32::try_from(*entry)
                .map_err(|_| overflow())
                .and_then(|entry| self.run_in_block(number, entry, within));
            match (&mut run, next) {
                (None, next) => run = Some(next?),
                (Some(run), Ok(next)) if continues(run, next.source) => {
                    run.length = run.length.saturating_add(next.length);
                }
                // Another kind, or damage: a later question meets it.
                (Some(run), _) => return Ok(*run),
            }
            let end = offset.saturating_add(run.map_or(0, |run| run.length));
            number = number.saturating_add(1);
            within = 0;
            if end < block_size.start(number) || end.saturating_sub(offset) >= limit {
                break;
            }
        }
        let Run { length, source } = run.ok_or_else(overflow)?;
        Ok(Run { length: length.min(limit), source })
    }

    /// The run from byte `within` of block `number` on, at most to its end.
    fn run_in_block(&self, number: u64, entry: u32, within: u64) -> io::Result<Run> {
        let length = self.layout.block_size.bytes().saturating_sub(within);
        let start = match self.layout.content(number, entry).map_err(damaged)? {
            Content::Absent => return Ok(Run { length, source: Source::Below }),
            Content::Zero => return Ok(Run { length, source: Source::Zero }),
            Content::Host(start) => start,
        };
        let host = Source::Host(start.saturating_add(self.layout.lead).saturating_add(within));
        if self.layout.bitmaps != Bitmaps::Decide {
            return Ok(Run { length, source: host });
        }
        let sector = within / SECTOR;
        let bits = self.bitmap_sector(bitmap_offset(start, sector))?;
        let first = sector % BITS;
        let is_here = bit(&bits, first);
        let count = run_of_bits(&bits, first);
        let in_bits = count.saturating_mul(SECTOR).saturating_sub(within % SECTOR);
        Ok(Run { length: in_bits.min(length), source: if is_here { host } else { Source::Below } })
    }

    /// Reads from the file, with zeros where it has ended.
    fn read_file(&self, buf: &mut [u8], offset: u64, structure: &'static str) -> io::Result<()> {
        let size = self.file.size();
        let available = size.saturating_sub(offset).min(length_of(buf));
        let (present, missing) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        if !missing.is_empty() {
            missing.fill(0);
            let at = offset.saturating_add(available);
            let expected = format!("below {size}, the end of the file");
            let problem = Corrupt::new(structure, at, "place in the file", expected, at);
            self.shared.problems.record(self.layer, problem);
        }
        if present.is_empty() { Ok(()) } else { self.file.read_exact_at(present, offset) }
    }

    fn read_below(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let available = backing.size().saturating_sub(offset).min(length_of(buf));
        let (present, past) = buf.split_at_mut_checked(to_index(available)?).ok_or_else(overflow)?;
        past.fill(0);
        if present.is_empty() { Ok(()) } else { backing.read_exact_at(present, offset) }
    }

    /// What a run means to those who only want to know whether it must be read.
    fn extent_of(&self, run: Run, offset: u64) -> io::Result<Extent> {
        let below = |device: &Device, at: u64| -> io::Result<Extent> {
            if at >= device.size() {
                return Ok(Extent { length: run.length, kind: ExtentKind::Zero });
            }
            let Extent { length, kind } = device.extent_at(at)?;
            Ok(Extent { length: length.min(run.length), kind })
        };
        match (run.source, &self.backing) {
            (Source::Zero, _) | (Source::Below, None) => {
                Ok(Extent { length: run.length, kind: ExtentKind::Zero })
            }
            (Source::Below, Some(backing)) => below(backing, offset),
            // A block may be a hole of the file: most of a preallocated image is.
            (Source::Host(host), _) => below(&self.file, host),
        }
    }
}

/// Where the bit of sector `sector` of a block lies: its sector of the bitmap that starts at byte `start`.
pub(super) fn bitmap_offset(start: u64, sector: u64) -> u64 {
    start.saturating_add((sector / BITS).saturating_mul(SECTOR))
}

/// Bit `number` of a sector of a bitmap, from the most significant of its first byte on.
pub(super) fn bit(bits: &[u8], number: u64) -> bool {
    let byte = usize::try_from(number / 8).ok().and_then(|index| bits.get(index)).copied().unwrap_or(0);
    byte & mask(number) != 0
}

/// Sets bit `number` of a sector of a bitmap.
pub(super) fn set_bit(bits: &mut [u8], number: u64) {
    if let Some(byte) = usize::try_from(number / 8).ok().and_then(|index| bits.get_mut(index)) {
        *byte |= mask(number);
    }
}

fn mask(number: u64) -> u8 {
    0x80_u8.wrapping_shr(u32::try_from(number % 8).unwrap_or(0))
}

/// How many bits from `first` on are like it; at least 1, and at most to the end of the sector.
fn run_of_bits(bits: &[u8], first: u64) -> u64 {
    let is_set = bit(bits, first);
    let whole = if is_set { 0xff } else { 0 };
    let mut end = first.saturating_add(1);
    while end < BITS {
        let byte = usize::try_from(end / 8).ok().and_then(|index| bits.get(index));
        if end.is_multiple_of(8) && byte == Some(&whole) {
            end = end.saturating_add(8);
        } else if bit(bits, end) == is_set {
            end = end.saturating_add(1);
        } else {
            break;
        }
    }
    end.saturating_sub(first)
}

/// Whether `source`, at the end of `run`, belongs to it.
fn continues(run: &Run, source: Source) -> bool {
    match (run.source, source) {
        (Source::Below, Source::Below) | (Source::Zero, Source::Zero) => true,
        (Source::Host(first), Source::Host(next)) => first.checked_add(run.length) == Some(next),
        _ => false,
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, backing, layout, .. } = self;
        write!(f, "{} in {file:?} over {backing:?}", layout.names.block)
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
            let run = self.run_at(at, length_of(rest))?;
            let (piece, after) = rest.split_at_mut_checked(to_index(run.length)?).ok_or_else(overflow)?;
            match run.source {
                Source::Zero => piece.fill(0),
                Source::Below => self.read_below(piece, at)?,
                Source::Host(host) => self.read_file(piece, host, self.layout.names.block)?,
            }
            rest = after;
            at = at.saturating_add(run.length);
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
            let next = self.run_at(at, self.size.saturating_sub(at)).and_then(|run| self.extent_of(run, at));
            match (&mut total, next) {
                (None, next) => total = Some(next?),
                (Some(extent), Ok(next)) if next.kind == extent.kind => {
                    extent.length = extent.length.saturating_add(next.length);
                }
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
        let Run { length, source } = self.run_at(offset, self.size.saturating_sub(offset))?;
        let content = match source {
            Source::Below => OwnContent::Absent,
            Source::Zero => OwnContent::Zero,
            Source::Host(offset) => OwnContent::Stored { file: 0, offset },
        };
        Ok(OwnRun { length, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits() {
        let mut bits = vec![0; 512];
        for number in (3..9).chain(16..4096) {
            set_bit(&mut bits, number);
        }
        assert_eq!(bits[..3], [0x1f, 0x80, 0xff]);
        let found: Vec<u64> = [0, 3, 4, 9, 16, 17, 4095].map(|first| run_of_bits(&bits, first)).to_vec();
        assert_eq!(found, [3, 6, 5, 7, 4080, 4079, 1]);
        assert!(!bit(&bits, 2) && bit(&bits, 3) && bit(&bits, 8) && !bit(&bits, 9));
    }
}
