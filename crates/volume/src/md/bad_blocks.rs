//! The bad-block log of a member, and the member without these blocks.
//!
//! `super_1_load` of `drivers/md/md.c`: little-endian numbers of 64 bits, the first sector above ten bits of
//! length; all ones end the list.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind};
use ondisk::{Corrupt, Result};

use super::superblock::sectors;

/// The sectors that the kernel reads of a log.
const MAX_SECTORS: u16 = 8;

/// Where a log lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    /// Byte of the superblock.
    pub(super) superblock: u64,
    /// Sectors from there.
    pub(super) offset: i32,
    pub(super) sectors: u16,
    /// By which the log's sectors are multiplied, as a power of two.
    pub(super) shift: u8,
}

/// The ranges in bytes of the member that `log` lists, ascending.
pub(super) fn read(device: &dyn BlockDevice, log: Log) -> Result<Vec<(u64, u64)>> {
    let corrupt = |field, expected: String, found: String| {
        Corrupt::new("md bad-block log", log.superblock, field, expected, found)
    };
    if log.sectors > MAX_SECTORS || log.shift > 32 {
        let found = format!("{} sectors, shift {}", log.sectors, log.shift);
        return Err(corrupt("bblog_size", format!("at most {MAX_SECTORS}, shift at most 32"), found).into());
    }
    let distance = i64::from(log.offset).saturating_mul(512);
    let Some(start) = log.superblock.checked_add_signed(distance) else {
        return Err(corrupt("bblog_offset", "a place on the device".into(), log.offset.to_string()).into());
    };
    let bytes = ondisk::read_bytes(device, start, usize::from(log.sectors).saturating_mul(512))?;
    let mut ranges = Vec::new();
    for entry in bytes.chunks_exact(8) {
        let entry = <[u8; 8]>::try_from(entry).map_or(u64::MAX, u64::from_le_bytes);
        if entry == u64::MAX {
            break;
        }
        let scaled = |count: u64| sectors(count.saturating_mul(1_u64.wrapping_shl(log.shift.into())));
        let first = scaled(entry >> 10);
        let length = scaled(entry & 0x3ff);
        if length > 0 {
            ranges.push((first, first.saturating_add(length)));
        }
    }
    ranges.sort_unstable();
    Ok(ranges)
}

/// A device of which some ranges are not to be read.
#[derive(Debug)]
pub(super) struct WithoutBadBlocks {
    inner: Device,
    /// Ascending by their beginnings; ranges may overlap.
    ranges: Vec<(u64, u64)>,
}

impl WithoutBadBlocks {
    /// `inner` without `ranges` of a larger device on which it begins at byte `start`.
    pub(super) fn new(inner: Device, ranges: &[(u64, u64)], start: u64) -> Self {
        let ranges = ranges
            .iter()
            .filter(|(_, end)| *end > start)
            .map(|(first, end)| (first.saturating_sub(start), end.saturating_sub(start)))
            .collect();
        Self { inner, ranges }
    }
}

impl BlockDevice for WithoutBadBlocks {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        if let Some((first, last)) = self.ranges.iter().find(|(first, last)| *first < end && offset < *last) {
            return Err(io::Error::other(format!(
                "bytes {first} to {last} of the member's data are in its bad-block log"
            )));
        }
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let run = self.inner.extent_at(offset)?;
        if self.ranges.iter().any(|(first, last)| (*first..*last).contains(&offset)) {
            return Ok(Extent { length: run.length.min(512), kind: ExtentKind::Data });
        }
        let next = self.ranges.iter().map(|(first, _)| *first).filter(|first| *first > offset).min();
        let left = next.map_or(u64::MAX, |next| next.saturating_sub(offset));
        Ok(Extent { length: run.length.min(left), kind: run.kind })
    }

    /// Bytes that are written may be bad still, so the log stays.
    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.inner.writable()
    }
}
