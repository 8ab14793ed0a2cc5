//! `grubenv`, GRUB's environment block: variables that GRUB and the system pass to each other.
//!
//! Made by grub-editenv(1). 1024 bytes: the line `# GRUB Environment Block`, lines `name=value`, and `#` up to the
//! end. In a value a backslash stands before a backslash and before a newline. GRUB can only overwrite blocks that
//! exist, so the size never changes; GRUB reads any size, but `save_env` writes only where `#` are left.

use std::ops::Range;

use crate::Edit;

/// The first line, newline included.
pub const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// The size that every tool writes, in bytes.
pub const SIZE: usize = 1024;

/// The block: its bytes and the variables in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grubenv {
    bytes: Vec<u8>,
    variables: Vec<Variable>,
    problems: Vec<Problem>,
}

/// One `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Line number, from 1.
    pub line: usize,
    /// The name.
    pub name: Vec<u8>,
    /// Where the value stands, as it is escaped.
    pub span: Range<usize>,
    /// The value.
    pub value: Vec<u8>,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The first line is missing: GRUB says `invalid environment block` and reads nothing.
    NoSignature,
    /// Not 1024 bytes: tools refuse or warn; GRUB reads it.
    WrongSize(usize),
    /// The last line does not end, or has no `=`: GRUB reads nothing from there on.
    BrokenLine(usize),
    /// What stands before the closing `#` is no newline: GRUB can write no variable.
    NoRoom,
}

impl Grubenv {
    /// Parses any bytes.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut block = Self { bytes, variables: Vec::new(), problems: Vec::new() };
        if block.bytes.len() != SIZE {
            block.problems.push(Problem::WrongSize(block.bytes.len()));
        }
        // GRUB asks for one byte more than the signature has.
        if !block.bytes.starts_with(SIGNATURE) || block.bytes.len() <= SIGNATURE.len() {
            block.problems.push(Problem::NoSignature);
        }
        block.read();
        if block.bytes.get(block.room().start.wrapping_sub(1)) != Some(&b'\n') {
            block.problems.push(Problem::NoRoom);
        }
        block
    }

    fn read(&mut self) {
        // Without a signature GRUB reads nothing; for people the lines still mean what they say.
        let mut at = if self.bytes.starts_with(SIGNATURE) { SIGNATURE.len() } else { 0 };
        let mut line = usize::from(at > 0).saturating_add(1);
        while let Some(first) = self.bytes.get(at) {
            if *first == b'#' {
                let rest = self.bytes.get(at..).unwrap_or_default();
                let (length, lines) = value_length(rest);
                at = at.saturating_add(length).saturating_add(1);
                line = line.saturating_add(lines).saturating_add(1);
                continue;
            }
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(equals) = rest.iter().position(|byte| *byte == b'=') else {
                self.problems.push(Problem::BrokenLine(line));
                return;
            };
            let start = at.saturating_add(equals).saturating_add(1);
            let (length, lines) = value_length(self.bytes.get(start..).unwrap_or_default());
            let end = start.saturating_add(length);
            if end >= self.bytes.len() {
                self.problems.push(Problem::BrokenLine(line));
                return;
            }
            let name = rest.get(..equals).unwrap_or_default().to_vec();
            let inside = name.iter().filter(|byte| **byte == b'\n').count();
            let value = unescape(self.bytes.get(start..end).unwrap_or_default());
            self.variables.push(Variable { line, name, span: start..end, value });
            line = line.saturating_add(lines).saturating_add(inside).saturating_add(1);
            at = end.saturating_add(1);
        }
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The variables in order.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// What is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether GRUB takes it for an environment block.
    pub fn is_valid(&self) -> bool {
        !self.problems.contains(&Problem::NoSignature)
    }

    /// The value of a variable; the last one wins, as each is set in turn.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let is_it = |variable: &&Variable| variable.name == name.as_bytes();
        self.variables.iter().rev().find(is_it).map(|variable| variable.value.as_slice())
    }

    /// The `#` at the end.
    fn room(&self) -> Range<usize> {
        let hashes = self.bytes.iter().rev().take_while(|byte| **byte == b'#').count();
        self.bytes.len().saturating_sub(hashes)..self.bytes.len()
    }

    /// Sets a variable, in its place or behind the last one; the size stays. `None` when there is no room, or the
    /// block is broken.
    pub fn set(&self, name: &str, value: &[u8]) -> Option<Edit> {
        let escaped = escape(value);
        match self.variables.iter().find(|variable| variable.name == name.as_bytes()) {
            Some(variable) => self.splice(variable.span.clone(), &escaped),
            None => {
                let at = self.room().start;
                self.splice(at..at, &[name.as_bytes(), b"=", &escaped, b"\n"].concat())
            }
        }
    }

    /// Takes a variable out; the size stays. `None` when it is not there.
    pub fn unset(&self, name: &str) -> Option<Edit> {
        let variable = self.variables.iter().find(|variable| variable.name == name.as_bytes())?;
        let start = variable.span.start.checked_sub(variable.name.len())?.checked_sub(1)?;
        self.splice(start..variable.span.end.checked_add(1)?, b"")
    }

    /// Replaces a span and lets the closing `#` make up for the difference.
    fn splice(&self, span: Range<usize>, new: &[u8]) -> Option<Edit> {
        let room = self.room();
        if !self.is_valid() || self.bytes.get(room.start.checked_sub(1)?) != Some(&b'\n') {
            return None;
        }
        let between = self.bytes.get(span.end..room.start)?;
        let mut tail = [new, between].concat();
        let length = self.bytes.len().checked_sub(span.start)?;
        if tail.len() > length {
            return None;
        }
        tail.resize(length, b'#');
        Some(Edit::replace(&self.bytes, span.start..self.bytes.len(), tail))
    }

    /// A new block with these variables; `None` when they do not fit.
    pub fn build(variables: &[(&str, &[u8])]) -> Option<Vec<u8>> {
        let mut bytes = SIGNATURE.to_vec();
        for (name, value) in variables {
            bytes.extend_from_slice(&[name.as_bytes(), b"=", &escape(value), b"\n"].concat());
        }
        (bytes.len() <= SIZE).then(|| {
            bytes.resize(SIZE, b'#');
            bytes
        })
    }
}

