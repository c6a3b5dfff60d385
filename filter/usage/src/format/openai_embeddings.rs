//! OpenAI embeddings: input tokens only. Source: OpenAI's API reference, "The embedding object".

use super::{Count, Counts, EndsWith, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiEmbeddings,
    name: "openai-embeddings",
    operation: "embeddings",
    provider: "openai",
    endpoints: &["/embeddings"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"]],
    counts: &[(&["prompt_tokens"], Count::Input)],
    details: &[],
    texts: &[(&["model"], Text::Model)],
    marks: &[&["data[]", "embedding"]],
    content_at: &[],
    content: &[],
    usage: Counts::inclusive,
};
