//! Bedrock `Converse` and `ConverseStream`: a body, or an event stream whose `metadata` event has the usage. Source: the
//! Amazon Bedrock API reference, "TokenUsage".

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::BedrockConverse,
    name: "bedrock-converse",
    operation: "chat",
    provider: "aws.bedrock",
    endpoints: &["/converse", "/converse-stream"],
    ends_with: EndsWith::Usage,
    usage_at: &[&["usage"]],
    counts: &[
        (&["inputTokens"], Count::Input),
        (&["outputTokens"], Count::Output),
        (&["cacheReadInputTokens"], Count::CacheRead),
        (&["cacheReadInputTokenCount"], Count::CacheRead),
        (&["cacheWriteInputTokens"], Count::CacheCreation),
        (&["cacheWriteInputTokenCount"], Count::CacheCreation),
    ],
    details: &[],
    texts: &[(&["stopReason"], Text::FinishReason)],
    marks: &[&["contentBlockIndex"], &["output", "message"]],
    content_at: &[&[]],
    content: &[
        // The deltas of a stream.
        (&["delta", "text"], Channel::Text),
        (&["delta", "toolUse", "input"], Channel::Text),
        (&["delta", "reasoningContent", "text"], Channel::Text),
        // A body.
        (&["output", "message", "content[]", "text"], Channel::Text),
        (&["output", "message", "content[]", "toolUse", "name"], Channel::Text),
        (&["output", "message", "content[]", "toolUse", "input", ALL_BELOW], Channel::Text),
        (&["output", "message", "content[]", "reasoningContent", "reasoningText", "text"], Channel::Text),
    ],
    usage: Counts::beside_cache,
};
