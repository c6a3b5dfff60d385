//! Usage events over OTLP logs: one log record for each call.
//!
//! Attribute names follow the OpenTelemetry GenAI semantic conventions where these have one (`gen_ai.*`, `http.*`,
//! `error.*`) and are Tollgate's own elsewhere (`tollgate.*`). All of them stand in [`attribute`] alone: the conventions
//! still move.

use std::fmt;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceResponse;
use crate::proto::opentelemetry::proto::common::v1::{InstrumentationScope, any_value};
use crate::proto::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::proto::opentelemetry::proto::resource::v1::Resource;
use attributes::{Attributes, Reader, invalid};

/// The gRPC service that takes the events.
pub const SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
/// Its one method.
pub const METHOD: &str = "Export";
/// A log record's `event_name`.
pub const EVENT_NAME: &str = "tollgate.usage";
/// The longest tenant, tier or event id that is taken, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

mod attributes;

/// Attribute names.
pub mod attribute {
    #![allow(missing_docs)]

    pub const EVENT_ID: &str = "tollgate.event_id";
    pub const RESERVATION_ID: &str = "tollgate.reservation_id";
    pub const REQUEST_ID: &str = "tollgate.request_id";
    pub const TENANT: &str = "tollgate.tenant";
    pub const TIER: &str = "tollgate.tier";
    pub const API: &str = "tollgate.api";
    pub const USAGE_SOURCE: &str = "tollgate.usage_source";
    pub const FINISH: &str = "tollgate.finish";
    pub const STREAMING: &str = "tollgate.streaming";
    pub const DURATION_MS: &str = "tollgate.duration_ms";
    pub const TIME_TO_FIRST_TOKEN_MS: &str = "tollgate.time_to_first_token_ms";
    pub const REQUEST_BYTES: &str = "tollgate.request_bytes";
    pub const RESPONSE_BYTES: &str = "tollgate.response_bytes";

    pub const OPERATION: &str = "gen_ai.operation.name";
    pub const PROVIDER: &str = "gen_ai.provider.name";
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    pub const CACHE_READ: &str = "gen_ai.usage.cache_read.input_tokens";
    pub const CACHE_CREATION: &str = "gen_ai.usage.cache_creation.input_tokens";
    pub const REASONING: &str = "gen_ai.usage.reasoning.output_tokens";
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
    /// The plan's name.
    pub tier: String,
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
    /// What the call used.
    pub tokens: TokenCounts,
    /// How `tokens` is known.
    pub usage_source: UsageSource,
    /// How the call ended.
    pub finish: Finish,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body, as they passed the proxy.
    pub response_bytes: u64,
}

/// Token counts in OpenTelemetry's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// All input, cache reads and writes included.
    pub input: u64,
    /// All output, reasoning included.
    pub output: u64,
    /// Of `input`, read from a cache.
    pub cache_read: u64,
    /// Of `input`, written to a cache.
    pub cache_creation: u64,
    /// Of `output`, spent on reasoning.
    pub reasoning: u64,
}

