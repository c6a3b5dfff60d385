//! What happens when a part of Tollgate fails: as configured, counted, and nothing is lost or counted twice.

use serde_json::json;
use tollgate_e2e::harness::bootstrap::Bootstrap;
use tollgate_e2e::harness::envoy::Envoy;
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

#[tokio::test]
async fn calls_pass_without_the_service_when_failures_allow() {
    let stack =
        &mut Stack::builder().filter_config(json!({"admission": {"on_failure": "allow"}})).start().await.unwrap();
    stack.service.end(End::Kill).await.unwrap();
    let reply = stack.chat("acme").send().await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-ratelimit-limit")), (200, None));
    stack.envoy.stat_reaches("tollgate_filter_calls_failed_open_total", 1).await.unwrap();
}

#[tokio::test]
async fn calls_stop_without_the_service_when_failures_deny() {
    let stack =
        &mut Stack::builder().filter_config(json!({"admission": {"on_failure": "deny"}})).start().await.unwrap();
    stack.service.end(End::Kill).await.unwrap();
    let reply = stack.chat("acme").send().await.unwrap();
    assert_eq!(reply.status, 503);
    let error = &reply.json().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"limiter_unavailable".into(), &"server_error".into()));
    assert_eq!(stack.standin.call_count(), 0);
    stack.envoy.stat_reaches("tollgate_filter_calls_failed_closed_total", 1).await.unwrap();
}

#[tokio::test]
async fn a_service_that_hangs_is_a_timeout() {
    let admission = json!({"admission": {"timeout_ms": 50, "on_failure": "allow"}});
    let stack = Stack::builder().filter_config(admission).start().await.unwrap();
    stack.service.process().unwrap().freeze().unwrap();
    assert_eq!(stack.chat("acme").send().await.unwrap().status, 200);
    stack.envoy.stat_reaches("tollgate_filter_admission_timeouts_total", 1).await.unwrap();
    stack.service.process().unwrap().thaw().unwrap();
    stack.usage_after("acme", 1, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn events_arrive_later_and_once_when_the_collector_was_down() {
    let stack = &mut Stack::builder().start().await.unwrap();
    stack.service.end(End::Kill).await.unwrap();
    for _ in 0..20 {
        assert_eq!(stack.chat("acme").send().await.unwrap().status, 200);
    }
    let total: u64 =
        stack.standin.recent_calls().iter().map(|call| u64::from(call.usage.unwrap().total_tokens())).sum();
    stack.service.start_again().await.unwrap();
    let usage = stack.usage_after("acme", 20, PATIENCE).await.unwrap();
    assert_eq!(usage["total_tokens"], total);

    // What the filter held is delivered before what comes now: a second delivery would be counted by then.
    assert_eq!(stack.chat("acme").send().await.unwrap().status, 200);
    stack.usage_after("acme", 21, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_a_full_queue_drops_is_counted() {
    let usage = json!({"usage": {"batch_events": 5, "max_queued_events": 5}});
    let stack = &mut Stack::builder().filter_config(usage).start().await.unwrap();
    stack.service.end(End::Kill).await.unwrap();
    for _ in 0..8 {
        assert_eq!(stack.chat("acme").send().await.unwrap().status, 200);
    }
    stack.envoy.stat_reaches("tollgate_filter_events_dropped_total", 3).await.unwrap();
    stack.service.start_again().await.unwrap();
    stack.usage_after("acme", 5, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_service_that_stops_or_is_killed_amid_traffic_loses_no_event_and_counts_none_twice() {
    for how in [End::Stop, End::Kill] {
        // Small batches keep the collector busy all the time.
        let usage = json!({"usage": {"batch_events": 2, "flush_interval_ms": 10, "retry_initial_ms": 50}});
        let stack = &mut Stack::builder().filter_config(usage).start().await.unwrap();
        for call in 0..60 {
            if call == 30 {
                stack.service.end(how).await.unwrap();
            }
            let reply = stack.chat("acme").header("x-plan-tier", "enterprise").send().await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        stack.service.start_again().await.unwrap();
        stack.usage_after("acme", 60, PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_key_in_the_filters_config_is_refused_by_its_path() {
    let dir = RunDir::create().unwrap();
    let mut bootstrap = Bootstrap::reference().unwrap();
    bootstrap.configure_filter(&json!({"admission": {"timeout": 5}})).unwrap();
    let refused = Envoy::start("envoy", dir.path(), &bootstrap).await;
    let message = format!("{:#}", refused.unwrap_err());
    assert!(message.contains("admission.timeout: unknown field"), "{message}");
}
