//! Configurations that change while the service runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision};

use crate::harness::{Folder, Service};

const ATTEMPTS: usize = 200;
const BETWEEN: Duration = Duration::from_millis(50);

/// A configuration under which a tenant has so many requests an hour.
fn config(folder: &Folder, requests: &str) -> String {
    format!(
        "grpc: {{ listen: 127.0.0.1:0 }}
rest: {{ listen: 127.0.0.1:0 }}
log: {{ format: json, filter: info }}
ledger: {{ sqlite: {} }}
limiter: {{ default_tier: small }}
tiers:
  small:
    context_tokens: 100
    limits:
      - {{ unit: requests, capacity: {requests}, window: hour }}
",
        folder.ledger().display()
    )
}

async fn admit(service: &Service) -> Decision {
    let asked = AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant: "acme",
        tier: "small",
        model: None,
        api: None,
        key: None,
        input_tokens: Some(1),
        output_tokens: Some(1),
        images: None,
    };
    let request = prost::Message::decode(asked.encode().as_slice()).unwrap();
    let request: tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest = request;
    let answer = service.limiter().await.should_rate_limit(request).await.unwrap().into_inner();
    AdmissionResponse::decode(&prost::Message::encode_to_vec(&answer)).unwrap().decision
}

/// Of the requests: capacity and used.
async fn requests(service: &Service) -> (Value, Value) {
    let (status, limits) = service.get("/api/v1/usage/acme/limit").await;
    assert_eq!(status.as_u16(), 200, "{limits}");
    (limits["limits"][0]["capacity"].clone(), limits["limits"][0]["used"].clone())
}