impl TokenCounts {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
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
        /// The provider said so in a report that was not its last: the call was cut off.
        Partial = "partial",
        /// Tollgate worked them out from what passed.
        Estimated = "estimated",
        /// The call expired unsettled; these are its reserved amounts.
        Unsettled = "unsettled",
        /// Nothing is known, and nothing counted.
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
        /// The proxy answered in the upstream's place.
        LocalReply = "local_reply",
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
    /// The log record that carries this event.
    pub fn to_log_record(&self) -> LogRecord {
        let mut attributes = Attributes::new();
        attributes.text(attribute::EVENT_ID, Some(&self.event_id));
        attributes.text(attribute::RESERVATION_ID, self.reservation_id.as_deref());
        attributes.text(attribute::REQUEST_ID, self.request_id.as_deref());
        attributes.text(attribute::TENANT, Some(&self.tenant));
        attributes.text(attribute::TIER, Some(&self.tier));
        attributes.count(attribute::DURATION_MS, Some(self.duration_ms));
        attributes.count(attribute::TIME_TO_FIRST_TOKEN_MS, self.time_to_first_token_ms);
        attributes.text(attribute::API, self.api.as_deref());
        attributes.text(attribute::OPERATION, self.operation.as_deref());
        attributes.text(attribute::PROVIDER, self.provider.as_deref());
        attributes.text(attribute::REQUEST_MODEL, self.request_model.as_deref());
        attributes.text(attribute::RESPONSE_MODEL, self.response_model.as_deref());
        attributes.text(attribute::RESPONSE_ID, self.response_id.as_deref());
        attributes.texts(attribute::FINISH_REASONS, &self.finish_reasons);
        attributes.push(attribute::STREAMING, any_value::Value::BoolValue(self.streaming));
        attributes.count(attribute::STATUS, Some(u64::from(self.status)).filter(|status| *status != 0));
        attributes.count(attribute::INPUT_TOKENS, Some(self.tokens.input));
        attributes.count(attribute::OUTPUT_TOKENS, Some(self.tokens.output));
        attributes.count(attribute::CACHE_READ, Some(self.tokens.cache_read));
        attributes.count(attribute::CACHE_CREATION, Some(self.tokens.cache_creation));
        attributes.count(attribute::REASONING, Some(self.tokens.reasoning));
        attributes.text(attribute::USAGE_SOURCE, Some(self.usage_source.as_str()));
        attributes.text(attribute::FINISH, Some(self.finish.as_str()));
        attributes.count(attribute::REQUEST_BYTES, Some(self.request_bytes));
        attributes.count(attribute::RESPONSE_BYTES, Some(self.response_bytes));
        LogRecord {
            time_unix_nano: self.started_at_ms.saturating_mul(1_000_000),
            event_name: EVENT_NAME.to_owned(),
            attributes: attributes.into_pairs(),
            ..LogRecord::default()
        }
    }

    /// The encoded log record that carries this event.
    pub fn encode(&self) -> Vec<u8> {
        self.to_log_record().encode_to_vec()
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
            tier: from.name(attribute::TIER)?,
            started_at_ms: record.time_unix_nano / 1_000_000,
            duration_ms: from.count(attribute::DURATION_MS)?.unwrap_or(0),
            time_to_first_token_ms: from.count(attribute::TIME_TO_FIRST_TOKEN_MS)?,
            api: from.text(attribute::API)?,
            operation: from.text(attribute::OPERATION)?,
            provider: from.text(attribute::PROVIDER)?,
            request_model: from.text(attribute::REQUEST_MODEL)?,
            response_model: from.text(attribute::RESPONSE_MODEL)?,
            response_id: from.text(attribute::RESPONSE_ID)?,
            finish_reasons: from.texts(attribute::FINISH_REASONS)?,
            streaming: from.flag(attribute::STREAMING)?.unwrap_or(false),
            status: u16::try_from(from.count(attribute::STATUS)?.unwrap_or(0))
                .map_err(|_| invalid(attribute::STATUS))?,
            tokens: TokenCounts {
                input: from.count(attribute::INPUT_TOKENS)?.unwrap_or(0),
                output: from.count(attribute::OUTPUT_TOKENS)?.unwrap_or(0),
                cache_read: from.count(attribute::CACHE_READ)?.unwrap_or(0),
                cache_creation: from.count(attribute::CACHE_CREATION)?.unwrap_or(0),
                reasoning: from.count(attribute::REASONING)?.unwrap_or(0),
            },
            usage_source: from.one_of(attribute::USAGE_SOURCE, UsageSource::parse)?.unwrap_or_default(),
            finish: from.one_of(attribute::FINISH, Finish::parse)?.unwrap_or_default(),
            request_bytes: from.count(attribute::REQUEST_BYTES)?.unwrap_or(0),
            response_bytes: from.count(attribute::RESPONSE_BYTES)?.unwrap_or(0),
        })
    }
}

