//! No call gets past unseen: not at an endpoint that no format claims, and not where Envoy can't hand bodies over.

use serde_json::{Value, json};
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::stack::Stack;

/// Answers of an endpoint that no format claims.
struct Unclaimed {
    path: &'static str,
    /// What the upstream answers.
    replay: &'static str,
    /// The call's event under `pass`, and under `estimate`.
    passed: Counted,
    estimated: Counted,
}

/// An event's `api`, `usage_source`, and tokens of input and output; `None`: some, as estimated.
type Counted = (Value, &'static str, Option<(u32, u32)>);

fn unclaimed() -> [Unclaimed; 3] {
    let chat = || json!("openai-chat");
    [
        Unclaimed {
            path: "/v1/audio/transcriptions",
            replay: "transcription.json",
            passed: (json!(null), "none", Some((0, 0))),
            estimated: (json!(null), "estimated", None),
        },
        // The content tells what it is, whatever the endpoint.
        Unclaimed {
            path: "/my/llm",
            replay: "indented.json",
            passed: (chat(), "reported", Some((1200, 345))),
            estimated: (chat(), "reported", Some((1200, 345))),
        },
        Unclaimed {
            path: "/my/llm",
            replay: "no-usage.json",
            passed: (chat(), "estimated", None),
            estimated: (chat(), "estimated", None),
        },
    ]
}

fn policy(unclaimed_endpoints: &str) -> Value {
    json!({"unclaimed_endpoints": unclaimed_endpoints, "usage": {"flush_interval_ms": 1}})
}

fn ask(stack: &Stack, tenant: &str, unclaimed: &Unclaimed) -> Request {
    let body = json!({"model": "m", "input": "How does a tollgate count what passes?"});
    let request = Request::post(stack.envoy.listener(), unclaimed.path, &body);
    request.header("x-tenant-id", tenant).header("x-standin-replay", unclaimed.replay)
}

#[tokio::test]
async fn what_no_format_claims_is_recorded_and_counts_what_its_answer_tells() {
    let stack = Stack::builder().filter_config(policy("pass")).start().await.unwrap();
    for (index, unclaimed) in unclaimed().iter().enumerate() {
        expect(&stack, index, unclaimed, &unclaimed.passed).await;
    }
    stack.envoy.stat_reaches("tollgate_filter_calls_unclaimed_total", 3).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_usage_missing_total", 1).await.unwrap();
}

#[tokio::test]
async fn what_no_format_claims_is_estimated_where_the_operator_wants_it() {
    let stack = Stack::builder().filter_config(policy("estimate")).start().await.unwrap();
    for (index, unclaimed) in unclaimed().iter().enumerate() {
        expect(&stack, index, unclaimed, &unclaimed.estimated).await;
    }
    stack.envoy.stat_reaches("tollgate_filter_calls_unclaimed_total", 3).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_usage_missing_total", 0).await.unwrap();
}

/// Makes the call, whose answer passes as it is, and looks at its event.
async fn expect(stack: &Stack, index: usize, unclaimed: &Unclaimed, (api, source, tokens): &Counted) {
    let tenant = format!("tenant-{index}");
    let reply = ask(stack, &tenant, unclaimed).send().await.unwrap();
    let sent = stack.standin.recent_calls().pop().unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &sent.body));
    let event = stack.events(&tenant, 1).await.unwrap().remove(0);
    assert_eq!((&event["api"], &event["usage_source"]), (api, &json!(source)), "{event}");
    let counted = ["input_tokens", "output_tokens"].map(|name| event[name].as_u64().unwrap());
    match tokens {
        Some((input, output)) => assert_eq!(counted, [u64::from(*input), u64::from(*output)], "{event}"),
        // Eight words were asked, and as many answered.
        None => assert!(counted.iter().all(|count| (6..=20).contains(count)), "{event}"),
    }
}

#[tokio::test]
async fn what_no_format_claims_is_stopped_where_the_operator_wants_it() {
    let stack = Stack::builder().filter_config(policy("deny")).start().await.unwrap();
    for unclaimed in unclaimed() {
        let reply = ask(&stack, "acme", &unclaimed).send().await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("x-tollgate-error")), (403, Some("endpoint_unclaimed")));
        assert_eq!(reply.json().unwrap()["error"]["code"], "endpoint_unclaimed");
    }
    assert_eq!(stack.standin.call_count(), 0, "nothing reaches the upstream");
    // What costs nothing, and what is claimed, goes on as ever.
    for (path, status) in [("/v1/models", 200), ("/my/llm", 404)] {
        let request = Request::get(stack.envoy.listener(), path).header("x-tenant-id", "acme");
        assert_eq!(request.send().await.unwrap().status, status);
    }
    let paid = stack.chat("acme").send().await.unwrap();
    assert_eq!((paid.status.as_u16(), paid.header("x-ratelimit-remaining-requests")), (200, Some("59")));
    stack.events("acme", 1).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_calls_unclaimed_total", 3).await.unwrap();
    stack.envoy.stat_reaches("tollgate_filter_calls_unmetered_total", 2).await.unwrap();
}

#[tokio::test]
async fn calls_are_limited_and_metered_where_bodies_are_not_handed_over() {
    let limits = json!([{"unit": "requests", "capacity": 2, "window": "day"}]);
    let limits = json!({"tiers": {"starter": {"context_tokens": 1_000_000, "limits": limits}}});
    for read in ["auto", "never"] {
        let config = json!({"request_body": {"read": read}, "usage": {"flush_interval_ms": 1}});
        let builder = Stack::builder().hold_bodies_back().filter_config(config).service_config(limits.clone());
        let stack = builder.start().await.unwrap();
        let silent = json!({"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
        for request in [stack.chat("acme"), stack.chat("acme").json(&silent)] {
            assert_eq!(request.send().await.unwrap().status, 200, "{read}");
        }
        let denied = stack.chat("acme").send().await.unwrap();
        assert_eq!(denied.json().unwrap()["error"]["code"], "insufficient_quota", "{read}");
        assert_eq!((denied.status.as_u16(), stack.standin.call_count()), (429, 2), "{read}");
        for (event, call) in stack.events("acme", 2).await.unwrap().iter().zip(stack.standin.recent_calls()) {
            assert_eq!((&event["usage_source"], &event["request_model"]), (&json!("reported"), &json!("gpt-4o-mini")));
            assert_eq!(event["output_tokens"], call.usage.unwrap().completion_tokens, "{read}: {event}");
        }
    }
}
