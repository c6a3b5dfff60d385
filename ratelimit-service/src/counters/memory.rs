//! Counters in this process's memory.
//!
//! Invariants:
//! - A tenant's counters lie under one of [`SHARDS`] locks, held for one decision and never across an await.
//! - There are at most [`MAX_TENANTS`] of them. A full shard forgets those that have nothing spent; where there are none, a
//!   further tenant is decided about as a new one and not remembered, and that is counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use tollgate_domain::{Amounts, Decision, Plan, Settlement, Span, Standing, TenantCounters};

use super::Counters;
use crate::metrics::Metrics;

/// The most tenants whose counters are held.
pub const MAX_TENANTS: usize = 1 << 20;

const SHARDS: usize = 64;

/// A full shard is searched for tenants to forget at most this often.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// The engine for one replica.
pub struct MemoryCounters {
    shards: [Mutex<Shard>; SHARDS],
    max_shard_tenants: usize,
    hasher: RandomState,
    metrics: Metrics,
}

#[derive(Default)]
struct Shard {
    tenants: HashMap<Box<str>, TenantCounters>,
    swept_at_ms: u64,
}

impl MemoryCounters {
    /// Room for `max_tenants`, spread evenly over the shards.
    pub fn new(max_tenants: usize, metrics: Metrics) -> MemoryCounters {
        MemoryCounters {
            shards: std::array::from_fn(|_| Mutex::default()),
            max_shard_tenants: max_tenants.div_ceil(SHARDS),
            hasher: RandomState::new(),
            metrics,
        }
    }

    fn shard(&self, tenant: &str) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(tenant) as usize % SHARDS]
    }

    fn change<T>(&self, tenant: &str, now_ms: u64, change: impl FnOnce(&mut TenantCounters) -> T) -> T {
        let mut shard = self.shard(tenant).lock();
        if let Some(counters) = shard.tenants.get_mut(tenant) {
            return change(counters);
        }
        if shard.tenants.len() >= self.max_shard_tenants && !self.make_room(&mut shard, now_ms) {
            self.metrics.tenants_untracked.inc();
            return change(&mut TenantCounters::default());
        }
        self.metrics.tenants.inc();
        change(shard.tenants.entry(tenant.into()).or_default())
    }

    /// Forgets tenants that have nothing spent; says whether there is room now.
    fn make_room(&self, shard: &mut Shard, now_ms: u64) -> bool {
        if now_ms.abs_diff(shard.swept_at_ms) < SWEEP_INTERVAL_MS {
            return false;
        }
        shard.swept_at_ms = now_ms;
        let before = shard.tenants.len();
        shard.tenants.retain(|_, counters| !counters.is_untouched(now_ms));
        let forgotten = before - shard.tenants.len();
        self.metrics.tenants_evicted.inc_by(forgotten as u64);
        self.metrics.tenants.dec_by(forgotten as i64);
        forgotten > 0
    }

    fn read<T>(&self, tenant: &str, read: impl FnOnce(&TenantCounters) -> T) -> T {
        let shard = self.shard(tenant).lock();
        match shard.tenants.get(tenant) {
            Some(counters) => read(counters),
            None => read(&TenantCounters::default()),
        }
    }
}

impl Counters for MemoryCounters {
    fn take(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.change(tenant, now_ms, |counters| counters.take(plan, amounts, now_ms))
    }

    fn check(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.read(tenant, |counters| counters.check(plan, amounts, now_ms))
    }

    fn settle(&self, tenant: &str, plan: &Plan, used: Settlement, now_ms: u64) {
        self.change(tenant, now_ms, |counters| counters.settle(plan, used, now_ms));
    }

    fn restore(&self, tenant: &str, plan: &Plan, span: Span, used: Amounts, now_ms: u64) {
        self.change(tenant, now_ms, |counters| counters.restore(plan, span, used, now_ms));
    }

    fn standings(&self, tenant: &str, plan: &Plan, now_ms: u64) -> Vec<Standing> {
        self.read(tenant, |counters| counters.standings(plan, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use tollgate_domain::{Limit, Outcome, Unit, Window};

    const NOW_MS: u64 = 1_795_392_000_000;

    fn plan() -> Plan {
        let limit = |unit, capacity, window| Limit { unit, capacity: NonZeroU64::new(capacity).unwrap(), window };
        let limits = vec![limit(Unit::Requests, 1, Window::Minute), limit(Unit::Tokens, 10, Window::Month)];
        Plan::new("test".into(), 1, limits)
    }

    /// An engine with room for one tenant in each shard, and the names of two tenants that share a shard.
    fn crowded() -> (MemoryCounters, Metrics, [String; 2]) {
        let (metrics, _) = Metrics::new();
        let counters = MemoryCounters::new(SHARDS, metrics.clone());
        let first = "tenant".to_owned();
        let shares = |name: &String| std::ptr::eq(counters.shard(&first), counters.shard(name));
        let second = (0..).map(|number| format!("tenant-{number}")).find(shares).unwrap();
        (counters, metrics, [first, second])
    }

    fn take(counters: &MemoryCounters, tenant: &str, now_ms: u64) -> Outcome {
        counters.take(tenant, &plan(), Amounts { requests: 1, ..Amounts::default() }, now_ms).outcome
    }

    #[test]
    fn a_tenant_with_nothing_spent_makes_room() {
        let (counters, metrics, [first, second]) = crowded();
        assert_eq!(take(&counters, &first, NOW_MS), Outcome::Admitted);
        assert_eq!(take(&counters, &second, NOW_MS + 60_000), Outcome::Admitted);
        assert_eq!(take(&counters, &second, NOW_MS + 60_000), Outcome::Denied);
        assert_eq!((metrics.tenants.get(), metrics.tenants_evicted.get(), metrics.tenants_untracked.get()), (1, 1, 0));
    }

    #[test]
    fn a_tenant_that_has_spent_is_not_forgotten() {
        let (counters, metrics, [first, second]) = crowded();
        let used = Settlement { input_tokens: 10, output_tokens: 0, started_at_ms: NOW_MS, ended_at_ms: NOW_MS };
        counters.settle(&first, &plan(), used, NOW_MS);
        for _ in 0..2 {
            assert_eq!(take(&counters, &second, NOW_MS + 60_000), Outcome::Admitted);
        }
        assert_eq!(take(&counters, &first, NOW_MS + 60_000), Outcome::Denied);
        assert_eq!((metrics.tenants.get(), metrics.tenants_evicted.get(), metrics.tenants_untracked.get()), (1, 0, 2));
    }

    #[test]
    fn asking_about_a_tenant_holds_nothing() {
        let (counters, metrics, [first, _]) = crowded();
        counters.check(&first, &plan(), Amounts::default(), NOW_MS);
        assert_eq!(counters.standings(&first, &plan(), NOW_MS).len(), 2);
        assert_eq!(metrics.tenants.get(), 0);
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let counters = MemoryCounters::new(MAX_TENANTS, Metrics::new().0);
        let mut plan = plan();
        plan.limits[0].capacity = NonZeroU64::new(1000).unwrap();
        let one = Amounts { requests: 1, ..Amounts::default() };
        let admitted =
            || (0..500).filter(|_| counters.take("acme", &plan, one, NOW_MS).outcome == Outcome::Admitted).count();
        let sum: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 1000);
    }
}
