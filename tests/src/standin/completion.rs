//! Chat completions in OpenAI's shapes. They are what is measured, so they are read and written without a tree of values.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;

use super::answer::Answer;
use super::tokens::{Usage, words};

/// The answer of `GET /v1/models`.
pub(super) const MODELS: &str = r#"{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1721172741,"owned_by":"standin"},{"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"standin"}]}"#;

/// The part of a request that the answer depends on.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest<'a> {
    /// The model asked for, which is also the one that answers.
    #[serde(borrow)]
    model: Cow<'a, str>,
    /// The prompt.
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    /// Whether the answer is a stream of events.
    #[serde(default)]
    stream: bool,
    /// What the stream carries beside its chunks.
    stream_options: Option<StreamOptions>,
    /// The cap on the completion, by its older name.
    max_tokens: Option<u32>,
    /// The cap on the completion.
    max_completion_tokens: Option<u32>,
}

/// One message of the prompt.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
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
pub(super) struct StreamOptions {
    /// Asks for a last chunk with the usage, and so for `"usage":null` on all others.
    #[serde(default)]
    include_usage: bool,
}

/// The answer to `request`.
pub(super) fn answer(request: &ChatRequest<'_>, chunks: Option<u32>) -> Answer {
    let usage = usage(request, chunks);
    match request.stream {
        true => Answer::events(events(request, usage), usage),
        false => Answer::body(body(request, usage), usage),
    }
}

fn usage(request: &ChatRequest<'_>, chunks: Option<u32>) -> Usage {
    let message_tokens = |message: &Message<'_>| match &message.content {
        Some(Content::Text(text)) => 4 + words(text),
        Some(Content::Parts(parts)) => 4 + parts.iter().filter_map(|part| part.text.as_deref()).map(words).sum::<u32>(),
        None => 4,
    };
    let prompt_tokens = 3 + request.messages.iter().map(message_tokens).sum::<u32>();
    Usage::new(prompt_tokens, chunks, request.max_completion_tokens.or(request.max_tokens))
}

fn counts(usage: Usage) -> String {
    format!(
        concat!(
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"#,
            r#""prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"#,
            r#""completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":0,"#,
            r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
        ),
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens(),
        usage.cached_tokens,
        usage.reasoning_tokens
    )
}

/// The body of an answer in one piece.
fn body(request: &ChatRequest<'_>, usage: Usage) -> Bytes {
    let mut body = head(request, "chat.completion");
    body.push_str(r#""choices":[{"index":0,"message":{"role":"assistant","content":""#);
    body.extend(usage.tokens());
    body.push_str(r#"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":""#);
    body.push_str(usage.finish_reason("stop", "length"));
    body.push_str(r#""}],"usage":"#);
    body.push_str(&counts(usage));
    body.push_str(r#","service_tier":"default"}"#);
    body.into()
}

/// The events of a streamed answer: the role, each token, the end, the usage if it was asked for, and `[DONE]`.
fn events(request: &ChatRequest<'_>, usage: Usage) -> Vec<Bytes> {
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
    for token in usage.tokens() {
        choice(&format!(r#""content":"{token}""#), "null");
    }
    choice("", &format!(r#""{}""#, usage.finish_reason("stop", "length")));
    if include_usage {
        events.push(&[&head, r#""choices":[],"usage":"#, &counts(usage), "}"]);
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
        assert_eq!((usage.completion_tokens, usage.reasoning_tokens), (5, 1));
        assert_eq!(usage.finish_reason("stop", "length"), "length");
    }

    #[test]
    fn the_body_is_json_with_that_usage() {
        let request = request(r#"{"model":"m\"\\","messages":[]}"#);
        let usage = usage(&request, None);
        let body: Value = serde_json::from_slice(&body(&request, usage)).unwrap();
        assert_eq!(body["model"], "m\"\\");
        assert_eq!(body["usage"]["completion_tokens"], 8);
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
