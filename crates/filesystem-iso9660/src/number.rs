//! Conversions that cannot fail where this code is built, said once.

const _: () = assert!(usize::BITS >= 32 && usize::BITS <= 64);

/// A 32-bit count or offset as an index.
pub(crate) fn index(value: u32) -> usize {
    usize::try_from(value).expect("usize has at least 32 bits, asserted above")
}

/// An index as a byte count.
pub(crate) fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("usize has at most 64 bits, asserted above")
}

/// A byte count as an index, cut to what memory could hold at most.
pub(crate) fn narrow(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
