//! Which alerts are due: a function of its arguments alone.

use std::num::NonZeroU64;

use tollgate_domain::{Anchor, Standing, Window};

/// How far before its end a period is looked at to find it. Clocks that differ by less than this find the same.
const DAY_MS: u64 = 86_400_000;

/// What is spent of a monthly limit or a budget in one of its periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spending {
    pub(super) spent: u64,
    pub(super) capacity: NonZeroU64,
    pub(super) period_start_ms: u64,
    pub(super) period_end_ms: u64,
}

impl Spending {
    /// The same of another amount.
    pub(super) fn of(self, capacity: NonZeroU64) -> Spending {
        Spending { capacity, ..self }
    }
}

/// What is spent of a limit, without what open calls hold; `None` for one that is not of a month, or of which nothing is.
///
/// The period is told by its end, which the standing says: `now_ms` may be another clock than the one that counted.
pub(super) fn spending(standing: &Standing<'_>, anchor: Anchor, now_ms: u64) -> Option<Spending> {
    let spent = standing.used.saturating_sub(standing.held);
    if standing.limit.window != Some(Window::Month) || spent == 0 {
        return None;
    }
    let end_ms = now_ms.saturating_add(standing.reset_ms?);
    let [_, period_start_ms, period_end_ms, _] = anchor.months(end_ms.saturating_sub(DAY_MS));
    Some(Spending { spent, capacity: standing.limit.capacity, period_start_ms, period_end_ms })
}

/// The thresholds, in percent, that are reached and of which no alert was given. All of them where several are passed at once:
/// who waits for one of them shall not miss it.
pub(super) fn newly_reached(thresholds: &[u16], given: &[u16], spending: &Spending) -> Vec<u16> {
    let spent_percent = u128::from(spending.spent) * 100;
    let is_reached = |percent: u16| spent_percent >= u128::from(percent) * u128::from(spending.capacity.get());
    thresholds.iter().copied().filter(|percent| is_reached(*percent) && !given.contains(percent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_domain::{Limit, Outcome, Unit};

    fn of(spent: u64, capacity: u64) -> Spending {
        let capacity = NonZeroU64::new(capacity).unwrap();
        Spending { spent, capacity, period_start_ms: 0, period_end_ms: 1 }
    }

    #[test]
    fn thresholds_are_reached_exactly_and_once() {
        let reached = |given: &[u16], spent| newly_reached(&[80, 95, 100], given, &of(spent, 1000));
        assert!(reached(&[], 799).is_empty());
        assert_eq!((reached(&[], 800), reached(&[], 949)), (vec![80], vec![80]));
        assert_eq!((reached(&[80], 949), reached(&[80], 950)), (vec![], vec![95]));
        assert!(reached(&[80, 95, 100], 5000).is_empty());
        assert_eq!(newly_reached(&[150], &[], &of(3, 2)), [150]);
        assert!(newly_reached(&[34], &[], &of(1, 3)).is_empty(), "33.3 percent are not 34");
        assert_eq!(newly_reached(&[1000], &[], &of(u64::MAX, u64::MAX / 10)), [1000]);
    }

    #[test]
    fn a_jump_passes_all() {
        assert_eq!(newly_reached(&[80, 95, 100], &[], &of(1200, 1000)), [80, 95, 100]);
        assert_eq!(newly_reached(&[80, 95, 100], &[95], &of(1200, 1000)), [80, 100]);
    }

    fn ms(text: &str) -> u64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64
    }

    #[test]
    fn a_period_is_found_by_its_end_though_clocks_differ() {
        let limit = |window| Limit::new(Unit::Tokens, Some(window), NonZeroU64::new(1000).unwrap()).unwrap();
        let (month, day) = (limit(Window::Month), limit(Window::Day));
        let standing = |limit, used, reset_ms| Standing {
            limit,
            outcome: Outcome::Admitted,
            used,
            held: 100,
            remaining: 0,
            reset_ms: Some(reset_ms),
        };
        let (begin, end) = (ms("2026-11-01T00:00:00Z"), ms("2026-12-01T00:00:00Z"));
        for (now_ms, reset_ms) in
            [(end + 5000, 1), (end - 5000, 1), (begin + 9000, end - begin), (begin - 9000, end - begin)]
        {
            let spending = spending(&standing(&month, 900, reset_ms), Anchor::UTC, now_ms).unwrap();
            assert_eq!((spending.spent, spending.period_start_ms, spending.period_end_ms), (800, begin, end));
        }
        let anchor = Anchor::at(ms("2024-01-31T08:00:00Z"));
        let (begin, end) = (ms("2026-10-31T08:00:00Z"), ms("2026-11-30T08:00:00Z"));
        let found = spending(&standing(&month, 101, end - begin - 7), anchor, begin + 7).unwrap();
        assert_eq!((found.period_start_ms, found.period_end_ms), (begin, end));
        assert_eq!(spending(&standing(&day, 900, 1), Anchor::UTC, begin), None, "it is no month");
        assert_eq!(spending(&standing(&month, 100, 1), Anchor::UTC, begin), None, "it is only held");
    }
}
