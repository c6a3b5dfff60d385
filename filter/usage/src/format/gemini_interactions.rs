//! Gemini Interactions: a body is the interaction, a stream's last event embeds it. Source: Google's API reference,
//! "Interactions".

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::GeminiInteractions,
    name: "gemini-interactions",
    operation: "generate_content",
    provider: "gcp.gemini",
    endpoints: &["/interactions"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"], &["interaction", "usage"]],
    counts: &[
        (&["total_input_tokens"], Count::Input),
        (&["total_tool_use_tokens"], Count::ToolInput),
        (&["total_output_tokens"], Count::Output),
        (&["total_thought_tokens"], Count::Reasoning),
        (&["total_cached_tokens"], Count::CacheRead),
    ],
    details: &[
        (&["input_tokens_by_modality[]"], Field::ByModality(Count::AudioInput)),
        (&["input_tokens_by_modality[]", "modality"], Field::Modality),
        (&["input_tokens_by_modality[]", "tokens"], Field::ModalityTokens),
        (&["output_tokens_by_modality[]"], Field::ByModality(Count::AudioOutput)),
        (&["output_tokens_by_modality[]", "modality"], Field::Modality),
        (&["output_tokens_by_modality[]", "tokens"], Field::ModalityTokens),
    ],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["interaction", "id"], Text::ResponseId),
        (&["model"], Text::Model),
        (&["interaction", "model"], Text::Model),
    ],
    marks: &[&["interaction"], &["steps"]],
    content_at: &[&[]],
    content: &[
        // The deltas of a stream.
        (&["delta", "text"], Channel::Text),
        (&["delta", "content", "text"], Channel::Text),
        (&["delta", "arguments", ALL_BELOW], Channel::Text),
        // A body.
        (&["steps[]", "content[]", "text"], Channel::Text),
        (&["steps[]", "summary[]", "text"], Channel::Text),
        (&["steps[]", "name"], Channel::Text),
        (&["steps[]", "arguments", ALL_BELOW], Channel::Text),
    ],
    usage,
};

/// Thoughts stand beside the output, tool use beside the input.
fn usage(counts: &Counts) -> Option<TokenUsage> {
    let usage = counts.inclusive()?;
    let input = usage.input.saturating_add(counts.or_zero(Count::ToolInput));
    Some(TokenUsage { input, output: usage.output.saturating_add(usage.reasoning), ..usage })
}
