//! How a tenant stands against its limits, and whether a call would be admitted.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;
use tollgate_domain::{Action, Call, Decision, Plan, Standing, Unit, Window};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::openapi::{self, Asked, Sent};
use super::problem::Problem;
use super::tenant::{self, Tenant};
use super::usage::{PeriodName, Summary};
use super::{Shared, rfc3339};
use crate::clock;
use crate::limiter::{Admission, Policy, Refusal, Undecided};

/// Where tenants stand.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(check)).routes(routes!(standings))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LimitQuery {
    /// The plan; without, the one of the tenant's latest call.
    plan_tier: Option<String>,
}

/// Where a tenant stands against its plan's limits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Limits {
    tenant_id: String,
    plan_tier: String,
    context_tokens: u64,
    limits: Vec<LimitFields>,
}

/// A limit, and what is left of it. Amounts of cost are in US dollars.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
struct LimitFields {
    name: String,
    #[schema(schema_with = units)]
    unit: Unit,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = windows, required = false)]
    window: Option<Window>,
    #[schema(schema_with = actions)]
    action: Action,
    capacity: Amount,
    burst: Amount,
    used: Amount,
    /// Of it, what calls in flight have reserved.
    reserved: Amount,
    remaining: Amount,
    #[schema(format = DateTime)]
    reset_at: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Amount {
    Count(u64),
    Usd(f64),
}

fn units() -> Object {
    use Unit::{Concurrency, Cost, InputTokens, OutputTokens, Requests, Tokens};
    openapi::one_of([Requests, Tokens, InputTokens, OutputTokens, Cost, Concurrency].map(Unit::as_str))
}

fn windows() -> Object {
    use Window::{Day, Hour, Minute, Month, Second};
    openapi::one_of([Second, Minute, Hour, Day, Month].map(Window::as_str))
}

fn actions() -> Object {
    openapi::one_of(["enforce", "warn", "shadow"])
}

impl ToSchema for Amount {}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let what = "US dollars of a limit of cost; of all others a whole number";
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).description(Some(what)).build().into()
    }
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

/// Where a tenant stands against its limits
#[utoipa::path(get, path = "/api/v1/usage/{tenant}/limit", tag = "limits", params(Tenant, LimitQuery),
    responses((status = 200, body = Limits, description = "Every limit of the plan"), Asked))]
async fn standings(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<LimitQuery>, QueryRejection>,
) -> Result<Json<Limits>, Problem> {
    let Query(LimitQuery { plan_tier }) = query?;
    let policy = shared.limiter.policy();
    let plan = shared.named_plan(&policy, plan_tier.as_deref(), &tenant).await??;
    Ok(Json(shared.limits(tenant, plan).await?))
}

/// A call that is thought of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckRequest {
    /// Who would pay.
    #[schema(min_length = 1, max_length = 256)]
    tenant_id: String,
    /// The plan; without, the one of the tenant's latest call.
    plan_tier: Option<String>,
    model: Option<String>,
    api: Option<String>,
    /// Which of the tenant's keys it would show.
    key: Option<String>,
    /// Of its input.
    #[serde(default, deserialize_with = "tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    estimated_tokens: u64,
    /// Of its answer.
    #[serde(default, deserialize_with = "tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    estimated_output_tokens: u64,
    /// Images that it would make.
    #[serde(default, deserialize_with = "tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    images: u64,
}

/// A whole number, which JSON may also write as `10.0`.
pub(super) fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    // A double's end of the range is the number after the last of 64 bits.
    let is_whole = |double: &f64| double.fract() == 0.0 && (0.0..u64::MAX as f64).contains(double);
    let whole = number.as_u64().or_else(|| number.as_f64().filter(is_whole).map(|double| double as u64));
    whole.ok_or_else(|| D::Error::custom(format_args!("`{number}` is no whole number from 0 to {}", u64::MAX)))
}

/// Whether a call would be admitted, and where its tenant stands.
#[derive(Debug, Serialize, ToSchema)]
struct CheckAnswer {
    allowed: bool,
    /// Why it would be denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The name of the limit that denies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    /// Where waiting helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// Limits that only warn, and are exceeded.
    warnings: Vec<String>,
    /// The limit that the call is nearest to.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<String>,
    #[serde(flatten)]
    month: Summary,
    context_tokens: u64,
    limits: Vec<LimitFields>,
}

/// Why a call would be denied.
#[derive(Debug)]
struct Denial {
    reason: Reason,
    /// The limit's name.
    limit: Option<String>,
    /// Where waiting helps.
    retry_after_s: Option<u64>,
}

/// Why a call would be denied.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DenialReason)]
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
    /// Of calls that go on at once.
    #[serde(rename = "concurrency_exceeded")]
    Concurrency,
    /// No plan has the tier's name, and such calls are denied.
    #[serde(rename = "unknown_tier")]
    UnknownTier,
    /// The tenant may not call at all.
    #[serde(rename = "tenant_suspended")]
    Suspended,
}

/// What the limiter says to a call.
#[derive(Debug, Default)]
struct Opinion {
    denial: Option<Denial>,
    warnings: Vec<String>,
    nearest: Option<String>,
}

