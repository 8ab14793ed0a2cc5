//! The bytes of one structure, with the place they came from.
//!
//! Reading past the end of a structure is damage in the field that pointed there, never a panic.

use std::fmt::Display;
use std::ops::Range;

use ondisk::{Corrupt, be, crc32c_raw};
use zerocopy::FromBytes;

/// The outcome of judging bytes that are already in memory.
pub(crate) type Checked<T> = Result<T, Corrupt>;

/// Bytes of one structure. `Copy`, because it is only a view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    /// The structure, in the specification's words.
    pub(crate) structure: &'static str,
    /// First byte on the device.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Span<'a> {
    pub(crate) fn new(structure: &'static str, offset: u64, bytes: &'a [u8]) -> Self {
        Self { structure, offset, bytes }
    }

    /// Damage in `field` of this structure.
    pub(crate) fn corrupt(
        &self,
        field: &'static str,
        expected: impl Display,
        found: impl Display,
    ) -> Corrupt {
        Corrupt::new(self.structure, self.offset, field, expected, found)
    }

    /// `length` bytes from byte `at`; `field` is what led there.
    pub(crate) fn slice(&self, at: usize, length: usize, field: &'static str) -> Checked<&'a [u8]> {
        at.checked_add(length).and_then(|end| self.bytes.get(at..end)).ok_or_else(|| {
            self.corrupt(
                field,
                format_args!("a place within {} bytes", self.bytes.len()),
                format_args!("{length} bytes at byte {at}"),
            )
        })
    }

    /// The part `range` of this structure under the same name, with its own place on the device.
    pub(crate) fn part(&self, range: Range<usize>, field: &'static str) -> Checked<Self> {
        let bytes = self.slice(range.start, range.end.saturating_sub(range.start), field)?;
        Ok(Self { offset: self.offset.saturating_add(crate::number::wide(range.start)), bytes, ..*self })
    }

    /// The raw layout `T` at byte `at`.
    pub(crate) fn value<T: FromBytes>(&self, at: usize, field: &'static str) -> Checked<T> {
        let bytes = self.slice(at, size_of::<T>(), field)?;
        T::read_from_bytes(bytes).map_err(|_| self.corrupt(field, size_of::<T>(), bytes.len()))
    }

    pub(crate) fn u8(&self, at: usize, field: &'static str) -> Checked<u8> {
        self.value(at, field)
    }

    pub(crate) fn u16(&self, at: usize, field: &'static str) -> Checked<u16> {
        Ok(self.value::<be::U16>(at, field)?.get())
    }

    pub(crate) fn u32(&self, at: usize, field: &'static str) -> Checked<u32> {
        Ok(self.value::<be::U32>(at, field)?.get())
    }

    pub(crate) fn u64(&self, at: usize, field: &'static str) -> Checked<u64> {
        Ok(self.value::<be::U64>(at, field)?.get())
    }

    /// Checks the little-endian CRC-32C at byte `at`, computed over all bytes with itself as zeros.
    pub(crate) fn check_crc(&self, at: usize) -> Checked<()> {
        let stored = self.value::<ondisk::le::U32>(at, "crc")?.get();
        let computed = crc_without(self.bytes, at);
        if computed == stored {
            Ok(())
        } else {
            Err(Corrupt::checksum(self.structure, self.offset, computed, stored))
        }
    }
}

/// CRC-32C of `bytes` as if the four bytes from `at` were zeros.
pub(crate) fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let (before, rest) = bytes.split_at(at.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    let state = crc32c_raw(!0, before);
    let state = crc32c_raw(state, &[0; 4]);
    !crc32c_raw(state, after)
}

/// Overwrites the bytes of `target` from `at` on; a range outside it changes nothing.
///
/// For encoders, which work on blocks that a decoder has accepted.
pub(crate) fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    let range = at.checked_add(bytes.len()).and_then(|end| target.get_mut(at..end));
    debug_assert!(range.is_some(), "{} bytes at byte {at}", bytes.len());
    if let Some(range) = range {
        range.copy_from_slice(bytes);
    }
}

/// Stores the CRC-32C of `bytes` at byte `at`.
pub(crate) fn put_crc(bytes: &mut [u8], at: usize) {
    let crc = crc_without(bytes, at);
    put(bytes, at, &crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_treats_itself_as_zeros() {
        let mut bytes: Vec<u8> = (0..200).collect();
        put_crc(&mut bytes, 100);
        let span = Span::new("test", 0, &bytes);
        span.check_crc(100).unwrap();
        let mut zeroed = bytes.clone();
        zeroed[100..104].fill(0);
        assert_eq!(crc_without(&bytes, 100), ondisk::crc32c(&zeroed));
        bytes[199] ^= 1;
        assert_eq!(Span::new("test", 0, &bytes).check_crc(100).unwrap_err().field, "checksum");
    }

    #[test]
    fn reading_past_the_end_is_damage() {
        let span = Span::new("test", 7, &[1, 2, 3]);
        assert_eq!(span.u16(1, "field").unwrap(), 0x0203);
        let corrupt = span.u16(2, "field").unwrap_err();
        assert_eq!(
            corrupt.to_string(),
            "test at byte 7: field is 2 bytes at byte 2, expected a place within 3 bytes"
        );
        assert!(span.slice(usize::MAX, 2, "field").is_err());
    }
}
