//! `/etc/default/grub`: what `grub-mkconfig` makes `grub.cfg` from.
//!
//! A shell script that is sourced. In practice assignments, one a line: `NAME=value`, `NAME='value'`,
//! `NAME="value"`, with or without `export`; anything else is kept and not understood. A value with `$` or a
//! backquote in it is known only to a shell.

use std::ops::Range;

use crate::Edit;

/// The file: its bytes and the assignments in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubDefault {
    bytes: Vec<u8>,
    assignments: Vec<Assignment>,
    odd_lines: Vec<usize>,
}

/// One `NAME=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Line number, from 1.
    pub line: usize,
    /// The name.
    pub name: String,
    /// Where the value stands, quotes included.
    pub span: Range<usize>,
    /// The value; `None` when only a shell could tell.
    pub value: Option<Vec<u8>>,
    /// Whether it is `NAME+=value`.
    pub is_appended: bool,
}

impl GrubDefault {
    /// Parses any bytes.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut file = Self { bytes, assignments: Vec::new(), odd_lines: Vec::new() };
        let (mut at, mut line) = (0_usize, 1_usize);
        while at < file.bytes.len() {
            let rest = file.bytes.get(at..).unwrap_or_default();
            let length = match assignment(rest, at, line) {
                Some((assignment, length)) => {
                    file.assignments.push(assignment);
                    length
                }
                None => {
                    let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    let content = rest.get(..length).unwrap_or_default().trim_ascii();
                    if !content.is_empty() && !content.starts_with(b"#") {
                        file.odd_lines.push(line);
                    }
                    length.saturating_add(1)
                }
            };
            let taken = rest.get(..length).unwrap_or(rest);
            line = line.saturating_add(taken.iter().filter(|byte| **byte == b'\n').count());
            at = at.saturating_add(length);
        }
        file
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The assignments in order.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// Lines that are neither assignment, comment nor empty: the shell runs them, or stumbles over them.
    pub fn odd_lines(&self) -> &[usize] {
        &self.odd_lines
    }

    /// The assignment of a name that counts: the last.
    pub fn get(&self, name: &str) -> Option<&Assignment> {
        self.assignments.iter().rev().find(|assignment| assignment.name == name)
    }

    /// The value of a name, if it is set and no shell is needed.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let assignment = self.get(name)?;
        if assignment.is_appended { None } else { assignment.value.as_deref() }
    }

    /// Sets a name: replaces the value of its last assignment, or adds a line at the end.
    pub fn set(&self, name: &str, value: &[u8]) -> Edit {
        let quoted = quote(value);
        match self.get(name) {
            Some(assignment) => Edit::replace(&self.bytes, assignment.span.clone(), quoted),
            None => {
                let at = self.bytes.len();
                let newline = if self.bytes.is_empty() || self.bytes.ends_with(b"\n") { "" } else { "\n" };
                let new = [newline.as_bytes(), name.as_bytes(), b"=", &quoted, b"\n"].concat();
                Edit::replace(&self.bytes, at..at, new)
            }
        }
    }
}

fn quote(value: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in value {
        if matches!(byte, b'"' | b'\\' | b'$' | b'`') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'"');
    text
}

/// An assignment at the start of `rest`, and how many bytes it takes, its newline included.
fn assignment(rest: &[u8], offset: usize, line: usize) -> Option<(Assignment, usize)> {
    let blanks = |text: &[u8]| text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut start = blanks(rest);
    if let Some(behind) = rest.get(start..)?.strip_prefix(b"export") {
        let gap = blanks(behind);
        start = if gap > 0 { start.checked_add(6)?.checked_add(gap)? } else { start };
    }
    let text = rest.get(start..)?;
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let name = text.get(..length)?;
    let behind = text.get(length..)?;
    let is_appended = behind.starts_with(b"+=");
    if length == 0 || name.first()?.is_ascii_digit() || !(is_appended || behind.starts_with(b"=")) {
        return None;
    }
    let at = start.checked_add(length)?.checked_add(1)?.checked_add(usize::from(is_appended))?;
    let (value, taken) = word(rest.get(at..)?)?;
    let end = at.checked_add(taken)?;
    // Only blanks or a comment may follow; with a command behind it the value would not last.
    let tail = rest.get(end..)?;
    let line_end = tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |at| at.saturating_add(1));
    let behind = tail.get(..line_end)?.trim_ascii();
    if !(behind.is_empty() || behind.starts_with(b"#") && taken_blank(tail) || behind == b";") {
        return None;
    }
    let span = offset.checked_add(at)?..offset.checked_add(end)?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some((Assignment { line, name, span, value, is_appended }, end.checked_add(line_end)?))
}

