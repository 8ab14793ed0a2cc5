//! The superblock of versions 1.0, 1.1 and 1.2.
//!
//! `struct mdp_superblock_1` of `md_p.h`. Little-endian; sizes and offsets count sectors of 512 bytes.

use ondisk::{Corrupt, Error, Guid, le};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::bad_blocks;
use super::superblock::{Features, LENGTH, MAGIC, Role, Superblock, Version, sectors};

const NAME: &str = "md superblock 1.x";

/// The fixed part; the roles of `max_dev` devices follow, 16 bits each.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSuperblock1 {
    pub(super) magic: le::U32,              // 0x00 0xa92b4efc
    pub(super) major_version: le::U32,      // 0x04 1
    pub(super) feature_map: le::U32,        // 0x08
    pub(super) pad0: le::U32,               // 0x0c
    pub(super) set_uuid: [u8; 16],          // 0x10
    pub(super) set_name: [u8; 32],          // 0x20 ends at a zero byte or fills the field
    pub(super) ctime: le::U64,              // 0x40 seconds in the low 40 bits, microseconds above
    pub(super) level: le::I32,              // 0x48
    pub(super) layout: le::U32,             // 0x4c
    pub(super) size: le::U64,               // 0x50 used of each member
    pub(super) chunksize: le::U32,          // 0x58
    pub(super) raid_disks: le::U32,         // 0x5c
    pub(super) bitmap_offset: le::I32,      // 0x60 from the superblock; or where partial parity is
    pub(super) new_level: le::U32,          // 0x64
    pub(super) reshape_position: le::U64,   // 0x68 sectors of the array
    pub(super) delta_disks: le::U32,        // 0x70
    pub(super) new_layout: le::U32,         // 0x74
    pub(super) new_chunk: le::U32,          // 0x78
    pub(super) new_offset: le::U32,         // 0x7c
    pub(super) data_offset: le::U64,        // 0x80
    pub(super) data_size: le::U64,          // 0x88
    pub(super) super_offset: le::U64,       // 0x90
    pub(super) recovery_offset: le::U64,    // 0x98 or the tail of a journal
    pub(super) dev_number: le::U32,         // 0xa0
    pub(super) cnt_corrected_read: le::U32, // 0xa4
    pub(super) device_uuid: [u8; 16],       // 0xa8
    pub(super) devflags: u8,                // 0xb8
    pub(super) bblog_shift: u8,             // 0xb9 of the log's sectors
    pub(super) bblog_size: le::U16,         // 0xba sectors
    pub(super) bblog_offset: le::I32,       // 0xbc from the superblock
    pub(super) utime: le::U64,              // 0xc0 as ctime
    pub(super) events: le::U64,             // 0xc8
    pub(super) resync_offset: le::U64,      // 0xd0 all ones when redundancy is in sync
    pub(super) sb_csum: le::U32,            // 0xd8
    pub(super) max_dev: le::U32,            // 0xdc
    pub(super) pad3: [u8; 32],              // 0xe0
}
const _: () = assert!(size_of::<RawSuperblock1>() == 256);

/// Where the checksum is.
const CHECKSUM_AT: usize = 0xd8;

/// The most roles that the superblock has room for.
const MAX_DEVICES: usize = (LENGTH - 256) / 2;

/// The seconds of a time.
const SECONDS: u64 = 0xff_ffff_ffff;

