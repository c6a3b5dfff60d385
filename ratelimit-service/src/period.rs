//! Periods by name.

use jiff::civil::Date;
use tollgate_domain::{Day, Period, Span};

/// Milliseconds since the Unix epoch of a date's beginning in UTC.
fn start_ms(date: Date) -> Option<u64> {
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(at.as_millisecond()).ok()
}

/// The month `2026-11` or the day `2026-11-25`, in UTC.
///
/// # Errors
/// When it is neither, or before 1970; with what is expected.
pub fn parse(name: &str) -> Result<Period, String> {
    let refused = || format!("`{name}` is no month such as 2026-11 and no day such as 2026-11-25, of 1970 or later");
    let date = |text: &str| text.parse::<Date>().ok().and_then(start_ms);
    match name.matches('-').count() {
        1 => date(&format!("{name}-01")).map(|at_ms| Period::around(Span::Month, at_ms)).ok_or_else(refused),
        _ => day(name).map(|first| Period { first, end: first.plus(1) }).ok_or_else(refused),
    }
}

/// The day `2026-11-25`, in UTC; `None` for anything else.
pub fn day(name: &str) -> Option<Day> {
    name.parse().ok().and_then(start_ms).map(Day::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_days_have_names() {
        let named = |name| parse(name).map(|period| (period.first.to_string(), period.end.to_string()));
        let period = |first: &str, end: &str| Ok((first.to_owned(), end.to_owned()));
        assert_eq!(named("2026-12"), period("2026-12-01", "2027-01-01"));
        assert_eq!(named("2024-02-29"), period("2024-02-29", "2024-03-01"));
        for name in ["", "2026", "2026-13", "2025-02-29", "1969-12", "november", "2026-11-25T10:00:00Z"] {
            assert!(named(name).unwrap_err().contains("is no month such as"), "{name}");
        }
    }
}
