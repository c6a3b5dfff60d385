//! The one table of attributes: what is sent under each name, and under which earlier spellings it is understood.
//!
//! The present names are those of the GenAI conventions, version 0.1
//! (<https://github.com/open-telemetry/semantic-conventions-genai>); the earlier ones those of the conventions up to 1.36, and of
//! instrumentations that were there before a convention was.

use std::fmt;
use std::sync::LazyLock;

/// What an attribute says. Its value is read and written under its present name, and read under earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its place in the table.
    pub(super) index: usize,
    /// Its present name.
    pub name: &'static str,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $attribute:ident = $name:literal $(, or $earlier:literal)*;)+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place { $($attribute,)+ }

        $($(#[$doc])* pub const $attribute: Attribute =
            Attribute { index: Place::$attribute as usize, name: $name };)+

        /// Every attribute, in the table's order.
        pub const ALL: &[Attribute] = &[$($attribute),+];

        /// The earlier spellings of each, in the table's order.
        const EARLIER: &[&[&str]] = &[$(&[$($earlier),*]),+];
    };
}

table! {
    /// Counts the call once.
    EVENT_ID = "tollgate.event_id";
    /// The reservation that is settled.
    RESERVATION_ID = "tollgate.reservation_id";
    /// A lease's id.
    LEASE_ID = "tollgate.lease.id";
    /// How many calls the lease was for.
    LEASE_CALLS = "tollgate.lease.calls";
    /// How many of them went on.
    LEASE_USED = "tollgate.lease.used";
    /// The client's `x-request-id`.
    REQUEST_ID = "tollgate.request_id";
    /// Who pays.
    TENANT = "tollgate.tenant";
    /// The plan's name.
    TIER = "tollgate.tier";
    /// The name of the key, application or user that called.
    KEY = "tollgate.key";
    /// What the call cost.
    COST = "tollgate.cost_nanousd";
    /// The response's format.
    API = "tollgate.api";
    /// How the tokens are known.
    USAGE_SOURCE = "tollgate.usage_source";
    /// How the call ended.
    FINISH = "tollgate.finish";
    /// Whether the answer was streamed.
    STREAMING = "tollgate.streaming", or "gen_ai.request.stream", or "gen_ai.request.is_stream", or "llm.is_streaming";
    /// How long the call took, in milliseconds.
    DURATION_MS = "tollgate.duration_ms";
    /// How long the call took, in seconds.
    DURATION_S = "gen_ai.client.operation.duration";
    /// How long the answer took to begin, in milliseconds.
    TIME_TO_FIRST_TOKEN_MS = "tollgate.time_to_first_token_ms";
    /// How long the answer took to begin, in seconds.
    TIME_TO_FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk", or "gen_ai.server.time_to_first_token";
    /// Bytes of the request's body.
    REQUEST_BYTES = "tollgate.request_bytes";
    /// Bytes of the response's body.
    RESPONSE_BYTES = "tollgate.response_bytes";
    /// The input tokens that admission was asked for.
    INPUT_ESTIMATE = "tollgate.input_estimate";
    /// Why the answer could not be read.
    UNREADABLE = "tollgate.unreadable";
    /// The upstream's own rate limit headers.
    UPSTREAM_LIMITS = "tollgate.upstream.rate_limits";
    /// Cache writes that are kept for five minutes.
    CACHE_CREATION_5M = "tollgate.usage.cache_creation_5m.input_tokens";
    /// Cache writes that are kept for an hour.
    CACHE_CREATION_1H = "tollgate.usage.cache_creation_1h.input_tokens";
    /// Audio in the input.
    AUDIO_INPUT = "tollgate.usage.audio.input_tokens", or "gen_ai.usage.audio.input_tokens",
        or "gen_ai.usage.input_audio_tokens", or "gen_ai.usage.details.input_audio_tokens";
    /// Audio in the output.
    AUDIO_OUTPUT = "tollgate.usage.audio.output_tokens", or "gen_ai.usage.audio.output_tokens",
        or "gen_ai.usage.output_audio_tokens", or "gen_ai.usage.details.output_audio_tokens";
    /// Input of passes that the provider's total leaves out.
    EXTRA_INPUT = "tollgate.usage.extra.input_tokens";
    /// Output of such passes.
    EXTRA_OUTPUT = "tollgate.usage.extra.output_tokens";
    /// Input as the provider bills it.
    BILLED_INPUT = "tollgate.usage.billed.input_tokens";
    /// Output as the provider bills it.
    BILLED_OUTPUT = "tollgate.usage.billed.output_tokens";
    /// Uses of the provider's own tools.
    TOOL_REQUESTS = "tollgate.usage.tool_requests";
    /// Images that were made.
    IMAGES = "tollgate.usage.images";
    /// `chat`, `embeddings`, …
    OPERATION = "gen_ai.operation.name", or "llm.request.type";
    /// `openai`, `anthropic`, …
    PROVIDER = "gen_ai.provider.name", or "gen_ai.system", or "llm.provider", or "llm.vendor";
    /// The model that was asked for.
    REQUEST_MODEL = "gen_ai.request.model", or "llm.request.model", or "llm.model_name";
    /// The most output tokens that the request allowed.
    OUTPUT_CAP = "gen_ai.request.max_tokens", or "llm.request.max_tokens";
    /// The model that answered.
    RESPONSE_MODEL = "gen_ai.response.model", or "llm.response.model";
    /// The provider's id of the response.
    RESPONSE_ID = "gen_ai.response.id";
    /// Why the model stopped.
    FINISH_REASONS = "gen_ai.response.finish_reasons", or "gen_ai.response.finish_reason";
    /// All input.
    INPUT_TOKENS = "gen_ai.usage.input_tokens", or "gen_ai.usage.prompt_tokens", or "llm.usage.prompt_tokens",
        or "llm.token_count.prompt";
    /// All output.
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens", or "gen_ai.usage.completion_tokens", or "llm.usage.completion_tokens",
        or "llm.token_count.completion";
    /// Of the input, read from a cache.
    CACHE_READ = "gen_ai.usage.cache_read.input_tokens", or "gen_ai.usage.cache_read_input_tokens",
        or "gen_ai.usage.cache_read_tokens", or "gen_ai.usage.cached_tokens",
        or "gen_ai.usage.details.cache_read_tokens", or "gen_ai.usage.details.cache_read_input_tokens",
        or "llm.token_count.prompt_details.cache_read";
    /// Of the input, written to a cache.
    CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens", or "gen_ai.usage.cache_creation_input_tokens",
        or "gen_ai.usage.cache_write_tokens", or "gen_ai.usage.details.cache_write_tokens",
        or "gen_ai.usage.details.cache_creation_input_tokens", or "llm.token_count.prompt_details.cache_write";
    /// Of the output, spent on reasoning.
    REASONING = "gen_ai.usage.reasoning.output_tokens", or "gen_ai.usage.reasoning_tokens",
        or "gen_ai.usage.details.reasoning_tokens", or "llm.token_count.completion_details.reasoning";
    /// The error's name.
    ERROR_TYPE = "error.type";
    /// The HTTP status.
    STATUS = "http.response.status_code", or "http.status_code";
    /// A record's `event_name`, from senders that have no such field.
    NAME = "event.name";
    /// What sends, on a resource.
    SERVICE_NAME = "service.name";
    /// What a tracked event is.
    EVENT_TYPE = "tollgate.event_type";
    /// How much of it, in millionths.
    QUANTITY = "tollgate.quantity_micros";
    /// What else there is to know of it, as JSON.
    METADATA = "tollgate.metadata";
}

