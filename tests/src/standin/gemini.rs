//! Gemini's `generateContent` and `streamGenerateContent`. Source: the Gemini API reference, "Generating content".

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::Answer;
use super::tokens::Usage;

pub(super) fn answer(path: &str, query: Option<&str>, request: &Value, chunks: Option<u32>) -> Option<Answer> {
    let (model, method) = path.rsplit_once('/')?.1.split_once(':')?;
    let usage = Usage::of(request, chunks);
    match method {
        "generateContent" => {
            let finish_reason = Some(finish_reason(usage));
            Some(Answer::body(part(model, usage, &usage.text(), usage.completion_tokens, finish_reason), usage))
        }
        "streamGenerateContent" => {
            let parts = stream(model, usage);
            let as_events = query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
            Some(if as_events {
                Answer::events(parts.iter().map(|part| format!("data: {part}\r\n\r\n").into()).collect(), usage)
            } else {
                Answer::json_pieces(array(&parts), usage)
            })
        }
        _ => None,
    }
}

fn stream(model: &str, usage: Usage) -> Vec<String> {
    let spoken = (1..).zip(usage.tokens()).map(|(count, token)| part(model, usage, token, count, None));
    spoken.chain([part(model, usage, "", usage.completion_tokens, Some(finish_reason(usage)))]).collect()
}

/// Without `alt=sse` the parts are the elements of one array.
fn array(parts: &[String]) -> Vec<Bytes> {
    let element = |(at, part): (usize, &String)| {
        let before = if at == 0 { "[" } else { ",\r\n" };
        let after = if at + 1 == parts.len() { "\n]\n" } else { "\n" };
        format!("{before}{part}{after}").into()
    };
    parts.iter().enumerate().map(element).collect()
}

/// A part of the answer after `spoken` tokens of the completion. Thoughts are no candidate's tokens.
fn part(model: &str, usage: Usage, text: &str, spoken: u32, finish_reason: Option<&str>) -> String {
    let thoughts = usage.reasoning_tokens.min(spoken);
    let mut candidate = json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
    if let Some(finish_reason) = finish_reason {
        candidate["finishReason"] = finish_reason.into();
    }
    let body = json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": usage.prompt_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "candidatesTokenCount": spoken - thoughts,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": usage.prompt_tokens + spoken,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.prompt_tokens}],
        },
        "modelVersion": model,
        "responseId": "standin",
    });
    body.to_string()
}

fn finish_reason(usage: Usage) -> &'static str {
    usage.finish_reason("STOP", "MAX_TOKENS")
}
