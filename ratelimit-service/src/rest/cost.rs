//! What calls would cost: by one model, by all of them, and of a text that is not sent yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_domain::{Calls, Compared, Comparison, Day, Part, Quote, TokenClass, Tokens};
use tollgate_usage::{RequestReader, TextEstimate};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::access::Caller;
use super::limits;
use super::openapi::{self, Sent};
use super::prices::{Terms, day_of, pattern};
use super::problem::{self, Problem};
use crate::decimal;

/// The most models of a comparison.
const MAX_COMPARED: u64 = 1000;

/// What calls would cost.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(cost))
        .routes(routes!(compare))
        .routes(routes!(cheapest))
        .routes(routes!(text_cost))
}

/// Tokens by class. A token is of one class alone: what is read from a cache is no part of `input`.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = TokensByClass)]
#[serde(default, deny_unknown_fields)]
struct TokenFields {
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    input: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    cache_read: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    cache_write: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    cache_write_1h: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    audio_input: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    output: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    reasoning: u64,
    #[serde(deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    audio_output: u64,
}

impl From<TokenFields> for Tokens {
    fn from(fields: TokenFields) -> Tokens {
        let TokenFields { input, cache_read, cache_write, cache_write_1h, .. } = fields;
        let TokenFields { audio_input, output, reasoning, audio_output, .. } = fields;
        let counts = [
            (TokenClass::Input, input),
            (TokenClass::CacheRead, cache_read),
            (TokenClass::CacheWrite, cache_write),
            (TokenClass::CacheWrite1h, cache_write_1h),
            (TokenClass::AudioInput, audio_input),
            (TokenClass::Output, output),
            (TokenClass::Reasoning, reasoning),
            (TokenClass::AudioOutput, audio_output),
        ];
        counts.into_iter().collect()
    }
}

/// Calls that are thought of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CostRequest {
    model: String,
    /// By OpenTelemetry's name; without, the first price of any provider's model of this name holds.
    provider: Option<String>,
    /// Whose prices; without, list prices, or with a tenant's key its own.
    #[schema(min_length = 1, max_length = 256)]
    tenant_id: Option<String>,
    /// Of this UTC day; today without.
    #[schema(format = Date)]
    day: Option<String>,
    /// What the calls use together.
    #[serde(default)]
    tokens: TokenFields,
    /// How many images they make.
    #[serde(default, deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    images: u64,
    /// How many calls.
    #[serde(default = "one", deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    requests: u64,
}

fn one() -> u64 {
    1
}

/// What calls would cost.
#[derive(Debug, Serialize, ToSchema)]
struct Cost {
    tenant_id: Option<String>,
    model: String,
    /// The price's own; null where that is for all.
    provider: Option<String>,
    #[schema(format = Date)]
    day: String,
    /// Whether the model has a price.
    cost_known: bool,
    /// Exact, so a text; null where there is no price.
    cost_usd: Option<String>,
    /// The price, by its name on invoices.
    version: Option<String>,
    /// Who set the price: `tenant`, `operator` or `shipped`.
    layer: Option<&'static str>,
    parts: Vec<PartFields>,
}

/// So many at a price for each, with the plan's mark-up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostPart)]
struct PartFields {
    /// A class of tokens, `images` or `requests`.
    meter: &'static str,
    quantity: u64,
    unit_usd: String,
    cost_usd: String,
}

impl PartFields {
    fn new(meter: &'static str, part: Part) -> PartFields {
        let Part { quantity, unit_picousd } = part;
        PartFields { meter, quantity, unit_usd: usd(unit_picousd.into()), cost_usd: usd(part.picousd()) }
    }
}

/// Picodollars in dollars.
fn usd(picousd: u128) -> String {
    decimal::written(picousd, 12)
}

impl Cost {
    fn new(tenant_id: Option<String>, model: String, day: Day, quote: Option<Quote<'_>>, calls: &Calls) -> Cost {
        let rated = quote.map(|quote| quote.rate(calls));
        let parts = rated.iter().flat_map(|rated| {
            let others = [("images", rated.images), ("requests", rated.requests)];
            let tokens = rated.tokens.iter().map(|(class, part)| (class.as_str(), *part));
            tokens.chain(others.into_iter().filter(|(_, part)| part.unit_picousd > 0))
        });
        Cost {
            tenant_id,
            model,
            provider: quote.and_then(|quote| quote.price().provider().map(str::to_owned)),
            day: day.to_string(),
            cost_known: quote.is_some(),
            cost_usd: rated.as_ref().map(|rated| usd(rated.picousd())),
            version: quote.map(|quote| quote.price().version()),
            layer: quote.map(|quote| quote.layer().as_str()),
            parts: parts.map(|(meter, part)| PartFields::new(meter, part)).collect(),
        }
    }
}

