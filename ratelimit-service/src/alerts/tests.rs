//! Alerts with the limiter's counters in memory, a real database, and a clock of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::routing::post;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_domain::Settles;
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource};

use super::*;
use crate::accounts::{Accounts, AccountsSettings, Budget, By, Enforcement, Kind, Tenant};
use crate::config::Config;
use crate::counters::MemoryCounters;
use crate::entry::Batch;
use crate::http::Reach;
use crate::ledger::SqliteLedger;
use crate::limiter::Admission;
use crate::metrics::Metrics;
use crate::policies::Agreed;
use crate::secret::Secret;
use crate::webhooks::{EndpointSettings, WebhookMetrics};

/// 2026-03-20T12:00:00Z
const NOON_MS: u64 = 1_774_008_000_000;
const DAY_MS: u64 = 86_400_000;

const PLANS: &str = "
limiter: { default_tier: free }
tiers:
  free:
    context_tokens: 1000000
    limits:
      - { unit: tokens, capacity: 1000, window: month }
      - { unit: requests, capacity: 2, window: day }
  large:
    context_tokens: 1000000
    limits: [{ unit: tokens, capacity: 10000, window: month }, { unit: requests, capacity: 1000, window: month }]
  paid: { context_tokens: 1000000, limits: [{ unit: cost, capacity: 10, window: month }] }
  short: { context_tokens: 1000000, limits: [{ unit: tokens, capacity: 1000, window: hour }] }
prices: [{ model: '*', input: 1000000 }]
";

/// A database that outlives any number of services, and the time.
struct World {
    folder: TempDir,
    now_ms: Arc<AtomicU64>,
    url: String,
}

/// A service.
struct Service {
    alerts: Arc<Alerts>,
    ledger: SqliteLedger,
    registry: Registry,
}

impl World {
    fn new() -> World {
        let url = "http://127.0.0.1:9/hook".to_owned();
        World { folder: tempfile::tempdir().unwrap(), now_ms: Arc::new(AtomicU64::new(NOON_MS)), url }
    }

    /// As after a start. Counters are not restored.
    async fn start(&self, thresholds: &[u16]) -> Service {
        let now_ms = self.now_ms.clone();
        let clock: Clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        let (metrics, mut registry) = Metrics::new();
        let policy = Config::parse(PLANS, "test").unwrap().policy;
        let counters = MemoryCounters::new(1000, clock.clone(), metrics.clone());
        let limiter = Arc::new(Limiter::new(policy, Arc::new(counters), metrics));
        let database = Arc::new(Database::open(&self.folder.path().join("tollgate.db")).await.unwrap());
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let endpoint = EndpointSettings::new(&self.url, secret, Reach::Any).unwrap();
        let metrics = WebhookMetrics::new(&mut registry);
        let webhooks = Arc::new(Webhooks::new(&[endpoint], database.clone(), clock.clone(), metrics).unwrap());
        let metrics = AlertMetrics::new(&mut registry);
        let ledger = SqliteLedger::new(database.clone());
        let alerts = Arc::new(Alerts::new(thresholds.to_vec(), limiter, database, webhooks, clock, metrics));
        Service { alerts, ledger, registry }
    }

    /// Keeps a record, and has the service go by all that are kept.
    async fn agree<T: Kind>(&self, service: &Service, id: &str, value: T) {
        let settings = AccountsSettings::Sqlite(self.folder.path().join("accounts.db"));
        let accounts = Accounts::open(&settings).await.unwrap();
        accounts.create(&By { actor: "test", at_ms: 1 }, id, value).await.unwrap();
        let configured = Config::parse(PLANS, "test").unwrap().policy;
        let (policy, refused) = Agreed::read(&accounts).await.unwrap().over(&configured);
        assert!(refused.is_empty(), "{refused:?}");
        service.alerts.limiter.replace(policy);
        accounts.close().await;
    }

    /// Likewise, a budget of acme.
    async fn agree_budget(&self, service: &Service, id: &str, dollars: u64, enforcement: Enforcement, own: &[u16]) {
        let amount_nanousd = dollars * 1_000_000_000;
        let thresholds = own.to_vec();
        let budget = Budget { tenant: "acme".to_owned(), key: None, amount_nanousd, enforcement, thresholds };
        self.agree(service, id, budget).await;
    }

    fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Service {
    fn call(&self, id: &str, tenant: &str, tier: &str, tokens: u64) -> UsageEvent {
        UsageEvent {
            event_id: id.to_owned(),
            tenant: tenant.to_owned(),
            tier: tier.to_owned(),
            started_at_ms: (self.alerts.clock)(),
            request_model: Some("gpt-4o".to_owned()),
            status: 200,
            tokens: TokenCounts { input: tokens, ..TokenCounts::default() },
            usage_source: UsageSource::Reported,
            ..UsageEvent::default()
        }
    }

    /// A call was settled.
    async fn used(&self, id: &str, tenant: &str, tier: &str, tokens: u64) {
        let event = self.call(id, tenant, tier, tokens);
        self.alerts.limiter.settle(&event, Settles::All).await.unwrap();
        self.alerts.touched(tenant, tier);
    }

    /// What webhooks are to tell, in order.
    async fn told(&self) -> Vec<Value> {
        let reading = |transaction: &rusqlite::Transaction<'_>| {
            let mut select = transaction.prepare("SELECT body FROM webhook_deliveries ORDER BY id")?;
            select.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        };
        let bodies = self.alerts.database.read(reading).await.unwrap();
        bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }

    /// Of them, the thresholds.
    async fn thresholds(&self) -> Vec<u64> {
        self.told().await.iter().map(|body| body["data"]["threshold_percent"].as_u64().unwrap()).collect()
    }

    fn metric(&self, line: &str) -> Option<u64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')).map(|value| value.parse().unwrap())
    }
}

