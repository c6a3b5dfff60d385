//! Cohere v1 chat: a body, or JSON lines of which the last embeds the whole response. Embeddings and reranks of v1 and v2 report
//! in the same way. Source: Cohere's API reference, v1, "Chat", "Embed" and "Rerank".

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::CohereV1,
    name: "cohere-v1",
    operation: "chat",
    provider: "cohere",
    endpoints: &["/v1/chat", "/v1/embed", "/v2/embed", "/v1/rerank", "/v2/rerank"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["meta"], &["response", "meta"]],
    counts: &[
        (&["tokens", "input_tokens"], Count::Input),
        (&["tokens", "output_tokens"], Count::Output),
        (&["billed_units", "input_tokens"], Count::BilledInput),
        (&["billed_units", "output_tokens"], Count::BilledOutput),
        (&["billed_units", "search_units"], Count::ToolRequests),
    ],
    details: &[],
    texts: &[
        (&["response_id"], Text::ResponseId),
        (&["response", "response_id"], Text::ResponseId),
        (&["finish_reason"], Text::FinishReason),
        (&["response", "finish_reason"], Text::FinishReason),
    ],
    // On Bedrock, embeddings report nothing, but what they are.
    marks: &[&["is_finished"], &["meta", "tokens"], &["meta", "billed_units"], &["response_type"]],
    content_at: &[&[]],
    content: &[
        (&["text"], Channel::Text),
        (&["tool_calls[]", "name"], Channel::Text),
        (&["tool_calls[]", "parameters", ALL_BELOW], Channel::Text),
        (&["tool_call_delta", "name"], Channel::Text),
        (&["tool_call_delta", "parameters"], Channel::Text),
    ],
    usage,
};

/// The tokens that the model read and wrote, or else those that are billed.
pub(super) fn usage(counts: &Counts) -> Option<TokenUsage> {
    let input = counts.get(Count::Input).or(counts.get(Count::BilledInput));
    let output = counts.get(Count::Output).or(counts.get(Count::BilledOutput));
    // A rerank is charged by searches, and may report nothing else.
    input.or(output).or(counts.get(Count::ToolRequests))?;
    Some(TokenUsage { input: input.unwrap_or(0), output: output.unwrap_or(0), ..counts.beside_totals() })
}
