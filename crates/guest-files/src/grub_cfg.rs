//! GRUB's script language: `grub.cfg` and everything that it sources.
//!
//! GRUB manual, "Writing full configuration files directly"; the grammar of GRUB 2.02–2.12. The language looks
//! like a shell and is not one:
//!
//! - A file is read line by line. A line is one *unit*; a unit goes on over more lines only while an `if`, a
//!   loop, a function, a `{` or a quote is open, or behind a backslash. A syntax error costs its unit and nothing
//!   else: GRUB says so and goes on with the line behind the one in which it gave up.
//! - A comment is a `#` at the start of a word. Lines that begin with `#` never reach the parser, not even
//!   inside quotes; neither does a carriage return; a NUL hides the rest of its line.
//! - Reserved words are reserved only where a command starts; `[[`, `]]`, `case`, `esac` and `select` start none.
//! - A `$` that starts no variable is an error, in double quotes too. A word has at most 8191 bytes.
//! - A block `{ … }` is the last argument of its command, on the line of that command. It is kept as text and
//!   read again when it is run: [`GrubCfg::parse_block`].
//!
//! Every word and command has its place in the file, so that an [`crate::Edit`] can replace it.

mod lexer;
mod parser;
mod text;
mod tree;

use std::ops::Range;

pub use tree::{Block, Command, Part, Simple, SyntaxError, SyntaxErrorKind, Unit, Word};

use crate::Edit;
use text::Text;

/// Who reads the file: they treat odd bytes differently before the parser sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reader {
    /// GRUB at boot: lines that start with `#` and carriage returns do not exist.
    #[default]
    Grub,
    /// `grub-script-check`: tabs and carriage returns are blanks, lines that start with `#` are comments.
    ScriptCheck,
}

/// A script: its bytes, and what GRUB makes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubCfg {
    bytes: Vec<u8>,
    text: Text,
    /// Offset of the first byte of every line.
    lines: Vec<usize>,
    units: Vec<Unit>,
}

