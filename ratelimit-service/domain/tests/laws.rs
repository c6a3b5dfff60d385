//! Laws of the model, over generated histories of a tenant's calls.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroU64;

use proptest::prelude::*;
use tollgate_domain::{
    Action, Anchor, Ask, Call, Counter, Decision, Extent, Hold, Lend, Limit, OFFER_AGAIN_MS, Outcome, Plan, Quantities,
    Settled, Settles, Take, TenantCounters, Tokens, Unit, Unused, Used, Window,
};

/// 2026-11-23T00:00:00Z
const NOW_MS: u64 = 1_795_392_000_000;
const TIMEOUT_MS: u64 = 40_000;

fn limit(unit: Unit, capacity: u64, window: Option<Window>) -> Limit {
    Limit::new(unit, window, NonZeroU64::new(capacity).unwrap()).unwrap()
}

fn plan(limits: Vec<Limit>) -> Plan {
    Plan::new("test".into(), 1, limits)
}

fn call(tokens: u64) -> Quantities {
    Quantities { requests: 1, slots: 1, tokens: Tokens::plain(tokens, 0), cost_nanousd: 0 }
}

/// A tenant, and what has become of its calls.
struct Tenant {
    plan: Plan,
    counters: TenantCounters,
    now_ms: u64,
    calls: BTreeMap<u8, Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    admitted_at_ms: u64,
    estimate: u64,
    /// `None` while it is open.
    used: Option<u64>,
}

impl Tenant {
    fn new(limits: Vec<Limit>) -> Tenant {
        Tenant { plan: plan(limits), counters: TenantCounters::default(), now_ms: NOW_MS, calls: BTreeMap::new() }
    }

    /// One of which so many calls have come and gone.
    fn after(limits: Vec<Limit>, calls: u8) -> Tenant {
        let mut tenant = Tenant::new(limits);
        for id in 0..calls {
            tenant.admit(id, 7);
            tenant.settle(id, 3);
        }
        tenant
    }

    fn admit(&mut self, id: u8, estimate: u64) -> Outcome {
        let hold = Hold { id: id.to_string(), timeout_ms: TIMEOUT_MS, call: Default::default() };
        let asks = self.plan.asks(&Call::default(), &call(estimate), self.now_ms);
        let outcome = self.counters.admit(&asks, Take::Hold(&hold), self.now_ms).outcome;
        if outcome == Outcome::Admitted && !self.calls.contains_key(&id) {
            self.calls.insert(id, Fate { admitted_at_ms: self.now_ms, estimate, used: None });
        }
        outcome
    }

    /// Lends calls of so many tokens each; gives how many.
    fn lend(&mut self, ids: &[String], estimate: u64) -> usize {
        let lend = Lend { ids: ids.to_vec(), timeout_ms: TIMEOUT_MS, call: Default::default() };
        let asks = self.plan.asks(&Call::default(), &call(estimate), self.now_ms);
        self.counters.admit(&asks, Take::Lend(&lend), self.now_ms).reserved
    }

    fn give_back(&mut self, ids: &[String], lent: usize) -> u64 {
        let asks = self.plan.asks(&Call::default(), &call(0), self.now_ms);
        self.counters.give_back(&Unused { ids, lent: lent as u64, asks: &asks }, self.now_ms)
    }

    fn settle(&mut self, id: u8, tokens: u64) -> Settled {
        self.settle_late(id, tokens, 0)
    }

    /// By an event that comes `late_ms` after its call ended.
    fn settle_late(&mut self, id: u8, tokens: u64, late_ms: u64) -> Settled {
        let quantities = Quantities { slots: 0, ..call(tokens) };
        let asks = self.plan.asks(&Call::default(), &quantities, self.now_ms);
        let extent = if tokens == 0 { Extent::Nothing } else { Extent::Something };
        let ended_at_ms = self.now_ms - late_ms;
        let used = Used { asks: &asks, extent, started_at_ms: ended_at_ms, ended_at_ms, settles: Settles::All };
        self.counters.settle(&id.to_string(), &used, self.now_ms)
    }

