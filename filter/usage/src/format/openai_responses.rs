//! OpenAI Responses: a body is the response itself, a stream's events embed it, and the last of them has the usage. Source:
//! OpenAI's API reference, "The response object" and "Streaming events".

use super::{Channel, Count, Counts, EndsWith, ErrorPart, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiResponses,
    name: "openai-responses",
    operation: "chat",
    provider: "openai",
    endpoints: &["/responses", "/responses/compact"],
    ends_with: EndsWith::Usage,
    usage_at: &[&[], &["response"]],
    counts: &[
        (&["usage", "input_tokens"], Count::Input),
        (&["usage", "output_tokens"], Count::Output),
        (&["usage", "input_tokens_details", "cached_tokens"], Count::CacheRead),
        (&["usage", "input_tokens_details", "cache_write_tokens"], Count::CacheCreation),
        (&["usage", "output_tokens_details", "reasoning_tokens"], Count::Reasoning),
        // OpenAI's own searches, xAI's tools.
        (&["tool_usage", "web_search", "num_requests"], Count::ToolRequests),
        (&["usage", "num_server_side_tools_used"], Count::ToolRequests),
    ],
    // Of the event `error`.
    details: &[(&["message"], Field::Error(ErrorPart::Message))],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["response", "id"], Text::ResponseId),
        (&["model"], Text::Model),
        (&["response", "model"], Text::Model),
        (&["incomplete_details", "reason"], Text::FinishReason),
        (&["response", "incomplete_details", "reason"], Text::FinishReason),
    ],
    marks: &[&["output[]"], &["response", "output"]],
    content_at: &[&[]],
    content: &[
        // The deltas of a stream. Its other events repeat them.
        (&["delta"], Channel::Text),
        // A body.
        (&["output[]", "content[]", "text"], Channel::Text),
        (&["output[]", "content[]", "refusal"], Channel::Text),
        (&["output[]", "summary[]", "text"], Channel::Text),
        (&["output[]", "name"], Channel::Text),
        (&["output[]", "arguments"], Channel::Text),
        (&["output[]", "input"], Channel::Text),
        (&["output[]", "code"], Channel::Text),
    ],
    usage: Counts::inclusive,
};
