//! Boot Loader Specification entries, `/boot/loader/entries/*.conf`, type 1: one entry a file.
//!
//! <https://uapi-group.org/specifications/specs/boot_loader_specification/>, as the `blscfg` command of Fedora's
//! and Red Hat's GRUB reads it: one field a line, key and value with blanks or tabs between, `#` starts a comment
//! line, carriage returns do not exist. A line without a value, an empty one included, ends the entry: what
//! stands behind it GRUB never sees, while systemd-boot and grubby do.

use std::cmp::Ordering;
use std::ops::Range;

use crate::Edit;

/// Longest file that GRUB reads, in bytes.
pub const LONGEST: usize = 1 << 20;

/// One entry: its bytes and the fields in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlsEntry {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    stop: Option<usize>,
}

/// One line `key value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Line number, from 1.
    pub line: usize,
    /// The key.
    pub key: Vec<u8>,
    /// Where the value stands, without blanks in front; those behind it belong to it.
    pub span: Range<usize>,
    /// The value; `$name` in it is expanded by GRUB when the entry is made.
    pub value: Vec<u8>,
    /// Whether GRUB gets as far as this line.
    pub is_seen: bool,
}

impl BlsEntry {
    /// Parses any bytes.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut fields = Vec::new();
        let mut stop = None;
        let mut start = 0_usize;
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let end = start.saturating_add(line.len());
            let is_last = end >= bytes.len();
            match field(&bytes, start..end, number) {
                Line::Field(mut field) => {
                    field.is_seen = stop.is_none();
                    fields.push(field);
                }
                Line::Comment => {}
                Line::End if is_last && line.is_empty() => {}
                Line::End => stop = stop.or(Some(number)),
            }
            start = end.saturating_add(1);
        }
        Self { bytes, fields, stop }
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Every field in order, those that GRUB does not see included.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The line at which GRUB stops reading, if there is one.
    pub fn stop(&self) -> Option<usize> {
        self.stop
    }

    /// The first field with this key that GRUB sees.
    pub fn get(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is_seen && field.key == key.as_bytes())
    }

    /// Every field with this key that GRUB sees.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| field.is_seen && field.key == key.as_bytes())
    }

    /// Replaces the value of a field.
    pub fn set_value(&self, field: &Field, value: &str) -> Edit {
        Edit::replace(&self.bytes, field.span.clone(), value)
    }

    /// Replaces a span of this file, say one argument of the options.
    pub fn replace(&self, span: Range<usize>, new: impl Into<Vec<u8>>) -> Edit {
        Edit::replace(&self.bytes, span, new)
    }

    /// Adds a field behind another one.
    pub fn add_field_after(&self, field: &Field, key: &str, value: &str) -> Edit {
        let at = field.span.end;
        Edit::replace(&self.bytes, at..at, format!("\n{key} {value}"))
    }
}

enum Line {
    Field(Field),
    Comment,
    End,
}

fn field(bytes: &[u8], range: Range<usize>, line: usize) -> Line {
    let content = bytes.get(range.clone()).unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let indent = content.iter().take_while(|byte| is_blank(byte) || **byte == b'\r').count();
    let content = content.get(indent..).unwrap_or_default();
    if content.first() == Some(&b'#') {
        return Line::Comment;
    }
    // GRUB looks for a blank first, and for a tab only in a line without one.
    let separator = content
        .iter()
        .position(|byte| *byte == b' ')
        .or_else(|| content.iter().position(|byte| *byte == b'\t'));
    let Some(separator) = separator else { return Line::End };
    let key: Vec<u8> = without_returns(content.get(..separator).unwrap_or_default());
    let rest = content.get(separator..).unwrap_or_default();
    if without_returns(rest).len() < 2 {
        return Line::End;
    }
    let blanks = rest.iter().take_while(|byte| is_blank(byte)).count();
    let start = range.start.saturating_add(indent).saturating_add(separator).saturating_add(blanks);
    let returns = bytes.get(start..range.end).unwrap_or_default();
    let trailing = returns.iter().rev().take_while(|byte| **byte == b'\r').count();
    let span = start..range.end.saturating_sub(trailing).max(start);
    let value = without_returns(bytes.get(span.clone()).unwrap_or_default());
    Line::Field(Field { line, key, span, value, is_seen: true })
}

