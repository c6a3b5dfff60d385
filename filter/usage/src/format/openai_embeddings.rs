//! OpenAI embeddings: input tokens only. Source: OpenAI's API reference, "The embedding object".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiEmbeddings,
    name: "openai-embeddings",
    operation: "embeddings",
    request_path: "/embeddings",
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"]],
    counts: &[(&["prompt_tokens"], Count::Input)],
    facts: &[(&["model"], Field::Text(Text::Model)), (&["data[]", "embedding"], Field::Mark)],
    signals: &["usage"],
    usage: Counts::inclusive,
};
