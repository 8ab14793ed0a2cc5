//! Superblock: the sizes, places and features of a file system.
//!
//! XFS Algorithms & Data Structures, "Superblocks". Big-endian, except `sb_crc`. The primary copy is the
//! first sector of the device; its checksum covers a whole sector.

use blockdev::BlockDevice;
use ondisk::{Error, Guid, Result, be, le, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::features::{Features, version};
use crate::geometry::{FsBlock, Geometry};
use crate::span::{Checked, Span};

const STRUCTURE: &str = "superblock";

/// `sb_magicnum`.
pub(crate) const MAGIC: [u8; 4] = *b"XFSB";

/// Bytes of `sb_icount` and `sb_ifree`.
pub(crate) const INODES_AT: usize = 0x80;
pub(crate) const FREE_INODES_AT: usize = 0x88;
/// Byte of `sb_fdblocks`.
pub(crate) const FREE_BLOCKS_AT: usize = 0x90;
/// Byte of `sb_crc`.
pub(crate) const CRC_AT: usize = 0xe0;

/// The superblock as stored, up to the last field that this code reads.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) sb_magicnum: [u8; 4],              // 0x00 "XFSB"
    pub(crate) sb_blocksize: be::U32,             // 0x04 bytes
    pub(crate) sb_dblocks: be::U64,               // 0x08 blocks of the data device
    pub(crate) sb_rblocks: be::U64,               // 0x10
    pub(crate) sb_rextents: be::U64,              // 0x18
    pub(crate) sb_uuid: [u8; 16],                 // 0x20 the one that users see
    pub(crate) sb_logstart: be::U64,              // 0x30 block, 0 for an external log
    pub(crate) sb_rootino: be::U64,               // 0x38
    pub(crate) sb_rbmino: be::U64,                // 0x40
    pub(crate) sb_rsumino: be::U64,               // 0x48
    pub(crate) sb_rextsize: be::U32,              // 0x50
    pub(crate) sb_agblocks: be::U32,              // 0x54 blocks in a group
    pub(crate) sb_agcount: be::U32,               // 0x58
    pub(crate) sb_rbmblocks: be::U32,             // 0x5c
    pub(crate) sb_logblocks: be::U32,             // 0x60
    pub(crate) sb_versionnum: be::U16,            // 0x64
    pub(crate) sb_sectsize: be::U16,              // 0x66 bytes
    pub(crate) sb_inodesize: be::U16,             // 0x68 bytes
    pub(crate) sb_inopblock: be::U16,             // 0x6a
    pub(crate) sb_fname: [u8; 12],                // 0x6c label
    pub(crate) sb_blocklog: u8,                   // 0x78
    pub(crate) sb_sectlog: u8,                    // 0x79
    pub(crate) sb_inodelog: u8,                   // 0x7a
    pub(crate) sb_inopblog: u8,                   // 0x7b
    pub(crate) sb_agblklog: u8,                   // 0x7c
    pub(crate) sb_rextslog: u8,                   // 0x7d
    pub(crate) sb_inprogress: u8,                 // 0x7e mkfs has not finished
    pub(crate) sb_imax_pct: u8,                   // 0x7f
    pub(crate) sb_icount: be::U64,                // 0x80
    pub(crate) sb_ifree: be::U64,                 // 0x88
    pub(crate) sb_fdblocks: be::U64,              // 0x90 free blocks
    pub(crate) sb_frextents: be::U64,             // 0x98
    pub(crate) sb_uquotino: be::U64,              // 0xa0
    pub(crate) sb_gquotino: be::U64,              // 0xa8
    pub(crate) sb_qflags: be::U16,                // 0xb0
    pub(crate) sb_flags: u8,                      // 0xb2
    pub(crate) sb_shared_vn: u8,                  // 0xb3
    pub(crate) sb_inoalignmt: be::U32,            // 0xb4
    pub(crate) sb_unit: be::U32,                  // 0xb8
    pub(crate) sb_width: be::U32,                 // 0xbc
    pub(crate) sb_dirblklog: u8,                  // 0xc0
    pub(crate) sb_logsectlog: u8,                 // 0xc1
    pub(crate) sb_logsectsize: be::U16,           // 0xc2
    pub(crate) sb_logsunit: be::U32,              // 0xc4
    pub(crate) sb_features2: be::U32,             // 0xc8
    pub(crate) sb_bad_features2: be::U32,         // 0xcc where some kernels put it
    pub(crate) sb_features_compat: be::U32,       // 0xd0 version 5 from here on
    pub(crate) sb_features_ro_compat: be::U32,    // 0xd4
    pub(crate) sb_features_incompat: be::U32,     // 0xd8
    pub(crate) sb_features_log_incompat: be::U32, // 0xdc
    pub(crate) sb_crc: le::U32,                   // 0xe0 over the sector
    pub(crate) sb_spino_align: be::U32,           // 0xe4
    pub(crate) sb_pquotino: be::U64,              // 0xe8
    pub(crate) sb_lsn: be::U64,                   // 0xf0
    pub(crate) sb_meta_uuid: [u8; 16],            // 0xf8 in metadata blocks, with `metauuid`
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x108);

