//! The bytes of one structure, with the place they came from.
//!
//! Reading past the end of a structure is damage in the field that pointed there, never a panic.

use std::fmt::Display;

use ondisk::{Corrupt, le};
use zerocopy::FromBytes;

use crate::number::index;

/// The outcome of judging bytes that are already in memory.
pub(crate) type Checked<T> = Result<T, Corrupt>;

/// Bytes of one structure. `Copy`, because it is only a view. Integers are little-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    /// The structure, in the words of the field.
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

    /// The raw layout `T` at byte `at`.
    pub(crate) fn value<T: FromBytes>(&self, at: usize, field: &'static str) -> Checked<T> {
        let bytes = self.slice(at, size_of::<T>(), field)?;
        T::read_from_bytes(bytes).map_err(|_| self.corrupt(field, size_of::<T>(), bytes.len()))
    }

    pub(crate) fn u8(&self, at: usize, field: &'static str) -> Checked<u8> {
        self.value(at, field)
    }

    pub(crate) fn u16(&self, at: usize, field: &'static str) -> Checked<u16> {
        Ok(self.value::<le::U16>(at, field)?.get())
    }

    pub(crate) fn u32(&self, at: usize, field: &'static str) -> Checked<u32> {
        Ok(self.value::<le::U32>(at, field)?.get())
    }

    pub(crate) fn u64(&self, at: usize, field: &'static str) -> Checked<u64> {
        Ok(self.value::<le::U64>(at, field)?.get())
    }

    /// A 16-bit field that counts bytes.
    pub(crate) fn length16(&self, at: usize, field: &'static str) -> Checked<usize> {
        Ok(usize::from(self.u16(at, field)?))
    }

    /// A 32-bit field that counts bytes.
    pub(crate) fn length32(&self, at: usize, field: &'static str) -> Checked<usize> {
        Ok(index(self.u32(at, field)?))
    }
}

/// UTF-16 code units; a last odd byte is left out.
pub(crate) fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_is_damage() {
        let span = Span::new("test", 7, &[1, 2, 3]);
        assert_eq!(span.u16(1, "field").unwrap(), 0x0302);
        let corrupt = span.u16(2, "field").unwrap_err();
        assert_eq!(
            corrupt.to_string(),
            "test at byte 7: field is 2 bytes at byte 2, expected a place within 3 bytes"
        );
        assert!(span.slice(usize::MAX, 2, "field").is_err());
        assert!(units(&[0x41, 0, 0x42]).eq([0x41]));
    }
}
