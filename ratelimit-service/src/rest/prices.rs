//! The prices in force, and the models that have none.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tollgate_domain::{Day, MarkUp, Pattern, Period, Quote, Span, TenantPrices};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::openapi::Asked;
use super::problem::Problem;
use super::{Shared, rfc3339, tenant};
use crate::clock;
use crate::config::MAX_PATTERN_BYTES;
use crate::ledger::{Dimension, Grain, Series, Usage};
use crate::limiter::Policy;
use crate::period;
use crate::prices::{self, row};

/// The most models without a price that are told one by one.
const MAX_UNPRICED: usize = 1000;

/// Prices, and models without one.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(in_force)).routes(routes!(unpriced))
}

/// What a tenant pays by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'p> {
    pub(super) prices: TenantPrices<'p>,
    /// Its plan's, on what is not a price of its own.
    pub(super) mark_up: MarkUp,
}

impl Shared {
    /// A tenant's terms; those of nobody are list prices.
    pub(super) async fn terms<'p>(&self, policy: &'p Policy, tenant: Option<&str>) -> Result<Terms<'p>, Problem> {
        let mark_up = match tenant {
            Some(tenant) => self.last_plan(policy, tenant).await?.mark_up,
            None => MarkUp::NONE,
        };
        Ok(Terms { prices: policy.plans.prices(tenant.unwrap_or_default()), mark_up })
    }
}

impl Caller {
    /// Whose prices they ask about: the tenant that they name, or else their own.
    pub(super) fn asks_about(&self, key: &str, named: Option<String>) -> Result<Option<String>, Problem> {
        match named {
            Some(named) => {
                tenant::check(key, &named)?;
                self.check_tenant(&named)?;
                Ok(Some(named))
            }
            None => Ok(self.tenant().map(str::to_owned)),
        }
    }
}

/// The UTC day that is named, or today.
pub(super) fn day_of(named: Option<&str>) -> Result<Day, Problem> {
    let Some(name) = named else { return Ok(Day::of(clock::now_ms())) };
    period::day(name).ok_or_else(|| Problem::bad_request(format!("day: `{name}` is no day such as 2026-11-25")))
}

/// A pattern of models, in which `*` stands for anything.
pub(super) fn pattern(text: &str) -> Result<Pattern, Problem> {
    match text.len() {
        0..=MAX_PATTERN_BYTES => Ok(Pattern::new(text)),
        bytes => Err(Problem::bad_request(format!("model: {bytes} bytes; a pattern has {MAX_PATTERN_BYTES} at most"))),
    }
}

/// What may be asked of prices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PricesQuery {
    /// Whose; without, list prices, or with a tenant's key its own.
    #[param(min_length = 1, max_length = 256)]
    tenant: Option<String>,
    /// Of this provider alone, by OpenTelemetry's name.
    provider: Option<String>,
    /// The one that a call to this model has; or, where a `*` stands for anything, those whose model is named so.
    model: Option<String>,
    /// In force on this UTC day; today without.
    #[param(format = Date)]
    day: Option<String>,
}

/// The prices in force on a day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Prices)]
struct PricesAnswer {
    tenant_id: Option<String>,
    #[schema(format = Date)]
    day: String,
    /// What the tenant pays of prices that are not its own, in parts per million.
    markup_ppm: u32,
    /// In the order in which they are looked up: the first one that is for a call holds.
    items: Vec<PriceFields>,
}

/// A version of a price, as it is listed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Price)]
struct PriceFields {
    /// Who set it: `tenant`, `operator`, or `shipped` where it comes with the program.
    layer: &'static str,
    /// Its name on invoices.
    version: String,
    /// US dollars for a million tokens by class, and for a call, as texts that are exact.
    #[schema(value_type = Object)]
    price: Value,
}

impl From<Quote<'_>> for PriceFields {
    fn from(quote: Quote<'_>) -> PriceFields {
        let price = quote.price();
        PriceFields { layer: quote.layer().as_str(), version: price.version(), price: row::document(price) }
    }
}

