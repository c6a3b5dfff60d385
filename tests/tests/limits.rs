//! A plan's limits hold at the proxy.

use std::time::{Instant, SystemTime};

use anyhow::ensure;
use serde_json::{Value, json};
use tollgate_e2e::harness::http::{Reply, Request};
use tollgate_e2e::harness::stack::{Limiter, Stack};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

/// What `starter` may ask for in a minute.
const STARTER_REQUESTS: u64 = 60;

/// Each call is asked about. With leases the last ones may have been lent a moment before one is denied, so that fewer pass at first.
fn without_leases() -> Value {
    json!({"admission": {"leases": "off"}})
}

/// Calls until the first that is not answered 200: how many were, and that one.
///
/// The limit is a bucket that is full at the start and gains a request each second: so many more may pass as whole
/// seconds go by, and no more.
async fn burst(request: impl Fn() -> Request) -> (u64, Reply) {
    let start = Instant::now();
    let mut admitted = 0;
    loop {
        let reply = request().send().await.unwrap();
        let most = STARTER_REQUESTS + start.elapsed().as_secs() + 1;
        if reply.status != 200 {
            assert!((STARTER_REQUESTS..=most).contains(&admitted), "{admitted} admitted, at most {most} could be");
            return (admitted, reply);
        }
        admitted += 1;
        assert!(admitted <= most, "{admitted} admitted, at most {most} could be");
    }
}

#[tokio::test]
async fn the_sixty_first_request_of_a_minute_is_refused_and_the_count_comes_back() {
    let stack = Stack::builder().filter_config(without_leases()).start().await.unwrap();
    let (admitted, denied) = burst(|| stack.chat("acme")).await;
    let reached = stack.standin.call_count();
    assert_eq!(reached, admitted, "a refused call does not reach the upstream");

    assert_eq!(denied.status, 429, "{}", denied.text());
    let error = &denied.json().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"rate_limit_exceeded".into(), &"requests".into()));
    assert!(error["message"].as_str().unwrap().contains("60 requests"), "{error}");
    let number = |name: &str| denied.header(name).unwrap_or_else(|| panic!("no {name}")).parse::<u64>().unwrap();
    assert_eq!(number("retry-after"), 1);
    assert_eq!((number("x-ratelimit-limit"), number("x-ratelimit-remaining")), (STARTER_REQUESTS, 0));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 60..=now + 60).contains(&number("x-ratelimit-reset")), "{:?}", denied.headers);
    assert_eq!(denied.header("content-type"), Some("application/json"));

    eventually("an admitted call", PATIENCE, async || {
        let reply = stack.chat("acme").send().await?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })
    .await
    .unwrap();
    stack.usage_after("acme", admitted + 1, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn another_tenant_on_another_plan_is_unaffected() {
    let stack = Stack::builder().filter_config(without_leases()).start().await.unwrap();
    let (_, denied) = burst(|| stack.chat("acme")).await;
    assert_eq!(denied.status, 429);
    let pro = stack.chat("globex").header("x-plan-tier", "pro").send().await.unwrap();
    assert_eq!((pro.status.as_u16(), pro.header("x-ratelimit-limit-requests")), (200, Some("120")));
    assert_eq!(pro.header("x-ratelimit-remaining-requests"), Some("119"));
}

#[tokio::test]
async fn a_get_costs_nothing() {
    let stack = Stack::builder().start().await.unwrap();
    for _ in 0..=STARTER_REQUESTS {
        let models = Request::get(stack.envoy.listener(), "/v1/models").header("x-tenant-id", "acme");
        assert_eq!(models.send().await.unwrap().status, 200);
    }
    let paid = stack.chat("acme").send().await.unwrap();
    assert_eq!((paid.status.as_u16(), paid.header("x-ratelimit-remaining-requests")), (200, Some("59")));
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn tokens_that_were_used_count_against_the_minute() {
    let stack = Stack::builder().start().await.unwrap();
    // `starter` has 100 000 a minute: this leaves it in debt for another.
    let first = stack.chat("acme").header("x-standin-chunks", "200000").send().await.unwrap();
    assert_eq!(first.status, 200);
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
    let denied = eventually("a refused call", PATIENCE, async || {
        let reply = stack.chat("acme").send().await?;
        ensure!(reply.status == 429, "{}", reply.status);
        Ok(reply)
    })
    .await
    .unwrap();
    assert_eq!(denied.json().unwrap()["error"]["type"], "tokens");
}

#[tokio::test]
async fn envoys_own_rate_limit_filter_is_served_too() {
    let stack = Stack::builder().limiter(Limiter::NativeRatelimit).start().await.unwrap();
    let (_, denied) = burst(|| stack.chat("acme").header("x-plan-tier", "starter")).await;
    assert_eq!((denied.status.as_u16(), denied.header("x-envoy-ratelimited")), (429, Some("true")));
    let pro = stack.chat("globex").header("x-plan-tier", "pro").send().await.unwrap();
    assert_eq!(pro.status, 200);
}

#[tokio::test]
async fn envoys_own_filter_reports_tokens_when_an_answer_is_done() {
    let stack = Stack::builder()
        .limiter(Limiter::NativeRatelimit)
        .service_config(json!({
            "limiter": {"default_tier": "small"},
            "tiers": {"small": {"context_tokens": 100_000, "limits": [
                {"unit": "requests", "capacity": 100, "window": "hour"},
                {"unit": "tokens", "capacity": 1000, "window": "month"},
            ]}},
        }))
        .start()
        .await
        .unwrap();
    let chat = || stack.chat("acme").header("x-plan-tier", "small").header("x-standin-chunks", "700");
    let used = async || {
        let limits = stack.rest_get("/api/v1/usage/acme/limit?plan_tier=small").await?;
        Ok::<_, anyhow::Error>((limits["limits"][0]["used"].clone(), limits["limits"][1]["used"].clone()))
    };
    let mut tokens = 0;
    for requests in [1, 2] {
        let reply = chat().send().await.unwrap();
        tokens += reply.json().unwrap()["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(reply.status, 200);
        eventually("the report", PATIENCE, async || {
            let used = used().await?;
            ensure!(used == (json!(requests), json!(tokens)), "{used:?}, not {tokens}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert!(tokens > 1000, "into debt");
    assert_eq!((chat().send().await.unwrap().status.as_u16(), used().await.unwrap().0), (429, json!(2)));
}
