//! Keys of the API: made, shown once, revoked.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Shown, answer, body_of, delete, list, not_found, read};
use crate::accounts::{ApiKey, KEY_RANDOM_BYTES, KeyRole, NewKey};
use crate::clock;
use crate::rest::Shared;
use crate::rest::access::Caller;
use crate::rest::problem::Problem;

const PATH: &str = "/api/v1/keys";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(PATH, get(list::<ApiKey>).post(create))
        .route(&format!("{PATH}/{{id}}"), get(read::<ApiKey>).delete(delete::<ApiKey>))
        .route(&format!("{PATH}/{{id}}/revoke"), post(revoke))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Whose; the caller's own, unless said. `None` for an operator's.
    tenant: Option<String>,
    name: String,
    #[serde(default = "viewer")]
    role: KeyRole,
    #[serde(default)]
    scopes: Vec<String>,
    expires_at_ms: Option<u64>,
}

fn viewer() -> KeyRole {
    KeyRole::Viewer
}

/// A key, whole: it is never shown again.
#[derive(Debug, Serialize)]
struct Made {
    key: String,
    #[serde(flatten)]
    record: Shown<ApiKey>,
}

/// `POST /api/v1/keys`
async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Wanted { tenant, name, role, scopes, expires_at_ms } = body_of(&headers, &body?)?;
    caller.check_scopes(&scopes)?;
    let mut random = [0; KEY_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "there are no random numbers for a key");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there are no random numbers for a key; try again later")
    })?;
    let NewKey { id, text, hash } = NewKey::new(random);
    let tenant = tenant.or_else(|| caller.tenant().map(str::to_owned));
    let key = ApiKey { tenant, name, role, scopes, expires_at_ms, revoked_at_ms: None, hash };
    let record = caller.accounts(&shared.accounts).create(&caller.by(), &id, key).await?;
    let made = Made { key: text.expose().to_owned(), record: record.into() };
    // Nothing between here and there is to keep it.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// `POST /api/v1/keys/{id}/revoke`: from now on it is refused, for good.
async fn revoke(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let accounts = caller.accounts(&shared.accounts);
    let record = accounts.get::<ApiKey>(&id).await?.ok_or_else(|| not_found::<ApiKey>(&id))?;
    if record.value.revoked_at_ms.is_some() {
        return Ok(answer(StatusCode::OK, record));
    }
    let revoked = ApiKey { revoked_at_ms: Some(clock::now_ms()), ..record.value };
    Ok(answer(StatusCode::OK, accounts.update(&caller.by(), &id, record.version, revoked).await?))
}
