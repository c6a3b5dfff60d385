//! Days, weeks and months in UTC. Periods are half open: the end belongs to the next one.

use jiff::ToSpan;
use jiff::civil::{Date, date};

const DAY_MS: u64 = 86_400_000;
const EPOCH: Date = date(1970, 1, 1);
/// 9999-11-30, so that every day here has a next month. Later times count as this day.
const LAST: Day = Day(2_932_865);

/// A calendar day in UTC, as the number of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// 1970-01-01.
    pub const EPOCH: Day = Day(0);

    /// The day that the moment `at_ms` lies in.
    pub fn of(at_ms: u64) -> Day {
        i32::try_from(at_ms / DAY_MS).map_or(LAST, |days| Day(days).min(LAST))
    }

    /// The day that is `days` days after 1970-01-01.
    pub fn from_number(days: i32) -> Day {
        Day(days)
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its first millisecond; 0 for a day before 1970.
    pub fn start_ms(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0) * DAY_MS
    }

    /// The day `days` later, or earlier when that is negative.
    pub fn plus(self, days: i32) -> Day {
        Day(self.0.saturating_add(days))
    }

    fn from_date(date: Date) -> Day {
        Day(date.since(EPOCH).map_or(0, |span| span.get_days()))
    }

    fn date(self) -> Date {
        EPOCH.saturating_add(self.0.days())
    }
}

/// Prints as `2026-11-23`.
impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.date().fmt(f)
    }
}

/// How long a calendar period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// From midnight to midnight.
    Day,
    /// From Monday on.
    Week,
    /// From the first on.
    Month,
}

/// Consecutive days: `first` and all before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first day in it.
    pub first: Day,
    /// The first day after it.
    pub end: Day,
}

impl Period {
    /// The day, week or month that the moment `at_ms` lies in.
    pub fn around(span: Span, at_ms: u64) -> Period {
        let day = Day::of(at_ms);
        match span {
            Span::Day => Period { first: day, end: day.plus(1) },
            Span::Week => {
                let first = day.plus(-i32::from(day.date().weekday().to_monday_zero_offset()));
                Period { first, end: first.plus(7) }
            }
            Span::Month => {
                let first = day.date().first_of_month();
                Period { first: Day::from_date(first), end: Day::from_date(first.saturating_add(1.month())) }
            }
        }
    }

    /// The `days` days up to and with the one that `at_ms` lies in.
    pub fn last_days(days: u16, at_ms: u64) -> Period {
        let end = Day::of(at_ms).plus(1);
        Period { first: end.plus(-i32::from(days)), end }
    }

    /// Every day in it, oldest first.
    pub fn days(self) -> impl Iterator<Item = Day> {
        (self.first.0..self.end.0).map(Day)
    }

    /// The shortest period that has all days of both.
    pub fn covering(self, other: Period) -> Period {
        Period { first: self.first.min(other.first), end: self.end.max(other.end) }
    }

    /// Does `day` lie in it?
    pub fn contains(self, day: Day) -> bool {
        self.first <= day && day < self.end
    }
}

/// Where a tenant's days and months begin: a moment at which one of each began. Months that lack the anchor's day of the
/// month begin on their last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchor {
    at_ms: u64,
}

/// The beginnings of the period before, of this one, of the next, and of the one after, in milliseconds since the Unix
/// epoch. A clock that is a little off from the one that they were made by still finds its period among them.
pub type Edges = [u64; 4];

impl Anchor {
    /// Calendar days and months in UTC.
    pub const UTC: Anchor = Anchor { at_ms: 0 };

    /// Days and months begin as they did at `at_ms`.
    pub fn at(at_ms: u64) -> Anchor {
        Anchor { at_ms }
    }

    /// The days around `now_ms`.
    pub fn days(self, now_ms: u64) -> Edges {
        let offset_ms = self.at_ms % DAY_MS;
        let start_ms = now_ms.saturating_sub((now_ms + DAY_MS - offset_ms) % DAY_MS);
        [start_ms.saturating_sub(DAY_MS), start_ms, start_ms + DAY_MS, start_ms + 2 * DAY_MS]
    }

