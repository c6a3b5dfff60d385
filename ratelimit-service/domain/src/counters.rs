//! What one tenant has spent of its limits, and the decisions that follow.

use crate::calendar::Span;
use crate::counter::Counter;
use crate::decision::{Amounts, Decision, Outcome, Settlement, Standing};
use crate::plan::{Limit, Plan, Unit};

/// What one tenant has spent of each limit that it met.
#[derive(Debug, Clone, Default)]
pub struct TenantCounters {
    counters: Vec<Counter>,
}

impl TenantCounters {
    /// Decides about a call, and takes its requests when all limits of the plan agree. Nothing else is taken.
    pub fn take(&mut self, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.advance(now_ms);
        self.follow(plan, now_ms);
        let fits = |counter: &Counter| counter.standing_for(amounts).outcome == Outcome::Admitted;
        if plan.limits.iter().all(|limit| self.counter(limit).is_none_or(fits)) {
            for limit in plan.limits.iter().filter(|limit| limit.unit == Unit::Requests) {
                if let Some(counter) = self.counter_mut(limit) {
                    counter.spend(amounts.requests);
                }
            }
            return self.told(plan, Outcome::Admitted, |counter| counter.standing());
        }
        self.told(plan, Outcome::Denied, |counter| counter.standing_for(amounts))
    }

    /// Decides like [`TenantCounters::take`], and takes nothing.
    pub fn check(&self, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.clone().take(plan, amounts, now_ms)
    }

    /// Takes the tokens of a finished call from every limit that counts them: those that its plan counts, and all met
    /// before.
    ///
    /// A window that is refilled continuously is left alone by a call that ended a whole window ago: what it would have
    /// taken then has come back since. So is a day or month by a call that began before it.
    pub fn settle(&mut self, plan: &Plan, used: Settlement, now_ms: u64) {
        self.advance(now_ms);
        self.track(plan.counted(), now_ms);
        let amounts = Amounts { requests: 0, input_tokens: used.input_tokens, output_tokens: used.output_tokens };
        for counter in &mut self.counters {
            if counter.reaches_back_to(used, now_ms) {
                counter.spend(amounts.of(counter.limit.unit));
            }
        }
    }

    /// Takes what a ledger says was used in the current calendar period of one length, after a restart.
    pub fn restore(&mut self, plan: &Plan, span: Span, used: Amounts, now_ms: u64) {
        let of_span = |limit: &Limit| limit.window.calendar() == Some(span);
        self.advance(now_ms);
        self.track(plan.counted().filter(|limit| of_span(limit)), now_ms);
        for counter in self.counters.iter_mut().filter(|counter| of_span(&counter.limit)) {
            counter.spend(used.of(counter.limit.unit));
        }
    }

    /// Where each limit of the plan stands, in the plan's order.
    pub fn standings(&self, plan: &Plan, now_ms: u64) -> Vec<Standing> {
        let mut now = self.clone();
        now.advance(now_ms);
        now.follow(plan, now_ms);
        plan.limits.iter().filter_map(|limit| now.counter(limit)).map(Counter::standing).collect()
    }

    /// Whether nothing is spent any more, so that forgetting this tenant forgives it nothing.
    pub fn is_untouched(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        self.counters.iter().all(|counter| counter.used() == 0)
    }

    /// Brings all counters up to the present.
    fn advance(&mut self, now_ms: u64) {
        for counter in &mut self.counters {
            counter.advance(now_ms);
        }
    }

    /// Sets the capacities to the plan's. The time before was drained at the old ones.
    fn follow(&mut self, plan: &Plan, now_ms: u64) {
        for limit in &plan.limits {
            match self.counter_mut(limit) {
                Some(counter) => counter.limit = *limit,
                None => self.counters.push(Counter::new(*limit, now_ms)),
            }
        }
    }

