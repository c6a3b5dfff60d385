//! What a tenant has used, from the ledger's daily sums.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use tollgate_domain::{Day, Limit, Period, Plan, Span};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Asked;
use super::problem::Problem;
use super::tenant::Tenant;
use super::usage_fields::{UsageFields, rounded};
use super::{Shared, rfc3339};
use crate::clock;
use crate::ledger::{Grain, LedgerError, Series, Usage};
use crate::limiter::Policy;

/// The limit whose standing is told with the usage.
const MONTHLY_TOKENS: &str = "tokens_per_month";

/// The longest daily series.
const MAX_DAYS: u16 = 366;

/// What tenants used.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(summary)).routes(routes!(daily))
}

/// The period that the present lies in.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Period)]
pub(super) enum PeriodName {
    Day,
    Week,
    #[default]
    Month,
}

impl PeriodName {
    pub(super) fn span(self) -> Span {
        match self {
            PeriodName::Day => Span::Day,
            PeriodName::Week => Span::Week,
            PeriodName::Month => Span::Month,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SummaryQuery {
    /// Of which the usage is.
    #[serde(default)]
    #[param(inline)]
    period: PeriodName,
}

/// A tenant's usage in one period, and how it stands against its plan's month.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Summary {
    tenant_id: String,
    period: PeriodName,
    #[schema(format = DateTime)]
    period_start: String,
    #[schema(format = DateTime)]
    period_end: String,
    plan_tier: String,
    #[serde(flatten)]
    usage: UsageFields,
    last_7_days_tokens: u64,
    last_30_days_tokens: u64,
    token_limit: Option<u64>,
    limit_used_percent: Option<f64>,
    overage_tokens: u64,
}

/// What a tenant used in a period, and how it stands against its month
#[utoipa::path(get, path = "/api/v1/usage/{tenant}", tag = "usage", params(Tenant, SummaryQuery),
    responses((status = 200, body = Summary, description = "The usage; zero of a tenant never seen"), Asked))]
async fn summary(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<SummaryQuery>, QueryRejection>,
) -> Result<Json<Summary>, Problem> {
    let Query(SummaryQuery { period }) = query?;
    Ok(Json(Summary::read(&shared, tenant, None, period, clock::now_ms()).await?))
}

impl Summary {
    /// Under this plan, or else that of the tenant's latest call.
    pub(super) async fn read(
        shared: &Shared,
        tenant: String,
        plan: Option<&Plan>,
        period_name: PeriodName,
        now_ms: u64,
    ) -> Result<Summary, Problem> {
        let period = Period::around(period_name.span(), now_ms);
        let (week_back, month_back) = (Period::last_days(7, now_ms), Period::last_days(30, now_ms));
        let all = [period, month_back].into_iter().fold(week_back, Period::covering);
        let days = shared.days(&tenant, all).await?;
        let sum = |period: Period| -> Usage {
            days.iter().filter(|(day, _)| period.contains(*day)).map(|(_, usage)| usage).sum()
        };
        let policy = shared.limiter.policy();
        let plan = match plan {
            Some(plan) => plan,
            // After the sums: so it is that of a call which these have.
            None => shared.last_plan(&policy, &tenant).await?,
        };
        let limit = plan.limits.iter().find(|limit| limit.name() == MONTHLY_TOKENS);
        let capacity = limit.map(|limit| limit.capacity.get());
        let spent = match limit {
            Some(limit) => shared.spent(&tenant, plan, limit).await,
            None => None,
        };
        let of_limit = capacity.zip(spent);
        Ok(Summary {
            tenant_id: tenant,
            period: period_name,
            period_start: rfc3339(period.first.start_ms()),
            period_end: rfc3339(period.end.start_ms()),
            plan_tier: plan.tier.clone(),
            usage: (&sum(period)).into(),
            last_7_days_tokens: sum(week_back).total_tokens(),
            last_30_days_tokens: sum(month_back).total_tokens(),
            token_limit: capacity,
            limit_used_percent: of_limit.map(|(limit, spent)| rounded(spent as f64 / limit as f64 * 100.0)),
            overage_tokens: of_limit.map_or(0, |(limit, spent)| spent.saturating_sub(limit)),
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DailyQuery {
    /// How many, today included.
    #[serde(default = "thirty")]
    #[param(minimum = 1, maximum = 366)]
    days: u16,
}

fn thirty() -> u16 {
    30
}

/// Each day's usage.
#[derive(Debug, Serialize, ToSchema)]
struct Daily {
    tenant_id: String,
    days: Vec<DayFields>,
}

/// A day's usage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Day)]
struct DayFields {
    #[schema(format = Date)]
    date: String,
    #[serde(flatten)]
    usage: UsageFields,
}

/// A tenant's usage on every day up to today, oldest first
#[utoipa::path(get, path = "/api/v1/usage/{tenant}/daily", tag = "usage", params(Tenant, DailyQuery),
    responses((status = 200, body = Daily, description = "Each day's usage"), Asked))]
async fn daily(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<DailyQuery>, QueryRejection>,
) -> Result<Json<Daily>, Problem> {
    let Query(DailyQuery { days }) = query?;
    if days == 0 || days > MAX_DAYS {
        return Err(Problem::bad_request(format!("days: {days} is not between 1 and {MAX_DAYS}")));
    }
    let period = Period::last_days(days, clock::now_ms());
    let used = shared.days(&tenant, period).await?;
    let (on, none) = (|day: Day| used.iter().find(|(used_on, _)| *used_on == day), Usage::default());
    let day_fields = |day: Day| {
        let usage = on(day).map_or(&none, |(_, usage)| usage);
        DayFields { date: day.to_string(), usage: usage.into() }
    };
    Ok(Json(Daily { tenant_id: tenant, days: period.days().map(day_fields).collect() }))
}

impl Shared {
    /// A tenant's days in `period` that have usage, oldest first.
    async fn days(&self, tenant: &str, period: Period) -> Result<Vec<(Day, Usage)>, LedgerError> {
        let (from_ms, to_ms) = (period.first.start_ms(), period.end.start_ms());
        let points = self.series(&Series { tenant, grain: Grain::Day, from_ms, to_ms, by: None }).await?;
        Ok(points.into_iter().map(|point| (Day::of(point.start_ms), point.usage)).collect())
    }

    /// What is spent of a limit of the plan, as its counter has it; `None` while the counters do not answer: the rest of the
    /// usage is the ledger's.
    async fn spent(&self, tenant: &str, plan: &Plan, limit: &Limit) -> Option<u64> {
        let standings = self.limiter.standings(tenant, plan).await.ok()?;
        let standing = standings.iter().find(|standing| standing.limit.counter() == limit.counter())?;
        Some(standing.used.saturating_sub(standing.held))
    }

    /// The plan of a tenant's latest call, the default one for a tenant never seen.
    pub(super) async fn last_plan<'p>(&self, policy: &'p Policy, tenant: &str) -> Result<&'p Plan, Problem> {
        let tier = self.ledger.last_tier(tenant).await?;
        let plan = self.limiter.plan(policy, tenant, tier.as_deref());
        Ok(plan.or_else(|_| self.limiter.plan(policy, tenant, None))?)
    }
}
