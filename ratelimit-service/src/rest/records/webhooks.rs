//! Webhooks of the accounts: made, listed, changed, deleted, tried out. Of where one is only the origin is shown, and its secret
//! once, when it is made.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::described::{Id, Version};
use super::{answered, delete, expected, not_found, random};
use crate::accounts::{MAX_URL_BYTES, Record, WebhookEndpoint};
use crate::chance;
use crate::clock;
use crate::http;
use crate::rest::access::Caller;
use crate::rest::body;
use crate::rest::listing::ListQuery;
use crate::rest::openapi::{Asked, Changed, Found, Sent, one_of};
use crate::rest::problem::{Body, CONTENT_TYPE, Problem};
use crate::rest::{Shared, rfc3339};
use crate::secret::Secret;
use crate::webhooks::{Event, MAX_AGREED, Recipient, SigningKey, Tried};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list_webhooks, create_webhook))
        .routes(routes!(get_webhook, change_webhook, delete_webhook))
        .routes(routes!(test_webhook))
}

/// A webhook, as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShownWebhook)]
struct Shown {
    id: String,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// Whose events alone it is told; `None`: everybody's.
    tenant: Option<String>,
    /// Of which it is told; none at all: of every one.
    event_kinds: Vec<String>,
    /// Where it is, without the path, which may be a secret.
    origin: String,
    allow_private_addresses: bool,
}

impl From<Record<WebhookEndpoint>> for Shown {
    fn from(Record { id, version, created_at_ms, updated_at_ms, value }: Record<WebhookEndpoint>) -> Shown {
        let WebhookEndpoint { tenant, event_kinds, url, allow_private_addresses, .. } = value;
        let origin = http::url(url.expose()).map_or_else(|_| String::new(), |url| http::origin(&url));
        let [created_at, updated_at] = [created_at_ms, updated_at_ms].map(rfc3339);
        Shown { id, version, created_at, updated_at, tenant, event_kinds, origin, allow_private_addresses }
    }
}

/// Some of them, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedWebhooks)]
struct Listed {
    items: Vec<Shown>,
    /// For `cursor`, where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// All webhooks of the accounts, in the order of their ids
#[utoipa::path(get, path = "/api/v1/webhooks", tag = "accounts", params(ListQuery), responses(
    (status = 200, body = Listed, description = "A page"), Asked))]
async fn list_webhooks(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Listed>, Problem> {
    let Query(query) = query?;
    let (records, next_cursor) = query.read::<WebhookEndpoint>(&caller, &shared.accounts).await?;
    Ok(Json(Listed { items: records.into_iter().map(Shown::from).collect(), next_cursor }))
}

/// One webhook
#[utoipa::path(get, path = "/api/v1/webhooks/{id}", tag = "accounts", params(Id), responses(
    (status = 200, body = Shown, description = "It"),
    Found, Asked))]
async fn get_webhook(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    Ok(answer(StatusCode::OK, find(&shared, &caller, &id).await?))
}

/// A webhook to be made. It shows nothing of itself: the URL and the secret are none of a log's.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewWebhook)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Whose events alone; the caller's own, unless said. `None`, of an operator: everybody's.
    tenant: Option<String>,
    /// Of which it is told; none at all: of every one.
    #[serde(default)]
    #[schema(schema_with = event_kinds)]
    event_kinds: Vec<String>,
    /// Where it is. Not shown again but for its origin.
    #[schema(schema_with = url)]
    url: String,
    /// What messages are signed with, as Standard Webhooks has it: `whsec_` and base64; made, unless given.
    secret: Option<String>,
    /// Whether it may be on this machine or a private network: an operator's alone.
    #[serde(default)]
    allow_private_addresses: bool,
}

fn event_kinds() -> Array {
    let items = one_of(Event::ASKED_FOR.map(Event::name));
    ArrayBuilder::new().items(items).unique_items(true).max_items(Some(Event::ASKED_FOR.len())).build()
}

fn url() -> Object {
    let url = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^https?://"));
    url.max_length(Some(MAX_URL_BYTES)).examples(["https://hooks.example/tollgate"]).build()
}

/// A webhook, with its secret: it is never shown again.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeWebhook)]
struct Made {
    secret: String,
    #[serde(flatten)]
    record: Shown,
}

/// Makes a webhook
///
/// Its secret is shown once, in this answer. It is told from within a second or so on.
#[utoipa::path(post, path = "/api/v1/webhooks", tag = "accounts", request_body = Wanted, responses(
    (status = 201, body = Made, description = "The webhook"),
    (status = 409, body = Body, content_type = CONTENT_TYPE, description = "There are as many as there may be"), Sent))]
