//! `/etc/fstab`, fstab(5): what is mounted where.
//!
//! One entry a line: source, mount point, type, options, dump frequency, pass number, separated by blanks or
//! tabs. `#` starts a comment only as the first non-blank byte. `\040`, `\011`, `\012` and `\134` stand for
//! blank, tab, newline and backslash. Fields are split as glibc's getmntent(3) splits them, because systemd
//! reads the file through it: a carriage return belongs to the field before it, a missing field is empty.

use std::ops::Range;

use crate::Edit;

/// The file: its bytes and the entries found in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fstab {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One line that is neither empty nor a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line number, from 1.
    pub line: usize,
    /// The line in the file, without its newline.
    pub span: Range<usize>,
    /// What to mount, or to swap on.
    pub source: Field,
    /// Where to mount it; empty when the line has one field.
    pub target: Field,
    /// File system type; empty when missing.
    pub kind: Field,
    /// Options, comma-separated; empty when missing.
    pub options: Field,
    /// Dump frequency; 0 when missing or not a number.
    pub frequency: i32,
    /// Order of checking at boot; 0 when missing or not a number.
    pub pass: i32,
}

/// One field of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// Where it stands in the file; empty at the end of the line when it is missing.
    pub span: Range<usize>,
    /// Its bytes with the octal escapes decoded.
    pub value: Vec<u8>,
}

impl Field {
    /// The value as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

impl Fstab {
    /// Parses any bytes.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut entries = Vec::new();
        let mut start = 0;
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            entries.extend(Entry::parse(&bytes, start..start + line.len(), number));
            start += line.len() + 1;
        }
        Self { bytes, entries }
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Every entry, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of a span of this file.
    pub fn slice(&self, span: Range<usize>) -> &[u8] {
        self.bytes.get(span).unwrap_or_default()
    }

    /// The column, from 1 and in bytes, at which a span starts in its line.
    pub fn column(&self, entry: &Entry, span: &Range<usize>) -> usize {
        span.start.saturating_sub(entry.span.start).saturating_add(1)
    }

    /// Replaces the source of an entry; blanks and tabs in `source` are escaped.
    pub fn set_source(&self, entry: &Entry, source: &str) -> Edit {
        Edit::replace(&self.bytes, entry.source.span.clone(), escape(source.as_bytes()))
    }

    /// Replaces the type of an entry.
    pub fn set_kind(&self, entry: &Entry, kind: &str) -> Edit {
        Edit::replace(&self.bytes, entry.kind.span.clone(), escape(kind.as_bytes()))
    }

    /// Appends an option to an entry. `None` for a line with fewer than three fields, where the option would
    /// become another field.
    pub fn add_option(&self, entry: &Entry, option: &str) -> Option<Edit> {
        if entry.kind.span.is_empty() {
            return None;
        }
        if entry.options.span.is_empty() {
            let at = entry.kind.span.end;
            return Some(Edit::replace(&self.bytes, at..at, format!("\t{option}")));
        }
        let old = self.slice(entry.options.span.clone());
        let mut new = old.to_vec();
        if !old.ends_with(b",") {
            new.push(b',');
        }
        new.extend_from_slice(option.as_bytes());
        Some(Edit::replace(&self.bytes, entry.options.span.clone(), new))
    }
}

impl Entry {
    fn parse(bytes: &[u8], span: Range<usize>, line: usize) -> Option<Self> {
        let mut fields = Fields { bytes: bytes.get(..span.end)?, at: span.start };
        let source = fields.next();
        if source.value.is_empty() || bytes.get(source.span.start) == Some(&b'#') {
            return None;
        }
        let target = fields.next();
        let kind = fields.next();
        let options = fields.next();
        // As `sscanf(rest, " %d %d ")`: the second number is read only behind a first.
        let (frequency, rest) = number(fields.bytes.get(fields.at..).unwrap_or_default());
        let pass = frequency.and_then(|_| number(rest).0);
        let frequency = frequency.unwrap_or(0);
        Some(Self { line, span, source, target, kind, options, frequency, pass: pass.unwrap_or(0) })
    }

    /// The options in order, escapes decoded, empty ones dropped.
    pub fn options(&self) -> impl Iterator<Item = &[u8]> {
        self.options.value.split(|byte| *byte == b',').filter(|option| !option.is_empty())
    }

    /// Whether `option` is among the options.
    pub fn has_option(&self, option: &str) -> bool {
        self.options().any(|found| found == option.as_bytes())
    }

    /// The value of the last `name=value` among the options.
    pub fn option_value(&self, name: &str) -> Option<&[u8]> {
        self.options().filter_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).last()
    }

    /// Which of two opposite words stands last: `Some(true)` for `yes`, `Some(false)` for `no`.
    pub fn last_of(&self, yes: &str, no: &str) -> Option<bool> {
        self.options()
            .filter_map(|option| match option {
                _ if option == yes.as_bytes() => Some(true),
                _ if option == no.as_bytes() => Some(false),
                _ => None,
            })
            .last()
    }
}

