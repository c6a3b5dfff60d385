//! Other billable events, and entries that are brought again.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::access::Caller;
use super::admin::{Actor, actor, printable};
use super::body;
use super::idempotency::{self, HEADER};
use super::openapi::{Kept, Sent};
use super::problem::{self, Problem};
use crate::audit::{self, REPLAY};
use crate::chance;
use crate::clock;
use crate::collector::MAX_AHEAD_MS;
use crate::collector::track::Posted;
use crate::entry::{Entry, EntryRecord, MAX_EVENT_TYPE_BYTES, MAX_METADATA_BYTES, MAX_QUANTITY_MICROS};
use crate::spool::SpoolError;

/// The largest body of these routes, in bytes.
const MAX_BODY_BYTES: usize = 4 << 20;

/// The most events that are posted at once.
const MAX_EVENTS: usize = 1000;

/// What brings entries.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    let routes = OpenApiRouter::new().routes(routes!(track)).routes(routes!(replay));
    routes.layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What is kept, by the ids under which it counts once.
#[derive(Debug, Serialize, ToSchema)]
struct Tracked {
    ids: Vec<String>,
}

/// One event, or a list of them.
struct PostedEvents;

impl ToSchema for PostedEvents {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Posted::name().into_owned(), Posted::schema()));
    }
}

impl PartialSchema for PostedEvents {
    fn schema() -> RefOr<Schema> {
        let event = Ref::from_schema_name(Posted::name());
        let events = ArrayBuilder::new().items(event.clone()).min_items(Some(1)).max_items(Some(MAX_EVENTS));
        Schema::OneOf(OneOfBuilder::new().item(event).item(events).build()).into()
    }
}

/// The header is read by [`idempotency::key`].
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it tells of a header")]
struct IdempotencyKey {
    /// Counts the request once: the id of its event, or with their places those of its events that have none.
    #[param(rename = "idempotency-key", schema_with = printable, required = false)]
    key: String,
}

/// Keep events that are to be billed
///
/// An event counts once by its id: its own, or else by the idempotency key, or else a new one.
#[utoipa::path(post, path = "/api/v1/track", tag = "events", params(IdempotencyKey), request_body = PostedEvents,
    responses((status = 202, body = Tracked, description = "All are kept"), Sent, Kept))]
async fn track(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Tracked>), Problem> {
    let body = body?;
    let key = idempotency::key(&headers, MAX_NAME_BYTES)?;
    let now_ms = clock::now_ms();
    let entries = match body.trim_ascii_start().first() {
        Some(b'[') => many(body::json(&headers, &body)?, key.as_deref(), now_ms)?,
        _ => vec![one(body::json(&headers, &body)?, key, now_ms)?],
    };
    entries.iter().try_for_each(|entry| caller.check_tenant(entry.tenant()))?;
    let ids = entries.iter().map(|entry| entry.id().to_owned()).collect();
    shared.keep(shared.collector.store(entries).await)?;
    Ok((StatusCode::ACCEPTED, Json(Tracked { ids })))
}