    /// Begins to count what is not counted yet.
    fn track<'a>(&mut self, limits: impl Iterator<Item = &'a Limit>, now_ms: u64) {
        for limit in limits {
            if self.counter(limit).is_none() {
                self.counters.push(Counter::new(*limit, now_ms));
            }
        }
    }

    fn counter(&self, limit: &Limit) -> Option<&Counter> {
        self.counters.iter().find(|counter| counter.limit.counts_like(limit))
    }

    fn counter_mut(&mut self, limit: &Limit) -> Option<&mut Counter> {
        self.counters.iter_mut().find(|counter| counter.limit.counts_like(limit))
    }

    fn told(&self, plan: &Plan, outcome: Outcome, standing: impl Fn(&Counter) -> Standing) -> Decision {
        let mut decision = Decision { outcome, requests: None, input_tokens: None, output_tokens: None };
        for counter in plan.limits.iter().filter_map(|limit| self.counter(limit)) {
            let standing = standing(counter);
            let tell = |place: &mut Option<Standing>| {
                if place.is_none_or(|told| standing.outranks(&told)) {
                    *place = Some(standing);
                }
            };
            match standing.limit.unit {
                Unit::Requests => tell(&mut decision.requests),
                Unit::InputTokens => tell(&mut decision.input_tokens),
                Unit::OutputTokens => tell(&mut decision.output_tokens),
                Unit::Tokens => {
                    tell(&mut decision.input_tokens);
                    tell(&mut decision.output_tokens);
                }
            }
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::plan::Window;
    use proptest::prelude::*;

    /// 2026-11-23T00:00:00Z
    const NOW_MS: u64 = 1_795_392_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn limit(unit: Unit, capacity: u64, window: Window) -> Limit {
        Limit { unit, capacity: NonZeroU64::new(capacity).unwrap(), window }
    }

    fn plan(limits: &[Limit]) -> Plan {
        Plan::new("test".into(), 1, limits.to_vec())
    }

    fn requests(requests: u64) -> Amounts {
        Amounts { requests, ..Amounts::default() }
    }

    fn tokens(input_tokens: u64, output_tokens: u64) -> Amounts {
        Amounts { requests: 1, input_tokens, output_tokens }
    }

    /// A call that began and ended at `at_ms`.
    fn used(input_tokens: u64, output_tokens: u64, at_ms: u64) -> Settlement {
        Settlement { input_tokens, output_tokens, started_at_ms: at_ms, ended_at_ms: at_ms }
    }

    #[test]
    fn a_burst_of_the_capacity_and_then_the_refill() {
        let plan = plan(&[limit(Unit::Requests, 60, Window::Minute)]);
        let mut counters = TenantCounters::default();
        for left in (0..60).rev() {
            let told = counters.take(&plan, requests(1), NOW_MS).requests.unwrap();
            assert_eq!(
                (told.outcome, told.remaining, told.reset_ms),
                (Outcome::Admitted, left, Some((60 - left) * 1000))
            );
        }
        let denied = counters.take(&plan, requests(1), NOW_MS + 1);
        let told = denied.requests.unwrap();
        assert_eq!((denied.outcome, told.outcome), (Outcome::Denied, Outcome::Denied));
        assert_eq!((told.remaining, told.reset_ms), (0, Some(999)));
        assert_eq!(counters.take(&plan, requests(1), NOW_MS + 1000).outcome, Outcome::Admitted);
        assert_eq!(counters.take(&plan, requests(1), NOW_MS + 1000).outcome, Outcome::Denied);
    }

    #[test]
    fn tokens_are_checked_by_admission_and_taken_by_settlement() {
        let plan = plan(&[limit(Unit::Tokens, 1000, Window::Minute)]);
        let mut counters = TenantCounters::default();
        assert_eq!(counters.take(&plan, tokens(600, 401), NOW_MS).outcome, Outcome::Denied);
        for _ in 0..3 {
            let told = counters.take(&plan, tokens(600, 400), NOW_MS);
            assert_eq!((told.outcome, told.input_tokens.unwrap().remaining), (Outcome::Admitted, 1000));
        }
        counters.settle(&plan, used(900, 1100, NOW_MS), NOW_MS);
        let told = counters.take(&plan, requests(1), NOW_MS).output_tokens.unwrap();
        assert_eq!((told.outcome, told.used, told.remaining), (Outcome::Denied, 2000, 0));
        // A thousand in debt: one minute to be out of it, and 60 ms for one token.
        assert_eq!(told.reset_ms, Some(60_060));
        assert_eq!(counters.take(&plan, requests(1), NOW_MS + 60_060).outcome, Outcome::Admitted);
    }

    #[test]
    fn what_can_never_fit_has_no_reset() {
        let plan = plan(&[limit(Unit::InputTokens, 100, Window::Hour), limit(Unit::OutputTokens, 7, Window::Day)]);
        let decision = TenantCounters::default().take(&plan, tokens(101, 7), NOW_MS);
        assert_eq!(decision.denied_by().map(|told| (told.limit, told.reset_ms)), Some((plan.limits[0], None)));
        assert_eq!(decision.output_tokens.unwrap().outcome, Outcome::Admitted);
    }

    #[test]
    fn the_limit_nearest_to_its_end_is_told() {
        let plan = plan(&[limit(Unit::Tokens, 100, Window::Minute), limit(Unit::Tokens, 1000, Window::Month)]);
        let mut counters = TenantCounters::default();
        let told = |counters: &mut TenantCounters, now_ms| {
            counters.take(&plan, requests(1), now_ms).input_tokens.unwrap().limit.window
        };
        counters.settle(&plan, used(50, 0, NOW_MS), NOW_MS);
        assert_eq!(told(&mut counters, NOW_MS), Window::Minute);
        assert_eq!(told(&mut counters, NOW_MS + 60_000), Window::Month);
    }

    #[test]
    fn a_month_ends_with_the_month() {
        let plan = plan(&[limit(Unit::Tokens, 100, Window::Month), limit(Unit::Requests, 1, Window::Day)]);
        let mut counters = TenantCounters::default();
        assert_eq!(counters.take(&plan, requests(1), NOW_MS).outcome, Outcome::Admitted);
        counters.settle(&plan, used(100, 1, NOW_MS - 22 * DAY_MS), NOW_MS);
        counters.settle(&plan, used(100, 1, NOW_MS - 23 * DAY_MS), NOW_MS);
        let decision = counters.take(&plan, requests(1), NOW_MS + 5);
        assert_eq!(decision.requests.unwrap().reset_ms, Some(DAY_MS - 5));
        let told = decision.denied_by().unwrap();
        assert_eq!((told.limit.window, told.used), (Window::Month, 101));
        assert_eq!(told.reset_ms, Some(8 * DAY_MS - 5));
        assert_eq!(counters.take(&plan, requests(1), NOW_MS + 8 * DAY_MS - 1).outcome, Outcome::Denied);
        assert_eq!(counters.take(&plan, requests(1), NOW_MS + 8 * DAY_MS).outcome, Outcome::Admitted);
    }

    #[test]
    fn a_late_settlement_leaves_a_refilled_window_alone() {
        let plan = plan(&[limit(Unit::Tokens, 100, Window::Minute), limit(Unit::Tokens, 100, Window::Hour)]);
        let mut counters = TenantCounters::default();
        counters.settle(&plan, used(70, 0, NOW_MS - 60_000), NOW_MS);
        let used: Vec<_> = counters.standings(&plan, NOW_MS).iter().map(|standing| standing.used).collect();
        assert_eq!(used, [0, 70]);
    }

    #[test]
    fn what_is_spent_stays_spent_when_the_tier_changes() {
        let small = plan(&[limit(Unit::Requests, 10, Window::Hour), limit(Unit::Tokens, 100, Window::Month)]);
        let large = plan(&[limit(Unit::Requests, 100, Window::Hour), limit(Unit::Tokens, 1000, Window::Month)]);
        let mut counters = TenantCounters::default();
        counters.take(&small, requests(10), NOW_MS);
        counters.settle(&small, used(100, 0, NOW_MS), NOW_MS);
        assert_eq!(counters.check(&small, requests(1), NOW_MS).outcome, Outcome::Denied);
        let remaining: Vec<_> = counters.standings(&large, NOW_MS).iter().map(|standing| standing.remaining).collect();
        assert_eq!(remaining, [90, 900]);
    }

    #[test]
    fn a_settlement_changes_no_refill() {
        let small = plan(&[limit(Unit::Tokens, 60, Window::Minute)]);
        let large = plan(&[limit(Unit::Tokens, 6000, Window::Minute)]);
        let mut counters = TenantCounters::default();
        counters.take(&small, requests(1), NOW_MS);
        counters.settle(&large, used(60, 0, NOW_MS), NOW_MS);
        assert_eq!(counters.check(&small, requests(1), NOW_MS + 999).outcome, Outcome::Denied);
        assert_eq!(counters.check(&small, requests(1), NOW_MS + 1000).outcome, Outcome::Admitted);
    }

    #[test]
    fn a_tenant_is_untouched_once_all_is_back() {
        let plan = plan(&[limit(Unit::Requests, 60, Window::Minute), limit(Unit::Tokens, 9, Window::Day)]);
        let mut counters = TenantCounters::default();
        counters.take(&plan, requests(2), NOW_MS);
        assert!(!counters.is_untouched(NOW_MS + 1999));
        assert!(counters.is_untouched(NOW_MS + 2000));
        let used = Amounts { input_tokens: 1, ..Amounts::default() };
        counters.restore(&plan, Span::Day, used, NOW_MS + 2000);
        assert!(!counters.is_untouched(NOW_MS + DAY_MS - 1));
        assert!(counters.is_untouched(NOW_MS + DAY_MS));
    }

    #[test]
    fn a_restored_period_counts_on() {
        let plan = plan(&[limit(Unit::Tokens, 9, Window::Day), limit(Unit::Tokens, 99, Window::Month)]);
        let mut counters = TenantCounters::default();
        counters.restore(&plan, Span::Month, tokens(40, 2), NOW_MS);
        counters.restore(&plan, Span::Day, tokens(1, 1), NOW_MS);
        let used: Vec<_> = counters.standings(&plan, NOW_MS).iter().map(|standing| standing.used).collect();
        assert_eq!(used, [2, 42]);
    }

    fn any_limits() -> impl Strategy<Value = Vec<Limit>> {
        let units = vec![Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];
        let windows = vec![Window::Second, Window::Minute, Window::Hour, Window::Day, Window::Month];
        let limit = (prop::sample::select(units), 1..200u64, prop::sample::select(windows))
            .prop_map(|(unit, capacity, window)| limit(unit, capacity, window));
        prop::collection::vec(limit, 1..6).prop_map(|limits| {
            let mut distinct: Vec<Limit> = Vec::new();
            for limit in limits {
                if !distinct.iter().any(|other| other.counts_like(&limit)) {
                    distinct.push(limit);
                }
            }
            distinct
        })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(u64),
        Take(Amounts),
        Settle(u64, u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20u64, 0..4u32).prop_map(|(ms, scale)| Step::Wait(ms * 100u64.pow(scale))),
            (0..4u64, 0..50u64, 0..50u64).prop_map(|(requests, input_tokens, output_tokens)| Step::Take(Amounts {
                requests,
                input_tokens,
                output_tokens
            })),
            (0..100u64, 0..100u64).prop_map(|(input, output)| Step::Settle(input, output)),
        ]
    }

    proptest! {
        #[test]
        fn all_agree_or_nothing_is_taken_and_a_retry_after_the_reset_succeeds(
            limits in any_limits(), steps in prop::collection::vec(any_step(), 1..40),
        ) {
            let plan = plan(&limits);
            let (mut counters, mut now_ms) = (TenantCounters::default(), NOW_MS);
            for step in steps {
                match step {
                    Step::Wait(ms) => now_ms += ms,
                    Step::Settle(input, output) => counters.settle(&plan, used(input, output, now_ms), now_ms),
                    Step::Take(amounts) => {
                        let before = counters.standings(&plan, now_ms);
                        let decision = counters.take(&plan, amounts, now_ms);
                        let after = counters.standings(&plan, now_ms);
                        let fits = |standing: &Standing| standing.remaining >= amounts.of(standing.limit.unit).max(1);
                        prop_assert_eq!(decision.outcome == Outcome::Admitted, before.iter().all(fits));
                        match decision.denied_by() {
                            None => for (before, after) in before.iter().zip(&after) {
                                let taken = if before.limit.unit == Unit::Requests { amounts.requests } else { 0 };
                                prop_assert_eq!(after.used, before.used + taken);
                            },
                            Some(denied) => {
                                prop_assert_eq!(&before, &after);
                                let later = denied.reset_ms.map_or(u64::MAX / 2, |reset_ms| now_ms + reset_ms);
                                let again = counters.check(&plan, amounts, later).outcome;
                                prop_assert_eq!(again == Outcome::Admitted, denied.reset_ms.is_some());
                                if let Some(reset_ms) = denied.reset_ms {
                                    let earlier = counters.check(&plan, amounts, now_ms + reset_ms - 1);
                                    prop_assert_eq!(earlier.outcome, Outcome::Denied);
                                }
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn no_interval_admits_more_than_the_capacity_and_what_comes_back_in_it(
            capacity in 1..100u64,
            steps in prop::collection::vec((0..3000u64, 1..30u64), 1..80),
        ) {
            let plan = plan(&[limit(Unit::Requests, capacity, Window::Minute)]);
            let (mut counters, mut now_ms) = (TenantCounters::default(), NOW_MS);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, amount) in steps {
                now_ms += wait_ms;
                if counters.take(&plan, requests(amount), now_ms).outcome == Outcome::Admitted {
                    admitted.push((now_ms, amount));
                }
                for begin in 0..admitted.len() {
                    let sum: u64 = admitted[begin..].iter().map(|(_, amount)| amount).sum();
                    prop_assert!(sum * 60_000 <= capacity * (60_000 + now_ms - admitted[begin].0));
                }
            }
        }
    }
}
