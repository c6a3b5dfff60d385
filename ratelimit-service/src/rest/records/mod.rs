//! Tenants, plans, limits, budgets and prices: each kind is listed, read, put and deleted by the same few handlers. Keys and
//! webhooks, of which not all may be shown, have their own.
//!
//! A record's version is its ETag. To change or delete one names the version that was read (`If-Match`); to put one without that
//! makes it, and is refused where there is one.

mod described;
mod keys;
mod webhooks;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::access::Caller;
use super::body;
use super::listing::ListQuery;
use super::problem::Problem;
use super::{Shared, rfc3339};
use crate::accounts::{Budget, By, Kind, LimitOverrides, Plan, PriceRow, Record, Tenant};
use crate::billing::Agreement;
use crate::clock;
use crate::config;
use crate::limiter::Policy;

/// A kind of record that the API has.
pub(super) trait Resource: Kind {
    /// Where it lies.
    const PATH: &'static str;

    /// Refuses what no field can know alone.
    fn check_with(&self, _policy: &Policy) -> Result<(), Problem> {
        Ok(())
    }
}

impl Resource for Tenant {
    const PATH: &'static str = "/api/v1/tenants";

    fn check_with(&self, policy: &Policy) -> Result<(), Problem> {
        if let Some(tier) = self.tier.as_ref().filter(|tier| !policy.plans.has(tier)) {
            return Err(Problem::bad_request(format!("tier: no plan is called `{tier}`")));
        }
        let unknown = |_| Problem::bad_request(format!("time_zone: `{}` is not known", self.time_zone));
        jiff::tz::TimeZone::get(&self.time_zone).map(drop).map_err(unknown)
    }
}

impl Resource for Plan {
    const PATH: &'static str = "/api/v1/plans";

    fn check_with(&self, _: &Policy) -> Result<(), Problem> {
        check_limits(self.limits.text())?;
        let wrong = |error| Problem::bad_request(format!("billing: {error}"));
        Agreement::read(self.billing.text()).map(drop).map_err(wrong)
    }
}

impl Resource for LimitOverrides {
    const PATH: &'static str = "/api/v1/limit-overrides";

    fn check_with(&self, _: &Policy) -> Result<(), Problem> {
        check_limits(self.limits.text())
    }
}

impl Resource for Budget {
    const PATH: &'static str = "/api/v1/budgets";
}

impl Resource for PriceRow {
    const PATH: &'static str = "/api/v1/price-rows";

    fn check_with(&self, _: &Policy) -> Result<(), Problem> {
        let document = self.price.read().map_err(|error| Problem::bad_request(format!("price: {error}")))?;
        config::price_from_json(document).map(drop).map_err(|what| Problem::bad_request(format!("price: {what}")))
    }
}

fn check_limits(json: &str) -> Result<(), Problem> {
    config::limits(json).map(drop).map_err(|what| Problem::bad_request(format!("limits{what}")))
}

/// The routes of all kinds.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .merge(of::<Tenant>())
        .merge(of::<Plan>())
        .merge(of::<LimitOverrides>())
        .merge(of::<Budget>())
        .merge(of::<PriceRow>())
        .merge(keys::routes())
        .merge(webhooks::routes())
}

fn of<T: Resource + ToSchema>() -> OpenApiRouter<Arc<Shared>> {
    let one = get(read::<T>).put(put::<T>).delete(delete::<T>);
    OpenApiRouter::with_openapi(described::of::<T>())
        .route(T::PATH, get(list::<T>))
        .route(&format!("{}/{{id}}", T::PATH), one)
}

/// A record, as it is shown.
#[derive(Debug, Serialize)]
struct Shown<T> {
    id: String,
    version: u64,
    created_at: String,
    updated_at: String,
    #[serde(flatten)]
    value: T,
}

impl<T> From<Record<T>> for Shown<T> {
    fn from(Record { id, version, created_at_ms, updated_at_ms, value }: Record<T>) -> Shown<T> {
        Shown { id, version, created_at: rfc3339(created_at_ms), updated_at: rfc3339(updated_at_ms), value }
    }
}

/// Some of a kind, in the order of their ids.
#[derive(Debug, Serialize)]
struct Listed<T> {
    items: Vec<Shown<T>>,
    /// For `cursor`, where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET …?tenant=&cursor=&limit=100`.
async fn list<T: Kind>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Listed<T>>, Problem> {
    let Query(query) = query?;
    let (records, next_cursor) = query.read::<T>(&caller, &shared.accounts).await?;
    Ok(Json(Listed { items: records.into_iter().map(Shown::from).collect(), next_cursor }))
}

/// `GET …/{id}`
async fn read<T: Kind>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let record = caller.accounts(&shared.accounts).get::<T>(&id).await?;
    Ok(answer(StatusCode::OK, record.ok_or_else(|| not_found::<T>(&id))?))
}

/// `PUT …/{id}`, with `If-Match` to change it.
async fn put<T: Resource>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let value: T = body::object(&headers, &body?)?;
    value.check_with(&shared.limiter.policy())?;
    let (accounts, by) = (caller.accounts(&shared.accounts), caller.by());
    Ok(match version(&headers)? {
        Some(version) => answer(StatusCode::OK, accounts.update(&by, &id, version, value).await?),
        None => answer(StatusCode::CREATED, accounts.create(&by, &id, value).await?),
    })
}

/// `DELETE …/{id}`, with `If-Match`.
async fn delete<T: Kind>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    let version = expected(&headers)?;
    caller.accounts(&shared.accounts).delete::<T>(&caller.by(), &id, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Caller {
    fn by(&self) -> By<'_> {
        By { actor: &self.actor, at_ms: clock::now_ms() }
    }
}

/// A record with its version as the ETag.
fn answer<T: Serialize>(status: StatusCode, record: Record<T>) -> Response {
    answered(status, record.version, Shown::from(record))
}

fn answered(status: StatusCode, version: u64, shown: impl Serialize) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{version}\""));
    let mut response = (status, Json(shown)).into_response();
    if let Ok(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn not_found<T: Kind>(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {} `{id}`", T::NAME))
}

/// Random bytes for what is secret.
fn random<const BYTES: usize>() -> Result<[u8; BYTES], Problem> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "there are no random numbers for a secret");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there are no random numbers for a secret; try again later")
    })?;
    Ok(random)
}

/// The version in `If-Match`, which has to be there.
fn expected(headers: &HeaderMap) -> Result<u64, Problem> {
    version(headers)?.ok_or_else(|| {
        let what = "If-Match: name the version that is to change or go, as its ETag does";
        Problem::new(StatusCode::PRECONDITION_REQUIRED, what)
    })
}

/// The version in `If-Match`, if there is one.
fn version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(etag) = one(headers, header::IF_MATCH)? else { return Ok(None) };
    let version = etag.trim().trim_matches('"').parse();
    version.map(Some).map_err(|_| Problem::bad_request("If-Match: one version, as an ETag tells it: \"3\""))
}

fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    let wrong = || Problem::bad_request(format!("{name}: is there more than once, or is no text"));
    match (first.map(HeaderValue::to_str), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(wrong()),
    }
}
