//! What is spent and held of one limit.
//!
//! - *Spent* is what was used, and what admission takes for good. Where the window is refilled continuously it drains, in
//!   fractions of 1/window, so that no remainder is ever dropped; in a calendar window it ends with the period.
//! - *Held* is what open reservations may still use. It does not drain: what is in flight counts in full until it is
//!   settled.
//!
//! Engines that keep counters elsewhere follow this code to the last integer.

use crate::amount::{MAX_AMOUNT, plus};
use crate::calendar::Edges;

const DAY_MS: u64 = 86_400_000;

/// After how long to try again where a slot is missing: when calls end is not known.
pub const SLOT_RETRY_MS: u64 = 1_000;

/// How a counter is to be read: its limit's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Drains `capacity` in each `window_ms`, and takes `burst` at once.
    Refilled {
        /// Per window.
        capacity: u64,
        /// At most, at once.
        burst: u64,
        /// Milliseconds.
        window_ms: u64,
    },
    /// Takes `capacity` in each period.
    Calendar {
        /// Per period.
        capacity: u64,
        /// Where the periods around now begin.
        edges: Edges,
    },
    /// Takes `capacity` at once, and gives each back when its reservation ends.
    Slots {
        /// At once.
        capacity: u64,
    },
}

impl Rule {
    /// The most that can be taken of an untouched counter.
    pub fn depth(&self) -> u64 {
        match *self {
            Rule::Refilled { burst, .. } => burst,
            Rule::Calendar { capacity, .. } | Rule::Slots { capacity } => capacity,
        }
    }

    /// The period that `now_ms` lies in, or the nearest one that is known: when it begins and when it ends.
    fn period(edges: &Edges, now_ms: u64) -> (u64, u64) {
        let [before, begin, end, after] = *edges;
        match now_ms {
            _ if now_ms < begin => (before, begin),
            _ if now_ms < end => (begin, end),
            _ => (end, after),
        }
    }
}

/// A counter as it is kept: numbers that mean something with their [`Rule`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Whole amounts, at most [`MAX_AMOUNT`].
    pub spent: u64,
    /// At most [`MAX_AMOUNT`].
    pub held: u64,
    /// Until when what is refilled has drained; when the calendar period began.
    pub at_ms: u64,
    /// Beside `spent`, in 1/window.
    pub fraction: u32,
}

impl Counter {
    /// Brings it to the moment `now_ms`, of which all other methods speak.
    ///
    /// A clock that steps back gives nothing back: nothing drains while it catches up. After a step of more than a window
    /// the clock was set, and time goes on from where it was set to. So does a calendar period that lies more than a day
    /// ahead: what is spent stays spent, in the period that it really is.
    pub fn advance(&mut self, rule: &Rule, now_ms: u64) {
        match rule {
            Rule::Refilled { capacity, window_ms, .. } => self.drain(*capacity, *window_ms, now_ms),
            Rule::Calendar { edges, .. } => {
                let (begin, _) = Rule::period(edges, now_ms);
                if begin > self.at_ms {
                    *self = Counter { at_ms: begin, ..Counter::default() };
                } else if now_ms + DAY_MS < self.at_ms {
                    self.at_ms = begin;
                }
            }
            Rule::Slots { .. } => {}
        }
    }

    fn drain(&mut self, capacity: u64, window_ms: u64, now_ms: u64) {
        if now_ms < self.at_ms {
            if self.at_ms - now_ms > window_ms {
                self.at_ms = now_ms;
            }
            return;
        }
        if self.spent > 0 || self.fraction > 0 {
            let window = u128::from(window_ms);
            let level = u128::from(self.spent) * window + u128::from(self.fraction);
            let left = level.saturating_sub(u128::from(capacity) * u128::from(now_ms - self.at_ms));
            // Both fit: no more is left than there was.
            (self.spent, self.fraction) = ((left / window) as u64, (left % window) as u32);
        }
        self.at_ms = now_ms;
    }

