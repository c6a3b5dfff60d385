//! OpenAI's older text completions. Source: OpenAI's API reference, "The completion object".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiCompletions,
    name: "openai-completions",
    operation: "text_completion",
    request_path: "/completions",
    ends_with: EndsWith::UsageAndReason,
    usage_at: &[&["usage"]],
    counts: &[
        (&["prompt_tokens"], Count::Input),
        (&["completion_tokens"], Count::Output),
        (&["prompt_tokens_details", "cached_tokens"], Count::CacheRead),
        (&["completion_tokens_details", "reasoning_tokens"], Count::Reasoning),
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["model"], Field::Text(Text::Model)),
        (&["choices[]", "finish_reason"], Field::Text(Text::FinishReason)),
        (&["choices[]", "text"], Field::Mark),
    ],
    signals: &["usage", "finish_reason"],
    usage: Counts::inclusive,
};
