//! Bedrock `InvokeModelWithResponseStream`: an event stream of the model's own JSON, wrapped in `bytes`, to whose last event
//! Bedrock adds its metrics. (A model whose format is known here is read as such.) Source: the Amazon Bedrock user guide,
//! "Inference request parameters and response fields".

use super::{Channel, Count, Counts, EndsWith, Format, Spec};

pub(crate) static SPEC: Spec = Spec {
    format: Format::BedrockInvoke,
    name: "bedrock-invoke",
    operation: "chat",
    provider: "aws.bedrock",
    endpoints: &["/invoke", "/invoke-with-response-stream"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["bytes", "amazon-bedrock-invocationMetrics"]],
    counts: &[
        (&["inputTokenCount"], Count::Input),
        (&["outputTokenCount"], Count::Output),
        (&["cacheReadInputTokenCount"], Count::CacheRead),
        (&["cacheWriteInputTokenCount"], Count::CacheCreation),
    ],
    details: &[],
    texts: &[],
    marks: &[&["bytes"]],
    content_at: &[&["bytes"]],
    content: &[
        (&["generation"], Channel::Text),
        (&["outputText"], Channel::Text),
        (&["text"], Channel::Text),
        (&["contentBlockDelta", "delta", "text"], Channel::Text),
        (&["contentBlockDelta", "delta", "toolUse", "input"], Channel::Text),
        (&["contentBlockDelta", "delta", "reasoningContent", "text"], Channel::Text),
    ],
    usage: Counts::beside_cache,
};
