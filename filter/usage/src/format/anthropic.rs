//! Anthropic Messages, from Anthropic itself, Vertex or, wrapped in `bytes`, Bedrock's InvokeModel stream. `message_start`
//! has the input, `message_delta` the output so far and often the input again: the last value of each counts. Source:
//! Anthropic's API reference, "Messages" and "Streaming messages".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::Anthropic,
    name: "anthropic",
    operation: "chat",
    request_path: "/messages",
    ends_with: EndsWith::UsageAndReason,
    usage_at: &[&["usage"], &["message", "usage"], &["bytes", "usage"], &["bytes", "message", "usage"]],
    counts: &[
        (&["input_tokens"], Count::Input),
        (&["output_tokens"], Count::Output),
        (&["cache_read_input_tokens"], Count::CacheRead),
        (&["cache_creation_input_tokens"], Count::CacheCreation),
        (&["output_tokens_details", "thinking_tokens"], Count::Reasoning),
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["message", "id"], Field::Text(Text::ResponseId)),
        (&["bytes", "message", "id"], Field::Text(Text::ResponseId)),
        (&["model"], Field::Text(Text::Model)),
        (&["message", "model"], Field::Text(Text::Model)),
        (&["bytes", "message", "model"], Field::Text(Text::Model)),
        (&["stop_reason"], Field::Text(Text::FinishReason)),
        (&["delta", "stop_reason"], Field::Text(Text::FinishReason)),
        (&["bytes", "delta", "stop_reason"], Field::Text(Text::FinishReason)),
        (&["message", "usage"], Field::Mark),
        (&["bytes", "message", "usage"], Field::Mark),
        (&["content"], Field::Mark),
        (&["content_block"], Field::Mark),
    ],
    signals: &["usage", "stop_reason"],
    usage: Counts::beside_cache,
};
