//! Inode: owner, times, size, and the two forks that hold content and attributes.
//!
//! XFS Algorithms & Data Structures, "On-disk Inode". Big-endian, except `di_crc`. Versions 1 and 2 have a
//! core of 100 bytes, version 3 one of 176; the forks share the rest, the attribute fork at the end.

use filesystem::{FileKind, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Guid, Result, be, le, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Xfs;
use crate::number::wide;
use crate::span::{Checked, Span};

const STRUCTURE: &str = "inode";
const MAGIC: [u8; 2] = *b"IN";

/// Byte of `di_crc`.
pub(crate) const CRC_AT: usize = 0x64;

/// The part of the core that all versions share.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawCore {
    pub(crate) di_magic: [u8; 2],         // 0x00 "IN"
    pub(crate) di_mode: be::U16,          // 0x02 as in stat(2); 0 in a free inode
    pub(crate) di_version: u8,            // 0x04 1..=3
    pub(crate) di_format: u8,             // 0x05 of the data fork
    pub(crate) di_onlink: be::U16,        // 0x06 links in version 1
    pub(crate) di_uid: be::U32,           // 0x08
    pub(crate) di_gid: be::U32,           // 0x0c
    pub(crate) di_nlink: be::U32,         // 0x10 links in versions 2 and 3
    pub(crate) di_projid_lo: be::U16,     // 0x14
    pub(crate) di_projid_hi: be::U16,     // 0x16
    pub(crate) di_big_nextents: be::U64,  // 0x18 data extents, with `nrext64`
    pub(crate) di_atime: [u8; 8],         // 0x20
    pub(crate) di_mtime: [u8; 8],         // 0x28
    pub(crate) di_ctime: [u8; 8],         // 0x30
    pub(crate) di_size: be::U64,          // 0x38 bytes
    pub(crate) di_nblocks: be::U64,       // 0x40 blocks of both forks and their trees
    pub(crate) di_extsize: be::U32,       // 0x48
    pub(crate) di_nextents: be::U32,      // 0x4c data extents; attribute extents with `nrext64`
    pub(crate) di_anextents: be::U16,     // 0x50 attribute extents
    pub(crate) di_forkoff: u8,            // 0x52 start of the attribute fork in 8 bytes, 0 without one
    pub(crate) di_aformat: u8,            // 0x53 of the attribute fork
    pub(crate) di_dmevmask: be::U32,      // 0x54
    pub(crate) di_dmstate: be::U16,       // 0x58
    pub(crate) di_flags: be::U16,         // 0x5a
    pub(crate) di_gen: be::U32,           // 0x5c
    pub(crate) di_next_unlinked: be::U32, // 0x60
}
const _: () = assert!(size_of::<RawCore>() == 100);

/// What version 3 adds.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtension {
    pub(crate) di_crc: le::U32,         // 0x64 over the whole inode
    pub(crate) di_changecount: be::U64, // 0x68
    pub(crate) di_lsn: be::U64,         // 0x70
    pub(crate) di_flags2: be::U64,      // 0x78
    pub(crate) di_cowextsize: be::U32,  // 0x80
    pub(crate) di_pad2: [u8; 12],       // 0x84
    pub(crate) di_crtime: [u8; 8],      // 0x90
    pub(crate) di_ino: be::U64,         // 0x98
    pub(crate) di_uuid: [u8; 16],       // 0xa0
}
const _: () = assert!(size_of::<RawExtension>() == 76);

/// First byte of the forks in version 3.
const LITERAL_AT_V3: usize = size_of::<RawCore>() + size_of::<RawExtension>();

/// `di_flags` bits.
pub(crate) mod flags {
    pub(crate) const REALTIME: u16 = 0x0001;
    pub(crate) const IMMUTABLE: u16 = 0x0008;
    pub(crate) const APPEND: u16 = 0x0010;
}

/// `di_flags2` bits.
pub(crate) mod flags2 {
    pub(crate) const BIGTIME: u64 = 0x08;
    pub(crate) const NREXT64: u64 = 0x10;
    /// DAX, REFLINK, COWEXTSIZE, BIGTIME, NREXT64.
    pub(crate) const KNOWN: u64 = 0x1f;
}

