//! `settle: rls`: a rate limit service that reads no usage events learns what calls used all the same.

use anyhow::ensure;
use serde_json::json;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

#[tokio::test]
async fn used_tokens_are_taken_by_a_second_question() {
    let service = json!({
        "limiter": {"default_tier": "starter"},
        "tiers": {"starter": {"context_tokens": 100_000, "limits": [
            {"unit": "tokens", "capacity": 1_000_000, "window": "day"},
        ]}},
    });
    // No event arrives anywhere.
    let filter = json!({"admission": {"settle": "rls"}, "usage": {"cluster": "nowhere"}});
    let stack = Stack::builder().service_config(service).filter_config(filter).start().await.unwrap();
    let mut used = 0;
    for _ in 0..3 {
        let reply = stack.chat("acme").send().await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        used += reply.json().unwrap()["usage"]["total_tokens"].as_u64().unwrap();
    }
    eventually("what was used", PATIENCE, async || {
        let limits = stack.rest_get("/api/v1/usage/acme/limit").await?;
        ensure!(limits["limits"][0]["used"] == used && limits["limits"][0]["reserved"] == 0, "{used}: {limits}");
        Ok(())
    })
    .await
    .unwrap();
}
