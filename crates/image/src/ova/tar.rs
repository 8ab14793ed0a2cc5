//! Tar headers: where the members of an archive are.
//!
//! POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's long names and base-256 numbers.
//! A header fills a sector of 512 bytes and precedes its member; numbers are octal text.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::arithmetic::round_up;
use crate::open::printable;

/// Bytes in a block.
const BLOCK: u64 = 512;

/// Bound on headers; appliances have a dozen members.
const MAX_HEADERS: usize = 4096;

/// Bound on extended headers and long names in bytes.
const MAX_EXTENDED: u64 = 1 << 20;

const STRUCTURE: &str = "tar header";

/// A header as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) name: [u8; 100],   // 0x000
    pub(super) mode: [u8; 24],    // 0x064 mode, uid, gid
    pub(super) size: [u8; 12],    // 0x07c octal bytes, or base 256
    pub(super) mtime: [u8; 12],   // 0x088
    pub(super) checksum: [u8; 8], // 0x094 octal sum of all bytes, with spaces here
    pub(super) kind: u8,          // 0x09c
    pub(super) link: [u8; 100],   // 0x09d
    pub(super) magic: [u8; 5],    // 0x101 "ustar"
    pub(super) version: [u8; 3],  // 0x106 NUL "00", or GNU's two spaces and NUL
    pub(super) owner: [u8; 80],   // 0x109 names of user and group, device numbers
    pub(super) prefix: [u8; 155], // 0x159 goes before the name, unless GNU wrote the archive
    pub(super) padding: [u8; 12], // 0x1f4
}
const _: () = assert!(size_of::<RawHeader>() == 512);

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Without a leading `./`.
    pub(super) name: String,
    /// First byte in the archive.
    pub(super) offset: u64,
    /// Length in bytes, as far as the archive has it.
    pub(super) length: u64,
    /// GNU's sparse files have their own map before the data.
    pub(super) is_sparse: bool,
}

impl RawHeader {
    /// Whether the sum of the bytes is the one that the header states.
    pub(super) fn is_valid(&self) -> bool {
        let bytes = self.as_bytes().iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let stored = self.checksum.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let sum = bytes.saturating_sub(stored).saturating_add(8 * 0x20);
        self.magic == *b"ustar" && number(&self.checksum) == Some(sum)
    }

    /// The name within this header alone.
    pub(super) fn own_name(&self) -> Vec<u8> {
        let is_gnu = self.version.first() == Some(&b' ');
        let prefix = if is_gnu { &[] } else { text(&self.prefix) };
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(&self.name));
        name
    }

    /// Length of what follows, in bytes.
    pub(super) fn length(&self) -> Option<u64> {
        number(&self.size)
    }

    /// Whether this is the header of a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, b'0' | 0 | b'7')
    }
}

/// What the headers before a file say of it.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    length: Option<u64>,
    is_sparse: bool,
}

/// Reads all headers of `file`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`] for an archive with very many members. Damage ends the walk and is a
/// problem: what was found before it stays.
pub(super) fn read(file: &dyn BlockDevice) -> Result<Parsed<Vec<Entry>>> {
    let size = file.size();
    let mut entries: Vec<Entry> = Vec::new();
    let mut problems: Vec<Error> = Vec::new();
    let mut extended = Extended::default();
    let mut at = 0_u64;
    let mut headers = 0_usize;
    while at.saturating_add(BLOCK) <= size {
        let header: RawHeader = read_value(file, at)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(Parsed { value: entries, problems });
        }
        headers = headers.saturating_add(1);
        if headers > MAX_HEADERS {
            return Err(Error::unsupported("tar archive", format!("more than {MAX_HEADERS} members")));
        }
        let length = header.length().filter(|_| header.is_valid());
        let Some(stated) = length else {
            problems.push(Corrupt::new(STRUCTURE, at, "checksum", "that of the header", "another").into());
            return Ok(Parsed { value: entries, problems });
        };
        let offset = at.saturating_add(BLOCK);
        let length = if header.is_file() { extended.length.unwrap_or(stated) } else { stated };
        let available = size.saturating_sub(offset);
        match header.kind {
            b'x' | b'L' => {
                let length = usize::try_from(length.min(MAX_EXTENDED).min(available)).unwrap_or(0);
                let data = read_bytes(file, offset, length)?;
                if header.kind == b'L' {
                    extended.name = Some(text(&data).to_vec());
                } else {
                    extended.take_in(&data);
                }
            }
            b'0' | 0 | b'7' | b'S' => {
                if length > available {
                    let expected = format!("at most {available} bytes before the end of the file");
                    problems.push(Corrupt::new(STRUCTURE, at, "size", expected, length).into());
                }
                let Extended { name, is_sparse, .. } = std::mem::take(&mut extended);
                let name = normal(&name.unwrap_or_else(|| header.own_name()));
                if entries.iter().any(|entry| entry.name == name) {
                    let found = format!("{name}, which is there twice");
                    problems.push(Corrupt::new(STRUCTURE, at, "name", "each name once", found).into());
                }
                let is_sparse = is_sparse || header.kind == b'S';
                entries.push(Entry { name, offset, length: length.min(available), is_sparse });
            }
            // Folders, links, devices, and what a later standard adds.
            _ => {}
        }
        if header.kind == b'g' || header.kind == b'K' {
            // Says nothing of the next file that matters here, and leaves what was said.
        } else if !matches!(header.kind, b'x' | b'L') {
            extended = Extended::default();
        }
        at = round_up(offset.saturating_add(length), BLOCK);
    }
    let found = format!("the end of the file at {size}");
    problems.push(Corrupt::new("tar archive", at.min(size), "end", "two empty blocks", found).into());
    Ok(Parsed { value: entries, problems })
}

impl Extended {
    /// Takes in records of `length key=value\n`.
    fn take_in(&mut self, data: &[u8]) {
        let mut rest = data;
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length =
                rest.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let Some(length) = length.filter(|length| *length > space) else { return };
            let Some((record, after)) = rest.split_at_checked(length) else { return };
            rest = after;
            let record = record.get(space.saturating_add(1)..).unwrap_or_default();
            let record = record.strip_suffix(b"\n").unwrap_or(record);
            let Some(equals) = record.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => {
                    self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                }
                _ if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
                _ => {}
            }
        }
    }
}

/// A name as members are compared by, fit for a terminal.
pub(super) fn normal(name: &[u8]) -> String {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    printable(name)
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between spaces and NULs, or GNU's base 256 behind a set highest bit.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut value = u64::from(first & 0x7f);
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value).filter(|_| *first & 0x40 == 0);
    }
    let digits = text(field).trim_ascii();
    let is_octal = !digits.is_empty() && digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    is_octal.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"00000001750\0"), Some(1000));
        assert_eq!(number(b"   1750 \0"), Some(1000));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        for bad in [&b"\0"[..], b"", b"9", b"-1", b"77777777777777777777777777"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn extended_headers() {
        let mut extended = Extended::default();
        extended.take_in(b"14 path=a/b.x\n19 size=8589934592\n6 q=\n");
        assert_eq!((extended.name.as_deref(), extended.length), (Some(&b"a/b.x"[..]), Some(1 << 33)));
        for broken in [&b"0 path=a\n"[..], b"99 path=a\n", b"x path=a\n", b"5", b"2 "] {
            let mut extended = Extended::default();
            extended.take_in(broken);
            assert_eq!(extended.name, None, "{broken:?}");
        }
    }
}