    /// The limits' counters, as they stand now.
    fn standing(&self) -> Vec<Counter> {
        let asks = self.plan.questions(self.now_ms);
        self.counters.look(&asks, self.now_ms).counters
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    fn is_open(&self, id: u8) -> bool {
        self.calls.get(&id).is_some_and(|fate| fate.used.is_none() && self.now_ms < fate.admitted_at_ms + TIMEOUT_MS)
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u64),
    Admit(u8, u64),
    /// Uses so many percent of the estimate.
    Settle(u8, u64),
}

fn steps(longest_wait_ms: u64, ids: u8) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..longest_wait_ms).prop_map(Step::Wait),
        (0..ids, 0..60u64).prop_map(|(id, tokens)| Step::Admit(id, tokens)),
        (0..ids, 0..100u64).prop_map(|(id, percent)| Step::Settle(id, percent)),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// As many calls are lent as fit, no more and no fewer, and one that is lent is as good as one that was asked about.
    #[test]
    fn lending_is_admitting_one_by_one(
        capacity in 1..200u64, slots in 1..30u64, spent in 0..20u8, estimate in 0..20u64, many in 1..40usize,
    ) {
        let limits = || vec![
            limit(Unit::Tokens, capacity, Some(Window::Minute)),
            limit(Unit::Requests, 25, Some(Window::Day)),
            limit(Unit::Concurrency, slots, None),
        ];
        let [mut lending, mut asked] = [Tenant::after(limits(), spent), Tenant::after(limits(), spent)];
        let ids: Vec<String> = (100..100 + many).map(|id| id.to_string()).collect();
        let admitted = (100..100 + many).filter(|id| asked.admit(*id as u8, estimate) == Outcome::Admitted).count();
        prop_assert_eq!(lending.lend(&ids, estimate), admitted);
        prop_assert_eq!(lending.standing(), asked.standing());
        prop_assert_eq!(lending.lend(&ids[..admitted], estimate), admitted, "again, and nothing more is taken");
        prop_assert_eq!(lending.standing(), asked.standing());
        if admitted > 0 {
            prop_assert_eq!(lending.settle(100, 1), asked.settle(100, 1));
            prop_assert_eq!(lending.standing(), asked.standing());
        }
    }

    /// What is given back at once leaves everything as it was; later, no more than it was; and once is enough.
    #[test]
    fn what_is_given_back_was_never_taken(
        spent in 0..20u8, estimate in 0..20u64, many in 1..40usize, used in 0..40usize, late_ms in 0..90_000u64,
    ) {
        let limits = || vec![
            limit(Unit::Tokens, 500, Some(Window::Minute)),
            limit(Unit::Requests, 50, Some(Window::Minute)),
            limit(Unit::Requests, 1_000, Some(Window::Day)),
            limit(Unit::Concurrency, 30, None),
        ];
        let [mut lending, mut asked] = [Tenant::after(limits(), spent), Tenant::after(limits(), spent)];
        let ids: Vec<String> = (100..100 + many).map(|id| id.to_string()).collect();
        let lent = lending.lend(&ids, estimate);
        let used = used.min(lent);
        for id in 100..100 + used {
            asked.admit(id as u8, estimate);
        }
        let late_ms = if used % 2 == 0 { 0 } else { late_ms % TIMEOUT_MS };
        lending.advance(late_ms);
        asked.advance(late_ms);
        prop_assert_eq!(lending.give_back(&ids[used..], lent), (lent - used) as u64);
        let after = lending.standing();
        prop_assert_eq!(lending.give_back(&ids[used..], lent), 0);
        prop_assert_eq!(lending.standing(), after.clone());
        for (index, (given_back, never)) in after.iter().zip(asked.standing()).enumerate() {
            prop_assert_eq!(given_back.held, never.held, "{}", index);
            prop_assert!(given_back.spent >= never.spent, "{} {:?} {:?}", index, given_back, never);
            // What drains is not given back twice; all else is.
            if late_ms == 0 || index == 2 {
                prop_assert_eq!(given_back.spent, never.spent, "{}", index);
            }
        }
    }

    /// While no call uses more than it reserved, a limit is never over, and no interval admits more use than its burst and
    /// what comes back in it.
    #[test]
    fn what_is_admitted_is_never_used_beyond_the_limit(
        (capacity, burst) in (1..100u64, 1..100u64), steps in steps(20_000, 200),
    ) {
        let tokens = limit(Unit::Tokens, capacity, Some(Window::Minute));
        let tokens = tokens.with_burst(NonZeroU64::new(burst).unwrap()).unwrap();
        let mut tenant = Tenant::new(vec![tokens]);
        for step in steps {
            match step {
                Step::Wait(ms) => tenant.advance(ms),
                Step::Admit(id, tokens) => { tenant.admit(id, tokens); }
                Step::Settle(id, percent) if tenant.is_open(id) => {
                    let fate = tenant.calls[&id];
                    let used = fate.estimate * percent / 100;
                    prop_assert_eq!(tenant.settle(id, used), Settled::Posted);
                    tenant.calls.insert(id, Fate { used: Some(used), ..fate });
                }
                Step::Settle(..) => {}
            }
            prop_assert!(tenant.standing()[0].used() <= burst);
        }
        let mut admitted: Vec<_> = tenant.calls.values().map(|fate| (fate.admitted_at_ms, fate.used.unwrap_or(0))).collect();
        admitted.sort_unstable();
        for (begin, (from_ms, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (to_ms, used) in &admitted[begin..] {
                sum += used;
                prop_assert!(sum * 60_000 <= burst * 60_000 + capacity * (to_ms - from_ms));
            }
        }
    }

    /// Once every call is settled or has run out, a month has the sum of what they used, or reserved where nobody told,
    /// and no slot is taken; whatever the order, and however often it was told.
    #[test]
    fn every_call_counts_once(steps in steps(450, 20), order in any::<u64>()) {
        let limits = [(Unit::Tokens, Some(Window::Month)), (Unit::Requests, Some(Window::Month)), (Unit::Concurrency, None)];
        let mut tenant = Tenant::new(limits.map(|(unit, window)| limit(unit, 1 << 40, window)).to_vec());
        let (mut used, mut reserved): (BTreeMap<u8, u64>, BTreeMap<u8, u64>) = Default::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(ms) => tenant.advance(ms),
                Step::Admit(id, tokens) => {
                    tenant.admit(id, tokens);
                    reserved.entry(id).or_insert(tokens);
                }
                Step::Settle(id, tokens) => {
                    if let Entry::Vacant(unused) = used.entry(id) {
                        unused.insert(tokens);
                        tenant.settle(id, tokens);
                        if order >> (number % 64) & 1 == 1 {
                            prop_assert_eq!(tenant.settle(id, tokens + 1), Settled::Repeated);
                            tenant.admit(id, 50);
                        }
                    }
                }
            }
            let open = tenant.standing()[2].held;
            prop_assert!(open <= reserved.len() as u64);
        }
        // The history is shorter than settled ids are remembered.
        tenant.advance(TIMEOUT_MS);
        let [tokens, requests, slots] = tenant.standing()[..] else { panic!() };
        for (id, tokens) in reserved {
            used.entry(id).or_insert(tokens);
        }
        prop_assert_eq!((slots.used(), tokens.held), (0, 0));
        prop_assert_eq!((tokens.spent, requests.spent), (used.values().sum(), used.len() as u64));
    }

    /// A denied call takes nothing, and passes when its answer says: not a millisecond sooner.
    #[test]
    fn a_denied_call_takes_nothing_and_passes_when_told(steps in steps(5_000, 200)) {
        let limits = [(Unit::Requests, 7, Window::Minute), (Unit::Tokens, 90, Window::Second), (Unit::InputTokens, 300, Window::Day)];
        let mut tenant = Tenant::new(limits.map(|(unit, capacity, window)| limit(unit, capacity, Some(window))).to_vec());
        for step in steps {
            match step {
                Step::Wait(ms) => tenant.advance(ms),
                Step::Settle(id, tokens) => { tenant.settle(id, tokens); }
                Step::Admit(_, tokens) => {
                    let before = tenant.standing();
                    let asks = tenant.plan.asks(&Call::default(), &call(tokens), tenant.now_ms);
                    let verdict = tenant.counters.admit(&asks, Take::ForGood, tenant.now_ms);
                    let fits = |(ask, counter): (&Ask<'_>, &Counter)| counter.fits(&ask.rule, ask.amount);
                    prop_assert_eq!(verdict.outcome == Outcome::Admitted, asks.iter().zip(&before).all(fits));
                    if verdict.outcome == Outcome::Admitted { continue }
                    prop_assert_eq!(&verdict.counters, &before);
                    let denied_by = Decision::new(&asks, &verdict).denied_by().unwrap();
                    let after = |ms: u64| {
                        let now_ms = tenant.now_ms + ms;
                        let asks = tenant.plan.asks(&Call::default(), &call(tokens), now_ms);
                        tenant.counters.clone().admit(&asks, Take::ForGood, now_ms).outcome
                    };
                    match denied_by.reset_ms {
                        None => prop_assert_eq!(after(1 << 40), Outcome::Denied),
                        Some(ms) => prop_assert_eq!((after(ms - 1), after(ms)), (Outcome::Denied, Outcome::Admitted)),
                    }
                }
            }
        }
    }

    /// However late the events of calls come that use more than they reserve: made one after the other, they use no more
    /// than the burst, one call and twice what is refilled.
    #[test]
    fn a_limit_holds_however_late_events_come(
        (capacity, burst) in (1..100u64, 1..2000u64), tokens in 0..5_000u64, late_ms in 0..10_000u64,
    ) {
        let limit = limit(Unit::Tokens, capacity, Some(Window::Second)).with_burst(NonZeroU64::new(burst).unwrap());
        let mut tenant = Tenant::new(vec![limit.unwrap()]);
        let mut used = 0;
        for id in 0..200 {
            if tenant.admit(id, 1) == Outcome::Admitted {
                used += tokens;
                tenant.advance(late_ms);
                tenant.settle_late(id, tokens, late_ms);
            } else {
                tenant.advance(1_000);
            }
        }
        let refilled = capacity * (tenant.now_ms - NOW_MS) / 1_000;
        prop_assert!(used <= burst + tokens + 2 * refilled, "{used}, and {refilled} is refilled");
    }

    /// A limit that does not bind tells of every call that it has no room for, and owes no more than twice its depth.
    #[test]
    fn a_limit_that_does_not_bind_tells_all_and_owes_little((capacity, burst) in (1..100u64, 1..100u64), steps in steps(20_000, 50)) {
        let tokens = limit(Unit::Tokens, capacity, Some(Window::Minute)).with_burst(NonZeroU64::new(burst).unwrap());
        let mut tenant = Tenant::new(vec![tokens.unwrap().with_action(Action::Shadow)]);
        for step in steps {
            match step {
                Step::Wait(ms) => tenant.advance(ms),
                Step::Settle(id, tokens) => { tenant.settle(id, tokens); }
                Step::Admit(id, tokens) if id % 2 == 0 => { tenant.admit(id, tokens); }
                Step::Admit(_, tokens) => {
                    let before = tenant.standing()[0].used();
                    let asks = tenant.plan.asks(&Call::default(), &call(tokens), tenant.now_ms);
                    let verdict = tenant.counters.admit(&asks, Take::ForGood, tenant.now_ms);
                    prop_assert_eq!(verdict.outcome, Outcome::Admitted);
                    let told = !Decision::new(&asks, &verdict).shadowed.is_empty();
                    prop_assert_eq!(told, before + tokens > burst);
                }
            }
            prop_assert!(tenant.standing()[0].spent <= 2 * burst);
        }
    }

    /// Who looks sees what has run out by now, though it runs out by what comes next alone.
    #[test]
    fn who_looks_sees_what_has_run_out(steps in steps(30_000, 50)) {
        let limits = [(Unit::Tokens, Some(Window::Minute)), (Unit::Tokens, Some(Window::Day)), (Unit::Concurrency, None)];
        let mut tenant = Tenant::new(limits.map(|(unit, window)| limit(unit, 500, window)).to_vec());
        for step in steps {
            match step {
                Step::Wait(ms) => tenant.advance(ms),
                Step::Admit(id, tokens) => { tenant.admit(id, tokens); }
                Step::Settle(id, tokens) => { tenant.settle(id, tokens); }
            }
            let seen = tenant.standing();
            let before = tenant.counters.clone();
            tenant.counters.unposted(0, tenant.now_ms);
            prop_assert_eq!(seen, tenant.standing());
            tenant.counters = before;
        }
    }

    /// A settlement that overtakes its admission leaves what the other order leaves.
    #[test]
    fn the_order_of_admission_and_settlement_does_not_matter(
        estimate in 0..500u64, used in 0..500u64, before in 0..500u64, wait_ms in 0..50_000u64,
    ) {
        let limits = || vec![
            limit(Unit::Tokens, 2000, Some(Window::Hour)), limit(Unit::Tokens, 5000, Some(Window::Month)),
            limit(Unit::Requests, 5, Some(Window::Minute)), limit(Unit::Concurrency, 2, None),
        ];
        let [mut in_order, mut overtaken] = [Tenant::new(limits()), Tenant::new(limits())];
        for tenant in [&mut in_order, &mut overtaken] {
            tenant.settle(9, before);
            tenant.advance(wait_ms);
        }
        in_order.admit(1, estimate);
        in_order.settle(1, used);
        overtaken.settle(1, used);
        prop_assert_eq!(overtaken.admit(1, estimate), Outcome::Admitted);
        prop_assert_eq!(in_order.standing(), overtaken.standing());
    }
}

