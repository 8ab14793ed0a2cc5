//! The descriptor: the text that says which extents make up a disk, and what it was made from.
//!
//! VMware Virtual Disk Format 5.0, "The Descriptor File". Lines of `key=value`, comments, and extent lines; ends at
//! the first zero byte. QEMU skips extent lines that it does not know, which moves every later extent to a wrong
//! place; here such a line is an error, and any other line that is not understood is a problem.

use std::ops::Range;

use ondisk::{Corrupt, Error, Parsed, Result};

use crate::arithmetic::length_of;
use crate::open::printable;

/// Bound on the text in bytes; QEMU's too.
pub(super) const MAX_SIZE: u64 = 1 << 20;

/// Bound on extents: a disk of 16 TiB in pieces of 2 GiB. Each is an open file.
const MAX_EXTENTS: usize = 8192;

/// Bound on problems kept: one broken text must not fill memory with complaints.
const MAX_PROBLEMS: usize = 16;

/// `parentCID` of a disk that was made from nothing.
pub(super) const NO_PARENT: u32 = u32::MAX;

pub(super) const STRUCTURE: &str = "VMDK descriptor";

/// What the text says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) version: Option<u32>,
    pub(super) cid: Option<Cid>,
    pub(super) parent_cid: Option<u32>,
    pub(super) create_type: Option<String>,
    /// As stored, in `encoding`.
    pub(super) parent_name: Option<Vec<u8>>,
    pub(super) encoding: Option<String>,
    pub(super) change_tracking: Option<Vec<u8>>,
    pub(super) hardware_version: Option<String>,
    pub(super) adapter: Option<String>,
    /// Where the digits of `ddb.longContentID` are, in the file that holds the text.
    pub(super) long_content_id: Option<Range<u64>>,
    pub(super) extents: Vec<Extent>,
    /// First byte of the text in its file.
    pub(super) at: u64,
}

/// The content identifier: changes with the content, so that children notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cid {
    pub(super) value: u32,
    /// Where its digits are, in the file that holds the text.
    pub(super) digits: Range<u64>,
}

/// One line of the extent section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) access: Access,
    /// Length in sectors.
    pub(super) sectors: u64,
    pub(super) kind: Kind,
    /// As stored, in the descriptor's encoding; empty for zeros.
    pub(super) name: Vec<u8>,
    /// First sector within the file, for flat extents.
    pub(super) offset: u64,
    /// First byte of the line in the file that holds the text.
    pub(super) at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
    None,
}

/// What an extent's file is; which kind of sparse, its own header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// FLAT, VMFS: the bytes themselves.
    Flat,
    /// SPARSE, VMFSSPARSE, SESPARSE.
    Sparse,
    /// No file at all.
    Zero,
}

