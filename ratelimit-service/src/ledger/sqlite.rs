//! The ledger in one SQLite file.
//!
//! Invariants:
//! - One connection writes. Exports that wait for it go into one transaction, which is durable (WAL with `synchronous=FULL`)
//!   before any of them is answered.
//! - At most [`MAX_QUEUED_EXPORTS`] wait; one more is refused as [`LedgerError::Busy`].
//! - Whether an event is new is the primary key's word; the daily sums follow by a trigger, in the same transaction.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row, SqlStr, Sqlite, SqliteConnection, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::UsageEvent;

use super::{Ledger, LedgerError, Usage};
use crate::metrics::Metrics;

/// The most exports that wait to be written.
pub const MAX_QUEUED_EXPORTS: usize = 128;

/// The most exports in one transaction.
const MAX_COMMITTED_EXPORTS: usize = 64;

/// Rows in one statement: 40 variables each, of the 32766 that SQLite takes.
const STATEMENT_ROWS: usize = 100;

const READERS: u32 = 4;

/// How long a statement waits for another process that has the file locked, and a read for a free connection.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The embedded engine.
pub struct SqliteLedger {
    queue: Mutex<Option<mpsc::Sender<Export>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: SqlitePool,
}

/// What brings a database from each version to the next. One that has landed is never changed.
fn migrations() -> Migrator {
    let migrations = [
        ("ledger", include_str!("../../migrations/0001_ledger.sql")),
        ("usage details", include_str!("../../migrations/0002_usage_details.sql")),
    ];
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations((1..).zip(migrations).map(migration).collect())
}

struct Export {
    events: Vec<UsageEvent>,
    reply: oneshot::Sender<Result<Vec<UsageEvent>, LedgerError>>,
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
        let (queue, exports) = mpsc::channel(MAX_QUEUED_EXPORTS);
        let writer = tokio::spawn(write(connection, exports, metrics));
        Ok(SqliteLedger { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), readers })
    }
}

#[tonic::async_trait]
impl Ledger for SqliteLedger {
    async fn append(&self, events: Vec<UsageEvent>) -> Result<Vec<UsageEvent>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.lock().clone().ok_or(LedgerError::Closed)?;
        queue.try_send(Export { events, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Closed,
        })?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    async fn days(&self, tenant: &str, period: Period) -> Result<Vec<(Day, Usage)>, LedgerError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT day, ");
        query.push(Usage::COLUMNS.join(", ")).push(" FROM usage_days WHERE tenant = ").push_bind(tenant);
        during(query.push(" AND "), period).push(" ORDER BY day");
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((Day::from_number(row.try_get(0)?), usage(row)?))).collect()
    }

    async fn by_tenant(&self, period: Period) -> Result<Vec<(String, Usage)>, LedgerError> {
        let sums: Vec<_> = Usage::COLUMNS.iter().map(|column| format!("sum({column}) AS {column}")).collect();
        let mut query = QueryBuilder::<Sqlite>::new("SELECT tenant, ");
        query.push(sums.join(", ")).push(" FROM usage_days WHERE ");
        during(&mut query, period).push(" GROUP BY tenant");
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, usage(row)?))).collect()
    }

    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError> {
        let tier = "SELECT last_tier FROM usage_days WHERE tenant = ? ORDER BY day DESC LIMIT 1";
        Ok(sqlx::query_scalar(tier).bind(tenant).fetch_optional(&self.readers).await?)
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

/// Writes until the queue is closed and empty.
async fn write(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Export>, metrics: Metrics) {
    let mut exports = Vec::with_capacity(MAX_COMMITTED_EXPORTS);
    while queue.recv_many(&mut exports, MAX_COMMITTED_EXPORTS).await > 0 {
        let begun = Instant::now();
        let committed = commit(&mut connection, &exports).await;
        metrics.ledger_commit_seconds.observe(begun.elapsed().as_secs_f64());
        let replies = exports.drain(..);
        match committed {
            Ok(new_ids) => {
                for (export, mut new_ids) in replies.zip(new_ids) {
                    let new = export.events.into_iter().filter(|event| new_ids.remove(&event.event_id)).collect();
                    // Nobody waits when the client has gone; it will send the events again.
                    let _ = export.reply.send(Ok(new));
                }
            }
            Err(error) => {
                let message = error.to_string();
                tracing::error!(error = message, exports = replies.len(), "usage events were not stored");
                for export in replies {
                    let _ = export.reply.send(Err(LedgerError::Database(message.clone())));
                }
            }
        }
    }
    if let Err(error) = connection.close().await {
        tracing::error!(%error, "the ledger did not close cleanly");
    }
}

/// Stores the exports in one transaction; gives the ids that were new in each.
async fn commit(connection: &mut SqliteConnection, exports: &[Export]) -> Result<Vec<HashSet<String>>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut new_ids = Vec::with_capacity(exports.len());
    for export in exports {
        let mut ids = HashSet::with_capacity(export.events.len());
        for events in export.events.chunks(STATEMENT_ROWS) {
            ids.extend(insert(&mut transaction, events).await?);
        }
        new_ids.push(ids);
    }
    transaction.commit().await?;
    Ok(new_ids)
}

