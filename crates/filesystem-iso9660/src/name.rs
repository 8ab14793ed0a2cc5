//! Names in the three alphabets, as Linux shows them.

/// Letters in lower case, without the version `;1` and the dot that only it needs.
pub(crate) fn plain(stored: &[u8]) -> Vec<u8> {
    let name = stored.strip_suffix(b".;1").or_else(|| stored.strip_suffix(b";1")).unwrap_or(stored);
    let shown = |byte: &u8| match byte {
        b';' | b'/' => b'.',
        byte => byte.to_ascii_lowercase(),
    };
    name.iter().take_while(|byte| **byte != 0).map(shown).collect()
}

/// UTF-16, big-endian, without version and dots at the end.
pub(crate) fn joliet(stored: &[u8]) -> Vec<u8> {
    let text = wide(stored);
    let name = text.strip_suffix(";1").filter(|name| !name.is_empty()).unwrap_or(&text);
    let cut = name.trim_end_matches('.');
    let cut = if cut.is_empty() { name.get(..1).unwrap_or_default() } else { cut };
    cut.bytes().map(|byte| if byte == b'/' { b':' } else { byte }).collect()
}

/// The text of UTF-16, big-endian, up to a NUL.
pub(crate) fn wide(stored: &[u8]) -> String {
    let units =
        stored.chunks_exact(2).map(|unit| unit.first_chunk().map_or(0, |unit| u16::from_be_bytes(*unit)));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_linux_shows_them() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"README.TXT;1", b"readme.txt"),
            (b"README.;1", b"readme"),
            (b"A.B;2", b"a.b.2"),
            (b"DIR", b"dir"),
            (b"x/y;1", b"x.y"),
        ];
        for (stored, shown) in cases {
            assert_eq!(plain(stored), shown);
        }
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        for (stored, shown) in
            [("Ümlaut.txt;1", "Ümlaut.txt"), ("end..", "end"), ("a;2", "a;2"), ("😀", "😀")]
        {
            assert_eq!(joliet(&utf16(stored)), shown.as_bytes());
        }
    }
}
