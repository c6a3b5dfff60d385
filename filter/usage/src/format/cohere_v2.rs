//! Cohere v2 chat: a body, or events of which `message-end` has the usage. What the model read and wrote counts; billed units,
//! which leave the preamble out, stand in only where that is absent. Source: Cohere's API reference, "Chat" and "Chat with
//! streaming".

use super::{Channel, Count, EndsWith, Format, Spec, Text, cohere_v1};

pub(crate) static SPEC: Spec = Spec {
    format: Format::CohereV2,
    name: "cohere-v2",
    operation: "chat",
    provider: "cohere",
    endpoints: &["/v2/chat"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"], &["delta", "usage"]],
    counts: &[
        (&["tokens", "input_tokens"], Count::Input),
        (&["tokens", "output_tokens"], Count::Output),
        (&["billed_units", "input_tokens"], Count::BilledInput),
        (&["billed_units", "output_tokens"], Count::BilledOutput),
        (&["cached_tokens"], Count::CacheRead),
    ],
    details: &[],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["finish_reason"], Text::FinishReason),
        (&["delta", "finish_reason"], Text::FinishReason),
    ],
    marks: &[&["delta", "message"], &["delta", "usage"], &["usage", "tokens"], &["usage", "billed_units"]],
    content_at: &[&[]],
    content: &[
        // The deltas of a stream.
        (&["delta", "message", "content", "text"], Channel::Text),
        (&["delta", "message", "content", "thinking"], Channel::Text),
        (&["delta", "message", "tool_plan"], Channel::Text),
        (&["delta", "message", "tool_calls", "function", "name"], Channel::Text),
        (&["delta", "message", "tool_calls", "function", "arguments"], Channel::Text),
        // A body.
        (&["message", "content[]", "text"], Channel::Text),
        (&["message", "content[]", "thinking"], Channel::Text),
        (&["message", "tool_plan"], Channel::Text),
        (&["message", "tool_calls[]", "function", "name"], Channel::Text),
        (&["message", "tool_calls[]", "function", "arguments"], Channel::Text),
    ],
    usage: cohere_v1::usage,
};