/// The prices in force
///
/// A price that another one goes before is not among them, as it holds for no call.
#[utoipa::path(get, path = "/api/v1/prices", tag = "prices", params(PricesQuery),
    responses((status = 200, body = PricesAnswer, description = "The prices"), Asked))]
async fn in_force(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<PricesQuery>, QueryRejection>,
) -> Result<Json<PricesAnswer>, Problem> {
    let Query(PricesQuery { tenant, provider, model, day }) = query?;
    let (tenant, day) = (caller.asks_about("tenant", tenant)?, day_of(day.as_deref())?);
    model.as_deref().map(pattern).transpose()?;
    let policy = shared.limiter.policy();
    let terms = shared.terms(&policy, tenant.as_deref()).await?;
    let items = prices::asked(terms.prices, provider.as_deref(), model.as_deref(), day);
    let items = items.into_iter().map(PriceFields::from).collect();
    Ok(Json(PricesAnswer { tenant_id: tenant, day: day.to_string(), markup_ppm: terms.mark_up.ppm(), items }))
}

/// The time that is asked about.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UnpricedQuery {
    /// A month, or a day; the present month without.
    #[param(
        pattern = "^(19[7-9]|[2-9][0-9]{2})[0-9]-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$",
        example = "2026-11"
    )]
    period: Option<String>,
}

/// Models whose use could not be priced.
#[derive(Debug, Serialize, ToSchema)]
struct Unpriced {
    #[schema(format = DateTime)]
    period_start: String,
    #[schema(format = DateTime)]
    period_end: String,
    /// By tenant, then by model.
    items: Vec<UnpricedModel>,
    /// How many more there are.
    left_off: usize,
}

/// A tenant's use of a model for which there was no price.
#[derive(Debug, Serialize, ToSchema)]
struct UnpricedModel {
    tenant_id: String,
    /// null for calls of which no model is known.
    model: Option<String>,
    /// Calls that had no price when they came.
    calls_without_price: u64,
    /// All calls to the model in the time,
    calls: u64,
    /// and their tokens.
    tokens: u64,
    /// The price that there is by now, by its name on invoices.
    priced_now_by: Option<String>,
}

/// Models that were used, and had no price
#[utoipa::path(get, path = "/api/v1/admin/unpriced", tag = "prices", params(UnpricedQuery),
    responses((status = 200, body = Unpriced, description = "The models"), Asked))]
async fn unpriced(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<UnpricedQuery>, QueryRejection>,
) -> Result<Json<Unpriced>, Problem> {
    let Query(UnpricedQuery { period: name }) = query?;
    let now_ms = clock::now_ms();
    let period = match name {
        Some(name) => period::parse(&name).map_err(|error| Problem::bad_request(format!("period: {error}")))?,
        None => Period::around(Span::Month, now_ms),
    };
    let (from_ms, to_ms) = (period.first.start_ms(), period.end.start_ms());
    let (policy, today) = (shared.limiter.policy(), Day::of(now_ms));
    let (mut items, mut left_off) = (Vec::new(), 0);
    for tenant in shared.ledger.tenants(from_ms, to_ms).await? {
        let series = Series { tenant: &tenant, grain: Grain::Day, from_ms, to_ms, by: Some(Dimension::Model) };
        let mut models: BTreeMap<Option<String>, Usage> = BTreeMap::new();
        for point in shared.ledger.series(&series).await? {
            models.entry(point.label).or_default().add(&point.usage);
        }
        let prices = policy.plans.prices(&tenant);
        for (model, usage) in models.into_iter().filter(|(_, usage)| usage.requests_without_cost > 0) {
            if items.len() == MAX_UNPRICED {
                left_off += 1;
                continue;
            }
            let price = prices.at(None, model.as_deref(), today);
            items.push(UnpricedModel {
                tenant_id: tenant.clone(),
                priced_now_by: price.map(|quote| quote.price().version()),
                model,
                calls_without_price: usage.requests_without_cost,
                calls: usage.requests,
                tokens: usage.total_tokens(),
            });
        }
    }
    Ok(Json(Unpriced { period_start: rfc3339(from_ms), period_end: rfc3339(to_ms), items, left_off }))
}