fn without_returns(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte != b'\r').collect()
}

/// Which entry is newer by GRUB's reckoning: names without `.conf`, name, version and release compared in turn.
pub fn compare_names(a: &[u8], b: &[u8], with_plus: bool) -> Ordering {
    let (a, b) = (split(a), split(b));
    let by = |one: &[u8], two: &[u8]| compare_versions(one, two, with_plus);
    by(a.0, b.0).then_with(|| by(a.1, b.1)).then_with(|| by(a.2, b.2))
}

/// Which of two `version` fields is newer: version and release, split at the last `-`.
pub fn compare_version_fields(a: &[u8], b: &[u8], with_plus: bool) -> Ordering {
    let part = |text| -> (&[u8], &[u8]) { cut_last(text).map_or((text, b""), |(front, back)| (front, back)) };
    let ((a, a_release), (b, b_release)) = (part(a), part(b));
    compare_versions(a, b, with_plus).then_with(|| compare_versions(a_release, b_release, with_plus))
}

fn cut_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b'-')?;
    Some((text.get(..at)?, text.get(at.saturating_add(1)..)?))
}

/// Name, version, release; missing ones are empty.
fn split(text: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some((front, release)) = cut_last(text) else { return (text, b"", b"") };
    match cut_last(front) {
        Some((name, version)) => (name, version, release),
        None => (front, release, b""),
    }
}