/// Reads the superblock of `version` from the 4096 bytes `block` at byte `offset`; `None` where there is none.
/// What is wrong with it goes to `problems`.
pub(super) fn decode(
    block: &[u8],
    version: Version,
    offset: u64,
    problems: &mut Vec<Error>,
) -> Option<Superblock> {
    let (raw, roles) = RawSuperblock1::read_from_prefix(block).ok()?;
    if raw.magic != MAGIC || raw.major_version != 1 {
        return None;
    }
    let mut refusal = None;
    let mut refuse = |field, expected: String, found: String| {
        refusal.get_or_insert(format!("{field} is {found}, expected {expected}"));
        problems.push(Corrupt::new(NAME, offset, field, expected, found).into());
    };
    if sectors(raw.super_offset.get()) != offset {
        // Of another place or another device, as where a partition and its disk end together.
        let found = raw.super_offset.get();
        problems.push(Corrupt::new(NAME, offset, "super_offset", offset / 512, found).into());
        return None;
    }
    let max_dev = usize::try_from(raw.max_dev.get()).unwrap_or(usize::MAX);
    if max_dev > MAX_DEVICES {
        refuse("max_dev", format!("at most {MAX_DEVICES}"), max_dev.to_string());
    } else {
        let expected = checksum(block, max_dev);
        if raw.sb_csum != expected {
            refuse("sb_csum", format!("{expected:#010x}"), format!("{:#010x}", raw.sb_csum.get()));
        }
    }
    let features = Features(raw.feature_map.get());
    let roles: Vec<Role> = roles
        .chunks_exact(2)
        .take(max_dev)
        .map(|bytes| match <[u8; 2]>::try_from(bytes).map_or(0xffff, u16::from_le_bytes) {
            0xfffd => Role::Journal,
            0xfffe => Role::Faulty,
            number @ 0..=0xff00 => Role::Active(number.into()),
            _ => Role::Spare,
        })
        .collect();
    let device_number = raw.dev_number.get();
    let role = usize::try_from(device_number).ok().and_then(|n| roles.get(n)).copied().unwrap_or(Role::Spare);
    let has = |feature| features.has(feature);
    let name = raw.set_name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Superblock {
        version,
        offset,
        array_uuid: Guid::from_bytes(raw.set_uuid),
        device_uuid: Some(Guid::from_bytes(raw.device_uuid)),
        name: Some(String::from_utf8_lossy(name).into_owned()),
        level: raw.level.get(),
        layout: raw.layout.get(),
        chunk: sectors(raw.chunksize.get().into()),
        raid_disks: raw.raid_disks.get(),
        device_number,
        role,
        roles,
        data_offset: sectors(raw.data_offset.get()),
        data_size: sectors(raw.data_size.get()),
        used_size: sectors(raw.size.get()),
        events: raw.events.get(),
        creation_time: raw.ctime.get() & SECONDS,
        update_time: raw.utime.get() & SECONDS,
        is_clean: raw.resync_offset.get() == u64::MAX,
        features,
        reshape_position: has(Features::RESHAPE).then(|| sectors(raw.reshape_position.get())),
        recovery_offset: (has(Features::RECOVERY_OFFSET) && role != Role::Journal)
            .then(|| sectors(raw.recovery_offset.get())),
        journal_tail: (role == Role::Journal).then(|| sectors(raw.recovery_offset.get())),
        bad_blocks: Vec::new(),
        refusal,
    })
}

/// Where the bad-block log lies, if it has entries.
pub(super) fn bad_block_log(block: &[u8], offset: u64) -> Option<bad_blocks::Log> {
    let (raw, _) = RawSuperblock1::read_from_prefix(block).ok()?;
    let has_log = Features(raw.feature_map.get()).has(Features::BAD_BLOCKS);
    (has_log && raw.bblog_offset != 0).then(|| bad_blocks::Log {
        superblock: offset,
        offset: raw.bblog_offset.get(),
        sectors: raw.bblog_size.get(),
        shift: raw.bblog_shift,
    })
}

