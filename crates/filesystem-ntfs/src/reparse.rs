//! Reparse points: symlinks, junctions, and files whose content is elsewhere.
//!
//! [MS-FSCC] §2.1.2. Little-endian.

use filesystem::FileKind;
use ondisk::{Corrupt, Error};

use crate::name;
use crate::span::{Checked, Span};

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMLINK: u32 = 0xa000_000c;
const LX_SYMLINK: u32 = 0xa000_001d;
const RELATIVE: u32 = 1;

/// What a reparse point says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reparse {
    /// The target of a symlink or a junction, in the form that [`target`] makes.
    Link(Vec<u8>),
    /// A link to another volume, by its target as stored.
    Away(Vec<u8>),
    /// A Unix special file.
    Special(FileKind),
    /// Something else, by its tag.
    Other(u32),
}

impl Reparse {
    /// Judges the value of a `$REPARSE_POINT`.
    pub(crate) fn decode(span: &Span<'_>) -> Checked<Self> {
        let tag = span.u32(0, "tag")?;
        let length = span.length16(4, "data_length")?;
        let data = Span { bytes: span.slice(8, length, "data_length")?, ..*span };
        let path = |base: usize| -> Checked<&[u8]> {
            let at = base.saturating_add(data.length16(0, "substitute_name_offset")?);
            data.slice(at, data.length16(2, "substitute_name_length")?, "substitute_name_length")
        };
        Ok(match tag {
            MOUNT_POINT => full(path(8)?),
            SYMLINK if data.u32(8, "flags")? & RELATIVE == 0 => full(path(12)?),
            SYMLINK => Self::Link(slashes(name::to_bytes(path(12)?))),
            // A version, then UTF-8.
            LX_SYMLINK => {
                Self::Link(data.slice(4, data.bytes.len().saturating_sub(4), "data_length")?.to_vec())
            }
            0x8000_0023 => Self::Special(FileKind::Socket),
            0x8000_0024 => Self::Special(FileKind::Fifo),
            0x8000_0025 => Self::Special(FileKind::CharDevice),
            0x8000_0026 => Self::Special(FileKind::BlockDevice),
            other => Self::Other(other),
        })
    }

    /// The target of a link.
    pub(crate) fn target(&self, offset: u64) -> Result<Vec<u8>, Error> {
        match self {
            Self::Link(target) => Ok(target.clone()),
            Self::Away(target) => {
                let target = String::from_utf8_lossy(target);
                Err(Error::unavailable("symlink", format!("its target {target} is on another volume")))
            }
            Self::Special(_) | Self::Other(_) => {
                Err(Corrupt::new("$REPARSE_POINT", offset, "tag", "a symlink", self.name()).into())
            }
        }
    }

    /// What it is, for messages.
    pub(crate) fn name(&self) -> String {
        let Self::Other(tag) = self else { return "a link".into() };
        let known = match tag {
            0x8000_0017 => "system compression (WOF)",
            0x8000_0013 => "deduplication",
            0x8000_0008 => "a file of a mounted WIM",
            0x8000_0018 | 0x9000_1018 => "a file of a container's layer (WCI)",
            0x8000_0014 => "a file of the NFS server",
            0x8000_001b => "an application's link (AppExecLink)",
            0x9000_001c => "a projected file system's file",
            0xc000_0004 | 0x8000_0006 => "hierarchical storage",
            _ if tag & 0xffff_0fff == 0x9000_001a => "a file in the cloud (OneDrive)",
            _ => return format!("reparse tag {tag:#010x}"),
        };
        format!("{known}, reparse tag {tag:#010x}")
    }
}

/// A target that starts at `\??\`: `C:\folder` is taken to be on this volume, as `/folder`.
fn full(stored: &[u8]) -> Reparse {
    let target = slashes(name::to_bytes(stored));
    let path = target.strip_prefix(b"/??/").or_else(|| target.strip_prefix(b"//?/")).unwrap_or(&target);
    match path {
        [letter, b':', b'/', rest @ ..] if letter.is_ascii_alphabetic() => {
            Reparse::Link([b"/", rest.strip_suffix(b"/").unwrap_or(rest)].concat())
        }
        [letter, b':'] if letter.is_ascii_alphabetic() => Reparse::Link(b"/".to_vec()),
        _ if path.starts_with(b"Volume{") || target.starts_with(b"//") || path.len() != target.len() => {
            Reparse::Away(name::to_bytes(stored))
        }
        _ => Reparse::Link(target),
    }
}

fn slashes(mut path: Vec<u8>) -> Vec<u8> {
    for byte in path.iter_mut().filter(|byte| **byte == b'\\') {
        *byte = b'/';
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symlink(target: &str, flags: u32) -> Vec<u8> {
        let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = name.len() as u16;
        let mut value = SYMLINK.to_le_bytes().to_vec();
        for field in [length + 12, 0, 0, length, 0, 0] {
            value.extend(field.to_le_bytes());
        }
        value.extend(flags.to_le_bytes());
        value.extend(name);
        value
    }

    fn decode(value: &[u8]) -> Checked<Reparse> {
        Reparse::decode(&Span::new("$REPARSE_POINT", 0, value))
    }

    #[test]
    fn targets() {
        for (stored, flags, expected) in [
            (r"..\some\where", 1, "../some/where"),
            (r"\Windows", 1, "/Windows"),
            (r"\??\C:\Users\Public", 0, "/Users/Public"),
            (r"\??\d:\", 0, "/"),
            (r"\??\C:\Program Files\", 0, "/Program Files"),
        ] {
            assert_eq!(decode(&symlink(stored, flags)).unwrap(), Reparse::Link(expected.into()), "{stored}");
        }
        for stored in [r"\??\Volume{0123}\x", r"\??\UNC\server\share", r"\\server\share"] {
            let found = decode(&symlink(stored, 0)).unwrap();
            assert_eq!(found, Reparse::Away(stored.into()));
            assert!(found.target(0).unwrap_err().to_string().contains(stored));
        }
    }

    #[test]
    fn other_tags_and_damage() {
        let mut value = symlink("x", 1);
        value[4] = 200;
        assert_eq!(decode(&value).unwrap_err().field, "data_length");
        let mut value = symlink("x", 1);
        value[10] = 9;
        assert_eq!(decode(&value).unwrap_err().field, "substitute_name_length");
        let name = |tag: u32| decode(&[tag.to_le_bytes(), [0; 4]].concat()).unwrap().name();
        assert!(name(0x8000_0017).contains("WOF"));
        assert!(name(0x9000_601a).contains("OneDrive"));
        assert_eq!(name(0x1234), "reparse tag 0x00001234");
    }
}
