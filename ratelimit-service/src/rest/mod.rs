//! REST: usage, limits, health and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::ledger::Ledger;
use crate::limiter::Limiter;

struct Shared {
    limiter: Arc<Limiter>,
    ledger: Arc<dyn Ledger>,
    registry: Registry,
}

/// All routes.
pub fn router(limiter: Arc<Limiter>, ledger: Arc<dyn Ledger>, registry: Registry) -> Router {
    Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(Arc::new(Shared {
        limiter,
        ledger,
        registry,
    }))
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let (code, status) = match shared.ledger.ping().await {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(error) => {
            tracing::error!(%error, "the ledger does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer")
        }
    };
    (code, axum::Json(json!({ "status": status, "version": env!("CARGO_PKG_VERSION") }))).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