/// Up to the newline that no backslash hides, and the newlines on the way.
fn value_length(text: &[u8]) -> (usize, usize) {
    let mut at = 0_usize;
    let mut lines = 0_usize;
    loop {
        match text.get(at) {
            None | Some(b'\n') => return (at, lines),
            Some(b'\\') => {
                lines = lines.saturating_add(usize::from(text.get(at.saturating_add(1)) == Some(&b'\n')));
                at = at.saturating_add(2);
            }
            Some(_) => at = at.saturating_add(1),
        }
    }
}

fn escape(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for byte in value {
        if matches!(byte, b'\\' | b'\n') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        value.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    fn sample() -> Vec<u8> {
        Grubenv::build(&[("saved_entry", b"a>b"), ("x", b"1\\2\n3"), ("empty", b"")]).unwrap()
    }

    #[test]
    fn variables_and_edits() {
        let bytes = sample();
        let block = Grubenv::parse(bytes.clone());
        assert!(block.problems().is_empty(), "{:?}", block.problems());
        assert_eq!(block.get("x"), Some(b"1\\2\n3".as_slice()));
        assert_eq!(block.get("empty"), Some(b"".as_slice()));
        assert_eq!(block.variables()[2].line, 5);
        for (name, value) in [("saved_entry", b"longer value".as_slice()), ("x", b""), ("new", b"y\n")] {
            let edited = apply(&bytes, &[block.set(name, value).unwrap()]).unwrap();
            let again = Grubenv::parse(edited);
            assert!(again.problems().is_empty());
            assert_eq!(again.get(name), Some(value));
            assert_eq!(again.get("empty"), Some(b"".as_slice()));
        }
        let edited = apply(&bytes, &[block.unset("x").unwrap()]).unwrap();
        assert_eq!(Grubenv::parse(edited).variables().len(), 2);
        assert!(block.set("y", &[b'z'; 1000]).is_none() && block.unset("y").is_none());
    }

    #[test]
    fn what_is_wrong() {
        let problems = |bytes: &[u8]| Grubenv::parse(bytes).problems().to_vec();
        assert_eq!(problems(b""), [Problem::WrongSize(0), Problem::NoSignature, Problem::NoRoom]);
        let mut bytes = sample();
        bytes.truncate(1000);
        assert_eq!(problems(&bytes), [Problem::WrongSize(1000)]);
        let mut bytes = sample();
        bytes[2] = b'g';
        assert_eq!(problems(&bytes), [Problem::NoSignature]);
        let mut bytes = sample();
        bytes[1023] = 0;
        assert_eq!(problems(&bytes), [Problem::NoRoom]);
        let mut bytes = sample();
        bytes.fill(b'x');
        bytes[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        assert_eq!(problems(&bytes), [Problem::BrokenLine(2), Problem::NoRoom]);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 3_u32;
        for round in 0..20_000 {
            let mut bytes = sample();
            for _ in 0..round % 6 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % 90;
                bytes[at] = b"\n\\#=\0a\xff"[(state >> 3) as usize % 7];
            }
            bytes.truncate(1024 - (round % 7) * 100);
            let block = Grubenv::parse(bytes.clone());
            assert_eq!(block.to_bytes(), bytes);
            if let Some(edit) = block.set("saved_entry", b"q") {
                let edited = apply(&bytes, &[edit]).unwrap();
                assert_eq!(edited.len(), bytes.len());
            }
        }
    }
}
