//! Requests' bodies reach the upstream whole, however long and however they come, and are decided on by what they say.

use std::fs;

use serde_json::{Value, json};
use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::stack::{Builder, Stack};
use tollgate_e2e::harness::upload::Upload;
use tollgate_e2e::harness::wait::PATIENCE;
use tollgate_e2e::standin::MAX_RECORDED_BYTES;

/// A deployment that can't hand bodies over while headers are held, as Istio's WasmPlugin.
fn headers_first() -> Builder {
    Stack::builder().hold_bodies_back().filter_config(json!({"request_body": {"read": "auto"}}))
}

/// The service's config with these limits for the tier `starter`.
fn starter(limits: Value) -> Value {
    json!({"tiers": {"starter": {"context_tokens": 1_000_000, "limits": limits}}})
}

fn prompt(content: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]})
}

#[tokio::test]
async fn a_prompt_of_20_mib_passes_and_is_metered() {
    for builder in [Stack::builder(), headers_first()] {
        let stack = builder.start().await.unwrap();
        let image = format!("data:image/png;base64,{}", "iVBORw0K".repeat(20 << 17));
        let mut body = prompt("What is on this picture?");
        body["messages"][0]["content"] = json!([
            {"type": "text", "text": "What is on this picture?"},
            {"type": "image_url", "image_url": {"url": image}},
        ]);
        let reply = stack.chat("acme").header("x-plan-tier", "enterprise").json(&body).send().await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let sent = stack.standin.recent_calls().pop().unwrap();
        assert_eq!(sent.request_body, body.to_string().as_bytes()[..MAX_RECORDED_BYTES]);
        let event = stack.events("acme", 1).await.unwrap().remove(0);
        assert_eq!(event["request_bytes"], body.to_string().len());
        assert_eq!(event["request_model"], "gpt-4o-mini");
    }
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_reaches_the_upstream_as_it_was_sent() {
    for builder in [Stack::builder(), headers_first()] {
        let stack = builder.start().await.unwrap();
        for (call, size) in [1, 3, 50].into_iter().enumerate() {
            let body = prompt("How does a tollgate count what passes through it?").to_string();
            let headers =
                [("content-type", "application/json"), ("x-tenant-id", "acme"), ("x-plan-tier", "enterprise")];
            let mut upload = Upload::begin(stack.envoy.listener(), "/v1/chat/completions", &headers).await.unwrap();
            for piece in body.as_bytes().chunks(size) {
                upload.send(piece).await.unwrap();
            }
            let answer = upload.finish().await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            assert_eq!(stack.standin.recent_calls()[call].request_body, body.as_bytes());
        }
        stack.usage_after("acme", 3, PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_whose_rest_comes_after_the_answer_reaches_the_upstream_whole() {
    // The first call is decided on by its headers: no body has come while headers were held.
    let auto = json!({"request_body": {"read": "auto"}});
    let stack = Stack::builder().filter_config(auto).start().await.unwrap();
    let mut body = prompt("How does a tollgate count what passes through it?");
    body["stream"] = json!(true);
    let body = body.to_string();
    let headers = [("content-type", "application/json"), ("x-tenant-id", "acme")];
    let mut upload = Upload::begin(stack.envoy.listener(), "/v1/chat/completions", &headers).await.unwrap();
    let (first, rest) = body.as_bytes().split_at(30);
    upload.send(first).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_calls_admitted_total", 1).await.unwrap();
    for piece in rest.chunks(20) {
        upload.send(piece).await.unwrap();
    }
    let answer = upload.finish().await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let sent = String::from_utf8(stack.standin.recent_calls()[0].request_body.to_vec()).unwrap();
    assert_eq!(sent, body.strip_suffix('}').unwrap().to_owned() + ",\"stream_options\":{\"include_usage\":true}}");
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!((&event["request_model"], &event["usage_source"]), (&json!("gpt-4o-mini"), &json!("reported")));
}

#[tokio::test]
async fn a_body_longer_than_what_is_held_goes_on_and_is_stopped_when_it_is_denied() {
    let limits = starter(json!([{"unit": "requests", "capacity": 1, "window": "day"}]));
    let held = json!({"request_body": {"max_bytes": 1000}});
    let stack = Stack::builder().filter_config(held).service_config(limits).start().await.unwrap();
    let body = prompt(&"word ".repeat(100_000));
    let reply = stack.chat("acme").json(&body).send().await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(stack.standin.recent_calls()[0].request_body, body.to_string().as_bytes());
    // What has begun to be answered can't be stopped any more: this upstream does not begin.
    let denied = stack.chat("acme").header("x-standin-hang-after-bytes", "0").json(&body);
    let reply = denied.send().await.unwrap();
    assert_eq!(reply.status, 429, "{}", reply.text());
    // The upstream may have begun with what had gone on: that is told, and counts nothing.
    let events = stack.events("acme", 2).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| (&event["finish"], &event["usage_source"])).collect();
    assert_eq!(told, [(&json!("complete"), &json!("reported")), (&json!("local_reply"), &json!("none"))]);
}

#[tokio::test]
async fn what_a_body_asks_for_is_checked_before_it_goes_on() {
    let limits = starter(json!([{"unit": "tokens", "capacity": 1000, "window": "day"}]));
    let stack = Stack::builder().service_config(limits).start().await.unwrap();
    let reply = stack.chat("acme").json(&prompt(&"word ".repeat(2000))).send().await.unwrap();
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert_eq!(stack.standin.call_count(), 0);
    assert_eq!(stack.chat("acme").send().await.unwrap().status, 200, "a denied call took nothing");
}

#[tokio::test]
async fn a_prompt_longer_than_the_plans_context_is_refused_as_its_provider_would() {
    let stack = Stack::builder().start().await.unwrap();
    let reply = stack.chat("acme").json(&prompt(&"word ".repeat(100_000))).send().await.unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
    let error = &reply.json().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("context_length_exceeded"), &json!("invalid_request_error")));
    assert_eq!((stack.standin.call_count(), reply.header("retry-after")), (0, None));
}

#[tokio::test]
async fn a_stream_that_was_not_asked_for_its_usage_is_metered_and_looks_as_if_it_had_not() {
    for builder in [Stack::builder(), headers_first()] {
        let stack = builder.start().await.unwrap();
        let mut body = prompt("How does a tollgate count?");
        body["stream"] = json!(true);
        for options in [json!(null), json!({"include_usage": false}), json!({})] {
            body["stream_options"] = options;
            let seen = stack.chat("acme").header("x-plan-tier", "enterprise").json(&body).send().await.unwrap();
            assert_eq!(seen.status, 200, "{}", seen.text());
            let sent = stack.standin.recent_calls().pop().unwrap();
            let upstream: Value = serde_json::from_slice(&sent.request_body).unwrap();
            assert_eq!(upstream["stream_options"]["include_usage"], true);
            let own = stack.chat_direct().json(&body).send().await.unwrap();
            let events = |text: &str| text.replace(&field(text, "id"), "").replace(&field(text, "created"), "");
            assert_eq!(events(&seen.text()), events(&own.text()), "as the upstream would have answered");
        }
        let usage = stack.usage_after("acme", 3, PATIENCE).await.unwrap();
        assert_eq!(usage["requests_by_usage_source"]["reported"], 3, "{usage}");
    }
}

/// The text of the first member with this name.
fn field(text: &str, name: &str) -> String {
    let start = text.find(&format!("\"{name}\":")).expect(name);
    text[start..].split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn recorded_streams_lose_only_the_usage_that_the_filter_asked_for() {
    let stack = Stack::builder().start().await.unwrap();
    let recorded = fs::read_to_string(artifacts::repository().join("tests/fixtures/unicode.sse")).unwrap();
    for cut in ["1", "7", "1000000"] {
        let mut body = prompt("How does a tollgate count?");
        body["stream"] = json!(true);
        let request = stack.chat("acme").json(&body).header("x-standin-replay", "unicode.sse");
        let reply = request.header("x-standin-cut", cut).send().await.unwrap();
        let events: Vec<&str> = recorded.split_inclusive("\n\n").collect();
        let is_usage = |event: &&&str| event.contains("\"choices\":[]") && event.contains("\"usage\":{");
        assert_eq!(events.iter().filter(is_usage).count(), 1);
        let kept: String =
            events.iter().filter(|event| !is_usage(event)).map(|event| event.replace(",\"usage\":null", "")).collect();
        assert_eq!(reply.text(), kept, "in pieces of {cut}");
    }
}
