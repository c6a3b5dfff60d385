//! Who pays is said by the headers that the operator chose, or nobody is served.

use serde_json::json;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

#[tokio::test]
async fn a_call_without_a_tenant_is_refused() {
    let stack = Stack::builder().start().await.unwrap();
    let reply = stack.chat("acme").without_header("x-tenant-id").send().await.unwrap();
    assert_eq!(reply.status, 401);
    let error = &reply.json().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"tenant_missing".into(), &"authentication_error".into()));
    assert!(error["message"].as_str().unwrap().contains("x-tenant-id"), "{error}");
    assert_eq!(stack.standin.call_count(), 0);
}

#[tokio::test]
async fn the_configured_tenant_and_tier_stand_in_for_those_that_are_missing() {
    let identity = json!({"identity": {"default_tenant": "walk-in", "default_tier": "pro"}});
    let stack = Stack::builder().filter_config(identity).start().await.unwrap();
    let reply = stack.chat("acme").without_header("x-tenant-id").send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit-requests")), (200, Some("120")));
    let usage = stack.usage_after("walk-in", 1, PATIENCE).await.unwrap();
    assert_eq!(usage["plan_tier"], "pro");
}

#[tokio::test]
async fn only_the_configured_headers_say_who_pays() {
    let identity = json!({"identity": {"tenant": [{"header": "x-team"}], "tier": [{"header": "x-plan"}]}});
    let stack = Stack::builder().filter_config(identity).start().await.unwrap();
    let request = stack.chat("mallory").header("x-plan-tier", "enterprise").header("x-team", "acme");
    let reply = request.header("x-plan", "pro").send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit-requests")), (200, Some("120")));
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
    stack.usage_after("mallory", 0, PATIENCE).await.unwrap();
}
