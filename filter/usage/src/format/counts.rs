//! The numbers that formats report, and what they become.

/// Tokens as OpenTelemetry counts them: the sub-counts are part of their totals. A sub-count stands as the provider
/// reported it, even where it is greater than its total. What is not reported is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// All input tokens, cache reads and writes among them.
    pub input: u64,
    /// All output tokens, reasoning among them.
    pub output: u64,
    /// Input tokens that were read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens that were written to the provider's cache.
    pub cache_creation: u64,
    /// Of `cache_creation`: those that are kept for 5 minutes (Anthropic).
    pub cache_creation_5m: u64,
    /// Of `cache_creation`: those that are kept for an hour (Anthropic).
    pub cache_creation_1h: u64,
    /// Output tokens that the model spent on reasoning.
    pub reasoning: u64,
    /// Input tokens that stand for sound.
    pub audio_input: u64,
    /// Output tokens that stand for sound.
    pub audio_output: u64,
    /// Input tokens of passes that `input` leaves out, their cache reads and writes among them: compaction and advisors
    /// (Anthropic, `usage.iterations`).
    pub extra_input: u64,
    /// Output tokens of passes that `output` leaves out.
    pub extra_output: u64,
    /// Input tokens that are charged for, where that is reported beside what was read (Cohere).
    pub billed_input: u64,
    /// Output tokens that are charged for, where that is reported beside what was written (Cohere).
    pub billed_output: u64,
    /// Searches and other uses of the provider's own tools that are charged for beside tokens.
    pub tool_requests: u64,
    /// Images that were made, where the API makes nothing else.
    pub images: u64,
}

/// The numbers that formats report. Which of them include which others is the format's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Input,
    /// Input that tools add beside the prompt.
    ToolInput,
    Output,
    Total,
    CacheRead,
    CacheCreation,
    CacheCreation5m,
    CacheCreation1h,
    Reasoning,
    AudioInput,
    AudioOutput,
    /// Input of all passes together, where a call took several.
    PassesInput,
    PassesOutput,
    /// Input that is charged for, where that is reported beside what was read.
    BilledInput,
    BilledOutput,
    ToolRequests,
    /// Images of a list.
    Images,
    /// Images that events tell of.
    ImageEvents,
}

/// The last value that was seen of each count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts([Option<u64>; Count::ImageEvents as usize + 1]);

impl Counts {
    /// The last value, or `None` when the response did not have this count.
    pub(crate) fn get(&self, count: Count) -> Option<u64> {
        self.0.get(count as usize).copied().flatten()
    }

    /// The last value, 0 when the response did not have this count.
    pub(crate) fn or_zero(&self, count: Count) -> u64 {
        self.get(count).unwrap_or(0)
    }

    /// Replaces the value.
    pub(crate) fn set(&mut self, count: Count, value: u64) {
        if let Some(slot) = self.0.get_mut(count as usize) {
            *slot = Some(value);
        }
    }

    /// Adds to the value.
    pub(crate) fn add(&mut self, count: Count, value: u64) {
        self.set(count, self.or_zero(count).saturating_add(value));
    }

    /// What is counted beside the totals: these are 0 here.
    pub(crate) fn beside_totals(&self) -> TokenUsage {
        TokenUsage {
            input: 0,
            output: 0,
            cache_read: self.or_zero(Count::CacheRead),
            cache_creation: self.or_zero(Count::CacheCreation),
            cache_creation_5m: self.or_zero(Count::CacheCreation5m),
            cache_creation_1h: self.or_zero(Count::CacheCreation1h),
            reasoning: self.or_zero(Count::Reasoning),
            audio_input: self.or_zero(Count::AudioInput),
            audio_output: self.or_zero(Count::AudioOutput),
            extra_input: 0,
            extra_output: 0,
            billed_input: self.or_zero(Count::BilledInput),
            billed_output: self.or_zero(Count::BilledOutput),
            tool_requests: self.or_zero(Count::ToolRequests),
            images: 0,
        }
    }

    /// What was counted, where totals are reported as they are meant here; `None` when neither total was.
    pub(crate) fn inclusive(&self) -> Option<TokenUsage> {
        self.get(Count::Input).or(self.get(Count::Output))?;
        let (input, output) = (self.or_zero(Count::Input), self.or_zero(Count::Output));
        Some(TokenUsage { input, output, ..self.beside_totals() })
    }

    /// The same where the reported input leaves cache reads and writes out.
    pub(crate) fn beside_cache(&self) -> Option<TokenUsage> {
        let usage = self.inclusive()?;
        let cached = usage.cache_read.saturating_add(usage.cache_creation);
        Some(TokenUsage { input: usage.input.saturating_add(cached), ..usage })
    }

    /// What was counted, where images are made: they are told by being there, tokens may be told or not.
    pub(crate) fn with_images(&self) -> Option<TokenUsage> {
        let images = self.get(Count::Images).or(self.get(Count::ImageEvents));
        let (input, output) = (self.get(Count::Input), self.get(Count::Output));
        images.or(input).or(output)?;
        let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
        Some(TokenUsage { input, output, images: images.unwrap_or(0), ..self.beside_totals() })
    }
}
