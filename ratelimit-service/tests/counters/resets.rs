//! Two replicas with ledgers of their own, which both bring the counters that they share up to what theirs have.

use std::sync::Arc;

use tempfile::TempDir;
use tollgate::audit::{Audit, Entry, RESET, SqliteAudit};
use tollgate::config::Config;
use tollgate::database::Database;
use tollgate::entry::Batch;
use tollgate::ledger::{Ledger, SqliteLedger};
use tollgate::limiter::Limiter;
use tollgate::metrics::Metrics;
use tollgate_domain::{Overlap, Tenants};
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource};

use crate::engines::{Hand, redis};

const PLANS: &str = "
limiter: { default_tier: free }
tiers: { free: { context_tokens: 1000, limits: [{ unit: tokens, capacity: 1000, window: month }] } }
";

struct Replica {
    limiter: Limiter,
    ledger: SqliteLedger,
    audit: SqliteAudit,
    hand: Hand,
    _folder: TempDir,
}

impl Replica {
    async fn new(url: &str, hand: &Hand) -> Replica {
        let folder = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::open(&folder.path().join("ledger.db")).await.unwrap());
        let policy = Config::parse(PLANS, "test").unwrap().policy;
        let limiter = Limiter::new(policy, Arc::new(redis(url, "tollgate", hand)), Metrics::new().0);
        let (ledger, audit) = (SqliteLedger::new(database.clone()), SqliteAudit::new(database));
        Replica { limiter, ledger, audit, hand: hand.clone(), _folder: folder }
    }

    /// Has a call of now in its ledger.
    async fn stored(&self, id: &str, input: u64) {
        let event = UsageEvent {
            event_id: id.to_owned(),
            tenant: "acme".to_owned(),
            started_at_ms: self.hand.now_ms(),
            tokens: TokenCounts { input, ..TokenCounts::default() },
            usage_source: UsageSource::Reported,
            ..UsageEvent::default()
        };
        self.ledger.append(Batch::from(vec![event])).await.unwrap();
    }

    async fn reset(&self) {
        let (at_ms, tenant) = (self.hand.now_ms(), Some("acme".to_owned()));
        let (actor, action, detail) = ("ada".to_owned(), RESET.to_owned(), serde_json::Value::Null);
        self.audit.record(Entry { at_ms, actor, action, tenant, detail }).await.unwrap();
        self.limiter.reset("acme", at_ms).await.unwrap();
    }

    /// What is used after it brought the counters up to its ledger.
    async fn restored(&self) -> u64 {
        self.limiter.restore(&self.ledger, &self.audit, &Tenants::All, Overlap::Nothing).await.unwrap();
        let policy = self.limiter.policy();
        let plan = self.limiter.plan(&policy, "acme", None).unwrap();
        self.limiter.standings("acme", plan).await.unwrap()[0].used
    }
}

#[tokio::test]
async fn a_replica_takes_no_reset_of_another_back() {
    let dir = RunDir::create().unwrap();
    let server = Redis::start(dir.path()).await.unwrap();
    let hand = Hand::new();
    let [one, two] = [Replica::new(&server.url(), &hand).await, Replica::new(&server.url(), &hand).await];
    one.stored("a", 10).await;
    two.stored("b", 20).await;
    assert_eq!([one.restored().await, two.restored().await], [10, 20]);
    hand.step(1);
    one.reset().await;
    assert_eq!([one.restored().await, two.restored().await], [0, 0]);
    assert_eq!(two.limiter.differences(&two.ledger, &two.audit).await.unwrap(), []);
    hand.step(1);
    one.stored("c", 5).await;
    assert_eq!(one.restored().await, 5);
    // What was reset here too is told by the ledger here.
    two.reset().await;
    hand.step(1);
    two.stored("d", 7).await;
    assert_eq!([one.restored().await, two.restored().await], [0, 7]);
}
