//! Counters in this process's memory.
//!
//! Invariants:
//! - A tenant's counters lie under one of [`SHARDS`] locks, held for one decision and never across an await.
//! - There are at most [`MAX_TENANTS`] of them. A full shard forgets those that have nothing spent or reserved; where there
//!   are none, a further tenant is decided about as a new one and not remembered, and that is counted.
//! - There are at most about [`MAX_RESERVATIONS`], settled ones that are still remembered too. Past that, a call takes its
//!   estimate for good instead of holding it, and that is counted; nothing is lent then.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tollgate_domain::{Ask, Expired, Outcome, Overlap, Settled, Take, TenantCounters, Unused, Used, Verdict};

use super::{Counters, MAX_UNPOSTED, Unavailable};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// The most tenants whose counters are held.
pub const MAX_TENANTS: usize = 1 << 21;

/// The most reservations that are remembered.
pub const MAX_RESERVATIONS: usize = 1 << 22;

const SHARDS: usize = 64;

/// A full shard is searched for tenants to forget at most this often.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// The engine for one replica.
pub struct MemoryCounters {
    shards: [Mutex<Shard>; SHARDS],
    max_shard_tenants: usize,
    reservations: AtomicUsize,
    hasher: RandomState,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Default)]
struct Shard {
    tenants: HashMap<Arc<str>, Tenant>,
    /// When each tenant's reservations are to be looked at.
    due: BTreeSet<(u64, Arc<str>)>,
    swept_at_ms: u64,
}

#[derive(Default)]
struct Tenant {
    counters: TenantCounters,
    /// Its place in [`Shard::due`], where it has one.
    due_ms: Option<u64>,
}

impl MemoryCounters {
    /// Room for `max_tenants`, spread evenly over the shards.
    pub fn new(max_tenants: usize, clock: Clock, metrics: Metrics) -> MemoryCounters {
        MemoryCounters {
            shards: std::array::from_fn(|_| Mutex::default()),
            max_shard_tenants: max_tenants.div_ceil(SHARDS),
            reservations: AtomicUsize::new(0),
            hasher: RandomState::new(),
            clock,
            metrics,
        }
    }

    fn shard(&self, tenant: &str) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(tenant) as usize % SHARDS]
    }

    /// Changes a tenant's counters, which begin where there are none.
    fn change<T>(&self, tenant: &str, change: impl FnOnce(&mut TenantCounters, u64) -> T) -> T {
        let mut guard = self.shard(tenant).lock();
        let (shard, now_ms) = (&mut *guard, (self.clock)());
        if let Some(known) = shard.tenants.get_mut(tenant) {
            let changed = self.counted(known, |counters| change(counters, now_ms));
            shard.reschedule(tenant);
            return changed;
        }
        if shard.tenants.len() >= self.max_shard_tenants && !self.make_room(shard, now_ms) {
            self.metrics.tenants_untracked.inc();
            return change(&mut TenantCounters::default(), now_ms);
        }
        self.metrics.tenants.inc();
        let mut new = Tenant::default();
        let changed = self.counted(&mut new, |counters| change(counters, now_ms));
        shard.tenants.insert(tenant.into(), new);
        shard.reschedule(tenant);
        changed
    }

    fn counted<T>(&self, tenant: &mut Tenant, change: impl FnOnce(&mut TenantCounters) -> T) -> T {
        let before = tenant.counters.reservations();
        let changed = change(&mut tenant.counters);
        let after = tenant.counters.reservations();
        // Wraps where it is fewer, and comes out right.
        self.reservations.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.metrics.reservations.inc_by(after as i64 - before as i64);
        changed
    }

    /// Forgets tenants that have nothing spent or reserved; says whether there is room now.
    fn make_room(&self, shard: &mut Shard, now_ms: u64) -> bool {
        if now_ms.abs_diff(shard.swept_at_ms) < SWEEP_INTERVAL_MS {
            return false;
        }
        shard.swept_at_ms = now_ms;
        let before = shard.tenants.len();
        // One that has reservations is not idle: its place among the due ones stays right.
        shard.tenants.retain(|_, tenant| tenant.due_ms.is_some() || !tenant.counters.is_idle(now_ms));
        let forgotten = before - shard.tenants.len();
        self.metrics.tenants_evicted.inc_by(forgotten as u64);
        self.metrics.tenants.dec_by(forgotten as i64);
        forgotten > 0
    }

    fn look(&self, tenant: &str, asks: &[Ask<'_>]) -> Verdict {
        let (shard, now_ms) = (self.shard(tenant).lock(), (self.clock)());
        match shard.tenants.get(tenant) {
            Some(known) => known.counters.look(asks, now_ms),
            None => TenantCounters::default().look(asks, now_ms),
        }
    }
}