/// The encoded `ExportLogsServiceRequest` that sends `events`, each from [`UsageEvent::encode`], as the service
/// `service_name` saw them.
///
/// An encoded message is the concatenation of its fields, so events that are encoded already are only copied.
pub fn encode_export<'a>(service_name: &str, events: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    const RESOURCE_LOGS: u32 = 1; // of ExportLogsServiceRequest
    const SCOPE_LOGS: u32 = 2; // of ResourceLogs
    const LOG_RECORDS: u32 = 2; // of ScopeLogs
    let scope = InstrumentationScope { name: "tollgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let mut scope_logs = ScopeLogs { scope: Some(scope), ..ScopeLogs::default() }.encode_to_vec();
    for event in events {
        append_field(LOG_RECORDS, event, &mut scope_logs);
    }
    let mut attributes = Attributes::new();
    attributes.text(attribute::SERVICE_NAME, Some(service_name));
    let resource = Resource { attributes: attributes.into_pairs() };
    let mut resource_logs = ResourceLogs { resource: Some(resource), ..ResourceLogs::default() }.encode_to_vec();
    append_field(SCOPE_LOGS, &scope_logs, &mut resource_logs);
    let mut request = Vec::with_capacity(resource_logs.len() + 8);
    append_field(RESOURCE_LOGS, &resource_logs, &mut request);
    request
}

/// How many events the collector refused, by its encoded `ExportLogsServiceResponse`. One that can't be read, or has none,
/// refused none.
pub fn decode_rejected(response: &[u8]) -> u64 {
    let response = ExportLogsServiceResponse::decode(response).unwrap_or_default();
    response.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_log_records).unwrap_or(0))
}

fn append_field(number: u32, message: &[u8], to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(u64::try_from(message.len()).unwrap_or(u64::MAX), to);
    to.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::opentelemetry::proto::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest};
    use crate::proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 é_-]{1,40}"
    }

    fn maybe() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(name())
    }

    prop_compose! {
        fn event()(
            ids in (name(), maybe(), maybe(), name(), name()),
            times in (1..u64::from(u32::MAX), 0..1_000_000u64, proptest::option::of(0..1_000_000u64)),
            names in (maybe(), maybe(), maybe(), maybe(), maybe(), maybe()),
            finish_reasons in proptest::collection::vec(name(), 0..3),
            streaming: bool,
            status in 0..600u16,
            counts in proptest::array::uniform5(0..i64::MAX as u64),
            source in proptest::sample::select(UsageSource::ALL),
            finish in proptest::sample::select(Finish::ALL),
            bytes in (0..u64::from(u32::MAX), 0..u64::from(u32::MAX)),
        ) -> UsageEvent {
            let (event_id, reservation_id, request_id, tenant, tier) = ids;
            let (api, operation, provider, request_model, response_model, response_id) = names;
            let [input, output, cache_read, cache_creation, reasoning] = counts;
            UsageEvent {
                event_id, reservation_id, request_id, tenant, tier,
                started_at_ms: times.0, duration_ms: times.1, time_to_first_token_ms: times.2,
                api, operation, provider, request_model, response_model, response_id,
                finish_reasons, streaming, status,
                tokens: TokenCounts { input, output, cache_read, cache_creation, reasoning },
                usage_source: source, finish,
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
            }
        }
    }

    #[test]
    fn refusals_are_counted() {
        let partial_success = ExportLogsPartialSuccess { rejected_log_records: 3, error_message: String::new() };
        let response = ExportLogsServiceResponse { partial_success: Some(partial_success) };
        assert_eq!(decode_rejected(&response.encode_to_vec()), 3);
        assert_eq!(decode_rejected(&[]), 0);
        assert_eq!(decode_rejected(b"?"), 0);
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