fn taken_blank(tail: &[u8]) -> bool {
    matches!(tail.first(), Some(b' ' | b'\t'))
}

/// One shell word: its value if it is literal, and its length. `None` when a quote does not close.
fn word(text: &[u8]) -> Option<(Option<Vec<u8>>, usize)> {
    let mut value = Vec::new();
    let mut is_literal = true;
    let mut at = 0_usize;
    let mut in_double = false;
    while let Some(byte) = text.get(at) {
        let next = text.get(at.checked_add(1)?);
        let mut step = 1_usize;
        match byte {
            b'"' => in_double = !in_double,
            b'\\' if in_double => match next {
                Some(escaped @ (b'"' | b'\\' | b'$' | b'`')) => {
                    value.push(*escaped);
                    step = 2;
                }
                Some(b'\n') => step = 2,
                _ => value.push(b'\\'),
            },
            b'\\' => {
                value.extend(next.filter(|next| **next != b'\n'));
                step = 2;
            }
            b'$' | b'`' => is_literal = false,
            _ if in_double => value.push(*byte),
            b'\'' => {
                let inner = text.get(at.checked_add(1)?..)?;
                let length = inner.iter().position(|byte| *byte == b'\'')?;
                value.extend_from_slice(inner.get(..length)?);
                step = length.checked_add(2)?;
            }
            b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
            _ => value.push(*byte),
        }
        at = at.checked_add(step)?;
    }
    (!in_double).then_some((is_literal.then_some(value), at.min(text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    const SAMPLE: &[u8] = b"# comment\nGRUB_DEFAULT=0\nGRUB_TIMEOUT='5' # five\n\
        GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\nGRUB_CMDLINE_LINUX=\"a=\\\"b c\\\" \\\nd\"\n\
        export GRUB_X=a\\ b\nif true; then\nGRUB_CMDLINE_LINUX+=x\nGRUB_DEFAULT=saved";

    #[test]
    fn values_and_edits() {
        let file = GrubDefault::parse(SAMPLE);
        assert_eq!(file.to_bytes(), SAMPLE);
        assert_eq!(file.value("GRUB_DEFAULT"), Some(b"saved".as_slice()));
        assert_eq!(file.value("GRUB_TIMEOUT"), Some(b"5".as_slice()));
        assert_eq!(file.value("GRUB_X"), Some(b"a b".as_slice()));
        assert_eq!(file.get("GRUB_X").unwrap().line, 7);
        assert_eq!(file.assignments()[2].value.as_deref(), Some(b"a=\"b c\" d".as_slice()));
        assert_eq!(file.value("GRUB_CMDLINE_LINUX"), None);
        assert_eq!(file.odd_lines(), [4, 8]);
        let edited = apply(SAMPLE, &[file.set("GRUB_TIMEOUT", b"1")]).unwrap();
        let expected = String::from_utf8_lossy(SAMPLE).replace("'5'", "\"1\"");
        assert_eq!(String::from_utf8_lossy(&edited), expected);
        let edited = apply(SAMPLE, &[file.set("GRUB_NEW", b"a\"$b")]).unwrap();
        assert!(edited.ends_with(b"=saved\nGRUB_NEW=\"a\\\"\\$b\"\n"));
        assert_eq!(GrubDefault::parse(edited).value("GRUB_NEW"), Some(b"a\"$b".as_slice()));
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 5_u32;
        for round in 0..20_000 {
            let mut bytes = SAMPLE.to_vec();
            for _ in 0..round % 6 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = b"\n\\#='\"$\0a\xff"[(state >> 3) as usize % 10];
            }
            let file = GrubDefault::parse(bytes.clone());
            assert_eq!(file.to_bytes(), bytes);
            apply(&bytes, &[file.set("GRUB_DEFAULT", b"q")]).unwrap();
        }
    }
}
