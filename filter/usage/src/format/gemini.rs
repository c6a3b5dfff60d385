//! Gemini and Vertex, `generateContent` and `streamGenerateContent`: a body, events, or one array that streams. Usage stands
//! on every chunk, and the last value of each count counts. Source: Google's API reference, "GenerateContentResponse".

use super::{ALL_BELOW, Channel, Count, Counts, EndsWith, Field, Format, Spec, Text, TokenUsage};

pub(crate) static SPEC: Spec = Spec {
    format: Format::Gemini,
    name: "gemini",
    operation: "generate_content",
    provider: "gcp.gemini",
    endpoints: &[":generateContent", ":streamGenerateContent", ":embedContent", ":batchEmbedContents"],
    ends_with: EndsWith::UsageAndReason,
    usage_at: &[&["usageMetadata"]],
    counts: &[
        (&["promptTokenCount"], Count::Input),
        (&["toolUsePromptTokenCount"], Count::ToolInput),
        (&["candidatesTokenCount"], Count::Output),
        (&["thoughtsTokenCount"], Count::Reasoning),
        (&["cachedContentTokenCount"], Count::CacheRead),
        (&["totalTokenCount"], Count::Total),
    ],
    details: &[
        (&["promptTokensDetails[]"], Field::ByModality(Count::AudioInput)),
        (&["promptTokensDetails[]", "modality"], Field::Modality),
        (&["promptTokensDetails[]", "tokenCount"], Field::ModalityTokens),
        (&["candidatesTokensDetails[]"], Field::ByModality(Count::AudioOutput)),
        (&["candidatesTokensDetails[]", "modality"], Field::Modality),
        (&["candidatesTokensDetails[]", "tokenCount"], Field::ModalityTokens),
    ],
    texts: &[
        (&["responseId"], Text::ResponseId),
        (&["modelVersion"], Text::Model),
        (&["candidates[]", "finishReason"], Text::FinishReason),
    ],
    marks: &[&["candidates[]"], &["usageMetadata"]],
    content_at: &[&["candidates[]", "content", "parts[]"]],
    content: &[
        (&["text"], Channel::Text),
        (&["functionCall", "name"], Channel::Text),
        (&["functionCall", "args", ALL_BELOW], Channel::Text),
        (&["executableCode", "code"], Channel::Text),
    ],
    usage,
};

/// The total knows best: it has the thoughts, which stand beside the candidates, and it is right where a chunk leaves the
/// candidates out. Without a total the candidates are all that is certain.
fn usage(counts: &Counts) -> Option<TokenUsage> {
    let (prompt, candidates) = (counts.get(Count::Input), counts.get(Count::Output));
    let total = counts.get(Count::Total);
    prompt.or(candidates).or(total)?;
    let input = prompt.unwrap_or(0).saturating_add(counts.or_zero(Count::ToolInput));
    let output = candidates.unwrap_or(0);
    let (input, output) = match (prompt, total) {
        (Some(_), Some(total)) => (input, total.saturating_sub(input)),
        (None, Some(total)) => (total.saturating_sub(output), output),
        (_, None) => (input, output),
    };
    Some(TokenUsage { input, output, ..counts.beside_totals() })
}
