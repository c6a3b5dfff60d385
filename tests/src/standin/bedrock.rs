//! Bedrock's `Converse` and `InvokeModel`, each also as a stream of Amazon's binary events. An invoked model is one of
//! Anthropic's. Source: the Amazon Bedrock API reference, and the AWS event stream encoding that the SDKs' guide describes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::answer::Answer;
use super::anthropic;
use super::tokens::Usage;

/// The name of the exception that stands for an error status.
pub(super) fn exception(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}

pub(super) fn answer(path: &str, request: &Value, chunks: Option<u32>) -> Option<Answer> {
    let (_, method) = path.strip_prefix("/model/")?.rsplit_once('/')?;
    let usage = Usage::of(request, chunks).unreasoned();
    Some(match method {
        "converse" => Answer::body(converse(usage).to_string(), usage),
        "converse-stream" => Answer::amazon_events(converse_stream(usage), usage),
        "invoke" => Answer::body(anthropic::message(&invoked(request), usage).to_string(), usage)
            .with_header("x-amzn-bedrock-input-token-count", HeaderValue::from(usage.prompt_tokens))
            .with_header("x-amzn-bedrock-output-token-count", HeaderValue::from(usage.completion_tokens)),
        "invoke-with-response-stream" => Answer::amazon_events(invoke_stream(request, usage), usage),
        _ => return None,
    })
}

/// The model stands in the path, and the body leaves it out.
fn invoked(request: &Value) -> Value {
    let mut request = request.clone();
    request["model"] = "claude-standin".into();
    request
}

/// What was read from the cache does not count as input.
fn counts(usage: Usage) -> Value {
    json!({
        "inputTokens": usage.prompt_tokens - usage.cached_tokens,
        "cacheReadInputTokens": usage.cached_tokens,
        "cacheWriteInputTokens": 0,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens(),
    })
}

fn stop_reason(usage: Usage) -> &'static str {
    usage.finish_reason("end_turn", "max_tokens")
}

fn converse(usage: Usage) -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [{"text": usage.text()}]}},
        "stopReason": stop_reason(usage),
        "usage": counts(usage),
        "metrics": {"latencyMs": 40},
    })
}

fn converse_stream(usage: Usage) -> Vec<Bytes> {
    let delta = |token| frame("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": token}}));
    let mut frames = vec![frame("messageStart", &json!({"role": "assistant"}))];
    frames.extend(usage.tokens().map(delta));
    frames.extend([
        frame("contentBlockStop", &json!({"contentBlockIndex": 0})),
        frame("messageStop", &json!({"stopReason": stop_reason(usage)})),
        frame("metadata", &json!({"usage": counts(usage), "metrics": {"latencyMs": 40}})),
    ]);
    frames
}

fn invoke_stream(request: &Value, usage: Usage) -> Vec<Bytes> {
    let mut events = anthropic::stream(&invoked(request), usage);
    if let Some(last) = events.last_mut() {
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": usage.prompt_tokens - usage.cached_tokens,
            "cacheReadInputTokenCount": usage.cached_tokens,
            "outputTokenCount": usage.completion_tokens,
            "invocationLatency": 40,
            "firstByteLatency": 4,
        });
    }
    let wrapped = |event: &Value| frame("chunk", &json!({"bytes": STANDARD.encode(event.to_string()), "p": "abcdef"}));
    events.iter().map(wrapped).collect()
}

/// One binary event: lengths, their checksum, headers, payload, the checksum of all.
fn frame(event_type: &str, payload: &Value) -> Bytes {
    const STRING: u8 = 7; // a header's type
    let payload = payload.to_string();
    let mut headers = BytesMut::new();
    for (name, value) in
        [(":event-type", event_type), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.put_u8(name.len() as u8);
        headers.put_slice(name.as_bytes());
        headers.put_u8(STRING);
        headers.put_u16(value.len() as u16);
        headers.put_slice(value.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u32((12 + headers.len() + payload.len() + 4) as u32);
    frame.put_u32(headers.len() as u32);
    frame.put_u32(crc32fast::hash(&frame));
    frame.put_slice(&headers);
    frame.put_slice(payload.as_bytes());
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_the_sdks_read_it() {
        let frame = frame("metadata", &json!({}));
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!((number(0) as usize, number(8)), (frame.len(), crc32fast::hash(&frame[..8])));
        assert_eq!(number(frame.len() - 4), crc32fast::hash(&frame[..frame.len() - 4]));
        assert_eq!(&frame[12..12 + 23], b"\x0b:event-type\x07\x00\x08metadata");
        assert_eq!(&frame[12 + number(4) as usize..frame.len() - 4], b"{}");
    }
}
