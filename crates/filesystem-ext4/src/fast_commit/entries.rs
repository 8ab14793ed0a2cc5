//! Names put into a directory block, and taken out.

use std::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use crate::dir_block::{self, RawEntry, record_length};

/// Bytes that an entry with a name of this length needs.
fn needed(name_length: usize) -> usize {
    size_of::<RawEntry>().saturating_add(name_length).next_multiple_of(4)
}

/// The entries of a block that [`dir_block::decode`] has accepted, with where they lie.
fn places(bytes: &[u8]) -> Vec<(Range<usize>, RawEntry)> {
    let mut places = Vec::new();
    let mut at: usize = 0;
    while let Some(Ok((raw, _))) =
        bytes.get(at..).filter(|rest| !rest.is_empty()).map(RawEntry::read_from_prefix)
    {
        let end = at.saturating_add(record_length(raw.rec_len.get(), bytes.len()).max(8));
        places.push((at..end, raw));
        at = end;
    }
    places
}

/// Stores a length as blocks of 64 KiB need it.
fn stored_length(length: usize) -> u16 {
    // 65536 itself does not fit, and its stand-in is the largest number that does.
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Puts a name into a block without its tail; returns whether there was room.
pub(super) fn insert(bytes: &mut [u8], inode: u32, file_type: u8, name: &[u8]) -> bool {
    let wanted = needed(name.len());
    for (place, raw) in places(bytes) {
        let used = if raw.inode.get() == 0 { 0 } else { needed(raw.name_len.into()) };
        let Some(room) = place.len().checked_sub(used).filter(|room| *room >= wanted.max(12)) else {
            continue;
        };
        if used > 0 {
            put_length(bytes, place.start, used);
        }
        let start = place.start.saturating_add(used);
        let raw = RawEntry {
            inode: inode.into(),
            rec_len: stored_length(room).into(),
            name_len: u8::try_from(name.len()).unwrap_or(u8::MAX),
            file_type,
        };
        return put(bytes, start, &raw, name).is_some();
    }
    false
}

fn put(bytes: &mut [u8], at: usize, raw: &RawEntry, name: &[u8]) -> Option<()> {
    let (head, rest) = bytes.get_mut(at..)?.split_at_mut_checked(size_of::<RawEntry>())?;
    head.copy_from_slice(raw.as_bytes());
    rest.get_mut(..name.len())?.copy_from_slice(name);
    Some(())
}

fn put_length(bytes: &mut [u8], at: usize, length: usize) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(4..6)) {
        field.copy_from_slice(&stored_length(length).to_le_bytes());
    }
}

/// Takes a name out of a block without its tail; returns whether it was there.
pub(super) fn remove(bytes: &mut [u8], name: &[u8]) -> bool {
    let mut before: Option<Range<usize>> = None;
    for (place, raw) in places(bytes) {
        let found = bytes.get(place.start.saturating_add(size_of::<RawEntry>())..);
        let is_it = raw.inode.get() != 0
            && usize::from(raw.name_len) == name.len()
            && found.is_some_and(|found| found.starts_with(name));
        if !is_it {
            before = Some(place);
            continue;
        }
        match before {
            Some(before) => put_length(bytes, before.start, place.end.saturating_sub(before.start)),
            None => {
                if let Some(field) = bytes.get_mut(place.start..).and_then(|rest| rest.get_mut(..4)) {
                    field.copy_from_slice(&[0; 4]);
                }
            }
        }
        return true;
    }
    false
}

/// The bytes of a block with nothing in it, without its tail.
pub(super) fn empty(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    put_length(&mut bytes, 0, length);
    bytes
}

/// Makes room for a tail in a block whose last entry reaches to its end, as those of an index do: of the first
/// one only `.` and `..` stay, of others nothing.
pub(super) fn unindexed(bytes: &[u8], length: usize, number: u64) -> Vec<u8> {
    let mut plain = empty(length);
    if number == 0 {
        // `.` and `..` lie in the first 24 bytes.
        if let (Some(to), Some(from)) = (plain.get_mut(..24), bytes.get(..24)) {
            to.copy_from_slice(from);
        }
        put_length(&mut plain, 12, length.saturating_sub(12));
    }
    plain
}

/// The first block of a new directory, without its tail.
pub(super) fn first_block(length: usize, own: u32, parent: u32, file_type: u8) -> Vec<u8> {
    let mut bytes = empty(length);
    insert(&mut bytes, own, file_type, b".");
    insert(&mut bytes, parent, file_type, b"..");
    bytes
}

/// The whole block: `bytes`, and a tail if there is room for one.
pub(super) fn with_tail(mut bytes: Vec<u8>, seed: Option<u32>) -> Vec<u8> {
    if let Some(seed) = seed {
        bytes.extend(dir_block::tail(&bytes, seed));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: dir_block::Rules = dir_block::Rules { inodes: 100, is_encrypted: false };

    fn names(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let entries = dir_block::decode(bytes, 0, RULES).unwrap();
        entries.iter().map(|entry| (entry.inode, entry.name.to_vec())).collect()
    }

    #[test]
    fn names_come_and_go() {
        let mut block = first_block(1012, 11, 2, 2);
        let mut put = 0;
        while insert(&mut block, 20 + put, 1, format!("name-{put}").as_bytes()) {
            put += 1;
        }
        // 12 bytes for each of the first two, 16 for every other.
        assert_eq!(put, (1012 - 24) / 16);
        assert_eq!(names(&block).len(), 2 + put as usize);
        assert!(remove(&mut block, b"name-5") && !remove(&mut block, b"name-5"));
        assert!(remove(&mut block, b".") && remove(&mut block, b"name-60"));
        assert_eq!(names(&block).len(), put as usize - 1);
        assert_eq!(names(&block)[0], (2, b"..".to_vec()));
        assert!(insert(&mut block, 99, 1, b"in the hole"));
        assert_eq!(names(&block)[5], (24, b"name-4".to_vec()));
        assert!(names(&block).contains(&(99, b"in the hole".to_vec())));
    }

    #[test]
    fn an_index_becomes_plain() {
        let root = first_block(1024, 11, 2, 2);
        let plain = unindexed(&root, 1012, 0);
        assert_eq!(names(&plain), [(11, b".".to_vec()), (2, b"..".to_vec())]);
        assert_eq!(names(&unindexed(&empty(1024), 1012, 3)), []);
    }

    #[test]
    fn the_longest_block() {
        let mut block = empty(65536);
        assert!(insert(&mut block, 5, 1, b"x"));
        assert_eq!(names(&block), [(5, b"x".to_vec())]);
    }
}
