//! Ollama's own API, `/api/chat` and `/api/generate`: a body, or JSON lines of which the last, with `done: true`, has the
//! counts. A prompt that was cached may have no count. Source: Ollama's `docs/api.md`.

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::Ollama,
    name: "ollama",
    operation: "chat",
    provider: "ollama",
    endpoints: &["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"],
    ends_with: EndsWith::Usage,
    usage_at: &[&[]],
    counts: &[(&["prompt_eval_count"], Count::Input), (&["eval_count"], Count::Output)],
    details: &[],
    texts: &[(&["model"], Text::Model), (&["done_reason"], Text::FinishReason)],
    marks: &[&["done"]],
    content_at: &[&[]],
    content: &[
        (&["message", "content"], Channel::Text),
        (&["message", "thinking"], Channel::Text),
        (&["message", "tool_calls[]", "function", "name"], Channel::Text),
        (&["message", "tool_calls[]", "function", "arguments", ALL_BELOW], Channel::Text),
        (&["response"], Channel::Text),
        (&["thinking"], Channel::Text),
    ],
    usage: Counts::inclusive,
};