impl Shard {
    /// Puts a tenant where it belongs among the due ones.
    fn reschedule(&mut self, tenant: &str) {
        let Some(known) = self.tenants.get_mut(tenant) else { return };
        let due_ms = Some(known.counters.next_due_ms()).filter(|due_ms| *due_ms < u64::MAX);
        let before_ms = std::mem::replace(&mut known.due_ms, due_ms);
        if before_ms == due_ms {
            return;
        }
        let Some((name, _)) = self.tenants.get_key_value(tenant) else { return };
        if let Some(before_ms) = before_ms {
            self.due.remove(&(before_ms, Arc::clone(name)));
        }
        if let Some(due_ms) = due_ms {
            self.due.insert((due_ms, Arc::clone(name)));
        }
    }
}

#[tonic::async_trait]
impl Counters for MemoryCounters {
    fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    async fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Unavailable> {
        Ok(match take {
            Take::Nothing => self.look(tenant, asks),
            Take::Hold(_) if self.reservations.load(Ordering::Relaxed) >= MAX_RESERVATIONS => {
                self.metrics.reservations_refused.inc();
                self.change(tenant, |counters, now_ms| counters.admit(asks, Take::ForGood, now_ms))
            }
            Take::Lend(_) if self.reservations.load(Ordering::Relaxed) >= MAX_RESERVATIONS => {
                Verdict { outcome: Outcome::Denied, ..self.look(tenant, asks) }
            }
            _ => self.change(tenant, |counters, now_ms| counters.admit(asks, take, now_ms)),
        })
    }

    async fn settle(&self, tenant: &str, id: &str, used: &Used<'_>) -> Result<Settled, Unavailable> {
        Ok(self.change(tenant, |counters, now_ms| counters.settle(id, used, now_ms)))
    }

    async fn give_back(&self, tenant: &str, unused: &Unused<'_>) -> Result<(), Unavailable> {
        self.change(tenant, |counters, now_ms| counters.give_back(unused, now_ms));
        Ok(())
    }

    async fn unposted(&self) -> Result<Vec<(String, Expired)>, Unavailable> {
        let mut unposted = Vec::new();
        for shard in &self.shards {
            let mut guard = shard.lock();
            let (shard, now_ms) = (&mut *guard, (self.clock)());
            while unposted.len() < MAX_UNPOSTED
                && let Some((_, tenant)) = shard.due.first().filter(|(due_ms, _)| *due_ms <= now_ms).cloned()
            {
                let Some(known) = shard.tenants.get_mut(&tenant) else { break };
                let room = MAX_UNPOSTED - unposted.len();
                let expired = self.counted(known, |counters| counters.unposted(room, now_ms));
                unposted.extend(expired.into_iter().map(|expired| (tenant.to_string(), expired)));
                shard.reschedule(&tenant);
            }
        }
        Ok(unposted)
    }

    async fn posted(&self, tenant: &str, id: &str) -> Result<(), Unavailable> {
        self.change(tenant, |counters, _| counters.posted(id));
        Ok(())
    }

    fn outlives(&self) -> bool {
        false
    }

