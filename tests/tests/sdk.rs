//! Providers' own SDKs work through the proxy, and understand its refusals.

use std::process::{Command, Output};

use serde_json::json;
use tokio::task::JoinSet;
use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

/// Each has a script of its own: `tests/sdk/NAME_sdk.py`.
const SDKS: [&str; 6] = ["openai", "anthropic", "gemini", "cohere", "ollama", "bedrock"];

// A thread of its own serves the stand-in while others wait for Python.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_sdk_streams_is_counted_and_gets_its_own_rate_limit_error() {
    let few = json!({"context_tokens": 4096, "limits": [{"unit": "requests", "capacity": 6, "window": "hour"}]});
    let stack = Stack::builder().service_config(json!({"tiers": {"few": few}, "limiter": {"default_tier": "few"}}));
    let stack = stack.start().await.unwrap();
    let proxy = format!("http://{}", stack.envoy.listener());
    let mut runs = JoinSet::new();
    for sdk in SDKS {
        let proxy = proxy.clone();
        runs.spawn_blocking(move || (sdk, run(sdk, &proxy)));
    }
    let failed: Vec<_> = runs.join_all().await.into_iter().filter_map(|(sdk, output)| failure(sdk, &output)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    for sdk in SDKS {
        let calls = stack.standin.recent_calls();
        let paid: Vec<_> =
            calls.iter().filter(|call| call.headers["x-tenant-id"] == sdk).map(|call| call.usage.unwrap()).collect();
        let usage = stack.usage_after(sdk, paid.len() as u64, PATIENCE).await.unwrap();
        let input: u32 = paid.iter().map(|usage| usage.prompt_tokens).sum();
        let output: u32 = paid.iter().map(|usage| usage.completion_tokens).sum();
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&input.into(), &output.into()), "{sdk}");
        assert_eq!(usage["requests_by_usage_source"]["reported"], paid.len(), "{sdk}: {usage}");
    }
}

fn run(sdk: &str, proxy: &str) -> Output {
    let script = artifacts::repository().join(format!("tests/sdk/{sdk}_sdk.py"));
    Command::new(artifacts::python().unwrap()).arg(script).args([proxy, sdk]).output().unwrap()
}

fn failure(sdk: &str, output: &Output) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = || format!("{sdk}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    (!output.status.success()).then(told)
}
