//! What leaves the process: one file per form of output.

pub(crate) mod container;
pub(crate) mod diff;
pub(crate) mod found;
pub(crate) mod human;
pub(crate) mod json;
mod settings;
mod style;
pub(crate) mod table;
pub(crate) mod tree;

use std::collections::BTreeMap;

use filesystem::FsInfo;
use storage::NodeId;

pub(crate) use style::Style;

/// What file systems say of themselves.
pub(crate) type Facts = BTreeMap<NodeId, FsInfo>;

/// Text from an image, made safe for a terminal: control characters become their escapes.
pub(crate) fn plain(text: &str) -> String {
    let is_safe = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(is_safe) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut safe, c| {
        if is_safe(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
        safe
    })
}

/// A size in the unit that keeps it short: `2.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// `2026-11-24 00:17` in UTC; the civil date by the usual day-count arithmetic.
pub(crate) fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let time = seconds.rem_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", time / 3600, time % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_safe_from_what_an_image_says() {
        assert_eq!(plain("a\u{1b}[31mb\r\u{7f}\u{9b}ü\n"), "a\\u{1b}[31mb\\r\\u{7f}\\u{9b}ü\n");
    }

    #[test]
    fn sizes() {
        let text = [0, 1023, 1024, 1536, 320 << 20, 5 << 29].map(size);
        assert_eq!(text, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "320 MiB", "2.5 GiB"]);
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_795_479_420), "2026-11-24 00:17");
        assert_eq!(date(-1), "1969-12-31 23:59");
    }
}
