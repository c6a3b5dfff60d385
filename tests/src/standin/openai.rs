//! OpenAI's completions, embeddings, images and Responses. Source: OpenAI's API reference.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, server_sent_event};
use super::tokens::Usage;

pub(super) fn answer(path: &str, request: &Value, chunks: Option<u32>) -> Option<Answer> {
    let usage = Usage::of(request, chunks);
    Some(match path {
        "/v1/completions" => completions(request, usage.uncached().unreasoned()),
        "/v1/embeddings" => embeddings(request, Usage::of(request, Some(0)).uncached()),
        "/v1/images/generations" => images(request, usage.uncached().unreasoned()),
        "/v1/responses" => responses(request, usage),
        _ => return None,
    })
}

fn completions(request: &Value, usage: Usage) -> Answer {
    let counts = json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens(),
    });
    let with = |choices: Value, usage: Option<Value>| {
        let mut body = json!({
            "id": "cmpl-standin", "object": "text_completion", "created": 1_760_000_000, "model": request["model"],
            "choices": choices,
        });
        if let Some(usage) = usage {
            body["usage"] = usage;
        }
        body
    };
    let choice = |text: &str, finish_reason: Option<&str>| json!([{"text": text, "index": 0, "logprobs": null, "finish_reason": finish_reason}]);
    let finish_reason = Some(usage.finish_reason("stop", "length"));
    if request["stream"] != true {
        return Answer::body(with(choice(&usage.text(), finish_reason), Some(counts)).to_string(), usage);
    }
    let include_usage = request["stream_options"]["include_usage"] == true;
    let null = || include_usage.then_some(Value::Null);
    let mut events: Vec<Value> = usage.tokens().map(|token| with(choice(token, None), null())).collect();
    events.push(with(choice("", finish_reason), null()));
    if include_usage {
        events.push(with(json!([]), Some(counts)));
    }
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    Answer::events(events.iter().map(|event| server_sent_event(None, event)).chain([done]).collect(), usage)
}

fn embeddings(request: &Value, usage: Usage) -> Answer {
    let body = json!({
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
        "model": request["model"],
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens},
    });
    Answer::body(body.to_string(), usage)
}

/// The bytes of a picture, in base64.
const PICTURE_BYTES: usize = 256 << 10;

/// Only `gpt-image` models tell tokens and stream; others tell where their images can be fetched.
fn images(request: &Value, usage: Usage) -> Answer {
    let count = request["n"].as_u64().unwrap_or(1);
    if !request["model"].as_str().is_some_and(|model| model.starts_with("gpt-image")) {
        let image = |at| json!({"url": format!("https://images.example/{at}.png")});
        let data: Vec<_> = (0..count).map(image).collect();
        return Answer::body(json!({"created": 1_760_000_000, "data": data}).to_string(), usage);
    }
    let picture = "iVBORw0K".repeat(PICTURE_BYTES / 8);
    let counts = json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"text_tokens": usage.prompt_tokens, "image_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens(),
    });
    if request["stream"] != true {
        let data: Vec<_> = (0..count).map(|_| json!({"b64_json": picture})).collect();
        return Answer::body(json!({"created": 1_760_000_000, "data": data, "usage": counts}).to_string(), usage);
    }
    let partial = (0..request["partial_images"].as_u64().unwrap_or(0))
        .map(|at| json!({"type": "image_generation.partial_image", "b64_json": picture, "partial_image_index": at}));
    let completed = json!({"type": "image_generation.completed", "b64_json": picture, "usage": counts});
    let events = partial.chain(std::iter::repeat_n(completed, usize::try_from(count).unwrap_or(0)));
    Answer::events(events.map(|event| server_sent_event(event["type"].as_str(), &event)).collect(), usage)
}

fn responses(request: &Value, usage: Usage) -> Answer {
    let (status, ending) = match usage.finish_reason("completed", "incomplete") {
        "completed" => ("completed", "response.completed"),
        _ => ("incomplete", "response.incomplete"),
    };
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let item = |status: &str, content: Value| json!({"id": "msg_standin", "type": "message", "status": status, "role": "assistant", "content": content});
    let response = |status: &str, output: Value, counts: Value| {
        json!({
            "id": "resp_standin", "object": "response", "created_at": 1_760_000_000, "status": status, "error": null,
            "model": request["model"], "output": output, "parallel_tool_calls": true, "tool_choice": "auto",
            "tools": [], "usage": counts,
        })
    };
    let text = usage.text();
    let finished = response(
        status,
        json!([item(status, json!([part(&text)]))]),
        json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens(),
        }),
    );
    if request["stream"] != true {
        return Answer::body(finished.to_string(), usage);
    }
    let of_item = |mut event: Value| {
        event["item_id"] = "msg_standin".into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        event
    };
    let mut events = vec![
        json!({"type": "response.created", "response": response("in_progress", json!([]), Value::Null)}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item("in_progress", json!([]))}),
        of_item(json!({"type": "response.content_part.added", "part": part("")})),
    ];
    let delta = |token: &str| of_item(json!({"type": "response.output_text.delta", "delta": token, "logprobs": []}));
    events.extend(usage.tokens().map(delta));
    events.extend([
        of_item(json!({"type": "response.output_text.done", "text": text, "logprobs": []})),
        of_item(json!({"type": "response.content_part.done", "part": part(&text)})),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item(status, json!([part(&text)]))}),
        json!({"type": ending, "response": finished}),
    ]);
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = number.into();
    }
    Answer::events(events.iter().map(|event| server_sent_event(event["type"].as_str(), event)).collect(), usage)
}
