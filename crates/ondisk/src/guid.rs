//! 16-byte identifiers in both byte orders.

use std::fmt;

/// A UUID or GUID, kept as the 16 bytes that its text form spells from left to right.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zeros: "none" in most formats.
    pub const NIL: Self = Self([0; 16]);

    /// From bytes in text order: ext4, XFS, btrfs, swap, md.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From bytes whose first three groups are little-endian: GPT, VHDX, EFI.
    pub fn from_mixed_endian(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        let [i, j, k, l, m, n, o, p] = rest;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    /// Whether all bytes are zero.
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }
}

impl fmt::Display for Guid {
    /// Lower case, as `blkid` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(Guid::from_bytes(bytes).to_string(), "01020304-0506-0708-090a-0b0c0d0e0f10");
        assert_eq!(Guid::from_mixed_endian(bytes).to_string(), "04030201-0605-0807-090a-0b0c0d0e0f10");
    }
}
