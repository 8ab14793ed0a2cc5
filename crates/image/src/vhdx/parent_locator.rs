//! VHDX parent locator: how a differencing file names the file below it.
//!
//! MS-VHDX §2.6.2.6. A table of keys and values, UTF-16, little-endian, at any byte of the metadata item.
//! Paths are those of Windows.

use ondisk::{Corrupt, Error, Guid, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::guid::{parse, stored};

const STRUCTURE: &str = "VHDX parent locator";

/// B04AEFB7-D19E-4A81-B789-25B8E9445913: the parent is a VHDX file.
const VHDX: Guid =
    Guid([0xb0, 0x4a, 0xef, 0xb7, 0xd1, 0x9e, 0x4a, 0x81, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13]);

/// What a locator starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLocator {
    /// 0x00 what the parent is.
    locator_type: [u8; 16],
    /// 0x10 0.
    reserved: le::U16,
    /// 0x12 pairs that follow.
    key_value_count: le::U16,
}
const _: () = assert!(size_of::<RawLocator>() == 20);

/// One key and its value.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPair {
    /// 0x00 from the start of the item.
    key_offset: le::U32,
    /// 0x04 from the start of the item.
    value_offset: le::U32,
    /// 0x08 bytes.
    key_length: le::U16,
    /// 0x0a bytes.
    value_length: le::U16,
}
const _: () = assert!(size_of::<RawPair>() == 12);

/// The values of the known keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ParentLocator {
    pub(super) linkage: Option<String>,
    pub(super) linkage2: Option<String>,
    pub(super) relative_path: Option<String>,
    pub(super) volume_path: Option<String>,
    pub(super) absolute_win32_path: Option<String>,
}

impl ParentLocator {
    /// Judges the item that starts at byte `at` of the file. Unknown keys are ignored.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
        let (raw, pairs) = RawLocator::read_from_prefix(bytes)
            .map_err(|_| corrupt("length", "at least 20 bytes", bytes.len().to_string()))?;
        let locator_type = Guid::from_mixed_endian(raw.locator_type);
        if locator_type != VHDX {
            return Err(Error::unsupported(STRUCTURE, format!("the locator type {locator_type}")));
        }
        let pairs = pairs.as_chunks::<12>().0;
        let count = usize::from(raw.key_value_count.get());
        if count > pairs.len() {
            return Err(corrupt("KeyValueCount", "pairs that fit into the item", count.to_string()).into());
        }
        let mut locator = Self::default();
        for pair in pairs.iter().take(count) {
            let pair: RawPair = zerocopy::transmute!(*pair);
            let part = |field, offset: u32, length: u16| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = bytes.get(start..).and_then(|rest| rest.get(..usize::from(length)));
                bytes.ok_or_else(|| {
                    corrupt(field, "text within the item", format!("{length} bytes at {offset}"))
                })
            };
            let key = part("KeyOffset", pair.key_offset.get(), pair.key_length.get())?;
            let value = part("ValueOffset", pair.value_offset.get(), pair.value_length.get())?;
            let Some((name, slot)) = locator.slot(key) else { continue };
            if slot.replace(text(value)).is_some() {
                return Err(corrupt("Key", "each only once", format!("`{name}` twice")).into());
            }
        }
        Ok(locator)
    }

    /// Where the value of this key is kept, and how the key is written.
    fn slot(&mut self, key: &[u8]) -> Option<(&'static str, &mut Option<String>)> {
        let is = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).eq(key.iter().copied());
        let slots = [
            ("parent_linkage", &mut self.linkage),
            ("parent_linkage2", &mut self.linkage2),
            ("relative_path", &mut self.relative_path),
            ("volume_path", &mut self.volume_path),
            ("absolute_win32_path", &mut self.absolute_win32_path),
        ];
        slots.into_iter().find(|(name, _)| is(name))
    }

    /// The item that holds these values.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut known = self.clone();
        let all =
            ["parent_linkage", "parent_linkage2", "relative_path", "volume_path", "absolute_win32_path"];
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = all
            .iter()
            .filter_map(|name| {
                let key: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
                let value = known.slot(&key)?.1.take()?;
                Some((key, value.encode_utf16().flat_map(u16::to_le_bytes).collect()))
            })
            .collect();
        let raw = RawLocator {
            locator_type: stored(VHDX),
            reserved: 0.into(),
            key_value_count: u16::try_from(pairs.len()).unwrap_or(u16::MAX).into(),
        };
        let mut table = raw.as_bytes().to_vec();
        let mut texts: Vec<u8> = Vec::new();
        let first = table.len().saturating_add(pairs.len().saturating_mul(12));
        for (key, value) in &pairs {
            let place = |texts: &mut Vec<u8>, bytes: &[u8]| {
                let offset = u32::try_from(first.saturating_add(texts.len())).unwrap_or(u32::MAX);
                texts.extend_from_slice(bytes);
                (offset.into(), u16::try_from(bytes.len()).unwrap_or(u16::MAX).into())
            };
            let (key_offset, key_length) = place(&mut texts, key);
            let (value_offset, value_length) = place(&mut texts, value);
            let pair = RawPair { key_offset, value_offset, key_length, value_length };
            table.extend_from_slice(pair.as_bytes());
        }
        table.extend_from_slice(&texts);
        table
    }

    /// The identities that the parent may have, the usual one first. A second one of zeros is none.
    pub(super) fn identities(&self) -> Vec<String> {
        let is_named = |text: &&String| parse(text).is_none_or(|guid| !guid.is_nil());
        let second = self.linkage2.iter().filter(is_named);
        self.linkage.iter().chain(second).map(|text| identity(text)).collect()
    }

    /// The names to try for the parent, as host paths: the relative path, then siblings with the file names of
    /// the absolute paths, which mean nothing on this host.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let relative = self.relative_path.as_deref().filter(|path| is_relative(path)).map(|path| {
            let path = path.replace('\\', "/");
            path.strip_prefix("./").map(str::to_owned).unwrap_or(path)
        });
        let paths = [&self.volume_path, &self.absolute_win32_path, &self.relative_path];
        let siblings = paths.into_iter().flatten().filter_map(|path| file_name(path)).map(str::to_owned);
        let mut names: Vec<Vec<u8>> = Vec::new();
        for name in relative.into_iter().chain(siblings).map(String::into_bytes) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// What identities start with.
