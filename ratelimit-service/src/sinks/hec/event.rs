//! Entries as Splunk's events.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tollgate_wire::usage_event::UsageEvent;

use super::HecSettings;
use crate::entry::{Entry, TrackedEvent};

/// What Splunk takes for an event: <https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector>.
#[derive(Debug, Serialize)]
struct HecEvent<'a, T> {
    /// Seconds since the Unix epoch.
    time: f64,
    host: &'a str,
    source: &'a str,
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    event: T,
}

/// A call. Names that dashboards know are kept: `model`, `total_tokens`, `is_streaming`, `estimated_cost_usd`, `cost_known`.
#[derive(Debug, Serialize)]
struct Usage<'a> {
    event_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_id: Option<&'a str>,
    tenant: &'a str,
    tier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// That answered, or else that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    is_streaming: bool,
    status: u16,
    finish: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    finish_reasons: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'a str>,
    usage_source: &'static str,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_ms: Option<u64>,
    #[serde(flatten)]
    tokens: Tokens,
    /// 0 where there is no price.
    estimated_cost_usd: f64,
    cost_known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_nanousd: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    upstream_rate_limits: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_estimate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_cap: Option<u64>,
    request_bytes: u64,
    response_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Tokens {
    total_tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
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
}

#[derive(Debug, Serialize)]
struct Tracked<'a> {
    event_id: &'a str,
    tenant: &'a str,
    event_type: &'a str,
    quantity: f64,
    quantity_micros: u64,
    metadata: Value,
}

/// Appends an entry; events stand one behind the other.
pub(super) fn append(settings: &HecSettings, entry: &Entry, to: &mut Vec<u8>) {
    // Writing to memory, texts and numbers alone: it cannot fail, but for a number that is none, and there is none.
    let _ = match entry {
        Entry::Usage(event) => {
            let event = wrapped(settings, &settings.sourcetype, event.started_at_ms, Usage::from(event));
            serde_json::to_writer(&mut *to, &event)
        }
        Entry::Tracked(event) => {
            let event = wrapped(settings, &settings.tracked_sourcetype, event.at_ms, Tracked::from(event));
            serde_json::to_writer(&mut *to, &event)
        }
    };
}

fn wrapped<'a, T>(settings: &'a HecSettings, sourcetype: &'a str, at_ms: u64, event: T) -> HecEvent<'a, T> {
    let HecSettings { host, source, index, .. } = settings;
    HecEvent { time: at_ms as f64 / 1e3, host, source, sourcetype, index: index.as_deref(), event }
}

impl<'a> From<&'a UsageEvent> for Usage<'a> {
    fn from(event: &'a UsageEvent) -> Usage<'a> {
        let header = |header: &'a String| header.split_once(": ").or_else(|| header.split_once(':'));
        Usage {
            event_id: &event.event_id,
            reservation_id: event.reservation_id.as_deref(),
            request_id: event.request_id.as_deref(),
            response_id: event.response_id.as_deref(),
            tenant: &event.tenant,
            tier: &event.tier,
            key: event.key.as_deref(),
            model: event.response_model.as_deref().or(event.request_model.as_deref()),
            request_model: event.request_model.as_deref(),
            response_model: event.response_model.as_deref(),
            provider: event.provider.as_deref(),
            api: event.api.as_deref(),
            operation: event.operation.as_deref(),
            is_streaming: event.streaming,
            status: event.status,
            finish: event.finish.as_str(),
            finish_reasons: &event.finish_reasons,
            error_type: event.error_type.as_deref(),
            unreadable: event.unreadable.as_deref(),
            usage_source: event.usage_source.as_str(),
            latency_ms: event.duration_ms,
            time_to_first_token_ms: event.time_to_first_token_ms,
            tokens: Tokens::of(event),
            estimated_cost_usd: event.cost_nanousd.unwrap_or(0) as f64 / 1e9,
            cost_known: event.cost_nanousd.is_some(),
            cost_nanousd: event.cost_nanousd,
            upstream_rate_limits: event.upstream_limits.iter().filter_map(header).collect(),
            input_estimate: event.input_estimate,
            output_cap: event.output_cap,
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
        }
    }
}

