//! Usage events over OTLP logs: one log record for each call.
//!
//! Attribute names follow the OpenTelemetry GenAI semantic conventions where these have one (`gen_ai.*`, `http.*`,
//! `error.*`) and are Tollgate's own elsewhere (`tollgate.*`). All of them stand in [`attribute`] alone: the conventions
//! still move.

use std::fmt;

use prost::Message;

use crate::proto::opentelemetry::proto::logs::v1::LogRecord;
use attributes::{Attributes, Reader, invalid};
pub use export::{decode_rejected, encode_export};
pub use token_counts::TokenCounts;

/// The gRPC service that takes the events.
pub const SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
/// Its one method.
pub const METHOD: &str = "Export";
/// A log record's `event_name`.
pub const EVENT_NAME: &str = "tollgate.usage";
/// Room for what an event mostly takes; others grow.
const ENCODED_BYTES: usize = 1024;
/// The longest tenant, tier or event id that is taken, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The most [`UsageEvent::upstream_limits`] that are carried; the rest is left out.
pub const MAX_UPSTREAM_LIMITS: usize = 16;
/// The longest of them, in bytes; a longer one is left out.
pub const MAX_UPSTREAM_LIMIT_BYTES: usize = 256;

mod attributes;
mod export;
mod token_counts;

/// Attribute names.
pub mod attribute {
    #![allow(missing_docs)]

    pub const EVENT_ID: &str = "tollgate.event_id";
    pub const RESERVATION_ID: &str = "tollgate.reservation_id";
    pub const REQUEST_ID: &str = "tollgate.request_id";
    pub const TENANT: &str = "tollgate.tenant";
    pub const TIER: &str = "tollgate.tier";
    pub const KEY: &str = "tollgate.key";
    pub const COST: &str = "tollgate.cost_nanousd";
    pub const API: &str = "tollgate.api";
    pub const USAGE_SOURCE: &str = "tollgate.usage_source";
    pub const FINISH: &str = "tollgate.finish";
    pub const STREAMING: &str = "tollgate.streaming";
    pub const DURATION_MS: &str = "tollgate.duration_ms";
    pub const TIME_TO_FIRST_TOKEN_MS: &str = "tollgate.time_to_first_token_ms";
    pub const REQUEST_BYTES: &str = "tollgate.request_bytes";
    pub const RESPONSE_BYTES: &str = "tollgate.response_bytes";
    pub const INPUT_ESTIMATE: &str = "tollgate.input_estimate";
    pub const UNREADABLE: &str = "tollgate.unreadable";
    pub const UPSTREAM_LIMITS: &str = "tollgate.upstream.rate_limits";
    pub const CACHE_CREATION_5M: &str = "tollgate.usage.cache_creation_5m.input_tokens";
    pub const CACHE_CREATION_1H: &str = "tollgate.usage.cache_creation_1h.input_tokens";
    pub const AUDIO_INPUT: &str = "tollgate.usage.audio.input_tokens";
    pub const AUDIO_OUTPUT: &str = "tollgate.usage.audio.output_tokens";
    pub const EXTRA_INPUT: &str = "tollgate.usage.extra.input_tokens";
    pub const EXTRA_OUTPUT: &str = "tollgate.usage.extra.output_tokens";
    pub const BILLED_INPUT: &str = "tollgate.usage.billed.input_tokens";
    pub const BILLED_OUTPUT: &str = "tollgate.usage.billed.output_tokens";
    pub const TOOL_REQUESTS: &str = "tollgate.usage.tool_requests";

    // Of tracked events.
    pub const EVENT_TYPE: &str = "tollgate.event_type";
    pub const QUANTITY: &str = "tollgate.quantity_micros";
    pub const METADATA: &str = "tollgate.metadata";

    pub const OPERATION: &str = "gen_ai.operation.name";
    pub const PROVIDER: &str = "gen_ai.provider.name";
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    pub const OUTPUT_CAP: &str = "gen_ai.request.max_tokens";
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    pub const CACHE_READ: &str = "gen_ai.usage.cache_read.input_tokens";
    pub const CACHE_CREATION: &str = "gen_ai.usage.cache_creation.input_tokens";
    pub const REASONING: &str = "gen_ai.usage.reasoning.output_tokens";
    pub const ERROR_TYPE: &str = "error.type";
    pub const STATUS: &str = "http.response.status_code";
    pub const SERVICE_NAME: &str = "service.name";
}