/// RPM's comparison of versions as GRUB has it. `with_plus` is what newer builds (RHEL 10, Fedora) add.
pub fn compare_versions(a: &[u8], b: &[u8], with_plus: bool) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (mut one, mut two) = (a, b);
    while !(one.is_empty() && two.is_empty()) {
        let skip = |text: &[u8]| {
            let counts = |byte: &&u8| {
                !byte.is_ascii_alphanumeric() && **byte != b'~' && !(with_plus && **byte == b'+')
            };
            text.iter().take_while(counts).count()
        };
        one = one.get(skip(one)..).unwrap_or_default();
        two = two.get(skip(two)..).unwrap_or_default();
        let (first, second) = (one.first().copied(), two.first().copied());
        if first == Some(b'~') || second == Some(b'~') {
            match (first, second) {
                (Some(b'~'), Some(b'~')) => {}
                (Some(b'~'), _) => return Ordering::Less,
                _ => return Ordering::Greater,
            }
            one = one.get(1..).unwrap_or_default();
            two = two.get(1..).unwrap_or_default();
            continue;
        }
        if with_plus && (first == Some(b'+') || second == Some(b'+')) {
            match (first, second) {
                (None, _) => return Ordering::Less,
                (_, None) => return Ordering::Greater,
                (Some(b'+'), Some(b'+')) => {}
                (Some(b'+'), _) => return Ordering::Less,
                _ => return Ordering::Greater,
            }
            one = one.get(1..).unwrap_or_default();
            two = two.get(1..).unwrap_or_default();
            continue;
        }
        let (Some(first), Some(_)) = (first, second) else { break };
        let is_number = first.is_ascii_digit();
        let run = |text: &[u8]| {
            let counts =
                |byte: &&u8| if is_number { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
            text.iter().take_while(counts).count()
        };
        let (mut left, rest_one) = one.split_at(run(one));
        let (mut right, rest_two) = two.split_at(run(two));
        if right.is_empty() {
            return if is_number { Ordering::Greater } else { Ordering::Less };
        }
        if is_number {
            let zeros = |text: &[u8]| text.iter().take_while(|byte| **byte == b'0').count();
            left = left.get(zeros(left)..).unwrap_or_default();
            right = right.get(zeros(right)..).unwrap_or_default();
            let by_length = left.len().cmp(&right.len());
            if by_length.is_ne() {
                return by_length;
            }
        }
        let by_text = left.cmp(right);
        if by_text.is_ne() {
            return by_text;
        }
        (one, two) = (rest_one, rest_two);
    }
    one.is_empty().cmp(&two.is_empty()).reverse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    const SAMPLE: &[u8] = b"title Some Linux (5.14.0-70.el9.x86_64) 9.0\nversion 5.14.0-70.el9.x86_64\n\
        linux\t/vmlinuz-5.14.0-70.el9.x86_64\n  # comment\ninitrd /a.img $tuned_initrd\ninitrd /b.img\n\
        options  root=/dev/vda1 ro $tuned_params\r\ngrub_class kernel\n";

    #[test]
    fn fields_and_edits() {
        let entry = BlsEntry::parse(SAMPLE);
        assert_eq!(entry.to_bytes(), SAMPLE);
        assert_eq!(entry.get("linux").unwrap().value, b"/vmlinuz-5.14.0-70.el9.x86_64");
        assert_eq!(entry.all("initrd").count(), 2);
        assert_eq!(entry.all("initrd").last().unwrap().line, 6);
        let options = entry.get("options").unwrap();
        assert_eq!(options.value, b"root=/dev/vda1 ro $tuned_params");
        assert_eq!(entry.stop(), None);
        let edited = apply(SAMPLE, &[entry.set_value(options, "root=UUID=1")]).unwrap();
        let expected =
            String::from_utf8_lossy(SAMPLE).replace("root=/dev/vda1 ro $tuned_params", "root=UUID=1");
        assert_eq!(String::from_utf8_lossy(&edited), expected);
        let edited = apply(SAMPLE, &[entry.add_field_after(options, "id", "x")]).unwrap();
        assert_eq!(BlsEntry::parse(edited).get("id").unwrap().value, b"x");
    }

    #[test]
    fn an_empty_line_hides_the_rest() {
        let entry = BlsEntry::parse(b"title a\n\nlinux /b\nkey\n".as_slice());
        assert_eq!(entry.stop(), Some(2));
        assert!(entry.get("linux").is_none());
        assert_eq!(entry.fields().len(), 2);
        assert_eq!(BlsEntry::parse(b"title a\nlinux \nx y".as_slice()).stop(), Some(2));
    }

    #[test]
    fn order_of_names() {
        let newest = |names: &[&str]| {
            let mut names = names.to_vec();
            names.sort_by(|a, b| compare_names(b.as_bytes(), a.as_bytes(), true));
            names.join(" ")
        };
        assert_eq!(
            newest(&["id-5.9.0-1", "id-5.14.0-70.el9", "id-5.14.0-9.el9"]),
            "id-5.14.0-70.el9 id-5.14.0-9.el9 id-5.9.0-1"
        );
        assert_eq!(
            newest(&["id-0-rescue", "id-4.18.0-80.el8.x86_64"]),
            "id-4.18.0-80.el8.x86_64 id-0-rescue"
        );
        let compare = |a: &str, b: &str| compare_versions(a.as_bytes(), b.as_bytes(), true);
        for (a, b) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0+a"),
            ("1.a", "1.1"),
            ("1.9", "1.10"),
            ("1", "1.0"),
            ("", "1"),
            ("a", "b"),
        ] {
            assert_eq!((compare(a, b), compare(b, a)), (Ordering::Less, Ordering::Greater), "{a} {b}");
        }
        assert_eq!(compare("1-0", "1.0"), Ordering::Equal);
        assert_eq!(compare_version_fields(b"5.1-2", b"5.1-10", false), Ordering::Less);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 7_u32;
        for round in 0..20_000 {
            let mut bytes = SAMPLE.to_vec();
            for _ in 0..round % 5 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = b" \t\r\n#$\0\xffa"[(state >> 3) as usize % 9];
            }
            let entry = BlsEntry::parse(bytes.clone());
            assert_eq!(entry.to_bytes(), bytes);
            for field in entry.fields() {
                assert!(bytes.get(field.span.clone()).is_some());
            }
        }
    }
}
