//! File names in a descriptor, as names on this host.
//!
//! A descriptor names its encoding. Names are tried in UTF-8 where the encoding can be converted, and as the bytes
//! they are; paths of Windows become names of siblings.

/// Windows code page 1252 from 0x80 to 0x9f; 0 where it has nothing.
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,
    0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
    0x0153, 0, 0x017e, 0x0178,
];

/// The names under which an extent's file may lie, best first.
pub(super) fn extent(stored: &[u8], encoding: Option<&str>) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = converted(stored, encoding).into_iter().collect();
    push(&mut names, stored.to_vec());
    names
}

/// The names under which a parent may lie: what the hint says, then a sibling of that file name.
pub(super) fn parent(hint: &[u8], encoding: Option<&str>) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    for hint in extent(hint, encoding) {
        let is_windows = hint.contains(&b'\\');
        let path: Vec<u8> =
            hint.iter().map(|byte| if is_windows && *byte == b'\\' { b'/' } else { *byte }).collect();
        let has_drive = is_windows && path.get(1) == Some(&b':');
        if !has_drive {
            push(&mut names, path.clone());
        }
        if let Some(file) = path.rsplit(|byte| matches!(byte, b'/')).next().filter(|file| !file.is_empty()) {
            push(&mut names, file.to_vec());
        }
    }
    names
}

fn push(names: &mut Vec<Vec<u8>>, name: Vec<u8>) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// `stored` in UTF-8, if it is not ASCII anyway and its encoding is a known one.
fn converted(stored: &[u8], encoding: Option<&str>) -> Option<Vec<u8>> {
    if stored.is_ascii() {
        return None;
    }
    let encoding = encoding?.to_ascii_lowercase();
    if !matches!(encoding.as_str(), "windows-1252" | "iso-8859-1" | "cp1252") {
        return None;
    }
    let name: String = stored.iter().map(|byte| character(*byte)).collect();
    Some(name.into_bytes())
}

fn character(byte: u8) -> char {
    let high = usize::from(byte).checked_sub(0x80).and_then(|index| WINDOWS_1252.get(index));
    match high {
        Some(0) | None => char::from(byte),
        Some(code) => char::from_u32(u32::from(*code)).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(hint: &[u8]) -> Vec<String> {
        parent(hint, None).into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn parents_are_tried_where_the_hint_says_and_beside_the_child() {
        assert_eq!(parents(b"base.vmdk"), ["base.vmdk"]);
        assert_eq!(parents(b"/vmfs/volumes/x/base.vmdk"), ["/vmfs/volumes/x/base.vmdk", "base.vmdk"]);
        assert_eq!(parents(b"../base.vmdk"), ["../base.vmdk", "base.vmdk"]);
        assert_eq!(parents(br"C:\VMs\base.vmdk"), ["base.vmdk"]);
        assert_eq!(parents(br"..\base\disk.vmdk"), ["../base/disk.vmdk", "disk.vmdk"]);
        assert_eq!(parents(br"\\server\share\disk.vmdk"), ["//server/share/disk.vmdk", "disk.vmdk"]);
        assert!(parents(b"").contains(&String::new()));
    }

    #[test]
    fn encodings() {
        let utf8 = |text: &str| text.as_bytes().to_vec();
        assert_eq!(extent(b"Gr\xfc\xdfe \x80.vmdk", Some("windows-1252"))[0], utf8("Grüße €.vmdk"));
        assert_eq!(extent(b"Gr\xfc.vmdk", Some("windows-1252"))[1], b"Gr\xfc.vmdk");
        assert_eq!(extent("Grüße".as_bytes(), Some("UTF-8")), [utf8("Grüße")]);
        assert_eq!(extent(b"\xb4\xc5.vmdk", Some("GBK")), [b"\xb4\xc5.vmdk"]);
        assert_eq!(extent(b"plain", Some("windows-1252")), [utf8("plain")]);
    }
}
