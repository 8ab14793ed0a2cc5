//! GRUB's reading of numbers: blanks in front, base by prefix, letters when the base has them.

/// Why there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotANumber {
    NoDigits,
    Overflow,
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// As `grub_strtoull` with base 0 or 10: the number, and what stands behind it. `$?` aside, an overflow yields the
/// largest number and no digits yield 0.
pub(super) fn unsigned(text: &[u8], base: u32) -> (Result<u64, NotANumber>, &[u8]) {
    let mut rest = text;
    while let [first, tail @ ..] = rest
        && is_space(*first)
    {
        rest = tail;
    }
    let mut base = base;
    if base == 0 {
        match rest {
            [b'0', b'x', tail @ ..] => (base, rest) = (16, tail),
            [b'0', b'0'..=b'7', ..] => base = 8,
            _ => base = 10,
        }
    }
    let mut number = 0_u64;
    let mut found = false;
    while let [first, tail @ ..] = rest
        && let Some(digit) = char::from(*first).to_digit(base)
    {
        let next =
            number.checked_mul(u64::from(base)).and_then(|number| number.checked_add(u64::from(digit)));
        let Some(next) = next else { return (Err(NotANumber::Overflow), rest) };
        (number, rest, found) = (next, tail, true);
    }
    (if found { Ok(number) } else { Err(NotANumber::NoDigits) }, rest)
}

/// As `test` reads numbers: a minus sign, and whatever number there is.
pub(super) fn signed(text: &[u8]) -> i64 {
    let lenient = |text| match unsigned(text, 0).0 {
        Ok(number) => number.cast_signed(),
        Err(NotANumber::NoDigits) => 0,
        Err(NotANumber::Overflow) => -1,
    };
    match text.strip_prefix(b"-") {
        Some(rest) => lenient(rest).wrapping_neg(),
        None => lenient(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(unsigned(b" 12a", 0), (Ok(12), b"a".as_slice()));
        assert_eq!(unsigned(b"0x1F", 0).0, Ok(31));
        assert_eq!(unsigned(b"017", 0).0, Ok(15));
        assert_eq!(unsigned(b"09", 0).0, Ok(9));
        assert_eq!(unsigned(b"0", 0).0, Ok(0));
        assert_eq!(unsigned(b"x", 0).0, Err(NotANumber::NoDigits));
        assert_eq!(unsigned(b"99999999999999999999", 0).0, Err(NotANumber::Overflow));
        assert_eq!((signed(b"-3"), signed(b"x"), signed(b"")), (-3, 0, 0));
    }
}
