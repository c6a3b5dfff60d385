//! The limiter with its counters in memory, a real ledger, and a clock of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tollgate_domain::{Outcome, Overlap, Tenants};

use super::*;
use crate::audit::{Audit, Entry, RESET, SqliteAudit};
use crate::config::Config;
use crate::counters::MemoryCounters;
use crate::database::Database;
use crate::entry::Batch;
use crate::ledger::{Ledger, MAX_COUNT, SqliteLedger, Usage};

/// 2026-03-20T12:00:00Z
const NOON_MS: u64 = 1_774_008_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const TIMEOUT_MS: u64 = 600_000;

/// Plans, the moment, and a ledger that outlives any number of limiters.
struct World {
    policy: Policy,
    now_ms: Arc<AtomicU64>,
    ledger: SqliteLedger,
    audit: SqliteAudit,
    _folder: TempDir,
}

impl World {
    /// With one tier of these limits, and these `tenants` and `prices`.
    async fn new(limits: &str, rest: &str) -> World {
        let text = format!(
            "limiter: {{ default_tier: free }}\ntiers:\n  free: {{ context_tokens: 1000000000, limits: [{limits}] }}\n{rest}"
        );
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("ledger.db");
        let database = Arc::new(Database::open(&file).await.unwrap());
        let (ledger, audit) = (SqliteLedger::new(database.clone()), SqliteAudit::new(database));
        let policy = Config::parse(&text, "test").unwrap().policy;
        World { policy, now_ms: Arc::new(AtomicU64::new(NOON_MS)), ledger, audit, _folder: folder }
    }

    /// A limiter that knows of nothing.
    fn empty(&self) -> Limiter {
        let (now_ms, (metrics, _)) = (Arc::clone(&self.now_ms), Metrics::new());
        let clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
        let counters = MemoryCounters::new(1000, clock, metrics.clone());
        Limiter::new(self.policy.clone(), Arc::new(counters), metrics)
    }

    /// A limiter after a restart.
    async fn restarted(&self) -> Limiter {
        let limiter = self.empty();
        limiter.restore(&self.ledger, &self.audit, &Tenants::All, Overlap::Nothing).await.unwrap();
        limiter.restore_expired(&self.ledger).await.unwrap();
        limiter
    }

    fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A call of now that used so much.
    fn event(&self, id: &str, tenant: &str, input: u64, output: u64) -> UsageEvent {
        UsageEvent {
            event_id: id.to_owned(),
            reservation_id: Some(id.to_owned()),
            tenant: tenant.to_owned(),
            tier: "free".to_owned(),
            started_at_ms: self.now_ms.load(Ordering::Relaxed),
            request_model: Some("gpt-4o".to_owned()),
            api: Some("openai-chat".to_owned()),
            status: 200,
            tokens: TokenCounts { input, output, ..TokenCounts::default() },
            usage_source: UsageSource::Reported,
            ..UsageEvent::default()
        }
    }

    /// As the collector does.
    async fn take(&self, limiter: &Limiter, events: &[UsageEvent]) -> Vec<Settled> {
        let mut settled = Vec::new();
        let new = self.ledger.append(Batch::from(events.to_vec())).await.unwrap();
        for (event, _) in events.iter().zip(new).filter(|(_, is_new)| *is_new) {
            settled.push(limiter.settle(event, Settles::All).await.unwrap());
        }
        settled
    }

    /// Likewise, what ran out.
    async fn post_unsettled(&self, limiter: &Limiter) {
        let events = limiter.unposted().await.unwrap();
        self.ledger.append(Batch::from(events.clone())).await.unwrap();
        limiter.posted(&events).await.unwrap();
    }

    async fn admit(&self, limiter: &Limiter, id: &str, tenant: &str, input: u64, output: u64) -> Outcome {
        let asked = Admission {
            tenant,
            tier: Some("free"),
            call: Call { model: Some("gpt-4o"), api: Some("openai-chat"), key: None },
            requests: 1,
            input_tokens: input,
            output_tokens: Some(output),
            images: 0,
            reservation_id: Some(id),
        };
        limiter.admit(&self.policy, &asked).await.unwrap().outcome
    }

    /// A call that asks for so many images, and for no tokens.
    async fn draw(&self, limiter: &Limiter, id: &str, images: u64) -> Outcome {
        let asked = Admission {
            tenant: "acme",
            tier: Some("free"),
            call: Call { model: Some("dall-e-3"), api: Some("openai-images"), key: None },
            requests: 1,
            output_tokens: Some(0),
            images,
            reservation_id: Some(id),
            ..Admission::default()
        };
        limiter.admit(&self.policy, &asked).await.unwrap().outcome
    }

