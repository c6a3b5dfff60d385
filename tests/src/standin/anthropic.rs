//! Anthropic's Messages. Source: Anthropic's API reference, "Messages" and "Streaming messages".

use serde_json::{Value, json};

use super::answer::{Answer, server_sent_event};
use super::tokens::Usage;

pub(super) fn answer(request: &Value, chunks: Option<u32>) -> Answer {
    let usage = Usage::of(request, chunks).unreasoned();
    if request["stream"] == true {
        let events = stream(request, usage);
        return Answer::events(
            events.iter().map(|event| server_sent_event(event["type"].as_str(), event)).collect(),
            usage,
        );
    }
    Answer::body(message(request, usage).to_string(), usage)
}

/// The whole message.
pub(super) fn message(request: &Value, usage: Usage) -> Value {
    let mut message = begun(request, usage, usage.completion_tokens);
    message["content"] = json!([{"type": "text", "text": usage.text()}]);
    message["stop_reason"] = stop_reason(usage).into();
    message
}

/// The data of the events that tell the message piece by piece.
pub(super) fn stream(request: &Value, usage: Usage) -> Vec<Value> {
    let text = |token: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}});
    let mut events = vec![
        json!({"type": "message_start", "message": begun(request, usage, 1)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    events.extend(usage.tokens().map(text));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason(usage), "stop_sequence": null},
            "usage": {"output_tokens": usage.completion_tokens},
        }),
        json!({"type": "message_stop"}),
    ]);
    events
}

/// The message as it begins. What was read from the cache does not count as its input.
fn begun(request: &Value, usage: Usage, output_tokens: u32) -> Value {
    json!({
        "id": "msg_standin", "type": "message", "role": "assistant", "model": request["model"], "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": output_tokens,
        },
    })
}

fn stop_reason(usage: Usage) -> &'static str {
    usage.finish_reason("end_turn", "max_tokens")
}
