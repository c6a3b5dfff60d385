//! What the REST API counts is what the upstream reported.

use hyper::StatusCode;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;
use tollgate_e2e::standin::tokens::Usage;

#[tokio::test]
async fn usage_equals_what_the_upstream_reported() {
    let stack = Stack::builder().start().await.unwrap();
    for chunks in ["1", "8", "50"] {
        for request in [stack.chat("acme"), stack.chat_stream("acme")] {
            assert_eq!(request.header("x-standin-chunks", chunks).send().await.unwrap().status, 200);
        }
    }
    let reported: Vec<_> = stack.standin.recent_calls().into_iter().map(|call| call.usage.unwrap()).collect();
    let sum = |tokens: fn(&Usage) -> u32| -> u64 { reported.iter().map(|usage| u64::from(tokens(usage))).sum() };

    let usage = stack.usage_after("acme", 6, PATIENCE).await.unwrap();
    assert_eq!(usage["tenant_id"], "acme");
    assert_eq!(usage["input_tokens"], sum(|usage| usage.prompt_tokens));
    assert_eq!(usage["output_tokens"], sum(|usage| usage.completion_tokens));
    assert_eq!(usage["total_tokens"], sum(|usage| usage.total_tokens()));
    assert_eq!(usage["cache_read_tokens"], sum(|usage| usage.cached_tokens));
    assert_eq!(usage["reasoning_tokens"], sum(|usage| usage.reasoning_tokens));

    let tokens = sum(|usage| usage.completion_tokens);
    stack.envoy.stat_reaches("tollgate_filter_output_tokens_total", tokens).await.unwrap();
}

#[tokio::test]
async fn an_upstreams_failure_passes_and_costs_no_tokens() {
    let stack = Stack::builder().start().await.unwrap();
    let failed = stack.chat("acme").header("x-standin-status", "500").send().await.unwrap();
    let sent = stack.standin.recent_calls().pop().unwrap();
    assert_eq!((failed.status, &failed.body), (StatusCode::INTERNAL_SERVER_ERROR, &sent.body));
    let unanswered = stack.chat("acme").header("x-standin-reset-after-bytes", "0").send().await.unwrap();
    assert_eq!(unanswered.status, StatusCode::SERVICE_UNAVAILABLE);

    let usage = stack.usage_after("acme", 2, PATIENCE).await.unwrap();
    assert_eq!((&usage["total_tokens"], &usage["success_rate"]), (&0.into(), &0.0.into()));
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_for_the_client_and_is_one_call() {
    let stack = Stack::builder().start().await.unwrap();
    let broken = stack.chat_stream("acme").header("x-standin-reset-after-bytes", "300").send().await;
    assert!(format!("{:#}", broken.unwrap_err()).contains("broke off"));
    let whole = stack.chat("acme").send().await.unwrap();
    let usage = stack.usage_after("acme", 2, PATIENCE).await.unwrap();
    assert_eq!(usage["total_tokens"], whole.json().unwrap()["usage"]["total_tokens"]);
}
