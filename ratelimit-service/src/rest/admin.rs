//! What operators do, and the log of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use super::limits::Limits;
use super::problem::Problem;
use super::{Shared, check_tenant, rfc3339};
use crate::audit::{Entry, MAX_ENTRIES, RESET, Recorded};
use crate::clock;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// The header by which whoever asks says who they are.
pub(super) const ACTOR_HEADER: &str = "x-tollgate-actor";

const ANONYMOUS: &str = "anonymous";

/// Why something is done by hand.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    pub(super) reason: Option<String>,
}

/// `POST /api/v1/admin/tenants/{tenant}/reset`: forgives what is spent. It is in the audit log before it is done.
pub(super) async fn reset(
    State(shared): State<Arc<Shared>>,
    tenant: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    request: Result<Option<Json<Reason>>, JsonRejection>,
) -> Result<Json<Limits>, Problem> {
    let Path(tenant) = tenant?;
    check_tenant("tenant", &tenant)?;
    let Reason { reason } = request?.map(|Json(request)| request).unwrap_or_default();
    shared.record(RESET, &tenant, &headers, reason).await?;
    shared.limiter.reset(&tenant).await?;
    let policy = shared.limiter.policy();
    let plan = shared.last_plan(&policy, &tenant).await?;
    Ok(Json(shared.limits(tenant, plan).await?))
}

impl Shared {
    /// Keeps what is about to be done to a tenant.
    pub(super) async fn record(
        &self,
        action: &str,
        tenant: &str,
        headers: &HeaderMap,
        reason: Option<String>,
    ) -> Result<(), Problem> {
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            return Err(Problem::bad_request(format!("reason: is longer than {MAX_REASON_BYTES} bytes")));
        }
        let entry = Entry {
            at_ms: clock::now_ms(),
            actor: actor(headers)?,
            action: action.to_owned(),
            tenant: Some(tenant.to_owned()),
            detail: json!({ "reason": reason }),
        };
        self.audit.record(entry).await?;
        Ok(())
    }
}

pub(super) fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(actor) = headers.get(ACTOR_HEADER) else { return Ok(ANONYMOUS.to_owned()) };
    let actor = actor.to_str().ok().filter(|actor| (1..=MAX_NAME_BYTES).contains(&actor.len()));
    let refused = || Problem::bad_request(format!("{ACTOR_HEADER}: 1 to {MAX_NAME_BYTES} visible ASCII characters"));
    actor.map(str::to_owned).ok_or_else(refused)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    tenant: Option<String>,
    before: Option<u64>,
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

#[derive(Debug, Serialize)]
pub(super) struct AuditLog {
    entries: Vec<EntryFields>,
}

#[derive(Debug, Serialize)]
struct EntryFields {
    id: u64,
    at: String,
    actor: String,
    action: String,
    tenant_id: Option<String>,
    detail: Value,
}

impl From<Recorded> for EntryFields {
    fn from(Recorded { id, entry }: Recorded) -> EntryFields {
        let Entry { at_ms, actor, action, tenant, detail } = entry;
        EntryFields { id, at: rfc3339(at_ms), actor, action, tenant_id: tenant, detail }
    }
}

/// `GET /api/v1/admin/audit?tenant=&before=&limit=100`: newest first.
pub(super) async fn audit(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditLog>, Problem> {
    let Query(AuditQuery { tenant, before, limit }) = query?;
    if limit == 0 || limit > MAX_ENTRIES {
        return Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {MAX_ENTRIES}")));
    }
    let entries = shared.audit.entries(tenant.as_deref(), before, limit).await?;
    Ok(Json(AuditLog { entries: entries.into_iter().map(EntryFields::from).collect() }))
}
