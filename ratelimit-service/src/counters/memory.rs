//! Counters in this process's memory.
//!
//! Invariants:
//! - A tenant's counters lie under one of [`SHARDS`] locks, held for one decision and never across an await.
//! - There are at most [`MAX_TENANTS`] of them. A full shard forgets those that have nothing spent; where there are none, a
//!   further tenant is decided about as a new one and not remembered, and that is counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use tollgate_domain::{Amounts, Decision, Limit, Plan, Settlement, Span, Standing, TenantCounters};

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

    fn settle(&self, tenant: &str, limits: &[Limit], used: Settlement, now_ms: u64) {
        self.change(tenant, now_ms, |counters| counters.settle(limits, used, now_ms));
    }

    fn restore(&self, tenant: &str, limits: &[Limit], span: Span, used: Amounts, now_ms: u64) {
        self.change(tenant, now_ms, |counters| counters.restore(limits, span, used, now_ms));
    }

    fn standings(&self, tenant: &str, plan: &Plan, now_ms: u64) -> Vec<Standing> {
        self.read(tenant, |counters| counters.standings(plan, now_ms))
    }
}
