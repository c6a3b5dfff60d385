//! Limits hold for calls that go on at once, and what a lost proxy had reserved is neither free nor lost.

use anyhow::ensure;
use serde_json::{Value, json};
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

/// Reservations that run out while a test waits, and room for one call at once of at most 1000 tokens in a month.
fn service() -> Value {
    json!({
        "limiter": {"default_tier": "starter", "reservation_timeout_s": 2},
        "tiers": {"starter": {"context_tokens": 100_000, "limits": [
            {"unit": "tokens", "capacity": 1000, "window": "month"},
            {"unit": "concurrency", "capacity": 1},
        ]}},
    })
}

/// A stream that sends its first piece and then waits.
fn waiting(stack: &Stack, max_tokens: u32) -> Request {
    let body = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "How does a tollgate count?"}],
        "max_tokens": max_tokens,
        "stream": true,
    });
    stack.chat("acme").json(&body).header("x-standin-gate", "closed")
}

#[tokio::test]
async fn of_64_streams_at_once_one_is_admitted_where_there_is_room_for_one() {
    let service = json!({
        "limiter": {"default_tier": "starter"},
        "tiers": {"starter": {"context_tokens": 100_000, "limits": [
            {"unit": "tokens", "capacity": 1000, "window": "month"},
        ]}},
    });
    let stack = Stack::builder().service_config(service).start().await.unwrap();
    let calls = (0..64).map(|_| tokio::spawn(waiting(&stack, 900).start()));
    let (mut admitted, mut denied) = (Vec::new(), 0);
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap().unwrap();
        match answer.status.as_u16() {
            200 => admitted.push(answer),
            429 => denied += 1,
            status => panic!("{status}"),
        }
    }
    assert_eq!((admitted.len(), denied, stack.standin.call_count()), (1, 63, 1));
}

#[tokio::test]
async fn what_a_killed_envoy_had_reserved_runs_out_and_is_billed_as_unsettled() {
    let mut stack = Stack::builder().service_config(service()).start().await.unwrap();
    let mut first = waiting(&stack, 300).start().await.unwrap();
    assert!(first.next_bytes().await.unwrap().is_some());
    let denied = waiting(&stack, 10).send().await.unwrap();
    assert_eq!(denied.status, 429);
    assert!(denied.text().contains("concurrent requests"), "{}", denied.text());

    stack.envoy.kill().unwrap();
    drop(first);
    let usage = eventually("what it had reserved", PATIENCE, async || {
        let usage = stack.rest_get("/api/v1/usage/acme?period=month").await?;
        ensure!(usage["requests_by_usage_source"]["unsettled"] == 1, "{usage}");
        Ok(usage)
    })
    .await
    .unwrap();
    assert_eq!((&usage["requests"], &usage["output_tokens"]), (&json!(1), &json!(300)));
    let limits = stack.rest_get("/api/v1/usage/acme/limit?plan_tier=starter").await.unwrap();
    assert_eq!(limits["limits"][0]["used"], usage["total_tokens"]);
    assert_eq!(limits["limits"][1]["used"], 0, "the slot is free");
}