    /// A call that made so many.
    fn drawn(&self, id: &str, images: u64) -> UsageEvent {
        UsageEvent {
            request_model: Some("dall-e-3".to_owned()),
            api: Some("openai-images".to_owned()),
            tokens: TokenCounts { images, ..TokenCounts::default() },
            ..self.event(id, "acme", 0, 0)
        }
    }

    /// What is used of each limit, in the plan's order.
    async fn used(&self, limiter: &Limiter, tenant: &str) -> Vec<u64> {
        let plan = limiter.plan(&self.policy, tenant, None).unwrap();
        limiter.standings(tenant, plan).await.unwrap().iter().map(|standing| standing.used).collect()
    }
}

fn void(finish: Finish, event: UsageEvent) -> UsageEvent {
    UsageEvent { finish, status: 503, usage_source: UsageSource::None, tokens: TokenCounts::default(), ..event }
}

#[tokio::test]
async fn an_estimate_of_any_size_is_posted_and_read_again() {
    let world = World::new("{ unit: requests, capacity: 100, window: day }", "").await;
    let limiter = world.empty();
    for id in ["a", "b", "c"] {
        assert_eq!(world.admit(&limiter, id, "acme", 1, u64::MAX - 1).await, Outcome::Admitted);
    }
    world.at(NOON_MS + TIMEOUT_MS);
    world.post_unsettled(&limiter).await;
    let spent = world.ledger.spent_since(0, None).await.unwrap();
    assert_eq!((spent[0].usage.requests_unsettled, spent[0].usage.output_tokens), (3, 3 * MAX_COUNT));
    assert_eq!(world.take(&limiter, &[world.event("d", "acme", 1, 1)]).await, [Settled::Unreserved]);
    assert_eq!(world.used(&world.restarted().await, "acme").await, [4]);
}

#[tokio::test]
async fn images_that_are_asked_for_are_reserved_and_then_settled_to_those_that_were_made() {
    let world =
        World::new("{ unit: cost, capacity: 1, window: month }", "prices: [{ model: 'dall-e-*', per_image: 0.3 }]")
            .await;
    let limiter = world.empty();
    let spent = async |limiter: &Limiter| world.used(limiter, "acme").await[0];
    assert_eq!(world.draw(&limiter, "a", 4).await, Outcome::Denied, "four cost more than there is");
    assert_eq!(world.draw(&limiter, "b", 2).await, Outcome::Admitted);
    assert_eq!(spent(&limiter).await, 600_000_000);
    assert_eq!(world.draw(&limiter, "c", 2).await, Outcome::Denied, "as much is reserved");
    let mut made = world.drawn("b", 1);
    limiter.rate(&mut made);
    assert_eq!(made.cost_nanousd, Some(300_000_000));
    assert_eq!(world.take(&limiter, &[made]).await, [Settled::Posted]);
    assert_eq!(spent(&limiter).await, 300_000_000);
    assert_eq!(spent(&world.restarted().await).await, 300_000_000);

    // One that nobody settles is billed at its estimate, and a late event takes its place.
    assert_eq!(world.draw(&limiter, "d", 2).await, Outcome::Admitted);
    world.at(NOON_MS + TIMEOUT_MS);
    world.post_unsettled(&limiter).await;
    let all = world.ledger.spent_since(0, None).await.unwrap();
    let usage: Usage = all.iter().map(|spent| &spent.usage).sum();
    assert_eq!((usage.images, usage.requests_unsettled, usage.cost_nanousd), (3, 1, 900_000_000));
    assert_eq!(spent(&world.restarted().await).await, 900_000_000);
    let late = UsageEvent { started_at_ms: NOON_MS, ..world.drawn("d", 1) };
    assert_eq!(world.take(&limiter, &[late]).await, [Settled::Corrected]);
    assert_eq!((spent(&limiter).await, spent(&world.restarted().await).await), (600_000_000, 600_000_000));
}

#[tokio::test]
async fn a_call_that_made_images_alone_has_used_something() {
    let world = World::new("{ unit: tokens, capacity: 1000, window: day }", "").await;
    let limiter = world.empty();
    world.admit(&limiter, "a", "acme", 10, 20).await;
    // Its plan has another limit by now, and the estimate stays where it is not asked any more.
    let other = World::new("{ unit: requests, capacity: 10, window: day }", "").await;
    limiter.replace(other.policy.clone());
    limiter.settle(&world.drawn("a", 1), Settles::All).await.unwrap();
    limiter.replace(world.policy.clone());
    assert_eq!(world.used(&limiter, "acme").await, [30]);
}

