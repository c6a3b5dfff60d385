//! What operators do, and the log of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::limits::Limits;
use super::openapi::{self, Asked, Sent};
use super::problem::Problem;
use super::tenant::Tenant;
use super::{Shared, rfc3339};
use crate::accounts::{self, Change};
use crate::audit::{Entry, MAX_ENTRIES, RESET, Recorded};
use crate::clock;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// The header by which whoever asks says who they are.
pub(super) const ACTOR_HEADER: &str = "x-tollgate-actor";

const ANONYMOUS: &str = "anonymous";

/// What operators do to limits, and the log of what they did.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(reset)).routes(routes!(audit)).routes(routes!(changes))
}

/// A body with a [`Reason`], or none.
pub(super) type GivenReason = Result<Option<Json<Option<Reason>>>, JsonRejection>;

/// Why something is done by hand.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    #[schema(schema_with = reason)]
    pub(super) reason: Option<String>,
}

fn reason() -> Object {
    let reason = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    reason.max_length(Some(MAX_REASON_BYTES)).description(Some("For the audit log")).build()
}

/// The header by which whoever asks says who they are; the audit log tells it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read as any header is; see `actor`")]
pub(super) struct Actor {
    /// Who asks, for the audit log.
    #[param(rename = "x-tollgate-actor", schema_with = printable, required = false)]
    actor: String,
}

/// Visible ASCII, and blanks between.
pub(super) fn printable() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_NAME_BYTES));
    text.pattern(Some("^[!-~]([ -~]*[!-~])?$")).build()
}

/// Forgive what a tenant has spent
///
/// It is in the audit log before it is done.
#[utoipa::path(post, path = "/api/v1/admin/tenants/{tenant}/reset", tag = "admin", params(Tenant, Actor),
    request_body = Option<Reason>, responses((status = 200, body = Limits, description = "Where it stands now"), Sent))]
async fn reset(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    headers: HeaderMap,
    request: GivenReason,
) -> Result<Json<Limits>, Problem> {
    let Reason { reason } = request?.and_then(|Json(request)| request).unwrap_or_default();
    let at_ms = shared.record(RESET, &tenant, &headers, reason).await?;
    shared.limiter.reset(&tenant, at_ms).await?;
    let policy = shared.limiter.policy();
    let plan = shared.last_plan(&policy, &tenant).await?;
    Ok(Json(shared.limits(tenant, plan).await?))
}

impl Shared {
    /// Keeps what is about to be done to a tenant, and tells when that is.
    pub(super) async fn record(
        &self,
        action: &str,
        tenant: &str,
        headers: &HeaderMap,
        reason: Option<String>,
    ) -> Result<u64, Problem> {
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            return Err(Problem::bad_request(format!("reason: is longer than {MAX_REASON_BYTES} bytes")));
        }
        let at_ms = clock::now_ms();
        let entry = Entry {
            at_ms,
            actor: actor(headers)?,
            action: action.to_owned(),
            tenant: Some(tenant.to_owned()),
            detail: json!({ "reason": reason }),
        };
        self.audit.record(entry).await?;
        Ok(at_ms)
    }
}

pub(super) fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(actor) = headers.get(ACTOR_HEADER) else { return Ok(ANONYMOUS.to_owned()) };
    // A header may have tabs too.
    let is_named = |actor: &&str| (1..=MAX_NAME_BYTES).contains(&actor.len()) && !actor.contains('\t');
    let actor = actor.to_str().ok().filter(is_named);
    let refused = || Problem::bad_request(format!("{ACTOR_HEADER}: 1 to {MAX_NAME_BYTES} visible ASCII characters"));
    actor.map(str::to_owned).ok_or_else(refused)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Whose; all entries without.
    tenant: Option<String>,
    /// The last id of the page before.
    #[param(schema_with = openapi::whole::<0, { u64::MAX }>)]
    before: Option<u64>,
    /// How many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// The audit log, or a page of it.
#[derive(Debug, Serialize, ToSchema)]
struct AuditLog {
    entries: Vec<EntryFields>,
}

/// What somebody did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryFields {
    id: u64,
    #[schema(format = DateTime)]
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

/// Who did what, newest first
#[utoipa::path(get, path = "/api/v1/admin/audit", tag = "admin", params(AuditQuery),
    responses((status = 200, body = AuditLog, description = "The entries"), Asked))]
async fn audit(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditLog>, Problem> {
    let AuditQuery { tenant, before, limit } = checked(query)?;
    let entries = shared.audit.entries(tenant.as_deref(), before, limit).await?;
    Ok(Json(AuditLog { entries: entries.into_iter().map(EntryFields::from).collect() }))
}

fn checked(query: Result<Query<AuditQuery>, QueryRejection>) -> Result<AuditQuery, Problem> {
    let Query(query) = query?;
    match query.limit {
        1..=MAX_ENTRIES => Ok(query),
        limit => Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {MAX_ENTRIES}"))),
    }
}

/// Changes of accounts, or a page of them.
#[derive(Debug, Serialize, ToSchema)]
struct Changes {
    changes: Vec<ChangeFields>,
}

/// What became of a record. No secret and no invoice's content is part of that.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
struct ChangeFields {
    /// One more than that of the change before.
    id: u64,
    #[schema(format = DateTime)]
    at: String,
    /// The id of the key that it was made with, or a name.
    actor: String,
    /// `create`, `update` or `delete`.
    action: &'static str,
    kind: String,
    /// The record's id.
    record_id: String,
    tenant_id: Option<String>,
    /// The record before.
    #[schema(value_type = Option<Object>)]
    was: Option<accounts::Json>,
    /// And since.
    #[schema(value_type = Option<Object>)]
    became: Option<accounts::Json>,
}

impl From<Change> for ChangeFields {
    fn from(change: Change) -> ChangeFields {
        let Change { revision, at_ms, actor, action, kind, id, tenant, was, became } = change;
        let (at, action) = (rfc3339(at_ms), action.name());
        ChangeFields { id: revision, at, actor, action, kind, record_id: id, tenant_id: tenant, was, became }
    }
}

/// Who changed which of the accounts' records, newest first
#[utoipa::path(get, path = "/api/v1/admin/changes", tag = "admin", params(AuditQuery),
    responses((status = 200, body = Changes, description = "The changes"), Asked))]
async fn changes(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Changes>, Problem> {
    let AuditQuery { tenant, before, limit } = checked(query)?;
    let changes = shared.accounts.changes_before(before, tenant.as_deref(), limit).await?;
    Ok(Json(Changes { changes: changes.into_iter().map(ChangeFields::from).collect() }))
}
