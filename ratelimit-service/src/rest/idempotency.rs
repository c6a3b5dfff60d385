//! Requests that come again: what changes something is done once under an idempotency key, and answered the same
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
//!
//! - A key is its caller's: that of the API's key, or without one of whoever `x-tollgate-actor` names.
//! - What was begun is brought to its end though its client leaves, so that there is an answer for when it comes again.
//! - An answer of which nothing may be kept, for it has a secret, is not: that it was given is.
//! - What failed, and may be tried again, is not kept either.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequest, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::response;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, Required};

use super::Shared;
use super::access::Caller;
use super::openapi::{self, refusal};
use super::problem::Problem;
use crate::accounts::{Accounts, Answer, Begun, MAX_ANSWER_BYTES};
use crate::clock;

/// The header that names a request.
pub(super) const HEADER: &str = "idempotency-key";

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// Says of an answer that it was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// When a request that is under way may be asked for again, in seconds.
const UNDER_WAY_S: u64 = 1;

/// The headers that are kept of an answer.
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::CACHE_CONTROL];

/// What takes the header in a way of its own, or changes nothing.
const OTHERS: [&str; 4] = ["/api/v1/track", "/api/v1/admin/events", "/api/v1/usage/check", "/api/v1/cost"];

/// Whether requests of a route are done once.
fn is_done_once(method: &Method, path: &str) -> bool {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    changes && is_below("/api/v1") && !OTHERS.into_iter().any(is_below)
}

/// The key that the header names, in quotes as a structured field has it, or without.
///
/// # Errors
/// When there are several, or it has more than `most` bytes.
pub(super) fn key(headers: &HeaderMap, most: usize) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let refused = || Problem::bad_request(format!("{HEADER}: one text of 1 to {most} characters"));
    let text = key.to_str().ok().map(|key| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key));
    let text = text.filter(|text| (1..=most).contains(&text.len()) && keys.next().is_none());
    text.map(|text| Some(text.to_owned())).ok_or_else(refused)
}

/// What is kept of an answer, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    /// All of it.
    Whole { headers: Vec<(String, String)>, body: String },
    /// That it was given, and what it was about.
    Secret { id: Option<String> },
}

/// What an answer says that nothing of may be kept.
#[derive(Deserialize)]
struct About {
    id: Option<String>,
}

impl Kept {
    /// `None`: it may be tried again, or it is too long.
    fn of(parts: &response::Parts, body: &[u8]) -> Option<Answer> {
        if parts.status.is_server_error() || parts.headers.contains_key(header::RETRY_AFTER) {
            return None;
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let is_secret = parts.headers.get(header::CACHE_CONTROL).is_some_and(|control| control == "no-store");
        let kept = match is_secret {
            true => Kept::Secret { id: serde_json::from_slice(body).ok().and_then(|About { id }| id) },
            false => Kept::Whole {
                headers: KEPT_HEADERS
                    .iter()
                    .filter_map(|name| Some((name.to_string(), text(parts.headers.get(name)?)?)))
                    .collect(),
                body: String::from_utf8(body.to_vec()).ok()?,
            },
        };
        let body = serde_json::to_string(&kept).ok().filter(|body| body.len() <= MAX_ANSWER_BYTES)?;
        Some(Answer { status: parts.status.as_u16(), body })
    }

    /// The answer, again.
    fn again(Answer { status, body }: &Answer) -> Option<Response> {
        let status = StatusCode::from_u16(*status).ok()?;
        let (headers, body) = match serde_json::from_str(body).ok()? {
            Kept::Whole { headers, body } => (headers, body),
            Kept::Secret { id } => {
                let about = id.map(|id| format!(", `{id}`")).unwrap_or_default();
                let what = format!(
                    "{HEADER}: this was done{about}, and its answer has a secret that is shown once; if it was lost, take \
                     that back, and ask under another key"
                );
                return Some(Problem::new(StatusCode::CONFLICT, what).into_response());
            }
        };
        let mut response = (status, body).into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in headers {
            response.headers_mut().insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Some(response)
    }
}

/// What tells a request from others under the same key.
fn fingerprint(caller: &Caller, parts: &Parts, body: &[u8]) -> String {
    let header = |name| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let (if_match, content_type) = (header(header::IF_MATCH), header(header::CONTENT_TYPE));
    let target = parts.uri.path_and_query().map(|target| target.as_str()).unwrap_or_default();
    // Whose it is, too: one who may see less is given no answer that was somebody else's.
    let tenant = caller.tenant().unwrap_or_default();
    let mut context = Context::new(&SHA256);
    let (tenant, method, target) = (tenant.as_bytes(), parts.method.as_str().as_bytes(), target.as_bytes());
    for part in [tenant, method, target, if_match, content_type, body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    BASE64_STANDARD.encode(context.finish())
}

/// Does what a request asks once, where it has a key.
pub(super) async fn once(
    State(shared): State<Arc<Shared>>,
    caller: Option<Extension<Caller>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let is_meant = path.is_some_and(|path| is_done_once(request.method(), path.as_str()));
    let Some(Extension(caller)) = caller.filter(|_| is_meant) else { return Ok(next.run(request).await) };
    let Some(key) = key(request.headers(), MAX_KEY_BYTES)? else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let accounts = caller.accounts(&shared.accounts);
    let hash = fingerprint(&caller, &parts, &body);
    let request = Request::from_parts(parts, Body::from(body));
    // A client that leaves would take along what its connection's task does.
    let done = tokio::spawn(do_once(accounts, Named { actor: caller.actor, key, hash }, request, next)).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a request came to no end");
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request came to no end"))
    })
}

/// Which request it is.
struct Named {
    actor: String,
    key: String,
    hash: String,
}

async fn do_once(accounts: Accounts, named: Named, request: Request, next: Next) -> Result<Response, Problem> {
    let Named { actor, key, hash } = named;
    match accounts.begin_request(&actor, &key, &hash, clock::now_ms()).await? {
        Begun::New => {}
        Begun::UnderWay => {
            let what = format!("{HEADER}: the same request is under way");
            return Err(Problem::new(StatusCode::CONFLICT, what).retry_after(UNDER_WAY_S));
        }
        Begun::Other => {
            let what = format!("{HEADER}: another request was made under this key; a new one needs a new key");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what));
        }
        Begun::Done(answer) => {
            return Kept::again(&answer).ok_or_else(|| {
                tracing::error!(actor, "an answer that was kept cannot be read");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer that was kept cannot be read")
            });
        }
    }
    let (response, answer) = read(next.run(request).await).await;
    let kept = match answer {
        Some(answer) => accounts.complete_request(&actor, &key, &answer).await,
        None => accounts.abandon_request(&actor, &key).await,
    };
    if let Err(error) = kept {
        tracing::warn!(%error, actor, "an answer was not kept, and its request may be made again");
    }
    Ok(response)
}

