//! The superblock: where the tables are, and how blocks are compressed.
//!
//! `struct squashfs_super_block` in `fs/squashfs/squashfs_fs.h`. Byte offsets count from the start of the device.

use ondisk::le::{U16, U32, U64};
use ondisk::{Corrupt, Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::codec::Compression;

const NAME: &str = "squashfs superblock";
/// "hsqs".
pub(crate) const MAGIC: u32 = 0x7371_7368;
/// What stands for a table that is not there.
pub(crate) const NO_TABLE: u64 = u64::MAX;

/// The superblock as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) magic: U32,           // 0x00 "hsqs"
    pub(crate) inodes: U32,          // 0x04
    pub(crate) mkfs_time: U32,       // 0x08 seconds since 1970
    pub(crate) block_size: U32,      // 0x0c bytes of a data block, 4 KiB..=1 MiB
    pub(crate) fragments: U32,       // 0x10
    pub(crate) compression: U16,     // 0x14
    pub(crate) block_log: U16,       // 0x16 log2 of block_size
    pub(crate) flags: U16,           // 0x18
    pub(crate) no_ids: U16,          // 0x1a
    pub(crate) major: U16,           // 0x1c 4
    pub(crate) minor: U16,           // 0x1e 0
    pub(crate) root_inode: U64,      // 0x20 a reference into the inode table
    pub(crate) bytes_used: U64,      // 0x28
    pub(crate) id_table: U64,        // 0x30
    pub(crate) xattr_table: U64,     // 0x38
    pub(crate) inode_table: U64,     // 0x40
    pub(crate) directory_table: U64, // 0x48
    pub(crate) fragment_table: U64,  // 0x50
    pub(crate) lookup_table: U64,    // 0x58
}

const _: () = assert!(size_of::<RawSuperblock>() == 96);

/// A superblock whose fields agree with each other.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    pub(crate) compression: Compression,
    /// Bytes of a whole data block.
    pub(crate) block_size: u32,
    pub(crate) fragments: u32,
    pub(crate) ids: u16,
    pub(crate) flags: u16,
    /// Where the root's inode is.
    pub(crate) root: u64,
    /// Bytes from the start that belong to the file system.
    pub(crate) size: u64,
    pub(crate) id_table: u64,
    pub(crate) xattr_table: Option<u64>,
    pub(crate) inode_table: u64,
    pub(crate) directory_table: u64,
    pub(crate) fragment_table: Option<u64>,
}

impl Superblock {
    /// Judges the fields; sizes are not held against the device here.
    pub(crate) fn decode(raw: &RawSuperblock) -> Result<Self> {
        let corrupt = |field, expected: &str, found: u64| {
            Error::from(Corrupt::new(NAME, 0, field, expected, format_args!("{found:#x}")))
        };
        if raw.magic.get() != MAGIC {
            return Err(corrupt("s_magic", "0x73717368", raw.magic.get().into()));
        }
        if raw.major.get() != 4 || raw.minor.get() != 0 {
            return Err(Error::unsupported(NAME, format!("version {}.{}", raw.major, raw.minor)));
        }
        let block_size = raw.block_size.get();
        if !(12..=20).contains(&raw.block_log.get()) || 1_u32 << raw.block_log.get() != block_size {
            return Err(corrupt("block_log", "log2 of block_size, 12..=20", raw.block_log.get().into()));
        }
        let compression = match raw.compression.get() {
            1 => Compression::Gzip,
            4 => Compression::Xz,
            5 => Compression::Lz4,
            6 => Compression::Zstd,
            2 => return Err(Error::unsupported(NAME, "compression lzma")),
            3 => return Err(Error::unsupported(NAME, "compression lzo")),
            other => return Err(Error::unsupported(NAME, format!("compression number {other}"))),
        };
        let size = raw.bytes_used.get();
        let within = |field, at: u64| {
            if at < 96 || at >= size {
                Err(corrupt(field, "an offset within bytes_used", at))
            } else {
                Ok(at)
            }
        };
        let optional = |field, at: u64| {
            if at == NO_TABLE { Ok(None) } else { within(field, at).map(Some) }
        };
        Ok(Self {
            compression,
            block_size,
            fragments: raw.fragments.get(),
            ids: raw.no_ids.get(),
            flags: raw.flags.get(),
            root: raw.root_inode.get(),
            size,
            id_table: within("id_table_start", raw.id_table.get())?,
            xattr_table: optional("xattr_id_table_start", raw.xattr_table.get())?,
            inode_table: within("inode_table_start", raw.inode_table.get())?,
            directory_table: within("directory_table_start", raw.directory_table.get())?,
            fragment_table: optional("fragment_table_start", raw.fragment_table.get())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As mksquashfs 4.5.1 wrote it for a small tree.
    fn good() -> RawSuperblock {
        RawSuperblock {
            magic: MAGIC.into(),
            inodes: 7.into(),
            mkfs_time: 1_700_000_000.into(),
            block_size: 131_072.into(),
            fragments: 1.into(),
            compression: 1.into(),
            block_log: 17.into(),
            flags: 0xc0.into(),
            no_ids: 1.into(),
            major: 4.into(),
            minor: 0.into(),
            root_inode: 0x60.into(),
            bytes_used: 900.into(),
            id_table: 890.into(),
            xattr_table: NO_TABLE.into(),
            inode_table: 500.into(),
            directory_table: 600.into(),
            fragment_table: 700.into(),
            lookup_table: NO_TABLE.into(),
        }
    }

    #[test]
    fn one_field_at_a_time() {
        let decoded = Superblock::decode(&good()).unwrap();
        assert_eq!(
            (decoded.block_size, decoded.xattr_table, decoded.fragment_table),
            (131_072, None, Some(700))
        );
        let check = |change: fn(&mut RawSuperblock), said: &str| {
            let mut raw = good();
            change(&mut raw);
            let error = Superblock::decode(&raw).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        };
        check(|raw| raw.magic = 1.into(), "s_magic");
        check(|raw| raw.major = 3.into(), "version 3.0 is not supported");
        check(|raw| raw.block_log = 16.into(), "block_log");
        check(|raw| raw.block_log = 40.into(), "block_log");
        check(|raw| raw.block_size = 1.into(), "block_log");
        check(|raw| raw.compression = 2.into(), "compression lzma");
        check(|raw| raw.compression = 3.into(), "compression lzo");
        check(|raw| raw.compression = 9.into(), "compression number 9");
        check(|raw| raw.id_table = 900.into(), "id_table_start");
        check(|raw| raw.inode_table = NO_TABLE.into(), "inode_table_start");
        check(|raw| raw.directory_table = 5.into(), "directory_table_start");
        check(|raw| raw.fragment_table = 4000.into(), "fragment_table_start");
        check(|raw| raw.bytes_used = 0.into(), "id_table_start");
    }
}
