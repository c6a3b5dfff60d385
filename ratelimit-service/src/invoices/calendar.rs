//! Time zones by name.

use jiff::tz::TimeZone;
use tollgate_domain::invoice::BillingCalendar;

/// Months that begin on `day` of the month (1 to 31) in the time zone that IANA names so, such as `Europe/Berlin`. The
/// zones' data is the program's own, so that an invoice does not depend on the machine.
///
/// # Errors
/// When there is no such zone or day; with what is expected.
pub fn calendar(zone: &str, day: u8) -> Result<BillingCalendar, String> {
    let found = TimeZone::get(zone)
        .map_err(|_| format!("time_zone: `{zone}` is no time zone; write one such as Europe/Berlin, or UTC"))?;
    BillingCalendar::new(found, day).ok_or_else(|| format!("day: {day} is no day of a month; write 1 to 31"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64
    }

    #[test]
    fn zones_have_names() {
        let month = calendar("Europe/Berlin", 1).unwrap().month(ms("2026-10-31T23:00:00Z"));
        assert_eq!((month.start_ms, month.end_ms), (ms("2026-10-31T23:00:00Z"), ms("2026-11-30T23:00:00Z")));
        assert_eq!((month.first.to_string(), &*month.zone), ("2026-11-01".into(), "Europe/Berlin"));
        assert!(calendar("Europe/Bielefeld", 1).unwrap_err().starts_with("time_zone: `Europe/Bielefeld` is no"));
        assert!(calendar("UTC", 32).unwrap_err().starts_with("day: 32 is no day"));
    }

    proptest! {
        /// Zones that skipped a day, set their clocks at midnight, or by half an hour.
        #[test]
        fn each_moment_lies_in_one_month(
            at_ms in 0..ms("2040-01-01T00:00:00Z"),
            day in 1..=31_u8,
            zone in prop::sample::select(vec![
                "Pacific/Apia", "Africa/Cairo", "Asia/Beirut", "America/Havana", "America/Sao_Paulo",
                "Pacific/Kwajalein", "Australia/Lord_Howe", "Africa/Monrovia",
            ]),
        ) {
            let calendar = calendar(zone, day).unwrap();
            let month = calendar.month(at_ms);
            prop_assert!(month.start_ms <= at_ms && at_ms < month.end_ms);
            prop_assert_eq!(&calendar.month(month.end_ms - 1), &month);
            prop_assert_eq!(&calendar.month(month.start_ms), &month);
            prop_assert_eq!(calendar.month(month.end_ms).start_ms, month.end_ms);
        }
    }
}