/// The sum of the superblock's 32-bit words, the checksum itself taken as zero, and of a last half word, with
/// its carries added once.
fn checksum(block: &[u8], max_dev: usize) -> u32 {
    let length = max_dev.saturating_mul(2).saturating_add(256);
    let covered = block.get(..length).unwrap_or(block);
    let mut sum = 0_u64;
    for (at, word) in (0_usize..).step_by(4).zip(covered.chunks(4)) {
        let mut bytes = [0; 4];
        if at != CHECKSUM_AT {
            bytes.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
        }
        sum = sum.saturating_add(u32::from_le_bytes(bytes).into());
    }
    let low = u32::try_from(sum & 0xffff_ffff).unwrap_or(0);
    let high = u32::try_from(sum >> 32).unwrap_or(0);
    low.wrapping_add(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Member 0 of raid5-left-symmetric in test-images/volume/md-raid5, without its roles: 0, 1, 2, then spares.
    const GOOD: &str = "\
        fc4e2ba90100000000000000000000006281c42760c9556a6ad4fd3e0433a8b9286e6f6e65293a300000000000000000\
        000000000000000000000000000000006a69086b00000000050000000200000000020000000000000800000003000000\
        000000000000000000000000000000000000000000000000000000000000000080000000000000000002000000000000\
        08000000000000000000000000000000000000000000000062e18084fde8898d1ee8704c5c6860690000080010000000\
        6a69086b000000000200000000000000ffffffffffffffff9b2b8a708000000000000000000000000000000000000000\
        00000000000000000000000000000000";

    fn good() -> Vec<u8> {
        let digits: Vec<char> = GOOD.chars().collect();
        let text = |pair: &[char]| pair.iter().collect::<String>();
        let mut block: Vec<u8> =
            digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).unwrap()).collect();
        block.extend([0, 0, 1, 0, 2, 0]);
        block.resize(256 + 256, 0xff);
        block.resize(LENGTH, 0);
        block
    }

    /// The superblock with other bytes at `at`, its checksum right, and the texts of its problems.
    fn changed(at: usize, bytes: &[u8]) -> (Option<Superblock>, Vec<String>) {
        let mut block = good();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = checksum(&block, 128);
        block[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        decoded(&block)
    }

    fn decoded(block: &[u8]) -> (Option<Superblock>, Vec<String>) {
        let mut problems = Vec::new();
        let superblock = decode(block, Version::V1_2, 4096, &mut problems);
        (superblock, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_good_superblock_is_read() {
        let (superblock, problems) = decoded(&good());
        let superblock = superblock.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((superblock.level, superblock.layout, superblock.chunk), (5, 2, 4096));
        assert_eq!((superblock.raid_disks, superblock.role), (3, Role::Active(0)));
        assert_eq!((superblock.data_offset, superblock.used_size), (65536, 262_144));
        assert!(superblock.is_clean && superblock.knows_active(2) && !superblock.knows_active(3));
        assert_eq!((superblock.role_of(1), superblock.role_of(5000)), (Role::Active(1), Role::Spare));
        assert_eq!((superblock.refusal, superblock.features), (None, Features(0)));
    }

    #[test]
    fn one_field_at_a_time() {
        assert_eq!(changed(0, b"?"), (None, Vec::new()));
        assert_eq!(changed(4, &[2]), (None, Vec::new()));
        let (superblock, problems) = changed(0x90, &[9]);
        assert_eq!(superblock, None);
        assert!(problems[0].ends_with("super_offset is 9, expected 8"), "{problems:?}");
        let (superblock, problems) = changed(0xdc, &[0x81, 7]);
        assert!(superblock.unwrap().refusal.unwrap().starts_with("max_dev is 1921"));
        assert_eq!(problems.len(), 1);
        let role = |number: [u8; 2]| changed(256, &number).0.unwrap().role;
        assert_eq!(role([0xff, 0xff]), Role::Spare);
        assert_eq!(role([0xfe, 0xff]), Role::Faulty);
        assert_eq!(role([0xfd, 0xff]), Role::Journal);
        assert_eq!(role([0, 0xff]), Role::Active(0xff00));
        assert_eq!(role([1, 0xff]), Role::Spare);
        assert!(!changed(0xd0, &[0]).0.unwrap().is_clean);
        let reshaped = changed(8, &[4]).0.unwrap();
        assert!(reshaped.reshape_position.is_some());
        assert!(changed(8, &[2]).0.unwrap().recovery_offset.is_some());
        let mut block = good();
        block[0x20] ^= 1;
        let (superblock, problems) = decoded(&block);
        assert!(superblock.unwrap().refusal.unwrap().starts_with("sb_csum is"));
        assert_eq!(problems.len(), 1);
    }
}
