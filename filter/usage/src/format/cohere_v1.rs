//! Cohere v1 chat: a body, or JSON lines of which the last embeds the whole response. Source: Cohere's API reference, v1,
//! "Chat".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::CohereV1,
    name: "cohere-v1",
    operation: "chat",
    request_path: "/v1/chat",
    ends_with: EndsWith::Usage,
    usage_at: &[&["meta"], &["response", "meta"]],
    counts: &[
        (&["tokens", "input_tokens"], Count::Input),
        (&["tokens", "output_tokens"], Count::Output),
        (&["billed_units", "input_tokens"], Count::BilledInput),
        (&["billed_units", "output_tokens"], Count::BilledOutput),
    ],
    facts: &[
        (&["response_id"], Field::Text(Text::ResponseId)),
        (&["response", "response_id"], Field::Text(Text::ResponseId)),
        (&["finish_reason"], Field::Text(Text::FinishReason)),
        (&["response", "finish_reason"], Field::Text(Text::FinishReason)),
        (&["is_finished"], Field::Mark),
        (&["meta", "tokens"], Field::Mark),
        (&["meta", "billed_units"], Field::Mark),
    ],
    signals: &["meta", "finish_reason"],
    usage,
};

/// The tokens that the model read and wrote, or else those that are billed.
pub(super) fn usage(counts: &Counts) -> Option<TokenUsage> {
    let input = counts.get(Count::Input).or(counts.get(Count::BilledInput));
    let output = counts.get(Count::Output).or(counts.get(Count::BilledOutput));
    input.or(output)?;
    Some(TokenUsage {
        input: input.unwrap_or(0),
        output: output.unwrap_or(0),
        cache_read: counts.or_zero(Count::CacheRead),
        ..TokenUsage::default()
    })
}
