//! Who asks, and whether they may: keys of operators and tenants.
//!
//! - A tenant's key sees that tenant alone. What a route is about is told by its path; routes whose bodies name a tenant ask
//!   [`Caller::check_tenant`].
//! - A route that is not known here is the operator's.
//! - Who shows a wrong key too often is refused for a while, whatever they show then.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Deserialize;

use super::Shared;
use super::admin::ACTOR_HEADER;
use super::problem::Problem;
use crate::accounts::{Accounts, ApiKey, KeyRole};
use crate::clock;

/// So many wrong keys within [`GUESSING_MS`] are too many, of one address.
pub const MAX_WRONG_KEYS: u32 = 20;
/// How long wrong keys are remembered, in milliseconds: a minute.
pub const GUESSING_MS: u64 = 60_000;
/// The most addresses of which wrong keys are remembered; beyond, the oldest are forgotten.
pub const MAX_GUESSING: usize = 10_000;

/// Who needs no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// Who connects from this machine: they are operators. Whatever forwards to here has to be elsewhere, then.
    #[default]
    Loopback,
    /// Everybody needs one.
    Nobody,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name under which the audit log knows them.
    pub(super) actor: String,
    tenant: Option<String>,
    role: KeyRole,
    scopes: Vec<String>,
    /// When their key expires, milliseconds since the Unix epoch.
    until_ms: Option<u64>,
}

impl Caller {
    /// Whose records they see; `None`: everybody's.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The accounts, as far as they may see them.
    pub(super) fn accounts(&self, accounts: &Accounts) -> Accounts {
        match &self.tenant {
            Some(tenant) => accounts.for_tenant(tenant),
            None => accounts.clone(),
        }
    }

    /// Whether they may ask about this tenant.
    pub(super) fn check_tenant(&self, tenant: &str) -> Result<(), Problem> {
        match &self.tenant {
            Some(own) if own != tenant => Err(forbidden(format!("this key is `{own}`'s, and sees nothing of others"))),
            _ => Ok(()),
        }
    }

    /// Whether they may do what only operators may.
    pub(super) fn check_operator(&self) -> Result<(), Problem> {
        match &self.tenant {
            Some(own) => Err(forbidden(format!("this key is `{own}`'s; only an operator's may do that"))),
            None => Ok(()),
        }
    }

    /// Whether they may make a key of these scopes: no key makes one that may do more.
    pub(super) fn check_scopes(&self, scopes: &[String]) -> Result<(), Problem> {
        let is_within = !scopes.is_empty() && scopes.iter().all(|scope| self.scopes.contains(scope));
        match self.scopes.is_empty() || is_within {
            true => Ok(()),
            false => Err(forbidden(format!(
                "scopes: this key has {} alone, and makes none with others",
                self.scopes.join(", ")
            ))),
        }
    }

    /// Whether they may make a key that is good until then: no key makes one that outlasts it.
    pub(super) fn check_expiry(&self, expires_at_ms: Option<u64>) -> Result<(), Problem> {
        match self.until_ms {
            Some(until_ms) if expires_at_ms.is_none_or(|at_ms| at_ms > until_ms) => Err(forbidden(format!(
                "expires_at_ms: this key expires at {until_ms}, and makes none that is good for longer"
            ))),
            _ => Ok(()),
        }
    }

    fn check(&self, need: &Need<'_>) -> Result<(), Problem> {
        match need.whose {
            Whose::Operators => self.check_operator()?,
            Whose::Tenant(tenant) => self.check_tenant(tenant)?,
            Whose::TheirOwn => {}
        }
        if need.action == Action::Change && self.role == KeyRole::Viewer {
            return Err(forbidden("this key may read, and change nothing".to_owned()));
        }
        if !self.scopes.is_empty() && self.scopes.iter().all(|scope| scope != need.scope) {
            let scopes = self.scopes.join(", ");
            return Err(forbidden(format!("this is for keys of the scope `{}`; this one has {scopes}", need.scope)));
        }
        Ok(())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody has asked who this is"))
    }
}

