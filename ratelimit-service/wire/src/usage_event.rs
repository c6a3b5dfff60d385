//! Usage events over OTLP logs: one log record for each call.
//!
//! Attribute names follow the OpenTelemetry GenAI semantic conventions where these have one (`gen_ai.*`, `http.*`,
//! `error.*`) and are Tollgate's own elsewhere (`tollgate.*`). All of them, and the earlier spellings that are understood, stand
//! in [`attribute`] alone: the conventions still move.

use std::fmt;

use crate::field;
use crate::proto::opentelemetry::proto::logs::v1::LogRecord;
use attributes::Attributes;
pub use export::{decode_rejected, encode_export};
pub use lease_returned::{LEASE_RETURNED_EVENT_NAME, LeaseReturned};
pub use reading::{Around, INFERENCE_EVENT_NAME, known_attributes};
pub use token_counts::TokenCounts;

/// The gRPC service that takes the events.
pub const SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
/// Its one method.
pub const METHOD: &str = "Export";
/// A log record's `event_name`.
pub const EVENT_NAME: &str = "tollgate.usage";
/// Room for what an event mostly takes; others grow.
const ENCODED_BYTES: usize = 1024;
/// The longest name that is taken, of a tenant, tier, key, event or reservation, in bytes. Other texts are cut to it.
pub const MAX_NAME_BYTES: usize = 256;
/// The most [`UsageEvent::finish_reasons`] that are taken.
pub const MAX_FINISH_REASONS: usize = 64;
/// The most [`UsageEvent::upstream_limits`] that are carried; the rest is left out.
pub const MAX_UPSTREAM_LIMITS: usize = 16;
/// The longest of them, in bytes; a longer one is left out.
pub const MAX_UPSTREAM_LIMIT_BYTES: usize = 256;

pub mod attribute;
mod attributes;
mod export;
mod lease_returned;
mod reading;
#[cfg(test)]
mod tests;
mod token_counts;

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
    /// It is that of another event.
    Foreign,
    /// It has another type than it should, or a value outside its range.
    Invalid,
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem {
            Problem::Missing => write!(f, "{} is missing or empty", self.attribute),
            Problem::TooLong => write!(f, "{} is longer than {MAX_NAME_BYTES} bytes", self.attribute),
            Problem::Foreign => write!(f, "{} is not that of a usage event", self.attribute),
            Problem::Invalid => write!(f, "{} has the wrong type or a value out of range", self.attribute),
        }
    }
}

impl std::error::Error for InvalidEvent {}

/// The encoded log record of an event.
fn encode_record(event_name: &str, time_ms: u64, attributes: &Attributes<'_>) -> Vec<u8> {
    const TIME: u32 = 1; // of LogRecord
    const ATTRIBUTES: u32 = 6;
    const EVENT_NAME: u32 = 12;
    let mut bytes = Vec::with_capacity(ENCODED_BYTES);
    field::append_fixed64(TIME, nanos(time_ms), &mut bytes);
    attributes.encode(ATTRIBUTES, &mut bytes);
    field::append(EVENT_NAME, event_name.as_bytes(), &mut bytes);
    bytes
}

fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

impl UsageEvent {
    /// The model that prices, limits and sums go by: the one asked for, or else the one that answered.
    pub fn model(&self) -> Option<&str> {
        self.request_model.as_deref().or(self.response_model.as_deref())
    }

    /// The log record that carries this event.
    pub fn to_log_record(&self) -> LogRecord {
        LogRecord {
            time_unix_nano: nanos(self.started_at_ms),
            event_name: EVENT_NAME.to_owned(),
            attributes: self.attributes().into_pairs(),
            ..LogRecord::default()
        }
    }

    /// The encoded log record that carries this event.
    pub fn encode(&self) -> Vec<u8> {
        encode_record(EVENT_NAME, self.started_at_ms, &self.attributes())
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
}
