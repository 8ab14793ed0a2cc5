//! Journal superblock: where the log is, where it starts, and its features.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Super Block". 1024 bytes at the start of the journal's
//! first block, big-endian.

use ondisk::{Corrupt, Error, Result, be, crc32c_raw};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block_header::{BlockType, RawHeader, decode as decode_header};

/// Bits of `s_feature_compat` and `s_feature_incompat`.
mod bits {
    pub(super) const COMPAT_CHECKSUM: u32 = 0x1;
    pub(super) const BITS64: u32 = 0x2;
    pub(super) const ASYNC_COMMIT: u32 = 0x4;
    pub(super) const CSUM_V2: u32 = 0x8;
    pub(super) const CSUM_V3: u32 = 0x10;
    pub(super) const FAST_COMMIT: u32 = 0x20;
}

/// All bits of `s_feature_incompat` that have a meaning: the five above, and 0x1, "revocation blocks occur".
const KNOWN_INCOMPAT: u32 = 0x3f;

/// Blocks of fast commits where `s_num_fc_blks` is 0.
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;

/// No log is smaller than this, in blocks.
const MIN_BLOCKS: u32 = 1024;

const STRUCTURE: &str = "journal superblock";

/// The superblock as stored.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawSuperblock {
    pub s_header: RawHeader,          // 0x000
    pub s_blocksize: be::U32,         // 0x00c that of the file system
    pub s_maxlen: be::U32,            // 0x010 blocks of the journal
    pub s_first: be::U32,             // 0x014 first block of the log
    pub s_sequence: be::U32,          // 0x018 first transaction in the log
    pub s_start: be::U32,             // 0x01c its block; 0: the log is empty
    pub s_errno: be::I32,             // 0x020 the error that stopped the journal, negative
    pub s_feature_compat: be::U32,    // 0x024 from here on only in version 2
    pub s_feature_incompat: be::U32,  // 0x028
    pub s_feature_ro_compat: be::U32, // 0x02c
    pub s_uuid: [u8; 16],             // 0x030
    pub s_nr_users: be::U32,          // 0x040
    pub s_dynsuper: be::U32,          // 0x044
    pub s_max_transaction: be::U32,   // 0x048
    pub s_max_trans_data: be::U32,    // 0x04c
    pub s_checksum_type: u8,          // 0x050 4: CRC-32C
    pub s_padding2: [u8; 3],          // 0x051
    pub s_num_fc_blks: be::U32,       // 0x054 blocks after the log for fast commits
    pub s_head: be::U32,              // 0x058
    pub s_padding: [u8; 160],         // 0x05c
    pub s_checksum: be::U32,          // 0x0fc CRC-32C of all 1024 bytes, this field zero
    pub s_users: [u8; 768],           // 0x100
}

const _: () = assert!(size_of::<RawSuperblock>() == 1024);

impl RawSuperblock {
    /// The checksum that these bytes should carry.
    fn computed_checksum(&self) -> u32 {
        let mut zeroed = self.clone();
        zeroed.s_checksum.set(0);
        crc32c_raw(!0, zeroed.as_bytes())
    }

    /// Marks the log as empty; `sequence` is the next transaction.
    pub fn empty(&mut self, sequence: u32) {
        self.s_start.set(0);
        self.s_sequence.set(sequence);
        self.s_errno.set(0);
        if self.has_checksums() {
            self.s_checksum.set(self.computed_checksum());
        }
    }

    fn has_checksums(&self) -> bool {
        self.is_version_2() && self.s_feature_incompat.get() & (bits::CSUM_V2 | bits::CSUM_V3) != 0
    }

    fn is_version_2(&self) -> bool {
        decode_header(self.s_header.as_bytes()).is_some_and(|(kind, _)| kind == BlockType::SuperblockV2)
    }
}

/// How copies, and the blocks that name them, are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    None,
    /// The commit block holds a CRC-32 of all descriptor blocks and copies.
    Commit,
    /// Each block has a CRC-32C; of that of a copy, 16 bits are stored.
    Blocks16 {
        /// CRC-32C of the journal's UUID.
        seed: u32,
    },
    /// Each block has a CRC-32C.
    Blocks {
        /// CRC-32C of the journal's UUID.
        seed: u32,
    },
}