/// Bits of `sb_qflags` that say that usage is counted: user, project and group.
const QUOTA_ACCOUNTING: u16 = 0x0001 | 0x0008 | 0x0040;

/// Where the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogPlace {
    /// On the same device: first byte and length in bytes.
    Internal { offset: u64, length: u64 },
    /// On another device, which we do not have.
    External,
}

/// A superblock whose fields agree with each other.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    pub(crate) geometry: Geometry,
    pub(crate) features: Features,
    /// The UUID that users see.
    pub(crate) uuid: Guid,
    /// The UUID that metadata blocks carry.
    pub(crate) meta_uuid: Guid,
    /// Without padding.
    pub(crate) label: Vec<u8>,
    /// Inode number of the root directory.
    pub(crate) root: u64,
    pub(crate) log: LogPlace,
    /// Bytes that every log record is a multiple of.
    pub(crate) log_unit: usize,
    /// Free blocks of the data device.
    pub(crate) free_blocks: u64,
    /// Whether the kernel counts blocks and inodes per user, group or project.
    pub(crate) counts_quota: bool,
    /// Whether `mkfs` or `xfs_repair` was interrupted.
    pub(crate) in_progress: bool,
}

/// What the first sector says before anything is checked; `None` when it is no XFS superblock.
pub(crate) fn peek(device: &dyn BlockDevice) -> Result<Option<RawSuperblock>> {
    if device.size() < 512 {
        return Ok(None);
    }
    let raw: RawSuperblock = ondisk::read_value(device, 0)?;
    let is_plausible = raw.sb_magicnum == MAGIC
        && (512..=65536).contains(&raw.sb_blocksize.get())
        && raw.sb_blocksize.get().is_power_of_two()
        && raw.sb_sectsize.get().is_power_of_two();
    Ok(is_plausible.then_some(raw))
}

impl RawSuperblock {
    /// The label without padding.
    pub(crate) fn label(&self) -> Vec<u8> {
        self.sb_fname.iter().copied().take_while(|byte| *byte != 0).collect()
    }
}

impl Superblock {
    /// Reads and checks the primary superblock.
    pub(crate) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let raw: RawSuperblock = ondisk::read_value(device, 0)?;
        let first = read_bytes(device, 0, size_of::<RawSuperblock>())?;
        let span = Span::new(STRUCTURE, 0, &first);
        check_magic(&span, &raw)?;
        let features = features(&raw)?;
        if features.crc {
            let sector_size = usize::from(check_sector_size(&span, &raw)?);
            Span::new(STRUCTURE, 0, &read_bytes(device, 0, sector_size)?).check_crc(CRC_AT)?;
        }
        features.check_readable()?;
        Self::decode(&span, &raw, features)
    }

    fn decode(span: &Span<'_>, raw: &RawSuperblock, features: Features) -> Result<Self> {
        let geometry = geometry(span, raw, features.crc)?;
        let uuid = Guid::from_bytes(raw.sb_uuid);
        let stored_apart = features.has_meta_uuid();
        let meta_uuid = if stored_apart { Guid::from_bytes(raw.sb_meta_uuid) } else { uuid };
        let root = raw.sb_rootino.get();
        if geometry.inode_byte(root).is_none() {
            return Err(span.corrupt("sb_rootino", "an inode within the device", root).into());
        }
        Ok(Self {
            log: log_place(span, raw, &geometry)?,
            log_unit: log_unit(raw, &geometry),
            geometry,
            features,
            uuid,
            meta_uuid,
            label: raw.label(),
            root,
            free_blocks: raw.sb_fdblocks.get(),
            counts_quota: raw.sb_qflags.get() & QUOTA_ACCOUNTING != 0,
            in_progress: raw.sb_inprogress != 0,
        })
    }
}

