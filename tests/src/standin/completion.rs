//! Chat completions in OpenAI's shapes, and the rule by which their usage is known beforehand.
//!
//! **The rule**: `prompt_tokens` = 3, and for each message 4 and one for each word of its text; `completion_tokens` =
//! the script's number of chunks (8 if it says none), capped by the request's `max_completion_tokens` or `max_tokens`.
//! A quarter of the prompt, rounded down, counts as read from the cache, a quarter of the completion as reasoning.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// A completion's length in tokens when nothing sets another.
pub const DEFAULT_COMPLETION_TOKENS: u32 = 8;

/// The answer of `GET /v1/models`.
pub const MODELS: &str = r#"{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1721172741,"owned_by":"standin"},{"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"standin"}]}"#;

/// What the stand-in says, a token at a time, over and over.
const TOKENS: [&str; 12] =
    ["Every", " gate", " counts", " what", " passes", ",", " and", " lets", " it", " pass", ".", " "];

/// The part of a request that the answer depends on.
#[derive(Debug, Deserialize)]
pub struct ChatRequest<'a> {
    /// The model asked for, which is also the one that answers.
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    /// The prompt.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    /// Whether the answer is a stream of events.
    #[serde(default)]
    pub stream: bool,
    /// What the stream carries beside its chunks.
    pub stream_options: Option<StreamOptions>,
    /// The cap on the completion, by its older name.
    pub max_tokens: Option<u32>,
    /// The cap on the completion.
    pub max_completion_tokens: Option<u32>,
}

/// One message of the prompt.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Parts(#[serde(borrow)] Vec<Part<'a>>),
}

#[derive(Debug, Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// See OpenAI's `stream_options`.
#[derive(Debug, Deserialize)]
pub struct StreamOptions {
    /// Asks for a last chunk with the usage, and so for `"usage":null` on all others.
    #[serde(default)]
    pub include_usage: bool,
}

/// What a completion cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All input.
    pub prompt_tokens: u32,
    /// Of the input, read from a cache.
    pub cached_tokens: u32,
    /// All output.
    pub completion_tokens: u32,
    /// Of the output, spent on reasoning.
    pub reasoning_tokens: u32,
    finish_reason: &'static str,
}

impl Usage {
    /// Input and output together.
    pub fn total_tokens(&self) -> u32 {
        self.prompt_tokens + self.completion_tokens
    }

    fn to_json(self) -> String {
        format!(
            concat!(
                r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"#,
                r#""prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"#,
                r#""completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":0,"#,
                r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
            ),
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens(),
            self.cached_tokens,
            self.reasoning_tokens
        )
    }
}

/// What the answer to `request` costs, by the rule above.
pub fn usage(request: &ChatRequest<'_>, chunks: Option<u32>) -> Usage {
    let words = |text: &str| text.split_ascii_whitespace().count() as u32;
    let message_tokens = |message: &Message<'_>| match &message.content {
        Some(Content::Text(text)) => 4 + words(text),
        Some(Content::Parts(parts)) => 4 + parts.iter().filter_map(|part| part.text.as_deref()).map(words).sum::<u32>(),
        None => 4,
    };
    let prompt_tokens = 3 + request.messages.iter().map(message_tokens).sum::<u32>();
    let wanted = chunks.unwrap_or(DEFAULT_COMPLETION_TOKENS);
    let cap = request.max_completion_tokens.or(request.max_tokens).unwrap_or(u32::MAX);
    let completion_tokens = wanted.min(cap);
    Usage {
        prompt_tokens,
        cached_tokens: prompt_tokens / 4,
        completion_tokens,
        reasoning_tokens: completion_tokens / 4,
        finish_reason: if wanted > cap { "length" } else { "stop" },
    }
}