    /// Takes for good, until `most` is spent. What is spent already stays.
    pub fn spend(&mut self, amount: u64, most: u64) {
        self.spent = self.spent.max(plus(self.spent, amount).min(most));
    }

    /// Takes until [`Counter::release`].
    pub fn hold(&mut self, amount: u64) {
        self.held = plus(self.held, amount);
    }

    /// Gives back what was held.
    pub fn release(&mut self, amount: u64) {
        self.held = self.held.saturating_sub(amount);
    }

    /// Gives back what was spent at `spent_at_ms`, as far as it has not drained since.
    pub fn refund(&mut self, amount: u64, of: u64, spent_at_ms: u64, rule: &Rule) {
        let undrained = match rule {
            Rule::Refilled { capacity, window_ms, .. } => {
                let drained = u128::from(*capacity) * u128::from(self.at_ms.saturating_sub(spent_at_ms));
                of.saturating_sub(u64::try_from(drained.div_ceil(u128::from(*window_ms))).unwrap_or(u64::MAX))
            }
            Rule::Calendar { .. } | Rule::Slots { .. } => of,
        };
        self.spent = self.spent.saturating_sub(amount.min(undrained));
    }

    /// What is spent and held, a begun amount counted as one.
    pub fn used(&self) -> u64 {
        self.spent + u64::from(self.fraction > 0) + self.held
    }

    /// Whether `amount` can be taken. Nothing fits only while something is left.
    pub fn fits(&self, rule: &Rule, amount: u64) -> bool {
        self.used().saturating_add(amount.max(1)) <= rule.depth()
    }

    /// How many times `amount` can be taken.
    pub fn room(&self, rule: &Rule, amount: u64) -> u64 {
        let left = rule.depth().saturating_sub(self.used());
        match amount {
            // Nothing fits any number of times, while something is left.
            0 if left > 0 => u64::MAX,
            0 => 0,
            _ => left / amount,
        }
    }

    /// Milliseconds until `amount` fits, at least 1, if what is held ends as though it were spent; `None` when it never
    /// does. The amount does not fit now.
    pub fn wait_ms(&self, rule: &Rule, amount: u64, now_ms: u64) -> Option<u64> {
        let amount = amount.max(1);
        if amount > rule.depth() {
            return None;
        }
        Some(match rule {
            Rule::Refilled { burst, .. } => self.drained_below_ms(rule, burst - amount).max(1),
            Rule::Calendar { edges, .. } => Rule::period(edges, now_ms).1.saturating_sub(now_ms).max(1),
            Rule::Slots { .. } => SLOT_RETRY_MS,
        })
    }

    /// Milliseconds until nothing is spent; 0 where nothing is, and for slots.
    pub fn reset_ms(&self, rule: &Rule, now_ms: u64) -> u64 {
        match rule {
            Rule::Slots { .. } => 0,
            _ if self.used() == 0 => 0,
            Rule::Refilled { .. } => self.drained_below_ms(rule, 0),
            Rule::Calendar { edges, .. } => Rule::period(edges, now_ms).1.saturating_sub(now_ms),
        }
    }

    /// Milliseconds until no more than `level` is left of what is refilled.
    fn drained_below_ms(&self, rule: &Rule, level: u64) -> u64 {
        let Rule::Refilled { capacity, window_ms, .. } = rule else { return 0 };
        let window = u128::from(*window_ms);
        let used = u128::from(self.spent + self.held) * window + u128::from(self.fraction);
        let excess = used.saturating_sub(u128::from(level) * window);
        u64::try_from(excess.div_ceil(u128::from(*capacity))).unwrap_or(MAX_AMOUNT)
    }

