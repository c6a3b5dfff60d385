//! mTLS between Envoy and the service, as `envoy/cluster-mtls.yaml` has it.

use std::fs;

use serde_json::{Value, json};
use tollgate_e2e::harness::artifacts::repository;
use tollgate_e2e::harness::certificates::{Authority, Issued};
use tollgate_e2e::harness::merge;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::stack::{Builder, Stack};
use tollgate_e2e::harness::wait::PATIENCE;

/// A service that serves clients of `trusted`, and an Envoy that is known to it as `client`.
fn stack(files: &RunDir, trusted: &Authority, client: &Issued, on_failure: &str) -> Builder {
    let server = trusted.issue(files.path(), "server").unwrap();
    let tls = json!({
        "certificate": server.certificate,
        "private_key": server.key,
        "client_ca": trusted.certificate,
    });
    let shipped = fs::read_to_string(repository().join("envoy/cluster-mtls.yaml")).unwrap();
    let mut cluster: Value = serde_saphyr::from_str(&shipped).unwrap();
    let context = cluster.pointer_mut("/transport_socket/typed_config/common_tls_context").unwrap();
    merge(
        context,
        &json!({
            "tls_certificates": [{
                "certificate_chain": {"filename": client.certificate},
                "private_key": {"filename": client.key},
            }],
            "validation_context": {"trusted_ca": {"filename": trusted.certificate}},
        }),
    );
    Stack::builder()
        .service_config(json!({"grpc": {"tls": tls}}))
        .service_cluster(cluster)
        .filter_config(json!({"admission": {"on_failure": on_failure}}))
}

#[tokio::test]
async fn calls_are_admitted_and_counted_over_mtls() {
    let files = RunDir::create().unwrap();
    let authority = Authority::new(files.path(), "authority").unwrap();
    let client = authority.issue(files.path(), "client").unwrap();
    let stack = stack(&files, &authority, &client, "deny").start().await.unwrap();
    let reply = stack.chat("acme").send().await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("x-ratelimit-limit").is_some(), "the limiter was asked: {:?}", reply.headers);
    let usage = stack.usage_after("acme", 1, PATIENCE).await.unwrap();
    let counted = stack.standin.recent_calls()[0].usage.unwrap().total_tokens();
    assert_eq!(usage["total_tokens"], u64::from(counted));
}

#[tokio::test]
async fn an_envoy_that_the_service_does_not_know_goes_by_its_failure_policy() {
    for (on_failure, status, calls) in [("deny", 503, 0), ("allow", 200, 1)] {
        let files = RunDir::create().unwrap();
        let [trusted, other] = ["trusted", "other"].map(|name| Authority::new(files.path(), name).unwrap());
        let client = other.issue(files.path(), "client").unwrap();
        let stack = stack(&files, &trusted, &client, on_failure).start().await.unwrap();
        let reply = stack.chat("acme").send().await.unwrap();
        assert_eq!((reply.status.as_u16(), stack.standin.call_count()), (status, calls), "{}", reply.text());
        let stat = format!("tollgate_filter_calls_failed_{}_total", if calls == 0 { "closed" } else { "open" });
        stack.envoy.stat_reaches(&stat, 1).await.unwrap();
        stack.usage_after("acme", 0, PATIENCE).await.unwrap();
    }
}