/// What a request needs its caller to be.
#[derive(Debug, PartialEq, Eq)]
struct Need<'a> {
    whose: Whose<'a>,
    action: Action,
    /// The part of the API, as keys' scopes name it.
    scope: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
enum Whose<'a> {
    Operators,
    Tenant(&'a str),
    /// Whatever they see: the route itself keeps to that.
    TheirOwn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Read,
    Change,
}

/// The parts of the API that answer everybody.
const PUBLIC: [&str; 3] = ["/health", "/openapi.json", "/docs"];

/// What tenants may ask for whose path names no tenant: `true` where they may change it too.
const OWN: [(&str, bool); 10] = [
    ("/api/v1/usage/check", true),
    ("/api/v1/track", true),
    ("/api/v1/tenants", false),
    ("/api/v1/budgets", false),
    ("/api/v1/limit-overrides", false),
    ("/api/v1/keys", true),
    ("/api/v1/webhooks", true),
    ("/api/v1/invoices", false),
    ("/api/v1/prices", false),
    ("/api/v1/cost", true),
];

/// What `path`, the route's pattern, needs; `None`: nothing.
fn need<'a>(method: &Method, path: &'a str, tenant: Option<&'a str>) -> Option<Need<'a>> {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if PUBLIC.into_iter().any(is_below) {
        return None;
    }
    // Questions that are too long for a URL change nothing.
    let asks =
        matches!(*method, Method::GET | Method::HEAD) || is_below("/api/v1/usage/check") || is_below("/api/v1/cost");
    let action = if asks { Action::Read } else { Action::Change };
    let whose = match OWN.into_iter().find(|(root, _)| is_below(root)) {
        Some((_, may_change)) if may_change || action == Action::Read => Whose::TheirOwn,
        Some(_) => Whose::Operators,
        None => match tenant.filter(|_| is_below("/api/v1/usage")) {
            Some(tenant) => Whose::Tenant(tenant),
            None => Whose::Operators,
        },
    };
    let scope = path.strip_prefix("/api/v1/").unwrap_or(path.trim_start_matches('/'));
    Some(Need { whose, action, scope: scope.split('/').next().unwrap_or_default() })
}

/// Wrong keys, by the address that they came from.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<HashMap<IpAddr, (u64, u32)>>);

impl Guesses {
    fn are_too_many(&self, of: IpAddr, now_ms: u64) -> bool {
        let guesses = self.0.lock();
        let recent = guesses.get(&of).filter(|(since_ms, _)| now_ms.saturating_sub(*since_ms) < GUESSING_MS);
        recent.is_some_and(|(_, wrong)| *wrong >= MAX_WRONG_KEYS)
    }

    fn note(&self, of: IpAddr, now_ms: u64) {
        let mut guesses = self.0.lock();
        if guesses.len() >= MAX_GUESSING {
            guesses.retain(|_, (since_ms, _)| now_ms.saturating_sub(*since_ms) < GUESSING_MS);
        }
        if guesses.len() >= MAX_GUESSING {
            let oldest = guesses.iter().min_by_key(|(_, (since_ms, _))| *since_ms).map(|(address, _)| *address);
            oldest.map(|address| guesses.remove(&address));
        }
        let (since_ms, wrong) = guesses.entry(of).or_insert((now_ms, 0));
        if now_ms.saturating_sub(*since_ms) >= GUESSING_MS {
            (*since_ms, *wrong) = (now_ms, 0);
        }
        *wrong = wrong.saturating_add(1);
    }
}

