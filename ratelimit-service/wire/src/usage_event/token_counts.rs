//! What a call used, and its attributes.

use super::attributes::{Attributes, Reader};
use super::{InvalidEvent, attribute};

/// Token counts in OpenTelemetry's meaning; what a provider does not tell is 0.
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
    /// Of `cache_creation`, kept for five minutes (Anthropic's `ephemeral_5m`).
    pub cache_creation_5m: u64,
    /// Of `cache_creation`, kept for an hour (Anthropic's `ephemeral_1h`).
    pub cache_creation_1h: u64,
    /// Of `output`, spent on reasoning.
    pub reasoning: u64,
    /// Of `input`, audio.
    pub audio_input: u64,
    /// Of `output`, audio.
    pub audio_output: u64,
    /// Input of passes that `input` leaves out, such as Anthropic's compaction.
    pub extra_input: u64,
    /// Output of passes that `output` leaves out.
    pub extra_output: u64,
    /// Input as the provider bills it where that differs from its tokens (Cohere's billed units).
    pub billed_input: u64,
    /// Output as the provider bills it.
    pub billed_output: u64,
    /// Uses of the provider's own tools, billed beside tokens (web searches).
    pub tool_requests: u64,
}

impl TokenCounts {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    pub(super) fn write(&self, attributes: &mut Attributes) {
        attributes.count(attribute::INPUT_TOKENS, Some(self.input));
        attributes.count(attribute::OUTPUT_TOKENS, Some(self.output));
        attributes.count(attribute::CACHE_READ, Some(self.cache_read));
        attributes.count(attribute::CACHE_CREATION, Some(self.cache_creation));
        attributes.count(attribute::REASONING, Some(self.reasoning));
        attributes.count_if_any(attribute::CACHE_CREATION_5M, self.cache_creation_5m);
        attributes.count_if_any(attribute::CACHE_CREATION_1H, self.cache_creation_1h);
        attributes.count_if_any(attribute::AUDIO_INPUT, self.audio_input);
        attributes.count_if_any(attribute::AUDIO_OUTPUT, self.audio_output);
        attributes.count_if_any(attribute::EXTRA_INPUT, self.extra_input);
        attributes.count_if_any(attribute::EXTRA_OUTPUT, self.extra_output);
        attributes.count_if_any(attribute::BILLED_INPUT, self.billed_input);
        attributes.count_if_any(attribute::BILLED_OUTPUT, self.billed_output);
        attributes.count_if_any(attribute::TOOL_REQUESTS, self.tool_requests);
    }

    pub(super) fn read(from: &Reader) -> Result<TokenCounts, InvalidEvent> {
        let count = |key| Ok(from.count(key)?.unwrap_or(0));
        Ok(TokenCounts {
            input: count(attribute::INPUT_TOKENS)?,
            output: count(attribute::OUTPUT_TOKENS)?,
            cache_read: count(attribute::CACHE_READ)?,
            cache_creation: count(attribute::CACHE_CREATION)?,
            cache_creation_5m: count(attribute::CACHE_CREATION_5M)?,
            cache_creation_1h: count(attribute::CACHE_CREATION_1H)?,
            reasoning: count(attribute::REASONING)?,
            audio_input: count(attribute::AUDIO_INPUT)?,
            audio_output: count(attribute::AUDIO_OUTPUT)?,
            extra_input: count(attribute::EXTRA_INPUT)?,
            extra_output: count(attribute::EXTRA_OUTPUT)?,
            billed_input: count(attribute::BILLED_INPUT)?,
            billed_output: count(attribute::BILLED_OUTPUT)?,
            tool_requests: count(attribute::TOOL_REQUESTS)?,
        })
    }
}
