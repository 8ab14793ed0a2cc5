//! The field of RAID 6: GF(2^8) with the polynomial 0x11d and the generator 2.
//!
//! H. P. Anvin, "The mathematics of RAID-6"; Linux' `lib/raid6`.

/// Powers of the generator, twice over, so that a sum of two logarithms needs no reduction.
#[expect(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
const EXP: [u8; 512] = {
    let mut table = [0; 512];
    let mut value = 1_u8;
    let mut index = 0;
    while index < 512 {
        table[index] = value;
        value = value << 1 ^ if value & 0x80 == 0 { 0 } else { 0x1d };
        index += 1;
    }
    table
};

/// Logarithms to the generator; that of 0 is not used.
#[expect(clippy::indexing_slicing, clippy::as_conversions, reason = "evaluated when this is compiled")]
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u8;
    while index < 255 {
        table[EXP[index as usize] as usize] = index;
        index += 1;
    }
    table
};

/// A number of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gf(pub(super) u8);

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "logarithms are below 255, and the table of powers has 512"
)]
impl Gf {
    /// The generator to the power of `exponent`, which counts modulo 255.
    pub(super) fn power(exponent: u8) -> Self {
        Self(EXP[usize::from(exponent)])
    }

    pub(super) fn times(self, other: Self) -> Self {
        if self.0 == 0 || other.0 == 0 {
            return Self(0);
        }
        Self(EXP[usize::from(LOG[usize::from(self.0)]) + usize::from(LOG[usize::from(other.0)])])
    }

    /// The inverse; of 0, 1.
    pub(super) fn inverse(self) -> Self {
        Self(EXP[255 - usize::from(LOG[usize::from(self.0)])])
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    /// Multiplies every byte.
    pub(super) fn scale(self, bytes: &mut [u8]) {
        if self.0 == 1 {
            return;
        }
        let table = self.table();
        for byte in bytes {
            *byte = table[usize::from(*byte)];
        }
    }

    /// Adds `bytes` times this number to `sum`.
    pub(super) fn add_scaled(self, sum: &mut [u8], bytes: &[u8]) {
        if self.0 == 1 {
            return add(sum, bytes);
        }
        let table = self.table();
        for (target, byte) in sum.iter_mut().zip(bytes) {
            *target ^= table[usize::from(*byte)];
        }
    }

    fn table(self) -> [u8; 256] {
        let mut table = [0; 256];
        for (entry, byte) in table.iter_mut().zip(0..=255) {
            *entry = self.times(Self(byte)).0;
        }
        table
    }
}

/// Adds `bytes` to `sum`: exclusive or.
pub(super) fn add(sum: &mut [u8], bytes: &[u8]) {
    for (target, byte) in sum.iter_mut().zip(bytes) {
        *target ^= byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication by the definition: polynomials modulo 0x11d.
    fn by_definition(a: u8, b: u8) -> u8 {
        let mut product = 0_u32;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u32::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11d << (bit - 8);
            }
        }
        product as u8
    }

    #[test]
    fn the_tables_follow_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(Gf(a).times(Gf(b)).0, by_definition(a, b));
            }
            if a != 0 {
                assert_eq!(Gf(a).times(Gf(a).inverse()), Gf(1));
            }
        }
        assert_eq!(Gf::power(8), Gf(0x1d));
        assert_eq!(Gf::power(255), Gf(1));
    }
}
