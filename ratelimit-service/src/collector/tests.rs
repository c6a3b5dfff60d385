//! The collector with its spool, a limiter with its counters in memory, and a real ledger.

use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tollgate_domain::{Call, OFFER_AGAIN_MS, Outcome, Overlap, Tenants};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent};

use super::*;
use crate::audit::SqliteAudit;
use crate::config::Config;
use crate::counters::MemoryCounters;
use crate::database::Database;
use crate::entry::Batch;
use crate::ledger::{Ledger, SqliteLedger};
use crate::limiter::Admission;
use crate::spool::{Lag, SpoolSettings};

const NOW_MS: u64 = 1_774_008_000_000;
const TIMEOUT_MS: u64 = 600_000;
const PLANS: &str = "
limiter: { default_tier: free }
tiers:
  free:
    context_tokens: 100000
    limits: [{ unit: concurrency, capacity: 2 }, { unit: tokens, capacity: 1000, window: day }]
prices:
  - { model: priced, input: 2, output: 10 }
";

/// A service without its servers.
struct World {
    limiter: Arc<Limiter>,
    ledger: Arc<SqliteLedger>,
    audit: SqliteAudit,
    collector: Collector,
    drain: Drain,
    now_ms: Arc<AtomicU64>,
    folder: TempDir,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicU64::new(NOW_MS));
        World::started(folder, limiter(&now_ms), now_ms).await
    }

    async fn started(folder: TempDir, limiter: Arc<Limiter>, now_ms: Arc<AtomicU64>) -> World {
        let metrics = Metrics::new().0;
        let database = Arc::new(Database::open(&folder.path().join("ledger.db")).await.unwrap());
        let ledger = Arc::new(SqliteLedger::new(database.clone()));
        let audit = SqliteAudit::new(database);
        let settings = SpoolSettings { folder: folder.path().join("spool"), max_bytes: 1 << 30 };
        let (spool, mut consumers) = Spool::open(&settings, &[("ledger".to_owned(), Lag::Wait)], &metrics).unwrap();
        let collector = Collector::new(Arc::new(spool), Arc::clone(&limiter), metrics);
        let consumer = consumers.remove(0);
        let drain = Drain::new(consumer, ledger.clone(), collector.clone());
        World { limiter, ledger, audit, collector, drain, now_ms, folder }
    }

    /// After a crash.
    async fn restarted(self) -> World {
        let limiter = limiter(&self.now_ms);
        let mut world = self.restarted_with(limiter).await;
        world.drain.catch_up(Settling::Never).await.unwrap();
        world.limiter.restore(world.ledger.as_ref(), &world.audit, &Tenants::All, Overlap::Nothing).await.unwrap();
        world.limiter.restore_expired(world.ledger.as_ref()).await.unwrap();
        world
    }

    /// After a crash that the counters outlived.
    async fn restarted_alone(self) -> World {
        let limiter = Arc::clone(&self.limiter);
        let mut world = self.restarted_with(limiter).await;
        world.drain.catch_up(Settling::Late).await.unwrap();
        world.limiter.restore(world.ledger.as_ref(), &world.audit, &Tenants::All, Overlap::Held).await.unwrap();
        world
    }

    async fn restarted_with(self, limiter: Arc<Limiter>) -> World {
        let World { ledger, collector, drain, now_ms, folder, .. } = self;
        drop((collector, drain));
        ledger.close().await;
        World::started(folder, limiter, now_ms).await
    }

    async fn admit(&self, id: &str) -> Outcome {
        let asked = Admission {
            tenant: "acme",
            call: Call { model: Some("priced"), api: None, key: None },
            requests: 1,
            input_tokens: 10,
            output_tokens: Some(10),
            reservation_id: Some(id),
            ..Admission::default()
        };
        self.limiter.admit(&self.limiter.policy(), &asked).await.unwrap().outcome
    }

    async fn store(&self, events: &[UsageEvent]) {
        self.collector.store(events.iter().cloned().map(Entry::Usage).collect()).await.unwrap();
    }

    async fn drain(&mut self) {
        self.drain.catch_up(Settling::Late).await.unwrap();
    }

    /// What is used of each limit.
    async fn used(&self) -> [u64; 2] {
        let policy = self.limiter.policy();
        let plan = self.limiter.plan(&policy, "acme", None).unwrap();
        let standings = self.limiter.standings("acme", plan).await.unwrap();
        [0, 1].map(|at| standings[at].used)
    }

    /// Whether a call is in the ledger, and at what.
    async fn stored(&self) -> Vec<(String, UsageSource, u64)> {
        let page = crate::ledger::Page { tenant: "acme", from_ms: 0, to_ms: u64::MAX, after: None, limit: 10_000 };
        let events = self.ledger.events(&page).await.unwrap();
        events.into_iter().map(|event| (event.event_id, event.usage_source, event.tokens.input)).collect()
    }
}

