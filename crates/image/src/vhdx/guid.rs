//! GUIDs as VHDX stores and makes them.
//!
//! MS-DTYP §2.3.4.2: the first three groups are little-endian.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::SystemTime;

use ondisk::Guid;

/// The 16 bytes of `guid` as they lie on disk.
pub(super) fn stored(guid: Guid) -> [u8; 16] {
    // Swapping the groups a second time undoes it.
    Guid::from_mixed_endian(guid.0).0
}

/// A value that was never used before: random, version 4.
///
/// It tells states of a file apart and protects nothing, so the randomness that the standard library draws
/// for its hash maps is good enough.
pub(super) fn fresh() -> Guid {
    let [a, b, c, d, e, f, g, h] = random().to_le_bytes();
    let [i, j, k, l, m, n, o, p] = random().to_le_bytes();
    Guid([a, b, c, d, e, f, g & 0x0f | 0x40, h, i & 0x3f | 0x80, j, k, l, m, n, o, p])
}

fn random() -> u64 {
    // Every `RandomState` has another key.
    let mut hasher = RandomState::new().build_hasher();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// Reads the form that parent locators and identities use, with or without braces; any case.
pub(super) fn parse(text: &str) -> Option<Guid> {
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) || !text.is_ascii() {
        return None;
    }
    let digits = groups.concat();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Guid(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes() {
        let guid = parse("{83ED0EC3-24c8-49a6-a959-5e4bf1288bfb}").unwrap();
        assert_eq!(guid.to_string(), "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb");
        assert_eq!(stored(guid)[..4], [0xc3, 0x0e, 0xed, 0x83]);
        assert_eq!(Guid::from_mixed_endian(stored(guid)), guid);
        assert_eq!(parse(&guid.to_string()), Some(guid));
        for text in
            ["", "{}", "83ed0ec324c849a6a9595e4bf1288bfb", "83ed0ec3-24c8-49a6-a959-5e4bf1288bf", "+3ed0ec3-"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("é3ed0ec-24c8-49a6-a959-5e4bf1288bfb"), None);
    }

    #[test]
    fn fresh_ones_differ() {
        let mut seen: Vec<Guid> = (0..1000).map(|_| fresh()).collect();
        assert!(seen.iter().all(|guid| guid.to_string().as_bytes()[14] == b'4'));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
