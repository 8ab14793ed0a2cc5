//! Inode item: the core of an inode, and its forks.
//!
//! XFS Algorithms & Data Structures, "Inode Log Item". The core is in the byte order of the machine, all its
//! fields where they are on disk; forks are as on disk, but the root of a tree of extents has the header of
//! an ordinary block.

use ondisk::{Error, Result, le};

use super::item::{Item, get};
use super::recovery::{LARGEST_BUFFER, Recovery};
use super::transaction::Transaction;
use crate::inode::CRC_AT;
use crate::span::{Checked, Span, put, put_crc};

const STRUCTURE: &str = "log inode item";

/// `ilf_fields` bits.
mod fields {
    pub(super) const DATA_LOCAL: u32 = 0x002;
    pub(super) const DATA_EXTENTS: u32 = 0x004;
    pub(super) const DATA_ROOT: u32 = 0x008;
    pub(super) const DEVICE: u32 = 0x010;
    pub(super) const ATTRIBUTE_LOCAL: u32 = 0x040;
    pub(super) const ATTRIBUTE_EXTENTS: u32 = 0x080;
    pub(super) const ATTRIBUTE_ROOT: u32 = 0x100;
    pub(super) const OWNERS: u32 = 0x200 | 0x400;
    pub(super) const DATA: u32 = DATA_LOCAL | DATA_EXTENTS | DATA_ROOT;
    pub(super) const ATTRIBUTE: u32 = ATTRIBUTE_LOCAL | ATTRIBUTE_EXTENTS | ATTRIBUTE_ROOT;
}

/// Bytes of the core of version 3, and of the older ones without the pointer that is not logged.
const CORE_V3: usize = 176;
const CORE_V2: usize = 96;
/// First byte of the forks in an old inode.
const LITERAL_AT_V2: usize = 100;
/// Byte of `di_flushiter` in old inodes.
const FLUSH_COUNT_AT: usize = 0x1e;
const MOST_FLUSHES: u16 = u16::MAX;
const MAGIC: u16 = 0x494e;
const BIGTIME: u64 = 8;

/// Place and width of every field of the core whose byte order is to be turned; times apart.
const FIELDS: [(usize, usize); 17] = [
    (0x00, 2), // di_magic
    (0x02, 2), // di_mode
    (0x08, 4), // di_uid
    (0x0c, 4), // di_gid
    (0x10, 4), // di_nlink
    (0x14, 2), // di_projid_lo
    (0x16, 2), // di_projid_hi
    (0x38, 8), // di_size
    (0x40, 8), // di_nblocks
    (0x48, 4), // di_extsize
    (0x4c, 4), // di_nextents
    (0x50, 2), // di_anextents
    (0x54, 4), // di_dmevmask
    (0x58, 2), // di_dmstate
    (0x5a, 2), // di_flags
    (0x5c, 4), // di_gen
    (0x18, 8), // di_big_nextents; old inodes keep something else there
];
/// The same of what version 3 adds.
const FIELDS_V3: [(usize, usize); 4] = [
    (0x68, 8), // di_changecount
    (0x78, 8), // di_flags2
    (0x80, 4), // di_cowextsize
    (0x98, 8), // di_ino
];

/// `struct xfs_inode_log_format`, in either of its two layouts.
#[derive(Debug)]
struct Format {
    fields: u32,
    device: u32,
    sector: u64,
    /// 512-byte sectors of the buffer.
    count: u32,
    /// Byte of the inode in the buffer.
    within: u32,
}

impl Format {
    fn decode(span: &Span<'_>) -> Checked<Self> {
        // 32-bit machines log it without padding before the inode number.
        let shift = match span.bytes.len() {
            56 => 0,
            52 => 4_usize,
            other => return Err(span.corrupt("size", "52 or 56 bytes", other)),
        };
        let at = |at: usize| at.saturating_sub(shift);
        Ok(Self {
            fields: get::<le::U32>(span, 4, "ilf_fields")?.get(),
            device: get::<le::U32>(span, at(24), "ilf_u")?.get(),
            sector: get::<le::U64>(span, at(40), "ilf_blkno")?.get(),
            count: get::<le::U32>(span, at(48), "ilf_len")?.get(),
            within: get::<le::U32>(span, at(52), "ilf_boffset")?.get(),
        })
    }
}

