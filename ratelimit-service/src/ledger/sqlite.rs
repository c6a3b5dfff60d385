//! The ledger in one SQLite file.
//!
//! Invariants:
//! - One connection writes. Exports and audit entries that wait for it go into one transaction, which is durable (WAL with
//!   `synchronous=FULL`) before any of them is answered.
//! - At most [`MAX_QUEUED_WRITES`] wait; one more is refused as [`LedgerError::Busy`].
//! - Whether an event is new is the primary keys' word; corrections and the daily sums follow by triggers, in the same
//!   transaction. Nothing else is ever changed.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, QueryBuilder, Row, SqlStr, Sqlite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use super::writer::{self, Write};
use super::{Ledger, LedgerError, Spent, Usage};
use crate::audit::{Audit, Entry, MAX_ENTRIES, RESET, Recorded};
use crate::metrics::Metrics;

/// The most exports and audit entries that wait to be written.
pub const MAX_QUEUED_WRITES: usize = 128;

const READERS: u32 = 4;

/// How long a statement waits for another process that has the file locked, and a read for a free connection.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The embedded engine.
pub struct SqliteLedger {
    queue: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: SqlitePool,
}

/// The tier of the tenant's latest call that has an event, or that may still get one (`unsettled_events`).
const LAST_TIER: &str = "
    WITH settled AS MATERIALIZED (
        SELECT last_started_at_ms AS at_ms, last_tier AS tier FROM usage_days
        WHERE tenant = ?1 AND last_started_at_ms >= 0 ORDER BY day DESC LIMIT 1
    ), unsettled AS MATERIALIZED (
        SELECT started_at_ms AS at_ms, tier FROM unsettled_events
        WHERE tenant = ?1 AND started_at_ms > ifnull((SELECT at_ms FROM settled), -1)
            AND NOT EXISTS (SELECT 1 FROM corrections WHERE corrections.event_id = unsettled_events.event_id)
        ORDER BY started_at_ms DESC LIMIT 1
    )
    SELECT tier FROM (SELECT * FROM settled UNION ALL SELECT * FROM unsettled) ORDER BY at_ms DESC LIMIT 1";

const UNSETTLED: &str = "
    SELECT event_id, tenant, tier, started_at_ms, api, request_model, input_tokens, output_tokens FROM unsettled_events
    WHERE started_at_ms >= ?1
        AND NOT EXISTS (SELECT 1 FROM corrections WHERE corrections.event_id = unsettled_events.event_id)
    ORDER BY started_at_ms DESC LIMIT ?2";

/// What brings a database from each version to the next. One that has landed is never changed.
pub(super) fn migrations() -> Migrator {
    let migrations = [
        ("ledger", include_str!("../../migrations/0001_ledger.sql")),
        ("usage details", include_str!("../../migrations/0002_usage_details.sql")),
        ("corrections", include_str!("../../migrations/0003_corrections.sql")),
    ];
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations((1..).zip(migrations).map(migration).collect())
}

impl SqliteLedger {
    /// Opens the database, creating the file and its folder where they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// When the file cannot be created or opened, or is no database of this version or an earlier one.
    pub async fn open(file: &Path, metrics: Metrics) -> anyhow::Result<SqliteLedger> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_TIMEOUT);
        let opening = || format!("cannot open {}", file.display());
        let mut connection = options.connect().await.with_context(opening)?;
        migrations().run(&mut connection).await.with_context(opening)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(LOCK_TIMEOUT)
            .connect_with(options.read_only(true))
            .await
            .with_context(opening)?;
        let (queue, writes) = mpsc::channel(MAX_QUEUED_WRITES);
        let writer = tokio::spawn(writer::write(connection, writes, metrics));
        Ok(SqliteLedger { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), readers })
    }

    /// Leaves a write to the writer, without waiting.
    pub(super) fn enqueue(&self, write: Write) -> Result<(), LedgerError> {
        let queue = self.queue.lock();
        queue.as_ref().ok_or(LedgerError::Closed)?.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Closed,
        })
    }
}

#[tonic::async_trait]
impl Ledger for SqliteLedger {
    async fn append(&self, events: Vec<UsageEvent>) -> Result<Vec<UsageEvent>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Write::events(events, reply))?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    async fn days(&self, tenant: &str, period: Period) -> Result<Vec<(Day, Usage)>, LedgerError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT day, ");
        query.push(Usage::COLUMNS.join(", ")).push(" FROM usage_days WHERE tenant = ").push_bind(tenant);
        // What was corrected may leave a day without calls.
        during(query.push(" AND requests > 0 AND "), period).push(" ORDER BY day");
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((Day::from_number(row.try_get(0)?), usage(row)?))).collect()
    }

    async fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Result<Vec<Spent>, LedgerError> {
        // A time past SQLite's range is past every call.
        let Ok(from_ms) = i64::try_from(from_ms) else { return Ok(Vec::new()) };
        let rows = spent_query(from_ms, tenant).build().fetch_all(&self.readers).await?;
        rows.iter().map(spent).collect()
    }

    async fn unsettled_since(&self, from_ms: u64, limit: usize) -> Result<Vec<UsageEvent>, LedgerError> {
        let bounds = (i64::try_from(from_ms), i64::try_from(limit));
        let (Ok(from_ms), Ok(limit)) = bounds else { return Ok(Vec::new()) };
        let rows = sqlx::query(UNSETTLED).bind(from_ms).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(unsettled).collect()
    }

    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError> {
        Ok(sqlx::query_scalar(LAST_TIER).bind(tenant).fetch_optional(&self.readers).await?)
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        sqlx::query("SELECT 1 FROM usage_days LIMIT 1").fetch_optional(&self.readers).await?;
        match self.queue.lock().as_ref() {
            Some(queue) if !queue.is_closed() => Ok(()),
            _ => Err(LedgerError::Closed),
        }
    }

    async fn close(&self) {
        // The readers first: the last connection folds the write-ahead log into the file, which they cannot.
        self.readers.close().await;
        self.queue.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the ledger's writer died");
        }
    }
}

