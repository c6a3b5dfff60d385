//! REST: usage, limits, health and metrics. Every error is a `problem+json`.
//!
//! A route is described where it is handled, by `utoipa::path`, and is served only so; `openapi` has what all descriptions
//! have in common. Each module gives its `routes`, and `api` puts them together.

mod access;
mod admin;
mod body;
mod books;
mod clients;
mod cost;
mod idempotency;
mod invoices;
mod limits;
mod listing;
mod openapi;
mod prices;
mod problem;
mod rated;
mod records;
mod series;
mod tenant;
mod track;
mod usage;
mod usage_fields;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::Accounts;
use crate::audit::Audit;
use crate::billing::Billing;
use crate::clock::rfc3339;
use crate::collector::{self, Collector};
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::reload::Status;
use crate::webhooks::Webhooks;
pub use access::{GUESSING_MS, Guesses, MAX_GUESSING, MAX_WRONG_KEYS, OpenTo};
pub(crate) use books::{Purged, Reconciled};
pub use clients::{Clients, MAX_RATE, Rate};
use problem::Problem;

/// The largest request body that is read.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
pub struct Shared {
    /// Decides, and knows where tenants stand.
    pub limiter: Arc<Limiter>,
    /// What tenants used.
    pub ledger: Arc<dyn Ledger>,
    /// Tenants, plans, budgets, keys and invoices.
    pub accounts: Accounts,
    /// Makes invoices.
    pub billing: Arc<Billing>,
    /// Tells who is to be told.
    pub webhooks: Arc<Webhooks>,
    /// Who changed what.
    pub audit: Arc<dyn Audit>,
    /// The configuration in force.
    pub config: Arc<Status>,
    /// Takes what is to be billed.
    pub collector: Collector,
    /// Bounds how often each client asks.
    pub clients: Clients,
    /// Metrics.
    pub registries: [Registry; 2],
    /// Who needs no key.
    pub open_to: OpenTo,
    /// Who has shown wrong keys.
    pub guesses: Guesses,
}

impl FromRef<Arc<Shared>> for Collector {
    fn from_ref(shared: &Arc<Shared>) -> Collector {
        shared.collector.clone()
    }
}

/// All routes, and `/openapi.json` and `/docs` that tell of them.
pub fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    // What stands before the API alone stands here, and is told by `api`.
    let clients = middleware::from_fn_with_state(shared.clone(), clients::bound);
    let access = middleware::from_fn_with_state(shared.clone(), access::admit);
    let once = middleware::from_fn_with_state(shared.clone(), idempotency::once);
    let routes = service().layer(access.clone()).merge(api().layer(once).layer(access).layer(clients));
    let (routes, document) = routes.split_for_parts();
    routes
        .merge(openapi::routes(document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

/// What other machines ask for and send: nothing bounds how often.
fn service() -> OpenApiRouter<Arc<Shared>> {
    let routes = OpenApiRouter::with_openapi(openapi::head()).merge(collector::http::routes());
    routes.routes(routes!(health)).routes(routes!(metrics))
}

/// The API proper.
fn api() -> OpenApiRouter<Arc<Shared>> {
    let mut api = OpenApiRouter::new()
        .merge(usage::routes())
        .merge(series::routes())
        .merge(limits::routes())
        .merge(track::routes())
        .merge(books::routes())
        .merge(admin::routes())
        .merge(records::routes())
        .merge(invoices::routes())
        .merge(prices::routes())
        .merge(cost::routes());
    let too_many = openapi::refusal_for_now("This client asks too often").build();
    openapi::add_refusal(api.get_openapi_mut(), StatusCode::TOO_MANY_REQUESTS, &too_many);
    for (status, refusal) in openapi::without_right() {
        openapi::add_refusal(api.get_openapi_mut(), status, &refusal);
    }
    idempotency::describe(api.get_openapi_mut());
    api
}
/// Whether the service does its work.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, or what does not answer.
    status: &'static str,
    version: &'static str,
    config: ConfigHealth,
}

/// The configuration in force.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigHealth {
    #[schema(format = DateTime)]
    loaded_at: String,
    /// Why the file as it is now was not taken over.
    error: Option<String>,
    /// Keys that the file has changed, and that need a restart.
    restart_needed: Vec<&'static str>,
}

/// How the service is
///
/// Calls are decided and events taken without the ledger: the answer is 200 as long as there is one.
#[utoipa::path(get, path = "/health", tag = "service",
    responses((status = 200, body = Health, description = "It serves")))]
async fn health(State(shared): State<Arc<Shared>>) -> Json<Health> {
    // Calls are decided and events taken without it: there is no reason to restart us.
    let status = match shared.ledger.ping().await {
        Ok(()) => "ok",
        Err(error) => {
            tracing::error!(%error, "the ledger does not answer");
            "the ledger does not answer"
        }
    };
    let config = shared.config.get();
    let config = ConfigHealth {
        loaded_at: rfc3339(config.loaded_at_ms),
        error: config.error.clone(),
        restart_needed: config.restart_needed.clone(),
    };
    Json(Health { status, version: env!("CARGO_PKG_VERSION"), config })
}

/// All metrics, in OpenMetrics' text
#[utoipa::path(get, path = "/metrics", tag = "service", responses(
    (status = 200, body = String, content_type = OPEN_METRICS, description = "The metrics"),
    (status = 500, body = problem::Body, content_type = problem::CONTENT_TYPE, description = "They cannot be written"),
))]
async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let mut text = String::new();
    let failed = |error: std::fmt::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    for registry in &shared.registries {
        encode_registry(&mut text, registry).map_err(failed)?;
    }
    encode_eof(&mut text).map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

async fn unknown_route(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("nothing is served at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