fn limiter(now_ms: &Arc<AtomicU64>) -> Arc<Limiter> {
    let (metrics, time) = (Metrics::new().0, Arc::clone(now_ms));
    let counters = MemoryCounters::new(1000, Arc::new(move || time.load(Ordering::Relaxed)), metrics.clone());
    let policy = Config::parse(PLANS, "test").unwrap().policy;
    Arc::new(Limiter::new(policy, Arc::new(counters), metrics))
}

fn event(id: &str) -> UsageEvent {
    UsageEvent {
        event_id: id.to_owned(),
        reservation_id: Some(id.to_owned()),
        tenant: "acme".to_owned(),
        started_at_ms: NOW_MS,
        request_model: Some("priced".to_owned()),
        status: 200,
        tokens: TokenCounts { input: 7, output: 5, ..TokenCounts::default() },
        usage_source: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

#[tokio::test]
async fn a_call_is_settled_when_it_is_kept_whatever_the_ledger_does_and_once() {
    let mut world = World::new().await;
    for id in ["a", "b"] {
        assert_eq!(world.admit(id).await, Outcome::Admitted);
    }
    assert_eq!(world.admit("c").await, Outcome::Denied);
    // Nobody drains the spool: the ledger is as good as down.
    world.store(&[event("a"), event("a")]).await;
    world.store(&[event("a")]).await;
    assert_eq!((world.used().await, world.stored().await), ([1, 20 + 12], vec![]));
    assert_eq!(world.admit("c").await, Outcome::Admitted);

    // By then the counters have forgotten that it was settled.
    world.now_ms.fetch_add(120_000, Ordering::Relaxed);
    world.store(&[event("a")]).await;
    world.drain().await;
    assert_eq!(world.used().await, [2, 40 + 12]);
    assert_eq!(world.stored().await, [("a".to_owned(), UsageSource::Reported, 7)]);
    let metrics = &world.collector.metrics;
    assert_eq!((metrics.events_accepted.get(), metrics.events_duplicate.get()), (1, 3));
}

#[tokio::test]
async fn a_call_without_a_reservation_is_settled_once_the_ledger_knows_that_it_is_new() {
    let mut world = World::new().await;
    let unasked = UsageEvent { reservation_id: None, ..event("a") };
    world.store(&[unasked.clone(), event("b"), event("b")]).await;
    assert_eq!(world.used().await, [0, 0]);
    world.drain().await;
    assert_eq!(world.used().await, [0, 24]);
    world.now_ms.fetch_add(120_000, Ordering::Relaxed);
    world.store(&[unasked, event("b")]).await;
    world.drain().await;
    assert_eq!(world.used().await, [0, 24]);
}

#[tokio::test]
async fn after_a_crash_each_call_counts_once_wherever_it_was() {
    let mut world = World::new().await;
    for id in ["a", "b"] {
        assert_eq!(world.admit(id).await, Outcome::Admitted);
    }
    world.store(&[event("a"), event("x")]).await;
    world.drain().await;
    world.store(&[event("b"), event("a")]).await;
    let mut world = world.restarted().await;
    assert_eq!(world.used().await, [0, 36]);
    world.store(&[event("b"), event("c")]).await;
    world.drain().await;
    assert_eq!((world.used().await, world.stored().await.len()), ([0, 48], 4));
}

#[tokio::test]
async fn after_a_crash_that_the_counters_outlived_each_call_counts_once_wherever_it_was() {
    let mut world = World::new().await;
    for id in ["everywhere", "forgotten"] {
        assert_eq!(world.admit(id).await, Outcome::Admitted);
    }
    world.store(&[event("everywhere")]).await;
    world.drain().await;
    world.store(&[event("forgotten")]).await;
    world.now_ms.fetch_add(120_000, Ordering::Relaxed);
    for id in ["not settled", "lost"] {
        assert_eq!(world.admit(id).await, Outcome::Admitted);
    }
    let entries = |id: &str| -> Arc<[Entry]> { [Entry::Usage(event(id))].into() };
    world.collector.spool.append(entries("not settled")).await.unwrap();
    for id in ["not settled", "lost"] {
        world.ledger.append(Batch::new(vec![entries(id)])).await.unwrap();
    }
    let mut world = world.restarted_alone().await;
    assert_eq!(world.stored().await.len(), 4);
    assert_eq!(world.used().await, [1, 3 * 12 + 20]);

    // What was lost runs out.
    world.now_ms.fetch_add(TIMEOUT_MS, Ordering::Relaxed);
    world.collector.post_unsettled().await.unwrap();
    world.drain().await;
    assert_eq!((world.stored().await.len(), world.used().await), (4, [0, 4 * 12]));
}

#[tokio::test]
async fn what_a_call_cost_is_worked_out_and_nothing_that_is_told() {
    let mut world = World::new().await;
    let told = |id: &str, model: &str| UsageEvent {
        request_model: Some(model.to_owned()),
        cost_nanousd: Some(1),
        ..event(id)
    };
    let nothing = UsageEvent { usage_source: UsageSource::None, ..told("c", "unknown") };
    world.store(&[told("a", "priced"), told("b", "unknown"), nothing]).await;
    world.drain().await;
    let page = crate::ledger::Page { tenant: "acme", from_ms: 0, to_ms: u64::MAX, after: None, limit: 9 };
    let events = world.ledger.events(&page).await.unwrap();
    let costs: Vec<_> = events.iter().map(|event| event.cost_nanousd).collect();
    assert_eq!(costs, [Some(7 * 2_000 + 5 * 10_000), None, Some(0)]);
    assert!(events.iter().all(|event| event.tier == "free"));
}

#[tokio::test]
async fn all_that_ran_out_is_posted_and_offered_again_until_it_is_kept() {
    let mut world = World::new().await;
    for id in ["a", "b"] {
        assert_eq!(world.admit(id).await, Outcome::Admitted);
    }
    world.now_ms.fetch_add(TIMEOUT_MS, Ordering::Relaxed);
    let (here, gone) = (world.folder.path().join("spool"), world.folder.path().join("gone"));
    std::fs::rename(&here, &gone).unwrap();
    world.collector.post_unsettled().await.unwrap_err();
    std::fs::rename(&gone, &here).unwrap();
    world.collector.post_unsettled().await.unwrap();
    world.drain().await;
    assert_eq!(world.stored().await, []);
    world.now_ms.fetch_add(OFFER_AGAIN_MS, Ordering::Relaxed);
    world.collector.post_unsettled().await.unwrap();
    world.drain().await;
    let unsettled = |id: &str| (id.to_owned(), UsageSource::Unsettled, 10);
    assert_eq!(world.stored().await, [unsettled("a"), unsettled("b")]);
    assert_eq!(world.collector.metrics.reservations_expired.get(), 2);

    // The event comes after all.
    world.store(&[event("a")]).await;
    world.drain().await;
    assert_eq!(world.stored().await, [("a".to_owned(), UsageSource::Reported, 7), unsettled("b")]);
    assert_eq!(world.used().await, [0, 12 + 20]);
}
