//! How many calls are lent to a worker ahead, and for how long.
//!
//! What is lent is reserved, so that no limit is exceeded whatever a worker does. What lending can cost is capacity that lies
//! with one worker while another could use it. So a worker gets what it uses in a lease's lifetime while that is a small share
//! of each limit; and where it is not, what it uses in a fraction of it.

use crate::counter::{Counter, Rule};
use crate::decision::{Ask, Role};

/// What has a share of a limit is told in parts of a million.
const WHOLE_PPM: u64 = 1_000_000;

/// How many times a lifetime is cut where limits are short.
const SHORT: u64 = 4;

/// A limit is flooded by so many times as many calls as it lets through.
const FLOOD: u128 = 5;

/// Fewer calls are not worth a lease.
const MIN_CALLS: u64 = 2;

/// How an operator wants calls to be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How long a lease is good for at most, and so a rule that no longer holds.
    pub lifetime_ms: u64,
    /// Of any limit, at most so many percent lie with workers for so long.
    pub share_percent: u8,
}

/// Calls that may be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loan {
    /// How many, at least two.
    pub calls: u64,
    /// For how long.
    pub lifetime_ms: u64,
    /// The largest share that they have of a limit, in parts of a million.
    pub share_ppm: u64,
    /// What there is besides, until it has expired.
    pub beyond: Beyond,
}

/// What there is for further calls while a loan lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// Something, or it comes back as fast as calls come.
    Something,
    /// Nothing for calls like these: some limit has no room for a further one, and gets it far more slowly than calls come.
    NothingAlike,
    /// Nothing for any of the tenant's calls: such a limit counts them all.
    Nothing,
}

