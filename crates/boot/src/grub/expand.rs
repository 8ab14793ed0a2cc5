//! Words to arguments: variables, splitting, quotes.
//!
//! GRUB keeps a word escaped for wildcards until all its pieces are together, and takes the backslashes out
//! afterwards. A piece of text or a quoted piece, even an empty one, makes an argument; a variable only when it
//! holds something.

use std::sync::Arc;

use guest_files::grub_cfg::{Part, Word};

use super::interpreter::Machine;
use super::number::is_space;
use super::script::{Origin, Script};
use super::state::Status;
use super::value::{Unknown, Value};

/// An argument of a command.
#[derive(Debug, Clone)]
pub(super) struct Arg {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The first variable in the word, and where its value was set.
    pub(super) variable: Option<(Vec<u8>, Origin)>,
}

#[derive(Default)]
struct Build {
    /// Escaped.
    raw: Vec<u8>,
    unknown: Option<Arc<Unknown>>,
    variable: Option<(Vec<u8>, Origin)>,
}

impl Machine<'_> {
    /// The arguments that `words` become.
    pub(super) fn expand(&mut self, script: &Script, words: &[Word]) -> Vec<Arg> {
        let mut args = Vec::new();
        for word in words {
            let origin = script.origin(&word.span, word.line);
            let mut built: Vec<Build> = Vec::new();
            // Whether the next piece starts a new argument.
            let mut current: Option<Build> = None;
            for part in &word.parts {
                match part {
                    Part::Text(text) => current.get_or_insert_default().raw.extend_from_slice(text),
                    Part::Quoted(text) => escape(text, &mut current.get_or_insert_default().raw),
                    Part::Translated(text) => self.translated(text, &mut current),
                    Part::Variable { name, is_quoted } => {
                        let values = self.values(name, *is_quoted);
                        let set_at = self.state.get(name).and_then(|variable| variable.origin.clone());
                        for (index, value) in values.into_iter().enumerate() {
                            if index > 0 {
                                built.extend(current.take());
                            }
                            let build = current.get_or_insert_default();
                            if build.variable.is_none() {
                                build.variable = set_at.clone().map(|origin| (name.clone(), origin));
                            }
                            match value {
                                Value::Known(bytes) if *is_quoted => escape(&bytes, &mut build.raw),
                                Value::Known(bytes) => escape_unquoted(&bytes, &mut build.raw),
                                Value::Unknown(unknown) => build.unknown = Some(unknown),
                            }
                        }
                    }
                }
            }
            built.extend(current);
            for build in built {
                let value = self.finish(&build, &origin);
                args.push(Arg { value, origin: origin.clone(), variable: build.variable });
            }
        }
        args
    }

    fn finish(&mut self, build: &Build, origin: &Origin) -> Value {
        if let Some(unknown) = &build.unknown {
            return Value::Unknown(unknown.clone());
        }
        if !self.spend(build.raw.len()) {
            return Value::from("");
        }
        if self.state.has_wildcards && has_wildcard(&build.raw) {
            return Value::Unknown(self.unknown(origin, "which files a pattern matches"));
        }
        Value::from(unescape(&build.raw, self.setup.release.is_red_hat))
    }

    /// The values of a variable: none when it is empty, several when it is split.
    fn values(&mut self, name: &[u8], is_quoted: bool) -> Vec<Value> {
        let scope = self.state.scope.clone();
        let single = |value: &Value| match value {
            Value::Known(bytes) if bytes.is_empty() => Vec::new(),
            Value::Known(bytes) if !is_quoted => split(bytes),
            _ => vec![value.clone()],
        };
        let first_digit = name.first().is_some_and(u8::is_ascii_digit);
        match name {
            b"?" => match &self.state.status {
                Some(Status::Known(number)) => vec![Value::from(number.to_string().as_str())],
                Some(Status::Unknown(unknown)) => vec![Value::Unknown(unknown.clone())],
                None => Vec::new(),
            },
            b"#" => scope.iter().map(|scope| Value::from(scope.len().to_string().as_str())).collect(),
            b"@" => scope.iter().flat_map(|scope| scope.iter()).flat_map(single).collect(),
            b"*" if is_quoted => {
                let Some(scope) = scope else { return Vec::new() };
                let known: Result<Vec<&[u8]>, _> = scope.iter().map(Value::as_result).collect();
                match known {
                    Ok(known) if known.is_empty() => Vec::new(),
                    Ok(known) => vec![Value::from(known.join(&b' '))],
                    Err(unknown) => vec![Value::Unknown(unknown)],
                }
            }
            b"*" => scope.iter().flat_map(|scope| scope.iter()).flat_map(single).collect(),
            _ if first_digit => {
                let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<usize>().ok());
                let index = number.and_then(|number| number.checked_sub(1));
                index.and_then(|index| scope.as_ref()?.get(index).map(single)).unwrap_or_default()
            }
            _ => self.state.get(name).map(|variable| single(&variable.value)).unwrap_or_default(),
        }
    }

    /// `$"…"`: taken as it stands; which words a translation would have decides nothing.
    fn translated(&mut self, text: &[u8], current: &mut Option<Build>) {
        let build = current.get_or_insert_default();
        let mut rest = text;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                b'\\' if tail.first().is_some_and(|next| matches!(next, b'\\' | b'$')) => {
                    escape(tail.get(..1).unwrap_or_default(), &mut build.raw);
                    rest = tail.get(1..).unwrap_or_default();
                }
                b'$' => {
                    let inner = tail.strip_prefix(b"{").unwrap_or(tail);
                    let counts = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
                    let length = inner.iter().take_while(counts).count();
                    let value = self.state.get(inner.get(..length).unwrap_or_default());
                    match value.map(|variable| &variable.value) {
                        Some(Value::Known(bytes)) => escape(bytes, &mut build.raw),
                        Some(Value::Unknown(unknown)) => build.unknown = Some(unknown.clone()),
                        None => {}
                    }
                    rest = inner.get(length..).unwrap_or_default();
                    rest = rest.strip_prefix(b"}").filter(|_| inner.len() < tail.len()).unwrap_or(rest);
                }
                byte => escape(&[*byte], &mut build.raw),
            }
        }
    }
}

/// The words of a value between blanks.
fn split(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).map(Value::from).collect()
}

/// `\xHH`, which Red Hat's build leaves as it is.
fn is_hex_escape(text: &[u8]) -> bool {
    matches!(text, [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

fn escape(text: &[u8], raw: &mut Vec<u8>) {
    for byte in text {
        if matches!(byte, b'*' | b'\\' | b'?') {
            raw.push(b'\\');
        }
        raw.push(*byte);
    }
}

/// Of a value outside of quotes only backslashes before wildcards are kept.
fn escape_unquoted(text: &[u8], raw: &mut Vec<u8>) {
    for (index, byte) in text.iter().enumerate() {
        if *byte == b'\\' {
            raw.push(b'\\');
            if matches!(text.get(index + 1), Some(b'?' | b'*')) {
                raw.push(b'\\');
            }
        }
        raw.push(*byte);
    }
}

fn unescape(raw: &[u8], keeps_hex: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        if keeps_hex && is_hex_escape(&raw[at..]) {
            text.extend_from_slice(&raw[at..at + 4]);
            at += 4;
        } else if *byte == b'\\' {
            text.extend(raw.get(at + 1));
            at += 2;
        } else {
            text.push(*byte);
            at += 1;
        }
    }
    text
}

fn has_wildcard(raw: &[u8]) -> bool {
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' => return true,
            _ => {}
        }
    }
    false
}
