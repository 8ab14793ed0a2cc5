//! Times, in three forms: seven bytes, seventeen digits, and the names that `blkid` makes of the latter.

use filesystem::Timestamp;

use crate::field::u8_at;

/// The seven bytes of a directory record: years since 1900, month, day, hour, minute, second, offset from Greenwich in
/// quarters of an hour.
pub(crate) fn short(bytes: &[u8]) -> Option<Timestamp> {
    let part = |at| u8_at(bytes, at).map(i64::from);
    let year = part(0)?.checked_add(1900)?;
    seconds(year, part(1)?, part(2)?, part(3)?, part(4)?, part(5)?, u8_at(bytes, 6)?)
}

/// `YYYYMMDDHHMMSSCC` in digits, then the offset.
pub(crate) fn long(bytes: &[u8]) -> Option<Timestamp> {
    let digits = std::str::from_utf8(bytes.get(..16)?).ok()?;
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<u16>().ok().map(i64::from);
    let hundredths = u32::try_from(part(14, 16)?).ok()?;
    let whole = seconds(
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        u8_at(bytes, 16)?,
    )?;
    Some(Timestamp { nanoseconds: hundredths.checked_mul(10_000_000)?, ..whole })
}

fn seconds(
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    zone: u8,
) -> Option<Timestamp> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, counted in years that begin in March.
    let shifted = if month < 3 { year.checked_sub(1)? } else { year };
    let of_year = month.checked_add(9)?.checked_rem(12)?.checked_mul(153)?.checked_add(2)?.checked_div(5)?;
    let days = shifted
        .checked_mul(365)?
        .checked_add(shifted.div_euclid(4))?
        .checked_sub(shifted.div_euclid(100))?
        .checked_add(shifted.div_euclid(400))?
        .checked_add(of_year)?
        .checked_add(day)?
        .checked_sub(719_469)?;
    let quarters = i64::from(i8::from_le_bytes([zone]));
    // Beyond 13 hours the offset is none.
    let quarters = if (-52..=52).contains(&quarters) { quarters } else { 0 };
    let of_day = hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    let seconds = days.checked_mul(86_400)?.checked_add(of_day)?.checked_sub(quarters.checked_mul(900)?)?;
    Some(Timestamp { seconds, nanoseconds: 0 })
}

/// The digits with dashes, as `blkid` makes a UUID of them; `None` where the time is not set.
pub(crate) fn uuid(bytes: &[u8]) -> Option<String> {
    let digits = bytes.get(..16)?;
    let is_set = digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0');
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_set)?;
    let mut text = digits.get(..4)?.to_owned();
    for at in (4_usize..16).step_by(2) {
        text.push('-');
        text.push_str(digits.get(at..at.saturating_add(2))?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let at = |bytes: [u8; 7]| short(&bytes).map(|time| time.seconds);
        assert_eq!(at([70, 1, 1, 0, 0, 0, 0]), Some(0));
        assert_eq!(at([100, 2, 29, 12, 0, 1, 0]), Some(951_825_601));
        assert_eq!(at([126, 11, 26, 20, 0, 0, 4]), Some(1_795_719_600));
        assert_eq!(at([126, 11, 26, 20, 0, 0, 0xfc]), Some(1_795_726_800));
        assert_eq!(at([0, 1, 1, 0, 0, 0, 0]), Some(-2_208_988_800));
        assert_eq!((at([70, 0, 1, 0, 0, 0, 0]), at([70, 1, 32, 0, 0, 0, 0])), (None, None));
        let time = long(b"2026112620000012\x04").unwrap();
        assert_eq!((time.seconds, time.nanoseconds), (1_795_719_600, 120_000_000));
        assert_eq!(uuid(b"2026112620000012\x04").as_deref(), Some("2026-11-26-20-00-00-12"));
        assert_eq!((uuid(b"0000000000000000\0"), uuid(b"2026")), (None, None));
    }
}
