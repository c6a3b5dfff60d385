//! Error bodies as each provider writes them, so that its SDK raises the error that its users know.

use serde_json::{Value, json};
use tollgate_usage::Format;
use tollgate_wire::admission::LimitUnit;

use super::Code;

/// Whose SDK a client is taken to use, by the endpoint that it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"error": {"message", "type", "param", "code"}}`: OpenAI's API reference, "Error codes".
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`: Anthropic's API reference, "Errors".
    Anthropic,
    /// `{"error": {"code", "message", "status", "details"}}`: Google's API design guide, "Errors" (AIP-193).
    Google,
    /// `{"message"}`, the exception in `x-amzn-errortype`: the Amazon Bedrock API reference, "Common Errors".
    Bedrock,
    /// `{"message"}`: Cohere's API reference, "Errors".
    Cohere,
    /// `{"error"}`: Ollama's API documentation, "Errors".
    Ollama,
}

impl Dialect {
    /// The dialect of a format; OpenAI's where no format is known.
    pub(crate) fn of(format: Option<Format>) -> Dialect {
        match format {
            Some(Format::Anthropic) => Dialect::Anthropic,
            Some(Format::Gemini | Format::GeminiInteractions | Format::VertexImages) => Dialect::Google,
            Some(Format::BedrockConverse | Format::BedrockInvoke) => Dialect::Bedrock,
            Some(Format::CohereV1 | Format::CohereV2) => Dialect::Cohere,
            Some(Format::Ollama) => Dialect::Ollama,
            _ => Dialect::OpenAi,
        }
    }

    pub(super) fn body(self, code: Code, message: &str) -> Value {
        match self {
            Dialect::OpenAi => json!({
                "error": { "message": message, "type": openai_type(code), "param": null, "code": code.name() }
            }),
            Dialect::Anthropic => json!({
                "type": "error", "error": { "type": anthropic_type(code), "message": message }
            }),
            Dialect::Google => json!({
                "error": {
                    "code": code.status(),
                    "message": message,
                    "status": google_status(code),
                    "details": [{
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": code.name().to_ascii_uppercase(),
                        "domain": "tollgate",
                    }],
                }
            }),
            Dialect::Bedrock | Dialect::Cohere => json!({ "message": message }),
            Dialect::Ollama => json!({ "error": message }),
        }
    }

    /// A header that the dialect has beside the body.
    pub(super) fn header(self, code: Code) -> Option<(&'static str, &'static str)> {
        (self == Dialect::Bedrock).then(|| ("x-amzn-errortype", bedrock_exception(code)))
    }
}

fn openai_type(code: Code) -> &'static str {
    match code {
        Code::TenantMissing => "authentication_error",
        Code::IdentityInvalid | Code::EndpointUnclaimed | Code::ContextLengthExceeded => "invalid_request_error",
        Code::LimiterUnavailable => "server_error",
        Code::RateLimited(LimitUnit::Requests | LimitUnit::Concurrency) => "requests",
        Code::RateLimited(LimitUnit::Tokens | LimitUnit::InputTokens | LimitUnit::OutputTokens) => "tokens",
        Code::RateLimited(LimitUnit::Images) => "images",
        Code::RateLimited(LimitUnit::Cost) => "cost",
        Code::QuotaExceeded => "insufficient_quota",
        Code::UnknownTier | Code::Suspended => "permission_error",
    }
}

fn anthropic_type(code: Code) -> &'static str {
    match code {
        Code::TenantMissing => "authentication_error",
        Code::IdentityInvalid | Code::ContextLengthExceeded => "invalid_request_error",
        Code::EndpointUnclaimed | Code::UnknownTier | Code::Suspended => "permission_error",
        Code::LimiterUnavailable => "api_error",
        Code::RateLimited(_) | Code::QuotaExceeded => "rate_limit_error",
    }
}

fn google_status(code: Code) -> &'static str {
    match code {
        Code::TenantMissing => "UNAUTHENTICATED",
        Code::IdentityInvalid | Code::ContextLengthExceeded => "INVALID_ARGUMENT",
        Code::EndpointUnclaimed | Code::UnknownTier | Code::Suspended => "PERMISSION_DENIED",
        Code::LimiterUnavailable => "UNAVAILABLE",
        Code::RateLimited(_) | Code::QuotaExceeded => "RESOURCE_EXHAUSTED",
    }
}

fn bedrock_exception(code: Code) -> &'static str {
    match code {
        Code::TenantMissing => "UnrecognizedClientException",
        Code::IdentityInvalid | Code::ContextLengthExceeded => "ValidationException",
        Code::EndpointUnclaimed | Code::UnknownTier | Code::Suspended => "AccessDeniedException",
        Code::LimiterUnavailable => "ServiceUnavailableException",
        Code::RateLimited(_) | Code::QuotaExceeded => "ThrottlingException",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_reads_as_each_providers_own() {
        let code = Code::RateLimited(LimitUnit::Requests);
        let cases = [
            (
                Dialect::OpenAi,
                r#"{"error":{"code":"rate_limit_exceeded","message":"No.","param":null,"type":"requests"}}"#,
            ),
            (Dialect::Anthropic, r#"{"error":{"message":"No.","type":"rate_limit_error"},"type":"error"}"#),
            (
                Dialect::Google,
                r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"tollgate","reason":"RATE_LIMIT_EXCEEDED"}],"message":"No.","status":"RESOURCE_EXHAUSTED"}}"#,
            ),
            (Dialect::Bedrock, r#"{"message":"No."}"#),
            (Dialect::Cohere, r#"{"message":"No."}"#),
            (Dialect::Ollama, r#"{"error":"No."}"#),
        ];
        for (dialect, body) in cases {
            assert_eq!(dialect.body(code, "No.").to_string(), body, "{dialect:?}");
        }
        assert_eq!(Dialect::Bedrock.header(code), Some(("x-amzn-errortype", "ThrottlingException")));
    }

    #[test]
    fn an_unknown_plan_reads_as_a_missing_permission() {
        let body = |dialect: Dialect| dialect.body(Code::UnknownTier, "No.");
        assert_eq!(body(Dialect::OpenAi)["error"]["type"], "permission_error");
        assert_eq!(body(Dialect::Anthropic)["error"]["type"], "permission_error");
        assert_eq!(body(Dialect::Google)["error"]["status"], "PERMISSION_DENIED");
        assert_eq!(body(Dialect::Google)["error"]["code"], 403);
        assert_eq!(Dialect::Bedrock.header(Code::UnknownTier), Some(("x-amzn-errortype", "AccessDeniedException")));
    }

    #[test]
    fn the_format_chooses_the_dialect() {
        assert_eq!(Dialect::of(Some(Format::BedrockInvoke)), Dialect::Bedrock);
        assert_eq!(Dialect::of(Some(Format::OpenAiResponses)), Dialect::OpenAi);
        assert_eq!(Dialect::of(None), Dialect::OpenAi);
    }
}
