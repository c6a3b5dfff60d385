//! How a tenant stands against its limits, and whether a call would be admitted.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tollgate_domain::{Amounts, Limit, Outcome, Plan, Standing};

use super::problem::Problem;
use super::usage::{PeriodName, Summary};
use super::{Shared, rfc3339};
use crate::clock;
use crate::ledger::LedgerError;

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

#[derive(Debug, Serialize)]
struct LimitFields {
    name: String,
    #[serde(flatten)]
    limit: Limit,
    used: u64,
    remaining: u64,
    reset_at: String,
}

impl LimitFields {
    fn new(standing: &Standing, now_ms: u64) -> LimitFields {
        LimitFields {
            name: standing.limit.to_string(),
            limit: standing.limit,
            used: standing.used,
            remaining: standing.remaining,
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
    let plan = shared.named_plan(plan_tier.as_deref(), &tenant).await?;
    let limits = shared.limit_fields(&tenant, plan, clock::now_ms());
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
    fn by(standing: &Standing) -> Denial {
        let limit = Some(standing.limit.to_string());
        match standing.limit.window.calendar() {
            Some(_) => Denial { reason: Reason::Quota, limit, retry_after_s: None },
            None => Denial {
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
    let plan = shared.named_plan(plan_tier.as_deref(), &tenant_id).await?;
    let denial = shared.denial(&tenant_id, plan, estimated_tokens, now_ms);
    let limits = shared.limit_fields(&tenant_id, plan, now_ms);
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
    async fn named_plan(&self, tier: Option<&str>, tenant: &str) -> Result<&Plan, LedgerError> {
        match tier {
            Some(tier) => Ok(self.limiter.plan(Some(tier))),
            None => self.last_plan(tenant).await,
        }
    }

    fn limit_fields(&self, tenant: &str, plan: &Plan, now_ms: u64) -> Vec<LimitFields> {
        let standings = self.limiter.standings(tenant, plan, now_ms);
        standings.iter().map(|standing| LimitFields::new(standing, now_ms)).collect()
    }

    fn denial(&self, tenant: &str, plan: &Plan, estimated_tokens: u64, now_ms: u64) -> Option<Denial> {
        let amounts = Amounts { requests: 1, input_tokens: estimated_tokens, output_tokens: 0 };
        let Ok(decision) = self.limiter.check(tenant, plan, amounts, now_ms) else {
            return Some(Denial { reason: Reason::ContextLength, limit: None, retry_after_s: None });
        };
        match decision.outcome {
            Outcome::Admitted => None,
            Outcome::Denied => decision.denied_by().as_ref().map(Denial::by),
        }
    }
}
