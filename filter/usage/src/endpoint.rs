//! Which API a request calls, by its path and authority, before a byte of its body is seen.
//!
//! - An endpoint is known by the end of its path, whatever a gateway puts before it.
//! - The provider is known by the host, if it is a provider's own; else by the path, as far as that tells; else it is
//!   whoever defined the format.

use percent_encoding::percent_decode_str;

use crate::format::{Format, by_request_path};
use crate::json::MAX_TEXT_BYTES;

/// What a request's path and authority tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The format of the answers.
    pub format: Format,
    /// OpenTelemetry's `gen_ai.provider.name`, as in `azure.ai.openai`; a name in the same style where it has none.
    pub provider: &'static str,
    /// OpenTelemetry's `gen_ai.operation.name`, as in `chat` or `embeddings`.
    pub operation: &'static str,
    /// The model or deployment that the path names, percent-decoded; at most 256 bytes of the path are read.
    pub model: Option<String>,
    /// Whether the answer is a stream, where the path says it: Gemini, Vertex and Bedrock.
    pub stream: Option<bool>,
}

/// Hosts, and who is behind them. A host matches when it ends so, at a dot or a hyphen.
const HOSTS: &[(&str, &str)] = &[
    ("openai.azure.com", AZURE),
    ("cognitiveservices.azure.com", AZURE),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", VERTEX),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.mistral.ai", MISTRAL),
    ("api.x.ai", "x_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
    // OpenTelemetry has no names for these.
    ("openrouter.ai", "openrouter"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.fireworks.ai", "fireworks"),
    ("api.cerebras.ai", "cerebras"),
    ("api.sambanova.ai", "sambanova"),
    ("api.moonshot.ai", "moonshot"),
    ("api.z.ai", "z_ai"),
    ("dashscope-intl.aliyuncs.com", "alibaba"),
    ("dashscope.aliyuncs.com", "alibaba"),
    ("router.huggingface.co", "huggingface"),
    ("integrate.api.nvidia.com", "nvidia"),
    ("ollama.com", "ollama"),
];
/// Parts of paths, and who has such paths.
const PATHS: &[(&str, &str)] = &[("/openai/deployments/", AZURE), ("/publishers/", VERTEX)];

const AZURE: &str = "azure.ai.openai";
const VERTEX: &str = "gcp.vertex_ai";
const MISTRAL: &str = "mistral_ai";

impl Endpoint {
    /// The endpoint that a request calls: `path` is its `:path`, `authority` its `:authority`. `None` when no format knows
    /// the path.
    pub fn of(path: &str, authority: Option<&str>) -> Option<Endpoint> {
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let spec = by_request_path(path)?;
        let by_path = || PATHS.iter().find(|(part, _)| path.contains(part)).map(|(_, provider)| *provider);
        let (_, method) = path.rsplit_once(['/', ':']).unwrap_or_default();
        Some(Endpoint {
            format: spec.format,
            provider: authority.and_then(provider_of_host).or_else(by_path).unwrap_or(spec.provider),
            operation: operation(method).unwrap_or(spec.operation),
            model: model(path),
            stream: streams(method),
        })
    }

    /// Whether a stream has usage only if the request asks for it, by OpenAI's `stream_options.include_usage`. Mistral always
    /// tells, and is strict about options that it does not know.
    pub fn tells_usage_when_asked(&self) -> bool {
        matches!(self.format, Format::OpenAiChat | Format::OpenAiCompletions) && self.provider != MISTRAL
    }
}

fn provider_of_host(authority: &str) -> Option<&'static str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host).trim_end_matches('.').to_ascii_lowercase();
    let is_of =
        |known: &str| host.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with(['.', '-']));
    HOSTS.iter().find(|(known, _)| is_of(known)).map(|(_, provider)| *provider)
}

/// Where the method tells another operation than the format mostly has.
fn operation(method: &str) -> Option<&'static str> {
    match method {
        "embed" | "embeddings" | "embedContent" | "batchEmbedContents" => Some("embeddings"),
        // OpenTelemetry has no name for it.
        "rerank" => Some("rerank"),
        _ => None,
    }
}

fn streams(method: &str) -> Option<bool> {
    match method {
        "streamGenerateContent" | "streamRawPredict" | "converse-stream" | "invoke-with-response-stream" => Some(true),
        "generateContent" | "converse" | "invoke" => Some(false),
        _ => None,
    }
}