/// The body of an answer in one piece.
pub fn body(request: &ChatRequest<'_>, usage: Usage) -> Bytes {
    let mut body = head(request, "chat.completion");
    body.push_str(r#""choices":[{"index":0,"message":{"role":"assistant","content":""#);
    body.extend(tokens(usage));
    body.push_str(r#"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":""#);
    body.push_str(usage.finish_reason);
    body.push_str(r#""}],"usage":"#);
    body.push_str(&usage.to_json());
    body.push_str(r#","service_tier":"default"}"#);
    body.into()
}

/// The events of a streamed answer: the role, each token, the end, the usage if it was asked for, and `[DONE]`.
pub fn events(request: &ChatRequest<'_>, usage: Usage) -> Vec<Bytes> {
    let include_usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let head = head(request, "chat.completion.chunk");
    let tail = if include_usage { r#"}],"usage":null}"# } else { "}]}" };
    let mut events = Events::default();
    let mut choice = |delta: &str, finish_reason: &str| {
        events.push(&[
            &head,
            r#""choices":[{"index":0,"delta":{"#,
            delta,
            r#"},"logprobs":null,"finish_reason":"#,
            finish_reason,
            tail,
        ]);
    };
    choice(r#""role":"assistant","content":"","refusal":null"#, "null");
    for token in tokens(usage) {
        choice(&format!(r#""content":"{token}""#), "null");
    }
    choice("", &format!(r#""{}""#, usage.finish_reason));
    if include_usage {
        events.push(&[&head, r#""choices":[],"usage":"#, &usage.to_json(), "}"]);
    }
    events.push(&["[DONE]"]);
    events.list
}

/// Server-sent events, in one allocation for many of them.
#[derive(Default)]
struct Events {
    buffer: BytesMut,
    list: Vec<Bytes>,
}

impl Events {
    fn push(&mut self, data: &[&str]) {
        self.buffer.extend_from_slice(b"data: ");
        for part in data {
            self.buffer.extend_from_slice(part.as_bytes());
        }
        self.buffer.extend_from_slice(b"\n\n");
        self.list.push(self.buffer.split().freeze());
    }
}

fn tokens(usage: Usage) -> impl Iterator<Item = &'static str> {
    TOKENS.into_iter().cycle().take(usage.completion_tokens as usize)
}

/// What the body and every chunk begin with.
fn head(request: &ChatRequest<'_>, object: &str) -> String {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let created = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let model = Value::from(request.model.as_ref());
    let mut head = String::with_capacity(1024);
    // Writing to memory does not fail.
    let _ = write!(
        head,
        r#"{{"id":"chatcmpl-standin-{id}","object":"{object}","created":{created},"model":{model},"system_fingerprint":"fp_standin","#
    );
    head
}

/// OpenAI's error body.
pub fn error_body(status: StatusCode, message: &str) -> String {
    let kind = match status.as_u16() {
        429 => "requests",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> ChatRequest<'_> {
        serde_json::from_str(json).unwrap()
    }

    fn data(events: &[Bytes]) -> Vec<Value> {
        let (done, chunks) = events.split_last().unwrap();
        assert_eq!(done, "data: [DONE]\n\n");
        chunks
            .iter()
            .map(|event| {
                let text = std::str::from_utf8(event).unwrap();
                serde_json::from_str(text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap()).unwrap()
            })
            .collect()
    }

    #[test]
    fn usage_follows_the_rule() {
        let request = request(
            r#"{"model":"m","max_tokens":5,"messages":[{"role":"system","content":"two words"},
                {"role":"user","content":[{"type":"text","text":"a \"b\" c"},{"type":"image_url","image_url":{"url":"x"}}]},
                {"role":"assistant","content":null}]}"#,
        );
        let usage = usage(&request, Some(9));
        assert_eq!((usage.prompt_tokens, usage.cached_tokens), (3 + 4 + 2 + 4 + 3 + 4, 5));
        assert_eq!((usage.completion_tokens, usage.reasoning_tokens, usage.finish_reason), (5, 1, "length"));
    }

    #[test]
    fn the_body_is_json_with_that_usage() {
        let request = request(r#"{"model":"m\"\\","messages":[]}"#);
        let usage = usage(&request, None);
        let body: Value = serde_json::from_slice(&body(&request, usage)).unwrap();
        assert_eq!(body["model"], "m\"\\");
        assert_eq!(body["usage"]["completion_tokens"], DEFAULT_COMPLETION_TOKENS);
        assert_eq!(body["usage"]["total_tokens"], usage.total_tokens());
        assert_eq!(body["choices"][0]["message"]["content"], "Every gate counts what passes, and lets");
    }

    #[test]
    fn a_stream_tells_its_usage_only_when_asked() {
        let silent = request(r#"{"model":"m","stream":true,"messages":[]}"#);
        let chunks = data(&events(&silent, usage(&silent, Some(3))));
        assert_eq!(chunks.len(), 1 + 3 + 1);
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
        assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");

        let asked = request(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#);
        let chunks = data(&events(&asked, usage(&asked, Some(3))));
        let (last, others) = chunks.split_last().unwrap();
        assert_eq!(others.len(), 1 + 3 + 1);
        assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()), "{others:?}");
        assert_eq!(last["choices"], serde_json::json!([]));
        assert_eq!((&last["usage"]["prompt_tokens"], &last["usage"]["completion_tokens"]), (&3.into(), &3.into()));
    }
}
