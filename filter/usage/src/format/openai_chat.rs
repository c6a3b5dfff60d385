//! OpenAI chat completions, and what compatible providers made of them: Azure, vLLM, Groq, DeepSeek, Mistral, OpenRouter,
//! Together, xAI, Moonshot and others.
//!
//! A stream has usage only if the request asked for it; it may come on one chunk or on several (cumulative), beside
//! choices or without. Source: OpenAI's API reference, "The chat completion object" and "chunk object".

use super::{Channel, Count, Counts, EndsWith, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiChat,
    name: "openai-chat",
    operation: "chat",
    provider: "openai",
    // The second is vLLM's: several conversations, a choice for each.
    endpoints: &["/chat/completions", "/chat/completions/batch"],
    ends_with: EndsWith::UsageAndReason,
    // `x_groq.usage` is Groq's older place, `choices[].usage` is Moonshot's.
    usage_at: &[&["usage"], &["x_groq", "usage"], &["choices[]", "usage"]],
    counts: &[
        (&["prompt_tokens"], Count::Input),
        (&["completion_tokens"], Count::Output),
        (&["total_tokens"], Count::Total),
        (&["prompt_tokens_details", "cached_tokens"], Count::CacheRead),
        (&["prompt_tokens_details", "cache_write_tokens"], Count::CacheCreation),
        (&["completion_tokens_details", "reasoning_tokens"], Count::Reasoning),
        // DeepSeek; Moonshot and Together; gateways before Anthropic models; Perplexity.
        (&["prompt_cache_hit_tokens"], Count::CacheRead),
        (&["cached_tokens"], Count::CacheRead),
        (&["cache_read_input_tokens"], Count::CacheRead),
        (&["cache_creation_input_tokens"], Count::CacheCreation),
        (&["reasoning_tokens"], Count::Reasoning),
        (&["prompt_tokens_details", "audio_tokens"], Count::AudioInput),
        (&["completion_tokens_details", "audio_tokens"], Count::AudioOutput),
        // Searches: xAI by their sources, Perplexity by their number.
        (&["num_sources_used"], Count::ToolRequests),
        (&["num_search_queries"], Count::ToolRequests),
    ],
    details: &[],
    texts: &[
        (&["id"], Text::ResponseId),
        (&["model"], Text::Model),
        (&["choices[]", "finish_reason"], Text::FinishReason),
    ],
    marks: &[&["choices[]", "delta"], &["choices[]", "message"]],
    content_at: &[&["choices[]"]],
    content: &[
        // The deltas of a stream.
        (&["delta", "content"], Channel::Text),
        (&["delta", "content[]", "text"], Channel::Text),
        (&["delta", "refusal"], Channel::Text),
        (&["delta", "tool_calls[]", "function", "name"], Channel::Text),
        (&["delta", "tool_calls[]", "function", "arguments"], Channel::Text),
        (&["delta", "tool_calls[]", "custom", "input"], Channel::Text),
        (&["delta", "function_call", "arguments"], Channel::Text),
        (&["delta", "audio", "transcript"], Channel::Text),
        // A body. Perplexity repeats all of it on each chunk of a stream.
        (&["message", "content"], Channel::Whole),
        (&["message", "content[]", "text"], Channel::Whole),
        (&["message", "refusal"], Channel::Whole),
        (&["message", "tool_calls[]", "function", "name"], Channel::Whole),
        (&["message", "tool_calls[]", "function", "arguments"], Channel::Whole),
        (&["message", "tool_calls[]", "custom", "input"], Channel::Whole),
        (&["message", "function_call", "arguments"], Channel::Whole),
        (&["message", "audio", "transcript"], Channel::Whole),
        // One text, by the names that it has at one provider and another; Mistral puts it among the content.
        (&["delta", "reasoning_content"], Channel::ReasoningContent),
        (&["delta", "reasoning"], Channel::Reasoning),
        (&["delta", "reasoning_details[]", "text"], Channel::ReasoningDetails),
        (&["delta", "content[]", "thinking[]", "text"], Channel::ReasoningDetails),
        (&["message", "reasoning_content"], Channel::ReasoningContent),
        (&["message", "reasoning"], Channel::Reasoning),
        (&["message", "reasoning_details[]", "text"], Channel::ReasoningDetails),
        (&["message", "content[]", "thinking[]", "text"], Channel::ReasoningDetails),
    ],
    usage,
};

fn usage(counts: &Counts) -> Option<TokenUsage> {
    let usage = counts.inclusive()?;
    // xAI counts reasoning beside the completion, all others inside it: the total tells.
    let with_reasoning = usage.output.saturating_add(usage.reasoning);
    let is_beside = counts.get(Count::Total) == Some(usage.input.saturating_add(with_reasoning));
    Some(TokenUsage { output: if is_beside { with_reasoning } else { usage.output }, ..usage })
}
