//! `/etc/crypttab`, crypttab(5): what is decrypted under which name.
//!
//! One volume a line: name, source, key, options, separated by whitespace. `#` starts a comment only as the first
//! non-blank byte. Read as systemd-cryptsetup-generator(8) does: a line with one field is passed over, what stands
//! behind the fourth field is ignored, a carriage return is whitespace. Escapes such as `\040` are not decoded:
//! systemd takes them as they stand, only Debian's scripts for the initramfs read them.

/// One line that names a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line number, from 1.
    pub line: usize,
    /// The name below `/dev/mapper`.
    pub name: String,
    /// What to decrypt: a device, `UUID=…`, a file.
    pub source: String,
    /// The file or device with the key; `None` (`none`, `-` or no field) when a passphrase is asked for.
    pub key: Option<String>,
    /// The options in order, empty ones dropped.
    pub options: Vec<String>,
}

/// Parses any bytes; bytes that are not UTF-8 are replaced.
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    (1..).zip(bytes.split(|byte| *byte == b'\n')).filter_map(|(line, text)| entry(line, text)).collect()
}

fn entry(line: usize, text: &[u8]) -> Option<Entry> {
    let text = String::from_utf8_lossy(text);
    if text.trim_ascii_start().starts_with('#') {
        return None;
    }
    // `%ms` of scanf(3) splits at these, and at no other character.
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}');
    let mut fields = text.split(is_space).filter(|field| !field.is_empty());
    let name = fields.next()?.to_owned();
    let source = fields.next()?.to_owned();
    let key = fields.next().filter(|key| !matches!(*key, "none" | "-")).map(str::to_owned);
    let options = fields.next().filter(|options| *options != "-").map(options).unwrap_or_default();
    Some(Entry { line, name, source, key, options })
}

/// Splits at commas; `\,` is a comma within an option.
fn options(text: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            ',' => options.push(String::new()),
            '\\' if rest.next_if_eq(&',').is_some() => push(&mut options, ','),
            _ => push(&mut options, next),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}

fn push(options: &mut [String], next: char) {
    if let Some(option) = options.last_mut() {
        option.push(next);
    }
}

impl Entry {
    /// Whether `name` is among the options, as a word of its own.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// The value of the last `key=value` among the options.
    pub fn option_value(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_options() {
        let entries = parse(
            b"# <target> <source> <key> <options>\n\nroot_crypt UUID=0c3f-1 none luks,discard,initramfs\n\
            \t #x y\n  data\t/dev/vdb1 /etc/keys/data.key luks,nofail,keyfile-size=32,,timeout=1,timeout=2 more words\r\n\
            alone\nswap /dev/vda3 /dev/urandom swap,cipher=aes-xts-plain64,size=256\r\nplain PARTLABEL=a\\040b\n\
            h LABEL=x - header=/a\\,b,\\x,ro\nlast UUID=2 - -",
        );
        let lines: Vec<usize> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 5, 7, 8, 9, 10]);
        assert_eq!((entries[0].name.as_str(), entries[0].source.as_str()), ("root_crypt", "UUID=0c3f-1"));
        assert_eq!(entries[0].key, None);
        assert_eq!(entries[0].options, ["luks", "discard", "initramfs"]);
        let data = &entries[1];
        assert_eq!(data.key.as_deref(), Some("/etc/keys/data.key"));
        assert!(data.has_option("nofail") && !data.has_option("timeout") && !data.has_option("keyfile"));
        assert_eq!(data.option_value("timeout"), Some("2"));
        assert_eq!((data.option_value("keyfile"), data.options.len()), (None, 5));
        assert_eq!(entries[2].option_value("size"), Some("256"));
        assert_eq!(entries[3].source, "PARTLABEL=a\\040b");
        assert!(entries[3].key.is_none() && entries[3].options.is_empty());
        assert_eq!(entries[4].options, ["header=/a,b", "\\x", "ro"]);
        assert!(entries[5].options.is_empty());
    }

    #[test]
    fn any_bytes() {
        assert_eq!(parse(b"").len(), 0);
        assert_eq!(parse(b"\xff\xfe \0").len(), 1);
        let mut state = 3_u32;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b" \t\n#\\,-=ab\r\0\xff\xc3x "[(state >> 24) as usize % 16]
                })
                .collect();
            for entry in parse(&bytes) {
                assert!(!entry.name.is_empty() && !entry.source.is_empty());
                assert!(entry.options.iter().all(|option| !option.is_empty()));
            }
        }
    }
}
