//! Cohere's chat, v2 and v1. What is billed leaves the preamble out, here three tokens. Source: Cohere's API reference,
//! "Chat" and "Chat with streaming", both versions.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, server_sent_event};
use super::tokens::Usage;

pub(super) fn answer(path: &str, request: &Value, chunks: Option<u32>) -> Answer {
    let usage = Usage::of(request, chunks).uncached().unreasoned();
    match (path, request["stream"] == true) {
        ("/v1/chat", false) => Answer::body(v1_response(usage).to_string(), usage),
        ("/v1/chat", true) => Answer::lines("application/stream+json", &v1_stream(usage), usage),
        (_, false) => Answer::body(v2_response(usage).to_string(), usage),
        (_, true) => {
            let done = Bytes::from_static(b"data: [DONE]\n\n");
            let events = v2_stream(usage);
            let events = events.iter().map(|event| server_sent_event(event["type"].as_str(), event));
            Answer::events(events.chain([done]).collect(), usage)
        }
    }
}

fn counts(usage: Usage) -> Value {
    json!({
        "billed_units": {"input_tokens": usage.prompt_tokens - 3, "output_tokens": usage.completion_tokens},
        "tokens": {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
    })
}

fn finish_reason(usage: Usage) -> &'static str {
    usage.finish_reason("COMPLETE", "MAX_TOKENS")
}

fn v2_response(usage: Usage) -> Value {
    json!({
        "id": "standin",
        "message": {"role": "assistant", "content": [{"type": "text", "text": usage.text()}]},
        "finish_reason": finish_reason(usage),
        "usage": counts(usage),
    })
}

fn v2_stream(usage: Usage) -> Vec<Value> {
    let content =
        |kind: &str, content: Value| json!({"type": kind, "index": 0, "delta": {"message": {"content": content}}});
    let mut events = vec![
        json!({"type": "message-start", "id": "standin", "delta": {"message": {"role": "assistant", "content": []}}}),
        content("content-start", json!({"type": "text", "text": ""})),
    ];
    events.extend(usage.tokens().map(|token| content("content-delta", json!({"text": token}))));
    events.extend([
        json!({"type": "content-end", "index": 0}),
        json!({
            "type": "message-end", "id": "standin",
            "delta": {"finish_reason": finish_reason(usage), "usage": counts(usage)},
        }),
    ]);
    events
}

fn v1_response(usage: Usage) -> Value {
    let mut meta = counts(usage);
    meta["api_version"] = json!({"version": "1"});
    json!({
        "response_id": "standin", "generation_id": "standin", "text": usage.text(),
        "finish_reason": finish_reason(usage), "meta": meta,
    })
}

fn v1_stream(usage: Usage) -> Vec<Value> {
    let mut lines = vec![json!({"is_finished": false, "event_type": "stream-start", "generation_id": "standin"})];
    let text = |token: &str| json!({"is_finished": false, "event_type": "text-generation", "text": token});
    lines.extend(usage.tokens().map(text));
    lines.push(json!({
        "is_finished": true, "event_type": "stream-end", "finish_reason": finish_reason(usage),
        "response": v1_response(usage),
    }));
    lines
}
