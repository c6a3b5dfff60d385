//! Months as a tenant's invoices have them.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// 9999-01-01T00:00:00Z: every moment before it has a next month, in every zone. Later moments count as this one.
const LAST_MS: u64 = 253_370_764_800_000;

/// Where a tenant's months begin: at the first moment of a day of the month in a time zone. Months that lack the day
/// begin on their last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingCalendar {
    zone: TimeZone,
    day: i8,
}

/// A month of a [`BillingCalendar`]: from `start_ms` to before `end_ms`, milliseconds since the Unix epoch. One that
/// begins before 1970 begins with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BillingMonth {
    /// Its beginning.
    pub start_ms: u64,
    /// The beginning of the next one.
    pub end_ms: u64,
    /// Its first day in the zone.
    pub first: Date,
    /// Its last day in the zone.
    pub last: Date,
    /// The zone's name, such as `Europe/Berlin`; empty where it has none.
    pub zone: String,
}

impl BillingCalendar {
    /// Months from that day on, 1 to 31; `None` for another. The zone's data is the caller's to find.
    pub fn new(zone: TimeZone, day: u8) -> Option<BillingCalendar> {
        (1..=31).contains(&day).then_some(BillingCalendar { zone, day: day as i8 })
    }

    /// The month that the moment `at_ms` lies in: each moment lies in one, and they follow on each other without a gap.
    pub fn month(&self, at_ms: u64) -> BillingMonth {
        let at_ms = at_ms.min(LAST_MS);
        let at = Timestamp::from_millisecond(at_ms as i64).unwrap_or_default();
        let today = self.zone.to_datetime(at).date();
        let mut number = (i32::from(today.year()) - 1970) * 12 + i32::from(today.month()) - 1;
        if self.begin_ms(number) > at_ms {
            number -= 1;
        } else if self.begin_ms(number + 1) <= at_ms {
            // A clock that is set back over midnight shows the last day again, in a month that is over.
            number += 1;
        }
        BillingMonth {
            start_ms: self.begin_ms(number),
            end_ms: self.begin_ms(number + 1),
            first: self.first(number),
            last: self.first(number + 1).saturating_sub(1.day()),
            zone: self.zone.iana_name().unwrap_or_default().to_owned(),
        }
    }

    /// The first day of the month that is `number` months after January 1970.
    fn first(&self, number: i32) -> Date {
        date(1970, 1, self.day).saturating_add(number.months())
    }

    /// Its first moment. Where the day's midnight is skipped that is the first after it; where it comes twice, the
    /// first of them.
    fn begin_ms(&self, number: i32) -> u64 {
        let begin = self.first(number).to_zoned(self.zone.clone()).map(|begin| begin.timestamp().as_millisecond());
        begin.map_or(LAST_MS, |ms| u64::try_from(ms).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn calendar(rules: &str, day: u8) -> BillingCalendar {
        BillingCalendar::new(TimeZone::posix(rules).unwrap(), day).unwrap()
    }

    #[test]
    fn months_are_those_of_the_zone() {
        let new_york = calendar("EST5EDT,M3.2.0,M11.1.0", 1);
        let march = new_york.month(ms("2026-03-31T12:00:00Z"));
        assert_eq!((march.start_ms, march.end_ms), (ms("2026-03-01T05:00:00Z"), ms("2026-04-01T04:00:00Z")));
        assert_eq!((march.first, march.last), (date(2026, 3, 1), date(2026, 3, 31)));
        assert_eq!(new_york.month(march.end_ms - 1), march);
        assert_eq!(new_york.month(march.end_ms).first, date(2026, 4, 1));
        assert_eq!(BillingCalendar::new(TimeZone::UTC, 1).unwrap().month(0).zone, "UTC");
        assert_eq!(BillingCalendar::new(TimeZone::UTC, 0), None);
        assert_eq!(BillingCalendar::new(TimeZone::UTC, 32), None);
    }

    #[test]
    fn months_that_lack_the_day_begin_on_their_last() {
        let firsts = |at: &str| {
            let month = calendar("CET-1CEST,M3.5.0,M10.5.0/3", 30).month(ms(at));
            (month.first.to_string(), month.last.to_string())
        };
        let days = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(firsts("2024-02-28T22:59:59Z"), days("2024-01-30", "2024-02-28"));
        assert_eq!(firsts("2024-02-28T23:00:00Z"), days("2024-02-29", "2024-03-29"));
        assert_eq!(firsts("2026-02-28T10:00:00Z"), days("2026-02-28", "2026-03-29"));
    }

    /// The clock is set from 0:30 on the first of November back to 23:30, and at midnight of the first of April on to
    /// 1:00.
    const OVER_MIDNIGHT: &str = "AAA0BBB-1,J91/0,J305/0:30";

    #[test]
    fn a_clock_that_is_set_at_midnight_leaves_no_gap() {
        let calendar = calendar(OVER_MIDNIGHT, 1);
        let november = ms("2026-10-31T23:00:00Z");
        assert_eq!(calendar.month(november - 1).end_ms, november);
        assert_eq!(calendar.month(november + 45 * 60_000).start_ms, november, "23:45 on the 31st, for the second time");
        assert_eq!(calendar.month(ms("2026-04-01T00:00:00Z")).start_ms, ms("2026-04-01T00:00:00Z"));
    }

    #[test]
    fn the_ends_of_time_lie_in_months() {
        for zone in ["AAA12", "AAA-14", OVER_MIDNIGHT] {
            let (first, last) = (calendar(zone, 1).month(0), calendar(zone, 31).month(u64::MAX));
            assert_eq!(first.start_ms, 0);
            assert!(first.end_ms > 0 && last.start_ms < last.end_ms, "{last:?}");
        }
    }

    proptest! {
        #[test]
        fn each_moment_lies_in_one_month(
            at_ms in 0..LAST_MS,
            day in 1..=31_u8,
            zone in prop::sample::select(vec!["UTC0", "EST5EDT,M3.2.0,M11.1.0", "AAA-14", "AAA12", OVER_MIDNIGHT]),
        ) {
            let calendar = calendar(zone, day);
            let month = calendar.month(at_ms);
            prop_assert!(month.start_ms <= at_ms && at_ms < month.end_ms);
            prop_assert_eq!(&calendar.month(month.end_ms - 1), &month);
            prop_assert_eq!(&calendar.month(month.start_ms), &month);
            let next = calendar.month(month.end_ms);
            prop_assert_eq!((next.start_ms, next.first), (month.end_ms, month.last.tomorrow().unwrap()));
        }
    }
}
