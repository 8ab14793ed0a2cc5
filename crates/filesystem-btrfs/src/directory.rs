//! Directory items: names, and what they lead to; extended attributes are stored likewise.
//!
//! On-disk format documentation, "Directory items"; `struct btrfs_dir_item`. Little-endian. An entry is there
//! twice: by the hash of its name (`DIR_ITEM`, for lookups) and by its number (`DIR_INDEX`, for listings).

use filesystem::FileKind;
use ondisk::{Corrupt, Result, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::key::{Key, RawKey};
use crate::node::Item;
use crate::number::wide;

const STRUCTURE: &str = "directory item";

/// The longest name there is.
const MAX_NAME: usize = 255;

/// An entry as stored; the name follows, then the value of an attribute.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    location: RawKey,  // 0x00 an inode item or a root item
    transid: le::U64,  // 0x11
    data_len: le::U16, // 0x19
    name_len: le::U16, // 0x1b
    kind: u8,          // 0x1d
}
const _: () = assert!(size_of::<RawEntry>() == 30);

/// `BTRFS_FT_XATTR`.
pub(crate) const XATTR: u8 = 8;

/// An entry of a directory, or an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) location: Key,
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl Entry<'_> {
    /// The kind of file that it says it names.
    pub(crate) fn file_kind(&self) -> FileKind {
        match self.kind {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::CharDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Fifo,
            6 => FileKind::Socket,
            7 => FileKind::Symlink,
            _ => FileKind::Unknown,
        }
    }
}

/// The hash that `DIR_ITEM` and `XATTR_ITEM` are keyed by.
pub(crate) fn name_hash(name: &[u8]) -> u64 {
    crc32c_raw(!1, name).into()
}

/// All entries of one item: several only where names have the same hash.
pub(crate) fn entries<'a>(item: &Item<'a>) -> Result<Vec<Entry<'a>>> {
    let mut found = Vec::new();
    let mut rest = item.data;
    while !rest.is_empty() {
        let at = item.at.saturating_add(wide(item.data.len().saturating_sub(rest.len())));
        let corrupt =
            |field, expected: &str, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
        let (raw, tail) = RawEntry::ref_from_prefix(rest)
            .map_err(|_| corrupt("size", "at least 30 bytes", rest.len().to_string()))?;
        let (name_len, data_len) = (usize::from(raw.name_len.get()), usize::from(raw.data_len.get()));
        let short = |length: usize| corrupt("length", "within the item", length.to_string());
        let (name, tail) = tail.split_at_checked(name_len).ok_or_else(|| short(name_len))?;
        let (data, tail) = tail.split_at_checked(data_len).ok_or_else(|| short(data_len))?;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(corrupt("name_len", "1..=255", name_len.to_string()).into());
        }
        // A name that no path can hold must not reach anyone who builds paths.
        let is_path = name.iter().any(|byte| matches!(byte, 0 | b'/')) || matches!(name, b"." | b"..");
        if raw.kind != XATTR && is_path {
            let expected = "bytes other than NUL and '/', not . or ..";
            return Err(corrupt("name", expected, name.escape_ascii().to_string()).into());
        }
        found.push(Entry { location: (&raw.location).into(), kind: raw.kind, name, data });
        rest = tail;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], data: &[u8], kind: u8) -> Vec<u8> {
        let raw = RawEntry {
            location: RawKey { objectid: 257.into(), kind: 1, offset: 0.into() },
            transid: 7.into(),
            data_len: (data.len() as u16).into(),
            name_len: (name.len() as u16).into(),
            kind,
        };
        [raw.as_bytes(), name, data].concat()
    }

    fn decode(data: &[u8]) -> Result<Vec<String>> {
        let item = Item { key: Key::new(256, 84, 0), data, at: 100 };
        Ok(entries(&item)?.iter().map(|entry| entry.name.escape_ascii().to_string()).collect())
    }

    #[test]
    fn several_in_one_item() {
        let bytes = [entry(b"one", b"", 1), entry(b"user.x/y", b"value", XATTR)].concat();
        assert_eq!(decode(&bytes).unwrap(), ["one", "user.x/y"]);
        // As btrfs-progs print it for the default subvolume.
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }

    #[test]
    fn damage_is_named() {
        let text = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        let good = entry(b"one", b"", 1);
        assert_eq!(text(&good[..20]), "directory item at byte 100: size is 20, expected at least 30 bytes");
        assert_eq!(text(&good[..32]), "directory item at byte 100: length is 3, expected within the item");
        assert!(text(&entry(b"", b"", 1)).contains("name_len is 0"));
        assert!(text(&[good, entry(b"a/b", b"", 1)].concat()).contains("at byte 133: name is a/b"));
        assert!(text(&entry(b"..", b"", 2)).contains("name is .."));
    }
}
