//! Persistent dirty bitmaps: QEMU docs/interop/qcow2, "Bitmaps extension". Big-endian.

use ondisk::{Error, Result, be, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::entry::OFFSET;
use super::super::header::{extension, feature};
use super::counts::Owner;
use super::run::{Checking, add_error};
use crate::Problem;

const STRUCTURE: &str = "qcow2 bitmap directory";

/// QEMU's bound on the number of bitmaps.
const MAX_BITMAPS: u32 = 65_535;
/// QEMU's bound on the entries of one bitmap table.
const MAX_TABLE: u32 = 0x800_0000;

/// The extension as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtension {
    /// 0x00 entries in the directory.
    nb_bitmaps: be::U32,
    /// 0x04 zero.
    reserved: be::U32,
    /// 0x08 bytes in the directory.
    bitmap_directory_size: be::U64,
    /// 0x10 cluster-aligned.
    bitmap_directory_offset: be::U64,
}
const _: () = assert!(size_of::<RawExtension>() == 24);

/// The fixed part of a directory entry; extra data and the name follow, padded to 8 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    /// 0x00 cluster-aligned.
    bitmap_table_offset: be::U64,
    /// 0x08 entries in that table.
    bitmap_table_size: be::U32,
    /// 0x0c in use, auto, extra data compatible.
    flags: be::U32,
    /// 0x10 1: dirty tracking.
    kind: u8,
    /// 0x11 log2 of the bytes that one bit stands for.
    granularity_bits: u8,
    /// 0x12 bytes in the name.
    name_size: be::U16,
    /// 0x14 bytes of extra data.
    extra_data_size: be::U32,
}
const _: () = assert!(size_of::<RawEntry>() == 24);

/// Counts the clusters of all bitmaps. Without the autoclear bit the extension is stale and is not followed.
pub(super) fn follow(checking: &mut Checking) -> Result<()> {
    if checking.header.autoclear_features & feature::BITMAPS == 0 {
        return Ok(());
    }
    let Some(data) = checking.header.extension(extension::BITMAPS) else { return Ok(()) };
    let Ok(raw) = RawExtension::read_from_bytes(data) else {
        let summary = format!("the bitmaps extension has {} bytes, expected 24", data.len());
        checking.report.add(Problem::error("qcow2 header extension", 0, summary));
        return Ok(());
    };
    let (offset, length) = (raw.bitmap_directory_offset.get(), raw.bitmap_directory_size.get());
    let count = raw.nb_bitmaps.get();
    if !checking.header.cluster_bits.is_aligned(offset) || count > MAX_BITMAPS {
        let summary =
            format!("{count} bitmaps at {offset:#x}: an unaligned place, or more than {MAX_BITMAPS}");
        checking.report.add(Problem::error(STRUCTURE, offset, summary));
        return Ok(());
    }
    if !checking.claim(offset, length, 1, Owner::Bitmaps) {
        return Ok(());
    }
    let mut at = offset;
    for _ in 0..count {
        match follow_bitmap(checking, at, offset.saturating_add(length)) {
            Ok(Some(next)) => at = next,
            Ok(None) => break,
            Err(error @ Error::Io { .. }) => {
                add_error(&mut checking.report, &error, at);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The bitmap of the entry at byte `at`; returns where the next entry starts.
fn follow_bitmap(checking: &mut Checking, at: u64, end: u64) -> Result<Option<u64>> {
    let raw: RawEntry = read_value(&*checking.file, at)?;
    let next = at
        .saturating_add(24)
        .saturating_add(u64::from(raw.extra_data_size.get()))
        .saturating_add(u64::from(raw.name_size.get()))
        .next_multiple_of(8);
    if next > end {
        let summary = format!("the entry ends at {next:#x}, past the directory's end {end:#x}");
        checking.report.add(Problem::error(STRUCTURE, at, summary));
        return Ok(None);
    }
    let (table, entries) = (raw.bitmap_table_offset.get(), raw.bitmap_table_size.get());
    let length = u64::from(entries).saturating_mul(8);
    if entries > MAX_TABLE || !checking.header.cluster_bits.is_aligned(table) {
        let summary = format!("a table of {entries} entries at {table:#x}");
        checking.report.add(Problem::error(STRUCTURE, at, summary));
        return Ok(Some(next));
    }
    if checking.claim(table, length, 1, Owner::Bitmaps) && !checking.is_hole(table, length) {
        let bytes = read_bytes(&*checking.file, table, usize::try_from(length).unwrap_or(usize::MAX))?;
        let cluster = checking.header.cluster_size();
        for entry in bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry) & OFFSET) {
            if entry != 0 {
                checking.claim(entry, cluster, 1, Owner::Bitmaps);
            }
        }
    }
    Ok(Some(next))
}
