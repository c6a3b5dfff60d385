//! How a tenant stands against its limits, and whether a call would be admitted.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tollgate_domain::{Action, Outcome, Plan, Standing, Unit, Window};

use super::problem::Problem;
use super::usage::{PeriodName, Summary};
use super::{Shared, rfc3339};
use crate::clock;
use crate::limiter::{Admission, Policy, Refusal, Undecided};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitQuery {
    plan_tier: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Limits {
    tenant_id: String,
    plan_tier: String,
    context_tokens: u64,
    limits: Vec<LimitFields>,
}

/// Amounts of cost are in US dollars.
#[derive(Debug, Serialize)]
struct LimitFields {
    name: String,
    unit: Unit,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    action: Action,
    capacity: Amount,
    burst: Amount,
    used: Amount,
    /// Of it, what calls in flight have reserved.
    reserved: Amount,
    remaining: Amount,
    reset_at: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Amount {
    Count(u64),
    Usd(f64),
}

impl Amount {
    fn new(unit: Unit, amount: u64) -> Amount {
        match unit {
            Unit::Cost => Amount::Usd(amount as f64 / 1e9),
            _ => Amount::Count(amount),
        }
    }
}

impl LimitFields {
    fn new(standing: &Standing<'_>, now_ms: u64) -> LimitFields {
        let limit = standing.limit;
        let amount = |amount| Amount::new(limit.unit, amount);
        LimitFields {
            name: limit.name().to_owned(),
            unit: limit.unit,
            window: limit.window,
            action: limit.action,
            capacity: amount(limit.capacity.get()),
            burst: amount(limit.burst.get()),
            used: amount(standing.used),
            reserved: amount(standing.held),
            remaining: amount(standing.remaining),
            reset_at: rfc3339(now_ms.saturating_add(standing.reset_ms.unwrap_or(0))),
        }
    }
}

/// `GET /api/v1/usage/{tenant}/limit?plan_tier=`
pub(super) async fn standings(
    State(shared): State<Arc<Shared>>,
    tenant: Result<Path<String>, PathRejection>,
    query: Result<Query<LimitQuery>, QueryRejection>,
) -> Result<Json<Limits>, Problem> {
    let Path(tenant) = tenant?;
    let Query(LimitQuery { plan_tier }) = query?;
    let policy = shared.limiter.policy();
    let plan = shared.named_plan(&policy, plan_tier.as_deref(), &tenant).await?;
    let limits = shared.limit_fields(&tenant, plan).await?;
    Ok(Json(Limits { tenant_id: tenant, plan_tier: plan.tier.clone(), context_tokens: plan.context_tokens, limits }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckRequest {
    tenant_id: String,
    plan_tier: Option<String>,
    #[serde(default)]
    estimated_tokens: u64,
}

#[derive(Debug, Serialize)]
struct CheckAnswer {
    allowed: bool,
    #[serde(flatten)]
    denial: Option<Denial>,
    #[serde(flatten)]
    month: Summary,
    context_tokens: u64,
    limits: Vec<LimitFields>,
}

/// Why a call would be denied.
#[derive(Debug, Serialize)]
struct Denial {
    reason: Reason,
    /// The limit's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    /// Where waiting helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

#[derive(Debug, Serialize)]
enum Reason {
    /// The prompt is too long for the plan's context.
    #[serde(rename = "context_length_exceeded")]
    ContextLength,
    /// Of a limit that is refilled continuously.
    #[serde(rename = "rate_limit_exceeded")]
    RateLimit,
    /// Of a day's or month's limit.
    #[serde(rename = "quota_exceeded")]
    Quota,
}

impl Denial {
    fn by(standing: &Standing<'_>) -> Denial {
        let limit = Some(standing.limit.to_string());
        match standing.limit.is_calendar() {
            true => Denial { reason: Reason::Quota, limit, retry_after_s: None },
            false => Denial {
                reason: Reason::RateLimit,
                limit,
                retry_after_s: standing.reset_ms.map(|reset_ms| reset_ms.div_ceil(1000)),
            },
        }
    }
}

/// `POST /api/v1/usage/check`: would a call be admitted now? Nothing is taken.
pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    request: Result<Json<CheckRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(CheckRequest { tenant_id, plan_tier, estimated_tokens }) = request?;
    if tenant_id.is_empty() {
        return Err(Problem::bad_request("tenant_id: is empty"));
    }
    let now_ms = clock::now_ms();
    let policy = shared.limiter.policy();
    let plan = shared.named_plan(&policy, plan_tier.as_deref(), &tenant_id).await?;
    let denial = shared.denial(&policy, &tenant_id, plan, estimated_tokens).await?;
    let limits = shared.limit_fields(&tenant_id, plan).await?;
    let month = Summary::read(&shared, tenant_id, plan, PeriodName::Month, now_ms).await?;

    let status = if denial.is_none() { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    let retry_after_s = denial.as_ref().and_then(|denial| denial.retry_after_s);
    let context_tokens = plan.context_tokens;
    let answer = CheckAnswer { allowed: denial.is_none(), denial, month, context_tokens, limits };
    let mut response = (status, Json(answer)).into_response();
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

impl Shared {
    async fn named_plan<'p>(&self, policy: &'p Policy, tier: Option<&str>, tenant: &str) -> Result<&'p Plan, Problem> {
        match tier {
            Some(_) => self.limiter.plan(policy, tenant, tier).map_err(Problem::from),
            None => self.last_plan(policy, tenant).await,
        }
    }

    async fn limit_fields(&self, tenant: &str, plan: &Plan) -> Result<Vec<LimitFields>, Problem> {
        let standings = self.limiter.standings(tenant, plan).await?;
        let now_ms = clock::now_ms();
        Ok(standings.iter().map(|standing| LimitFields::new(standing, now_ms)).collect())
    }

    async fn denial(
        &self,
        policy: &Policy,
        tenant: &str,
        plan: &Plan,
        estimated_tokens: u64,
    ) -> Result<Option<Denial>, Problem> {
        let tier = Some(plan.tier.as_str());
        let asked = Admission { tenant, tier, requests: 1, input_tokens: estimated_tokens, ..Admission::default() };
        match self.limiter.check(policy, &asked).await {
            Ok(decision) if decision.outcome == Outcome::Admitted => Ok(None),
            Ok(decision) => Ok(decision.denied_by().as_ref().map(Denial::by)),
            Err(Undecided::Refused(Refusal::ContextExceeded(_))) => {
                Ok(Some(Denial { reason: Reason::ContextLength, limit: None, retry_after_s: None }))
            }
            Err(Undecided::Refused(refusal)) => Err(refusal.into()),
            Err(Undecided::Unavailable(error)) => Err(error.into()),
        }
    }
}