/// Gemini and Vertex `…/models/{model}:method`, Bedrock `/model/{model}/method`, Azure `/deployments/{model}/…`.
fn model(path: &str) -> Option<String> {
    let (before, last) = path.rsplit_once('/')?;
    let of_bedrock = || before.split_once("/model/").map(|(_, model)| model);
    let of_azure = || path.split_once("/deployments/")?.1.split('/').next();
    let raw = match last.rsplit_once(':') {
        Some((model, _)) => Some(model),
        None => of_bedrock().or_else(of_azure),
    };
    let raw = raw.filter(|raw| !raw.is_empty())?;
    let end = raw.floor_char_boundary(MAX_TEXT_BYTES);
    Some(percent_decode_str(raw.get(..end)?).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(path: &str) -> Endpoint {
        Endpoint::of(path, None).unwrap_or_else(|| panic!("{path}"))
    }

    #[test]
    fn the_path_tells_the_format_and_what_it_holds() {
        for (path, format, provider, operation, model, stream) in [
            ("/v1/chat/completions", Format::OpenAiChat, "openai", "chat", None, None),
            ("/gateway/openai/v1/chat/completions/?a=b", Format::OpenAiChat, "openai", "chat", None, None),
            (
                "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
                Format::OpenAiChat,
                "azure.ai.openai",
                "chat",
                Some("my gpt"),
                None,
            ),
            ("/v1/completions", Format::OpenAiCompletions, "openai", "text_completion", None, None),
            ("/v1/embeddings", Format::OpenAiEmbeddings, "openai", "embeddings", None, None),
            ("/v1/responses", Format::OpenAiResponses, "openai", "chat", None, None),
            ("/v1/messages", Format::Anthropic, "anthropic", "chat", None, None),
            (
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
                Format::Gemini,
                "gcp.gemini",
                "generate_content",
                Some("gemini-2.5-flash"),
                Some(true),
            ),
            (
                "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:generateContent",
                Format::Gemini,
                "gcp.vertex_ai",
                "generate_content",
                Some("gemini-2.5-pro"),
                Some(false),
            ),
            (
                "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict",
                Format::Anthropic,
                "gcp.vertex_ai",
                "chat",
                Some("claude-sonnet-4@20250514"),
                Some(true),
            ),
            (
                "/v1beta/models/gemini-embedding-001:batchEmbedContents",
                Format::Gemini,
                "gcp.gemini",
                "embeddings",
                Some("gemini-embedding-001"),
                None,
            ),
            (
                "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse-stream",
                Format::BedrockConverse,
                "aws.bedrock",
                "chat",
                Some("anthropic.claude-3-5-sonnet-20241022-v2:0"),
                Some(true),
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon.nova-lite-v1%3A0/invoke",
                Format::BedrockInvoke,
                "aws.bedrock",
                "chat",
                Some("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"),
                Some(false),
            ),
            (
                "/model/arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0/converse",
                Format::BedrockConverse,
                "aws.bedrock",
                "chat",
                Some("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"),
                Some(false),
            ),
            ("/v2/chat", Format::CohereV2, "cohere", "chat", None, None),
            ("/v2/rerank", Format::CohereV1, "cohere", "rerank", None, None),
            ("/api/chat", Format::Ollama, "ollama", "chat", None, None),
            ("/api/embed", Format::Ollama, "ollama", "embeddings", None, None),
        ] {
            let model = model.map(str::to_owned);
            assert_eq!(endpoint(path), Endpoint { format, provider, operation, model, stream }, "{path}");
        }
        assert_eq!(Endpoint::of("/v1/models", None), None);
        assert_eq!(Endpoint::of("", None), None);
    }

    #[test]
    fn the_host_tells_the_provider() {
        for (authority, provider) in [
            ("api.groq.com", "groq"),
            ("API.Groq.com.:443", "groq"),
            ("mine.openai.azure.com", "azure.ai.openai"),
            ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
            ("notapi.groq.com", "openai"),
            ("api.groq.com.example", "openai"),
            ("gateway.example:8080", "openai"),
            ("[::1]:8080", "openai"),
        ] {
            let endpoint = Endpoint::of("/v1/chat/completions", Some(authority));
            assert_eq!(endpoint.map(|endpoint| endpoint.provider), Some(provider), "{authority}");
        }
    }

    #[test]
    fn long_names_of_models_are_cut() {
        let path = |name: &str| format!("/v1beta/models/{name}:generateContent");
        assert_eq!(endpoint(&path(&"m".repeat(999))).model, Some("m".repeat(256)));
        assert_eq!(endpoint(&path(&format!("m{}", "é".repeat(999)))).model, Some(format!("m{}", "é".repeat(127))));
    }

    proptest! {
        #[test]
        fn any_path_has_a_result(path in "[/:%a-f]{0,9}[^?#\\pC]{0,9}(/model/|/models/|/deployments/)[^?#\\pC]{0,9}(/converse|:generateContent|/chat/completions)") {
            prop_assert!(Endpoint::of(&path, Some(&path)).is_some());
        }
    }
}
