//! The file, with the place that was reached.

use std::io::{self, BufRead, Read};

/// Counts what is consumed, and keeps the first error of the host apart from what decoders make of it.
pub(super) struct Source<'a> {
    input: &'a mut dyn BufRead,
    position: u64,
    error: Option<io::Error>,
}

impl<'a> Source<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead) -> Self {
        Self { input, position: 0, error: None }
    }

    /// Bytes consumed so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What the host could not read.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The bytes that come next, at least one unless the file ends here.
    pub(super) fn head(&mut self) -> Vec<u8> {
        let bytes = self.fill_buf().unwrap_or_default();
        bytes[..bytes.len().min(8)].to_vec()
    }

    /// The padding between archives, until the file or `limit` bytes of it end.
    pub(super) fn skip_zeros(&mut self, limit: u64) {
        while self.position < limit {
            let Ok(bytes) = self.fill_buf() else { return };
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let is_done = zeros < bytes.len() || bytes.is_empty();
            self.consume(zeros);
            if is_done {
                return;
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buf.len());
        buf[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Asked twice, as the borrow of an early return would last too long; the second call finds it in the buffer.
        if let Err(error) = self.input.fill_buf() {
            let kind = error.kind();
            self.error.get_or_insert(error);
            return Err(kind.into());
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
        self.input.consume(count);
    }
}