fn check_magic(span: &Span<'_>, raw: &RawSuperblock) -> Checked<()> {
    if raw.sb_magicnum == MAGIC {
        return Ok(());
    }
    Err(span.corrupt("sb_magicnum", "\"XFSB\"", format_args!("{:02x?}", raw.sb_magicnum)))
}

fn features(raw: &RawSuperblock) -> Result<Features> {
    let word = raw.sb_versionnum.get();
    let number = word & version::NUMBER;
    if !(4..=5).contains(&number) {
        return Err(Error::unsupported(STRUCTURE, format!("XFS version {number}")));
    }
    Ok(Features {
        crc: number == 5,
        version: word,
        features2: raw.sb_features2.get() | raw.sb_bad_features2.get(),
        ro_compat: raw.sb_features_ro_compat.get(),
        incompat: raw.sb_features_incompat.get(),
        log_incompat: raw.sb_features_log_incompat.get(),
    })
}

fn check_sector_size(span: &Span<'_>, raw: &RawSuperblock) -> Checked<u16> {
    let size = raw.sb_sectsize.get();
    let log = size.trailing_zeros();
    if size.is_power_of_two() && (9..=15).contains(&log) && u32::from(raw.sb_sectlog) == log {
        return Ok(size);
    }
    let found = format!("{size} (sb_sectlog {})", raw.sb_sectlog);
    Err(span.corrupt("sb_sectsize", "a power of two in 512..=32768, with its logarithm", found))
}

fn check_block_size(span: &Span<'_>, raw: &RawSuperblock, crc: bool) -> Checked<u8> {
    let size = raw.sb_blocksize.get();
    let least = if crc { 10 } else { 9 };
    let log = raw.sb_blocklog;
    let is_sound = (least..=16).contains(&log)
        && 1_u32.checked_shl(u32::from(log)) == Some(size)
        && u32::from(raw.sb_sectsize.get()) <= size;
    if is_sound {
        return Ok(log);
    }
    let expected = format!("2^{least}..=65536, at least a sector, with its logarithm");
    Err(span.corrupt("sb_blocksize", expected, format_args!("{size} (sb_blocklog {log})")))
}

fn check_inode_size(span: &Span<'_>, raw: &RawSuperblock, crc: bool) -> Checked<u8> {
    let size = raw.sb_inodesize.get();
    let log = raw.sb_inodelog;
    let least = if crc { 9 } else { 8 };
    let is_sound = (least..=11).contains(&log)
        && 1_u16.checked_shl(u32::from(log)) == Some(size)
        && u32::from(size) <= raw.sb_blocksize.get()
        && raw.sb_blocklog.checked_sub(log) == Some(raw.sb_inopblog);
    if is_sound {
        return Ok(log);
    }
    let expected = format!("2^{least}..=2048, at most a block, with its logarithms");
    let found = format!("{size} (sb_inodelog {log}, sb_inopblog {})", raw.sb_inopblog);
    Err(span.corrupt("sb_inodesize", expected, found))
}

fn check_dir_block(span: &Span<'_>, raw: &RawSuperblock) -> Checked<u8> {
    let log = raw.sb_dirblklog;
    if raw.sb_blocklog.checked_add(log).is_some_and(|total| total <= 16) {
        return Ok(log);
    }
    Err(span.corrupt("sb_dirblklog", "a directory block of at most 65536 bytes", log))
}

