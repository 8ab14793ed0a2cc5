//! The bytes that the parser sees, and where each comes from.

use std::ops::Range;

use super::Reader;

/// Text of whole lines: every line ends in a newline, also the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Runs of bytes that stand in the file as they do here: start here, start in the file.
    runs: Vec<(usize, usize)>,
    /// Length of the file.
    file: usize,
}

impl Text {
    pub(super) fn new(file: &[u8], reader: Reader) -> Self {
        let mut text = Self { bytes: Vec::with_capacity(file.len()), runs: Vec::new(), file: file.len() };
        let mut start = 0;
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            let end = start + content.len();
            if reader == Reader::Grub && content.first() == Some(&b'#') {
                start += line.len();
                continue;
            }
            let visible = content.split(|byte| *byte == 0).next().unwrap_or_default();
            match reader {
                Reader::Grub => {
                    let mut at = start;
                    for piece in visible.split(|byte| *byte == b'\r') {
                        text.push(piece, at);
                        at += piece.len() + 1;
                    }
                }
                Reader::ScriptCheck => {
                    let blank = |byte: &u8| if matches!(byte, b'\t' | b'\r') { b' ' } else { *byte };
                    text.push(&visible.iter().map(blank).collect::<Vec<u8>>(), start);
                }
            }
            text.push(b"\n", end);
            start += line.len();
        }
        text
    }

    fn push(&mut self, bytes: &[u8], origin: usize) {
        let here = self.bytes.len();
        let goes_on = self.runs.last().is_some_and(|(start, from)| here - start + from == origin);
        if !goes_on && !bytes.is_empty() {
            self.runs.push((here, origin));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Where a byte of the text stands in the file.
    pub(super) fn origin(&self, at: usize) -> usize {
        let run = self.runs.partition_point(|(start, _)| *start <= at);
        let Some((start, from)) = run.checked_sub(1).and_then(|run| self.runs.get(run)) else {
            return at.min(self.file);
        };
        (at - start + from).min(self.file)
    }

    /// The span of the file that a range of the text covers.
    pub(super) fn span(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.origin(range.start);
        if range.is_empty() {
            return start..start;
        }
        start..(self.origin(range.end - 1) + 1).min(self.file).max(start)
    }
}

/// The line, from 1, in which a byte stands.
pub(super) fn line_of(lines: &[usize], offset: usize) -> usize {
    lines.partition_point(|start| *start <= offset).max(1)
}
