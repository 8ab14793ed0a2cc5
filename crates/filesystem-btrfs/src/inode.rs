//! Inode items: owner, mode, size and times.
//!
//! On-disk format documentation, "Inode item"; `struct btrfs_inode_item`. Little-endian.

use filesystem::{FileKind, Metadata, Timestamp};
use ondisk::{Corrupt, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::node::Item;
use crate::number::wide;

const STRUCTURE: &str = "inode item";

/// `struct btrfs_timespec`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTime {
    seconds: le::I64,     // 0x00 since 1970
    nanoseconds: le::U32, // 0x08
}

/// An inode as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInode {
    generation: le::U64,    // 0x00
    transid: le::U64,       // 0x08
    size: le::U64,          // 0x10 bytes
    nbytes: le::U64,        // 0x18 bytes on the devices, one copy
    block_group: le::U64,   // 0x20
    nlink: le::U32,         // 0x28
    uid: le::U32,           // 0x2c
    gid: le::U32,           // 0x30
    mode: le::U32,          // 0x34
    rdev: le::U64,          // 0x38 minor in the lower 20 bits, major above
    flags: le::U64,         // 0x40
    sequence: le::U64,      // 0x48
    reserved: [le::U64; 4], // 0x50
    atime: RawTime,         // 0x70
    ctime: RawTime,         // 0x7c
    mtime: RawTime,         // 0x88
    otime: RawTime,         // 0x94
}
const _: () = assert!(size_of::<RawInode>() == 160);

/// `BTRFS_INODE_NODATASUM`.
const NO_DATA_SUM: u64 = 1;

/// An inode.
#[derive(Debug, Clone)]
pub(crate) struct DiskInode {
    raw: RawInode,
    /// Where it is on its device.
    pub(crate) at: u64,
}

impl DiskInode {
    pub(crate) fn decode(item: &Item<'_>) -> Result<Self> {
        let raw = RawInode::read_from_bytes(item.data)
            .map_err(|_| Corrupt::new(STRUCTURE, item.at, "size", "160 bytes", wide(item.data.len())))?;
        Ok(Self { raw, at: item.at })
    }

    pub(crate) fn kind(&self) -> FileKind {
        FileKind::from_mode(self.raw.mode.get())
    }

    /// Refuses an inode of another kind.
    pub(crate) fn expect(&self, kind: FileKind, expected: &'static str) -> Result<()> {
        if self.kind() == kind {
            return Ok(());
        }
        let found = format!("{:#o}", self.raw.mode.get());
        Err(Corrupt::new(STRUCTURE, self.at, "mode", expected, found).into())
    }

    pub(crate) fn size(&self) -> u64 {
        self.raw.size.get()
    }

    /// Whether its data has checksums.
    pub(crate) fn has_checksums(&self) -> bool {
        self.raw.flags.get() & NO_DATA_SUM == 0
    }

    /// With blocks counted in sectors of this many bytes.
    pub(crate) fn metadata(&self, sector_size: u32) -> Metadata {
        let raw = &self.raw;
        let device = raw.rdev.get() & u64::from(u32::MAX);
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let kind = self.kind();
        let has_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Metadata {
            kind,
            permissions: raw.mode.get() & 0o7777,
            uid: raw.uid.get(),
            gid: raw.gid.get(),
            links: raw.nlink.get(),
            size: raw.size.get(),
            allocated: raw
                .nbytes
                .get()
                .checked_next_multiple_of(u64::from(sector_size))
                .unwrap_or(raw.nbytes.get()),
            device: if has_device { (part(device >> 20), part(device & 0xf_ffff)) } else { (0, 0) },
            modified: raw.mtime.timestamp(),
            changed: raw.ctime.timestamp(),
            accessed: raw.atime.timestamp(),
        }
    }
}

impl RawTime {
    fn timestamp(&self) -> Timestamp {
        let nanoseconds = self.nanoseconds.get();
        // The kernel writes none above; such a count would break whoever prints it.
        Timestamp {
            seconds: self.seconds.get(),
            nanoseconds: if nanoseconds < 1_000_000_000 { nanoseconds } else { 0 },
        }
    }
}

/// The directory that the kernel shows where a snapshot names a subvolume that it does not hold: empty, and
/// with the owner of the directory around it.
pub(crate) fn placeholder(around: &Metadata) -> Metadata {
    Metadata { permissions: 0o755, links: 1, size: 0, allocated: 0, ..around.clone() }
}
