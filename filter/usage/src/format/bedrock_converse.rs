//! Bedrock `Converse` and `ConverseStream`: a body, or an event stream whose `metadata` event has the usage. Source: the
//! Amazon Bedrock API reference, "TokenUsage".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::BedrockConverse,
    name: "bedrock-converse",
    operation: "chat",
    request_path: "/converse",
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
    facts: &[
        (&["stopReason"], Field::Text(Text::FinishReason)),
        (&["contentBlockIndex"], Field::Mark),
        (&["output", "message"], Field::Mark),
    ],
    signals: &["usage", "stopReason"],
    usage: Counts::beside_cache,
};