/// How a fork keeps its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A device number.
    Device,
    /// The content itself.
    Local,
    /// A list of extents.
    Extents,
    /// The root of a tree of extents.
    Btree,
}

/// Which fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Data,
    Attribute,
}

/// One fork of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fork<'a> {
    pub(crate) inode: u64,
    pub(crate) which: Which,
    pub(crate) format: Format,
    /// Extents in the fork, as the core counts them.
    pub(crate) extents: u64,
    /// The bytes of the fork inside the inode.
    pub(crate) span: Span<'a>,
}

/// An inode in use, whole, with its checks passed.
#[derive(Debug, Clone)]
pub(crate) struct DiskInode {
    pub(crate) number: u64,
    /// First byte on the device.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) core: RawCore,
    pub(crate) extension: Option<RawExtension>,
}

impl DiskInode {
    /// Reads inode `number`, which must be in use.
    pub(crate) fn read(xfs: &Xfs, number: u64) -> Result<Self> {
        let geometry = &xfs.superblock.geometry;
        let Some(offset) = geometry.inode_byte(number) else {
            let end = geometry.size();
            return Err(Corrupt::new(
                STRUCTURE,
                0,
                "number",
                format_args!("a place below byte {end}"),
                number,
            )
            .into());
        };
        let bytes = read_bytes(&*xfs.device, offset, geometry.inode_size())?;
        Ok(Self::decode(xfs, number, offset, bytes)?)
    }

    fn decode(xfs: &Xfs, number: u64, offset: u64, bytes: Vec<u8>) -> Checked<Self> {
        let span = Span::new(STRUCTURE, offset, &bytes);
        let core: RawCore = span.value(0, "di_core")?;
        check_magic(&span, &core)?;
        check_version(&span, &core, xfs.superblock.features.crc)?;
        let extension = match core.di_version {
            3 => Some(check_extension(&span, number, xfs.superblock.meta_uuid)?),
            _ => None,
        };
        check_in_use(&span, &core)?;
        check_size(&span, &core)?;
        let inode = Self { number, offset, core, extension, bytes };
        inode.check_fork_offset()?;
        Ok(inode)
    }