impl Opinion {
    fn of(decision: &Decision<'_>) -> Opinion {
        let told = [decision.requests, decision.input_tokens, decision.output_tokens].into_iter().flatten();
        let nearest = told.reduce(|nearest, other| if is_nearer(&other, &nearest) { other } else { nearest });
        Opinion {
            denial: decision.denied_by().as_ref().map(Denial::by),
            warnings: decision.warnings.iter().map(|limit| limit.to_string()).collect(),
            nearest: nearest.map(|standing| standing.limit.to_string()),
        }
    }

    fn refused(reason: Reason) -> Opinion {
        Opinion { denial: Some(Denial { reason, limit: None, retry_after_s: None }), ..Opinion::default() }
    }
}

/// Whether a smaller share is left of `a`.
fn is_nearer(a: &Standing<'_>, b: &Standing<'_>) -> bool {
    let share =
        |of: &Standing<'_>, other: &Standing<'_>| u128::from(of.remaining) * u128::from(other.limit.burst.get());
    share(a, b) < share(b, a)
}

impl Denial {
    fn by(standing: &Standing<'_>) -> Denial {
        let limit = Some(standing.limit.to_string());
        let reason = match standing.limit.unit {
            Unit::Concurrency => Reason::Concurrency,
            _ if standing.limit.is_calendar() => return Denial { reason: Reason::Quota, limit, retry_after_s: None },
            _ => Reason::RateLimit,
        };
        Denial { reason, limit, retry_after_s: standing.reset_ms.map(|reset_ms| reset_ms.div_ceil(1000)) }
    }
}

/// Would a call be admitted now?
///
/// Nothing is taken of the limits.
#[utoipa::path(post, path = "/api/v1/usage/check", tag = "limits", request_body = CheckRequest, responses(
    (status = 200, body = CheckAnswer, description = "It would"),
    (status = 429, body = CheckAnswer, description = "It would not, or this client asks too often", headers(
        ("retry-after" = u64, description = "Seconds to wait, where that helps"),
    )),
    Sent,
))]
async fn check(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<CheckRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = request?;
    let CheckRequest { tenant_id, plan_tier, model, api, key, estimated_tokens, estimated_output_tokens, images } =
        request;
    tenant::check("tenant_id", &tenant_id)?;
    caller.check_tenant(&tenant_id)?;
    let now_ms = clock::now_ms();
    let policy = shared.limiter.policy();
    let (plan, opinion) = match shared.named_plan(&policy, plan_tier.as_deref(), &tenant_id).await? {
        Ok(plan) => {
            let asked = Admission {
                tenant: &tenant_id,
                tier: Some(&plan.tier),
                call: Call { model: model.as_deref(), api: api.as_deref(), key: key.as_deref() },
                requests: 1,
                input_tokens: estimated_tokens,
                output_tokens: Some(estimated_output_tokens),
                images,
                reservation_id: None,
            };
            (plan, shared.opinion(&policy, &asked).await?)
        }
        // The rest of the answer is the default plan's.
        Err(_) => (shared.limiter.plan(&policy, &tenant_id, None)?, Opinion::refused(Reason::UnknownTier)),
    };
    let Opinion { denial, warnings, nearest } = opinion;
    let limits = shared.limit_fields(&tenant_id, plan).await?;
    let month = Summary::read(&shared, tenant_id, Some(plan), PeriodName::Month, now_ms).await?;

    let allowed = denial.is_none();
    let status = if allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    let (reason, limit, retry_after_s) = match denial {
        Some(Denial { reason, limit, retry_after_s }) => (Some(reason), limit, retry_after_s),
        None => (None, None, None),
    };
    let context_tokens = plan.context_tokens;
    let answer =
        CheckAnswer { allowed, reason, limit, retry_after_s, warnings, nearest, month, context_tokens, limits };
    let mut response = (status, Json(answer)).into_response();
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

impl Shared {
    /// The plan of this name, or of the tenant's latest call.
    async fn named_plan<'p>(
        &self,
        policy: &'p Policy,
        tier: Option<&str>,
        tenant: &str,
    ) -> Result<Result<&'p Plan, Refusal>, Problem> {
        match tier {
            Some(_) => Ok(self.limiter.plan(policy, tenant, tier)),
            None => self.last_plan(policy, tenant).await.map(Ok),
        }
    }

    /// Where the tenant stands.
    pub(super) async fn limits(&self, tenant: String, plan: &Plan) -> Result<Limits, Problem> {
        let limits = self.limit_fields(&tenant, plan).await?;
        Ok(Limits { tenant_id: tenant, plan_tier: plan.tier.clone(), context_tokens: plan.context_tokens, limits })
    }

    async fn limit_fields(&self, tenant: &str, plan: &Plan) -> Result<Vec<LimitFields>, Problem> {
        let standings = self.limiter.standings(tenant, plan).await?;
        let now_ms = clock::now_ms();
        Ok(standings.iter().map(|standing| LimitFields::new(standing, now_ms)).collect())
    }

    async fn opinion(&self, policy: &Policy, asked: &Admission<'_>) -> Result<Opinion, Problem> {
        match self.limiter.check(policy, asked).await {
            Ok(decision) => Ok(Opinion::of(&decision)),
            Err(Undecided::Refused(Refusal::ContextExceeded(_))) => Ok(Opinion::refused(Reason::ContextLength)),
            Err(Undecided::Refused(Refusal::UnknownTier)) => Ok(Opinion::refused(Reason::UnknownTier)),
            Err(Undecided::Refused(Refusal::Suspended)) => Ok(Opinion::refused(Reason::Suspended)),
            Err(Undecided::Unavailable(error)) => Err(error.into()),
        }
    }
}