#[tokio::test]
async fn a_call_that_was_refused_costs_no_request() {
    let limits = "{ unit: requests, capacity: 10, window: hour }, { unit: requests, capacity: 10, window: day }, \
                  { unit: tokens, capacity: 1000, window: day }";
    let world = World::new(limits, "").await;
    let limiter = world.empty();
    let refused = |id: &str| void(Finish::LocalReply, world.event(id, "acme", 0, 0));
    assert_eq!(world.take(&limiter, &[refused("a"), refused("b")]).await, [Settled::Unreserved; 2]);
    assert_eq!(world.used(&limiter, "acme").await, [0, 0, 0]);
    // What may have been reserved all the same is given back; its request was taken for good.
    world.admit(&limiter, "c", "acme", 10, 20).await;
    assert_eq!(world.take(&limiter, &[refused("c")]).await, [Settled::Posted]);
    assert_eq!(world.used(&limiter, "acme").await, [1, 1, 0]);
    // A call that the upstream broke off was made.
    let broken = void(Finish::UpstreamReset, world.event("d", "acme", 0, 0));
    world.take(&limiter, &[broken]).await;
    assert_eq!(world.used(&limiter, "acme").await, [2, 2, 0]);
    assert_eq!(world.used(&world.restarted().await, "acme").await, [0, 1, 0]);
}

#[tokio::test]
async fn a_restart_counts_days_and_months_as_they_were_counted() {
    let limits = "
        { unit: requests, capacity: 1000, window: day },
        { unit: tokens, capacity: 1000000, window: day, weights: { output: 2.5, cache_read: 0.5, models: { gpt-4o: 2 } } },
        { unit: requests, capacity: 1000, window: month, weights: { models: { gpt-4o: 3 } } },
        { unit: tokens, capacity: 1000000, window: month, match: { models: [gpt-4o] } },
        { unit: cost, capacity: 100, window: month }";
    let rest = "
tenants: { zeta: { billing_anchor: 2026-03-15T14:00:00Z } }
prices: [{ model: '*', input: 2, output: 4, per_request: 0.25, per_image: 0.04 }]";
    let world = World::new(limits, rest).await;
    let limiter = world.empty();
    let (months, days) = ([40, 10, 5, 3], [1, 0]);
    let moments = months.iter().chain(&days).map(|days| NOON_MS - days * DAY_MS);
    for (at, now_ms) in moments.chain([NOON_MS + 3 * HOUR_MS]).enumerate() {
        world.at(now_ms);
        for tenant in ["acme", "zeta"] {
            let event =
                |kind: &str, input, output| world.event(&format!("{tenant}-{at}-{kind}"), tenant, input, output);
            let mut cached = event("cached", 100 << at, 10);
            cached.tokens.cache_read = 40;
            let other = UsageEvent { request_model: Some("o1".to_owned()), ..event("other", 2 << at, 4) };
            let mut drawn = event("drawn", 3, 0);
            drawn.tokens.images = 2;
            let broken = void(Finish::UpstreamReset, event("broken", 0, 0));
            let refused = void(Finish::LocalReply, event("refused", 0, 0));
            world.take(&limiter, &[cached, other, drawn, broken, refused]).await;
            let live = world.used(&limiter, tenant).await;
            assert_eq!(world.used(&world.restarted().await, tenant).await, live, "{tenant} at {now_ms}");
        }
    }
    // Since midnight: four calls at noon and four now. Its month began on the 15th, and its day an hour ago.
    assert_eq!(world.used(&limiter, "acme").await[0], 8);
    assert_eq!(world.used(&limiter, "zeta").await[0], 4);
}

#[tokio::test]
async fn a_late_event_takes_its_estimates_place_after_a_restart_too() {
    let limits = "{ unit: tokens, capacity: 1000000, window: day }, { unit: cost, capacity: 100, window: month }, \
                  { unit: requests, capacity: 10, window: day }";
    let world = World::new(limits, "prices: [{ model: '*', input: 2, output: 4, per_request: 0.25 }]").await;
    let limiter = world.empty();
    for id in ["a", "b", "c"] {
        world.admit(&limiter, id, "acme", 100, 200).await;
    }
    world.at(NOON_MS + TIMEOUT_MS);
    world.post_unsettled(&limiter).await;
    let event =
        |id: &str, input, output| UsageEvent { started_at_ms: NOON_MS, ..world.event(id, "acme", input, output) };
    assert_eq!(world.take(&limiter, &[event("a", 10, 10)]).await, [Settled::Corrected]);

    let restarted = world.restarted().await;
    assert_eq!(world.used(&restarted, "acme").await, world.used(&limiter, "acme").await);
    for (id, input, output) in [("b", 90, 10), ("c", 300, 300)] {
        for limiter in [&restarted, &limiter] {
            assert_eq!(limiter.settle(&event(id, input, output), Settles::All).await.unwrap(), Settled::Corrected);
        }
        let live = world.used(&limiter, "acme").await;
        assert_eq!(world.used(&restarted, "acme").await, live, "{id}");
    }
    assert_eq!(world.used(&restarted, "acme").await[0], 20 + 100 + 600);

    // It is in the ledger: it is not posted again, and after a day it is forgotten.
    let restarted = world.restarted().await;
    world.at(NOON_MS + TIMEOUT_MS + DAY_MS);
    assert_eq!(restarted.counters.unposted().await.unwrap(), []);
    assert_eq!(restarted.metrics.reservations.get(), 0);
}