async fn create_webhook(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Wanted { tenant, event_kinds, url, secret, allow_private_addresses } = body::object(&headers, &body?)?;
    let secret = match secret {
        Some(secret) => Secret::new(secret),
        None => SigningKey::secret(random()?),
    };
    let shown_once = secret.expose().to_owned();
    let tenant = tenant.or_else(|| caller.tenant().map(str::to_owned));
    let value = WebhookEndpoint { tenant, event_kinds, url: Secret::new(url), secret, allow_private_addresses };
    let id = format!("wh_{}", chance::id());
    check(&id, &value)?;
    if shared.webhooks.agreed() >= MAX_AGREED {
        let what = format!("there are {MAX_AGREED} webhooks already, and there may be no more: delete one first");
        return Err(Problem::new(StatusCode::CONFLICT, what));
    }
    let record = caller.accounts(&shared.accounts).create(&caller.by(), &id, value).await?;
    let made = Made { secret: shown_once, record: record.into() };
    // Nothing between here and there is to keep it.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// What is to change of a webhook. What is left out stays. It shows nothing of itself, as [`Wanted`].
#[derive(Deserialize, ToSchema)]
#[schema(as = WebhookChanges)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[schema(schema_with = event_kinds)]
    event_kinds: Option<Vec<String>>,
    #[schema(schema_with = url)]
    url: Option<String>,
    /// Messages are signed with it from now on, and with the one before no more.
    secret: Option<String>,
    allow_private_addresses: Option<bool>,
}

/// Changes a webhook
///
/// What is left out stays as it is. One that has answered 410 is called again.
#[utoipa::path(patch, path = "/api/v1/webhooks/{id}", tag = "accounts", request_body = Changes,
    params(Id, Version), responses(
    (status = 200, body = Shown, description = "It was changed"),
    Changed, Sent))]
async fn change_webhook(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let Changes { event_kinds, url, secret, allow_private_addresses } = body::object(&headers, &body?)?;
    let version = expected(&headers)?;
    let mut value = find(&shared, &caller, &id).await?.value;
    value.event_kinds = event_kinds.unwrap_or(value.event_kinds);
    value.url = url.map_or(value.url, Secret::new);
    value.secret = secret.map_or(value.secret, Secret::new);
    value.allow_private_addresses = allow_private_addresses.unwrap_or(value.allow_private_addresses);
    check(&id, &value)?;
    let record = caller.accounts(&shared.accounts).update(&caller.by(), &id, version, value).await?;
    Ok(answer(StatusCode::OK, record))
}

/// Deletes a webhook
///
/// It is told nothing more, not even what waits for it.
#[utoipa::path(delete, path = "/api/v1/webhooks/{id}", tag = "accounts",
    params(Id, Version), responses(
    (status = 204, description = "It is gone"),
    Changed, Asked))]
async fn delete_webhook(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    delete::<WebhookEndpoint>(shared, caller, id, headers).await
}

/// A message that is on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestMessage)]
struct Sending {
    /// Its `webhook-id`.
    message_id: String,
}

/// Tries a webhook out
///
/// It is told `webhook.test`, by the way that all messages go, whatever it is told else.
#[utoipa::path(post, path = "/api/v1/webhooks/{id}/test", tag = "accounts", params(Id), responses(
    (status = 202, body = Sending, description = "A message is on its way"),
    Found,
    (status = 409, body = Body, content_type = CONTENT_TYPE, description = "It has answered 410"), Asked))]
async fn test_webhook(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Sending>), Problem> {
    let Path(id) = id?;
    find(&shared, &caller, &id).await?;
    let later = |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what).retry_after(RETRY_S);
    match shared.webhooks.try_out(&id).await? {
        Tried::Put(message_id) => Ok((StatusCode::ACCEPTED, Json(Sending { message_id }))),
        Tried::Disabled => {
            let what = "it has answered 410, and is not called any more: change it, or delete it and make another";
            Err(Problem::new(StatusCode::CONFLICT, what))
        }
        Tried::Full => Err(later("too many messages wait for it; try again later")),
        Tried::Unknown => Err(later("it is not gone by yet; try again later")),
    }
}

/// After so many seconds a message that could not be put in may be tried again.
const RETRY_S: u64 = 2;

async fn find(shared: &Shared, caller: &Caller, id: &str) -> Result<Record<WebhookEndpoint>, Problem> {
    let record = caller.accounts(&shared.accounts).get::<WebhookEndpoint>(id).await?;
    record.ok_or_else(|| not_found::<WebhookEndpoint>(id))
}

/// Refuses what could not be told.
fn check(id: &str, value: &WebhookEndpoint) -> Result<(), Problem> {
    let now_ms = clock::now_ms();
    let record =
        Record { id: id.to_owned(), version: 1, created_at_ms: now_ms, updated_at_ms: now_ms, value: value.clone() };
    Recipient::agreed(&record).map(drop).map_err(Problem::bad_request)
}

fn answer(status: StatusCode, record: Record<WebhookEndpoint>) -> Response {
    answered(status, record.version, Shown::from(record))
}
