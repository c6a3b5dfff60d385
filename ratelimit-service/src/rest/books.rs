//! What operators ask of the books: whether they agree, and to forget a tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tollgate_domain::{Period, Span};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::admin::{Actor, GivenReason, Reason, actor};
use super::openapi::{Asked, Sent};
use super::problem::Problem;
use super::tenant::Tenant;
use super::{Shared, rfc3339};
use crate::audit::PURGE;
use crate::clock;
use crate::period;
use crate::reconcile::{Books, Difference};

/// What operators ask of the books.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(reconcile)).routes(routes!(purge))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReconcileQuery {
    /// A month, or a day; the present month without.
    #[param(
        pattern = "^(19[7-9]|[2-9][0-9]{2})[0-9]-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$",
        example = "2026-11"
    )]
    period: Option<String>,
}

/// What came of comparing the books. [`crate::operate`] reads it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Reconciled {
    #[schema(format = DateTime)]
    period_start: String,
    #[schema(format = DateTime)]
    period_end: String,
    pub(crate) differences: Vec<Difference>,
}

/// Compare the ledger's sums with its entries, the counters with the ledger, and invoices with the entries
#[utoipa::path(get, path = "/api/v1/admin/reconcile", tag = "admin", params(ReconcileQuery),
    responses((status = 200, body = Reconciled, description = "Every difference"), Asked))]
async fn reconcile(
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
    let books = Books {
        ledger: shared.ledger.as_ref(),
        limiter: &shared.limiter,
        audit: shared.audit.as_ref(),
        billing: &shared.billing,
    };
    let differences = books.differences(from_ms, to_ms, now_ms).await.map_err(|error| {
        tracing::error!(%error, "the books cannot be compared");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the books cannot be compared: {error:#}"))
    })?;
    Ok(Json(Reconciled { period_start: rfc3339(from_ms), period_end: rfc3339(to_ms), differences }))
}

/// What was erased. [`crate::operate`] reads it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Purged {
    tenant_id: String,
    pub(crate) entries: u64,
}

/// Erase all that the ledger has of a tenant
///
/// It is in the audit log before it is done. Drafts of its invoices go too; invoices that are final stay.
#[utoipa::path(post, path = "/api/v1/admin/tenants/{tenant}/purge", tag = "admin", params(Tenant, Actor),
    request_body = Option<Reason>, responses((status = 200, body = Purged, description = "What was erased"), Sent))]
async fn purge(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    headers: HeaderMap,
    request: GivenReason,
) -> Result<Json<Purged>, Problem> {
    let Reason { reason } = request?.and_then(|Json(request)| request).unwrap_or_default();
    shared.record(PURGE, &tenant, &headers, reason).await?;
    let entries = shared.ledger.purge(&tenant).await?;
    shared.billing.forget_drafts(&actor(&headers)?, &tenant).await?;
    Ok(Json(Purged { tenant_id: tenant, entries }))
}
