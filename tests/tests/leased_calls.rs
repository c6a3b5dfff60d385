//! Leases at a real Envoy: calls that go on without asking, limits that hold all the same, and denials without a question.

use anyhow::ensure;
use serde_json::{Value, json};
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

fn service(requests_per_day: u64) -> Value {
    json!({
        "limiter": {"default_tier": "hot", "lease_share_percent": 50},
        "tiers": {"hot": {"context_tokens": 100_000, "limits": [
            {"unit": "requests", "capacity": requests_per_day, "window": "day"},
            {"unit": "tokens", "capacity": 1_000_000_000, "window": "day"},
        ]}},
    })
}

async fn count(stack: &Stack, name: &str) -> anyhow::Result<u64> {
    stack.envoy.stat(&format!("tollgate_filter_{name}_total")).await
}

/// Calls one after the other until so many went on by a lease: how many there were.
async fn call_until_leased(stack: &Stack, leased: u64) -> u64 {
    let mut calls = 0;
    eventually(&format!("{leased} calls by a lease"), PATIENCE, async || {
        for _ in 0..20 {
            let reply = stack.chat("acme").send().await?;
            ensure!(reply.status == 200, "{}", reply.text());
            assert!(reply.header("x-ratelimit-remaining").is_some());
            calls += 1;
        }
        let seen = count(stack, "calls_leased").await?;
        ensure!(seen >= leased, "{seen}");
        Ok(())
    })
    .await
    .unwrap();
    calls
}

#[tokio::test]
async fn a_hot_tenants_calls_go_on_by_leases_and_each_is_billed_once() {
    let stack = Stack::builder().service_config(service(100_000)).start().await.unwrap();
    let calls = call_until_leased(&stack, 50).await;
    // What was lent and not used has come back too.
    eventually("all is settled and given back", PATIENCE, async || {
        let usage = stack.rest_get("/api/v1/usage/acme?period=month").await?;
        ensure!(usage["requests"] == calls, "{calls}: {usage}");
        let limits = stack.rest_get("/api/v1/usage/acme/limit").await?;
        let of = |name: &str| {
            let limits = limits["limits"].as_array().into_iter().flatten();
            limits.clone().find(|limit| limit["name"] == name).cloned().unwrap_or_default()
        };
        ensure!(of("requests_per_day")["used"] == calls, "{calls}: {limits}");
        ensure!(of("tokens_per_day")["reserved"] == 0, "{limits}");
        ensure!(of("tokens_per_day")["used"] == usage["total_tokens"], "{limits} {usage}");
        let sum = count(&stack, "calls_admitted").await? + count(&stack, "calls_leased").await?;
        ensure!(sum == calls, "{sum} instead of {calls}");
        Ok(())
    })
    .await
    .unwrap();
    let (lent, leased) = (count(&stack, "calls_lent").await.unwrap(), count(&stack, "calls_leased").await.unwrap());
    let returned = count(&stack, "calls_returned").await.unwrap();
    assert_eq!(lent, leased + returned, "what was lent went on or was given back");
}

#[tokio::test]
async fn no_more_go_on_than_the_limit_has_and_who_is_denied_is_not_asked_about_again() {
    const LIMIT: u64 = 400;
    let stack = Stack::builder().service_config(service(LIMIT)).start().await.unwrap();
    let (mut admitted, mut denied) = (0, 0);
    while denied < 2_000 {
        match stack.chat("acme").send().await.unwrap().status.as_u16() {
            200 => admitted += 1,
            429 => denied += 1,
            status => panic!("{status}"),
        }
        assert!(admitted <= LIMIT, "{admitted} went on");
    }
    assert_eq!(stack.standin.call_count(), admitted);
    eventually("what is counted", PATIENCE, async || {
        let counted = count(&stack, "calls_denied").await?;
        ensure!(counted == denied, "{counted} of {denied}");
        let from_cache = count(&stack, "calls_denied_from_cache").await?;
        ensure!(from_cache * 100 >= denied * 90, "{from_cache} of {denied} without a question");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_limit_that_becomes_smaller_holds_once_what_was_lent_before_has_expired() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let mut with_redis = service(100_000);
    with_redis["counters"] = json!({"engine": "redis", "redis": {"url": redis.url(), "timeout_ms": 10_000}});
    let mut stack = Stack::builder().service_config(with_redis).start().await.unwrap();
    call_until_leased(&stack, 50).await;
    stack.service.reconfigure(&json!({"tiers": service(1)["tiers"]})).unwrap();
    // Leases live a second, and calls go on all the while: more than one is let through by none that was lent after the change.
    eventually("the smaller limit", PATIENCE, async || {
        let reply = stack.chat("acme").send().await?;
        ensure!(reply.status == 429, "{}", reply.text());
        Ok(())
    })
    .await
    .unwrap();
    let went_on = stack.standin.call_count();
    for _ in 0..200 {
        assert_eq!(stack.chat("acme").send().await.unwrap().status, 429);
    }
    assert_eq!(stack.standin.call_count(), went_on);
    // What is counted in Redis is what went on: each call, once.
    eventually("all is settled and given back", PATIENCE, async || {
        let limits = stack.rest_get("/api/v1/usage/acme/limit").await?;
        ensure!(limits["limits"][0]["used"] == went_on, "{went_on}: {limits}");
        ensure!(limits["limits"][1]["reserved"] == 0, "{limits}");
        Ok(())
    })
    .await
    .unwrap();
}
