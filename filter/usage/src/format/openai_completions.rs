//! OpenAI's older text completions. Source: OpenAI's API reference, "The completion object".

use super::{Channel, Count, Counts, EndsWith, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiCompletions,
    name: "openai-completions",
    operation: "text_completion",
    provider: "openai",
    endpoints: &["/completions"],
    ends_with: EndsWith::UsageAndReason,
    usage_at: &[&["usage"]],
    counts: &[
        (&["prompt_tokens"], Count::Input),
        (&["completion_tokens"], Count::Output),
        (&["prompt_tokens_details", "cached_tokens"], Count::CacheRead),
        (&["completion_tokens_details", "reasoning_tokens"], Count::Reasoning),
    ],
    details: &[],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["model"], Text::Model),
        (&["choices[]", "finish_reason"], Text::FinishReason),
    ],
    marks: &[&["choices[]", "text"]],
    content_at: &[&["choices[]"]],
    content: &[(&["text"], Channel::Text)],
    usage: Counts::inclusive,
};
