//! REST: usage, limits, health and metrics. The shapes are in the README; every error is a `problem+json`.

mod access;
mod admin;
mod books;
mod limits;
mod problem;
mod records;
mod series;
mod track;
mod usage;
mod usage_fields;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use crate::accounts::Accounts;
use crate::audit::Audit;
use crate::clock::rfc3339;
use crate::collector::{self, Collector};
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::reload::Status;
pub use access::{GUESSING_MS, Guesses, MAX_GUESSING, MAX_WRONG_KEYS, OpenTo};
pub(crate) use books::{Purged, Reconciled};
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
    /// Who changed what.
    pub audit: Arc<dyn Audit>,
    /// The configuration in force.
    pub config: Arc<Status>,
    /// Takes what is to be billed.
    pub collector: Collector,
    /// Metrics.
    pub registries: [Registry; 2],
    /// Who needs no key.
    pub open_to: OpenTo,
    /// Who has shown wrong keys.
    pub guesses: Guesses,
}

/// All routes.
pub fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/admin/reconcile", get(books::reconcile))
        .route("/api/v1/admin/tenants/{tenant}/purge", post(books::purge))
        .route("/v1/logs", collector::http::route(shared.collector.clone()))
        .route("/api/v1/track", post(track::track).layer(DefaultBodyLimit::max(track::MAX_BODY_BYTES)))
        .route("/api/v1/admin/events", post(track::replay).layer(DefaultBodyLimit::max(track::MAX_BODY_BYTES)))
        .route("/api/v1/usage/check", post(limits::check))
        .route("/api/v1/usage/{tenant}", get(usage::summary))
        .route("/api/v1/usage/{tenant}/daily", get(usage::daily))
        .route("/api/v1/usage/{tenant}/series", get(series::series))
        .route("/api/v1/usage/{tenant}/breakdown", get(series::breakdown))
        .route("/api/v1/usage/{tenant}/tracked", get(series::tracked))
        .route("/api/v1/usage/{tenant}/limit", get(limits::standings))
        .route("/api/v1/admin/tenants/{tenant}/reset", post(admin::reset))
        .route("/api/v1/admin/audit", get(admin::audit))
        .merge(records::routes())
        .route_layer(middleware::from_fn_with_state(shared.clone(), access::admit))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    // Calls are decided and events taken without it: there is no reason to restart us.
    let status = match shared.ledger.ping().await {
        Ok(()) => "ok",
        Err(error) => {
            tracing::error!(%error, "the ledger does not answer");
            "the ledger does not answer"
        }
    };
    let config = shared.config.get();
    let config = json!({
        "loaded_at": rfc3339(config.loaded_at_ms),
        "error": config.error,
        "restart_needed": config.restart_needed,
    });
    Json(json!({ "status": status, "version": env!("CARGO_PKG_VERSION"), "config": config }))
}

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

/// Refuses what no tenant is called.
fn check_tenant(key: &str, tenant: &str) -> Result<(), Problem> {
    match tenant.len() {
        0 => Err(Problem::bad_request(format!("{key}: is empty"))),
        1..=MAX_NAME_BYTES => Ok(()),
        bytes => Err(Problem::bad_request(format!("{key}: {bytes} bytes; a name has {MAX_NAME_BYTES} at most"))),
    }
}