pub(super) const IDENTITY: &str = "DataWriteGuid ";

/// How a layer with this `DataWriteGuid` is known to its children.
pub(super) fn identity(guid: &str) -> String {
    match parse(guid) {
        Some(guid) => format!("{IDENTITY}{guid}"),
        None => format!("{IDENTITY}{guid:?}"),
    }
}

fn is_relative(path: &str) -> bool {
    !path.starts_with(['\\', '/']) && !path.split(['\\', '/']).next().unwrap_or_default().contains(':')
}

/// The last part of a path; `None` where that names no file.
fn file_name(path: &str) -> Option<&str> {
    let name = path.rsplit(['\\', '/']).next()?;
    (!matches!(name, "" | "." | "..") && !name.contains(':')).then_some(name)
}

/// UTF-16 as it may come; half a character becomes a question mark of Unicode.
fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator() -> ParentLocator {
        let text = |text: &str| Some(text.to_owned());
        ParentLocator {
            linkage: text("{83ED0EC3-24C8-49A6-A959-5E4BF1288BFB}"),
            linkage2: text("{00000000-0000-0000-0000-000000000000}"),
            relative_path: text(".\\sub\\pärent.vhdx"),
            volume_path: text("\\\\?\\Volume{9cdf8dfa-0000-0000-0000-501f00000000}\\disks\\parent.vhdx"),
            absolute_win32_path: text("C:\\disks\\other.vhdx"),
        }
    }

    fn names(locator: &ParentLocator) -> Vec<String> {
        locator.names().into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn encoding_and_decoding_agree() {
        assert_eq!(ParentLocator::decode(&locator().encode(), 0).unwrap(), locator());
    }

    #[test]
    fn names_become_those_of_this_host() {
        assert_eq!(names(&locator()), ["sub/pärent.vhdx", "parent.vhdx", "other.vhdx", "pärent.vhdx"]);
        let only = |relative: &str| {
            let relative_path = Some(relative.to_owned());
            names(&ParentLocator { relative_path, ..ParentLocator::default() })
        };
        assert_eq!(only("..\\base.vhdx"), ["../base.vhdx", "base.vhdx"]);
        assert_eq!(only("base.vhdx"), ["base.vhdx"]);
        assert_eq!(only("C:\\disks\\base.vhdx"), ["base.vhdx"]);
        assert_eq!(only("\\\\server\\share\\base.vhdx"), ["base.vhdx"]);
        assert_eq!(only("json:{}"), Vec::<String>::new());
        assert_eq!(only("disks\\"), ["disks/"]);
        assert_eq!(only(""), Vec::<String>::new());
    }

    #[test]
    fn identities_are_compared_as_numbers() {
        let mut locator = locator();
        assert_eq!(locator.identities(), ["DataWriteGuid 83ed0ec3-24c8-49a6-a959-5e4bf1288bfb"]);
        locator.linkage2 = Some("{83ed0ec3-24c8-49a6-a959-5e4bf1288bfc}".to_owned());
        assert_eq!(locator.identities().len(), 2);
        locator.linkage = Some("nonsense".to_owned());
        assert_eq!(locator.identities()[0], "DataWriteGuid \"nonsense\"");
    }

    #[test]
    fn each_field_is_judged() {
        let verdict = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = locator().encode();
            change(&mut bytes);
            ParentLocator::decode(&bytes, 0).unwrap_err().to_string()
        };
        let said = verdict(&|bytes| bytes[0] = 0);
        assert!(said.contains("the locator type b04aef00"), "{said}");
        let said = verdict(&|bytes| bytes[18..20].fill(0xff));
        assert!(said.contains("KeyValueCount is 65535"), "{said}");
        let said = verdict(&|bytes| bytes[20..24].fill(0xff));
        assert!(said.contains("KeyOffset is 28 bytes at 4294967295"), "{said}");
        let said = verdict(&|bytes| bytes[30..32].fill(0xff));
        assert!(said.contains("ValueOffset is 65535 bytes"), "{said}");
        let said = verdict(&|bytes| bytes.copy_within(20..32, 32));
        assert!(said.contains("`parent_linkage` twice"), "{said}");
        assert!(verdict(&|bytes| bytes.truncate(10)).contains("length is 10"));
    }
}