/// Group size, count and the logarithm of the size, which together make block numbers.
fn check_groups(span: &Span<'_>, raw: &RawSuperblock) -> Checked<()> {
    let (blocks, count, total) = (raw.sb_agblocks.get(), raw.sb_agcount.get(), raw.sb_dblocks.get());
    let log = u32::from(raw.sb_agblklog);
    if !(64..=1 << 31).contains(&blocks) || blocks.next_power_of_two().trailing_zeros() != log {
        let found = format!("{blocks} (sb_agblklog {log})");
        return Err(span.corrupt("sb_agblocks", "64..=2^31 blocks, with the logarithm rounded up", found));
    }
    let capacity = u64::from(blocks).saturating_mul(u64::from(count));
    let without_last = capacity.saturating_sub(u64::from(blocks));
    if count == 0 || total <= without_last || total > capacity {
        let found = format!("{total} (sb_agcount {count}, sb_agblocks {blocks})");
        return Err(span.corrupt("sb_dblocks", "an end within the last allocation group", found));
    }
    let number_bits = log.saturating_add(u32::from(raw.sb_inopblog)).saturating_add(32);
    let size_bits = u64::BITS.saturating_sub(total.leading_zeros()).saturating_add(raw.sb_blocklog.into());
    if number_bits > u64::BITS.saturating_add(count.leading_zeros()) || size_bits > 63 {
        return Err(span.corrupt("sb_agcount", "numbers that fit 64 bits", count));
    }
    Ok(())
}

fn geometry(span: &Span<'_>, raw: &RawSuperblock, crc: bool) -> Checked<Geometry> {
    check_sector_size(span, raw)?;
    let block_log = check_block_size(span, raw, crc)?;
    let inode_log = check_inode_size(span, raw, crc)?;
    let dir_block_log = check_dir_block(span, raw)?;
    check_groups(span, raw)?;
    Ok(Geometry {
        block_log,
        sector_log: raw.sb_sectlog,
        inode_log,
        dir_block_log,
        ag_block_log: raw.sb_agblklog,
        ag_blocks: raw.sb_agblocks.get(),
        ag_count: raw.sb_agcount.get(),
        blocks: raw.sb_dblocks.get(),
    })
}

fn log_place(span: &Span<'_>, raw: &RawSuperblock, geometry: &Geometry) -> Checked<LogPlace> {
    let (start, blocks) = (FsBlock(raw.sb_logstart.get()), u64::from(raw.sb_logblocks.get()));
    if start.0 == 0 {
        return Ok(LogPlace::External);
    }
    match geometry.byte(start) {
        Some(offset) if blocks > 0 && geometry.holds(start, blocks) => {
            Ok(LogPlace::Internal { offset, length: geometry.bytes(blocks) })
        }
        _ => Err(span.corrupt(
            "sb_logstart",
            "a log within one allocation group",
            format_args!("{blocks} blocks at {start}"),
        )),
    }
}

