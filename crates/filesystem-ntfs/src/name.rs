//! Names: UTF-16 on disk, bytes to everyone else.
//!
//! A lone surrogate, which Windows allows, becomes the three bytes that UTF-8 would give it ("WTF-8"), as in
//! ntfs-3g; no name is lost and none is ambiguous.

use crate::span::units;

/// Little-endian UTF-16 as bytes.
pub(crate) fn to_bytes(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    for unit in char::decode_utf16(units(name)) {
        match unit {
            Ok(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let [high, low] = lone.unpaired_surrogate().to_be_bytes();
                bytes.extend([0xe0 | high >> 4, 0x80 | (high & 15) << 2 | low >> 6, 0x80 | low & 0x3f]);
            }
        }
    }
    bytes
}

/// Bytes as UTF-16; `None` where no name becomes these bytes.
pub(crate) fn from_bytes(name: &[u8]) -> Option<Vec<u16>> {
    let mut found = Vec::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let (valid, after) = match std::str::from_utf8(rest) {
            Ok(valid) => (valid, &[][..]),
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                (std::str::from_utf8(valid).ok()?, after)
            }
        };
        found.extend(valid.encode_utf16());
        rest = after;
        if let Some((head, tail)) = rest.split_first_chunk::<3>() {
            let [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf] = *head else { return None };
            found.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
            rest = tail;
        } else if !rest.is_empty() {
            return None;
        }
    }
    Some(found)
}

/// The little-endian UTF-16 of an ASCII name.
pub(crate) fn ascii(name: &str) -> Vec<u8> {
    name.bytes().flat_map(|byte| [byte, 0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let le = |units: &[u16]| units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>();
        let all =
            [&[0x61, 0xe9, 0x20ac][..], &[0xd83d, 0xde00], &[0xd83d], &[0xde00, 0x61, 0xd800, 0xd800], &[]];
        for units in all {
            let bytes = to_bytes(&le(units));
            assert_eq!(from_bytes(&bytes).unwrap(), units, "{bytes:x?}");
        }
        assert_eq!(to_bytes(&le(&[0xd83d, 0x2e])), b"\xed\xa0\xbd.");
        for bytes in [&b"\xff"[..], b"a\xc3", b"\xed\xa0", b"\xed\x80", b"\xf8\x88\x80\x80\x80"] {
            assert_eq!(from_bytes(bytes), None, "{bytes:x?}");
        }
    }
}