#[test]
fn a_reservation_that_ran_out_is_corrected_by_its_late_event() {
    let limits = [
        (Unit::Tokens, 1000, Some(Window::Month)),
        (Unit::Tokens, 1000, Some(Window::Hour)),
        (Unit::Concurrency, 1, None),
    ];
    for (used, month, hour) in [(150, 150, 148), (20, 20, 18), (0, 0, 1)] {
        let mut tenant = Tenant::new(limits.map(|(unit, capacity, window)| limit(unit, capacity, window)).to_vec());
        assert_eq!((tenant.admit(1, 100), tenant.admit(2, 1)), (Outcome::Admitted, Outcome::Denied));
        tenant.advance(TIMEOUT_MS);
        assert_eq!(tenant.admit(2, 0), Outcome::Admitted, "the slot is free");
        let expired = tenant.counters.unposted(9, tenant.now_ms);
        assert_eq!(
            expired.iter().map(|expired| (expired.id.as_str(), expired.started_at_ms)).collect::<Vec<_>>(),
            [("1", NOW_MS)]
        );
        assert_eq!(
            tenant.standing()[..2].iter().map(|counter| (counter.spent, counter.held)).collect::<Vec<_>>(),
            [(100, 0); 2]
        );
        // 10 seconds drain 2.8 of an hour's thousand: what has drained is not given back.
        tenant.advance(10_000);
        assert_eq!(tenant.settle(1, used), Settled::Corrected);
        let used_of = |counter: &Counter| counter.used();
        assert_eq!(tenant.standing()[..2].iter().map(used_of).collect::<Vec<_>>(), [month, hour]);
        assert_eq!(tenant.settle(1, used), Settled::Repeated);
    }
}