pub(super) fn apply(recovery: &mut Recovery<'_>, transaction: &Transaction, item: &Item) -> Result<()> {
    let span = item.region(0, STRUCTURE, transaction.offset)?;
    let format = Format::decode(&span)?;
    if recovery.is_cancelled((format.sector, format.count)) {
        return Ok(());
    }
    if format.fields & fields::OWNERS != 0 {
        return Err(Error::unsupported("log", "recovery of exchanged extents"));
    }
    let size = recovery.superblock.geometry.inode_size();
    let offset = format.sector.saturating_mul(512).saturating_add(u64::from(format.within));
    let end = offset.saturating_add(crate::number::wide(size));
    if u64::from(format.count).saturating_mul(512) > u64::from(LARGEST_BUFFER).saturating_mul(2) {
        return Err(span
            .corrupt("ilf_len", format_args!("at most {LARGEST_BUFFER} bytes"), format.count)
            .into());
    }
    recovery.check_place(STRUCTURE, transaction.offset, "ilf_blkno", offset..end)?;
    let mut bytes = recovery.read(offset, size)?;
    let disk = Span::new("inode", offset, &bytes);
    let core = item.region(1, "log inode core", transaction.offset)?;
    check_magics(&disk, &core)?;
    if is_newer(recovery, &disk, &core, transaction.lsn)? {
        return Ok(());
    }
    put_core(&mut bytes, &core, transaction.lsn)?;
    put_forks(&mut bytes, item, &format, transaction.offset)?;
    if recovery.superblock.features.crc {
        put_crc(&mut bytes, CRC_AT);
    }
    recovery.write(offset, &bytes)
}

fn check_magics(disk: &Span<'_>, core: &Span<'_>) -> Checked<()> {
    let found = disk.u16(0, "di_magic")?;
    if found != MAGIC {
        return Err(disk.corrupt("di_magic", format_args!("{MAGIC:#x}"), format_args!("{found:#x}")));
    }
    let found = get::<le::U16>(core, 0, "di_magic")?.get();
    if found != MAGIC {
        return Err(core.corrupt("di_magic", format_args!("{MAGIC:#x}"), format_args!("{found:#x}")));
    }
    Ok(())
}

/// Whether the inode on disk is newer than the one in the log.
fn is_newer(recovery: &Recovery<'_>, disk: &Span<'_>, core: &Span<'_>, lsn: u64) -> Checked<bool> {
    if disk.u8(4, "di_version")? >= 3 {
        let found = disk.u64(0x70, "di_lsn")?;
        return Ok(found != 0 && found != u64::MAX && found > lsn);
    }
    if recovery.superblock.features.crc {
        return Ok(false);
    }
    let on_disk = disk.u16(FLUSH_COUNT_AT, "di_flushiter")?;
    let logged = get::<le::U16>(core, FLUSH_COUNT_AT, "di_flushiter")?.get();
    let has_wrapped = on_disk == MOST_FLUSHES && logged < MOST_FLUSHES >> 1;
    Ok(logged < on_disk && !has_wrapped)
}

