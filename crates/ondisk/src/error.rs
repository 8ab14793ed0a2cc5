//! The three ways in which reading can fail, and the value that keeps what was understood.

use std::fmt;
use std::io;

/// What the format crates return; a decoder that only judges bytes says `Result<T, Corrupt>`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be read or understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host failed us.
    #[error("cannot read {length} bytes at byte {offset}")]
    Io {
        /// First byte of the read, on the device that was read.
        offset: u64,
        /// Length of the read in bytes.
        length: u64,
        /// What the host said.
        source: io::Error,
    },
    /// Writing failed; the overlay below holds an unknown part of the change.
    #[error("cannot write {length} bytes at byte {offset}")]
    Write {
        /// First byte of the write.
        offset: u64,
        /// Length of the write in bytes.
        length: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The guest's bytes break the rules of the format.
    #[error(transparent)]
    Corrupt(Box<Corrupt>),
    /// Legal bytes that use a feature this code does not know.
    #[error("{structure}: {feature} is not supported")]
    Unsupported {
        /// The structure that asks for the feature.
        structure: &'static str,
        /// The feature, by the name its specification gives it.
        feature: String,
    },
    /// Bytes that nothing here can know: a part is missing, a key, a log that was never written.
    #[error("{structure} cannot be read: {reason}")]
    Unavailable {
        /// What cannot be read.
        structure: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Unsupported`].
    pub fn unsupported(structure: &'static str, feature: impl Into<String>) -> Self {
        Self::Unsupported { structure, feature: feature.into() }
    }

    /// An [`Error::Unavailable`].
    pub fn unavailable(structure: &'static str, reason: impl Into<String>) -> Self {
        Self::Unavailable { structure, reason: reason.into() }
    }

    /// The damage, if that is what this is.
    pub fn as_corrupt(&self) -> Option<&Corrupt> {
        match self {
            Self::Corrupt(corrupt) => Some(corrupt),
            _ => None,
        }
    }
}

impl From<Corrupt> for Error {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(Box::new(corrupt))
    }
}

/// Damage in one field of one structure: enough for a hex frame on screen and a line in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    /// The structure, in its specification's words: "GPT header", "AGF", "extent tree block".
    pub structure: &'static str,
    /// First byte of the structure on the device it was read from.
    pub offset: u64,
    /// The field, by its specification's name.
    pub field: &'static str,
    /// What the format allows there.
    pub expected: String,
    /// What was there.
    pub found: String,
}

impl Corrupt {
    /// Damage in `field` of the `structure` that starts at byte `offset`.
    pub fn new(
        structure: &'static str,
        offset: u64,
        field: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self { structure, offset, field, expected: expected.to_string(), found: found.to_string() }
    }

    /// A checksum that does not fit its content.
    pub fn checksum(structure: &'static str, offset: u64, computed: u32, stored: u32) -> Self {
        Self::new(
            structure,
            offset,
            "checksum",
            format_args!("{computed:#010x}"),
            format_args!("{stored:#010x}"),
        )
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { structure, offset, field, expected, found } = self;
        write!(f, "{structure} at byte {offset}: {field} is {found}, expected {expected}")
    }
}

impl std::error::Error for Corrupt {}

/// What was understood, and what was wrong on the way.
#[derive(Debug)]
pub struct Parsed<T> {
    /// What was understood.
    pub value: T,
    /// What was wrong; empty for a healthy thing.
    pub problems: Vec<Error>,
}

impl<T> Parsed<T> {
    /// A value without problems.
    pub fn clean(value: T) -> Self {
        Self { value, problems: Vec::new() }
    }

    /// The same problems with another value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Parsed<U> {
        Parsed { value: convert(self.value), problems: self.problems }
    }
}