#[test]
fn what_ran_out_is_offered_a_few_at_a_time_until_it_is_posted() {
    let mut tenant = Tenant::new(vec![limit(Unit::Tokens, 1000, Some(Window::Month))]);
    for id in [5, 3, 4, 1, 2] {
        tenant.admit(id, 1);
        tenant.advance(1);
    }
    tenant.advance(TIMEOUT_MS);
    let offered = |tenant: &mut Tenant, most| {
        let expired = tenant.counters.unposted(most, tenant.now_ms);
        expired.into_iter().map(|expired| expired.id).collect::<Vec<_>>().concat()
    };
    assert_eq!(offered(&mut tenant, 2), "12", "those that ran out at once, by their ids");
    assert_eq!(tenant.counters.next_due_ms(), tenant.now_ms);
    assert_eq!((offered(&mut tenant, 2), offered(&mut tenant, 2)), ("34".into(), "5".into()));
    assert_eq!((offered(&mut tenant, 2), tenant.counters.next_due_ms()), ("".into(), tenant.now_ms + OFFER_AGAIN_MS));
    tenant.counters.posted("2");
    assert_eq!((tenant.settle(4, 1), tenant.settle(2, 1)), (Settled::Corrected, Settled::Corrected));
    tenant.advance(OFFER_AGAIN_MS);
    assert_eq!(offered(&mut tenant, 9), "135");
}