/// How many there are.
pub(super) const COUNT: usize = ALL.len();

/// A spelling, and what is known of it.
struct Spelling {
    name: &'static str,
    attribute: Attribute,
    is_present: bool,
}

/// All spellings, by their length: by that most are told apart.
static SPELLINGS: LazyLock<Vec<Vec<Spelling>>> = LazyLock::new(|| {
    let spellings = ALL.iter().zip(EARLIER).flat_map(|(attribute, earlier)| {
        let earlier = earlier.iter().map(|name| Spelling { name, attribute: *attribute, is_present: false });
        std::iter::once(Spelling { name: attribute.name, attribute: *attribute, is_present: true }).chain(earlier)
    });
    let mut by_length: Vec<Vec<Spelling>> = Vec::new();
    for spelling in spellings {
        let length = spelling.name.len();
        if by_length.len() <= length {
            by_length.resize_with(length + 1, Vec::new);
        }
        if let Some(of_length) = by_length.get_mut(length) {
            of_length.push(spelling);
        }
    }
    by_length
});

/// The attribute of this name, and whether the name is the present one.
pub(super) fn find(name: &str) -> Option<(Attribute, bool)> {
    let spelling = SPELLINGS.get(name.len())?.iter().find(|spelling| spelling.name == name)?;
    Some((spelling.attribute, spelling.is_present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_of_one_attribute() {
        let names: Vec<_> = SPELLINGS.iter().flatten().map(|spelling| spelling.name).collect();
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        for (index, attribute) in ALL.iter().enumerate() {
            assert_eq!((attribute.index, find(attribute.name)), (index, Some((*attribute, true))), "{attribute}");
            for earlier in EARLIER[index] {
                assert_eq!(find(earlier), Some((*attribute, false)), "{earlier}");
            }
        }
        for name in ["", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion"] {
            assert_eq!(find(name), None, "{name}");
        }
    }
}