/// Lets a request through whose caller may make it.
pub(super) async fn admit(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Option<MatchedPath>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let tenant = params.iter().flatten().find(|(name, _)| *name == "tenant").map(|(_, tenant)| tenant.to_owned());
    // What no route serves is told so to everybody.
    let Some(path) = path else { return next.run(request).await };
    let Some(need) = need(request.method(), path.as_str(), tenant.as_deref()) else { return next.run(request).await };
    let caller =
        match shared.caller(peer, request.headers()).await.and_then(|caller| caller.check(&need).map(|()| caller)) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
    match HeaderValue::from_str(&caller.actor) {
        Ok(actor) => drop(request.headers_mut().insert(ACTOR_HEADER, actor)),
        Err(error) => return Problem::bad_request(error.to_string()).into_response(),
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

impl Shared {
    async fn caller(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some(shown) = headers.get(header::AUTHORIZATION) else {
            return match self.open_to {
                OpenTo::Loopback if peer.ip().to_canonical().is_loopback() => {
                    let actor = super::admin::actor(headers)?;
                    Ok(Caller { actor, tenant: None, role: KeyRole::Admin, scopes: Vec::new(), until_ms: None })
                }
                _ => Err(unauthorized("a key is needed: Authorization: Bearer tg_…".to_owned())),
            };
        };
        let now_ms = clock::now_ms();
        if self.guesses.are_too_many(peer.ip(), now_ms) {
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong keys; wait a minute");
            return Err(problem.retry_after(GUESSING_MS / 1000));
        }
        let key = shown.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
        let key = key.ok_or_else(|| unauthorized("Authorization: a key is shown as `Bearer tg_…`".to_owned()))?;
        let record = self.accounts.authenticate(key, now_ms).await?.map_err(|refused| {
            self.guesses.note(peer.ip(), now_ms);
            unauthorized(refused.to_string())
        })?;
        if let Err(error) = self.accounts.note_use(&record.id, now_ms).await {
            tracing::warn!(%error, key = record.id, "the use of a key was not noted");
        }
        let ApiKey { tenant, role, scopes, expires_at_ms, .. } = record.value;
        Ok(Caller { actor: record.id, tenant, role, scopes, until_ms: expires_at_ms })
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

fn unauthorized(detail: String) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail).challenge()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_the_operators() {
        let whose =
            |method, path, tenant| need(&method, path, tenant).map(|need| (need.whose, need.action, need.scope));
        assert_eq!(whose(Method::GET, "/health", None), None);
        let own = |action, scope| Some((Whose::TheirOwn, action, scope));
        let operators = |action, scope| Some((Whose::Operators, action, scope));
        assert_eq!(whose(Method::POST, "/api/v1/usage/check", None), own(Action::Read, "usage"));
        assert_eq!(whose(Method::GET, "/api/v1/budgets/{id}", None), own(Action::Read, "budgets"));
        assert_eq!(whose(Method::PUT, "/api/v1/budgets/{id}", None), operators(Action::Change, "budgets"));
        assert_eq!(whose(Method::POST, "/api/v1/keys", None), own(Action::Change, "keys"));
        let test = "/api/v1/webhooks/{id}/test";
        assert_eq!(whose(Method::POST, test, None), own(Action::Change, "webhooks"));
        assert_eq!(whose(Method::GET, "/api/v1/plans", None), operators(Action::Read, "plans"));
        assert_eq!(whose(Method::GET, "/metrics", None), operators(Action::Read, "metrics"));
        assert_eq!(whose(Method::GET, "/api/v1/tenantsx", None), operators(Action::Read, "tenantsx"));
        let of_acme = Some((Whose::Tenant("acme"), Action::Read, "usage"));
        assert_eq!(whose(Method::GET, "/api/v1/usage/{tenant}/daily", Some("acme")), of_acme);
        let reset = "/api/v1/admin/tenants/{tenant}/reset";
        assert_eq!(whose(Method::POST, reset, Some("acme")), operators(Action::Change, "admin"));
    }

    #[test]
    fn who_guesses_waits() {
        let (guesses, [eve, bob]) = (Guesses::default(), [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from));
        for _ in 0..MAX_WRONG_KEYS {
            assert!(!guesses.are_too_many(eve, 5));
            guesses.note(eve, 5);
        }
        assert!(guesses.are_too_many(eve, 5) && !guesses.are_too_many(bob, 5));
        assert!(!guesses.are_too_many(eve, 5 + GUESSING_MS));
        for address in 0..MAX_GUESSING as u32 + 10 {
            guesses.note(IpAddr::from(address.to_be_bytes()), 100);
        }
        assert_eq!(guesses.0.lock().len(), MAX_GUESSING);
    }
}
