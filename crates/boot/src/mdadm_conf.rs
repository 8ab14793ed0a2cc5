//! mdadm.conf(5), as far as it decides what an array is called.

use guest_files::mdadm_conf::MdadmConf;

/// ARRAY lines that are looked at.
const MAX_ARRAYS: usize = 1024;

/// The arrays that a configuration names: UUID as hexadecimal digits, and the number of the device, if it asks for one.
pub(crate) fn arrays(text: &str) -> Vec<(String, Option<u32>)> {
    let arrays = MdadmConf::parse(text.as_bytes()).arrays.into_iter();
    let found = arrays.filter_map(|array| {
        let uuid: String = array.uuid?.chars().filter(char::is_ascii_hexdigit).collect();
        Some((uuid.to_ascii_lowercase(), array.device.as_deref().and_then(number_of)))
    });
    found.take(MAX_ARRAYS).collect()
}

/// 0 of `/dev/md0`, `/dev/md/0`, `md0`.
pub(crate) fn number_of(device: &str) -> Option<u32> {
    let name = device.strip_prefix("/dev/").unwrap_or(device).strip_prefix("md")?;
    name.strip_prefix('/').unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "HOMEHOST <system>\n# ARRAY /dev/md9 UUID=1\nARRAY /dev/md/0 metadata=1.2\n   UUID=D57cdbba:090c2d2f:f3d75891:61c36b49 name=g5md:0\nARRAY /dev/md/data UUID=00:01\nARRAY <ignore> UUID=2\narray /dev/md3\n";
        let expected = [
            ("d57cdbba090c2d2ff3d7589161c36b49".to_owned(), Some(0)),
            ("0001".to_owned(), None),
            ("2".to_owned(), None),
        ];
        assert_eq!(arrays(text), expected);
        assert_eq!(
            ["/dev/md127", "/dev/md/x", "/dev/mdx", "/dev/sda"].map(number_of),
            [Some(127), None, None, None]
        );
    }
}
