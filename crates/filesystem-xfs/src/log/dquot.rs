//! Dquot item: what a user, group or project may use and uses; and the end of counting it.
//!
//! XFS Algorithms & Data Structures, "Quota Update Data Log Item". Nothing that a reader shows depends on it,
//! but a file system that is said to be clean must not have old counts.

use ondisk::{Result, le};

use super::item::{Item, get};
use super::recovery::Recovery;
use super::transaction::Transaction;
use crate::number::wide;
use crate::span::{Checked, put, put_crc};

const STRUCTURE: &str = "log dquot item";
/// Bytes of `struct xfs_disk_dquot`, and of `struct xfs_dqblk` around it.
const CONTENT: usize = 104;
const WHOLE: usize = 136;
const CRC_AT: usize = 108;
const LSN_AT: usize = 112;
const MAGIC: &[u8] = b"DQ";

/// The quotas that an item turns off, as the `blf_flags` bits of their buffers.
pub(super) fn turned_off(item: &Item, offset: u64) -> Checked<u32> {
    let span = item.region(0, "log quotaoff item", offset)?;
    let flags = get::<le::U32>(&span, 4, "qf_flags")?.get();
    let bit = |accounting: u32, bit: u32| if flags & accounting != 0 { bit } else { 0 };
    Ok(bit(0x01, 0x04) | bit(0x08, 0x08) | bit(0x40, 0x10))
}

pub(super) fn apply(recovery: &mut Recovery<'_>, transaction: &Transaction, item: &Item) -> Result<()> {
    let span = item.region(0, STRUCTURE, transaction.offset)?;
    let logged = item.region(1, "log dquot", transaction.offset)?;
    let sector = get::<le::U64>(&span, 8, "qlf_blkno")?.get();
    let within = get::<le::U32>(&span, 20, "qlf_boffset")?.get();
    let content = logged.slice(0, CONTENT, "dquot")?;
    let (magic, kind) = (logged.slice(0, 2, "d_magic")?, logged.u8(3, "d_flags")?);
    if magic != MAGIC {
        return Err(logged.corrupt("d_magic", "\"DQ\"", magic.escape_ascii()).into());
    }
    let buffer_bit = match kind & 7 {
        1 => 0x04,
        2 => 0x08,
        _ => 0x10,
    };
    if recovery.quota_off & buffer_bit != 0 {
        return Ok(());
    }
    let offset = sector.saturating_mul(512).saturating_add(u64::from(within));
    recovery.check_place(
        STRUCTURE,
        transaction.offset,
        "qlf_blkno",
        offset..offset.saturating_add(wide(WHOLE)),
    )?;
    let mut bytes = recovery.read(offset, WHOLE)?;
    let has_crc = recovery.superblock.features.crc;
    let disk = crate::span::Span::new("dquot", offset, &bytes);
    let lsn = disk.u64(LSN_AT, "dd_lsn")?;
    if has_crc && lsn != 0 && lsn != u64::MAX && lsn >= transaction.lsn {
        return Ok(());
    }
    put(&mut bytes, 0, content);
    if has_crc {
        put_crc(&mut bytes, CRC_AT);
    }
    recovery.write(offset, &bytes)
}
