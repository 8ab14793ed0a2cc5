//! VHDX sector bitmap: which sectors of a differencing file's blocks are in this file.
//!
//! MS-VHDX §2.4. One bit for each logical sector, from the least significant bit of each byte; 1 is here, 0 is
//! in the parent.

use std::ops::Range;

/// How many bits from bit `start` on are the same as that one, and which; `None` past the end.
pub(super) fn run(bytes: &[u8], start: usize) -> Option<(bool, usize)> {
    let mut bit = start;
    let is_set = bytes.get(start / 8)?.wrapping_shr(shift(start)) & 1 == 1;
    while let Some(byte) = bytes.get(bit / 8) {
        let differing = if is_set { !byte } else { *byte };
        let rest = 8_u32.saturating_sub(shift(bit));
        let same = differing.wrapping_shr(shift(bit)).trailing_zeros().min(rest);
        bit = bit.saturating_add(usize::try_from(same).unwrap_or(0));
        if same < rest {
            break;
        }
    }
    Some((is_set, bit.saturating_sub(start)))
}

/// Makes the bits of a range, as far as they exist, all 1 or all 0.
pub(super) fn fill(bytes: &mut [u8], range: Range<usize>, is_set: bool) {
    let mut bit = range.start;
    while bit < range.end {
        let whole = (range.end / 8).saturating_sub(bit / 8);
        if bit.is_multiple_of(8) && whole > 0 {
            let bytes = bytes.get_mut(bit / 8..).unwrap_or_default();
            bytes.iter_mut().take(whole).for_each(|byte| *byte = if is_set { 0xff } else { 0 });
            bit = bit.saturating_add(whole.saturating_mul(8));
            continue;
        }
        if let Some(byte) = bytes.get_mut(bit / 8) {
            let mask = 1_u8.wrapping_shl(shift(bit));
            *byte = if is_set { *byte | mask } else { *byte & !mask };
        }
        bit = bit.saturating_add(1);
    }
}

/// The position of a bit within its byte.
fn shift(bit: usize) -> u32 {
    u32::try_from(bit % 8).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_fills_agree_with_single_bits() {
        let mut bits = [false; 80];
        let mut bytes = [0_u8; 10];
        for (range, is_set) in [(3..5, true), (7..41, true), (9..10, false), (16..24, false), (72..80, true)]
        {
            bits[range.clone()].fill(is_set);
            fill(&mut bytes, range, is_set);
            for start in 0..80 {
                let length = bits[start..].iter().take_while(|bit| **bit == bits[start]).count();
                assert_eq!(run(&bytes, start), Some((bits[start], length)), "from {start}");
            }
        }
        assert_eq!(run(&bytes, 80), None);
        fill(&mut bytes, 78..200, false);
        assert_eq!(run(&bytes, 72), Some((true, 6)));
    }
}
