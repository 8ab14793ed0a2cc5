//! mdadm.conf(5), as far as it decides what an array is called.

/// ARRAY lines that are looked at.
const MAX_ARRAYS: usize = 1024;

/// The arrays that a configuration names: UUID as hexadecimal digits, and the number of the device, if it asks for one.
pub(crate) fn arrays(text: &str) -> Vec<(String, Option<u32>)> {
    // A line that begins with a blank goes on with the one before.
    let joined = text.replace("\n ", " ").replace("\n\t", " ");
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case("ARRAY"))?;
        let mut number = None;
        let mut uuid = None;
        for word in words {
            match word.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("uuid") => {
                    uuid = Some(value.chars().filter(char::is_ascii_hexdigit).collect::<String>());
                }
                Some(_) => {}
                None => number = number.or_else(|| number_of(word)),
            }
        }
        Some((uuid?.to_ascii_lowercase(), number))
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