/// In the order in which [`insert`] binds them.
const EVENT_COLUMNS: &str = "event_id, reservation_id, request_id, tenant, tier, started_at_ms, duration_ms, \
    time_to_first_token_ms, api, operation, provider, request_model, output_cap, input_estimate, response_model, \
    response_id, finish_reasons, streaming, status, error_type, unreadable, upstream_limits, \
    input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens, \
    cache_creation_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, extra_input_tokens, \
    extra_output_tokens, billed_input_tokens, billed_output_tokens, tool_requests, usage_source, finish, \
    request_bytes, response_bytes";

async fn insert(transaction: &mut Transaction<'_, Sqlite>, events: &[UsageEvent]) -> Result<Vec<String>, sqlx::Error> {
    // SQLite's integers are signed; the collector refuses sums that come near to that.
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let array = |texts: &[String]| serde_json::Value::from(texts).to_string();
    let mut statement = QueryBuilder::<Sqlite>::new("INSERT INTO usage_events (");
    statement.push(EVENT_COLUMNS).push(") ");
    statement.push_values(events, |mut row, event| {
        row.push_bind(&event.event_id)
            .push_bind(&event.reservation_id)
            .push_bind(&event.request_id)
            .push_bind(&event.tenant)
            .push_bind(&event.tier)
            .push_bind(count(event.started_at_ms))
            .push_bind(count(event.duration_ms))
            .push_bind(event.time_to_first_token_ms.map(count))
            .push_bind(&event.api)
            .push_bind(&event.operation)
            .push_bind(&event.provider)
            .push_bind(&event.request_model)
            .push_bind(event.output_cap.map(count))
            .push_bind(event.input_estimate.map(count))
            .push_bind(&event.response_model)
            .push_bind(&event.response_id)
            .push_bind(array(&event.finish_reasons))
            .push_bind(event.streaming)
            .push_bind(event.status)
            .push_bind(&event.error_type)
            .push_bind(&event.unreadable)
            .push_bind(array(&event.upstream_limits))
            .push_bind(count(event.tokens.input))
            .push_bind(count(event.tokens.output))
            .push_bind(count(event.tokens.cache_read))
            .push_bind(count(event.tokens.cache_creation))
            .push_bind(count(event.tokens.cache_creation_5m))
            .push_bind(count(event.tokens.cache_creation_1h))
            .push_bind(count(event.tokens.reasoning))
            .push_bind(count(event.tokens.audio_input))
            .push_bind(count(event.tokens.audio_output))
            .push_bind(count(event.tokens.extra_input))
            .push_bind(count(event.tokens.extra_output))
            .push_bind(count(event.tokens.billed_input))
            .push_bind(count(event.tokens.billed_output))
            .push_bind(count(event.tokens.tool_requests))
            .push_bind(event.usage_source.as_str())
            .push_bind(event.finish.as_str())
            .push_bind(count(event.request_bytes))
            .push_bind(count(event.response_bytes));
    });
    statement.push(" ON CONFLICT (event_id) DO NOTHING RETURNING event_id");
    statement.build_query_scalar().persistent(false).fetch_all(&mut **transaction).await
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;
    use tollgate_domain::Span;
    use tollgate_wire::usage_event::UsageSource;

    use super::*;

    #[tokio::test]
    async fn a_ledger_of_the_first_version_keeps_its_data_and_counts_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let first = migrations().iter().take(1).cloned().collect();
        Migrator::with_migrations(first).run(&mut connection).await.unwrap();
        for (id, tokens, source) in [("e1", 10, "reported"), ("e2", 5, "reported"), ("e3", 0, "none")] {
            let values = format!(
                "'{id}', NULL, NULL, 'acme', 'pro', 86400000, 40, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
                 '[\"stop\"]', 1, 200, {tokens}, 1, 0, 0, 0, '{source}', 'complete', 0, 0"
            );
            let insert = format!("INSERT INTO usage_events VALUES ({values})");
            connection.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
        }
        connection.close().await.unwrap();

        let ledger = SqliteLedger::open(&file, Metrics::new().0).await.unwrap();
        let day = Period::around(Span::Day, 86_400_000);
        let kept = Usage {
            requests: 3,
            succeeded: 3,
            input_tokens: 15,
            output_tokens: 3,
            requests_reported: 2,
            requests_none: 1,
            duration_ms: 120,
            ..Usage::default()
        };
        assert_eq!(ledger.days("acme", day).await.unwrap(), [(day.first, kept)]);

        let event = |id: &str| UsageEvent {
            event_id: id.to_owned(),
            tenant: "acme".to_owned(),
            tier: "pro".to_owned(),
            started_at_ms: 86_400_000,
            usage_source: UsageSource::Estimated,
            ..UsageEvent::default()
        };
        let new = ledger.append(vec![event("e1"), event("e4")]).await.unwrap();
        assert_eq!(new, [event("e4")]);
        let counted = Usage { requests: 4, requests_estimated: 1, ..kept };
        assert_eq!(ledger.by_tenant(day).await.unwrap(), [("acme".to_owned(), counted)]);
        ledger.close().await;
    }
}
