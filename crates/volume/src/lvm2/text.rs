//! LVM2's configuration text: sections, numbers, strings and lists.
//!
//! `name { … }` and `key = value`, where a value is a number, a quoted string with `\"` and `\\`, or a list in
//! brackets; `#` starts a comment. See lvm.conf(5).

use std::collections::BTreeMap;

/// How deep sections may nest; LVM's own metadata nests four deep.
const MAX_DEPTH: usize = 16;

/// What stands in braces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// In no particular order; the last of two equal keys wins.
    pub(crate) values: BTreeMap<String, Value>,
    /// Likewise.
    pub(crate) sections: BTreeMap<String, Section>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    String(String),
    List(Vec<Value>),
}

/// Where the text breaks its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}")]
pub(crate) struct SyntaxError {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) expected: &'static str,
}

impl Section {
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key) {
            Some(Value::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(crate) fn string(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::String(string)) => Some(string),
            _ => None,
        }
    }

    pub(crate) fn list(&self, key: &str) -> &[Value] {
        match self.values.get(key) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// The strings of the list `key`.
    pub(crate) fn strings(&self, key: &str) -> Vec<String> {
        let strings = self.list(key).iter().filter_map(|value| match value {
            Value::String(string) => Some(string.clone()),
            _ => None,
        });
        strings.collect()
    }

    /// Whether the list `key` contains the string `word`, as in `status = ["READ", "VISIBLE"]`.
    pub(crate) fn lists(&self, key: &str, word: &str) -> bool {
        self.list(key).iter().any(|value| matches!(value, Value::String(found) if found == word))
    }
}

/// Parses a whole text; NUL bytes at its end are dropped.
pub(crate) fn parse(text: &[u8]) -> Result<Section, SyntaxError> {
    let mut parser = Parser { rest: text, line: 1 };
    let section = parser.section(0)?;
    if parser.peek().is_some() { Err(parser.expected("the end of the text")) } else { Ok(section) }
}

struct Parser<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Parser<'_> {
    fn expected(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { line: self.line, expected }
    }

    fn bump(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        if *first == b'\n' {
            self.line = self.line.saturating_add(1);
        }
        self.rest = rest;
        Some(*first)
    }

    /// The next byte that is neither blank nor in a comment.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.rest.first()? {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.bump();
                }
                b'#' => while self.bump().is_some_and(|byte| byte != b'\n') {},
                0 => return None,
                byte => return Some(*byte),
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.bump();
        }
        is_next
    }

    fn section(&mut self, depth: usize) -> Result<Section, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.expected("fewer nested sections"));
        }
        let mut section = Section::default();
        while let Some(byte) = self.peek() {
            if byte == b'}' {
                break;
            }
            let name = self.word()?;
            if self.take(b'{') {
                let inner = self.section(depth.saturating_add(1))?;
                if !self.take(b'}') {
                    return Err(self.expected("`}`"));
                }
                section.sections.insert(name, inner);
            } else if self.take(b'=') {
                let value = self.value(depth)?;
                section.values.insert(name, value);
            } else {
                return Err(self.expected("`=` or `{`"));
            }
        }
        Ok(section)
    }

    fn word(&mut self) -> Result<String, SyntaxError> {
        if self.peek() == Some(b'"') {
            return self.quoted();
        }
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/:".contains(byte);
        let length = self.rest.iter().take_while(|byte| is_word(byte)).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        if word.is_empty() { Err(self.expected("a name")) } else { Ok(String::from_utf8_lossy(word).into()) }
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        match self.peek() {
            Some(b'"') => self.quoted().map(Value::String),
            Some(b'[') if depth <= MAX_DEPTH => {
                self.bump();
                let mut list = Vec::new();
                while !self.take(b']') {
                    list.push(self.value(depth.saturating_add(1))?);
                    self.take(b',');
                }
                Ok(Value::List(list))
            }
            _ => {
                let word = self.word().map_err(|_| self.expected("a value"))?;
                // lvm.conf has fractions; nothing here needs more than their whole part.
                let whole = word.split('.').next().unwrap_or_default();
                whole.parse().map(Value::Number).map_err(|_| self.expected("a number"))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, SyntaxError> {
        self.bump();
        let mut bytes = Vec::new();
        loop {
            match self.bump() {
                Some(b'"') => return Ok(String::from_utf8_lossy(&bytes).into()),
                Some(b'\\') => bytes.extend(self.bump()),
                Some(byte) => bytes.push(byte),
                None => return Err(self.expected("`\"`")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_values_and_lists() {
        let section = parse(
            b"# comment\nvg {\n id = \"a\\\"b\\\\\" # tail\n seqno = 3\n status = [\"READ\", \"WRITE\"]\n empty = []\n\
              lv-1 { stripes = [\"pv0\", 0, \"pv1\", 12]\n}\n}\ncontents = \"Text\"\nversion = 1.5\n\0\0",
        )
        .unwrap();
        let vg = &section.sections["vg"];
        assert_eq!(vg.string("id"), Some("a\"b\\"));
        assert_eq!(vg.number("seqno"), Some(3));
        assert!(vg.lists("status", "WRITE") && !vg.lists("status", "X") && vg.list("empty").is_empty());
        assert_eq!(vg.sections["lv-1"].list("stripes").len(), 4);
        assert_eq!(section.number("version"), Some(1));
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("a {\n b = 1\n"), "line 3: expected `}`");
        assert_eq!(error("a\n!"), "line 2: expected `=` or `{`");
        assert_eq!(error("a = \"x"), "line 1: expected `\"`");
        assert_eq!(error("a = }"), "line 1: expected a value");
        assert_eq!(error("}"), "line 1: expected the end of the text");
        assert!(error(&"a {".repeat(100)).ends_with("fewer nested sections"));
        assert!(parse(format!("a = {}", "[".repeat(100_000)).as_bytes()).is_err());
    }
}
