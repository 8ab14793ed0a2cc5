//! Words and symbols, and when another line is read.
//!
//! GRUB's scanner sees one line at a time. It asks for the next one only inside a quote, behind a backslash, or
//! while something is open (`open` counts it, as the parser says).

use std::ops::Range;

use super::text::Text;
use super::tree::{Part, SyntaxErrorKind};

/// Longest token, in bytes, that GRUB's scanner has room for.
const LONGEST: usize = 8191;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Newline,
    Semicolon,
    BlockStart,
    BlockEnd,
    /// `||`, `&&`, `;;`, `|`, `&`, `<`, `>`, `[[`, `]]`: tokens that no rule uses.
    Useless,
    Reserved(Reserved),
    /// Letters, digits and `_`.
    Name,
    Word,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    Do,
    Done,
    Elif,
    Else,
    Fi,
    For,
    If,
    In,
    Then,
    Until,
    While,
    Function,
    /// `case`, `esac`, `select`: reserved, and used by no rule.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// In the text.
    pub(super) range: Range<usize>,
    /// Of words.
    pub(super) parts: Vec<Part>,
}

pub(super) struct Lexer<'a> {
    text: &'a [u8],
    pub(super) at: usize,
    /// End of the line that is read, behind its newline.
    pub(super) line_end: usize,
    /// End of the text to parse.
    end: usize,
    /// How many constructs are open; while there is one, lines follow.
    pub(super) open: usize,
}

type Lexed<T> = Result<T, (SyntaxErrorKind, Range<usize>)>;

impl<'a> Lexer<'a> {
    /// Starts with the first line of `range`.
    pub(super) fn new(text: &'a Text, range: Range<usize>) -> Self {
        let end = range.end.min(text.bytes.len());
        let mut lexer = Self { text: &text.bytes, at: range.start, line_end: range.start, end, open: 0 };
        lexer.read_line();
        lexer
    }

    /// The next byte of the lines read so far. The last line of a block has no newline of its own; GRUB adds it.
    fn byte(&self, at: usize) -> Option<u8> {
        if at >= self.line_end {
            return None;
        }
        if at >= self.end { Some(b'\n') } else { self.text.get(at).copied() }
    }

    /// Reads one more line; false at the end.
    fn read_line(&mut self) -> bool {
        // At `end` one more, empty line may follow, as GRUB sees it behind the last newline of a block; it holds
        // nothing and is left out.
        if self.line_end >= self.end {
            return false;
        }
        let rest = self.text.get(self.line_end..self.end).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n');
        self.line_end = length.map_or(self.end + 1, |length| self.line_end + length + 1);
        true
    }

    pub(super) fn next(&mut self) -> Lexed<Token> {
        loop {
            let start = self.at;
            let Some(first) = self.byte(start) else {
                if self.open == 0 {
                    return Ok(Token { kind: Kind::End, range: start..start, parts: Vec::new() });
                }
                if !self.read_line() {
                    return Err((SyntaxErrorKind::UnexpectedEnd, start..start));
                }
                continue;
            };
            let is_next = |offset: usize, byte: u8| self.byte(start + offset) == Some(byte);
            let (kind, length) = match first {
                b' ' | b'\t' => {
                    while matches!(self.byte(self.at), Some(b' ' | b'\t')) {
                        self.at += 1;
                    }
                    self.check_length(start, self.at)?;
                    continue;
                }
                b'#' => {
                    while self.byte(self.at).is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                    // The newline counts, though it stays.
                    self.check_length(start, self.at + 1)?;
                    continue;
                }
                b'\n' => (Kind::Newline, 1),
                b';' if is_next(1, b';') => (Kind::Useless, 2),
                b';' => (Kind::Semicolon, 1),
                b'|' | b'&' => (Kind::Useless, if is_next(1, first) { 2 } else { 1 }),
                b'<' | b'>' => (Kind::Useless, 1),
                b'{' => (Kind::BlockStart, 1),
                b'}' => (Kind::BlockEnd, 1),
                _ => return self.word(),
            };
            self.at += length;
            return Ok(Token { kind, range: start..self.at, parts: Vec::new() });
        }
    }

    fn check_length(&self, start: usize, end: usize) -> Lexed<()> {
        if end - start > LONGEST { Err((SyntaxErrorKind::WordTooLong, start..end)) } else { Ok(()) }
    }

    /// Reads one more line into the token that started at `start`.
    fn go_on(&mut self, start: usize) -> Lexed<()> {
        self.check_length(start, self.line_end)?;
        if self.read_line() { Ok(()) } else { Err((SyntaxErrorKind::UnexpectedEnd, start..self.end)) }
    }

