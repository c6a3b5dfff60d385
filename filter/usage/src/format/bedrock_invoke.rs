//! Bedrock `InvokeModelWithResponseStream`: an event stream of the model's own JSON, wrapped in `bytes`, to whose last event
//! Bedrock adds its metrics. (A model whose format is known here is read as such.) Source: the Amazon Bedrock user guide,
//! "Inference request parameters and response fields".

use super::{Count, Counts, EndsWith, Field, Format, Spec};

pub(crate) static SPEC: Spec = Spec {
    format: Format::BedrockInvoke,
    name: "bedrock-invoke",
    operation: "chat",
    request_path: "/invoke",
    ends_with: EndsWith::Usage,
    usage_at: &[&["bytes", "amazon-bedrock-invocationMetrics"]],
    counts: &[
        (&["inputTokenCount"], Count::Input),
        (&["outputTokenCount"], Count::Output),
        (&["cacheReadInputTokenCount"], Count::CacheRead),
        (&["cacheWriteInputTokenCount"], Count::CacheCreation),
    ],
    facts: &[(&["bytes"], Field::Mark)],
    signals: &["amazon-bedrock-invocationMetrics"],
    usage: Counts::beside_cache,
};