/// Copies the core, turning its byte order; what is not logged stays.
fn put_core(bytes: &mut [u8], core: &Span<'_>, lsn: u64) -> Checked<()> {
    let version = core.u8(4, "di_version")?;
    let needed = if version >= 3 { CORE_V3 } else { CORE_V2 };
    if !(1..=3).contains(&version) || core.bytes.len() < needed || bytes.len() < needed {
        return Err(core.corrupt("di_version", "1..=3, with a core as long", version));
    }
    let is_v3 = version >= 3;
    for (at, width) in FIELDS.iter().chain(FIELDS_V3.iter().filter(|_| is_v3)) {
        put_turned(bytes, core, *at, *width)?;
    }
    for at in [4_usize, 5, 0x52, 0x53] {
        put(bytes, at, core.slice(at, 1, "di_version")?);
    }
    let has_bigtime = is_v3 && get::<le::U64>(core, 0x78, "di_flags2")?.get() & BIGTIME != 0;
    for at in [0x20, 0x28, 0x30].into_iter().chain(is_v3.then_some(0x90)) {
        if has_bigtime {
            put_turned(bytes, core, at, 8)?;
        } else {
            put_turned(bytes, core, at, 4)?;
            put_turned(bytes, core, at.saturating_add(4), 4)?;
        }
    }
    if is_v3 {
        put(bytes, 0x70, &lsn.to_be_bytes());
        put(bytes, 0x84, &[0; 12]);
        put(bytes, 0xa0, core.slice(0xa0, 16, "di_uuid")?);
    } else {
        // Zeros and the count of flushes, which starts anew.
        put(bytes, 0x18, &[0; 8]);
    }
    // The count of links that only version 1 has.
    put(bytes, 0x06, &[0; 2]);
    Ok(())
}

fn put_turned(bytes: &mut [u8], core: &Span<'_>, at: usize, width: usize) -> Checked<()> {
    let mut field = core.slice(at, width, "core")?.to_vec();
    field.reverse();
    put(bytes, at, &field);
    Ok(())
}

fn put_forks(bytes: &mut [u8], item: &Item, format: &Format, offset: u64) -> Result<()> {
    let disk = Span::new(STRUCTURE, offset, bytes);
    let start = if disk.u8(4, "di_version")? >= 3 { CORE_V3 } else { LITERAL_AT_V2 };
    let attribute_offset = usize::from(disk.u8(0x52, "di_forkoff")?).saturating_mul(8);
    let attribute_start = start.saturating_add(attribute_offset);
    if attribute_start > bytes.len() {
        return Err(disk.corrupt("di_forkoff", "a place within the inode", attribute_offset).into());
    }
    let data_end = if attribute_offset == 0 { bytes.len() } else { attribute_start };
    let attribute_end = bytes.len();
    if format.fields & fields::DEVICE != 0 {
        put(bytes, start, &format.device.to_be_bytes());
    }
    let mut number = 2;
    if format.fields & fields::DATA != 0 {
        let region = item.region(number, "log data fork", offset)?;
        put_fork(bytes, start..data_end, &region, format.fields & fields::DATA_ROOT != 0)?;
        number = 3;
    }
    if format.fields & fields::ATTRIBUTE != 0 {
        let region = item.region(number, "log attribute fork", offset)?;
        put_fork(
            bytes,
            attribute_start..attribute_end,
            &region,
            format.fields & fields::ATTRIBUTE_ROOT != 0,
        )?;
    }
    Ok(())
}

/// Copies a fork to `place` of the inode.
fn put_fork(
    bytes: &mut [u8],
    place: std::ops::Range<usize>,
    region: &Span<'_>,
    is_root: bool,
) -> Checked<()> {
    let room = place.end.saturating_sub(place.start);
    let content = if is_root { root(region, room)? } else { region.bytes.to_vec() };
    if content.len() > room {
        return Err(region.corrupt("size", format_args!("at most {room} bytes"), content.len()));
    }
    put(bytes, place.start, &content);
    Ok(())
}