impl LeaseTerms {
    /// What may be lent to a worker that sees so many calls in a second, each of which asks for `asks` where the counters stand
    /// so, while shares of `lent_ppm` are lent already; `None` where calls are better asked about one by one.
    pub fn loan(&self, calls_per_s: u64, asks: &[Ask<'_>], counters: &[Counter], lent_ppm: u64) -> Option<Loan> {
        // Who is to hear of it, hears of it call by call.
        let tells = |(ask, counter): (&Ask<'_>, &Counter)| {
            matches!(ask.role, Role::Warning | Role::Shadow) && !counter.fits(&ask.rule, ask.amount)
        };
        if asks.iter().zip(counters).any(tells) {
            return None;
        }
        let binding = asks.iter().zip(counters).filter(|(ask, _)| ask.role == Role::Binding);
        let room = binding.clone().map(|(ask, counter)| counter.room(&ask.rule, ask.amount)).min();
        let whole =
            binding.clone().filter(|(ask, _)| ask.amount > 0).map(|(ask, _)| ask.rule.depth() / ask.amount).min();
        let (room, whole) = (room.unwrap_or(u64::MAX), whole.unwrap_or(u64::MAX));
        let share_ppm = u64::from(self.share_percent) * WHOLE_PPM / 100;
        let affordable = part(whole, share_ppm.saturating_sub(lent_ppm));
        let wanted = |lifetime_ms: u64| self.used_in(calls_per_s, lifetime_ms);
        let (lifetime_ms, short_ms) = (self.lifetime_ms, self.lifetime_ms / SHORT);
        let loan = |calls: u64, lifetime_ms: u64| {
            let share_ppm = if whole == u64::MAX { 0 } else { (calls * WHOLE_PPM).div_ceil(whole.max(1)) };
            let is_used_up = |(ask, counter): &(&Ask<'_>, &Counter)| {
                counter.room(&ask.rule, ask.amount) == calls && is_flooded(ask, calls_per_s)
            };
            let mut used_up = binding.clone().filter(is_used_up).map(|(ask, _)| ask.limit.counts_every_call());
            let beyond = match (used_up.clone().next(), used_up.any(|counts_every_call| counts_every_call)) {
                (None, _) => Beyond::Something,
                (Some(_), false) => Beyond::NothingAlike,
                (Some(_), true) => Beyond::Nothing,
            };
            (calls >= MIN_CALLS).then_some(Loan { calls, lifetime_ms, share_ppm, beyond })
        };
        let long = wanted(lifetime_ms).min(room).min(affordable);
        if long >= wanted(short_ms) {
            return loan(long, lifetime_ms);
        }
        loan(wanted(short_ms).min(room), short_ms)
    }

    /// For how long a denial is told to a worker that sees so many calls in a second: until its limit would admit again, if that
    /// is known and not too far off. Where many calls wait for it, until there is room for several of them, so that they are
    /// not asked about one by one.
    pub fn denied_ms(&self, calls_per_s: u64, reset_ms: Option<u64>) -> u64 {
        let least_ms =
            if self.used_in(calls_per_s, self.lifetime_ms / SHORT) > MIN_CALLS { self.lifetime_ms / SHORT } else { 0 };
        reset_ms.unwrap_or(self.lifetime_ms).clamp(least_ms, self.lifetime_ms)
    }

    /// How many calls there may be in so long, a quarter more than there were.
    fn used_in(&self, calls_per_s: u64, lifetime_ms: u64) -> u64 {
        let calls = u128::from(calls_per_s) * u128::from(lifetime_ms) * 5;
        u64::try_from(calls.div_ceil(4_000)).unwrap_or(u64::MAX).min(u64::from(u32::MAX))
    }
}

/// Whether far more calls come than a limit ever lets through.
fn is_flooded(ask: &Ask<'_>, calls_per_s: u64) -> bool {
    match ask.rule {
        Rule::Refilled { capacity, window_ms, .. } => {
            let asked = u128::from(calls_per_s) * u128::from(ask.amount) * u128::from(window_ms);
            asked >= FLOOD * u128::from(capacity) * 1000
        }
        Rule::Calendar { .. } => true,
        // They come free when calls end.
        Rule::Slots { .. } => false,
    }
}

fn part(of: u64, ppm: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(ppm) / u128::from(WHOLE_PPM)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::{Action, Call, Limit, Pattern, Plan, Quantities, Scope, Tokens, Unit, Window};

    const TERMS: LeaseTerms = LeaseTerms { lifetime_ms: 1_000, share_percent: 5 };

    fn loan(limits: Vec<Limit>, spent: u64, calls_per_s: u64, lent_ppm: u64) -> Option<(u64, u64)> {
        let plan = Plan::new("test".into(), 1, limits);
        let quantities = Quantities { requests: 1, slots: 1, tokens: Tokens::plain(10, 0), cost_nanousd: 0 };
        let asks = plan.asks(&Call::default(), &quantities, 0);
        let counters = vec![Counter { spent, ..Counter::default() }; asks.len()];
        TERMS.loan(calls_per_s, &asks, &counters, lent_ppm).map(|loan| (loan.calls, loan.lifetime_ms))
    }

    fn limit(unit: Unit, capacity: u64) -> Limit {
        Limit::new(unit, Some(Window::Minute), NonZeroU64::new(capacity).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_gets_what_it_uses_in_a_lifetime_while_limits_are_wide() {
        let wide = || vec![limit(Unit::Requests, 60_000), limit(Unit::Tokens, 10_000_000)];
        assert_eq!(loan(wide(), 0, 100, 0), Some((125, 1_000)));
        assert_eq!(loan(Vec::new(), 0, 100, 0), Some((125, 1_000)));
        assert_eq!(loan(wide(), 0, 4_000, 0), Some((3_000, 1_000)), "5 % of the requests");
        assert_eq!(loan(wide(), 0, 100, 48_500), Some((90, 1_000)), "what others leave of the share");
    }

    #[test]
    fn where_they_are_not_it_gets_what_it_uses_in_a_fraction_of_it() {
        let narrow = |spent| loan(vec![limit(Unit::Requests, 600)], spent, 1_000, 0);
        assert_eq!(narrow(0), Some((313, 250)));
        assert_eq!(narrow(590), Some((10, 250)), "all that is left");
        assert_eq!((narrow(599), narrow(600), narrow(700)), (None, None, None));
        assert_eq!(loan(vec![limit(Unit::Tokens, 600)], 500, 1_000, 0), Some((10, 250)), "ten tokens each");
        assert_eq!(loan(vec![limit(Unit::Requests, 600)], 0, 1, 0), Some((2, 1_000)));
    }

    #[test]
    fn only_under_a_flood_is_there_nothing_beyond_a_loan_that_takes_all() {
        let beyond = |limit: Limit, spent, calls_per_s| {
            let plan = Plan::new("test".into(), 1, vec![limit]);
            let one = Quantities { requests: 1, slots: 1, tokens: Tokens::plain(10, 0), ..Quantities::default() };
            let asks = plan.asks(&Call { model: Some("m"), ..Call::default() }, &one, 0);
            let counter = Counter { spent, ..Counter::default() };
            TERMS.loan(calls_per_s, &asks, &[counter], 0).unwrap().beyond
        };
        let minute = || limit(Unit::Requests, 6_000);
        assert_eq!(beyond(minute(), 5_990, 500), Beyond::Nothing);
        assert_eq!([beyond(minute(), 5_990, 499), beyond(minute(), 0, 500)], [Beyond::Something; 2]);
        let of = |unit, window| Limit::new(unit, window, NonZeroU64::new(100).unwrap()).unwrap();
        assert_eq!(beyond(of(Unit::Requests, Some(Window::Month)), 90, 50), Beyond::Nothing, "nothing comes back");
        assert_eq!(beyond(of(Unit::Concurrency, None), 90, 5_000), Beyond::Something, "slots come free at any time");
        let scope = Scope { models: vec![Pattern::new("m")], ..Scope::default() };
        assert_eq!(
            beyond(minute().with_scope(scope), 5_990, 500),
            Beyond::NothingAlike,
            "other models have limits of their own"
        );
        assert_eq!(beyond(limit(Unit::Tokens, 60_000), 59_900, 500), Beyond::NothingAlike, "shorter calls may fit");
    }

    #[test]
    fn an_exceeded_limit_that_only_tells_is_heard_of_call_by_call() {
        for action in [Action::Warn, Action::Shadow] {
            let limits = vec![limit(Unit::Requests, 60).with_action(action)];
            assert_eq!(loan(limits.clone(), 60, 100, 0), None);
            assert_eq!(loan(limits, 0, 100, 0), Some((125, 1_000)));
        }
    }

    #[test]
    fn a_denial_is_told_until_the_reset_and_under_a_flood_a_little_longer() {
        let denied_ms = |calls_per_s, reset_ms| TERMS.denied_ms(calls_per_s, reset_ms);
        assert_eq!(
            [Some(7), Some(700), Some(7_000), None].map(|reset_ms| denied_ms(1, reset_ms)),
            [7, 700, 1_000, 1_000]
        );
        assert_eq!(
            [Some(7), Some(700), Some(7_000), None].map(|reset_ms| denied_ms(900, reset_ms)),
            [250, 700, 1_000, 1_000]
        );
    }
}
