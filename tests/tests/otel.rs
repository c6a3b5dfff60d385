//! OpenTelemetry's own SDK, as an instrumentation uses it, tells the collector of calls.

use std::process::Command;

use anyhow::ensure;
use serde_json::json;
use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::service::Service;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

#[tokio::test]
async fn the_sdk_delivers_over_http_and_grpc_and_each_call_counts_once() {
    let dir = RunDir::create().unwrap();
    let service = Service::start(dir.path(), &json!({})).await.unwrap();
    let script = artifacts::repository().join("tests/sdk/otel_sdk.py");
    let (rest, grpc) = (format!("http://{}", service.rest()), service.grpc().to_string());
    let run = Command::new(artifacts::python().unwrap()).arg(script).args([&rest, &grpc, "acme"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let usage = eventually("the calls are counted", PATIENCE, async || {
        let usage = Request::get(service.rest(), "/api/v1/usage/acme").send().await?.json()?;
        ensure!(usage["requests"] == 50, "{usage}");
        Ok(usage)
    });
    let usage = usage.await.unwrap();
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(500), &json!(150)));
    assert_eq!((&usage["requests_streaming"], &usage["success_rate"]), (&json!(50), &json!(1.0)));
    assert_eq!(usage["requests_by_usage_source"]["reported"], 50);
    assert_eq!(usage["avg_time_to_first_token_ms"], 250.0);
    let metrics = Request::get(service.rest(), "/metrics").send().await.unwrap().text();
    let rejected = "tollgate_usage_records_rejected_total{reason=\"foreign\"} 2";
    assert!(metrics.contains(rejected), "the application's own log lines: {metrics}");
}