/// The root of a tree of extents as inodes keep it: level and count, then keys and pointers where a fork of
/// `room` bytes has them.
fn root(region: &Span<'_>, room: usize) -> Checked<Vec<u8>> {
    let header = match region.slice(0, 4, "bb_magic")? {
        b"BMA3" => 72,
        b"BMAP" => 24,
        other => return Err(region.corrupt("bb_magic", "\"BMAP\" or \"BMA3\"", other.escape_ascii())),
    };
    let count = usize::from(region.u16(6, "bb_numrecs")?);
    let logged = region.bytes.len().saturating_sub(header) / 16;
    let fitting = room.saturating_sub(4) / 16;
    if count == 0 || count > logged || count > fitting {
        return Err(region.corrupt("bb_numrecs", format_args!("1..={}", logged.min(fitting)), count));
    }
    let length = count.saturating_mul(8);
    let pointers = logged.saturating_mul(8).saturating_add(header);
    let pointers_at = fitting.saturating_mul(8).saturating_add(4);
    let mut content = vec![0; pointers_at.saturating_add(length)];
    put(&mut content, 0, region.slice(4, 4, "bb_level")?);
    put(&mut content, 4, region.slice(header, length, "bb_key")?);
    put(&mut content, pointers_at, region.slice(pointers, length, "bb_ptr")?);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_of_version_3_is_turned() {
        let mut core: Vec<u8> = (0..176).map(|byte| byte as u8).collect();
        core[..6].copy_from_slice(&[0x4e, 0x49, 0xa4, 0x81, 3, 2]);
        core[0x78..0x80].copy_from_slice(&BIGTIME.to_le_bytes());
        let mut inode = vec![0xee; 512];
        put_core(&mut inode, &Span::new("test", 0, &core), 0x0102_0304_0506_0708).unwrap();
        assert_eq!(inode[..8], [0x49, 0x4e, 0x81, 0xa4, 3, 2, 0, 0]);
        assert_eq!(inode[0x20..0x28], [0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0x20]);
        assert_eq!(inode[0x38..0x40], [0x3f, 0x3e, 0x3d, 0x3c, 0x3b, 0x3a, 0x39, 0x38]);
        assert_eq!(inode[0x52..0x54], [0x52, 0x53]);
        // Not logged: the pointer of the list of unlinked inodes, and the checksum.
        assert_eq!(inode[0x60..0x68], [0xee; 8]);
        assert_eq!(inode[0x70..0x78], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(inode[0x84..0x90], [0; 12]);
        assert_eq!(inode[0xa0..0xa3], [0xa0, 0xa1, 0xa2]);
        assert_eq!(inode[176..], [0xee; 336]);
        core[0x78] = 0;
        put_core(&mut inode, &Span::new("test", 0, &core), 0).unwrap();
        assert_eq!(inode[0x20..0x28], [0x23, 0x22, 0x21, 0x20, 0x27, 0x26, 0x25, 0x24]);
        assert!(put_core(&mut inode, &Span::new("test", 0, &core[..175]), 0).is_err());
    }

    #[test]
    fn an_old_core_starts_its_count_of_flushes_anew() {
        let mut core = vec![0x55; 96];
        core[4] = 2;
        let mut inode = vec![0xee; 256];
        put_core(&mut inode, &Span::new("test", 0, &core), 9).unwrap();
        assert_eq!(inode[0x18..0x20], [0; 8]);
        assert_eq!(inode[0x60..], [0xee; 160]);
    }

    #[test]
    fn the_root_of_a_tree_loses_its_header() {
        for (magic, header) in [(b"BMAP", 24), (b"BMA3", 72)] {
            // Room for three entries in memory, two are used.
            let mut region = vec![0; header + 48];
            put(&mut region, 0, magic);
            put(&mut region, 4, &[0, 1, 0, 2]);
            put(&mut region, header, &[1; 8]);
            put(&mut region, header + 8, &[2; 8]);
            put(&mut region, header + 24, &[3; 8]);
            put(&mut region, header + 32, &[4; 8]);
            let content = root(&Span::new("test", 0, &region), 4 + 5 * 16 + 3).unwrap();
            let expected = [&[0, 1, 0, 2][..], &[1; 8], &[2; 8], &[0; 24], &[3; 8], &[4; 8]].concat();
            assert_eq!(content, expected);
            let field = |room: usize, count: u8| {
                let mut region = region.clone();
                region[7] = count;
                root(&Span::new("test", 0, &region), room).map_err(|corrupt| corrupt.field)
            };
            assert_eq!(field(100, 4), Err("bb_numrecs"));
            assert_eq!(field(20, 2), Err("bb_numrecs"));
            assert_eq!(field(100, 0), Err("bb_numrecs"));
        }
        assert!(root(&Span::new("test", 0, b"BMA4\0\0\0\0"), 99).is_err());
    }
}