impl Descriptor {
    /// Reads `text`, which starts at byte `at` of its file.
    ///
    /// # Errors
    /// [`Corrupt`] for a line that describes an extent but cannot be understood; [`Error::Unsupported`] for an
    /// extent on a device.
    pub(super) fn parse(text: &[u8], at: u64) -> Result<Parsed<Self>> {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut descriptor = Self { at, ..Self::default() };
        let mut problems = Vec::new();
        let mut start = at;
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(problem) = descriptor.line(line, start)?.filter(|_| problems.len() < MAX_PROBLEMS) {
                problems.push(problem.into());
            }
            start = start.saturating_add(length_of(line)).saturating_add(1);
        }
        problems.extend(descriptor.missing().map(Error::from));
        Ok(Parsed { value: descriptor, problems })
    }

    /// Takes in one line; returns what is odd about it.
    fn line(&mut self, line: &[u8], at: u64) -> Result<Option<Corrupt>> {
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() || trimmed.starts_with(b"#") || trimmed == b"\xef\xbb\xbf" {
            return Ok(None);
        }
        if let Some(extent) = extent(trimmed, at)? {
            if self.extents.len() >= MAX_EXTENTS {
                return Err(Error::unsupported(STRUCTURE, format!("more than {MAX_EXTENTS} extents")));
            }
            self.extents.push(extent);
            return Ok(None);
        }
        let Some((key, value)) = split_at(trimmed, b'=') else {
            return Ok(Some(odd(at, "key=value, an extent or a comment", trimmed)));
        };
        // Both are parts of `line`, so their distance from its start is where they are.
        let digits = |value: &[u8]| {
            let within = position(line, value).unwrap_or(0);
            let start = at.saturating_add(within);
            start..start.saturating_add(length_of(value))
        };
        let value = unquoted(value.trim_ascii());
        let key = String::from_utf8_lossy(key.trim_ascii()).to_ascii_lowercase();
        Ok(self.set(&key, value, digits(value)).err().map(|expected| odd(at, expected, trimmed)))
    }

    /// Keeps the value of a known key; the first one counts. The error says what was expected.
    fn set(&mut self, key: &str, value: &[u8], place: Range<u64>) -> std::result::Result<(), &'static str> {
        let text = || printable(value);
        match key {
            "version" => once(&mut self.version, decimal(value), "a number"),
            "cid" => {
                let cid = hexadecimal(value).map(|value| Cid { value, digits: place });
                once(&mut self.cid, cid, "one CID of up to eight hexadecimal digits")
            }
            "parentcid" => {
                once(&mut self.parent_cid, hexadecimal(value), "one CID of up to eight hexadecimal digits")
            }
            "createtype" => once(&mut self.create_type, Some(text()), "one type"),
            "parentfilenamehint" => once(&mut self.parent_name, Some(value.to_vec()), "one name"),
            "encoding" => once(&mut self.encoding, Some(text()), "one encoding"),
            "changetrackpath" => once(&mut self.change_tracking, Some(value.to_vec()), "one file"),
            "ddb.virtualhwversion" => once(&mut self.hardware_version, Some(text()), "one version"),
            "ddb.adaptertype" => once(&mut self.adapter, Some(text()), "one adapter"),
            "ddb.longcontentid" => {
                let is_id = value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit);
                once(&mut self.long_content_id, is_id.then_some(place), "one ID of 32 hexadecimal digits")
            }
            _ => Ok(()),
        }
    }

    /// What every descriptor has.
    fn missing(&self) -> impl Iterator<Item = Corrupt> {
        let missing = |is_missing: bool, field| {
            is_missing.then(|| Corrupt::new(STRUCTURE, self.at, field, "one", "none"))
        };
        [
            missing(self.cid.is_none(), "CID"),
            missing(self.parent_cid.is_none(), "parentCID"),
            missing(self.create_type.is_none(), "createType"),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether it says that the disk was made from another.
    pub(super) fn has_parent(&self) -> bool {
        self.parent_name.is_some() || self.parent_cid.is_some_and(|cid| cid != NO_PARENT)
    }
}

/// Reads an extent line; `None` for what cannot be one.
fn extent(line: &[u8], at: u64) -> Result<Option<Extent>> {
    let mut rest = line;
    let [access, sectors, kind] = [(); 3].map(|()| word(&mut rest));
    let is_count = !sectors.is_empty() && sectors.iter().all(u8::is_ascii_digit);
    let access = match access.to_ascii_uppercase().as_slice() {
        b"RW" => Some(Access::ReadWrite),
        b"RDONLY" => Some(Access::ReadOnly),
        b"NOACCESS" => Some(Access::None),
        _ => None,
    };
    if access.is_none() && !(is_count && kind.first().is_some_and(u8::is_ascii_alphabetic)) {
        return Ok(None);
    }
    let corrupt = |field, expected| {
        Error::from(Corrupt::new(STRUCTURE, at, field, expected, format_args!("`{}`", printable(line))))
    };
    let access = access.ok_or_else(|| corrupt("access of an extent", "RW, RDONLY or NOACCESS"))?;
    let sectors = decimal::<u64>(sectors).filter(|sectors| *sectors < 1 << 54);
    let sectors = sectors.ok_or_else(|| corrupt("size of an extent", "a number of sectors"))?;
    let kind = match kind.to_ascii_uppercase().as_slice() {
        b"FLAT" | b"VMFS" => Kind::Flat,
        b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" => Kind::Sparse,
        b"ZERO" => {
            return Ok(Some(Extent { access, sectors, kind: Kind::Zero, name: Vec::new(), offset: 0, at }));
        }
        b"VMFSRDM" | b"VMFSRDMP" | b"VMFSRAW" => {
            return Err(Error::unsupported(
                STRUCTURE,
                format!("the extent on a device `{}`", printable(line)),
            ));
        }
        _ => return Err(corrupt("type of an extent", "FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE or SESPARSE")),
    };
    let name = rest.trim_ascii_start().strip_prefix(b"\"").and_then(|rest| split_at(rest, b'"'));
    let (name, mut rest) = name.ok_or_else(|| corrupt("name of an extent", "a name in quotes"))?;
    let offset = match word(&mut rest) {
        [] => 0,
        digits => decimal::<u64>(digits)
            .filter(|offset| *offset < 1 << 54)
            .ok_or_else(|| corrupt("offset of an extent", "a number of sectors"))?,
    };
    if kind == Kind::Sparse && offset != 0 {
        return Err(corrupt("offset of an extent", "none for a sparse extent"));
    }
    Ok(Some(Extent { access, sectors, kind, name: name.to_vec(), offset, at }))
}

/// Takes the next word off `line`.
fn word<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    let start = line.trim_ascii_start();
    let end = start.iter().position(u8::is_ascii_whitespace).unwrap_or(start.len());
    let (word, rest) = start.split_at_checked(end).unwrap_or((start, &[]));
    *line = rest;
    word
}

fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    let (before, after) = text.split_at_checked(at)?;
    Some((before, after.split_first()?.1))
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value.strip_prefix(b"\"") {
        Some(rest) => split_at(rest, b'"').map_or(rest, |(inner, _)| inner),
        None => value,
    }
}

/// Where `part`, which ends `whole` or is followed only by a quote, starts in it.
fn position(whole: &[u8], part: &[u8]) -> Option<u64> {
    let before_value = split_at(whole, b'=').map(|(key, _)| key.len().saturating_add(1))?;
    let value = whole.get(before_value..)?;
    let within = value.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != b'"')?;
    let start = before_value.checked_add(within)?;
    whole.get(start..)?.starts_with(part).then(|| u64::try_from(start).ok())?
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Sets `slot`, unless it is set or there is no value.
fn once<T>(
    slot: &mut Option<T>,
    value: Option<T>,
    expected: &'static str,
) -> std::result::Result<(), &'static str> {
    match value {
        Some(value) if slot.is_none() => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(expected),
    }
}

fn odd(at: u64, expected: &str, line: &[u8]) -> Corrupt {
    Corrupt::new(STRUCTURE, at, "line", expected, format_args!("`{}`", printable(line)))
}

/// Whether a file that starts like this is a descriptor, by the rule of QEMU (nothing but comments and blank
/// lines before a version) or by the title that all writers put first.
pub(super) fn looks_like_one(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    for line in start.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.eq_ignore_ascii_case(b"# Disk DescriptorFile") {
            return true;
        }
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let version =
            split_at(line, b'=').filter(|(key, _)| key.trim_ascii().eq_ignore_ascii_case(b"version"));
        return version.is_some_and(|(_, value)| matches!(value.trim_ascii(), [b'1'..=b'4']));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\r\nversion=1\r\nencoding=\"UTF-8\"\r\nCID=0badcafe\r\n\
        parentCID = ffffffff\r\ncreateType=\"custom\"\r\n\r\n# Extent description\r\n\
        RW 4192256 SPARSE \"a b-s001.vmdk\"\r\n  RDONLY 63 FLAT \"x.raw\" 100\r\nNOACCESS 5 ZERO\r\n\
        RW 8 VMFS \"y-flat.vmdk\"\r\n\r\n# The Disk Data Base\r\n#DDB\r\nddb.adapterType = \"lsilogic\"\r\n\
        ddb.virtualHWVersion = \"4\"\r\nddb.longContentID = \"00112233445566778899aabb0badcafe\"\r\n\
        ddb.unknown = \"7\"\r\n";

    fn parse(text: &str) -> Parsed<Descriptor> {
        Descriptor::parse(text.as_bytes(), 512).unwrap()
    }

    fn said(text: &str) -> String {
        Descriptor::parse(text.as_bytes(), 0).unwrap_err().to_string()
    }

    #[test]
    fn a_good_text() {
        let Parsed { value: found, problems } = parse(GOOD);
        assert!(problems.is_empty(), "{problems:?}");
        let cid = found.cid.unwrap();
        assert_eq!(cid.value, 0x0bad_cafe);
        let at = |range: &Range<u64>| &GOOD[range.start as usize - 512..range.end as usize - 512];
        assert_eq!(at(&cid.digits), "0badcafe");
        assert_eq!(at(&found.long_content_id.unwrap()), "00112233445566778899aabb0badcafe");
        assert_eq!(found.parent_cid, Some(NO_PARENT));
        assert_eq!(found.create_type.as_deref(), Some("custom"));
        assert_eq!(
            (found.adapter.as_deref(), found.hardware_version.as_deref()),
            (Some("lsilogic"), Some("4"))
        );
        let extents: Vec<_> = found
            .extents
            .iter()
            .map(|e| (e.access, e.sectors, e.kind, std::str::from_utf8(&e.name).unwrap(), e.offset))
            .collect();
        assert_eq!(
            extents,
            [
                (Access::ReadWrite, 4_192_256, Kind::Sparse, "a b-s001.vmdk", 0),
                (Access::ReadOnly, 63, Kind::Flat, "x.raw", 100),
                (Access::None, 5, Kind::Zero, "", 0),
                (Access::ReadWrite, 8, Kind::Flat, "y-flat.vmdk", 0),
            ]
        );
        assert!(looks_like_one(GOOD.as_bytes()));
    }

    #[test]
    fn every_line_that_could_be_an_extent_counts() {
        for (line, expected) in [
            ("RW 8 FLOT \"x\" 0", "type of an extent is `RW 8 FLOT \"x\" 0`, expected FLAT"),
            ("RO 8 FLAT \"x\" 0", "access of an extent"),
            ("RW x FLAT \"x\" 0", "size of an extent"),
            ("RW 99999999999999999999 FLAT \"x\" 0", "size of an extent"),
            ("RW 8 FLAT x 0", "name of an extent"),
            ("RW 8 FLAT \"x 0", "name of an extent"),
            ("RW 8 FLAT \"x\" -1", "offset of an extent"),
            ("RW 8 SPARSE \"x\" 1", "offset of an extent"),
            ("RW 8 VMFSRDM \"x\"", "the extent on a device `RW 8 VMFSRDM \"x\"` is not supported"),
        ] {
            let found = said(line);
            assert!(found.contains(expected), "{line}: {found}");
        }
        let many = "RW 1 ZERO\n".repeat(MAX_EXTENTS + 1);
        assert!(said(&many).contains("more than 8192 extents"));
    }

    #[test]
    fn what_else_is_odd_is_a_problem() {
        let cases = [
            ("CID=xyz", "line is `CID=xyz`, expected one CID"),
            ("CID=123456789", "line is `CID=123456789`"),
            ("CID=1\nCID=2", "line is `CID=2`"),
            ("nonsense", "expected key=value"),
            ("CID=1\nparentCID=2", "createType is none, expected one"),
        ];
        for (text, expected) in cases {
            let problems = parse(text).problems;
            assert!(problems.iter().any(|p| p.to_string().contains(expected)), "{text}: {problems:?}");
        }
        assert!(parse(&"?\n".repeat(100_000)).problems.len() < 20);
        // What follows a zero byte is not text.
        assert!(parse(&format!("{GOOD}\0RW 5 WHAT")).problems.is_empty());
    }

    #[test]
    fn probing() {
        for text in
            ["version=1\n", "\n  \n# x\nversion=3\r\n", "\u{feff}# disk descriptorfile\n", "Version = 4\n"]
        {
            assert!(looks_like_one(text.as_bytes()), "{text}");
        }
        for text in ["", "version=5\n", "x\n# Disk DescriptorFile\n", "# only comments\n", "version\n"] {
            assert!(!looks_like_one(text.as_bytes()), "{text}");
        }
    }
}
