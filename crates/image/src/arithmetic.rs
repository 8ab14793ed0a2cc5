//! Lengths of buffers as offsets and back, and what is said when an offset is too large.

use std::io;

/// The length of a buffer as an offset is counted.
pub(crate) fn length_of<T>(buf: &[T]) -> u64 {
    u64::try_from(buf.len()).unwrap_or(u64::MAX)
}

/// A length that must fit in memory, as an index.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`], only where addresses have fewer than 64 bits.
pub(crate) fn to_index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The failure of arithmetic on offsets that were checked against the bounds of their format before.
pub(crate) fn overflow() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an offset in the image exceeds 2^64")
}

/// The least multiple of `unit`, which is not 0, from `value` on; `u64::MAX` when that exceeds 64 bits.
pub(crate) fn round_up(value: u64, unit: u64) -> u64 {
    value.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}
