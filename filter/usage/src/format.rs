//! The formats, one file each, and what they have in common: where a count stands, and how the counts become
//! [`TokenUsage`].
//!
//! To add a format: a file with a [`Spec`], a line in [`TABLE`], a variant of [`Format`], fixtures.

mod anthropic;
mod bedrock_converse;
mod bedrock_invoke;
mod cohere_v1;
mod cohere_v2;
mod gemini;
mod gemini_interactions;
mod ollama;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;

/// A provider's way to report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// OpenAI chat completions, and every provider that is compatible with them.
    OpenAiChat,
    /// OpenAI's older text completions.
    OpenAiCompletions,
    /// OpenAI embeddings.
    OpenAiEmbeddings,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini and Vertex: generateContent, streamed or not.
    Gemini,
    /// Gemini Interactions.
    GeminiInteractions,
    /// Cohere v2.
    CohereV2,
    /// Cohere v1.
    CohereV1,
    /// Ollama's own API.
    Ollama,
    /// Bedrock Converse.
    BedrockConverse,
    /// Bedrock InvokeModel streams of models that have no format of their own here.
    BedrockInvoke,
}

impl Format {
    /// The format's name, as in `openai-chat`.
    pub fn as_str(self) -> &'static str {
        self.spec().name
    }

    /// OpenTelemetry's `gen_ai.operation.name`, as in `chat`.
    pub fn operation(self) -> &'static str {
        self.spec().operation
    }

    pub(crate) fn spec(self) -> &'static Spec {
        match self {
            Format::OpenAiChat => &openai_chat::SPEC,
            Format::OpenAiCompletions => &openai_completions::SPEC,
            Format::OpenAiEmbeddings => &openai_embeddings::SPEC,
            Format::OpenAiResponses => &openai_responses::SPEC,
            Format::Anthropic => &anthropic::SPEC,
            Format::Gemini => &gemini::SPEC,
            Format::GeminiInteractions => &gemini_interactions::SPEC,
            Format::CohereV2 => &cohere_v2::SPEC,
            Format::CohereV1 => &cohere_v1::SPEC,
            Format::Ollama => &ollama::SPEC,
            Format::BedrockConverse => &bedrock_converse::SPEC,
            Format::BedrockInvoke => &bedrock_invoke::SPEC,
        }
    }
}

/// All formats. Where a response bears the marks of several, the first here is meant.
pub(crate) static TABLE: &[&Spec] = &[
    &openai_chat::SPEC,
    &openai_completions::SPEC,
    &openai_embeddings::SPEC,
    &openai_responses::SPEC,
    &anthropic::SPEC,
    &gemini::SPEC,
    &gemini_interactions::SPEC,
    &cohere_v2::SPEC,
    &cohere_v1::SPEC,
    &ollama::SPEC,
    &bedrock_converse::SPEC,
    &bedrock_invoke::SPEC,
];

/// Tokens as OpenTelemetry counts them: the sub-counts are part of their totals. A sub-count stands as the provider
/// reported it, even where it is greater than its total.
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
    /// Output tokens that the model spent on reasoning.
    pub reasoning: u64,
}

/// A format: where it puts what, and what it means by it.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) format: Format,
    pub(crate) name: &'static str,
    pub(crate) operation: &'static str,
    /// A part of the request's path that speaks for this format where the response's content leaves it open.
    pub(crate) request_path: &'static str,
    /// What the end of a stream has, when nothing else says that it is the end.
    pub(crate) ends_with: EndsWith,
    /// The places of usage objects. The counts stand below each of them.
    pub(crate) usage_at: &'static [&'static [&'static str]],
    /// Paths below a usage object. Of several that give the same count the last in the response wins.
    pub(crate) counts: &'static [(&'static [&'static str], Count)],
    /// Paths of texts and marks.
    pub(crate) facts: &'static [(&'static [&'static str], Field)],
    /// Keys such that a document in which none of them has a value but null holds neither counts nor a finish reason.
    pub(crate) signals: &'static [&'static str],
    /// What was counted, in OpenTelemetry's terms; `None` when it is not enough to be a usage report.
    pub(crate) usage: fn(&Counts) -> Option<TokenUsage>,
}

impl Spec {
    /// All paths and what stands there. A segment that ends in `[]` is an array, and the path goes on in its elements.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<&'static str>, Field)> {
        let counts = self
            .usage_at
            .iter()
            .flat_map(|place| self.counts.iter().map(|(path, count)| ([*place, *path].concat(), Field::Count(*count))));
        counts.chain(self.facts.iter().map(|(path, field)| (path.to_vec(), *field)))
    }
}

