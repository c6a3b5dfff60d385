//! What a call used, and its attributes.

use super::attributes::{Attributes, Reader};
use super::{InvalidEvent, attribute};

/// One list of the counts: each is a field, and an attribute, which is left out when it is 0.
macro_rules! counts {
    ($($(#[$doc:meta])* $count:ident = $attribute:ident,)+) => {
        /// Token counts in OpenTelemetry's meaning; what a provider does not tell is 0.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct TokenCounts { $($(#[$doc])* pub $count: u64,)+ }

        impl TokenCounts {
            /// The largest of the counts.
            pub fn largest(&self) -> u64 {
                [$(self.$count),+].into_iter().fold(0, u64::max)
            }

            pub(super) fn write(&self, attributes: &mut Attributes<'_>) {
                $(attributes.count(attribute::$attribute, Some(self.$count).filter(|count| *count != 0));)+
            }

            pub(super) fn read(from: &Reader<'_>) -> Result<TokenCounts, InvalidEvent> {
                Ok(TokenCounts { $($count: from.count(attribute::$attribute)?.unwrap_or(0),)+ })
            }
        }
    };
}

counts! {
    /// All input, cache reads and writes included.
    input = INPUT_TOKENS,
    /// All output, reasoning included.
    output = OUTPUT_TOKENS,
    /// Of `input`, read from a cache.
    cache_read = CACHE_READ,
    /// Of `input`, written to a cache.
    cache_creation = CACHE_CREATION,
    /// Of `cache_creation`, kept for five minutes (Anthropic's `ephemeral_5m`).
    cache_creation_5m = CACHE_CREATION_5M,
    /// Of `cache_creation`, kept for an hour (Anthropic's `ephemeral_1h`).
    cache_creation_1h = CACHE_CREATION_1H,
    /// Of `output`, spent on reasoning.
    reasoning = REASONING,
    /// Of `input`, audio.
    audio_input = AUDIO_INPUT,
    /// Of `output`, audio.
    audio_output = AUDIO_OUTPUT,
    /// Input of passes that `input` leaves out, such as Anthropic's compaction.
    extra_input = EXTRA_INPUT,
    /// Output of passes that `output` leaves out.
    extra_output = EXTRA_OUTPUT,
    /// Input as the provider bills it where that differs from its tokens (Cohere's billed units).
    billed_input = BILLED_INPUT,
    /// Output as the provider bills it.
    billed_output = BILLED_OUTPUT,
    /// Uses of the provider's own tools, billed beside tokens (web searches).
    tool_requests = TOOL_REQUESTS,
    /// Images that were made, by APIs that make nothing else.
    images = IMAGES,
}

impl TokenCounts {
    /// Adds what a cache was read and written for to the input, where that cannot be in it already: earlier instrumentations
    /// told Anthropic's counts as they came.
    pub(super) fn include_cache(&mut self) {
        let cached = self.cache_read.saturating_add(self.cache_creation);
        if cached > self.input {
            self.input = self.input.saturating_add(cached);
        }
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
