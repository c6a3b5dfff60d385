//! The one connection that writes.

use std::collections::HashSet;

use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use super::{LedgerError, MAX_COUNT};
use crate::audit::Entry;
use crate::metrics::Metrics;

/// The most writes in one transaction.
const MAX_COMMITTED_WRITES: usize = 64;

/// Rows in one statement, 40 variables each of the 32766 that SQLite takes: of few lengths, so that all are prepared once.
/// To prepare one, with its triggers, takes longer than to run it.
const STATEMENT_ROWS: [usize; 4] = [64, 16, 4, 1];

/// Answers whoever waits for a write.
pub(super) type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What waits to be written, and what became of it.
pub(super) enum Write {
    /// An export, and which of its events were new.
    Events { events: Vec<UsageEvent>, new: NewIds, reply: Reply<Vec<UsageEvent>> },
    /// An audit entry, and its id.
    Entry { entry: Entry, id: u64, reply: Reply<u64> },
}

impl Write {
    pub(super) fn events(events: Vec<UsageEvent>, reply: Reply<Vec<UsageEvent>>) -> Write {
        Write::Events { events, new: NewIds::default(), reply }
    }

    pub(super) fn entry(entry: Entry, reply: Reply<u64>) -> Write {
        Write::Entry { entry, id: 0, reply }
    }

    async fn store(&mut self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), sqlx::Error> {
        match self {
            Write::Events { events, new, .. } => *new = insert(transaction, events).await?,
            Write::Entry { entry, id, .. } => *id = insert_entry(transaction, entry).await?,
        }
        Ok(())
    }

    /// Tells that it is durable. Nobody listens when the client has gone; it will send the events again.
    fn succeed(self) {
        match self {
            Write::Events { events, mut new, reply } => {
                let _ = reply.send(Ok(events.into_iter().filter(|event| new.take(event)).collect()));
            }
            Write::Entry { id, reply, .. } => {
                let _ = reply.send(Ok(id));
            }
        }
    }

