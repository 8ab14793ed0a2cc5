//! Buffer item: 128-byte pieces of a metadata buffer.
//!
//! XFS Algorithms & Data Structures, "Buffer Log Item". A bitmap says which pieces were logged; each region
//! holds one run of them or a part of it.

use ondisk::{Corrupt, Result, le};

use super::item::{Item, get};
use super::recovery::{LARGEST_BUFFER, Recovery};
use super::transaction::Transaction;
use crate::inode::CRC_AT;
use crate::number::index;
use crate::span::{Checked, Span, put, put_crc};

const STRUCTURE: &str = "log buffer item";
/// Bytes in a piece.
const PIECE: usize = 128;
/// Words of the bitmap of the largest buffer, and some.
const MOST_WORDS: u32 = 64;
/// Byte of `di_next_unlinked` in an inode.
const NEXT_UNLINKED_AT: usize = 0x60;

/// `blf_flags` bits below the type.
mod flags {
    pub(super) const INODES: u16 = 0x01;
    pub(super) const CANCEL: u16 = 0x02;
    pub(super) const DQUOTS: u16 = 0x04 | 0x08 | 0x10;
}

/// `struct xfs_buf_log_format` without its bitmap.
#[derive(Debug, Clone)]
pub(super) struct Format {
    flags: u16,
    /// 512-byte sectors.
    count: u16,
    sector: u64,
    words: u32,
}

impl Format {
    pub(super) fn decode(item: &Item, offset: u64) -> Checked<Self> {
        let span = item.region(0, STRUCTURE, offset)?;
        let words = get::<le::U32>(&span, 16, "blf_map_size")?.get();
        if words > MOST_WORDS {
            return Err(span.corrupt("blf_map_size", format_args!("at most {MOST_WORDS} words"), words));
        }
        Ok(Self {
            flags: get::<le::U16>(&span, 4, "blf_flags")?.get(),
            count: get::<le::U16>(&span, 6, "blf_len")?.get(),
            sector: get::<le::U64>(&span, 8, "blf_blkno")?.get(),
            words,
        })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.flags & flags::CANCEL != 0
    }

    pub(super) fn place(&self) -> (u64, u32) {
        (self.sector, u32::from(self.count))
    }

    /// When in its transaction it is made.
    pub(super) fn stage(&self) -> usize {
        if self.is_cancelled() {
            3
        } else if self.flags & flags::INODES != 0 {
            2
        } else {
            0
        }
    }

    fn kind(&self) -> u16 {
        self.flags >> 11
    }
}

/// The item that frees a buffer, of which a log without other changes may consist.
pub(super) fn encode_cancel(sector: u64, count: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [super::item::kind::BUFFER, 1, flags::CANCEL, count] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(&sector.to_le_bytes());
    // A bitmap of two words without a bit.
    bytes.extend_from_slice(&2_u32.to_le_bytes());
    bytes.resize(28, 0);
    bytes
}

pub(super) fn apply(recovery: &mut Recovery<'_>, transaction: &Transaction, item: &Item) -> Result<()> {
    let format = Format::decode(item, transaction.offset)?;
    if format.is_cancelled() {
        recovery.cancel(format.place());
        return Ok(());
    }
    if recovery.is_cancelled(format.place()) {
        return Ok(());
    }
    let first = item.region(0, STRUCTURE, transaction.offset)?;
    let length = u32::from(format.count).saturating_mul(512);
    let offset = format.sector.saturating_mul(512);
    let end = offset.saturating_add(u64::from(length));
    if length > LARGEST_BUFFER {
        return Err(first.corrupt("blf_len", format_args!("at most {LARGEST_BUFFER} bytes"), length).into());
    }
    recovery.check_place(STRUCTURE, transaction.offset, "blf_blkno", offset..end)?;
    if recovery.is_newer(offset, length, transaction.lsn)? {
        return Ok(());
    }
    let pieces = pieces(item, &first, &format, length)?;
    if format.flags & flags::INODES != 0 {
        return unlinked(recovery, &pieces, offset, length);
    }
    if format.flags & flags::DQUOTS != 0 && recovery.quota_off & u32::from(format.flags & flags::DQUOTS) != 0
    {
        return Ok(());
    }
    for (at, bytes) in &pieces {
        recovery.write(offset.saturating_add(crate::number::wide(*at)), bytes)?;
    }
    recovery.touch(offset, length, format.kind(), transaction.lsn)
}

/// The logged pieces with their places in the buffer.
fn pieces<'a>(
    item: &'a Item,
    first: &Span<'_>,
    format: &Format,
    length: u32,
) -> Checked<Vec<(usize, &'a [u8])>> {
    let bits = index(format.words).saturating_mul(32);
    let mut found = Vec::new();
    let mut bit = 0;
    let mut number = 1;
    while bit < bits {
        let run = run_at(first, bit, bits)?;
        if run == 0 {
            bit = bit.saturating_add(1);
            continue;
        }
        let region = item.regions.get(number).ok_or_else(|| {
            first.corrupt("blf_data_map", "a region for each run of pieces", item.regions.len())
        })?;
        let count = run.min(region.len() / PIECE);
        let bytes = region.get(..count.saturating_mul(PIECE)).unwrap_or_default();
        let at = bit.saturating_mul(PIECE);
        if count == 0 || region.len() % PIECE != 0 {
            return Err(first.corrupt("region", "whole pieces of 128 bytes", region.len()));
        }
        if at.saturating_add(bytes.len()) > index(length) {
            return Err(first.corrupt("blf_data_map", format_args!("pieces of {length} bytes"), at));
        }
        found.push((at, bytes));
        bit = bit.saturating_add(count);
        number = number.saturating_add(1);
    }
    Ok(found)
}

/// Bits that are set from `bit` on.
fn run_at(first: &Span<'_>, bit: usize, bits: usize) -> Checked<usize> {
    let mut run = 0_usize;
    for bit in bit..bits {
        let word = get::<le::U32>(first, (bit / 32).saturating_mul(4).saturating_add(20), "blf_data_map")?;
        if word.get() >> (bit % 32) & 1 == 0 {
            break;
        }
        run = run.saturating_add(1);
    }
    Ok(run)
}

/// A buffer of inodes: only the pointers of the lists of unlinked inodes count, as inodes are logged as such.
fn unlinked(recovery: &Recovery<'_>, pieces: &[(usize, &[u8])], offset: u64, length: u32) -> Result<()> {
    let size = recovery.superblock.geometry.inode_size();
    for inode in (0..index(length)).step_by(size) {
        let at = inode.saturating_add(NEXT_UNLINKED_AT);
        let logged =
            pieces.iter().find_map(|(start, bytes)| bytes.get(at.checked_sub(*start)?..)?.first_chunk::<4>());
        let Some(logged) = logged else { continue };
        let place = offset.saturating_add(crate::number::wide(inode));
        if *logged == [0; 4] {
            return Err(
                Corrupt::new("log inode buffer", place, "di_next_unlinked", "an inode or none", 0).into()
            );
        }
        let mut bytes = recovery.read(place, size)?;
        put(&mut bytes, NEXT_UNLINKED_AT, logged);
        if recovery.superblock.features.crc {
            put_crc(&mut bytes, CRC_AT);
        }
        recovery.write(place, &bytes)?;
    }
    Ok(())
}
