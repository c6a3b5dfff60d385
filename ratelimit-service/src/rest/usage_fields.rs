//! What was used, as answers tell it: the same fields for a period, a day, an hour, a model.

use serde::Serialize;
use utoipa::ToSchema;

use crate::decimal;
use crate::ledger::{Histogram, Usage};

/// What was used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(super) struct UsageFields {
    requests: u64,
    requests_succeeded: u64,
    requests_streaming: u64,
    /// Calls whose model has no price: they are not in the cost.
    requests_without_cost: u64,
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    cache_read_tokens: u64,
    cache_creation_tokens: u64,
    cache_creation_5m_tokens: u64,
    cache_creation_1h_tokens: u64,
    reasoning_tokens: u64,
    audio_input_tokens: u64,
    audio_output_tokens: u64,
    extra_input_tokens: u64,
    extra_output_tokens: u64,
    billed_input_tokens: u64,
    billed_output_tokens: u64,
    tool_requests: u64,
    images: u64,
    /// Exact, so a text.
    cost_usd: String,
    requests_by_usage_source: BySource,
    avg_latency_ms: f64,
    p50_latency_ms: Option<u64>,
    p95_latency_ms: Option<u64>,
    p99_latency_ms: Option<u64>,
    avg_time_to_first_token_ms: Option<f64>,
    p50_time_to_first_token_ms: Option<u64>,
    p95_time_to_first_token_ms: Option<u64>,
    p99_time_to_first_token_ms: Option<u64>,
    success_rate: f64,
}

/// Requests by how their tokens are known.
#[derive(Debug, Serialize, ToSchema)]
struct BySource {
    reported: u64,
    partial: u64,
    estimated: u64,
    unsettled: u64,
    none: u64,
}

impl From<&Usage> for UsageFields {
    fn from(usage: &Usage) -> UsageFields {
        let per = |sum: u64, calls: u64| rounded(sum as f64 / calls.max(1) as f64);
        let quantiles = |of: &Histogram| [50, 95, 99].map(|percent| of.percentile(percent));
        let [p50_latency_ms, p95_latency_ms, p99_latency_ms] = quantiles(&usage.durations);
        let [p50_first, p95_first, p99_first] = quantiles(&usage.first_tokens);
        let began = usage.requests_with_first_token;
        UsageFields {
            requests: usage.requests,
            requests_succeeded: usage.succeeded,
            requests_streaming: usage.requests_streaming,
            requests_without_cost: usage.requests_without_cost,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            total_tokens: usage.total_tokens(),
            cache_read_tokens: usage.cache_read_tokens,
            cache_creation_tokens: usage.cache_creation_tokens,
            cache_creation_5m_tokens: usage.cache_creation_5m_tokens,
            cache_creation_1h_tokens: usage.cache_creation_1h_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_input_tokens: usage.audio_input_tokens,
            audio_output_tokens: usage.audio_output_tokens,
            extra_input_tokens: usage.extra_input_tokens,
            extra_output_tokens: usage.extra_output_tokens,
            billed_input_tokens: usage.billed_input_tokens,
            billed_output_tokens: usage.billed_output_tokens,
            tool_requests: usage.tool_requests,
            images: usage.images,
            cost_usd: decimal::written(usage.cost_nanousd.into(), 9),
            requests_by_usage_source: BySource {
                reported: usage.requests_reported,
                partial: usage.requests_partial,
                estimated: usage.requests_estimated,
                unsettled: usage.requests_unsettled,
                none: usage.requests_none,
            },
            // How long an unsettled call took is not known.
            avg_latency_ms: per(usage.duration_ms, usage.requests.saturating_sub(usage.requests_unsettled)),
            p50_latency_ms,
            p95_latency_ms,
            p99_latency_ms,
            avg_time_to_first_token_ms: (began > 0).then(|| per(usage.time_to_first_token_ms, began)),
            p50_time_to_first_token_ms: p50_first,
            p95_time_to_first_token_ms: p95_first,
            p99_time_to_first_token_ms: p99_first,
            success_rate: per(usage.succeeded, usage.requests),
        }
    }
}

/// To four decimals.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource};

    use super::*;

    fn told(events: &[UsageEvent]) -> Value {
        let usages: Vec<_> = events.iter().map(Usage::of).collect();
        serde_json::to_value(UsageFields::from(&usages.iter().sum::<Usage>())).unwrap()
    }

    #[test]
    fn calls_are_told_by_their_sums_means_and_quantiles() {
        let calls: Vec<_> = (1..=100)
            .map(|at| UsageEvent {
                duration_ms: at,
                time_to_first_token_ms: (at <= 50).then_some(2),
                status: if at <= 90 { 200 } else { 500 },
                streaming: at <= 50,
                tokens: TokenCounts { input: 2, output: 1, ..TokenCounts::default() },
                usage_source: UsageSource::Reported,
                cost_nanousd: (at <= 99).then_some(1_000_000_001),
                ..UsageEvent::default()
            })
            .collect();
        let told = told(&calls);
        let expected = json!({
            "requests": 100, "requests_succeeded": 90, "requests_streaming": 50, "requests_without_cost": 1,
            "total_tokens": 300, "cost_usd": "99.000000099", "avg_latency_ms": 50.5, "success_rate": 0.9,
            "avg_time_to_first_token_ms": 2.0, "p50_time_to_first_token_ms": 2, "p99_time_to_first_token_ms": 2,
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&told[field], value, "{field}");
        }
        // To a sixteenth.
        for (field, exact) in [("p50_latency_ms", 50), ("p95_latency_ms", 95), ("p99_latency_ms", 99)] {
            assert!(told[field].as_u64().unwrap().abs_diff(exact) * 16 <= exact, "{field}: {told}");
        }
    }

    #[test]
    fn of_no_calls_nothing_is_made_up() {
        let told = told(&[]);
        for field in ["p50_latency_ms", "avg_time_to_first_token_ms", "p99_time_to_first_token_ms"] {
            assert_eq!(told[field], json!(null), "{field}");
        }
        assert_eq!((&told["avg_latency_ms"], &told["cost_usd"]), (&json!(0.0), &json!("0")));
    }
}