/// What calls to a model would cost
///
/// Nothing is rounded. Where the model has no price, that is said, and no cost.
#[utoipa::path(post, path = "/api/v1/cost", tag = "prices", request_body = CostRequest,
    responses((status = 200, body = Cost, description = "The cost"), Sent))]
async fn cost(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<CostRequest>, JsonRejection>,
) -> Result<Json<Cost>, Problem> {
    let Json(CostRequest { model, provider, tenant_id, day, tokens, images, requests }) = request?;
    let (tenant, day) = (caller.asks_about("tenant_id", tenant_id)?, day_of(day.as_deref())?);
    let policy = shared.limiter.policy();
    let Terms { prices, mark_up } = shared.terms(&policy, tenant.as_deref()).await?;
    let quote = prices.at(provider.as_deref(), Some(&model), day).map(|quote| quote.with_mark_up(mark_up));
    Ok(Json(Cost::new(tenant, model, day, quote, &Calls { requests, images, tokens: tokens.into() })))
}

/// Calls that may go to any model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ComparisonRequest {
    /// Whose prices; without, list prices, or with a tenant's key its own.
    #[schema(min_length = 1, max_length = 256)]
    tenant_id: Option<String>,
    /// Of this UTC day; today without.
    #[schema(format = Date)]
    day: Option<String>,
    /// Models of this provider alone, by OpenTelemetry's name.
    provider: Option<String>,
    /// Models that are named so alone: `*` stands for anything.
    model: Option<String>,
    /// What the calls use together.
    #[serde(default)]
    tokens: TokenFields,
    /// How many images they make.
    #[serde(default, deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    images: u64,
    /// How many calls.
    #[serde(default = "one", deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    requests: u64,
    /// How many models at most; 1000 without.
    #[serde(default = "most", deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<1, MAX_COMPARED>)]
    limit: u64,
}

fn most() -> u64 {
    MAX_COMPARED
}

/// What calls would cost by every model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison)]
struct ComparisonAnswer {
    tenant_id: Option<String>,
    #[schema(format = Date)]
    day: String,
    /// The cheapest first.
    items: Vec<ComparedFields>,
    /// How many there are, those beyond the limit too.
    models: usize,
}

/// What calls would cost by a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Compared)]
struct ComparedFields {
    /// The price's: a pattern where it is for several.
    model: String,
    provider: Option<String>,
    /// Exact, so a text.
    cost_usd: String,
    version: String,
    layer: &'static str,
}

impl From<Compared<'_>> for ComparedFields {
    fn from(Compared { quote, picousd }: Compared<'_>) -> ComparedFields {
        let price = quote.price();
        ComparedFields {
            model: price.model().to_string(),
            provider: price.provider().map(str::to_owned),
            cost_usd: usd(picousd),
            version: price.version(),
            layer: quote.layer().as_str(),
        }
    }
}

/// What calls would cost by every model, the cheapest first
///
/// Models by patterns are compared by these, as if they were names. Where images are made, models without a price of one are left
/// out.
#[utoipa::path(post, path = "/api/v1/cost/compare", tag = "prices", request_body = ComparisonRequest,
    responses((status = 200, body = ComparisonAnswer, description = "The models"), Sent))]
async fn compare(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<ComparisonRequest>, JsonRejection>,
) -> Result<Json<ComparisonAnswer>, Problem> {
    let Json(request) = request?;
    Ok(Json(shared.compared(&caller, request).await?))
}

/// By which model calls would cost least
#[utoipa::path(post, path = "/api/v1/cost/cheapest", tag = "prices", request_body = ComparisonRequest, responses(
    (status = 200, body = ComparedFields, description = "The model"),
    (status = 404, body = problem::Body, content_type = problem::CONTENT_TYPE, description = "No such model has a price"),
    Sent,
))]
async fn cheapest(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<ComparisonRequest>, JsonRejection>,
) -> Result<Json<ComparedFields>, Problem> {
    let Json(request) = request?;
    let first = shared.compared(&caller, request).await?.items.into_iter().next();
    first.map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such model has a price on that day"))
}

impl Shared {
    async fn compared(&self, caller: &Caller, request: ComparisonRequest) -> Result<ComparisonAnswer, Problem> {
        let ComparisonRequest { tenant_id, day, provider, model, tokens, images, requests, limit } = request;
        if limit == 0 || limit > MAX_COMPARED {
            return Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {MAX_COMPARED}")));
        }
        let (tenant_id, day) = (caller.asks_about("tenant_id", tenant_id)?, day_of(day.as_deref())?);
        let models = model.as_deref().map(pattern).transpose()?;
        let policy = self.limiter.policy();
        let Terms { prices, mark_up } = self.terms(&policy, tenant_id.as_deref()).await?;
        let calls = Calls { requests, images, tokens: tokens.into() };
        let asked = Comparison { day, calls, mark_up, provider: provider.as_deref(), models };
        let mut compared = prices.compare(&asked);
        let models = compared.len();
        compared.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let items = compared.into_iter().map(ComparedFields::from).collect();
        Ok(ComparisonAnswer { tenant_id, day: day.to_string(), items, models })
    }
}

