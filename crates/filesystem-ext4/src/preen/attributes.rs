//! Extended attributes, in the inode and in a block: what the program thinks of them.
//!
//! Linux `Documentation/filesystems/ext4/attributes.rst`. Names and values may not lie over one another, and each
//! entry has a hash.

use std::collections::BTreeMap;

use ondisk::crc32c_raw;
use zerocopy::FromBytes;

use crate::units::to_usize;
use crate::xattr::RawEntry;

const ENTRY: usize = size_of::<RawEntry>();

/// Bytes of the head of a block of attributes.
const HEAD: usize = 32;

const MAGIC: u32 = 0xea02_0000;

/// The longest value.
const MAX_VALUE: u32 = 1 << 24;

/// `e_name_index` of what makes an encrypted file readable, and of content in the inode.
const ENCRYPTION: u8 = 9;
const SYSTEM: u8 = 7;

/// What comes of attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is wrong.
    Good(Found),
    /// All of them are removed, without asking.
    Removed,
    /// The program asks.
    ByHand(&'static str),
    /// Not known.
    Unknown(&'static str),
}

/// Attributes with a meaning to the passes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The file is encrypted.
    pub(super) has_encryption: bool,
    /// Length of the content behind the first 60 bytes.
    pub(super) inline_length: Option<u32>,
}

impl Found {
    fn note(&mut self, raw: &RawEntry, name: &[u8]) {
        match (raw.e_name_index, name) {
            (ENCRYPTION, b"c") => self.has_encryption = true,
            (SYSTEM, b"data") => self.inline_length = Some(raw.e_value_size.get()),
            _ => {}
        }
    }
}

/// Places within `0..end` that are taken.
struct Places {
    taken: BTreeMap<usize, usize>,
    end: usize,
}

impl Places {
    fn new(end: usize) -> Self {
        Self { taken: BTreeMap::new(), end }
    }

    /// Takes `length` bytes from `start`; returns whether they were free.
    fn take(&mut self, start: usize, length: usize) -> bool {
        let stop = start.saturating_add(length);
        let before = self.taken.range(..stop).next_back();
        if stop > self.end || length == 0 || before.is_some_and(|(_, end)| *end > start) {
            return false;
        }
        self.taken.insert(start, stop);
        true
    }
}

fn is_end(rest: &[u8]) -> bool {
    rest.first_chunk::<4>().is_none_or(|word| *word == [0; 4])
}

/// The attributes behind the fields of an inode; `area` begins with the magic number.
pub(super) fn judge_area(area: &[u8]) -> Outcome {
    const OVER: Outcome = Outcome::ByHand("its attributes lie over one another");
    let mut found = Found::default();
    let mut places = Places::new(area.len());
    if !places.take(0, 4) {
        return OVER;
    }
    let mut at = 4;
    let mut left = area.len().saturating_sub(4);
    loop {
        let rest = area.get(at..).unwrap_or_default();
        if left < ENTRY || is_end(rest) {
            return if places.take(at, 4) { Outcome::Good(found) } else { OVER };
        }
        let Ok((raw, _)) = RawEntry::read_from_prefix(rest) else { return OVER };
        let name_room = usize::from(raw.e_name_len).next_multiple_of(4);
        if !places.take(at, ENTRY.saturating_add(name_room)) {
            return OVER;
        }
        left = left.saturating_sub(ENTRY);
        if name_room > left {
            return Outcome::Removed;
        }
        left = left.saturating_sub(name_room);
        if raw.e_value_inum.get() != 0 {
            return Outcome::Unknown("a value of an attribute in an inode of its own");
        }
        let length = to_usize(raw.e_value_size.get());
        if length > left {
            return Outcome::Removed;
        }
        let value = usize::from(raw.e_value_offs.get()).saturating_add(4);
        let room = length.next_multiple_of(4);
        if length > 0 && !places.take(value, room) {
            return OVER;
        }
        let name = rest.get(ENTRY..ENTRY.saturating_add(raw.e_name_len.into())).unwrap_or_default();
        let words = area.get(value..value.saturating_add(room)).unwrap_or_default();
        if raw.e_hash.get() != 0 && !hashes(name, words).contains(&raw.e_hash.get()) {
            return Outcome::Removed;
        }
        found.note(&raw, name);
        left = left.saturating_sub(length);
        at = at.saturating_add(ENTRY).saturating_add(name_room);
    }
}

/// A block of attributes, number `number`; `seed` that of checksums, where there are any.
pub(super) fn judge_block(bytes: &[u8], number: u64, seed: Option<u32>) -> Outcome {
    const OVER: Outcome = Outcome::ByHand("the attributes in it lie over one another");
    let word = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    if word(0) != MAGIC {
        return Outcome::ByHand("it does not begin as one");
    }
    if word(8) != 1 {
        return Outcome::ByHand("it is said to have another number of blocks than 1");
    }
    let mut found = Found::default();
    let mut places = Places::new(bytes.len());
    if !places.take(0, HEAD) {
        return OVER;
    }
    let mut at = HEAD;
    while let rest = bytes.get(at..).unwrap_or_default()
        && !is_end(rest)
    {
        let Ok((raw, _)) = RawEntry::read_from_prefix(rest) else { return OVER };
        let room = ENTRY.saturating_add(usize::from(raw.e_name_len).next_multiple_of(4));
        if !places.take(at, room) {
            return OVER;
        }
        if raw.e_name_index == 0 {
            return Outcome::ByHand("a name in it has no prefix");
        }
        if raw.e_value_inum.get() != 0 {
            return Outcome::Unknown("a value of an attribute in an inode of its own");
        }
        let (value, length) = (usize::from(raw.e_value_offs.get()), to_usize(raw.e_value_size.get()));
        if raw.e_value_size.get() > MAX_VALUE || value.saturating_add(length) > bytes.len() {
            return Outcome::ByHand("a value in it ends outside");
        }
        let value_room = length.next_multiple_of(4);
        if length > 0 && !places.take(value, value_room) {
            return OVER;
        }
        let name = rest.get(ENTRY..ENTRY.saturating_add(raw.e_name_len.into())).unwrap_or_default();
        let words = bytes.get(value..value.saturating_add(value_room)).unwrap_or_default();
        if !hashes(name, words).contains(&raw.e_hash.get()) {
            return Outcome::Removed;
        }
        found.note(&raw, name);
        at = at.saturating_add(room);
    }
    if !places.take(at, 4) {
        return OVER;
    }
    if let Some(seed) = seed {
        let mut zeroed = bytes.to_vec();
        if let Some(field) = zeroed.get_mut(0x10..0x14) {
            field.fill(0);
        }
        if crc32c_raw(crc32c_raw(seed, &number.to_le_bytes()), &zeroed) != word(0x10) {
            return Outcome::ByHand("its checksum does not fit");
        }
    }
    Outcome::Good(found)
}

/// The hash of an entry, for characters without and with a sign.
fn hashes(name: &[u8], value: &[u8]) -> [u32; 2] {
    let unsigned = name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    let signed = name
        .iter()
        .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned());
    [unsigned, signed].map(|hash| {
        let words = value.chunks_exact(4).filter_map(|bytes| bytes.first_chunk::<4>());
        words.fold(hash, |hash, word| hash.rotate_left(16) ^ u32::from_le_bytes(*word))
    })
}
