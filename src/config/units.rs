//! Durations and sizes with units, as operators write them: "1800ms", "5s", "1d"; "64MiB", "64MB"; 0 alone. Both
//! ways, so that a summary shows values as they can be written back. And times that were measured, for people. What is *not* here: which key allows which values.

use std::time::Duration;

/// What stands beside the caret under a bad duration.
pub(crate) const DURATION_FORM: &str =
    "expected a whole number and a unit (ms, s, m, h, d, w), such as \"5s\"";
/// What stands beside the caret under a bad size.
pub(crate) const SIZE_FORM: &str =
    "expected a whole number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as \"64MiB\"";

/// Units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of sizes in octets, largest first and binary before decimal: the first that divides a size is shown.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

/// Why a text is no duration or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// No digits in front, a fraction, a sign.
    #[error("not a whole number with a unit")]
    Number,
    /// A number alone.
    #[error("a unit is missing")]
    NoUnit,
    /// Letters that are none of ours.
    #[error("unknown unit")]
    UnknownUnit,
    /// Past 64 bits.
    #[error("too large")]
    TooLarge,
}

/// Reads a duration.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Reads a size in octets. `KB` is taken as `kB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE_UNITS)
}

/// Writes a duration in its largest exact unit.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { "0s".to_owned() } else { show(millis, &DURATION_UNITS) }
}

/// Writes a time that was measured, for people: whole milliseconds, from ten seconds on whole seconds.
pub(crate) fn show_measured(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.9995 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.0} s") }
}

/// Writes a size in its largest exact unit.
pub(crate) fn show_size(octets: u64) -> String {
    show(octets, &SIZE_UNITS)
}

/// Reads a whole number and one of the units; blanks may stand between.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if number.is_empty() || unit.starts_with(|c: char| !c.is_ascii_alphabetic()) {
        return Err(UnitError::Number);
    }
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    if unit.is_empty() {
        return if number == 0 { Ok(0) } else { Err(UnitError::NoUnit) };
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(UnitError::UnknownUnit);
    };
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

/// Writes `value` in the first unit that divides it.
fn show(value: u64, units: &[(&str, u64)]) -> String {
    for (name, factor) in units {
        if value != 0 && value.is_multiple_of(*factor) {
            return format!("{}{name}", value / factor);
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1800ms", 1800),
            ("5s", 5000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            (" 3 s ", 3000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (text, octets) in
            [("0", 0), ("64MiB", 64 << 20), ("64MB", 64_000_000), ("1KiB", 1024), ("1KB", 1000), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Ok(octets), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_number_is_told_apart() {
        for (text, error) in [
            ("", UnitError::Number),
            ("s", UnitError::Number),
            ("-1s", UnitError::Number),
            ("1.5s", UnitError::Number),
            ("5", UnitError::NoUnit),
            ("5x", UnitError::UnknownUnit),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn measured_times_have_no_more_digits_than_they_mean() {
        for (micros, text) in [
            (0, "0 ms"),
            (499, "0 ms"),
            (4_001_826, "4002 ms"),
            (9_999_499, "9999 ms"),
            (9_999_500, "10 s"),
            (75_400_000, "75 s"),
        ] {
            assert_eq!(show_measured(Duration::from_micros(micros)), text);
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(millis in 0..u64::MAX) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_shown_size_reads_back(octets: u64) {
            prop_assert_eq!(parse_size(&show_size(octets)), Ok(octets));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
