//! What operators ask of the books: whether they agree, and to forget a tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tollgate_domain::{Period, Span};

use super::admin::Reason;
use super::problem::Problem;
use super::{Shared, check_tenant, rfc3339};
use crate::audit::PURGE;
use crate::clock;
use crate::period;
use crate::reconcile::{Books, Difference};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReconcileQuery {
    period: Option<String>,
}

/// What came of comparing the books. [`crate::operate`] reads it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reconciled {
    period_start: String,
    period_end: String,
    pub(crate) differences: Vec<Difference>,
}

/// `GET /api/v1/admin/reconcile?period=2026-11`: the present month, unless another month or day is named.
pub(super) async fn reconcile(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<ReconcileQuery>, QueryRejection>,
) -> Result<Json<Reconciled>, Problem> {
    let Query(ReconcileQuery { period: name }) = query?;
    let now_ms = clock::now_ms();
    let period = match name {
        Some(name) => period::parse(&name).map_err(|error| Problem::bad_request(format!("period: {error}")))?,
        None => Period::around(Span::Month, now_ms),
    };
    let (from_ms, to_ms) = (period.first.start_ms(), period.end.start_ms());
    let books = Books { ledger: shared.ledger.as_ref(), limiter: &shared.limiter, audit: shared.audit.as_ref() };
    let differences = books.differences(from_ms, to_ms, now_ms).await.map_err(|error| {
        tracing::error!(%error, "the books cannot be compared");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the books cannot be compared: {error:#}"))
    })?;
    Ok(Json(Reconciled { period_start: rfc3339(from_ms), period_end: rfc3339(to_ms), differences }))
}

/// What was erased. [`crate::operate`] reads it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Purged {
    tenant_id: String,
    pub(crate) entries: u64,
}

/// `POST /api/v1/admin/tenants/{tenant}/purge`: erases all that the ledger has of a tenant. It is in the audit log before it is
/// done.
pub(super) async fn purge(
    State(shared): State<Arc<Shared>>,
    tenant: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    request: Result<Option<Json<Reason>>, JsonRejection>,
) -> Result<Json<Purged>, Problem> {
    let Path(tenant) = tenant?;
    check_tenant("tenant", &tenant)?;
    let Reason { reason } = request?.map(|Json(request)| request).unwrap_or_default();
    shared.record(PURGE, &tenant, &headers, reason).await?;
    let entries = shared.ledger.purge(&tenant).await?;
    Ok(Json(Purged { tenant_id: tenant, entries }))
}