    fn word(&mut self) -> Lexed<Token> {
        let start = self.at;
        let mut at = start;
        let mut is_plain = true;
        let mut is_bad = false;
        let mut parts = Vec::new();
        let mut run = Vec::new();
        while let Some(byte) = self.byte(at) {
            match byte {
                b'{' | b'}' | b'|' | b'&' | b';' | b'<' | b'>' | b' ' | b'\t' | b'\n' => break,
                b'\\' => {
                    is_plain = false;
                    let escaped = self.byte(at + 1).unwrap_or(b'\n');
                    if escaped != b'\n' {
                        run.extend([b'\\', escaped]);
                    } else if at + 2 >= self.line_end {
                        self.go_on(start)?;
                    }
                    at += 2;
                }
                b'\'' => {
                    is_plain = false;
                    flush(&mut parts, &mut run);
                    let end = self.closing(start, at + 1, b'\'')?;
                    parts.push(Part::Quoted(self.bytes(at + 1..end)));
                    at = end + 1;
                }
                b'"' => {
                    is_plain = false;
                    flush(&mut parts, &mut run);
                    let end = self.closing(start, at + 1, b'"')?;
                    let inner = self.bytes(at + 1..end);
                    // The whole token is read before its inside is looked at.
                    is_bad |= double_quoted(&inner, &mut parts).is_none();
                    at = end + 1;
                }
                b'$' if self.byte(at + 1) == Some(b'"') => {
                    is_plain = false;
                    flush(&mut parts, &mut run);
                    let end = self.closing(start, at + 2, b'"')?;
                    parts.push(Part::Translated(translated(&self.bytes(at + 2..end))));
                    at = end + 1;
                }
                b'$' => {
                    let rest = self.text.get(at + 1..self.line_end.min(self.end)).unwrap_or_default();
                    let Some((name, length)) = variable(rest) else { break };
                    is_plain = false;
                    flush(&mut parts, &mut run);
                    parts.push(Part::Variable { name, is_quoted: false });
                    at += 1 + length;
                }
                _ => {
                    run.push(byte);
                    at += 1;
                }
            }
        }
        if at == start {
            self.at = start + 1;
            return Err((SyntaxErrorKind::BadToken, start..start + 1));
        }
        self.check_length(start, at)?;
        self.at = at;
        if is_bad {
            return Err((SyntaxErrorKind::BadToken, start..at));
        }
        let kind = if is_plain { plain_kind(&run) } else { Kind::Word };
        flush(&mut parts, &mut run);
        Ok(Token { kind, range: start..at, parts })
    }

    /// Where the quote that is open since before `from` closes; reads lines as needed.
    fn closing(&mut self, start: usize, from: usize, quote: u8) -> Lexed<usize> {
        let mut at = from;
        loop {
            match self.byte(at) {
                Some(byte) if byte == quote => return Ok(at),
                Some(b'\\') if quote == b'"' => at += 2,
                Some(_) => at += 1,
                None => self.go_on(start)?,
            }
        }
    }

    fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        range.filter_map(|at| self.byte(at)).collect()
    }
}

fn flush(parts: &mut Vec<Part>, run: &mut Vec<u8>) {
    if !run.is_empty() {
        parts.push(Part::Text(std::mem::take(run)));
    }
}

fn plain_kind(word: &[u8]) -> Kind {
    let reserved = match word {
        b"[[" | b"]]" => return Kind::Useless,
        b"case" | b"esac" | b"select" => Reserved::Other,
        b"do" => Reserved::Do,
        b"done" => Reserved::Done,
        b"elif" => Reserved::Elif,
        b"else" => Reserved::Else,
        b"fi" => Reserved::Fi,
        b"for" => Reserved::For,
        b"if" => Reserved::If,
        b"in" => Reserved::In,
        b"then" => Reserved::Then,
        b"until" => Reserved::Until,
        b"while" => Reserved::While,
        b"function" => Reserved::Function,
        _ => {
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let starts = word.first().is_some_and(|first| !first.is_ascii_digit());
            return if starts && word.iter().all(is_name) { Kind::Name } else { Kind::Word };
        }
    };
    Kind::Reserved(reserved)
}

/// The variable behind a `$`: its name, and how many bytes it takes.
pub(super) fn variable(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    if let Some(inner) = rest.strip_prefix(b"{") {
        let length = name_length(inner)?;
        let name = inner.get(..length)?.to_vec();
        return (inner.get(length) == Some(&b'}')).then_some((name, length + 2));
    }
    let length = name_length(rest)?;
    Some((rest.get(..length)?.to_vec(), length))
}

fn name_length(text: &[u8]) -> Option<usize> {
    let run = |test: fn(&u8) -> bool| text.iter().take_while(|byte| test(byte)).count();
    match text.first()? {
        b'?' | b'#' | b'*' | b'@' => Some(1),
        first if first.is_ascii_digit() => Some(run(u8::is_ascii_digit)),
        first if first.is_ascii_alphabetic() || *first == b'_' => {
            Some(run(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'))
        }
        _ => None,
    }
}

/// The inside of double quotes; `None` when a `$` starts no variable.
fn double_quoted(inner: &[u8], parts: &mut Vec<Part>) -> Option<()> {
    let mut text = Vec::new();
    let mut is_first = true;
    let mut rest = inner;
    loop {
        match rest {
            [] => break,
            [b'\\', b'\n', tail @ ..] => rest = tail,
            [b'\\', escaped @ (b'$' | b'\\' | b'"'), tail @ ..] => {
                text.push(*escaped);
                rest = tail;
            }
            [b'$', tail @ ..] => {
                let (name, length) = variable(tail)?;
                if !text.is_empty() || is_first {
                    parts.push(Part::Quoted(std::mem::take(&mut text)));
                }
                is_first = false;
                parts.push(Part::Variable { name, is_quoted: true });
                rest = tail.get(length..)?;
            }
            [byte, tail @ ..] => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
    // An empty piece keeps an empty argument alive.
    parts.push(Part::Quoted(text));
    Some(())
}

fn translated(inner: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = inner;
    loop {
        match rest {
            [] => return text,
            [b'\\', b'\n', tail @ ..] => rest = tail,
            [b'\\', b'\\', tail @ ..] => {
                text.extend(b"\\\\");
                rest = tail;
            }
            [b'\\', b'"', tail @ ..] => {
                text.push(b'"');
                rest = tail;
            }
            [byte, tail @ ..] => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
}
