//! Options of commands, as `grub_arg_parse` reads them.

use std::sync::Arc;

use super::error::GrubError;
use super::expand::Arg;
use super::value::{Unknown, Value};

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Text,
    /// A text with `=`, or in the next word when it starts with no `-`; or nothing.
    OptionalText,
}

/// One option of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) short: Option<u8>,
    pub(super) takes: Takes,
}

pub(super) const fn opt(long: &'static str, short: Option<u8>, takes: Takes) -> Opt {
    Opt { long, short, takes }
}

/// Options found, and the other arguments.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) options: Vec<(&'static str, Option<Arg>)>,
    pub(super) rest: Vec<Arg>,
}

impl Parsed {
    pub(super) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The last value of an option.
    pub(super) fn value(&self, long: &str) -> Option<&Arg> {
        self.options.iter().rev().find(|(name, _)| *name == long).and_then(|(_, value)| value.as_ref())
    }

    pub(super) fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a Arg> {
        self.options.iter().filter(move |(name, _)| *name == long).filter_map(|(_, value)| value.as_ref())
    }
}

/// Why arguments cannot be told apart.
pub(super) enum ArgsError {
    Error(GrubError),
    Unknown(Arc<Unknown>),
}

/// Splits `args`; with `accepts_dash`, unknown options are ordinary arguments.
pub(super) fn parse(options: &[Opt], accepts_dash: bool, args: &[Arg]) -> Result<Parsed, ArgsError> {
    let mut parsed = Parsed::default();
    let mut args = args.iter().peekable();
    let starts_with_dash = |arg: &&Arg| arg.value.known().is_some_and(|value| value.starts_with(b"-"));
    while let Some(arg) = args.next() {
        // An unknown word is taken for no option: options are written out.
        let Value::Known(bytes) = &arg.value else {
            parsed.rest.push(arg.clone());
            continue;
        };
        let Some(name) = bytes.strip_prefix(b"-").filter(|name| !name.is_empty()) else {
            parsed.rest.push(arg.clone());
            continue;
        };
        let unknown_argument = |shown: &[u8]| {
            let shown = String::from_utf8_lossy(shown);
            ArgsError::Error(GrubError::bad_argument(&format!("unknown argument `{shown}'")))
        };
        let missing = |option: &Opt| {
            ArgsError::Error(GrubError::bad_argument(&format!(
                "missing mandatory option for `{}'",
                option.long
            )))
        };
        if let Some(long) = name.strip_prefix(b"-") {
            if long.is_empty() {
                parsed.rest.extend(args.cloned());
                return Ok(parsed);
            }
            let equals = long.iter().position(|byte| *byte == b'=');
            let (long, attached) = match equals {
                Some(at) => (&long[..at], Some(Arg { value: Value::from(&long[at + 1..]), ..arg.clone() })),
                None => (long, None),
            };
            let Some(option) = options.iter().find(|option| option.long.as_bytes() == long) else {
                if accepts_dash {
                    parsed.rest.push(arg.clone());
                    continue;
                }
                return Err(unknown_argument(bytes));
            };
            let value = match option.takes {
                Takes::Nothing if attached.is_some() => {
                    let shown = String::from_utf8_lossy(bytes);
                    return Err(ArgsError::Error(GrubError::bad_argument(&format!(
                        "a value was assigned to the argument `{shown}' while it doesn't require an argument"
                    ))));
                }
                Takes::Nothing => None,
                _ if attached.is_some() => attached,
                _ => match args.peek() {
                    Some(next) if !starts_with_dash(next) => args.next().cloned(),
                    _ => None,
                },
            };
            if option.takes == Takes::Text && value.is_none() {
                return Err(missing(option));
            }
            parsed.options.push((option.long, value));
            continue;
        }
        let find = |letter: u8| options.iter().find(|option| option.short == Some(letter));
        if accepts_dash && name.iter().any(|letter| find(*letter).is_none()) {
            parsed.rest.push(arg.clone());
            continue;
        }
        for (index, letter) in name.iter().enumerate() {
            let Some(option) = find(*letter) else { return Err(unknown_argument(&[b'-', *letter])) };
            let is_last = index + 1 == name.len();
            let value = match option.takes {
                Takes::Nothing => None,
                Takes::Text if !is_last => return Err(missing(option)),
                _ if !is_last => None,
                Takes::Text => match args.next() {
                    Some(next) => Some(next.clone()),
                    None => return Err(missing(option)),
                },
                Takes::OptionalText => match args.peek() {
                    Some(next) if !starts_with_dash(next) => args.next().cloned(),
                    _ => None,
                },
            };
            parsed.options.push((option.long, value));
        }
    }
    Ok(parsed)
}

impl From<Arc<Unknown>> for ArgsError {
    fn from(unknown: Arc<Unknown>) -> Self {
        Self::Unknown(unknown)
    }
}
