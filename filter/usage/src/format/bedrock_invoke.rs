//! Bedrock `InvokeModel`, for models that have no format of their own here: the body of Llama, of Titan and of Titan's
//! embeddings, each with counts of its own, or an event stream of the model's own JSON, wrapped in `bytes`, to whose last event
//! Bedrock adds its metrics. (A model whose format is known here is read as such. Mistral's older models and Cohere's report
//! nothing in a body; Bedrock's headers do.) Source: the Amazon Bedrock user guide, "Inference request parameters and response
//! fields".

use super::{Channel, Count, Counts, EndsWith, Format, Path, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::BedrockInvoke,
    name: "bedrock-invoke",
    operation: "chat",
    provider: "aws.bedrock",
    endpoints: &["/invoke", "/invoke-with-response-stream"],
    ends_with: EndsWith::Usage,
    usage_at: &[&[]],
    counts: &[
        // The last event of a stream.
        (&["bytes", METRICS, "inputTokenCount"], Count::Input),
        (&["bytes", METRICS, "outputTokenCount"], Count::Output),
        (&["bytes", METRICS, "cacheReadInputTokenCount"], Count::CacheRead),
        (&["bytes", METRICS, "cacheWriteInputTokenCount"], Count::CacheCreation),
        // A body of Llama.
        (&["prompt_token_count"], Count::Input),
        (LLAMA_OUTPUT, Count::Output),
        // A body of Titan, whose array has one element, or of its embeddings.
        (TITAN_INPUT, Count::Input),
        (&["results[]", "tokenCount"], Count::Output),
    ],
    details: &[],
    texts: &[(&["stop_reason"], Text::FinishReason), (&["results[]", "completionReason"], Text::FinishReason)],
    marks: &[&["bytes"], LLAMA_OUTPUT, TITAN_INPUT],
    content_at: &[&[]],
    content: &[
        // The events of a stream.
        (&["bytes", "generation"], Channel::Text),
        (&["bytes", "outputText"], Channel::Text),
        (&["bytes", "text"], Channel::Text),
        (&["bytes", "contentBlockDelta", "delta", "text"], Channel::Text),
        (&["bytes", "contentBlockDelta", "delta", "toolUse", "input"], Channel::Text),
        (&["bytes", "contentBlockDelta", "delta", "reasoningContent", "text"], Channel::Text),
        // A body.
        (&["generation"], Channel::Text),
        (&["results[]", "outputText"], Channel::Text),
    ],
    usage: Counts::beside_cache,
};

const METRICS: &str = "amazon-bedrock-invocationMetrics";
const LLAMA_OUTPUT: Path = &["generation_token_count"];
const TITAN_INPUT: Path = &["inputTextTokenCount"];
