//! What a rule reports.

use std::ops::Range;

use repair::Fix;
use storage::NodeId;

use crate::Rule;

/// How bad a fault is on the hardware that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Fails after a plausible change of the hardware, or costs time at every boot.
    Warning,
    /// The boot fails.
    Error,
}

impl Severity {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One fault, found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which fault.
    pub rule: &'static Rule,
    /// How bad it is here.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What is there, in words that fit under the quoted line.
    pub label: String,
    /// What follows from it; one sentence each.
    pub notes: Vec<String>,
    /// What would cure it.
    pub fix: Option<Fix>,
}

/// Where a fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The device: of a file, the one whose file system holds it.
    pub node: NodeId,
    /// Where on it.
    pub spot: Spot,
}

/// A place on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// The device as a whole.
    Device,
    /// A sector of 512 bytes, from 0.
    Sector(u64),
    /// A file as a whole, there or not: its path as the guest sees it.
    File(String),
    /// A span of one line of a file.
    Line(Line),
}

/// A span of one line of a guest's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Path as the guest sees it.
    pub file: String,
    /// From 1.
    pub number: usize,
    /// Bytes within the line, from 0.
    pub columns: Range<usize>,
    /// The line without its newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Place {
    /// The file, if it is in one.
    pub fn file(&self) -> Option<&str> {
        match &self.spot {
            Spot::File(file) => Some(file),
            Spot::Line(line) => Some(&line.file),
            Spot::Device | Spot::Sector(_) => None,
        }
    }

    /// The line, if it is one.
    pub fn line(&self) -> Option<&Line> {
        match &self.spot {
            Spot::Line(line) => Some(line),
            _ => None,
        }
    }

    /// Whether `other` is the same line, file, sector or device, whatever is written there.
    pub fn is_at(&self, other: &Self) -> bool {
        let number = |place: &Self| place.line().map(|line| line.number);
        self.node == other.node
            && match (&self.spot, &other.spot) {
                (Spot::Sector(a), Spot::Sector(b)) => a == b,
                (Spot::Device, Spot::Device) => true,
                _ => self.file().is_some() && self.file() == other.file() && number(self) == number(other),
            }
    }
}
