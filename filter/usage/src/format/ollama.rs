//! Ollama's own API, `/api/chat` and `/api/generate`: a body, or JSON lines of which the last, with `done: true`, has the
//! counts. A prompt that was cached may have no count. Source: Ollama's `docs/api.md`.

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::Ollama,
    name: "ollama",
    operation: "chat",
    request_path: "/api/",
    ends_with: EndsWith::Usage,
    usage_at: &[&[]],
    counts: &[(&["prompt_eval_count"], Count::Input), (&["eval_count"], Count::Output)],
    facts: &[
        (&["model"], Field::Text(Text::Model)),
        (&["done_reason"], Field::Text(Text::FinishReason)),
        (&["done"], Field::Mark),
    ],
    signals: &["prompt_eval_count", "eval_count", "done_reason"],
    usage: Counts::inclusive,
};
