//! Whatever API is called, and however its answer is coded and cut: it passes byte for byte, and is counted as it says.

use serde_json::{Value, json};
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;
use tollgate_e2e::standin::tokens::Usage;

const PROMPT: &str = "How does a tollgate count?";

/// How answers are coded, and into pieces of how many bytes they are cut.
const PASSAGES: [(Option<&str>, &str); 4] =
    [(None, "1000000"), (None, "31"), (Some("gzip"), "100"), (Some("deflate"), "13")];

/// An API, and the requests for a body and for a stream.
type Api = (&'static str, Vec<(&'static str, Value)>);

fn openai() -> Vec<Api> {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": PROMPT}]});
    let completion = json!({"model": "m", "prompt": PROMPT});
    let response = json!({"model": "m", "input": PROMPT});
    let embeddings = json!({"model": "m", "input": ["Two words", "Three more words"]});
    let asking = json!({"stream": true, "stream_options": {"include_usage": true}});
    vec![
        ("openai-chat", vec![("/v1/chat/completions", chat.clone()), ("/v1/chat/completions", with(&chat, &asking))]),
        (
            "openai-completions",
            vec![("/v1/completions", completion.clone()), ("/v1/completions", with(&completion, &asking))],
        ),
        ("openai-embeddings", vec![("/v1/embeddings", embeddings)]),
        ("openai-responses", body_and_stream("/v1/responses", &response)),
    ]
}

fn others() -> Vec<Api> {
    let messages = json!([{"role": "user", "content": PROMPT}]);
    let chat = json!({"model": "m", "max_tokens": 50, "messages": messages});
    let message = json!({"model": "m", "message": PROMPT});
    let prompt = json!({"model": "m", "prompt": PROMPT});
    vec![
        ("anthropic", body_and_stream("/v1/messages", &chat)),
        ("cohere-v2", body_and_stream("/v2/chat", &chat)),
        ("cohere-v1", body_and_stream("/v1/chat", &message)),
        ("ollama-chat", body_and_stream("/api/chat", &chat)),
        ("ollama-generate", body_and_stream("/api/generate", &prompt)),
    ]
}

/// Those that tell a stream by the path.
fn by_path() -> Vec<Api> {
    let messages = json!([{"role": "user", "content": PROMPT}]);
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]});
    let converse = json!({"messages": [{"role": "user", "content": [{"text": PROMPT}]}]});
    let claude = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": messages});
    vec![
        (
            "gemini",
            vec![
                ("/v1beta/models/gemini-2.5-flash:generateContent", contents.clone()),
                ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", contents.clone()),
                ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", contents),
            ],
        ),
        (
            "bedrock-converse",
            vec![("/model/claude-v1%3A0/converse", converse.clone()), ("/model/claude-v1/converse-stream", converse)],
        ),
        (
            "bedrock-invoke",
            vec![
                ("/model/claude-v1%3A0/invoke", claude.clone()),
                ("/model/claude-v1/invoke-with-response-stream", claude),
            ],
        ),
    ]
}

fn body_and_stream(path: &'static str, request: &Value) -> Vec<(&'static str, Value)> {
    vec![(path, with(request, &json!({"stream": false}))), (path, with(request, &json!({"stream": true})))]
}

fn with(request: &Value, members: &Value) -> Value {
    let mut request = request.clone();
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn every_apis_answers_pass_and_are_counted_as_they_say() {
    let stack = Stack::builder().start().await.unwrap();
    let apis = [openai(), others(), by_path()].concat();
    for (name, requests) in &apis {
        for (path, body) in requests {
            for (coding, cut) in PASSAGES {
                let mut request = Request::post(stack.envoy.listener(), path, body).header("x-tenant-id", name);
                request = request.header("x-plan-tier", "enterprise").header("x-standin-cut", cut);
                if let Some(coding) = coding {
                    request = request.header("accept-encoding", coding).header("x-standin-encoding", coding);
                }
                let reply = request.send().await.unwrap();
                let sent = stack.standin.recent_calls().pop().unwrap();
                assert_eq!((reply.status, &reply.body), (sent.status, &sent.body), "{path} {coding:?}");
                assert_eq!((reply.status.as_u16(), reply.header("content-encoding")), (200, coding), "{path}");
            }
        }
    }
    for (name, requests) in &apis {
        let calls = stack.standin.recent_calls().into_iter().filter(|call| call.headers["x-tenant-id"] == name);
        let told: Vec<Usage> = calls.map(|call| call.usage.unwrap()).collect();
        assert_eq!(told.len(), requests.len() * PASSAGES.len());
        let usage = stack.usage_after(name, told.len() as u64, PATIENCE).await.unwrap();
        let sum = |tokens: fn(&Usage) -> u32| told.iter().map(tokens).sum::<u32>();
        assert_eq!(usage["input_tokens"], sum(|usage| usage.prompt_tokens), "{name}");
        assert_eq!(usage["output_tokens"], sum(|usage| usage.completion_tokens), "{name}");
        assert_eq!(usage["cache_read_tokens"], sum(|usage| usage.cached_tokens), "{name}");
        assert_eq!(usage["reasoning_tokens"], sum(|usage| usage.reasoning_tokens), "{name}");
        assert_eq!(usage["requests_by_usage_source"]["reported"], told.len(), "{name}: {usage}");
        if name.starts_with("cohere") {
            // The stand-in's preamble of three tokens is not billed.
            assert_eq!(usage["billed_input_tokens"], sum(|usage| usage.prompt_tokens - 3), "{name}");
            assert_eq!(usage["billed_output_tokens"], sum(|usage| usage.completion_tokens), "{name}");
        }
    }
}
