//! Gemini Interactions: a body is the interaction, a stream's last event embeds it. Source: Google's API reference,
//! "Interactions".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::GeminiInteractions,
    name: "gemini-interactions",
    operation: "generate_content",
    request_path: "/interactions",
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"], &["interaction", "usage"]],
    counts: &[
        (&["total_input_tokens"], Count::Input),
        (&["total_tool_use_tokens"], Count::ToolInput),
        (&["total_output_tokens"], Count::Output),
        (&["total_thought_tokens"], Count::Reasoning),
        (&["total_cached_tokens"], Count::CacheRead),
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["interaction", "id"], Field::Text(Text::ResponseId)),
        (&["model"], Field::Text(Text::Model)),
        (&["interaction", "model"], Field::Text(Text::Model)),
        (&["interaction"], Field::Mark),
        (&["steps"], Field::Mark),
    ],
    signals: &["usage"],
    usage,
};

/// Thoughts stand beside the output, tool use beside the input.
fn usage(counts: &Counts) -> Option<TokenUsage> {
    let usage = counts.inclusive()?;
    let input = usage.input.saturating_add(counts.or_zero(Count::ToolInput));
    Some(TokenUsage { input, output: usage.output.saturating_add(usage.reasoning), ..usage })
}