/// One call, as it was: the immutable record that is billed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageEvent {
    /// Counts the call once, however often the event arrives: a UUIDv7 of ours, never an id that a client chose.
    pub event_id: String,
    /// The reservation that this event settles; `None` when the limiter was never asked.
    pub reservation_id: Option<String>,
    /// The client's `x-request-id`, for tracing only.
    pub request_id: Option<String>,
    /// Who pays.
    pub tenant: String,
    /// The plan's name; empty where the call named none.
    pub tier: String,
    /// The name of the API key, application or user that called, where the operator has one told; never a secret.
    pub key: Option<String>,
    /// When the call began, milliseconds since the Unix epoch. The call belongs to the period that this lies in.
    pub started_at_ms: u64,
    /// From the request's first byte to the response's last.
    pub duration_ms: u64,
    /// From the request's first byte to the response body's first; `None` when there was no body.
    pub time_to_first_token_ms: Option<u64>,
    /// The response's format as `tollgate-usage` names it; `None` when no format was recognised.
    pub api: Option<String>,
    /// `chat`, `text_completion`, `embeddings`, …
    pub operation: Option<String>,
    /// `openai`, `anthropic`, …
    pub provider: Option<String>,
    /// The model that the request asked for.
    pub request_model: Option<String>,
    /// The most output tokens that the request allowed; `None` when it set no bound.
    pub output_cap: Option<u64>,
    /// The input tokens that admission was asked for; `None` when the request's body told nothing.
    pub input_estimate: Option<u64>,
    /// The model that answered.
    pub response_model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// Why the model stopped, one for each choice, in the provider's words.
    pub finish_reasons: Vec<String>,
    /// Whether the answer was a stream of events.
    pub streaming: bool,
    /// The HTTP status that the client got; 0 when it got none.
    pub status: u16,
    /// The error that the upstream answered with: the provider's name of it, or else the status.
    pub error_type: Option<String>,
    /// Why the answer could not be read; `None` when it could.
    pub unreadable: Option<String>,
    /// The upstream's own rate limit headers, each as `name: value`; at most [`MAX_UPSTREAM_LIMITS`] are carried, of at
    /// most [`MAX_UPSTREAM_LIMIT_BYTES`] each.
    pub upstream_limits: Vec<String>,
    /// What the call used.
    pub tokens: TokenCounts,
    /// What they cost in billionths of a US dollar, by the collector's prices; `None` where there is no price.
    pub cost_nanousd: Option<u64>,
    /// How `tokens` is known.
    pub usage_source: UsageSource,
    /// How the call ended.
    pub finish: Finish,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body, as they passed the proxy.
    pub response_bytes: u64,
}

/// Whether a header of the upstream's is short enough to be kept.
fn carried(header: &impl AsRef<str>) -> bool {
    header.as_ref().len() <= MAX_UPSTREAM_LIMIT_BYTES
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The attribute's value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The value with this name.
            pub fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

names! {
    /// How a call's token counts are known.
    UsageSource {
        /// The provider said so in its final report.
        Reported = "reported",
        /// The provider's report so far, completed by an estimate of the text that passed: the call was cut off.
        Partial = "partial",
        /// No report: an estimate from the request and the text that passed.
        Estimated = "estimated",
        /// The call expired unsettled; these are its reserved amounts.
        Unsettled = "unsettled",
        /// Nothing was generated, and nothing counted: whatever was reserved is void.
        #[default]
        None = "none",
    }
}

names! {
    /// How a call ended.
    Finish {
        /// The response came to its end.
        #[default]
        Complete = "complete",
        /// The client left before the end.
        ClientGone = "client_gone",
        /// The upstream broke off, or never answered.
        UpstreamReset = "upstream_reset",
        /// The upstream took too long.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream answered with an error: a status of 400 or more, or an error event inside a 200 stream.
        UpstreamError = "upstream_error",
        /// The proxy answered in the upstream's place.
        LocalReply = "local_reply",
        /// Nobody told: the call's reservation ran out.
        Unknown = "unknown",
    }
}

/// A log record that is no usage event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEvent {
    /// The attribute at fault, or `event_name`.
    pub attribute: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It is required and absent, or empty.
    Missing,
    /// It is longer than [`MAX_NAME_BYTES`].
    TooLong,
    /// It has another type than it should, or a value outside its range.
    Invalid,
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem {
            Problem::Missing => write!(f, "{} is missing or empty", self.attribute),
            Problem::TooLong => write!(f, "{} is longer than {MAX_NAME_BYTES} bytes", self.attribute),
            Problem::Invalid => write!(f, "{} has the wrong type or a value out of range", self.attribute),
        }
    }
}