/// Splits a line as `strsep(&rest, " \t")` with the blanks in front skipped.
struct Fields<'a> {
    /// The file up to the end of the line.
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn next(&mut self) -> Field {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let start = self.at + rest.iter().take_while(|byte| is_blank(byte)).count();
        let rest = self.bytes.get(start..).unwrap_or_default();
        let end = start + rest.iter().take_while(|byte| !is_blank(byte)).count();
        self.at = end;
        Field { span: start..end, value: unescape(self.bytes.get(start..end).unwrap_or_default()) }
    }
}

/// A decimal number as `%d` reads it, and what stands behind it.
fn number(text: &[u8]) -> (Option<i32>, &[u8]) {
    let text = text.trim_ascii_start();
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let digits = text.iter().skip(signed).take_while(|byte| byte.is_ascii_digit()).count();
    let (word, rest) = text.split_at(signed + digits);
    let value = std::str::from_utf8(word).ok().and_then(|word| word.parse::<i64>().ok());
    // glibc's %d truncates what does not fit; any such number is absurd here, and not zero.
    let clamped =
        |value: i64| i32::try_from(value.clamp(i64::from(i32::MIN), i64::from(i32::MAX))).unwrap_or(0);
    if digits == 0 { (None, text) } else { (Some(value.map_or(i32::MAX, clamped)), rest) }
}

/// The escapes that getmntent(3) knows; any other backslash stands for itself.
const ESCAPES: [(&[u8], u8); 5] =
    [(b"\\040", b' '), (b"\\011", b'\t'), (b"\\012", b'\n'), (b"\\134", b'\\'), (b"\\\\", b'\\')];

fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    while let Some(first) = text.first() {
        let (byte, length) = ESCAPES
            .iter()
            .find(|(escape, _)| text.starts_with(escape))
            .map_or((*first, 1), |(escape, byte)| (*byte, escape.len()));
        value.push(byte);
        text = text.get(length..).unwrap_or_default();
    }
    value
}

fn escape(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for byte in value {
        match ESCAPES.iter().find(|(_, plain)| plain == byte) {
            Some((escape, _)) => text.extend_from_slice(escape),
            None => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    const SAMPLE: &[u8] = b"\n# /etc/fstab\n\t /dev/mapper/centos-root / \t xfs     defaults        0 0\n\
        /dev/vda1 /boot xfs defaults 0 2\nLABEL=my\\040disk /data\\134x ext4 noauto,nofail,,x=1,x=2\n\
        one\nUUID=1 /crlf ext4 defaults 0 0\r\n\xff\xfe /bin auto # 1 2\nlast none";

    #[test]
    fn fields_and_numbers() {
        let fstab = Fstab::parse(SAMPLE);
        let entries = fstab.entries();
        let lines: Vec<usize> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(entries[1].source.value, b"/dev/vda1");
        assert_eq!((entries[1].frequency, entries[1].pass), (0, 2));
        assert_eq!(entries[2].source.value, b"LABEL=my disk");
        assert_eq!(entries[2].target.value, b"/data\\x");
        assert_eq!(entries[2].option_value("x"), Some(b"2".as_slice()));
        assert_eq!(entries[2].last_of("nofail", "fail"), Some(true));
        assert_eq!(entries[2].options().count(), 4);
        assert!(entries[3].target.value.is_empty() && entries[3].options.span.is_empty());
        assert_eq!(entries[4].pass, 0);
        assert_eq!(entries[5].options.value, b"#");
        assert_eq!(fstab.column(&entries[0], &entries[0].source.span), 3);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 1_u32;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b" \t\n#\\04/aU=,\r\0\xff0"[(state >> 24) as usize % 16]
                })
                .collect();
            let fstab = Fstab::parse(bytes.clone());
            assert_eq!(fstab.to_bytes(), bytes);
            for entry in fstab.entries() {
                let edited = apply(&bytes, &[fstab.set_source(entry, "UUID=x")]).unwrap();
                assert_eq!(&edited[..entry.source.span.start], &bytes[..entry.source.span.start]);
                assert!(edited.ends_with(&bytes[entry.source.span.end..]));
            }
        }
    }

    #[test]
    fn an_edit_touches_only_its_token() {
        let fstab = Fstab::parse(SAMPLE);
        let entries = fstab.entries();
        let edited = apply(SAMPLE, &[fstab.set_source(&entries[1], "LABEL=a b")]).unwrap();
        let expected = String::from_utf8_lossy(SAMPLE).replace("/dev/vda1", "LABEL=a\\040b");
        assert_eq!(String::from_utf8_lossy(&edited), expected);
        let line = |index: usize, edit: Edit| {
            let edited = apply(SAMPLE, &[edit]).unwrap();
            String::from_utf8_lossy(edited.split(|b| *b == b'\n').nth(entries[index].line - 1).unwrap())
                .into_owned()
        };
        let with = |index: usize| line(index, fstab.add_option(&entries[index], "nofail").unwrap());
        assert_eq!(with(1), "/dev/vda1 /boot xfs defaults,nofail 0 2");
        assert!(fstab.add_option(&entries[6], "nofail").is_none());
        assert!(fstab.add_option(&entries[3], "nofail").is_none());
    }
}
