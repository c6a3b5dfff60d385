//! Keys of the API: made, shown once, revoked.

use std::borrow::Cow;
use std::collections::HashMap;
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
use super::{Shown, answer, answered, delete, not_found, random};
use crate::accounts::{Accounts, ApiKey, KeyRole, NewKey, Record};
use crate::clock;
use crate::rest::access::Caller;
use crate::rest::body;
use crate::rest::listing::ListQuery;
use crate::rest::openapi::{Asked, Changed, Found, Sent};
use crate::rest::problem::{Body, CONTENT_TYPE, Problem};
use crate::rest::{Shared, rfc3339};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list_keys, create)).routes(routes!(get_key, delete_key)).routes(routes!(revoke))
}

/// Without its type's parameter, which the attributes below would describe in a way of its own.
type ShownKey = Shown<ApiKey>;

/// A key, and when it was used last, to within a minute.
#[derive(Debug, Serialize)]
struct SeenKey {
    #[serde(flatten)]
    record: ShownKey,
    last_used_at: Option<String>,
}

/// The record, and its last use.
impl PartialSchema for SeenKey {
    fn schema() -> RefOr<Schema> {
        described::beside::<ShownKey>([("last_used_at", Option::<String>::schema())])
    }
}

impl ToSchema for SeenKey {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ApiKey::schemas(schemas);
    }
}

/// Some keys, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
struct SeenKeys {
    items: Vec<SeenKey>,
    /// For `cursor`, where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Keys in the order of their ids, with their last uses.
async fn seen(accounts: &Accounts, records: Vec<Record<ApiKey>>) -> Result<Vec<SeenKey>, Problem> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(Vec::new()) };
    let uses: HashMap<_, _> = accounts.last_uses(&first.id, &last.id).await?.into_iter().collect();
    let seen = records.into_iter().map(|record| {
        let last_used_at = uses.get(&record.id).copied().map(rfc3339);
        SeenKey { record: record.into(), last_used_at }
    });
    Ok(seen.collect())
}

/// All keys, in the order of their ids
#[utoipa::path(get, path = "/api/v1/keys", tag = "accounts", params(ListQuery), responses(
    (status = 200, body = SeenKeys, description = "A page"), Asked))]
async fn list_keys(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<SeenKeys>, Problem> {
    let Query(query) = query?;
    let (records, next_cursor) = query.read::<ApiKey>(&caller, &shared.accounts).await?;
    let items = seen(&caller.accounts(&shared.accounts), records).await?;
    Ok(Json(SeenKeys { items, next_cursor }))
}

/// One key
#[utoipa::path(get, path = "/api/v1/keys/{id}", tag = "accounts", params(Id), responses(
    (status = 200, body = SeenKey, description = "It"),
    Found, Asked))]
async fn get_key(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let accounts = caller.accounts(&shared.accounts);
    let record = accounts.get::<ApiKey>(&id).await?.ok_or_else(|| not_found::<ApiKey>(&id))?;
    let version = record.version;
    let key = seen(&accounts, vec![record]).await?.pop();
    Ok(answered(StatusCode::OK, version, key))
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
    caller.check_expiry(expires_at_ms)?;
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
