//! VHD parent names: how a differencing disk says which file it stands on.
//!
//! Specification, "Parent Locator" and "Parent Unicode Name". The names are of Windows and of the Macintosh,
//! most often with a path that does not exist here, so after each name the file of that name beside the image is
//! tried. `W2ru` and `W2ku` are UTF-16, little-endian in every image that was seen, though the specification
//! does not say so; the name in the header is big-endian; `MacX` is a URL of a file in UTF-8.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, read_bytes};

use super::header::{Header, RawLocator};
use crate::arithmetic::length_of;
use crate::blocks::SECTOR;

const STRUCTURE: &str = "VHD parent locator";

/// More bytes than any path has.
const MAX_LENGTH: u32 = 64 << 10;

/// What a differencing disk says of its parent's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// In the order in which they are to be tried, as paths of this host.
    pub(super) names: Vec<Vec<u8>>,
    /// Parts of the file that hold them.
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) problems: Vec<Corrupt>,
}

/// Reads all names: relative ones first, then absolute ones, then the one in the header.
pub(super) fn read_names(device: &dyn BlockDevice, header: &Header) -> Names {
    let mut found = Names::default();
    let mut relative = Vec::new();
    let mut absolute = Vec::new();
    for (locator, number) in header.raw.parent_locators.iter().zip(0_u64..) {
        let at = header.at.saturating_add(0x240).saturating_add(number.saturating_mul(24));
        match read_locator(device, locator, at) {
            Ok(Some(Name { bytes, range })) => {
                found.ranges.push(range);
                match &locator.platform_code {
                    b"W2ru" => relative.push(from_utf16(&bytes, u16::from_le_bytes)),
                    b"W2ku" => absolute.push(from_utf16(&bytes, u16::from_le_bytes)),
                    b"MacX" => absolute.push(from_url(&bytes)),
                    // Windows code pages and Macintosh aliases: always beside one of the others.
                    _ => {}
                }
            }
            Ok(None) => {}
            Err(problem) => found.problems.push(problem),
        }
    }
    let in_header = from_utf16(&header.raw.parent_unicode_name, u16::from_be_bytes);
    for name in relative.iter().chain(&absolute).chain([&in_header]) {
        for path in host_paths(name) {
            if !found.names.contains(&path) {
                found.names.push(path);
            }
        }
    }
    found
}

/// A name as stored.
struct Name {
    bytes: Vec<u8>,
    /// The sectors that hold it.
    range: Range<u64>,
}

/// The name of one locator; `None` for an unused one.
fn read_locator(device: &dyn BlockDevice, locator: &RawLocator, at: u64) -> Result<Option<Name>, Corrupt> {
    let length = locator.platform_data_length.get();
    if locator.platform_code == [0; 4] || length == 0 {
        return Ok(None);
    }
    if length > MAX_LENGTH {
        let expected = format!("at most {MAX_LENGTH}");
        return Err(Corrupt::new(STRUCTURE, at, "platform_data_length", expected, length));
    }
    let start = locator.platform_data_offset.get();
    let outside = |_| {
        let expected = format!("{length} bytes within the file of {}", device.size());
        Corrupt::new(STRUCTURE, at, "platform_data_offset", expected, start)
    };
    let bytes = read_bytes(device, start, usize::try_from(length).unwrap_or(0)).map_err(outside)?;
    let end = start.saturating_add(length_of(&bytes)).next_multiple_of(SECTOR);
    Ok(Some(Name { bytes, range: start..end }))
}

/// Text up to the first zero.
fn from_utf16(bytes: &[u8], decode: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| decode(*unit));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

/// The path of a `file://` URL, with `%20` and the like decoded.
fn from_url(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_prefix(b"file://").unwrap_or(text);
    let text = text.strip_prefix(b"localhost").unwrap_or(text);
    let mut path = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<2>().filter(|_| *first == b'%');
        let decoded = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        path.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&path).into_owned()
}

/// Where the file of this name may be: where the name says, unless it is a place of Windows, and beside the image.
fn host_paths(name: &str) -> Vec<Vec<u8>> {
    let path = name.replace('\\', "/");
    let file = path.rsplit(['/', ':']).next().unwrap_or_default();
    if file.is_empty() || file == "." || file == ".." {
        return Vec::new();
    }
    let is_of_windows = path.starts_with("//") || path.contains(':');
    let mut paths = Vec::new();
    if !is_of_windows {
        paths.push(path.clone().into_bytes());
    }
    if path.contains(['/', ':']) && path.strip_prefix("./") != Some(file) {
        paths.push(file.to_owned().into_bytes());
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_this_host() {
        let check = |name: &str, expected: &[&str]| {
            let paths: Vec<String> =
                host_paths(name).into_iter().map(|path| String::from_utf8(path).unwrap()).collect();
            assert_eq!(paths, expected, "{name}");
        };
        check(".\\base.vhd", &["./base.vhd"]);
        check("..\\older\\base.vhd", &["../older/base.vhd", "base.vhd"]);
        check("C:\\disks\\base.vhd", &["base.vhd"]);
        check("\\\\server\\share\\base.vhd", &["base.vhd"]);
        check("/srv/disks/base.vhd", &["/srv/disks/base.vhd", "base.vhd"]);
        check("base.vhd", &["base.vhd"]);
        check("C:base.vhd", &["base.vhd"]);
        check("C:\\", &[]);
        check("..", &[]);
        check("", &[]);
    }

    #[test]
    fn text() {
        let little: Vec<u8> = "base\u{e9}.vhd\0rest".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(from_utf16(&little, u16::from_le_bytes), "base\u{e9}.vhd");
        assert_eq!(from_utf16(&[0xd8, 0, 0, 0x41, 0x41], u16::from_be_bytes), "\u{fffd}A");
        assert_eq!(from_url(b"file:///disks/my%20base.vhd\0"), "/disks/my base.vhd");
        assert_eq!(from_url(b"file://localhost/a%zz%4"), "/a%zz%4");
        assert_eq!(from_url(b"file://./base.vhd"), "./base.vhd");
    }
}