    /// Tells that nothing was written.
    fn fail(self, error: LedgerError) {
        match self {
            Write::Events { reply, .. } => drop(reply.send(Err(error))),
            Write::Entry { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The ids under which something was not yet stored.
#[derive(Default)]
pub(super) struct NewIds {
    real: HashSet<String>,
    unsettled: HashSet<String>,
}

impl NewIds {
    /// Whether the event is new, once: what follows under its id is a duplicate.
    fn take(&mut self, event: &UsageEvent) -> bool {
        let ids = if is_unsettled(event) { &mut self.unsettled } else { &mut self.real };
        ids.remove(&event.event_id)
    }
}

fn is_unsettled(event: &UsageEvent) -> bool {
    event.usage_source == UsageSource::Unsettled
}

/// Writes until the queue is closed and empty.
pub(super) async fn write(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Write>, metrics: Metrics) {
    let mut writes = Vec::with_capacity(MAX_COMMITTED_WRITES);
    while queue.recv_many(&mut writes, MAX_COMMITTED_WRITES).await > 0 {
        let begun = Instant::now();
        let committed = commit(&mut connection, &mut writes).await;
        metrics.ledger_commit_seconds.observe(begun.elapsed().as_secs_f64());
        match committed {
            Ok(()) => writes.drain(..).for_each(Write::succeed),
            Err(error) => {
                let message = error.to_string();
                tracing::error!(error = message, writes = writes.len(), "the ledger stored nothing of a transaction");
                writes.drain(..).for_each(|write| write.fail(LedgerError::Database(message.clone())));
            }
        }
    }
    if let Err(error) = connection.close().await {
        tracing::error!(%error, "the ledger did not close cleanly");
    }
}

/// Stores the writes in one transaction, in order.
async fn commit(connection: &mut SqliteConnection, writes: &mut [Write]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for write in writes {
        write.store(&mut transaction).await?;
    }
    transaction.commit().await
}

/// Real events go first: an unsettled one beside its real one has nothing to stand in for.
async fn insert(transaction: &mut Transaction<'_, Sqlite>, events: &[UsageEvent]) -> Result<NewIds, sqlx::Error> {
    let (unsettled, real): (Vec<_>, Vec<_>) = events.iter().partition(|event| is_unsettled(event));
    let mut new = NewIds { real: HashSet::with_capacity(real.len()), unsettled: HashSet::new() };
    for events in statements(&real) {
        new.real.extend(insert_real(transaction, events).await?);
    }
    for events in statements(&unsettled) {
        new.unsettled.extend(insert_unsettled(transaction, events).await?);
    }
    Ok(new)
}

/// The rows of each statement.
fn statements<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = STATEMENT_ROWS.into_iter().find(|length| *length <= rows.len())?;
        let (first, rest) = rows.split_at(length);
        rows = rest;
        Some(first)
    })
}

/// In the order in which [`insert_real`] binds them.
const EVENT_COLUMNS: &str = "event_id, reservation_id, request_id, tenant, tier, started_at_ms, duration_ms, \
    time_to_first_token_ms, api, operation, provider, request_model, output_cap, input_estimate, response_model, \
    response_id, finish_reasons, streaming, status, error_type, unreadable, upstream_limits, \
    input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens, \
    cache_creation_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, extra_input_tokens, \
    extra_output_tokens, billed_input_tokens, billed_output_tokens, tool_requests, usage_source, finish, \
    request_bytes, response_bytes";

async fn insert_real(
    transaction: &mut Transaction<'_, Sqlite>,
    events: &[&UsageEvent],
) -> Result<Vec<String>, sqlx::Error> {
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
            .push_bind(summed(event.duration_ms))
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
            .push_bind(summed(event.tokens.input))
            .push_bind(summed(event.tokens.output))
            .push_bind(summed(event.tokens.cache_read))
            .push_bind(summed(event.tokens.cache_creation))
            .push_bind(summed(event.tokens.cache_creation_5m))
            .push_bind(summed(event.tokens.cache_creation_1h))
            .push_bind(summed(event.tokens.reasoning))
            .push_bind(summed(event.tokens.audio_input))
            .push_bind(summed(event.tokens.audio_output))
            .push_bind(summed(event.tokens.extra_input))
            .push_bind(summed(event.tokens.extra_output))
            .push_bind(summed(event.tokens.billed_input))
            .push_bind(summed(event.tokens.billed_output))
            .push_bind(summed(event.tokens.tool_requests))
            .push_bind(event.usage_source.as_str())
            .push_bind(event.finish.as_str())
            .push_bind(count(event.request_bytes))
            .push_bind(count(event.response_bytes));
    });
    statement.push(" ON CONFLICT (event_id) DO NOTHING RETURNING event_id");
    statement.build_query_scalar().fetch_all(&mut **transaction).await
}

async fn insert_unsettled(
    transaction: &mut Transaction<'_, Sqlite>,
    events: &[&UsageEvent],
) -> Result<Vec<String>, sqlx::Error> {
    let mut statement = QueryBuilder::<Sqlite>::new(
        "INSERT INTO unsettled_events \
         (event_id, tenant, tier, started_at_ms, api, request_model, input_tokens, output_tokens) ",
    );
    statement.push_values(events, |mut row, event| {
        row.push_bind(&event.event_id)
            .push_bind(&event.tenant)
            .push_bind(&event.tier)
            .push_bind(count(event.started_at_ms))
            .push_bind(&event.api)
            .push_bind(&event.request_model)
            .push_bind(summed(event.tokens.input))
            .push_bind(summed(event.tokens.output));
    });
    statement.push(" ON CONFLICT (event_id) DO NOTHING RETURNING event_id");
    statement.build_query_scalar().fetch_all(&mut **transaction).await
}

async fn insert_entry(transaction: &mut Transaction<'_, Sqlite>, entry: &Entry) -> Result<u64, sqlx::Error> {
    let statement = "INSERT INTO audit_log (at_ms, actor, action, tenant, detail) VALUES (?, ?, ?, ?, ?) RETURNING id";
    let id: i64 = sqlx::query_scalar(statement)
        .bind(count(entry.at_ms))
        .bind(&entry.actor)
        .bind(&entry.action)
        .bind(&entry.tenant)
        .bind(entry.detail.to_string())
        .fetch_one(&mut **transaction)
        .await?;
    Ok(id.unsigned_abs())
}

fn summed(number: u64) -> i64 {
    count(number.min(MAX_COUNT))
}

/// SQLite's integers are signed.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
