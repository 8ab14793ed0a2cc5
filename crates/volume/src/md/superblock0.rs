//! The superblock of version 0.90, in the byte order of the host that made it.
//!
//! `mdp_super_t` of `md_p.h`: 1024 words of 32 bits. Sizes count KiB, chunks bytes.

use ondisk::{Corrupt, Error, Guid};

use super::superblock::{Features, LENGTH, MAGIC, Role, Superblock, Version};

const NAME: &str = "md superblock 0.90";

/// Words of the superblock, by their index.
mod word {
    pub(super) const MAJOR: usize = 1;
    pub(super) const MINOR: usize = 2;
    pub(super) const UUID0: usize = 5;
    pub(super) const CTIME: usize = 6;
    pub(super) const LEVEL: usize = 7;
    /// KiB of each member that the array uses.
    pub(super) const SIZE: usize = 8;
    pub(super) const RAID_DISKS: usize = 10;
    /// The other three words of the UUID.
    pub(super) const UUID1: usize = 13;
    pub(super) const UTIME: usize = 32;
    pub(super) const STATE: usize = 33;
    pub(super) const CHECKSUM: usize = 38;
    /// The halves of the event count are a number of 64 bits in the host's order.
    pub(super) const EVENTS: usize = 39;
    /// Both halves likewise, in sectors of the array.
    pub(super) const RESHAPE_POSITION: usize = 44;
    pub(super) const LAYOUT: usize = 64;
    pub(super) const CHUNK: usize = 65;
    /// Descriptors of the members.
    pub(super) const DISKS: usize = 128;
    /// This member's descriptor.
    pub(super) const THIS_DISK: usize = 992;
}

/// Words of a member's descriptor.
const DESCRIPTOR: usize = 32;

/// Descriptors in a superblock.
const MAX_DISKS: usize = 27;

const STATE_CLEAN: u32 = 1;
const STATE_BITMAP: u32 = 1 << 8;
const DISK_FAULTY: u32 = 1;
const DISK_ACTIVE: u32 = 2;
const DISK_SYNC: u32 = 4;

/// Reads the superblock from the 4096 bytes `block` at byte `offset`; `None` where there is none. What is wrong
/// with it goes to `problems`.
pub(super) fn decode(block: &[u8], offset: u64, problems: &mut Vec<Error>) -> Option<Superblock> {
    let block = <&[u8; LENGTH]>::try_from(block).ok()?;
    let is_big_endian = match block.first_chunk() {
        Some(bytes) if u32::from_le_bytes(*bytes) == MAGIC => false,
        Some(bytes) if u32::from_be_bytes(*bytes) == MAGIC => true,
        _ => return None,
    };
    let words = words(block, is_big_endian);
    let at = |index: usize| words.get(index).copied().unwrap_or(0);
    if at(word::MAJOR) != 0 {
        return None;
    }
    let mut refusal = None;
    let mut refuse = |field, expected: String, found: String| {
        refusal.get_or_insert(format!("{field} is {found}, expected {expected}"));
        problems.push(Corrupt::new(NAME, offset, field, expected, found).into());
    };
    let minor = at(word::MINOR);
    if !matches!(minor, 90 | 91) {
        refuse("minor_version", "90 or 91".into(), minor.to_string());
    }
    let expected = checksum(&words);
    if at(word::CHECKSUM) != expected {
        refuse("sb_csum", format!("{expected:#010x}"), format!("{:#010x}", at(word::CHECKSUM)));
    }
    let long = |index: usize| {
        let (low, high) =
            if is_big_endian { (index.saturating_add(1), index) } else { (index, index.saturating_add(1)) };
        u64::from(at(high)) << 32 | u64::from(at(low))
    };
    let mut uuid = [0; 16];
    for (to, from) in uuid.chunks_exact_mut(4).zip([
        at(word::UUID0),
        at(word::UUID1),
        at(word::UUID1.saturating_add(1)),
        at(word::UUID1.saturating_add(2)),
    ]) {
        to.copy_from_slice(&from.to_be_bytes());
    }
    let this = words.get(word::THIS_DISK..).unwrap_or_default();
    let state_of = |descriptor: &[u32]| descriptor.get(4).copied().unwrap_or(0);
    let role = role(this);
    let roles = words.get(word::DISKS..).unwrap_or_default();
    let roles = roles.chunks_exact(DESCRIPTOR).take(MAX_DISKS).map(self::role).collect();
    let mut features = Features(0);
    if at(word::STATE) & STATE_BITMAP != 0 {
        features.0 |= Features::BITMAP.0;
    }
    if minor == 91 {
        features.0 |= Features::RESHAPE.0;
    }
    // Active, but not in sync: recovery begins anew each time, as 0.90 cannot say how far it came.
    let is_recovering = matches!(role, Role::Active(_)) && state_of(this) & DISK_SYNC == 0;
    if is_recovering {
        features.0 |= Features::RECOVERY_OFFSET.0;
    }
    Some(Superblock {
        version: Version::V0_90 { is_big_endian },
        offset,
        array_uuid: Guid::from_bytes(uuid),
        device_uuid: None,
        name: None,
        level: i32::from_ne_bytes(at(word::LEVEL).to_ne_bytes()),
        layout: at(word::LAYOUT),
        chunk: at(word::CHUNK).into(),
        raid_disks: at(word::RAID_DISKS),
        device_number: this.first().copied().unwrap_or(u32::MAX),
        role,
        roles,
        data_offset: 0,
        data_size: offset,
        used_size: u64::from(at(word::SIZE)).saturating_mul(1024),
        events: long(word::EVENTS),
        creation_time: at(word::CTIME).into(),
        update_time: at(word::UTIME).into(),
        is_clean: at(word::STATE) & STATE_CLEAN != 0,
        features,
        reshape_position: (minor == 91).then(|| long(word::RESHAPE_POSITION).saturating_mul(512)),
        recovery_offset: is_recovering.then_some(0),
        journal_tail: None,
        bad_blocks: Vec::new(),
        refusal,
    })
}

/// What a descriptor says of its member: number, major, minor, role, state.
fn role(descriptor: &[u32]) -> Role {
    match descriptor.get(..5) {
        Some([.., state]) if state & DISK_FAULTY != 0 => Role::Faulty,
        Some([.., role, state]) if state & DISK_ACTIVE != 0 => Role::Active(*role),
        _ => Role::Spare,
    }
}

fn words(block: &[u8; LENGTH], is_big_endian: bool) -> Vec<u32> {
    block
        .chunks_exact(4)
        .map(|bytes| {
            let bytes = <[u8; 4]>::try_from(bytes).unwrap_or_default();
            if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        })
        .collect()
}

/// The sum of all words but the checksum itself, with its carries added once.
fn checksum(words: &[u32]) -> u32 {
    let sum = words
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != word::CHECKSUM)
        .fold(0_u64, |sum, (_, word)| sum.saturating_add((*word).into()));
    let low = u32::try_from(sum & 0xffff_ffff).unwrap_or(0);
    let high = u32::try_from(sum >> 32).unwrap_or(0);
    low.wrapping_add(high)
}