#[tokio::test]
async fn a_restart_takes_no_reset_back() {
    let world = World::new(
        "{ unit: tokens, capacity: 1000, window: day }, { unit: tokens, capacity: 1000, window: month }",
        "tenants: { zeta: { billing_anchor: 2026-03-15T14:00:00Z } }",
    )
    .await;
    let limiter = world.empty();
    let reset = async |tenant: &str| {
        let (at_ms, tenant) = (world.now_ms.load(Ordering::Relaxed), Some(tenant.to_owned()));
        let (actor, action, detail) = ("ada".to_owned(), RESET.to_owned(), serde_json::Value::Null);
        world.audit.record(Entry { at_ms, actor, action, tenant: tenant.clone(), detail }).await.unwrap();
        limiter.reset(&tenant.unwrap(), at_ms).await.unwrap();
    };
    for (at, now_ms) in [NOON_MS - 2 * DAY_MS, NOON_MS, NOON_MS + HOUR_MS, NOON_MS + DAY_MS].into_iter().enumerate() {
        world.at(now_ms);
        for tenant in ["acme", "zeta", "other"] {
            world.take(&limiter, &[world.event(&format!("{tenant}-{at}"), tenant, 1 << at, 0)]).await;
        }
        if at == 1 {
            world.at(now_ms + 1);
            for tenant in ["acme", "zeta"] {
                reset(tenant).await;
            }
        }
        let restarted = world.restarted().await;
        for tenant in ["acme", "zeta", "other"] {
            assert_eq!(world.used(&restarted, tenant).await, world.used(&limiter, tenant).await, "{tenant} at {at}");
        }
    }
    assert_eq!(world.used(&limiter, "acme").await, [8, 4 + 8]);
}

#[tokio::test]
async fn a_call_that_names_no_tier_is_on_the_default_one() {
    let world = World::new("{ unit: tokens, capacity: 1000, window: day }", "").await;
    let limiter = world.empty();
    world.take(&limiter, &[UsageEvent { tier: String::new(), ..world.event("a", "acme", 10, 20) }]).await;
    let tier = world.ledger.last_tier("acme").await.unwrap();
    assert_eq!(limiter.plan(&world.policy, "acme", tier.as_deref()).unwrap().tier, "free");
    assert_eq!(limiter.metrics.unknown_tiers.get(), 0);
    assert_eq!(world.used(&world.restarted().await, "acme").await, [30]);
}

#[tokio::test]
async fn a_call_costs_what_held_on_the_day_on_which_it_began() {
    let prices = "
prices:
  - { model: '*', input: 2, output: 4 }
  - { model: '*', from: 2026-03-20, input: 3, output: 6 }
  - { model: gpt-4o, provider: other, input: 9, output: 9 }
tenants: { own: { prices: [{ model: 'gpt*', input: 1, output: 1 }] } }";
    let world = World::new("{ unit: cost, capacity: 1, window: day }", prices).await;
    let cost = |limiter: &Limiter, tenant: &str, started_at_ms: u64, provider: Option<&str>| {
        let mut event = UsageEvent { started_at_ms, ..world.event("a", tenant, 10, 1) };
        event.provider = provider.map(str::to_owned);
        limiter.rate(&mut event);
        event.cost_nanousd
    };
    let limiter = world.empty();
    let midnight_ms = NOON_MS - NOON_MS % DAY_MS;
    assert_eq!(cost(&limiter, "acme", midnight_ms - 1, None), Some(24_000));
    assert_eq!(cost(&limiter, "acme", midnight_ms, Some("openai")), Some(36_000));
    assert_eq!(cost(&limiter, "own", midnight_ms, None), Some(11_000));
    let mut plan = world.policy.plans.plan("acme", None).unwrap().plan.clone();
    plan.mark_up = tollgate_domain::MarkUp::from_ppm(1_500_000);
    let event = world.event("a", "acme", 10, 1);
    assert_eq!(used(&world.policy, &plan, &event).1.cost_nanousd, 54_000);
}
