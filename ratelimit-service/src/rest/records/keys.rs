//! Keys of the API: made, shown once, revoked.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::described::{self, Id, Version};
use super::{Listed, Shown, answer, delete, list, not_found, random, read};
use crate::accounts::{ApiKey, KeyRole, NewKey};
use crate::clock;
use crate::rest::Shared;
use crate::rest::access::Caller;
use crate::rest::body;
use crate::rest::listing::ListQuery;
use crate::rest::openapi::{Asked, Changed, Found, Sent};
use crate::rest::problem::{Body, CONTENT_TYPE, Problem};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list_keys, create)).routes(routes!(get_key, delete_key)).routes(routes!(revoke))
}

/// Without their types' parameters, which the attributes below would describe in a way of their own.
type ShownKey = Shown<ApiKey>;
type ListedKeys = Listed<ApiKey>;

/// All keys, in the order of their ids
#[utoipa::path(get, path = "/api/v1/keys", tag = "accounts", params(ListQuery), responses(
    (status = 200, body = ListedKeys, description = "A page"), Asked))]
async fn list_keys(
    shared: State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Listed<ApiKey>>, Problem> {
    list::<ApiKey>(shared, caller, query).await
}

/// One key
#[utoipa::path(get, path = "/api/v1/keys/{id}", tag = "accounts", params(Id), responses(
    (status = 200, body = ShownKey, description = "It"),
    Found, Asked))]
async fn get_key(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    read::<ApiKey>(shared, caller, id).await
}

/// Deletes a key
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "accounts", params(Id, Version), responses(
    (status = 204, description = "It is gone"),
    Changed, Asked))]
async fn delete_key(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    delete::<ApiKey>(shared, caller, id, headers).await
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewKey)]
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

/// The record, and the key.
impl PartialSchema for Made {
    fn schema() -> RefOr<Schema> {
        described::beside::<Shown<ApiKey>>([("key", String::schema())])
    }
}

impl ToSchema for Made {
    fn name() -> Cow<'static, str> {
        "MadeKey".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ApiKey::schemas(schemas);
    }
}

/// Makes a key
///
/// It is shown once, in this answer.
#[utoipa::path(post, path = "/api/v1/keys", tag = "accounts", request_body = Wanted, responses(
    (status = 201, body = Made, description = "The key"), Sent))]
async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Wanted { tenant, name, role, scopes, expires_at_ms } = body::object(&headers, &body?)?;
    caller.check_scopes(&scopes)?;
    let NewKey { id, text, hash } = NewKey::new(random()?);
    let tenant = tenant.or_else(|| caller.tenant().map(str::to_owned));
    let key = ApiKey { tenant, name, role, scopes, expires_at_ms, revoked_at_ms: None, hash };
    let record = caller.accounts(&shared.accounts).create(&caller.by(), &id, key).await?;
    let made = Made { key: text.expose().to_owned(), record: record.into() };
    // Nothing between here and there is to keep it.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Revokes a key
///
/// From now on it is refused, for good.
#[utoipa::path(post, path = "/api/v1/keys/{id}/revoke", tag = "accounts", params(Id), responses(
    (status = 200, body = ShownKey, description = "It"),
    Found,
    (status = 412, body = Body, content_type = CONTENT_TYPE, description = "It was changed meanwhile"), Asked))]
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