impl Tokens {
    fn of(event: &UsageEvent) -> Tokens {
        let tokens = &event.tokens;
        Tokens {
            total_tokens: tokens.total(),
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cache_read_tokens: tokens.cache_read,
            cache_creation_tokens: tokens.cache_creation,
            cache_creation_5m_tokens: tokens.cache_creation_5m,
            cache_creation_1h_tokens: tokens.cache_creation_1h,
            reasoning_tokens: tokens.reasoning,
            audio_input_tokens: tokens.audio_input,
            audio_output_tokens: tokens.audio_output,
            extra_input_tokens: tokens.extra_input,
            extra_output_tokens: tokens.extra_output,
            billed_input_tokens: tokens.billed_input,
            billed_output_tokens: tokens.billed_output,
            tool_requests: tokens.tool_requests,
            images: tokens.images,
        }
    }
}

impl<'a> From<&'a TrackedEvent> for Tracked<'a> {
    fn from(event: &'a TrackedEvent) -> Tracked<'a> {
        Tracked {
            event_id: &event.id,
            tenant: &event.tenant,
            event_type: &event.event_type,
            quantity: event.quantity_micros as f64 / 1e6,
            quantity_micros: event.quantity_micros,
            metadata: serde_json::from_str(&event.metadata).unwrap_or_else(|_| Value::from(event.metadata.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_wire::usage_event::TokenCounts;

    use super::*;
    use crate::secret::Secret;

    fn written(entry: &Entry) -> Value {
        let settings = HecSettings {
            index: Some("llm".into()),
            host: "gate-1".into(),
            ..HecSettings::new("http://127.0.0.1:8088", Secret::new("t"))
        };
        let mut bytes = Vec::new();
        append(&settings, entry, &mut bytes);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_call_has_the_fields_that_dashboards_know() {
        let event = UsageEvent {
            event_id: "e1".into(),
            tenant: "acme".into(),
            started_at_ms: 1_732_550_400_123,
            request_model: Some("gpt-4o".into()),
            response_model: Some("gpt-4o-2024-08-06".into()),
            streaming: true,
            status: 200,
            tokens: TokenCounts { input: 100, output: 50, reasoning: 7, ..TokenCounts::default() },
            cost_nanousd: Some(45_000),
            upstream_limits: vec!["x-ratelimit-remaining-requests: 950".into(), "x-odd:1".into(), "none".into()],
            ..UsageEvent::default()
        };
        let written = written(&Entry::Usage(event));
        assert_eq!(written["time"].to_string(), "1732550400.123");
        let wrapping = ["host", "source", "sourcetype", "index"].map(|key| written[key].as_str().unwrap());
        assert_eq!(wrapping, ["gate-1", "tollgate", "llm:usage", "llm"]);
        let event = &written["event"];
        let of = |keys: &[&str]| Value::from_iter(keys.iter().map(|key| (*key, event[*key].clone())));
        let known = ["model", "total_tokens", "is_streaming", "estimated_cost_usd", "cost_known", "reasoning_tokens"];
        assert_eq!(
            of(&known),
            json!({ "model": "gpt-4o-2024-08-06", "total_tokens": 150, "is_streaming": true, "estimated_cost_usd": 0.000_045,
                "cost_known": true, "reasoning_tokens": 7 })
        );
        let limits = json!({ "x-ratelimit-remaining-requests": "950", "x-odd": "1" });
        assert_eq!(event["upstream_rate_limits"], limits);
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let written = written(&Entry::Usage(UsageEvent { event_id: "e1".into(), ..UsageEvent::default() }));
        let event = written["event"].as_object().unwrap();
        assert!(!event.contains_key("model") && !event.contains_key("cost_nanousd"));
        assert_eq!((&event["cost_known"], &event["estimated_cost_usd"]), (&json!(false), &json!(0.0)));
    }

    #[test]
    fn a_tracked_event_has_its_metadata_as_an_object() {
        let event = TrackedEvent {
            id: "t1".into(),
            tenant: "acme".into(),
            event_type: "image".into(),
            at_ms: 1000,
            quantity_micros: 2_500_000,
            metadata: r#"{"size":"large"}"#.into(),
        };
        let written = written(&Entry::Tracked(event));
        assert_eq!(written["sourcetype"], "llm:tracked");
        assert_eq!(
            (&written["event"]["quantity"], &written["event"]["metadata"]["size"]),
            (&json!(2.5), &json!("large"))
        );
    }
}
