//! Cohere v2 chat: a body, or events of which `message-end` has the usage. What the model read and wrote counts; billed units,
//! which leave the preamble out, stand in only where that is absent. Source: Cohere's API reference, "Chat" and "Chat with
//! streaming".

use super::{Count, EndsWith, Field, Format, Spec, Text, cohere_v1};

pub(crate) static SPEC: Spec = Spec {
    format: Format::CohereV2,
    name: "cohere-v2",
    operation: "chat",
    request_path: "/v2/chat",
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"], &["delta", "usage"]],
    counts: &[
        (&["tokens", "input_tokens"], Count::Input),
        (&["tokens", "output_tokens"], Count::Output),
        (&["billed_units", "input_tokens"], Count::BilledInput),
        (&["billed_units", "output_tokens"], Count::BilledOutput),
        (&["cached_tokens"], Count::CacheRead),
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["finish_reason"], Field::Text(Text::FinishReason)),
        (&["delta", "finish_reason"], Field::Text(Text::FinishReason)),
        (&["delta", "message"], Field::Mark),
        (&["delta", "usage"], Field::Mark),
        (&["usage", "tokens"], Field::Mark),
        (&["usage", "billed_units"], Field::Mark),
    ],
    signals: &["usage", "finish_reason"],
    usage: cohere_v1::usage,
};
