//! The ledger against real files.

mod corrections;
mod reading;
mod upgrades;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use super::{Ledger, MAX_COUNT, Spent, SqliteLedger, Usage};
use crate::metrics::Metrics;

const DAY_MS: u64 = 86_400_000;

/// A ledger in a folder of its own.
struct Opened {
    ledger: SqliteLedger,
    folder: TempDir,
}

impl Opened {
    async fn new() -> Opened {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("ledger.db"), Metrics::new().0).await.unwrap();
        Opened { ledger, folder }
    }

    /// Another program's connection.
    async fn database(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.folder.path().join("ledger.db")).connect().await.unwrap()
    }

    /// Stores events, and tells which were new.
    async fn append(&self, events: &[UsageEvent]) -> Vec<UsageEvent> {
        self.ledger.append(events.to_vec()).await.unwrap()
    }

    /// A tenant's days with usage, by number.
    async fn days(&self, tenant: &str) -> Vec<(i32, Usage)> {
        let always = Period { first: Day::from_number(0), end: Day::from_number(100) };
        let days = self.ledger.days(tenant, always).await.unwrap();
        days.into_iter().map(|(day, usage)| (day.number(), usage)).collect()
    }

    async fn last_tier(&self, tenant: &str) -> Option<String> {
        self.ledger.last_tier(tenant).await.unwrap()
    }

    /// In an order that tests can name.
    async fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Vec<Spent> {
        let mut spent = self.ledger.spent_since(from_ms, tenant).await.unwrap();
        spent.sort_by_key(|spent| (spent.tenant.clone(), spent.tier.clone(), spent.model.clone(), spent.api.clone()));
        spent
    }
}

/// A call of `acme`'s on the first day.
fn real(id: &str) -> UsageEvent {
    UsageEvent {
        event_id: id.to_owned(),
        reservation_id: Some(id.to_owned()),
        tenant: "acme".to_owned(),
        tier: "pro".to_owned(),
        started_at_ms: DAY_MS,
        duration_ms: 40,
        api: Some("openai-chat".to_owned()),
        request_model: Some("gpt-4o".to_owned()),
        status: 200,
        tokens: TokenCounts { input: 10, output: 3, cache_read: 2, ..TokenCounts::default() },
        usage_source: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

/// What its reservation was, when that expired.
fn unsettled(id: &str) -> UsageEvent {
    UsageEvent {
        duration_ms: 600_000,
        status: 0,
        tokens: TokenCounts { input: 12, output: 100, ..TokenCounts::default() },
        usage_source: UsageSource::Unsettled,
        ..real(id)
    }
}

/// What a [`real`] call adds to the sums.
fn real_sum() -> Usage {
    Usage {
        requests: 1,
        succeeded: 1,
        input_tokens: 10,
        output_tokens: 3,
        cache_read_tokens: 2,
        requests_reported: 1,
        duration_ms: 40,
        ..Usage::default()
    }
}

/// What an [`unsettled`] one adds.
fn unsettled_sum() -> Usage {
    Usage { requests: 1, input_tokens: 12, output_tokens: 100, requests_unsettled: 1, ..Usage::default() }
}