/// Its id is the key, or else its own, or else a new one.
fn one(event: Posted<'_>, key: Option<String>, now_ms: u64) -> Result<Entry, Problem> {
    let id = match (key, event.id.clone()) {
        (Some(key), Some(id)) if key != id => {
            return Err(Problem::bad_request(format!("id: is not what {HEADER} says; give one of them")));
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => chance::id(),
    };
    event.checked(id, now_ms).map(Entry::Tracked).map_err(|error| Problem::bad_request(error.to_string()))
}

/// Each has its own id, or else the key and its place, or else a new one.
fn many(events: Vec<Posted<'_>>, key: Option<&str>, now_ms: u64) -> Result<Vec<Entry>, Problem> {
    if events.is_empty() || events.len() > MAX_EVENTS {
        let what = format!("{} events; 1 to {MAX_EVENTS} are taken at once", events.len());
        return Err(Problem::bad_request(what));
    }
    let events = events.into_iter().enumerate().map(|(at, event)| {
        let id = event.id.clone().or_else(|| key.map(|key| format!("{key}:{at}"))).unwrap_or_else(chance::id);
        event.checked(id, now_ms).map_err(|error| Problem::bad_request(format!("[{at}].{error}")))
    });
    events.map(|event| event.map(Entry::Tracked)).collect()
}

/// What was brought again.
#[derive(Debug, Serialize, ToSchema)]
struct Replayed {
    entries: usize,
}

/// Bring entries again, as an export or the ledger has them
///
/// Each is a line of JSON. All or none are taken; those that the ledger has are passed over.
#[utoipa::path(post, path = "/api/v1/admin/events", tag = "admin", params(Actor),
    request_body(content = Option<String>, content_type = "application/x-ndjson", description = "Lines of JSON"),
    responses(
        (status = 200, body = Replayed, description = "All are kept"),
        (status = 400, body = problem::Body, content_type = problem::CONTENT_TYPE, description = "A line is no entry"),
        (status = 413, body = problem::Body, content_type = problem::CONTENT_TYPE, description = "It is too long"),
        Kept,
    ))]
async fn replay(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Replayed>, Problem> {
    let (actor, body) = (actor(&headers)?, body?);
    let now_ms = clock::now_ms();
    let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let entries = lines
        .map(|(at, line)| entry(line, now_ms).map_err(|what| Problem::bad_request(format!("line {}: {what}", at + 1))));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let count = entries.len();
    if count > 0 {
        let detail = json!({ "entries": count });
        let action = REPLAY.to_owned();
        shared.audit.record(audit::Entry { at_ms: now_ms, actor, action, tenant: None, detail }).await?;
        shared.keep(shared.collector.replay(entries).await)?;
    }
    Ok(Json(Replayed { entries: count }))
}

fn entry(line: &[u8], now_ms: u64) -> Result<Entry, String> {
    let record: EntryRecord = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let entry = Entry::try_from(record).map_err(|error| error.to_string())?;
    let names = match &entry {
        Entry::Usage(event) => {
            let key = event.key.as_deref().unwrap_or_default();
            [("event_id", &*event.event_id), ("tenant", &event.tenant), ("tier", &event.tier), ("key", key)]
        }
        Entry::Tracked(event) => [("id", &*event.id), ("tenant", &event.tenant), ("", ""), ("", "")],
    };
    if let Some((field, _)) = names.iter().find(|(_, name)| name.len() > MAX_NAME_BYTES) {
        return Err(format!("{field}: is longer than {MAX_NAME_BYTES} bytes"));
    }
    if let Entry::Tracked(event) = &entry {
        let is_object = serde_json::from_str::<serde_json::Map<_, _>>(&event.metadata).is_ok();
        match event {
            event if event.event_type.len() > MAX_EVENT_TYPE_BYTES => {
                return Err(format!("event_type: is longer than {MAX_EVENT_TYPE_BYTES} bytes"));
            }
            event if event.metadata.len() > MAX_METADATA_BYTES || !is_object => {
                return Err(format!("metadata: is no JSON object of at most {MAX_METADATA_BYTES} bytes"));
            }
            event if event.quantity_micros > MAX_QUANTITY_MICROS => {
                return Err(format!("quantity_micros: is more than {MAX_QUANTITY_MICROS}"));
            }
            _ => {}
        }
    }
    if entry.at_ms() > now_ms.saturating_add(MAX_AHEAD_MS) {
        return Err("is more than a day ahead of the clock here".to_owned());
    }
    Ok(entry)
}

impl Shared {
    /// Counts what was not kept.
    fn keep(&self, kept: Result<(), SpoolError>) -> Result<(), Problem> {
        Ok(kept.inspect_err(|error| self.collector.count_refused(error))?)
    }
}