async fn health(service: &Service) -> Value {
    let (status, health) = service.get("/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &json!("ok")));
    health["config"].clone()
}

/// What health says once the file that is there now was looked at: it is refused, or not.
async fn wait_for(service: &Service, what: &str, is_so: impl Fn(&Value, &str) -> bool) -> Value {
    for _ in 0..ATTEMPTS {
        // What is counted is in force, and told: health is asked after.
        let metrics = service.metrics().await;
        let health = health(service).await;
        if is_so(&health, &metrics) {
            return health;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    panic!("never {what}: {}\n{}", health(service).await, service.metrics().await);
}

fn reloads(result: &str, times: u32) -> String {
    format!("tollgate_config_reloads_total{{result=\"{result}\"}} {times}\n")
}

async fn wait_for_applied(service: &Service, times: u32) -> Value {
    wait_for(service, "applied", |_, metrics| metrics.contains(&reloads("applied", times))).await
}

#[tokio::test]
async fn an_edit_holds_without_a_restart_and_counts_stay() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", &config(&folder, "2"));
    let service = Service::start_with(&file);
    let begun = health(&service).await;
    assert_eq!((&begun["error"], &begun["restart_needed"]), (&json!(null), &json!([])));
    for decision in [Decision::Admitted, Decision::Admitted, Decision::Denied] {
        assert_eq!(admit(&service).await, decision);
    }

    fs::write(&file, config(&folder, "4")).unwrap();
    let now = wait_for_applied(&service, 1).await;
    assert_eq!(now["error"], json!(null));
    assert!(now["loaded_at"].as_str() > begun["loaded_at"].as_str(), "{begun} {now}");
    assert_eq!(requests(&service).await, (json!(4), json!(2)));
    for decision in [Decision::Admitted, Decision::Admitted, Decision::Denied] {
        assert_eq!(admit(&service).await, decision);
    }
    assert!(service.metrics().await.contains("tollgate_config_valid 1\n"));
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_is_told_until_it_is_right_again() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", &config(&folder, "2"));
    let service = Service::start_with(&file);
    assert_eq!(admit(&service).await, Decision::Admitted);

    fs::write(&file, config(&folder, "many")).unwrap();
    let refused = wait_for(&service, "refused", |_, metrics| metrics.contains(&reloads("refused", 1))).await;
    let place = format!("{}:10:37: tiers.small.limits[0].capacity: `many` is no number", file.display());
    assert!(refused["error"].as_str().unwrap().starts_with(&place), "{refused}");
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_config_valid 0\n"), "{metrics}");
    assert_eq!(requests(&service).await, (json!(2), json!(1)));

    fs::remove_file(&file).unwrap();
    wait_for(&service, "missing", |health, _| {
        health["error"].as_str().is_some_and(|error| error.contains("cannot be read"))
    })
    .await;

    fs::write(&file, config(&folder, "3")).unwrap();
    let right = wait_for_applied(&service, 1).await;
    assert_eq!(right["error"], json!(null));
    assert!(service.metrics().await.contains("tollgate_config_valid 1\n"));
    assert_eq!(requests(&service).await, (json!(3), json!(1)));
}

#[tokio::test]
async fn an_empty_file_is_refused_and_the_defaults_are_not() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", &config(&folder, "2"));
    let service = Service::start_with(&file);
    let error = format!("{}: is empty; write {{}} where every field is to have its default", file.display());
    for (times, text) in (1..).zip(["", "\n\n", "# tiers:\n", "---\n# tiers:\n"]) {
        fs::write(&file, text).unwrap();
        let refused = wait_for(&service, "refused", |_, metrics| metrics.contains(&reloads("refused", times))).await;
        assert_eq!(refused["error"], error, "{text:?}");
        assert_eq!(requests(&service).await.0, 2);
    }
    fs::write(&file, "{}\n").unwrap();
    assert_eq!(wait_for_applied(&service, 1).await["error"], json!(null));
    // The default plan's.
    assert_eq!(requests(&service).await.0, 60);
}

#[tokio::test]
async fn a_hangup_ends_no_service_without_a_file() {
    let folder = Folder::new();
    let service = Service::start_piped(&config(&folder, "2"));
    for times in [1, 2] {
        service.signal("HUP");
        wait_for(&service, "heard", |_, metrics| metrics.contains(&reloads("unchanged", times))).await;
    }
    assert_eq!(requests(&service).await.0, 2);
}

#[tokio::test]
async fn renames_and_swapped_links_are_seen() {
    let folder = Folder::new();
    // As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> a folder for each version.
    let version = |name: &str, requests: &str| {
        fs::create_dir(folder.path(name)).unwrap();
        folder.write(&format!("{name}/config.yaml"), &config(&folder, requests));
    };
    let point = |link: &str, to: &str| {
        symlink(to, folder.path("new")).unwrap();
        fs::rename(folder.path("new"), folder.path(link)).unwrap();
    };
    version("one", "1");
    point("..data", "one");
    point("config.yaml", "..data/config.yaml");
    let file = folder.path("config.yaml");
    let service = Service::start_with(&file);

    version("two", "2");
    point("..data", "two");
    wait_for_applied(&service, 1).await;
    assert_eq!(requests(&service).await.0, 2);

    let next = folder.write("next.yaml", &config(&folder, "3"));
    fs::rename(next, &file).unwrap();
    wait_for_applied(&service, 2).await;
    assert_eq!(requests(&service).await.0, 3);
}

#[tokio::test]
async fn a_hangup_takes_over_what_is_there() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", &config(&folder, "1"));
    let service = Service::start_with(&file);
    service.signal("HUP");
    wait_for(&service, "unchanged", |_, metrics| metrics.contains(&reloads("unchanged", 1))).await;
    fs::write(&file, config(&folder, "2")).unwrap();
    service.signal("HUP");
    wait_for_applied(&service, 1).await;
    assert_eq!(requests(&service).await.0, 2);

    // A file that stays wrong is refused as often as it is asked for.
    fs::write(&file, "tiers: []\n").unwrap();
    wait_for(&service, "refused", |health, _| health["error"].is_string()).await;
    service.signal("HUP");
    wait_for(&service, "refused twice", |_, metrics| !metrics.contains(&reloads("refused", 1))).await;
}

#[tokio::test]
async fn what_holds_from_the_start_on_is_named_and_the_rest_is_taken_over() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", &config(&folder, "1"));
    let service = Service::start_with(&file);
    let changed =
        config(&folder, "2").replace("filter: info", "filter: debug").replace("{ default", "{ domain: d, default");
    fs::write(&file, &changed).unwrap();
    let health = wait_for_applied(&service, 1).await;
    assert_eq!(health["restart_needed"], json!(["limiter.domain", "log.filter"]));
    assert_eq!(requests(&service).await.0, 2);
    assert_eq!(admit(&service).await, Decision::Admitted);

    fs::write(&file, config(&folder, "2")).unwrap();
    assert_eq!(wait_for_applied(&service, 2).await["restart_needed"], json!([]));
}
