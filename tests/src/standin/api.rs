//! Whose API is called, and how each says that it failed.

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::Answer;
use super::script::Script;
use super::{anthropic, bedrock, cohere, completion, gemini, ollama, openai};

/// A provider's API, known by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    OpenAi,
    Anthropic,
    Gemini,
    Cohere,
    Ollama,
    Bedrock,
}

impl Api {
    /// OpenAI's, where no other claims the path.
    pub(super) fn of(path: &str) -> Api {
        if path.starts_with("/model/") {
            Api::Bedrock
        } else if path.contains(":generateContent") || path.contains(":streamGenerateContent") {
            Api::Gemini
        } else if path.starts_with("/api/") {
            Api::Ollama
        } else if path == "/v2/chat" || path == "/v1/chat" {
            Api::Cohere
        } else if path == "/v1/messages" {
            Api::Anthropic
        } else {
            Api::OpenAi
        }
    }

    /// An error with the body that this API's SDK reads.
    pub(super) fn error(self, status: StatusCode, message: &str) -> Answer {
        let body = match self {
            Api::OpenAi => openai_error(status, message),
            Api::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_error(status), "message": message},
                "request_id": "req_standin",
            }),
            Api::Gemini => {
                json!({"error": {"code": status.as_u16(), "message": message, "status": google_status(status)}})
            }
            Api::Cohere | Api::Bedrock => json!({"message": message}),
            Api::Ollama => json!({"error": message}),
        };
        let answer = Answer::json(status, body.to_string());
        match self {
            Api::Bedrock => {
                answer.with_header("x-amzn-errortype", HeaderValue::from_static(bedrock::exception(status)))
            }
            _ => answer,
        }
    }
}

/// What is served at `path`.
pub(super) fn answer(method: &Method, path: &str, query: Option<&str>, body: &[u8], script: &Script) -> Answer {
    let api = Api::of(path);
    let bad = |error: serde_json::Error| api.error(StatusCode::BAD_REQUEST, &format!("request body: {error}"));
    match (method, path) {
        (&Method::GET, "/v1/models") => return Answer::json(StatusCode::OK, completion::MODELS),
        // Read and written by hand: this is the one that is measured.
        (&Method::POST, "/v1/chat/completions") => {
            let request = serde_json::from_slice(body);
            return request.map_or_else(bad, |request| completion::answer(&request, script.chunks));
        }
        (&Method::POST, _) => {}
        _ => return unknown(api, method, path),
    }
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return bad(error),
    };
    let answer = match api {
        Api::OpenAi => openai::answer(path, &request, script.chunks),
        Api::Anthropic => Some(anthropic::answer(&request, script.chunks)),
        Api::Gemini => gemini::answer(path, query, &request, script.chunks),
        Api::Cohere => Some(cohere::answer(path, &request, script.chunks)),
        Api::Ollama => ollama::answer(path, &request, script.chunks),
        Api::Bedrock => bedrock::answer(path, &request, script.chunks),
    };
    answer.unwrap_or_else(|| unknown(api, method, path))
}

fn unknown(api: Api, method: &Method, path: &str) -> Answer {
    api.error(StatusCode::NOT_FOUND, &format!("no such endpoint: {method} {path}"))
}

fn openai_error(status: StatusCode, message: &str) -> Value {
    let (kind, code) = match status.as_u16() {
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn anthropic_error(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn google_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [(&str, Api); 13] = [
        ("/v1/chat/completions", Api::OpenAi),
        ("/v1/completions", Api::OpenAi),
        ("/v1/embeddings", Api::OpenAi),
        ("/v1/images/generations", Api::OpenAi),
        ("/v1/responses", Api::OpenAi),
        ("/v1/messages", Api::Anthropic),
        ("/v1beta/models/m:generateContent", Api::Gemini),
        ("/v1beta/models/m:streamGenerateContent", Api::Gemini),
        ("/v2/chat", Api::Cohere),
        ("/v1/chat", Api::Cohere),
        ("/api/chat", Api::Ollama),
        ("/api/generate", Api::Ollama),
        ("/model/m/converse", Api::Bedrock),
    ];

    #[test]
    fn every_endpoint_answers_and_says_what_it_cost() {
        for (path, api) in PATHS {
            assert_eq!(Api::of(path), api);
            let request = br#"{"model":"m","messages":[{"content":"Hello"}],"stream":false}"#;
            let answer = answer(&Method::POST, path, None, request, &Script::default());
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(answer.usage.unwrap().prompt_tokens, 3 + 4 + 1, "{path}");
        }
    }

    #[test]
    fn what_is_not_served_is_told_in_the_apis_words() {
        let answer = |path| answer(&Method::POST, path, None, b"{}", &Script::default());
        let body = |path| serde_json::from_slice::<Value>(&answer(path).pieces[0]).unwrap();
        assert_eq!(body("/v1/nope")["error"]["type"], "invalid_request_error");
        assert_eq!(body("/api/nope")["error"], "no such endpoint: POST /api/nope");
        assert_eq!(answer("/model/m/nope").headers["x-amzn-errortype"], "ResourceNotFoundException");
    }
}