    async fn restore(&self, tenant: &str, asks: &[Ask<'_>], overlap: Overlap) -> Result<(), Unavailable> {
        self.change(tenant, |counters, now_ms| counters.restore(asks, overlap, now_ms));
        Ok(())
    }

    async fn restore_expired(&self, tenant: &str, expired: &Expired, asks: &[Ask<'_>]) -> Result<(), Unavailable> {
        self.change(tenant, |counters, now_ms| counters.restore_expired(expired, asks, now_ms));
        Ok(())
    }

    async fn reset(&self, tenant: &str, _at_ms: u64) -> Result<(), Unavailable> {
        // Of one that is not known nothing is spent.
        if let Some(known) = self.shard(tenant).lock().tenants.get_mut(tenant) {
            known.counters.reset();
        }
        Ok(())
    }

    async fn last_reset_ms(&self, _tenant: &str) -> Result<u64, Unavailable> {
        // Nobody else has them.
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use tollgate_domain::{Call, Hold, Limit, Plan, Quantities, Tokens, Unit, Window};

    const NOW_MS: u64 = 1_795_392_000_000;

    fn plan(requests: u64) -> Plan {
        let limit =
            |unit, capacity, window| Limit::new(unit, Some(window), NonZeroU64::new(capacity).unwrap()).unwrap();
        let limits = vec![limit(Unit::Requests, requests, Window::Minute), limit(Unit::Tokens, 10, Window::Month)];
        Plan::new("test".into(), 1, limits)
    }

    struct Crowded {
        counters: MemoryCounters,
        metrics: Metrics,
        now_ms: Arc<AtomicU64>,
        tenants: [String; 2],
    }

    impl Crowded {
        /// An engine with room for one tenant in each shard, and the names of two tenants that share a shard.
        fn new() -> Crowded {
            let (metrics, _) = Metrics::new();
            let now_ms = Arc::new(AtomicU64::new(NOW_MS));
            let clock = Arc::clone(&now_ms);
            let clock = Arc::new(move || clock.load(Ordering::Relaxed));
            let counters = MemoryCounters::new(SHARDS, clock, metrics.clone());
            let first = "tenant".to_owned();
            let shares = |name: &String| std::ptr::eq(counters.shard(&first), counters.shard(name));
            let second = (0..).map(|number| format!("tenant-{number}")).find(shares).unwrap();
            Crowded { counters, metrics, now_ms, tenants: [first, second] }
        }

        async fn take(&self, tenant: usize, take: Take<'_>) -> Outcome {
            let quantities = Quantities { requests: 1, ..Quantities::default() };
            let (plan, now_ms) = (plan(1), self.counters.now_ms());
            let asks = plan.asks(&Call::default(), &quantities, now_ms);
            self.counters.admit(&self.tenants[tenant], &asks, take).await.unwrap().outcome
        }

        async fn settle(&self, tenant: usize, id: &str, tokens: u64) -> Settled {
            let quantities = Quantities { requests: 1, tokens: Tokens::plain(tokens, 0), ..Quantities::default() };
            let (plan, now_ms) = (plan(1), self.counters.now_ms());
            let asks = plan.asks(&Call::default(), &quantities, now_ms);
            let extent = tollgate_domain::Extent::Something;
            let settles = tollgate_domain::Settles::All;
            let used = Used { asks: &asks, extent, started_at_ms: now_ms, ended_at_ms: now_ms, settles };
            self.counters.settle(&self.tenants[tenant], id, &used).await.unwrap()
        }

        fn wait(&self, ms: u64) {
            self.now_ms.fetch_add(ms, Ordering::Relaxed);
        }

        fn tenants(&self) -> (i64, u64, u64) {
            let Metrics { tenants, tenants_evicted, tenants_untracked, .. } = &self.metrics;
            (tenants.get(), tenants_evicted.get(), tenants_untracked.get())
        }
    }

    #[tokio::test]
    async fn a_tenant_with_nothing_spent_makes_room() {
        let crowded = Crowded::new();
        assert_eq!(crowded.take(0, Take::ForGood).await, Outcome::Admitted);
        crowded.wait(60_000);
        assert_eq!(crowded.take(1, Take::ForGood).await, Outcome::Admitted);
        assert_eq!(crowded.take(1, Take::ForGood).await, Outcome::Denied);
        assert_eq!(crowded.tenants(), (1, 1, 0));
    }

    #[tokio::test]
    async fn a_tenant_that_has_spent_is_not_forgotten() {
        let crowded = Crowded::new();
        assert_eq!(crowded.settle(0, "id", 10).await, Settled::Unreserved);
        crowded.wait(120_000);
        for _ in 0..2 {
            assert_eq!(crowded.take(1, Take::ForGood).await, Outcome::Admitted);
        }
        assert_eq!(crowded.take(0, Take::ForGood).await, Outcome::Denied);
        assert_eq!(crowded.tenants(), (1, 0, 2));
    }

    #[tokio::test]
    async fn a_tenant_with_a_reservation_is_not_forgotten_and_what_runs_out_is_offered_until_posted() {
        let crowded = Crowded::new();
        let hold = Hold { id: "id".into(), timeout_ms: 100_000, call: Default::default() };
        assert_eq!(crowded.take(0, Take::Hold(&hold)).await, Outcome::Admitted);
        crowded.wait(90_000);
        assert_eq!(crowded.take(1, Take::ForGood).await, Outcome::Admitted);
        assert_eq!((crowded.tenants(), crowded.metrics.reservations.get()), ((1, 0, 1), 1));
        assert_eq!(crowded.counters.unposted().await.unwrap(), []);
        crowded.wait(10_000);
        for _ in 0..2 {
            let expired = crowded.counters.unposted().await.unwrap();
            let ids: Vec<_> = expired.iter().map(|(tenant, expired)| (tenant.as_str(), expired.id.as_str())).collect();
            assert_eq!(ids, [("tenant", "id")]);
            assert_eq!(crowded.counters.unposted().await.unwrap(), []);
            crowded.wait(tollgate_domain::OFFER_AGAIN_MS);
        }
        crowded.counters.posted("tenant", "id").await.unwrap();
        assert_eq!(crowded.counters.unposted().await.unwrap(), []);
        crowded.wait(tollgate_domain::EXPIRED_KEPT_MS);
        assert_eq!(crowded.counters.unposted().await.unwrap(), []);
        assert_eq!(crowded.metrics.reservations.get(), 0);
    }

    #[tokio::test]
    async fn a_tenant_never_seen_is_reset_without_being_remembered() {
        let crowded = Crowded::new();
        crowded.counters.reset("tenant", NOW_MS).await.unwrap();
        assert_eq!(crowded.tenants(), (0, 0, 0));
        assert_eq!(crowded.settle(0, "id", 10).await, Settled::Unreserved);
        crowded.counters.reset("tenant", NOW_MS).await.unwrap();
        assert_eq!(crowded.take(0, Take::ForGood).await, Outcome::Admitted);
    }

    #[tokio::test]
    async fn no_more_is_offered_at_once_than_its_maximum() {
        let crowded = Crowded::new();
        let plan = Plan::new("test".into(), 1, Vec::new());
        let asks = plan.asks(&Call::default(), &Quantities::default(), NOW_MS);
        for number in 0..MAX_UNPOSTED + 1 {
            let hold = Hold { id: number.to_string(), timeout_ms: 1, call: Default::default() };
            crowded.counters.admit("tenant", &asks, Take::Hold(&hold)).await.unwrap();
        }
        crowded.wait(1);
        for offered in [MAX_UNPOSTED, 1, 0] {
            assert_eq!(crowded.counters.unposted().await.unwrap().len(), offered);
        }
    }

    #[tokio::test]
    async fn asking_about_a_tenant_holds_nothing() {
        let crowded = Crowded::new();
        assert_eq!(crowded.take(0, Take::Nothing).await, Outcome::Admitted);
        assert_eq!(crowded.tenants(), (0, 0, 0));
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let counters = MemoryCounters::new(MAX_TENANTS, Arc::new(|| NOW_MS), Metrics::new().0);
        let plan = plan(1000);
        let one = Quantities { requests: 1, ..Quantities::default() };
        let asks = plan.asks(&Call::default(), &one, NOW_MS);
        let admitted = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let admit = || runtime.block_on(counters.admit("acme", &asks, Take::ForGood)).unwrap();
            (0..500).filter(|_| admit().outcome == Outcome::Admitted).count()
        };
        let sum: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 1000);
    }
}
