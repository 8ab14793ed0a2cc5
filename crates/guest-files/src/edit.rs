//! A change to a document: one span, the bytes that must be there, and the new ones.

use std::ops::Range;

/// Replaces one span of a document. Carries the old bytes, so it is its own precondition and its own undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// First byte of the span.
    pub at: usize,
    /// What must stand there.
    pub old: Vec<u8>,
    /// What will.
    pub new: Vec<u8>,
}

/// Why edits cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// The document does not hold the old bytes at this offset.
    Mismatch(usize),
    /// Two edits overlap at this offset.
    Overlap(usize),
}

impl std::fmt::Display for EditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mismatch(at) => write!(f, "the file differs at byte {at} from what was examined"),
            Self::Overlap(at) => write!(f, "two edits overlap at byte {at}"),
        }
    }
}

impl std::error::Error for EditError {}

impl Edit {
    /// Replaces `span` of `bytes` by `new`; a span outside of `bytes` is an edit that never applies.
    pub fn replace(bytes: &[u8], span: Range<usize>, new: impl Into<Vec<u8>>) -> Self {
        let old = bytes.get(span.clone()).unwrap_or_default().to_vec();
        Self { at: span.start, old, new: new.into() }
    }

    /// First byte behind the span.
    pub fn end(&self) -> usize {
        self.at.saturating_add(self.old.len())
    }
}

/// The document with all `edits` applied; their order does not matter.
///
/// # Errors
/// [`EditError`] when an edit's old bytes are not there, or two edits overlap; nothing is applied then.
pub fn apply(bytes: &[u8], edits: &[Edit]) -> Result<Vec<u8>, EditError> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.at);
    sorted.dedup();
    let mut result = Vec::with_capacity(bytes.len());
    let mut done = 0;
    for edit in sorted {
        let untouched = bytes.get(done..edit.at).ok_or(EditError::Overlap(edit.at))?;
        if bytes.get(edit.at..edit.end()) != Some(edit.old.as_slice()) {
            return Err(EditError::Mismatch(edit.at));
        }
        result.extend_from_slice(untouched);
        result.extend_from_slice(&edit.new);
        done = edit.end();
    }
    result.extend_from_slice(bytes.get(done..).unwrap_or_default());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_any_order_and_only_on_what_they_saw() {
        let text = b"one two three";
        let first = Edit::replace(text, 0..3, "1");
        let last = Edit::replace(text, 8..13, "3");
        assert_eq!(apply(text, &[last.clone(), first.clone()]).unwrap(), b"1 two 3");
        assert_eq!(apply(b"one two tree!", std::slice::from_ref(&last)), Err(EditError::Mismatch(8)));
        assert_eq!(apply(text, &[first.clone(), Edit::replace(text, 2..4, "x")]), Err(EditError::Overlap(2)));
        assert_eq!(apply(text, &[first.clone(), first]).unwrap(), b"1 two three");
        assert_eq!(apply(b"", &[last]), Err(EditError::Overlap(8)));
    }
}