/// An answer, and what is to be kept of it.
async fn read(response: Response) -> (Response, Option<Answer>) {
    let (parts, body) = response.into_parts();
    if body.size_hint().upper().is_none_or(|most| most > MAX_ANSWER_BYTES as u64) {
        return (Response::from_parts(parts, body), None);
    }
    match to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(body) => {
            let kept = Kept::of(&parts, &body);
            (Response::from_parts(parts, Body::from(body)), kept)
        }
        Err(error) => (Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(), None),
    }
}

/// Tells of the header, and what may come of it, where it is taken.
pub(super) fn describe(document: &mut OpenApi) {
    let reused = refusal("The body is of another shape, or the idempotency key was used for another request").build();
    let under_way =
        openapi::refusal_for_now("The same request is under way, or what it asks is not possible now").build();
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::POST, &mut item.post),
            (Method::PUT, &mut item.put),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation.as_mut().filter(|_| is_done_once(&method, path)) else { continue };
            operation.parameters.get_or_insert_default().push(parameter());
            openapi::refuse(operation, StatusCode::CONFLICT, &under_way);
            openapi::refuse(operation, StatusCode::UNPROCESSABLE_ENTITY, &reused);
        }
    }
}

fn parameter() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_KEY_BYTES));
    ParameterBuilder::new()
        .name(HEADER)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Does the request once, and for a day answers it the same when it comes again"))
        .schema(Some(text.pattern(Some("^[!-~]([ -~]*[!-~])?$")).build()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_is_done_once() {
        for (method, path, is_so) in [
            (Method::PUT, "/api/v1/plans/{id}", true),
            (Method::DELETE, "/api/v1/keys/{id}", true),
            (Method::POST, "/api/v1/keys", true),
            (Method::POST, "/api/v1/invoices/{id}/pay", true),
            (Method::POST, "/api/v1/admin/tenants/{tenant}/reset", true),
            (Method::GET, "/api/v1/plans/{id}", false),
            (Method::POST, "/api/v1/track", false),
            (Method::POST, "/api/v1/cost/compare", false),
            (Method::POST, "/v1/logs", false),
        ] {
            assert_eq!(is_done_once(&method, path), is_so, "{method} {path}");
        }
    }

    fn kept(status: StatusCode, headers: &[(HeaderName, &'static str)], body: &str) -> Option<Answer> {
        let mut response = (status, body.to_owned()).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Kept::of(&response.into_parts().0, body.as_bytes())
    }

    #[test]
    fn what_may_be_tried_again_is_not_kept_nor_is_what_is_too_long() {
        assert!(kept(StatusCode::CONFLICT, &[], "{}").is_some());
        assert_eq!(kept(StatusCode::SERVICE_UNAVAILABLE, &[], "{}"), None);
        assert_eq!(kept(StatusCode::CONFLICT, &[(header::RETRY_AFTER, "5")], "{}"), None);
        assert_eq!(kept(StatusCode::OK, &[], &"x".repeat(MAX_ANSWER_BYTES)), None);
    }

    #[test]
    fn nothing_of_a_secret_is_kept() {
        let secret = [(header::CACHE_CONTROL, "no-store")];
        for (body, id) in [(r#"{"key":"tg_s3cret","id":"tg_1"}"#, "`tg_1`"), ("s3cret", "done, and")] {
            let answer = kept(StatusCode::CREATED, &secret, body).unwrap();
            assert!(!answer.body.contains("s3cret"), "{answer:?}");
            let again = Kept::again(&answer).unwrap();
            assert_eq!((again.status(), again.headers().get(REPLAYED)), (StatusCode::CONFLICT, None), "{id}");
        }
    }
}
