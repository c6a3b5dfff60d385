//! Anthropic Messages, from Anthropic itself, Vertex or, wrapped in `bytes`, Bedrock's InvokeModel stream. `message_start`
//! has the input, `message_delta` the output so far and often the input again: the last value of each counts. Source:
//! Anthropic's API reference, "Messages" and "Streaming messages".

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::Anthropic,
    name: "anthropic",
    operation: "chat",
    provider: "anthropic",
    endpoints: &["/messages", ":rawPredict", ":streamRawPredict"],
    ends_with: EndsWith::UsageAndReason,
    usage_at: &[&["usage"], &["message", "usage"], &["bytes", "usage"], &["bytes", "message", "usage"]],
    counts: &[
        (&["input_tokens"], Count::Input),
        (&["output_tokens"], Count::Output),
        (&["cache_read_input_tokens"], Count::CacheRead),
        (&["cache_creation_input_tokens"], Count::CacheCreation),
        (&["output_tokens_details", "thinking_tokens"], Count::Reasoning),
        (&["cache_creation", "ephemeral_5m_input_tokens"], Count::CacheCreation5m),
        (&["cache_creation", "ephemeral_1h_input_tokens"], Count::CacheCreation1h),
        (&["server_tool_use", "web_search_requests"], Count::ToolRequests),
    ],
    details: &[
        (&["iterations"], Field::Passes),
        (&["iterations[]", "input_tokens"], Field::Sum(Count::PassesInput)),
        (&["iterations[]", "cache_read_input_tokens"], Field::Sum(Count::PassesInput)),
        (&["iterations[]", "cache_creation_input_tokens"], Field::Sum(Count::PassesInput)),
        (&["iterations[]", "output_tokens"], Field::Sum(Count::PassesOutput)),
    ],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["message", "id"], Text::ResponseId),
        (&["bytes", "message", "id"], Text::ResponseId),
        (&["model"], Text::Model),
        (&["message", "model"], Text::Model),
        (&["bytes", "message", "model"], Text::Model),
        (&["stop_reason"], Text::FinishReason),
        (&["delta", "stop_reason"], Text::FinishReason),
        (&["bytes", "delta", "stop_reason"], Text::FinishReason),
    ],
    marks: &[&["message", "usage"], &["bytes", "message", "usage"], &["content"], &["content_block"]],
    content_at: &[&[], &["bytes"]],
    content: &[
        // The deltas of a stream.
        (&["delta", "text"], Channel::Text),
        (&["delta", "thinking"], Channel::Text),
        (&["delta", "partial_json"], Channel::Text),
        // A body.
        (&["content[]", "text"], Channel::Text),
        (&["content[]", "thinking"], Channel::Text),
        (&["content[]", "name"], Channel::Text),
        (&["content[]", "input", ALL_BELOW], Channel::Text),
    ],
    usage,
};

/// The passes together are what was used; what the totals leave out of that stands beside them.
fn usage(counts: &Counts) -> Option<TokenUsage> {
    let usage = counts.beside_cache()?;
    let beside = |passes: Count, total: u64| counts.or_zero(passes).saturating_sub(total);
    Some(TokenUsage {
        extra_input: beside(Count::PassesInput, usage.input),
        extra_output: beside(Count::PassesOutput, usage.output),
        ..usage
    })
}
