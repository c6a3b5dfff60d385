//! Engines to be tested, each on data of its own that can be opened again.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::ledger::{ClickHouseLedger, ClickHouseSettings, Ledger, MAX_RETENTION_MONTHS, SqliteLedger};
use tollgate::metrics::Metrics;
use tollgate::secret::Secret;
use tollgate_e2e::harness::clickhouse::ClickHouse;

/// A ledger's data.
pub(crate) enum Engine {
    Sqlite(TempDir),
    ClickHouse(ClickHouse, TempDir),
}

impl Engine {
    /// One of each kind, empty.
    pub(crate) async fn all() -> Vec<Engine> {
        let folder = tempfile::tempdir().unwrap();
        let clickhouse = ClickHouse::start(folder.path()).await.unwrap();
        vec![Engine::embedded(), Engine::ClickHouse(clickhouse, folder)]
    }

    /// The one that needs nothing else, empty.
    pub(crate) fn embedded() -> Engine {
        Engine::Sqlite(tempfile::tempdir().unwrap())
    }

    /// Opens it, as at a start of the service.
    pub(crate) async fn open(&self) -> Arc<dyn Ledger> {
        match self {
            Engine::Sqlite(folder) => {
                Arc::new(SqliteLedger::open(&folder.path().join("data/ledger.db")).await.unwrap())
            }
            Engine::ClickHouse(clickhouse, folder) => {
                let state = folder.path().join("state");
                let ledger = ClickHouseLedger::open(&settings(clickhouse), &state, &Metrics::new().0).await;
                Arc::new(ledger.unwrap())
            }
        }
    }
}

/// How a ledger finds it. Entries are kept for as long as can be: those of tests are old.
pub(crate) fn settings(clickhouse: &ClickHouse) -> ClickHouseSettings {
    ClickHouseSettings {
        url: clickhouse.url(),
        database: clickhouse.database().to_owned(),
        user: clickhouse.user().to_owned(),
        password: Secret::new(clickhouse.password()),
        retention_months: MAX_RETENTION_MONTHS,
        sums_retention_months: MAX_RETENTION_MONTHS,
        timeout: Duration::from_secs(300),
    }
}