fn during(query: &mut QueryBuilder<Sqlite>, period: Period) -> &mut QueryBuilder<Sqlite> {
    query.push("day >= ").push_bind(period.first.number()).push(" AND day < ").push_bind(period.end.number())
}

fn usage(row: &SqliteRow) -> Result<Usage, sqlx::Error> {
    Usage::from_columns(|column| row.try_get::<i64, _>(column).map(i64::unsigned_abs))
}

pub(super) fn spent_query(from_ms: i64, tenant: Option<&str>) -> QueryBuilder<Sqlite> {
    let sums: Vec<_> = Usage::COLUMNS.iter().map(|column| format!("sum({column}) AS {column}")).collect();
    let mut query = QueryBuilder::<Sqlite>::new("SELECT tenant, tier, model, api, sum(refused) AS refused, ");
    query.push(sums.join(", ")).push(" FROM calls WHERE started_at_ms >= ").push_bind(from_ms);
    if let Some(tenant) = tenant {
        query.push(" AND tenant = ").push_bind(tenant);
    }
    query.push(" GROUP BY tenant, tier, model, api");
    query
}

fn spent(row: &SqliteRow) -> Result<Spent, LedgerError> {
    Ok(Spent {
        tenant: row.try_get("tenant")?,
        tier: row.try_get("tier")?,
        model: row.try_get("model")?,
        api: row.try_get("api")?,
        usage: usage(row)?,
        refused: row.try_get::<i64, _>("refused")?.unsigned_abs(),
    })
}

fn unsettled(row: &SqliteRow) -> Result<UsageEvent, LedgerError> {
    let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let event_id: String = row.try_get("event_id")?;
    Ok(UsageEvent {
        reservation_id: Some(event_id.clone()),
        event_id,
        tenant: row.try_get("tenant")?,
        tier: row.try_get("tier")?,
        started_at_ms: count("started_at_ms")?,
        api: row.try_get("api")?,
        request_model: row.try_get("request_model")?,
        tokens: TokenCounts {
            input: count("input_tokens")?,
            output: count("output_tokens")?,
            ..TokenCounts::default()
        },
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..UsageEvent::default()
    })
}

#[tonic::async_trait]
impl Audit for SqliteLedger {
    async fn record(&self, entry: Entry) -> Result<u64, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Write::entry(entry, reply))?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    async fn entries(
        &self,
        tenant: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, LedgerError> {
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        let mut query = QueryBuilder::<Sqlite>::new("SELECT id, at_ms, actor, action, tenant, detail FROM audit_log");
        query.push(" WHERE id < ").push_bind(before);
        if let Some(tenant) = tenant {
            query.push(" AND tenant = ").push_bind(tenant);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit.min(MAX_ENTRIES) as i64);
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(recorded).collect()
    }

    async fn last_resets(&self, from_ms: u64) -> Result<HashMap<String, u64>, LedgerError> {
        let Ok(from_ms) = i64::try_from(from_ms) else { return Ok(HashMap::new()) };
        let query = "SELECT tenant, max(at_ms) FROM audit_log \
                     WHERE action = ? AND at_ms >= ? AND tenant IS NOT NULL GROUP BY tenant";
        let rows: Vec<(String, i64)> = sqlx::query_as(query).bind(RESET).bind(from_ms).fetch_all(&self.readers).await?;
        Ok(rows.into_iter().map(|(tenant, at_ms)| (tenant, at_ms.unsigned_abs())).collect())
    }
}

fn recorded(row: &SqliteRow) -> Result<Recorded, LedgerError> {
    let detail: &str = row.try_get("detail")?;
    let detail = serde_json::from_str(detail)
        .map_err(|error| LedgerError::Database(format!("audit_log.detail is no JSON: {error}")))?;
    let entry = Entry {
        at_ms: row.try_get::<i64, _>("at_ms")?.unsigned_abs(),
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        tenant: row.try_get("tenant")?,
        detail,
    };
    Ok(Recorded { id: row.try_get::<i64, _>("id")?.unsigned_abs(), entry })
}
