//! Providers' own SDKs work through the proxy, and understand its refusals.

use std::process::Command;

use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

// A thread of its own serves the stand-in while this one waits for Python.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_openai_sdk_streams_and_gets_its_own_rate_limit_error() {
    let stack = Stack::builder().start().await.unwrap();
    let script = artifacts::repository().join("tests/sdk/openai_stream.py");
    let mut python = Command::new(artifacts::python().unwrap());
    python.arg(script).arg(format!("http://{}/v1", stack.envoy.listener()));
    let output = python.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let admitted = stack.standin.call_count();
    stack.usage_after("acme", admitted, PATIENCE).await.unwrap();
}
