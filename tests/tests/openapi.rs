//! The REST API does what its description says, whatever it is asked: schemathesis asks it.

use std::process::Command;

use serde_json::json;
use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::http::Request;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::service::Service;

/// The tenant that is asked for most: the plainest name there is.
const TENANT: &str = "0";

#[tokio::test]
async fn the_api_is_as_it_is_described() {
    let dir = RunDir::create().unwrap();
    // No request is to be refused for the speed of the others.
    let fast = json!({"rest": {"requests_per_second": 100_000, "burst": 100_000}});
    let service = Service::start(dir.path(), &fast).await.unwrap();
    let events: Vec<_> = (0..100)
        .map(|at| json!({"tenant_id": TENANT, "event_type": format!("type-{}", at % 7), "quantity": 0.25}))
        .collect();
    let tracked = Request::post(service.rest(), "/api/v1/track", &json!(events)).send().await.unwrap();
    assert_eq!(tracked.status, 202, "{}", tracked.text());

    let settings = artifacts::repository().join("tests/openapi");
    let run = Command::new(artifacts::python().unwrap())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(settings.join("schemathesis.toml"))
        .args(["run", "--no-color", &format!("http://{}/openapi.json", service.rest())])
        .env("PYTHONPATH", &settings)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}\n{}", String::from_utf8_lossy(&run.stderr));
    // It ends well too where parts of the description could not be used. That few requests name a record that is there, in the
    // version that it has, is known, and that a PDF has no shape.
    let unused = ["Missing authentication", "Unsupported"];
    assert!(told.contains("Coverage") && told.contains("Fuzzing"), "{told}");
    assert!(!unused.iter().any(|warning| told.contains(warning)), "{told}");
    let usage = Request::get(service.rest(), &format!("/api/v1/usage/{TENANT}/tracked")).send().await.unwrap();
    assert!(usage.json().unwrap()["totals"][0]["events"].is_u64(), "what was put in is there: {}", usage.text());
}