    /// The inode as a place for damage.
    pub(crate) fn span(&self) -> Span<'_> {
        Span::new(STRUCTURE, self.offset, &self.bytes)
    }

    /// First byte of the forks.
    pub(crate) fn literal_at(&self) -> usize {
        match self.extension {
            Some(_) => LITERAL_AT_V3,
            None => size_of::<RawCore>(),
        }
    }

    pub(crate) fn flags2(&self) -> u64 {
        self.extension.as_ref().map_or(0, |extension| extension.di_flags2.get())
    }

    pub(crate) fn kind(&self) -> FileKind {
        FileKind::from_mode(u32::from(self.core.di_mode.get()))
    }

    pub(crate) fn size(&self) -> u64 {
        self.core.di_size.get()
    }

    /// Whether extent counts are stored in the wide fields.
    pub(crate) fn has_wide_counts(&self) -> bool {
        self.flags2() & flags2::NREXT64 != 0
    }

    fn check_fork_offset(&self) -> Checked<()> {
        let room = self.bytes.len().saturating_sub(self.literal_at());
        if usize::from(self.core.di_forkoff).saturating_mul(8) < room {
            return Ok(());
        }
        let expected = format!("less than {} (8 bytes each)", room.div_ceil(8));
        Err(self.span().corrupt("di_forkoff", expected, self.core.di_forkoff))
    }

    /// The bytes of the data fork within the inode.
    pub(crate) fn data_fork_range(&self) -> std::ops::Range<usize> {
        let start = self.literal_at();
        match usize::from(self.core.di_forkoff).saturating_mul(8) {
            0 => start..self.bytes.len(),
            length => start..start.saturating_add(length),
        }
    }

    /// The fork that holds the content.
    pub(crate) fn data_fork(&self) -> Result<Fork<'_>> {
        let extents = match self.has_wide_counts() {
            true => self.core.di_big_nextents.get(),
            false => u64::from(self.core.di_nextents.get()),
        };
        let format = self.format("di_format", self.core.di_format)?;
        let span = self.span().part(self.data_fork_range(), "di_forkoff")?;
        Ok(Fork { inode: self.number, which: Which::Data, format, extents, span })
    }

    /// The fork that holds extended attributes, if there is one.
    pub(crate) fn attribute_fork(&self) -> Result<Option<Fork<'_>>> {
        if self.core.di_forkoff == 0 {
            return Ok(None);
        }
        let extents = match self.has_wide_counts() {
            true => u64::from(self.core.di_nextents.get()),
            false => u64::from(self.core.di_anextents.get()),
        };
        let format = self.format("di_aformat", self.core.di_aformat)?;
        let start = self.data_fork_range().end;
        let span = self.span().part(start..self.bytes.len(), "di_forkoff")?;
        Ok(Some(Fork { inode: self.number, which: Which::Attribute, format, extents, span }))
    }

    fn format(&self, field: &'static str, format: u8) -> Result<Format> {
        match format {
            0 => Ok(Format::Device),
            1 => Ok(Format::Local),
            2 => Ok(Format::Extents),
            3 => Ok(Format::Btree),
            4 | 5 => Err(Error::unsupported(STRUCTURE, format!("{field} {format}"))),
            _ => Err(self.span().corrupt(field, "0..=5", format).into()),
        }
    }

    pub(crate) fn metadata(&self, block_log: u8) -> Result<Metadata> {
        let core = &self.core;
        let kind = self.kind();
        Ok(Metadata {
            kind,
            permissions: u32::from(core.di_mode.get()) & 0o7777,
            uid: core.di_uid.get(),
            gid: core.di_gid.get(),
            links: if core.di_version == 1 { u32::from(core.di_onlink.get()) } else { core.di_nlink.get() },
            size: self.size(),
            allocated: core.di_nblocks.get().saturating_mul(1_u64 << block_log),
            device: self.device_number(kind)?,
            modified: self.timestamp(core.di_mtime),
            changed: self.timestamp(core.di_ctime),
            accessed: self.timestamp(core.di_atime),
        })
    }

    /// Major and minor number: 14 and 18 bits.
    fn device_number(&self, kind: FileKind) -> Result<(u32, u32)> {
        if !matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
            return Ok((0, 0));
        }
        let fork = self.data_fork()?;
        if fork.format != Format::Device {
            return Err(self.span().corrupt("di_format", 0, self.core.di_format).into());
        }
        let number = fork.span.u32(0, "di_rdev")?;
        Ok((number >> 18 & 0x3fff, number & 0x3_ffff))
    }

    fn timestamp(&self, raw: [u8; 8]) -> Timestamp {
        match self.flags2() & flags2::BIGTIME {
            0 => classic_time(raw),
            _ => big_time(raw),
        }
    }

    /// `time` as this inode stores times; times outside the range that it can store become its nearest end.
    pub(crate) fn encode_time(&self, time: Timestamp) -> [u8; 8] {
        match self.flags2() & flags2::BIGTIME {
            0 => encode_classic_time(time),
            _ => encode_big_time(time),
        }
    }
}

/// Seconds and nanoseconds, 32 bits each.
fn classic_time(raw: [u8; 8]) -> Timestamp {
    let [a, b, c, d, e, f, g, h] = raw;
    let nanoseconds = u32::from_be_bytes([e, f, g, h]).min(999_999_999);
    Timestamp { seconds: i64::from(i32::from_be_bytes([a, b, c, d])), nanoseconds }
}