/// A text, or messages, that may be sent to a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TextRequest {
    model: String,
    /// By OpenTelemetry's name; without, the first price of any provider's model of this name holds.
    provider: Option<String>,
    /// Whose prices; without, list prices, or with a tenant's key its own.
    #[schema(min_length = 1, max_length = 256)]
    tenant_id: Option<String>,
    /// Of this UTC day; today without.
    #[schema(format = Date)]
    day: Option<String>,
    /// One of `text` and `messages` is to be given.
    text: Option<String>,
    /// As a request to a provider has them.
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Box<RawValue>>,
    /// How long the answer may become, in tokens.
    #[serde(default, deserialize_with = "limits::tokens")]
    #[schema(schema_with = openapi::whole::<0, { u64::MAX }>)]
    output_tokens: u64,
}

/// How long a text is, and what it would cost.
#[derive(Debug, Serialize, ToSchema)]
struct TextCost {
    /// An estimate, as admission makes it.
    estimated_input_tokens: u64,
    #[serde(flatten)]
    cost: Cost,
}

/// How many tokens a text has by an estimate, and what they would cost
///
/// The estimate is the one by which calls are admitted; in the median it is off by 3 to 13 %.
#[utoipa::path(post, path = "/api/v1/cost/text", tag = "prices", request_body = TextRequest,
    responses((status = 200, body = TextCost, description = "The estimate and its cost"), Sent))]
async fn text_cost(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<TextRequest>, JsonRejection>,
) -> Result<Json<TextCost>, Problem> {
    let Json(TextRequest { model, provider, tenant_id, day, text, messages, output_tokens }) = request?;
    let estimated_input_tokens = match (&text, &messages) {
        (Some(text), None) => of_text(text),
        (None, Some(messages)) => of_messages(messages)?,
        _ => return Err(Problem::bad_request("give one of text and messages")),
    };
    let (tenant, day) = (caller.asks_about("tenant_id", tenant_id)?, day_of(day.as_deref())?);
    let policy = shared.limiter.policy();
    let Terms { prices, mark_up } = shared.terms(&policy, tenant.as_deref()).await?;
    let quote = prices.at(provider.as_deref(), Some(&model), day).map(|quote| quote.with_mark_up(mark_up));
    let calls = Calls::one(Tokens::plain(estimated_input_tokens, output_tokens));
    let cost = Cost::new(tenant, model, day, quote, &calls);
    Ok(Json(TextCost { estimated_input_tokens, cost }))
}

/// An estimate takes bytes as they stand in JSON, between the quotes.
fn of_text(text: &str) -> u64 {
    let quoted = serde_json::Value::from(text).to_string();
    let mut estimate = TextEstimate::default();
    estimate.feed(quoted.trim_matches('"').as_bytes());
    estimate.tokens()
}

fn of_messages(messages: &RawValue) -> Result<u64, Problem> {
    serde_json::from_str::<Vec<BTreeMap<String, IgnoredAny>>>(messages.get())
        .map_err(|error| Problem::bad_request(format!("messages: {error}")))?;
    let mut reader = RequestReader::without_edits(None);
    reader.feed(format!("{{\"messages\":{}}}", messages.get()).as_bytes());
    Ok(reader.facts().input_estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_apart() {
        let fields = TokenFields { input: 1, cache_read: 2, output: 3, audio_output: 4, ..TokenFields::default() };
        let counted: Vec<_> = Tokens::from(fields).by_class().filter(|(_, count)| *count > 0).collect();
        use TokenClass::{AudioOutput, CacheRead, Input, Output};
        assert_eq!(counted, [(Input, 1), (CacheRead, 2), (Output, 3), (AudioOutput, 4)]);
    }

    #[test]
    fn a_text_is_as_long_as_in_a_message() {
        let text = "How many \"tokens\" are these?\n";
        let alone = of_text(text);
        assert!((5..12).contains(&alone), "{alone}");
        let messages = serde_json::json!([{ "role": "user", "content": text }]).to_string();
        let framed = of_messages(&RawValue::from_string(messages).unwrap()).unwrap();
        assert!((alone..alone + 10).contains(&framed), "{framed}");
        assert!(of_messages(&RawValue::from_string("{}".into()).unwrap()).is_err());
    }
}