    /// How much of what a call used that began and ended so still counts here. Of what is refilled, all of it within a
    /// window of its end, and later what has not come back since; a period counts what began in it.
    pub fn still_counted(&self, amount: u64, rule: &Rule, started_at_ms: u64, ended_at_ms: u64) -> u64 {
        match rule {
            Rule::Refilled { capacity, window_ms, .. } => {
                let late_ms = self.at_ms.saturating_sub(ended_at_ms);
                if late_ms < *window_ms {
                    return amount;
                }
                let come_back = u128::from(*capacity) * u128::from(late_ms) / u128::from(*window_ms);
                amount.saturating_sub(u64::try_from(come_back).unwrap_or(u64::MAX))
            }
            Rule::Calendar { .. } if started_at_ms >= self.at_ms => amount,
            Rule::Calendar { .. } | Rule::Slots { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Anchor;
    use proptest::prelude::*;

    fn refilled(capacity: u64, burst: u64, window_ms: u64) -> Rule {
        Rule::Refilled { capacity, burst, window_ms }
    }

    /// What is spent at the end of `history`, by another road: the worst over all beginnings of what was spent since,
    /// less what has drained since.
    fn spent_naively(window_ms: u64, capacity: u64, history: &[(u64, u64)], now_ms: u64) -> i128 {
        (0..history.len())
            .map(|begin| {
                let amounts: u64 = history[begin..].iter().map(|(_, amount)| amount).sum();
                i128::from(amounts) * i128::from(window_ms)
                    - i128::from(capacity) * i128::from(now_ms - history[begin].0)
            })
            .max()
            .unwrap_or(0)
            .max(0)
    }

    proptest! {
        #[test]
        fn draining_agrees_with_the_naive_sum(
            capacity in 1..2000u64,
            window_ms in prop::sample::select(vec![1_000u64, 60_000, 3_600_000]),
            steps in prop::collection::vec((0..5000u64, 0..1500u64), 1..60),
        ) {
            let (mut counter, mut history, mut now_ms) = (Counter::default(), Vec::new(), 0);
            for (step_ms, amount) in steps {
                now_ms += step_ms;
                counter.advance(&refilled(capacity, capacity, window_ms), now_ms);
                let level = i128::from(counter.spent) * i128::from(window_ms) + i128::from(counter.fraction);
                prop_assert_eq!(level, spent_naively(window_ms, capacity, &history, now_ms));
                counter.spend(amount, MAX_AMOUNT);
                history.push((now_ms, amount));
            }
        }

        #[test]
        fn a_wait_is_long_enough_and_not_a_millisecond_too_long(
            capacity in 1..2000u64, burst in 1..3000u64, window_ms in 1..100_000u64, spent in 0..5000u64, amount in 1..3000u64,
        ) {
            let rule = refilled(capacity, burst, window_ms);
            let counter = Counter { spent, at_ms: 7, ..Counter::default() };
            let fits_after = |ms: u64| { let mut later = counter; later.advance(&rule, 7 + ms); later.fits(&rule, amount) };
            match counter.wait_ms(&rule, amount, 7) {
                None => prop_assert!(amount > burst && !fits_after(1 << 40)),
                Some(_) if counter.fits(&rule, amount) => {}
                Some(wait_ms) => prop_assert!(fits_after(wait_ms) && !fits_after(wait_ms - 1)),
            }
        }

        /// What is told a window late or later leaves what telling it at the end of its call had left; where others came in
        /// between, no more than that.
        #[test]
        fn an_event_that_is_late_takes_what_has_not_come_back(
            capacity in 1..2000u64, window_ms in prop::sample::select(vec![1_000u64, 60_000, 3_600_000]),
            amount in 0..100_000u64, late_windows in 1..20u64, late_ms in 0..60_000u64,
            others in prop::collection::vec((0..60_000u64, 0..3000u64), 0..10),
        ) {
            let (rule, ended_at_ms) = (refilled(capacity, 1, window_ms), 7);
            let now_ms = ended_at_ms + late_windows * window_ms + late_ms;
            let (mut in_time, mut late, mut at_ms) = (Counter::default(), Counter::default(), ended_at_ms);
            in_time.advance(&rule, at_ms);
            in_time.spend(amount, MAX_AMOUNT);
            for (step_ms, other) in &others {
                at_ms = now_ms.min(at_ms + step_ms);
                for counter in [&mut in_time, &mut late] {
                    counter.advance(&rule, at_ms);
                    counter.spend(*other, MAX_AMOUNT);
                }
            }
            in_time.advance(&rule, now_ms);
            late.advance(&rule, now_ms);
            late.spend(late.still_counted(amount, &rule, ended_at_ms, ended_at_ms), MAX_AMOUNT);
            if others.is_empty() {
                prop_assert_eq!(late.used(), in_time.used());
            } else {
                prop_assert!(late.used() <= in_time.used() + 1, "{late:?} {in_time:?}");
            }
        }

        #[test]
        fn a_refund_never_gives_back_what_has_drained(
            capacity in 1..100u64, first in 1..500u64, others in prop::collection::vec((0..5000u64, 0..50u64), 0..20), kept in 0..500u64,
        ) {
            prop_assume!(kept <= first);
            let rule = refilled(capacity, 1000, 1000);
            let (mut refunded, mut exact, mut now_ms) = (Counter::default(), Counter::default(), 0);
            refunded.spend(first, MAX_AMOUNT);
            exact.spend(kept, MAX_AMOUNT);
            for (step_ms, amount) in others {
                now_ms += step_ms;
                for counter in [&mut refunded, &mut exact] {
                    counter.advance(&rule, now_ms);
                    counter.spend(amount, MAX_AMOUNT);
                }
            }
            refunded.refund(first - kept, first, 0, &rule);
            prop_assert!((refunded.spent, refunded.fraction) >= (exact.spent, exact.fraction), "{:?} {:?}", refunded, exact);
        }
    }

    #[test]
    fn time_that_steps_back_gives_nothing_back() {
        let rule = refilled(10, 10, 1000);
        let mut counter = Counter { at_ms: 10_000, spent: 10, ..Counter::default() };
        for (now_ms, used) in [(9_000, 10), (9_900, 10), (10_100, 9), (9_099, 9), (9_199, 8), (10_100, 0)] {
            counter.advance(&rule, now_ms);
            assert_eq!(counter.used(), used, "at {now_ms}");
        }
    }

    #[test]
    fn extremes_saturate() {
        let rule = refilled(1, 1, 3_600_000);
        let mut counter = Counter::default();
        for _ in 0..4 {
            counter.spend(u64::MAX, MAX_AMOUNT);
            counter.hold(u64::MAX);
        }
        assert_eq!((counter.spent, counter.held), (MAX_AMOUNT, MAX_AMOUNT));
        assert!(!counter.fits(&rule, u64::MAX));
        counter.advance(&refilled(MAX_AMOUNT, 1, 1), u64::MAX);
        assert_eq!(counter.used(), MAX_AMOUNT);
        counter.release(u64::MAX);
        counter.release(1);
        assert_eq!(counter.used(), 0);
    }

    #[test]
    fn a_clock_that_was_far_ahead_leaves_what_is_spent_in_the_real_month() {
        let (capacity, mut counter) = (10, Counter::default());
        let rule = |now_ms| Rule::Calendar { capacity, edges: Anchor::UTC.months(now_ms) };
        for (day, used) in [(400, 7), (10, 7), (30, 7), (31, 0)] {
            counter.advance(&rule(day * DAY_MS), day * DAY_MS);
            if day == 400 {
                counter.spend(7, MAX_AMOUNT);
            }
            assert_eq!(counter.used(), used, "on day {day}");
        }
        assert_eq!(counter.still_counted(7, &rule(31 * DAY_MS), 31 * DAY_MS, 0), 7);
        assert_eq!(counter.still_counted(7, &rule(31 * DAY_MS), 31 * DAY_MS - 1, 31 * DAY_MS), 0);
    }
}