    /// The months around `now_ms`.
    pub fn months(self, now_ms: u64) -> Edges {
        let (anchor, now) = (Day::of(self.at_ms).date(), Day::of(now_ms).date());
        let months = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month());
        let begin =
            |number: i32| Day::from_date(anchor.saturating_add(number.months())).start_ms() + self.at_ms % DAY_MS;
        let number = months(now) - months(anchor);
        let number = if begin(number) > now_ms { number - 1 } else { number };
        [begin(number - 1), begin(number), begin(number + 1), begin(number + 2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_anchors_months_begin_on_its_day_or_the_last_one() {
        let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
        let anchor = Anchor::at(ms("2024-01-31T08:00:00Z"));
        let edges = ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"].map(|day| ms(&format!("{day}T08:00:00Z")));
        assert_eq!(anchor.months(ms("2024-02-29T08:00:00Z")), edges);
        assert_eq!(anchor.months(ms("2024-03-31T07:59:59.999Z")), edges);
        assert_ne!(anchor.months(ms("2024-03-31T08:00:00Z")), edges);
        assert_eq!(
            anchor.days(ms("2024-02-29T07:59:59Z"))[1..3],
            [ms("2024-02-28T08:00:00Z"), ms("2024-02-29T08:00:00Z")]
        );
    }

    fn around(span: Span, at: &str) -> (String, String) {
        let at: jiff::Timestamp = at.parse().unwrap();
        let period = Period::around(span, at.as_millisecond() as u64);
        (period.first.to_string(), period.end.to_string())
    }

    #[test]
    fn periods_end_where_the_next_begins() {
        let cases = [
            (Span::Day, "2024-02-29T23:59:59.999Z", "2024-02-29", "2024-03-01"),
            (Span::Week, "2026-11-22T23:59:59Z", "2026-11-16", "2026-11-23"),
            (Span::Week, "2026-11-23T00:00:00Z", "2026-11-23", "2026-11-30"),
            (Span::Month, "2024-02-29T23:59:59Z", "2024-02-01", "2024-03-01"),
            (Span::Month, "2026-12-31T23:59:59.999Z", "2026-12-01", "2027-01-01"),
            (Span::Month, "2027-01-01T00:00:00Z", "2027-01-01", "2027-02-01"),
        ];
        for (span, at, first, end) in cases {
            assert_eq!(around(span, at), (first.into(), end.into()), "{span:?} {at}");
        }
    }

    #[test]
    fn the_last_day_has_a_month() {
        assert_eq!(LAST.to_string(), "9999-11-30");
        assert_eq!(Period::around(Span::Month, u64::MAX).end.to_string(), "9999-12-01");
    }

    #[test]
    fn the_last_days_end_today() {
        let period = Period::last_days(3, Day::from_number(100).start_ms() + 5);
        assert_eq!(period.days().map(Day::number).collect::<Vec<_>>(), [98, 99, 100]);
    }

    proptest! {
        #[test]
        fn a_moment_lies_between_the_edges(
            at_ms in 0..4_000_000_000_000u64,
            now_ms in 100 * DAY_MS..4_000_000_000_000u64,
        ) {
            for edges in [Anchor::at(at_ms).days(now_ms), Anchor::at(at_ms).months(now_ms)] {
                prop_assert!(edges[0] < edges[1] && edges[1] <= now_ms && now_ms < edges[2] && edges[2] < edges[3]);
            }
            let next = Anchor::at(at_ms).months(Anchor::at(at_ms).months(now_ms)[2]);
            prop_assert_eq!(next[1], Anchor::at(at_ms).months(now_ms)[2]);
            for (span, edges) in [(Span::Day, Anchor::UTC.days(now_ms)), (Span::Month, Anchor::UTC.months(now_ms))] {
                let period = Period::around(span, now_ms);
                prop_assert_eq!(&[period.first.start_ms(), period.end.start_ms()], &edges[1..3]);
            }
        }

        #[test]
        fn a_moment_lies_in_its_period(
            at_ms in 0..253_000_000_000_000u64,
            span in prop::sample::select(vec![Span::Day, Span::Week, Span::Month]),
        ) {
            let period = Period::around(span, at_ms);
            prop_assert!(period.contains(Day::of(at_ms)));
            prop_assert_eq!(Period::around(span, period.end.start_ms()).first, period.end);
            // The first week begins before 1970, where there are no moments.
            if period.first.number() >= 0 {
                prop_assert_eq!(Period::around(span, period.first.start_ms()), period);
            }
        }
    }
}
