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
    pub(crate) stream_options: StreamOptions,
}

/// Whether a stream of an endpoint may be asked for its usage, by OpenAI's `stream_options.include_usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamOptions {
    /// No: it tells without being asked, or refuses who asks.
    None,
    /// Yes.
    Taken,
    /// Yes, but not where the answer rests on the caller's own data: Azure OpenAI's `data_sources` ("On Your Data").
    TakenWithoutData,
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
const PATHS: &[(&str, &str)] = &[(AZURE_DEPLOYMENTS, AZURE), ("/publishers/", VERTEX)];

const AZURE_DEPLOYMENTS: &str = "/openai/deployments/";
/// Azure's API that has no versions.
const AZURE_UNVERSIONED: &str = "/openai/v1/";
/// The first of Azure OpenAI's versions that takes stream options is 2024-09-01-preview ("API version lifecycle").
const AZURE_STREAM_OPTIONS_SINCE: &str = "2024-09-01";

/// The formats whose answers can be kept, and have paths below their endpoints.
const KEEP_ANSWERS: [Format; 4] =
    [Format::OpenAiChat, Format::OpenAiResponses, Format::Anthropic, Format::GeminiInteractions];

const AZURE: &str = "azure.ai.openai";
const VERTEX: &str = "gcp.vertex_ai";
const MISTRAL: &str = "mistral_ai";

impl Endpoint {
    /// The endpoint that a request calls: `path` is its `:path`, `authority` its `:authority`. `None` when no format knows
    /// the path.
    pub fn of(path: &str, authority: Option<&str>) -> Option<Endpoint> {
        let (path, query) = without_query(path);
        let spec = by_request_path(path)?;
        let by_path = || PATHS.iter().find(|(part, _)| around(path, part).is_some()).map(|(_, provider)| *provider);
        let (_, method) = path.rsplit_once(['/', ':']).unwrap_or_default();
        let provider = authority.and_then(provider_of_host).or_else(by_path).unwrap_or(spec.provider);
        Some(Endpoint {
            format: spec.format,
            provider,
            operation: operation(method).unwrap_or(spec.operation),
            model: model(path),
            stream: streams(method),
            stream_options: stream_options(spec.format, provider, path, query),
        })
    }

    /// Whether a stream has usage only if the request asks for it, by OpenAI's `stream_options.include_usage`, and may ask.
    /// Mistral always tells, and Azure's older versions never do; both are strict about options that they do not know.
    pub fn tells_usage_when_asked(&self) -> bool {
        self.stream_options != StreamOptions::None
    }

    /// Whether a request at this `:path` is about an answer that was generated before, or generates none: it goes on below an
    /// endpoint, as `/v1/responses/{id}/cancel`, `/v1/chat/completions/{id}` and `/v1/messages/count_tokens` do. What such a
    /// request returns may hold usage that was counted already.
    ///
    /// False for paths that have a format, and for odd ones, which a server may take for an endpoint itself (`/./`, `%2f`).
    pub fn is_about_earlier_answer(path: &str) -> bool {
        let (path, _) = without_query(path);
        let is_below = |end: &str| {
            let below = path.split_once(end).and_then(|(_, below)| below.strip_prefix('/'));
            below.is_some_and(|below| below.split('/').all(is_name))
        };
        let mut ends = KEEP_ANSWERS.iter().flat_map(|format| format.spec().endpoints);
        by_request_path(path).is_none() && ends.any(|end| is_below(end))
    }
}

/// A `:path` without what is not its path, nor slashes at its end; and its query.
fn without_query(path: &str) -> (&str, &str) {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (path.trim_end_matches('/'), query)
}

/// What stands before and behind the first `part` of a path, which begins with a slash. Paths have few of these: the standard
/// library's search, which knows no such thing, takes longer to make ready than to look at each.
fn around<'a>(path: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    slashes
        .filter_map(|at| path.split_at_checked(at))
        .find_map(|(before, rest)| Some((before, rest.strip_prefix(part)?)))
}