fn encode_classic_time(time: Timestamp) -> [u8; 8] {
    let end = if time.seconds < 0 { i32::MIN } else { i32::MAX };
    let [a, b, c, d] = i32::try_from(time.seconds).unwrap_or(end).to_be_bytes();
    let [e, f, g, h] = time.nanoseconds.min(999_999_999).to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

const NANOSECONDS: u64 = 1_000_000_000;
/// Seconds from the first moment that `bigtime` can store, 1901-12-13 20:45:52 UTC, to 1970.
const BIG_TIME_EPOCH: i64 = 1 << 31;

/// Nanoseconds since 1901-12-13 20:45:52 UTC.
fn big_time(raw: [u8; 8]) -> Timestamp {
    let word = u64::from_be_bytes(raw);
    let (seconds, rest) = (word / NANOSECONDS, word % NANOSECONDS);
    Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX).saturating_sub(BIG_TIME_EPOCH),
        nanoseconds: u32::try_from(rest).unwrap_or(u32::MAX),
    }
}

fn encode_big_time(time: Timestamp) -> [u8; 8] {
    let seconds = u64::try_from(time.seconds.saturating_add(BIG_TIME_EPOCH)).unwrap_or(0);
    let nanoseconds = u64::from(time.nanoseconds.min(999_999_999));
    seconds.saturating_mul(NANOSECONDS).saturating_add(nanoseconds).to_be_bytes()
}

fn check_magic(span: &Span<'_>, core: &RawCore) -> Checked<()> {
    if core.di_magic == MAGIC {
        return Ok(());
    }
    Err(span.corrupt("di_magic", "\"IN\"", format_args!("{:02x?}", core.di_magic)))
}

fn check_version(span: &Span<'_>, core: &RawCore, crc: bool) -> Checked<()> {
    let allowed = if crc { 3..=3 } else { 1..=2 };
    if allowed.contains(&core.di_version) {
        return Ok(());
    }
    Err(span.corrupt("di_version", format_args!("{allowed:?}"), core.di_version))
}

fn check_extension(span: &Span<'_>, number: u64, meta_uuid: Guid) -> Checked<RawExtension> {
    span.check_crc(CRC_AT)?;
    let extension: RawExtension = span.value(CRC_AT, "di_crc")?;
    if extension.di_ino.get() != number {
        return Err(span.corrupt("di_ino", number, extension.di_ino.get()));
    }
    let uuid = Guid::from_bytes(extension.di_uuid);
    if uuid != meta_uuid {
        return Err(span.corrupt("di_uuid", meta_uuid, uuid));
    }
    Ok(extension)
}

fn check_in_use(span: &Span<'_>, core: &RawCore) -> Checked<()> {
    if core.di_mode.get() != 0 {
        return Ok(());
    }
    Err(span.corrupt("di_mode", "an inode in use", 0))
}

fn check_size(span: &Span<'_>, core: &RawCore) -> Checked<()> {
    if core.di_size.get() >> 63 == 0 {
        return Ok(());
    }
    Err(span.corrupt("di_size", "less than 2^63", core.di_size.get()))
}

impl<'a> Fork<'a> {
    /// The content of a fork that is kept in the inode: `length` bytes.
    pub(crate) fn local(&self, length: u64) -> Checked<&'a [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.span.bytes.get(..length).ok_or_else(|| {
            self.span.corrupt("di_size", format_args!("at most {} bytes", self.span.bytes.len()), length)
        })
    }

    /// How many extents fit into the inode.
    pub(crate) fn extent_capacity(&self) -> u64 {
        wide(self.span.bytes.len()) / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_kinds() {
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        for moment in [time(0, 0), time(-1, 999_999_999), time(1_700_000_000, 5), time(-(1 << 31), 0)] {
            assert_eq!(classic_time(encode_classic_time(moment)), moment);
            assert_eq!(big_time(encode_big_time(moment)), moment);
        }
        assert_eq!(classic_time(encode_classic_time(time(1 << 40, 0))), time((1 << 31) - 1, 0));
        assert_eq!(big_time(encode_big_time(time(1 << 33, 1))), time(1 << 33, 1));
        assert_eq!(big_time(encode_big_time(time(i64::MIN, 0))), time(-(1 << 31), 0));
        // 2023-11-14 22:13:20 UTC as a kernel with bigtime stores it.
        assert_eq!(encode_big_time(time(1_700_000_000, 0)), 3_847_483_648_000_000_000_u64.to_be_bytes());
    }
}