#[tokio::test]
async fn each_threshold_is_told_once_in_a_period_and_again_in_the_next() {
    let world = World::new();
    let service = world.start(&[80, 95, 100]).await;
    let mut told = Vec::new();
    for (number, (tokens, expected)) in
        [(799, vec![]), (1, vec![80]), (149, vec![]), (1, vec![95]), (49, vec![]), (1, vec![100]), (500, vec![])]
            .into_iter()
            .enumerate()
    {
        service.used(&format!("e{number}"), "acme", "free", tokens).await;
        service.alerts.look().await;
        service.alerts.touched("acme", "free");
        service.alerts.look().await;
        told.extend(expected);
        assert_eq!(service.thresholds().await, told, "after {number}");
    }
    assert_eq!(service.metric(r#"tollgate_alerts_total{threshold="95"}"#), Some(1));
    world.at(NOON_MS + 12 * DAY_MS);
    service.alerts.touched("acme", "free");
    service.alerts.look().await;
    assert_eq!(service.thresholds().await, told, "nothing is spent of April");
    service.used("april", "acme", "free", 960).await;
    service.alerts.look().await;
    assert_eq!(service.thresholds().await, [80, 95, 100, 80, 95]);
    let last = service.told().await.pop().unwrap();
    assert_eq!(last["data"]["period_start"], "2026-04-01T00:00:00Z");
}

#[tokio::test]
async fn a_jump_tells_all_that_it_passes() {
    let world = World::new();
    let service = world.start(&[80, 95, 100]).await;
    service.used("e1", "acme", "free", 100).await;
    service.alerts.look().await;
    assert!(service.thresholds().await.is_empty());
    service.used("e2", "acme", "free", 1100).await;
    service.alerts.look().await;
    assert_eq!(service.thresholds().await, [80, 95, 100]);
    let body = &service.told().await[2];
    let data = json!({
        "tenant_id": "acme", "plan_tier": "free", "limit": "tokens_per_month", "unit": "tokens", "threshold_percent": 100,
        "used": 1200, "capacity": 1000, "percent": 120.0,
        "period_start": "2026-03-01T00:00:00Z", "period_end": "2026-04-01T00:00:00Z",
    });
    let expected = json!({ "type": "limit.threshold_reached", "timestamp": "2026-03-20T12:00:00Z", "data": data });
    assert_eq!(*body, expected);
}

#[tokio::test]
async fn a_budget_is_told_in_dollars() {
    let world = World::new();
    let service = world.start(&[50]).await;
    // A dollar a token.
    service.used("e1", "acme", "paid", 6).await;
    service.alerts.look().await;
    let body = &service.told().await[0];
    assert_eq!(body["type"], "budget.threshold_reached");
    let data = &body["data"];
    assert_eq!((&data["unit"], &data["used"], &data["capacity"]), (&json!("cost"), &json!(6.0), &json!(10.0)));
    assert_eq!((&data["limit"], &data["percent"]), (&json!("cost_per_month"), &json!(60.0)));
}

#[tokio::test]
async fn each_budget_is_told_of_at_its_own_amounts() {
    let world = World::new();
    let service = world.start(&[80]).await;
    world.agree(&service, "acme", serde_json::from_value::<Tenant>(json!({})).unwrap()).await;
    // The tightest hard one is the limit.
    world.agree_budget(&service, "soft", 50, Enforcement::Soft, &[50, 100]).await;
    world.agree_budget(&service, "hard", 100, Enforcement::Hard, &[]).await;
    world.agree_budget(&service, "loose", 400, Enforcement::Hard, &[20, 90]).await;
    let mut told = Vec::new();
    for (number, (dollars, expected)) in [
        (24, &[][..]),
        (1, &[("soft", 50)]),
        (25, &[("soft", 100)]),
        (29, &[]),
        (1, &[("hard", 80), ("loose", 20)]),
        (500, &[("loose", 90)]),
    ]
    .into_iter()
    .enumerate()
    {
        service.used(&format!("e{number}"), "acme", "paid", dollars).await;
        service.alerts.look().await;
        service.alerts.touched("acme", "paid");
        service.alerts.look().await;
        told.extend(expected.iter().map(|(id, percent)| (json!(id), json!(percent))));
        let data = |body: &Value| (body["data"]["budget_id"].clone(), body["data"]["threshold_percent"].clone());
        assert_eq!(service.told().await.iter().map(data).collect::<Vec<_>>(), told, "after {number}");
    }
    let last = service.told().await.pop().unwrap();
    let data = &last["data"];
    assert_eq!((&last["type"], &data["limit"]), (&json!("budget.threshold_reached"), &json!("cost_per_month")));
    assert_eq!((&data["used"], &data["capacity"], &data["percent"]), (&json!(580.0), &json!(400.0), &json!(145.0)));
    // In April anew.
    world.at(NOON_MS + 12 * DAY_MS);
    service.used("april", "acme", "paid", 25).await;
    service.alerts.look().await;
    assert_eq!(service.told().await.last().unwrap()["data"]["budget_id"], "soft");
}

#[tokio::test]
async fn a_budget_that_is_spent_when_it_is_made_is_told_of_without_another_call() {
    let world = World::new();
    let service = world.start(&[]).await;
    world.agree(&service, "acme", serde_json::from_value::<Tenant>(json!({})).unwrap()).await;
    service.used("e1", "acme", "paid", 6).await;
    service.ledger.append(Batch::from(vec![service.call("e1", "acme", "paid", 6)])).await.unwrap();
    world.agree_budget(&service, "silent", 5, Enforcement::Soft, &[]).await;
    service.alerts.touch_changed(&service.ledger).await;
    service.alerts.look().await;
    assert!(service.told().await.is_empty(), "it has no thresholds, and none are configured");
    world.agree_budget(&service, "hard", 5, Enforcement::Hard, &[100]).await;
    service.alerts.touch_changed(&service.ledger).await;
    service.alerts.look().await;
    let told = service.told().await;
    let data = &told[0]["data"];
    assert_eq!((told.len(), &data["budget_id"], &data["plan_tier"]), (1, &json!("hard"), &json!("paid")));
    service.alerts.touch_changed(&service.ledger).await;
    assert!(service.alerts.touched.lock().is_empty(), "nothing has changed since");
}

#[tokio::test]
async fn several_limits_of_a_month_are_told_of_and_others_are_not() {
    let world = World::new();
    let service = world.start(&[1]).await;
    for number in 0..10 {
        service.used(&format!("e{number}"), "acme", "large", 10).await;
        service.used(&format!("s{number}"), "small", "short", 1000).await;
    }
    service.alerts.look().await;
    let told = service.told().await;
    let mut limits: Vec<_> = told.iter().map(|body| body["data"]["limit"].as_str().unwrap()).collect();
    limits.sort_unstable();
    assert_eq!(limits, ["requests_per_month", "tokens_per_month"]);
}

#[tokio::test]
async fn what_is_held_is_not_spent() {
    let world = World::new();
    let service = world.start(&[80]).await;
    let limiter = &service.alerts.limiter;
    let asked = Admission {
        tenant: "acme",
        tier: Some("free"),
        requests: 1,
        input_tokens: 900,
        reservation_id: Some("r1"),
        ..Admission::default()
    };
    limiter.admit(&limiter.policy(), &asked).await.unwrap();
    service.alerts.touched("acme", "free");
    service.alerts.look().await;
    assert!(service.thresholds().await.is_empty());
    service.used("r1", "acme", "free", 900).await;
    service.alerts.look().await;
    assert_eq!(service.thresholds().await, [80]);
}

#[tokio::test]
async fn neither_a_restart_nor_a_second_process_tells_again() {
    let world = World::new();
    let (first, second) = (world.start(&[80, 95]).await, world.start(&[80, 95]).await);
    first.used("e1", "acme", "free", 850).await;
    second.used("e1", "acme", "free", 850).await;
    tokio::join!(first.alerts.look(), second.alerts.look());
    assert_eq!(first.thresholds().await, [80]);
    let given = |service: &Service| service.metric(r#"tollgate_alerts_total{threshold="80"}"#).unwrap_or(0);
    assert_eq!(given(&first) + given(&second), 1);
    let restarted = world.start(&[80, 95]).await;
    restarted.used("e1", "acme", "free", 850).await;
    restarted.used("e2", "acme", "free", 100).await;
    restarted.alerts.look().await;
    assert_eq!(restarted.thresholds().await, [80, 95]);
}

#[tokio::test]
async fn what_was_due_when_the_service_ended_is_told_after_the_start() {
    let world = World::new();
    let service = world.start(&[80]).await;
    service.ledger.append(Batch::from(vec![service.call("e1", "acme", "free", 900)])).await.unwrap();
    let restarted = world.start(&[80]).await;
    restarted.used("e1", "acme", "free", 900).await;
    restarted.alerts.touched.lock().clear();
    restarted.alerts.look().await;
    assert!(restarted.thresholds().await.is_empty(), "nobody was touched");
    restarted.alerts.look_at_known(&restarted.ledger).await.unwrap();
    assert_eq!(restarted.thresholds().await, [80]);
}

#[tokio::test]
async fn alerts_that_cannot_be_noted_are_given_later() {
    let world = World::new();
    let service = world.start(&[80]).await;
    let run = |statement: &'static str| {
        let database = service.alerts.database.clone();
        async move { database.write(move |transaction| transaction.execute_batch(statement)).await.unwrap() }
    };
    run("ALTER TABLE webhook_deliveries RENAME TO away").await;
    service.used("e1", "acme", "free", 900).await;
    service.alerts.look().await;
    assert_eq!(service.metric(r#"tollgate_alerts_total{threshold="80"}"#), None);
    run("ALTER TABLE away RENAME TO webhook_deliveries").await;
    service.alerts.look().await;
    assert_eq!(service.thresholds().await, [80], "noted and told together");
}

#[tokio::test]
async fn those_that_wait_are_bounded() {
    let world = World::new();
    let service = world.start(&[80]).await;
    for number in 0..MAX_TOUCHED + 3 {
        service.alerts.touched(&format!("t{number}"), "free");
        service.alerts.touched("t0", "large");
    }
    assert_eq!(service.metric("tollgate_alerts_passed_over_total"), Some(3));
    assert_eq!(service.alerts.touched.lock().len(), MAX_TOUCHED);
    let world = World::new();
    let none = world.start(&[]).await;
    none.alerts.touched("t0", "free");
    assert!(none.alerts.touched.lock().is_empty(), "no thresholds, no alerts");
}

#[tokio::test]
async fn an_alert_reaches_a_webhook() {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().route("/hook", post(move |body: String| async move { sender.send(body).unwrap() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let world = World { url, ..World::new() };
    let service = world.start(&[80, 100]).await;
    let ledger = Arc::new(SqliteLedger::new(service.alerts.database.clone()));
    let running =
        [tokio::spawn(service.alerts.clone().run(ledger)), tokio::spawn(service.alerts.webhooks.clone().run())];
    service.used("e1", "acme", "free", 1000).await;
    let mut thresholds = Vec::new();
    for _ in 0..2 {
        let body = tokio::time::timeout(Duration::from_secs(30), bodies.recv()).await.expect("it comes").unwrap();
        thresholds.push(serde_json::from_str::<Value>(&body).unwrap()["data"]["threshold_percent"].as_u64().unwrap());
    }
    thresholds.sort_unstable();
    assert_eq!(thresholds, [80, 100]);
    running.iter().for_each(tokio::task::JoinHandle::abort);
}