/// The stripe of the log or its sector, whichever is larger.
fn log_unit(raw: &RawSuperblock, geometry: &Geometry) -> usize {
    let sector = 1_usize.checked_shl(u32::from(raw.sb_logsectlog)).unwrap_or_default();
    let stripe = crate::number::index(raw.sb_logsunit.get());
    let sizes = [stripe, sector, geometry.sector_size()];
    sizes.into_iter().filter(|size| (512..=256 << 10).contains(size)).max().unwrap_or(512)
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;
    use crate::span::{put, put_crc};

    /// The fields that `mkfs.xfs` 6.1.0 wrote for a 300 MiB file with `-m uuid=…f0 -L boot`.
    fn sector() -> Vec<u8> {
        let mut raw = RawSuperblock::read_from_bytes(&[0; 0x108]).unwrap();
        raw.sb_magicnum = MAGIC;
        raw.sb_blocksize = 4096.into();
        raw.sb_dblocks = 76800.into();
        raw.sb_uuid = [0xf0; 16];
        raw.sb_logstart = 65540.into();
        raw.sb_rootino = 128.into();
        raw.sb_agblocks = 19200.into();
        raw.sb_agcount = 4.into();
        raw.sb_logblocks = 1368.into();
        raw.sb_versionnum = 0xb4a5.into();
        raw.sb_sectsize = 512.into();
        raw.sb_inodesize = 512.into();
        raw.sb_inopblock = 8.into();
        raw.sb_fname = *b"boot\0\0\0\0\0\0\0\0";
        (raw.sb_blocklog, raw.sb_sectlog, raw.sb_inodelog) = (12, 9, 9);
        (raw.sb_inopblog, raw.sb_agblklog) = (3, 15);
        raw.sb_fdblocks = 75398.into();
        raw.sb_features2 = 0x18a.into();
        raw.sb_features_incompat = 3.into();
        let mut sector = raw.as_bytes().to_vec();
        sector.resize(512, 0);
        put_crc(&mut sector, CRC_AT);
        sector
    }

    /// Reads the sector after the big-endian value `bytes` was put at `at`.
    fn with(at: usize, bytes: &[u8]) -> Result<Superblock> {
        let mut sector = sector();
        put(&mut sector, at, bytes);
        put_crc(&mut sector, CRC_AT);
        Superblock::read(&MemoryDevice::new(sector))
    }

    #[test]
    fn a_sound_superblock() {
        let superblock = Superblock::read(&MemoryDevice::new(sector())).unwrap();
        assert_eq!(superblock.geometry.size(), 300 << 20);
        assert_eq!(superblock.label, b"boot");
        assert_eq!(
            superblock.log,
            LogPlace::Internal { offset: (2 * 19200 + 4) * 4096, length: 1368 * 4096 }
        );
        assert_eq!(superblock.meta_uuid, superblock.uuid);
        assert!(!superblock.counts_quota && !superblock.in_progress);
    }

    #[test]
    fn the_meta_uuid_is_separate_only_with_its_feature() {
        let other = |incompat| {
            let mut sector = sector();
            put(&mut sector, 0xd8, &[0, 0, 0, incompat]);
            put(&mut sector, 0xf8, &[7; 16]);
            put_crc(&mut sector, CRC_AT);
            Superblock::read(&MemoryDevice::new(sector)).unwrap().meta_uuid
        };
        assert_eq!((other(3), other(7)), (Guid([0xf0; 16]), Guid([7; 16])));
    }

    #[test]
    fn one_bad_field_is_named() {
        let field = |at, bytes: &[u8]| with(at, bytes).unwrap_err().as_corrupt().unwrap().field;
        assert_eq!(field(0x00, b"XFSC"), "sb_magicnum");
        assert_eq!(field(0x04, &[0, 0, 8, 0]), "sb_blocksize");
        assert_eq!(field(0x78, &[13]), "sb_blocksize");
        assert_eq!(field(0x66, &[0x40, 0]), "sb_sectsize");
        assert_eq!(field(0x68, &[1, 0]), "sb_inodesize");
        assert_eq!(field(0x7b, &[4]), "sb_inodesize");
        assert_eq!(field(0xc0, &[5]), "sb_dirblklog");
        assert_eq!(field(0x54, &[0, 0, 0, 32]), "sb_agblocks");
        assert_eq!(field(0x7c, &[16]), "sb_agblocks");
        assert_eq!(field(0x58, &[0, 0, 0, 0]), "sb_dblocks");
        assert_eq!(field(0x58, &[0, 0, 0, 5]), "sb_dblocks");
        assert_eq!(field(0x38, &[1]), "sb_rootino");
        assert_eq!(field(0x60, &[0, 1]), "sb_logstart");
        assert_eq!(field(0x30, &[1]), "sb_logstart");
        let mut sector = sector();
        sector[500] = 1;
        let error = Superblock::read(&MemoryDevice::new(sector)).unwrap_err();
        assert_eq!(error.as_corrupt().unwrap().field, "checksum");
    }

    #[test]
    fn unknown_versions_and_features_are_unsupported() {
        let text = |at, bytes: &[u8]| with(at, bytes).unwrap_err().to_string();
        assert_eq!(text(0x64, &[0xb4, 0xa6]), "superblock: XFS version 6 is not supported");
        assert!(text(0xd8, &[0, 0, 2, 3]).contains("zoned"));
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        // 2^32 - 1 groups of 2^31 blocks of 4 KiB: more bytes than 64 bits count.
        let mut sector = sector();
        put(&mut sector, 0x54, &0x8000_0000_u32.to_be_bytes());
        put(&mut sector, 0x58, &u32::MAX.to_be_bytes());
        put(&mut sector, 0x08, &(0x8000_0000_u64 * u64::from(u32::MAX)).to_be_bytes());
        sector[0x7c] = 31;
        put_crc(&mut sector, CRC_AT);
        let error = Superblock::read(&MemoryDevice::new(sector)).unwrap_err();
        assert_eq!(error.as_corrupt().unwrap().field, "sb_agcount");
    }
}