/// What ids and the names of actions consist of.
fn is_name(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn stream_options(format: Format, provider: &str, path: &str, query: &str) -> StreamOptions {
    if !matches!(format, Format::OpenAiChat | Format::OpenAiCompletions) || provider == MISTRAL {
        return StreamOptions::None;
    }
    if !provider.starts_with("azure.") && around(path, AZURE_DEPLOYMENTS).is_none() {
        return StreamOptions::Taken;
    }
    let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
    let mut versions = parameters.filter(|(name, _)| name.eq_ignore_ascii_case("api-version")).map(|(_, value)| value);
    let date = versions.next().and_then(|version| version.get(..AZURE_STREAM_OPTIONS_SINCE.len()));
    match date {
        _ if around(path, AZURE_UNVERSIONED).is_some() => StreamOptions::TakenWithoutData,
        Some(date) if date >= AZURE_STREAM_OPTIONS_SINCE => StreamOptions::TakenWithoutData,
        _ => StreamOptions::None,
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
        "generateContent" | "converse" | "invoke" | "predict" => Some(false),
        _ => None,
    }
}

/// Gemini and Vertex `…/models/{model}:method`, Bedrock `/model/{model}/method`, Azure `/deployments/{model}/…`.
fn model(path: &str) -> Option<String> {
    let (before, last) = path.rsplit_once('/')?;
    let of_bedrock = || around(before, "/model/").map(|(_, model)| model);
    let of_azure = || around(path, "/deployments/")?.1.split('/').next();
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
            (
                "/openai/deployments/my-dalle/images/generations?api-version=2024-02-01",
                Format::OpenAiImages,
                "azure.ai.openai",
                "image_generation",
                Some("my-dalle"),
                None,
            ),
            (
                "/v1/projects/p/locations/us-central1/publishers/google/models/imagen-4.0-generate-001:predict",
                Format::VertexImages,
                "gcp.vertex_ai",
                "image_generation",
                Some("imagen-4.0-generate-001"),
                Some(false),
            ),
            ("/v2/chat", Format::CohereV2, "cohere", "chat", None, None),
            ("/v2/rerank", Format::CohereV1, "cohere", "rerank", None, None),
            ("/api/chat", Format::Ollama, "ollama", "chat", None, None),
            ("/api/embed", Format::Ollama, "ollama", "embeddings", None, None),
        ] {
            let model = model.map(str::to_owned);
            let found = endpoint(path);
            let stream_options = found.stream_options;
            assert_eq!(found, Endpoint { format, provider, operation, model, stream, stream_options }, "{path}");
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
    fn only_streams_that_take_the_question_are_asked() {
        use StreamOptions::{None as Never, Taken, TakenWithoutData};
        const AZURE_HOST: Option<&str> = Some("mine.openai.azure.com");
        let of_version = |version: &str| format!("/openai/deployments/d/chat/completions?a=b&api-version={version}");
        for (path, authority, expected) in [
            ("/v1/chat/completions".to_owned(), None, Taken),
            ("/v1/completions".to_owned(), Some("api.openai.com"), Taken),
            ("/v1/chat/completions?api-version=2023-05-15".to_owned(), None, Taken),
            ("/v1/chat/completions".to_owned(), Some("api.mistral.ai"), Never),
            ("/v1/messages".to_owned(), None, Never),
            ("/v1/responses".to_owned(), AZURE_HOST, Never),
            (of_version("2024-08-01-preview"), AZURE_HOST, Never),
            (of_version("2024-06-01"), None, Never),
            (of_version("2023-05-15"), Some("gateway.example"), Never),
            (of_version("2024-09-01-preview"), AZURE_HOST, TakenWithoutData),
            (of_version("2024-10-21#x"), None, TakenWithoutData),
            (of_version("2025-01-01-preview"), Some("mine.cognitiveservices.azure.com"), TakenWithoutData),
            (of_version("2024"), AZURE_HOST, Never),
            ("/openai/deployments/d/completions".to_owned(), AZURE_HOST, Never),
            ("/openai/deployments/d/completions?API-Version=2024-10-21".to_owned(), AZURE_HOST, TakenWithoutData),
            ("/openai/v1/chat/completions".to_owned(), AZURE_HOST, TakenWithoutData),
            ("/openai/v1/chat/completions?api-version=preview".to_owned(), AZURE_HOST, TakenWithoutData),
            (
                "/models/chat/completions?api-version=2024-05-01-preview".to_owned(),
                Some("x.services.ai.azure.com"),
                Never,
            ),
        ] {
            let found = Endpoint::of(&path, authority).map(|endpoint| endpoint.stream_options);
            assert_eq!(found, Some(expected), "{path} {authority:?}");
        }
    }

    #[test]
    fn what_goes_on_below_an_endpoint_is_about_an_earlier_answer() {
        for path in [
            "/v1/chat/completions/chatcmpl-abc123",
            "/v1/chat/completions/chatcmpl-abc123?x=/v1/chat/completions",
            "/gateway/openai/v1/chat/completions/chatcmpl_abc//",
            "/v1/responses/resp_1/cancel",
            "/v1/responses/input_tokens",
            "/v1/messages/batches",
            "/v1/messages/count_tokens?beta=true",
            "/v1beta/interactions/v1_abc/cancel",
        ] {
            assert!(Endpoint::is_about_earlier_answer(path), "{path}");
        }
        for path in [
            // Each has a format.
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/v1/chat/completions/batch",
            "/v1/chat/completions?id=/v1/messages/x",
            "/v1/responses/compact",
            "/v1/messages/../chat/completions",
            "/v1/messages/v1/chat/completions",
            // Some server may take it for the endpoint.
            "/v1/chat/completions/.",
            "/v1/chat/completions/x/..",
            "/v1/chat/completions/%2e",
            "/v1/chat/completions/%2f",
            "/v1/chat/completions/;x",
            "/v1/chat/completions//x",
            // No endpoint is above it.
            "/v1/chat/completionsx/1",
            "/v1/models/m",
            "/v1/chat/other",
            "/v1beta/models/gemini-2.5-flash:countTokens",
            "/",
            "",
        ] {
            assert!(!Endpoint::is_about_earlier_answer(path), "{path}");
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
