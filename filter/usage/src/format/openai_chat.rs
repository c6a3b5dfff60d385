//! OpenAI chat completions, and what compatible providers made of them: Azure, vLLM, Groq, DeepSeek, Mistral, OpenRouter,
//! Together, xAI, Moonshot and others.
//!
//! A stream has usage only if the request asked for it; it may come on one chunk or on several (cumulative), beside
//! choices or without. Source: OpenAI's API reference, "The chat completion object" and "chunk object".

use super::{Count, Counts, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiChat,
    name: "openai-chat",
    operation: "chat",
    request_path: "/chat/completions",
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
    ],
    facts: &[
        (&["id"], Field::Text(Text::ResponseId)),
        (&["model"], Field::Text(Text::Model)),
        (&["choices[]", "finish_reason"], Field::Text(Text::FinishReason)),
        (&["choices[]", "delta"], Field::Mark),
        (&["choices[]", "message"], Field::Mark),
    ],
    signals: &["usage", "finish_reason"],
    usage,
};

fn usage(counts: &Counts) -> Option<TokenUsage> {
    let input = counts.get(Count::Input);
    let completion = counts.get(Count::Output);
    if input.is_none() && completion.is_none() {
        return None;
    }
    let (input, completion) = (input.unwrap_or(0), completion.unwrap_or(0));
    let reasoning = counts.or_zero(Count::Reasoning);
    // xAI counts reasoning beside the completion, all others inside it: the total tells.
    let with_reasoning = completion.saturating_add(reasoning);
    let output = match counts.get(Count::Total) {
        Some(total) if total == input.saturating_add(with_reasoning) => with_reasoning,
        _ => completion,
    };
    Some(TokenUsage {
        input,
        output,
        cache_read: counts.or_zero(Count::CacheRead),
        cache_creation: counts.or_zero(Count::CacheCreation),
        reasoning,
    })
}
