//! Known bytes, or the reason why they are not known.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What is not known, and which line asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The file, as GRUB names it: `(hd0,msdos1)/boot/grub/grub.cfg`.
    pub file: String,
    /// Its line, from 1; 0 when no line asked.
    pub line: usize,
    /// What is not known.
    pub reason: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

/// A string of the script: bytes, or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// These bytes.
    Known(Arc<[u8]>),
    /// Some bytes.
    Unknown(Arc<Unknown>),
}

impl Value {
    /// The bytes, if they are known.
    pub fn known(&self) -> Option<&[u8]> {
        match self {
            Self::Known(bytes) => Some(bytes),
            Self::Unknown(_) => None,
        }
    }

    /// The text; `?` when it is unknown.
    pub fn text(&self) -> Cow<'_, str> {
        self.known().map_or(Cow::Borrowed("?"), String::from_utf8_lossy)
    }

    pub(super) fn as_result(&self) -> Result<&[u8], Arc<Unknown>> {
        match self {
            Self::Known(bytes) => Ok(bytes),
            Self::Unknown(unknown) => Err(unknown.clone()),
        }
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Known(bytes.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Known(bytes.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Known(text.as_bytes().into())
    }
}