impl std::error::Error for InvalidEvent {}

impl UsageEvent {
    /// The model that prices, limits and sums go by: the one asked for, or else the one that answered.
    pub fn model(&self) -> Option<&str> {
        self.request_model.as_deref().or(self.response_model.as_deref())
    }

    /// The log record that carries this event.
    pub fn to_log_record(&self) -> LogRecord {
        LogRecord { attributes: self.attributes().into_pairs(), ..self.bare_record() }
    }

    /// The encoded log record that carries this event.
    pub fn encode(&self) -> Vec<u8> {
        const ATTRIBUTES: u32 = 6; // of LogRecord
        // Fields may come in any order.
        let mut bytes = self.bare_record().encode_to_vec();
        bytes.reserve(ENCODED_BYTES);
        self.attributes().encode(ATTRIBUTES, &mut bytes);
        bytes
    }

    /// The log record without attributes.
    fn bare_record(&self) -> LogRecord {
        let time_unix_nano = self.started_at_ms.saturating_mul(1_000_000);
        LogRecord { time_unix_nano, event_name: EVENT_NAME.to_owned(), ..LogRecord::default() }
    }

    fn attributes(&self) -> Attributes<'_> {
        let mut attributes = Attributes::new();
        attributes.text(attribute::EVENT_ID, Some(&self.event_id));
        attributes.text(attribute::RESERVATION_ID, self.reservation_id.as_deref());
        attributes.text(attribute::REQUEST_ID, self.request_id.as_deref());
        attributes.text(attribute::TENANT, Some(&self.tenant));
        attributes.text(attribute::TIER, Some(self.tier.as_str()).filter(|tier| !tier.is_empty()));
        attributes.text(attribute::KEY, self.key.as_deref());
        attributes.count(attribute::DURATION_MS, Some(self.duration_ms));
        attributes.count(attribute::TIME_TO_FIRST_TOKEN_MS, self.time_to_first_token_ms);
        attributes.text(attribute::API, self.api.as_deref());
        attributes.text(attribute::OPERATION, self.operation.as_deref());
        attributes.text(attribute::PROVIDER, self.provider.as_deref());
        attributes.text(attribute::REQUEST_MODEL, self.request_model.as_deref());
        attributes.count(attribute::OUTPUT_CAP, self.output_cap);
        attributes.count(attribute::INPUT_ESTIMATE, self.input_estimate);
        attributes.text(attribute::RESPONSE_MODEL, self.response_model.as_deref());
        attributes.text(attribute::RESPONSE_ID, self.response_id.as_deref());
        attributes.texts(attribute::FINISH_REASONS, self.finish_reasons.iter());
        attributes.flag(attribute::STREAMING, self.streaming);
        attributes.count(attribute::STATUS, Some(u64::from(self.status)).filter(|status| *status != 0));
        attributes.text(attribute::ERROR_TYPE, self.error_type.as_deref());
        attributes.text(attribute::UNREADABLE, self.unreadable.as_deref());
        attributes
            .texts(attribute::UPSTREAM_LIMITS, self.upstream_limits.iter().filter(carried).take(MAX_UPSTREAM_LIMITS));
        self.tokens.write(&mut attributes);
        attributes.count(attribute::COST, self.cost_nanousd);
        attributes.text(attribute::USAGE_SOURCE, Some(self.usage_source.as_str()));
        attributes.text(attribute::FINISH, Some(self.finish.as_str()));
        attributes.count(attribute::REQUEST_BYTES, Some(self.request_bytes));
        attributes.count(attribute::RESPONSE_BYTES, Some(self.response_bytes));
        attributes
    }

    /// Reads an event from a log record. Attributes that are not ours are passed over.
    ///
    /// # Errors
    /// When the record is no usage event: the id, the tenant or the time is missing, or an attribute has another type or
    /// range than [`UsageEvent::to_log_record`] gives it.
    pub fn from_log_record(record: &LogRecord) -> Result<UsageEvent, InvalidEvent> {
        if record.event_name != EVENT_NAME {
            return Err(invalid("event_name"));
        }
        let from = Reader::new(&record.attributes);
        if record.time_unix_nano == 0 {
            return Err(InvalidEvent { attribute: "time_unix_nano", problem: Problem::Missing });
        }
        Ok(UsageEvent {
            event_id: from.name(attribute::EVENT_ID)?,
            reservation_id: from.text(attribute::RESERVATION_ID)?,
            request_id: from.text(attribute::REQUEST_ID)?,
            tenant: from.name(attribute::TENANT)?,
            tier: from.optional_name(attribute::TIER)?.unwrap_or_default(),
            key: from.optional_name(attribute::KEY)?,
            started_at_ms: record.time_unix_nano / 1_000_000,
            duration_ms: from.count(attribute::DURATION_MS)?.unwrap_or(0),
            time_to_first_token_ms: from.count(attribute::TIME_TO_FIRST_TOKEN_MS)?,
            api: from.text(attribute::API)?,
            operation: from.text(attribute::OPERATION)?,
            provider: from.text(attribute::PROVIDER)?,
            request_model: from.text(attribute::REQUEST_MODEL)?,
            output_cap: from.count(attribute::OUTPUT_CAP)?,
            input_estimate: from.count(attribute::INPUT_ESTIMATE)?,
            response_model: from.text(attribute::RESPONSE_MODEL)?,
            response_id: from.text(attribute::RESPONSE_ID)?,
            finish_reasons: from.texts(attribute::FINISH_REASONS)?,
            streaming: from.flag(attribute::STREAMING)?.unwrap_or(false),
            status: u16::try_from(from.count(attribute::STATUS)?.unwrap_or(0))
                .map_err(|_| invalid(attribute::STATUS))?,
            error_type: from.text(attribute::ERROR_TYPE)?,
            unreadable: from.text(attribute::UNREADABLE)?,
            upstream_limits: (from.texts(attribute::UPSTREAM_LIMITS)?.into_iter())
                .filter(carried)
                .take(MAX_UPSTREAM_LIMITS)
                .collect(),
            tokens: TokenCounts::read(&from)?,
            cost_nanousd: from.count(attribute::COST)?,
            usage_source: from.one_of(attribute::USAGE_SOURCE, UsageSource::parse)?.unwrap_or_default(),
            finish: from.one_of(attribute::FINISH, Finish::parse)?.unwrap_or_default(),
            request_bytes: from.count(attribute::REQUEST_BYTES)?.unwrap_or(0),
            response_bytes: from.count(attribute::RESPONSE_BYTES)?.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
    use crate::proto::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 é_-]{1,40}"
    }

    fn maybe() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(name())
    }

    prop_compose! {
        fn event()(
            ids in (name(), maybe(), maybe(), name(), name(), maybe()),
            times in (1..u64::from(u32::MAX), 0..1_000_000u64, proptest::option::of(0..1_000_000u64)),
            names in (maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe()),
            bounds in proptest::array::uniform3(proptest::option::of(0..1_000_000u64)),
            lists in (proptest::collection::vec(name(), 0..3), proptest::collection::vec(name(), 0..3)),
            streaming: bool,
            status in 0..600u16,
            counts in proptest::array::uniform14(0..i64::MAX as u64),
            source in proptest::sample::select(UsageSource::ALL),
            finish in proptest::sample::select(Finish::ALL),
            bytes in (0..u64::from(u32::MAX), 0..u64::from(u32::MAX)),
        ) -> UsageEvent {
            let (event_id, reservation_id, request_id, tenant, tier, key) = ids;
            let (api, operation, provider, request_model, response_model, response_id, error_type, unreadable) = names;
            let ([output_cap, input_estimate, cost_nanousd], (finish_reasons, upstream_limits)) = (bounds, lists);
            let [input, output, cache_read, cache_creation, cache_creation_5m, cache_creation_1h, reasoning, ..] = counts;
            let [.., audio_input, audio_output, extra_input, extra_output, billed_input, billed_output, tool_requests] =
                counts;
            UsageEvent {
                event_id, reservation_id, request_id, tenant, tier, key,
                started_at_ms: times.0, duration_ms: times.1, time_to_first_token_ms: times.2,
                api, operation, provider, request_model, output_cap, input_estimate, response_model, response_id,
                finish_reasons, streaming, status, error_type, unreadable, upstream_limits,
                tokens: TokenCounts {
                    input, output, cache_read, cache_creation, cache_creation_5m, cache_creation_1h, reasoning,
                    audio_input, audio_output, extra_input, extra_output, billed_input, billed_output, tool_requests,
                },
                cost_nanousd, usage_source: source, finish,
                request_bytes: bytes.0, response_bytes: bytes.1,
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_survives_the_wire(event in event()) {
            let bytes = encode_export("envoy", &[event.encode(), event.encode()]);
            let request = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
            let [resource] = &request.resource_logs[..] else { panic!("one resource: {request:?}") };
            prop_assert_eq!(&resource.resource.as_ref().unwrap().attributes[0].key, attribute::SERVICE_NAME);
            prop_assert_eq!(&resource.scope_logs[0].scope.as_ref().unwrap().name, "tollgate");
            prop_assert_eq!(resource.scope_logs[0].log_records.len(), 2);
            for record in &resource.scope_logs[0].log_records {
                prop_assert_eq!(&UsageEvent::from_log_record(record).unwrap(), &event);
                prop_assert_eq!(record, &event.to_log_record());
            }
        }
    }

    fn record() -> LogRecord {
        let event = UsageEvent {
            event_id: "e1".into(),
            tenant: "acme".into(),
            tier: "pro".into(),
            started_at_ms: 1,
            ..UsageEvent::default()
        };
        event.to_log_record()
    }

    #[test]
    fn the_upstreams_headers_are_bounded() {
        let headers: Vec<_> = (0..20).map(|at| format!("x-ratelimit-{at}: 1")).collect();
        let too_long = "x".repeat(MAX_UPSTREAM_LIMIT_BYTES + 1);
        let upstream_limits = std::iter::once(too_long.clone()).chain(headers.clone()).collect();
        let event = UsageEvent { upstream_limits, ..UsageEvent::from_log_record(&record()).unwrap() };
        let sent = UsageEvent::from_log_record(&event.to_log_record()).unwrap();
        assert_eq!(sent.upstream_limits, headers[..MAX_UPSTREAM_LIMITS]);
        // Another sender's bounds may be wider.
        let text = |value: String| AnyValue { value: Some(any_value::Value::StringValue(value)) };
        let values = [too_long].into_iter().chain(headers.clone()).map(text).collect();
        let record = with(attribute::UPSTREAM_LIMITS, any_value::Value::ArrayValue(ArrayValue { values }));
        assert_eq!(UsageEvent::from_log_record(&record).unwrap().upstream_limits, headers[..MAX_UPSTREAM_LIMITS]);
    }

    #[test]
    fn what_was_not_counted_is_not_sent() {
        let sent: Vec<_> = record().attributes.into_iter().map(|pair| pair.key).collect();
        assert!(sent.iter().all(|key| !key.contains(".usage.")), "{sent:?}");
    }

    fn with(key: &str, value: any_value::Value) -> LogRecord {
        let mut record = record();
        record.attributes.retain(|pair| pair.key != key);
        record.attributes.insert(0, KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) });
        record
    }

    #[test]
    fn what_is_wrong_is_named() {
        use any_value::Value::{IntValue, StringValue};
        let cases = [
            (with(attribute::TENANT, StringValue(String::new())), "tollgate.tenant is missing or empty"),
            (with(attribute::TENANT, StringValue("x".repeat(257))), "tollgate.tenant is longer than 256 bytes"),
            (
                with(attribute::INPUT_TOKENS, IntValue(-1)),
                "gen_ai.usage.input_tokens has the wrong type or a value out of range",
            ),
            (
                with(attribute::FINISH, StringValue("?".into())),
                "tollgate.finish has the wrong type or a value out of range",
            ),
            (LogRecord { time_unix_nano: 0, ..record() }, "time_unix_nano is missing or empty"),
            (
                LogRecord { event_name: "other".into(), ..record() },
                "event_name has the wrong type or a value out of range",
            ),
        ];
        for (record, message) in cases {
            assert_eq!(UsageEvent::from_log_record(&record).unwrap_err().to_string(), message);
        }
    }
}
