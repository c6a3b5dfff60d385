//! OpenAI Responses: a body is the response itself, a stream's events embed it, and the last of them has the usage. Source:
//! OpenAI's API reference, "The response object" and "Streaming events".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiResponses,
    name: "openai-responses",
    operation: "chat",
    request_path: "/responses",
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"], &["response", "usage"]],
    counts: &[
        (&["input_tokens"], Count::Input),
        (&["output_tokens"], Count::Output),
        (&["input_tokens_details", "cached_tokens"], Count::CacheRead),
        (&["input_tokens_details", "cache_write_tokens"], Count::CacheCreation),
        (&["output_tokens_details", "reasoning_tokens"], Count::Reasoning),
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["response", "id"], Field::Text(Text::ResponseId)),
        (&["model"], Field::Text(Text::Model)),
        (&["response", "model"], Field::Text(Text::Model)),
        (&["incomplete_details", "reason"], Field::Text(Text::FinishReason)),
        (&["response", "incomplete_details", "reason"], Field::Text(Text::FinishReason)),
        (&["output[]"], Field::Mark),
        (&["response", "output"], Field::Mark),
    ],
    signals: &["usage", "incomplete_details"],
    usage: Counts::inclusive,
};
