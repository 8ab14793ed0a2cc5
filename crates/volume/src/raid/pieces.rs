//! A request cut at the chunks that it touches.

use std::ops::Range;

/// The most bytes of one piece, so that no scratch buffer follows a chunk's size.
const MAX_PIECE: u64 = 1 << 20;

/// One piece of a request, within one chunk.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The chunk's number in the array.
    pub(super) chunk: u64,
    /// First byte within the chunk.
    pub(super) within: u64,
    /// The piece as a range of the request's buffer.
    pub(super) range: Range<usize>,
}

/// The pieces of the request for `length` bytes at byte `offset`, in order, for chunks of `chunk` bytes.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "chunks are above 0, requests end below 2^62, and pieces are no longer than the request"
)]
pub(super) fn pieces(chunk: u64, offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset + done as u64;
        let within = at % chunk;
        let count = (chunk - within).min(MAX_PIECE).min((length - done) as u64) as usize;
        let piece = Piece { chunk: at / chunk, within, range: done..done + count };
        done += count;
        Some(piece)
    })
}

/// A buffer's length as devices count.
#[expect(clippy::as_conversions, reason = "memory is shorter than 2^64 bytes")]
pub(super) fn length(buffer: &[u8]) -> u64 {
    buffer.len() as u64
}