impl Protection {
    /// The seed of the checksums of single blocks, if there are any.
    pub fn seed(self) -> Option<u32> {
        match self {
            Self::None | Self::Commit => None,
            Self::Blocks16 { seed } | Self::Blocks { seed } => Some(seed),
        }
    }
}

/// A superblock whose fields agree with the journal's length.
#[derive(Debug, Clone)]
pub struct Superblock {
    /// First block of the log.
    pub first: u32,
    /// The block after the last of the log.
    pub end: u32,
    /// The block where the first transaction begins; `None` when the log is empty.
    pub start: Option<u32>,
    /// The first transaction.
    pub sequence: u32,
    /// The error that stopped the journal, or 0.
    pub errno: i32,
    /// Whether block numbers have 64 bits.
    pub is_64bit: bool,
    /// Whether a commit block may reach the disk before what it commits.
    pub is_async: bool,
    /// How the log is protected.
    pub protection: Protection,
    /// The blocks of the area for fast commits; empty without that feature.
    pub fast_commits: std::ops::Range<u32>,
}

impl Superblock {
    /// Judges the superblock at byte `offset` of a journal of `blocks` blocks of `block_size` bytes.
    ///
    /// # Errors
    /// `Corrupt`; `Unsupported` for unknown features.
    pub fn decode(raw: &RawSuperblock, offset: u64, block_size: u64, blocks: u64) -> Result<Self> {
        let corrupt = |field, expected: String, found: u64| {
            Error::from(Corrupt::new(STRUCTURE, offset, field, expected, found))
        };
        let is_version_2 = match decode_header(raw.s_header.as_bytes()) {
            Some((BlockType::SuperblockV2, _)) => true,
            Some((BlockType::SuperblockV1, _)) => false,
            _ => return Err(corrupt("s_header", "magic and type".into(), raw.s_header.h_magic.get().into())),
        };
        if u64::from(raw.s_blocksize.get()) != block_size {
            return Err(corrupt("s_blocksize", block_size.to_string(), raw.s_blocksize.get().into()));
        }
        let length = raw.s_maxlen.get();
        if u64::from(length) > blocks {
            return Err(corrupt("s_maxlen", format!("up to {blocks}"), length.into()));
        }
        let (compat, incompat) = if is_version_2 {
            judge_features(raw)?;
            (raw.s_feature_compat.get(), raw.s_feature_incompat.get())
        } else {
            (0, 0)
        };
        let protection = protection(raw, offset, compat, incompat)?;
        let has_fast_commits = incompat & bits::FAST_COMMIT != 0;
        let reserved = match raw.s_num_fc_blks.get() {
            _ if !has_fast_commits => 0,
            0 => DEFAULT_FAST_COMMIT_BLOCKS,
            count => count,
        };
        let end = length.checked_sub(reserved).filter(|end| reserved == 0 || *end >= MIN_BLOCKS);
        let end = end.unwrap_or(length);
        let first = raw.s_first.get();
        if first == 0 || first >= end {
            return Err(corrupt("s_first", format!("1..{end}"), first.into()));
        }
        let start = Some(raw.s_start.get()).filter(|start| *start != 0);
        if let Some(start) = start.filter(|start| !(first..end).contains(start)) {
            return Err(corrupt("s_start", format!("0 or {first}..{end}"), start.into()));
        }
        Ok(Self {
            first,
            end,
            start,
            sequence: raw.s_sequence.get(),
            errno: raw.s_errno.get(),
            is_64bit: incompat & bits::BITS64 != 0,
            is_async: incompat & bits::ASYNC_COMMIT != 0,
            protection,
            // jbd2 leaves one block between the log and this area.
            fast_commits: if has_fast_commits { end.saturating_add(1)..length } else { 0..0 },
        })
    }
}

fn judge_features(raw: &RawSuperblock) -> Result<()> {
    let unknown = raw.s_feature_incompat.get() & !KNOWN_INCOMPAT;
    if unknown != 0 {
        return Err(Error::unsupported(STRUCTURE, format!("incompatible feature {unknown:#x}")));
    }
    let unknown = raw.s_feature_ro_compat.get();
    if unknown != 0 {
        return Err(Error::unsupported(STRUCTURE, format!("read-only compatible feature {unknown:#x}")));
    }
    Ok(())
}

