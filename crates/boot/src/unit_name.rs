//! systemd's unit names for paths: systemd.unit(5), "String escaping for inclusion in unit names".

/// `/boot/efi` with suffix `mount` becomes `boot-efi.mount`; the root directory is `-`.
pub fn unit_name_from_path(path: &str, suffix: &str) -> String {
    let trimmed: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if trimmed.is_empty() { format!("-.{suffix}") } else { unit_name(&trimmed.join("/"), suffix) }
}

/// Escapes a string: `/` becomes `-`; what is neither alphanumeric nor one of `:_.` becomes `\xHH`, as does a
/// dot in front.
pub fn unit_name(text: &str, suffix: &str) -> String {
    let mut name = String::new();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            _ if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => name.push(char::from(byte)),
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    format!("{name}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_paths() {
        assert_eq!(unit_name_from_path("/boot/efi/", "mount"), "boot-efi.mount");
        assert_eq!(unit_name_from_path("/", "mount"), "-.mount");
        assert_eq!(
            unit_name_from_path("/dev/mapper/a--b-c", "device"),
            "dev-mapper-a\\x2d\\x2db\\x2dc.device"
        );
        assert_eq!(unit_name_from_path("/.hidden", "mount"), "\\x2ehidden.mount");
    }
}
