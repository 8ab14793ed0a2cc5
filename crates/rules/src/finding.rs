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

/// A span of one line of a guest's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node whose file system holds the file.
    pub node: NodeId,
    /// Path as the guest sees it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// Bytes within the line, from 0.
    pub columns: Range<usize>,
    /// The line without its newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}