impl GrubCfg {
    /// Parses any bytes as GRUB reads them at boot.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Self {
        Self::parse_as(bytes, Reader::Grub)
    }

    /// Parses any bytes as `reader` reads them.
    pub fn parse_as(bytes: impl Into<Vec<u8>>, reader: Reader) -> Self {
        let bytes = bytes.into();
        let text = Text::new(&bytes, reader);
        let mut lines = vec![0];
        lines.extend((1..).zip(&bytes).filter(|(_, byte)| **byte == b'\n').map(|(next, _)| next));
        let mut cfg = Self { bytes, text, lines, units: Vec::new() };
        cfg.units = parser::units(&cfg.text, 0..cfg.text.bytes.len(), &cfg.lines);
        cfg
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The units in order, those with a syntax error included.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The body of a block of this file, as GRUB parses it when the block is run.
    pub fn parse_block(&self, block: &Block) -> Vec<Unit> {
        parser::units(&self.text, block.text.clone(), &self.lines)
    }

    /// Whether the last line of a block's body is empty: GRUB before 2.14 takes it for a command that succeeded.
    pub fn ends_with_newline(&self, block: &Block) -> bool {
        self.text.bytes.get(block.text.clone()).is_some_and(|text| text.ends_with(b"\n"))
    }

    /// The syntax errors, in order. Each costs its unit.
    pub fn errors(&self) -> impl Iterator<Item = &SyntaxError> {
        self.units.iter().filter_map(|unit| unit.commands.as_ref().err())
    }

    /// The verdict of `grub-script-check`: no syntax error, and something to run. Meant for
    /// [`Reader::ScriptCheck`].
    pub fn is_sound(&self) -> bool {
        let has_commands = |unit: &Unit| {
            let is_run = |command: &Command| !matches!(command, Command::Function { .. });
            unit.commands.as_ref().is_ok_and(|commands| commands.iter().any(is_run))
        };
        self.errors().next().is_none() && self.units.iter().any(has_commands)
    }

    /// The bytes of a span of this file.
    pub fn slice(&self, span: Range<usize>) -> &[u8] {
        self.bytes.get(span).unwrap_or_default()
    }

    /// The line, from 1, of a byte of this file.
    pub fn line_of(&self, offset: usize) -> usize {
        text::line_of(&self.lines, offset)
    }

    /// The column, from 1 and in bytes, of a byte of this file.
    pub fn column_of(&self, offset: usize) -> usize {
        let line = self.line_of(offset).saturating_sub(1);
        offset.saturating_sub(self.lines.get(line).copied().unwrap_or_default()).saturating_add(1)
    }

    /// Replaces a span, say a word's, by text that is already GRUB script.
    pub fn replace(&self, span: Range<usize>, new: impl Into<Vec<u8>>) -> Edit {
        Edit::replace(&self.bytes, span, new)
    }

    /// Replaces a word by one that expands to `value`, quoted if need be.
    pub fn set_word(&self, word: &Word, value: &[u8]) -> Edit {
        self.replace(word.span.clone(), quote(value))
    }

    /// Adds a word that expands to `value` behind a word of the same command.
    pub fn insert_word_after(&self, word: &Word, value: &[u8]) -> Edit {
        let mut new = vec![b' '];
        new.extend_from_slice(&quote(value));
        self.replace(word.span.end..word.span.end, new)
    }

    /// Takes a word out, with the blanks before it.
    pub fn remove_word(&self, word: &Word) -> Edit {
        let before = self.bytes.get(..word.span.start).unwrap_or_default();
        let blanks = before.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.replace(word.span.start.saturating_sub(blanks)..word.span.end, "")
    }

    /// Every simple command of the file, however deep, blocks included; at most `limit`.
    pub fn all_commands(&self, limit: usize) -> Vec<Simple> {
        let mut found = Vec::new();
        let mut pending: Vec<Vec<Unit>> = vec![self.units.clone()];
        let mut depth = 0_usize;
        while let Some(units) = pending.pop() {
            depth = depth.saturating_add(1);
            let mut commands: Vec<&Command> =
                units.iter().rev().flat_map(|unit| unit.commands.iter().flatten().rev()).collect();
            while let Some(command) = commands.pop() {
                if found.len() >= limit || depth > limit {
                    pending.clear();
                    break;
                }
                match command {
                    Command::Simple(simple) => {
                        found.push(simple.clone());
                        pending.extend(simple.block.as_ref().map(|block| self.parse_block(block)));
                    }
                    Command::If { arms, otherwise, .. } => {
                        commands.extend(otherwise.iter().rev());
                        for (condition, then) in arms.iter().rev() {
                            commands.extend(then.iter().rev());
                            commands.extend(condition.iter().rev());
                        }
                    }
                    Command::While { condition, body, .. } => {
                        commands.extend(body.iter().rev());
                        commands.extend(condition.iter().rev());
                    }
                    Command::For { body, .. } | Command::Function { body, .. } => {
                        commands.extend(body.iter().rev());
                    }
                }
            }
        }
        found.sort_by_key(|command: &Simple| command.span.start);
        found
    }
}

