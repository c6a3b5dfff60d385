//! Ollama's own API, which streams unless told not to. Source: Ollama's API documentation.

use serde_json::{Value, json};

use super::answer::Answer;
use super::tokens::Usage;

pub(super) fn answer(path: &str, request: &Value, chunks: Option<u32>) -> Option<Answer> {
    let usage = Usage::of(request, chunks).uncached().unreasoned();
    let line = |text: &str, end: Option<&str>| {
        let mut line = json!({"model": request["model"], "created_at": "2026-01-01T00:00:00Z", "done": end.is_some()});
        match path {
            "/api/chat" => line["message"] = json!({"role": "assistant", "content": text}),
            _ => line["response"] = text.into(),
        }
        if let Some(reason) = end {
            line["done_reason"] = reason.into();
            line["total_duration"] = 482_007_750.into();
            line["prompt_eval_count"] = usage.prompt_tokens.into();
            line["eval_count"] = usage.completion_tokens.into();
        }
        line
    };
    if !matches!(path, "/api/chat" | "/api/generate") {
        return None;
    }
    let end = Some(usage.finish_reason("stop", "length"));
    if request["stream"] == false {
        return Some(Answer::body(line(&usage.text(), end).to_string(), usage));
    }
    let lines: Vec<_> = usage.tokens().map(|token| line(token, None)).chain([line("", end)]).collect();
    Some(Answer::lines("application/x-ndjson", &lines, usage))
}