/// What has been seen when a stream has told all that it had to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsWith {
    /// Usage, which comes once.
    Usage,
    /// Usage and a finish reason, in any order.
    UsageAndReason,
}

/// What a value tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// A number of tokens.
    Count(Count),
    /// A name or an id.
    Text(Text),
    /// Nothing but that the response has this format: any value but null will do.
    Mark,
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
    Reasoning,
    /// Input that is charged for, where that is reported beside what was read.
    BilledInput,
    BilledOutput,
}

/// The texts that formats report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Model,
    ResponseId,
    FinishReason,
}

/// The last value that was seen of each count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts([Option<u64>; Count::BilledOutput as usize + 1]);

impl Counts {
    /// The last value, or `None` when the response did not have this count.
    pub(crate) fn get(&self, count: Count) -> Option<u64> {
        self.0.get(count as usize).copied().flatten()
    }

    /// The last value, 0 when the response did not have this count.
    pub(crate) fn or_zero(&self, count: Count) -> u64 {
        self.get(count).unwrap_or(0)
    }

    /// What was counted, where totals are reported as they are meant here; `None` when neither total was.
    pub(crate) fn inclusive(&self) -> Option<TokenUsage> {
        self.get(Count::Input).or(self.get(Count::Output))?;
        Some(TokenUsage {
            input: self.or_zero(Count::Input),
            output: self.or_zero(Count::Output),
            cache_read: self.or_zero(Count::CacheRead),
            cache_creation: self.or_zero(Count::CacheCreation),
            reasoning: self.or_zero(Count::Reasoning),
        })
    }

    /// The same where the reported input leaves cache reads and writes out.
    pub(crate) fn beside_cache(&self) -> Option<TokenUsage> {
        let usage = self.inclusive()?;
        let cached = usage.cache_read.saturating_add(usage.cache_creation);
        Some(TokenUsage { input: usage.input.saturating_add(cached), ..usage })
    }

    pub(crate) fn set(&mut self, count: Count, value: u64) {
        if let Some(slot) = self.0.get_mut(count as usize) {
            *slot = Some(value);
        }
    }
}

/// A set of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formats(u32);

impl Formats {
    pub(crate) const NONE: Formats = Formats(0);
    pub(crate) const ALL: Formats = Formats(u32::MAX);

    pub(crate) fn only(format: Format) -> Formats {
        Formats(1 << format as u32)
    }

    pub(crate) fn and(self, other: Formats) -> Formats {
        Formats(self.0 | other.0)
    }

    pub(crate) fn common(self, other: Formats) -> Formats {
        Formats(self.0 & other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The format of the set that stands first in [`TABLE`].
    pub(crate) fn first(self) -> Option<Format> {
        TABLE.iter().map(|spec| spec.format).find(|format| !self.common(Formats::only(*format)).is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::json::{MAX_KNOWN_DEPTH, MAX_TEXT_BYTES};

    #[test]
    fn a_path_means_the_same_to_all_formats() {
        let mut meaning: HashMap<_, Field> = HashMap::new();
        for spec in TABLE {
            for (path, field) in spec.rows() {
                assert_eq!(*meaning.entry(path.clone()).or_insert(field), field, "{path:?} in {}", spec.name);
            }
        }
    }

    #[test]
    fn every_count_and_finish_reason_has_a_signal_on_its_path() {
        for spec in TABLE {
            for (path, field) in spec.rows() {
                if matches!(field, Field::Count(_) | Field::Text(Text::FinishReason)) {
                    let signals = path.iter().filter(|key| spec.signals.contains(&key.trim_end_matches("[]")));
                    assert!(signals.count() > 0, "{path:?} in {}", spec.name);
                }
            }
        }
    }

    #[test]
    fn every_path_is_within_the_depth_that_the_scanner_keeps() {
        for (path, _) in TABLE.iter().flat_map(|spec| spec.rows()) {
            let arrays = path.iter().filter(|key| key.ends_with("[]")).count();
            // One more for an array around everything.
            assert!(path.len() + arrays < MAX_KNOWN_DEPTH, "{path:?}");
            assert!(path.iter().all(|key| key.len() < MAX_TEXT_BYTES), "{path:?}");
        }
    }

    #[test]
    fn formats_have_names_of_their_own_and_stand_in_the_table_once() {
        for (at, spec) in TABLE.iter().enumerate() {
            assert!(std::ptr::eq(*spec, spec.format.spec()), "{}", spec.name);
            assert!(TABLE.iter().skip(at + 1).all(|other| other.name != spec.name), "{}", spec.name);
        }
    }
}