/// A word of GRUB script that expands to `value`.
pub fn quote(value: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:=,+@%".contains(byte) || *byte >= 0x80;
    if !value.is_empty() && value.iter().all(is_plain) {
        return value.to_vec();
    }
    let mut word = vec![b'\''];
    for byte in value {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            _ => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    const SAMPLE: &str = "# made by nobody\nset default=\"0\"\nif [ -n \"${x}\" ]; then\n  set y='a b'\nfi\n\
        function f {\n  true\n}\nmenuentry 'One \"1\"' --class a $opt 'id' {\n\t# in\n#out\n\
        \tlinux\t/boot/vmlinuz root=UUID=1 ro  quiet \\\n\t  splash\n}\r\nsubmenu s { menuentry t { chainloader +1; } }\n";

    #[test]
    fn words_know_their_place() {
        let cfg = GrubCfg::parse(SAMPLE);
        assert_eq!(cfg.to_bytes(), SAMPLE.as_bytes());
        assert_eq!(cfg.errors().next(), None);
        let commands = cfg.all_commands(100);
        let names: Vec<String> = commands
            .iter()
            .map(|command| String::from_utf8_lossy(&command.name().unwrap()).into_owned())
            .collect();
        assert_eq!(
            names,
            ["set", "[", "set", "true", "menuentry", "linux", "submenu", "menuentry", "chainloader"]
        );
        let linux = &commands[5];
        assert_eq!((linux.line, linux.words.len()), (12, 7));
        assert_eq!(cfg.slice(linux.words[2].span.clone()), b"root=UUID=1");
        assert!(linux.words[5].parts.is_empty());
        assert_eq!(linux.words[6].line, 13);
        assert_eq!(cfg.column_of(linux.words[2].span.start), 22);
        let edit = cfg.set_word(&linux.words[2], b"root=/dev/a b");
        let edited = apply(SAMPLE.as_bytes(), &[edit, cfg.remove_word(&linux.words[4])]).unwrap();
        let expected = SAMPLE.replace("root=UUID=1", "'root=/dev/a b'").replace("  quiet", "");
        assert_eq!(String::from_utf8_lossy(&edited), expected);
        let added = apply(SAMPLE.as_bytes(), &[cfg.insert_word_after(&linux.words[4], b"it's")]).unwrap();
        assert!(String::from_utf8_lossy(&added).contains("quiet 'it'\\''s' \\\n"));
        let title = &commands[4].words[1];
        assert_eq!(title.literal().unwrap(), b"One \"1\"");
        let block = commands[4].block.as_ref().unwrap();
        assert!(cfg.slice(block.span.clone()).starts_with(b"\n\t# in\n#out"));
        assert!(cfg.ends_with_newline(block));
        assert_eq!(cfg.parse_block(block)[2].span, linux.span.start - 1..block.span.end);
    }

    #[test]
    fn an_error_costs_its_unit() {
        let cfg = GrubCfg::parse("a\nmenuentry x {\n  b\n  c }\n  d )|\n}\ne\nif f; then\n");
        let lines: Vec<(usize, bool)> =
            cfg.units().iter().map(|unit| (unit.line, unit.commands.is_ok())).collect();
        assert_eq!(lines, [(1, true), (2, true), (5, false), (6, false), (7, true), (8, false)]);
        assert_eq!(cfg.errors().last().unwrap().kind, SyntaxErrorKind::UnexpectedEnd);
    }

    #[test]
    fn what_the_parser_does_not_see() {
        let cfg = GrubCfg::parse("echo 'a\r\n# gone\r\nb'\r\n echo c\0d'\n");
        let commands = cfg.all_commands(9);
        assert_eq!(commands[0].words[1].literal().unwrap(), b"a\nb");
        assert_eq!(cfg.slice(commands[0].words[1].span.clone()), b"'a\r\n# gone\r\nb'");
        assert_eq!(cfg.slice(commands[1].words[1].span.clone()), b"c");
        assert_eq!(commands[1].line, 4);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 9_u64;
        let mut random = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit
        };
        let mut sound = 0;
        for round in 0..20_000 {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = b"\n\r\0'\"\\{}$;#[ x\xff"[random(15)],
                    1 => drop(bytes.drain(at..(at + random(9)).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, *b"if fi}")),
                }
            }
            let reader = if round % 2 == 0 { Reader::Grub } else { Reader::ScriptCheck };
            let cfg = GrubCfg::parse_as(bytes.clone(), reader);
            assert_eq!(cfg.to_bytes(), bytes);
            let mut end = 0;
            for unit in cfg.units() {
                assert!(unit.span.start >= end && unit.span.end <= bytes.len());
                end = unit.span.end;
            }
            for command in cfg.all_commands(50) {
                for word in &command.words {
                    apply(&bytes, &[cfg.set_word(word, b"new")]).unwrap();
                }
            }
            sound += usize::from(cfg.is_sound() && cfg.errors().next().is_none());
        }
        assert!(sound > 3000, "{sound}");
    }
}