#[test]
fn a_days_overload_that_was_only_counted_is_over_in_a_window() {
    let limit = |action| limit(Unit::Requests, 60, Some(Window::Minute)).with_action(action);
    let mut tenant = Tenant::new(vec![limit(Action::Shadow)]);
    for _ in 0..24 * 60 * 600 {
        tenant.advance(100);
        let asks = tenant.plan.asks(&Call::default(), &call(0), tenant.now_ms);
        tenant.counters.admit(&asks, Take::ForGood, tenant.now_ms);
    }
    tenant.plan = plan(vec![limit(Action::Enforce)]);
    assert_eq!(tenant.admit(1, 0), Outcome::Denied);
    // Back to its depth, and two seconds more for a begun request and this one.
    tenant.advance(62_000);
    assert_eq!(tenant.admit(1, 0), Outcome::Admitted);
}

#[test]
fn a_month_begins_at_the_tenants_anchor() {
    let mut plan = plan(vec![limit(Unit::Requests, 1, Some(Window::Month))]);
    plan.anchor = Anchor::at(NOW_MS + 5_000);
    let mut tenant = Tenant { plan, ..Tenant::new(Vec::new()) };
    assert_eq!((tenant.admit(1, 0), tenant.admit(2, 0)), (Outcome::Admitted, Outcome::Denied));
    tenant.advance(5_000);
    assert_eq!((tenant.admit(2, 0), tenant.admit(3, 0)), (Outcome::Admitted, Outcome::Denied));
}