fn protection(raw: &RawSuperblock, offset: u64, compat: u32, incompat: u32) -> Result<Protection> {
    let features =
        [compat & bits::COMPAT_CHECKSUM != 0, incompat & bits::CSUM_V2 != 0, incompat & bits::CSUM_V3 != 0];
    let seed = crc32c_raw(!0, &raw.s_uuid);
    let protection = match features {
        [false, false, false] => return Ok(Protection::None),
        [true, false, false] => return Ok(Protection::Commit),
        [false, true, false] => Protection::Blocks16 { seed },
        [false, false, true] => Protection::Blocks { seed },
        _ => {
            let found = format!("{compat:#x} and {incompat:#x}");
            return Err(Corrupt::new(STRUCTURE, offset, "s_feature", "one kind of checksums", found).into());
        }
    };
    if raw.s_checksum_type != 4 {
        return Err(Error::unsupported(STRUCTURE, format!("checksum type {}", raw.s_checksum_type)));
    }
    let (computed, stored) = (raw.computed_checksum(), raw.s_checksum.get());
    if computed != stored {
        return Err(Corrupt::checksum(STRUCTURE, offset, computed, stored).into());
    }
    Ok(protection)
}

impl Default for RawSuperblock {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `mke2fs -t ext4` (e2fsprogs 1.47.0) gives a journal of 4 MiB, after a mount by Linux 6.18.
    fn good() -> RawSuperblock {
        let mut raw = RawSuperblock::default();
        raw.s_header.h_magic.set(super::super::block_header::MAGIC);
        raw.s_header.h_blocktype.set(4);
        raw.s_blocksize.set(4096);
        raw.s_maxlen.set(1024);
        raw.s_first.set(1);
        raw.s_sequence.set(2);
        raw.s_start.set(1);
        raw.s_feature_incompat.set(0x13);
        raw.s_uuid = [9; 16];
        raw.s_checksum_type = 4;
        raw.s_checksum.set(raw.computed_checksum());
        raw
    }

    fn result(change: impl FnOnce(&mut RawSuperblock)) -> String {
        let mut raw = good();
        change(&mut raw);
        raw.s_checksum.set(raw.computed_checksum());
        match Superblock::decode(&raw, 0, 4096, 1024) {
            Ok(superblock) => format!("{:?}", superblock.start),
            Err(Error::Corrupt(corrupt)) => corrupt.field.into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        assert_eq!(result(|_| ()), "Some(1)");
        assert_eq!(result(|raw| raw.s_start.set(0)), "None");
        assert_eq!(result(|raw| raw.s_start.set(1024)), "s_start");
        assert_eq!(result(|raw| raw.s_header.h_magic.set(0)), "s_header");
        assert_eq!(result(|raw| raw.s_header.h_blocktype.set(1)), "s_header");
        assert_eq!(result(|raw| raw.s_blocksize.set(1024)), "s_blocksize");
        assert_eq!(result(|raw| raw.s_maxlen.set(1025)), "s_maxlen");
        assert_eq!(result(|raw| raw.s_first.set(0)), "s_first");
        assert_eq!(result(|raw| raw.s_feature_incompat.set(0x1b)), "s_feature");
        assert_eq!(
            result(|raw| raw.s_feature_incompat.set(0x53)),
            "journal superblock: incompatible feature 0x40 is not supported"
        );
        assert_eq!(
            result(|raw| raw.s_checksum_type = 1),
            "journal superblock: checksum type 1 is not supported"
        );
    }

    #[test]
    fn an_emptied_log_keeps_its_checksum() {
        let mut raw = good();
        raw.empty(77);
        let superblock = Superblock::decode(&raw, 0, 4096, 1024).unwrap();
        assert_eq!((superblock.start, superblock.sequence), (None, 77));
        raw.s_sequence.set(78);
        let error = Superblock::decode(&raw, 0, 4096, 1024).unwrap_err();
        assert_eq!(error.as_corrupt().unwrap().field, "checksum");
    }
}
