//! Two running services on one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;
use tollgate_e2e::harness::http;
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::service::Service;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::admission::{AdmissionRequest, RESERVATION_ID_METADATA};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tonic::Request;
use tonic::transport::Channel;

const CAPACITY: usize = 300;
const CLIENTS: usize = 8;

async fn start(dir: &RunDir, name: &str, url: &str) -> Service {
    let dir = dir.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    let redis = json!({ "url": url, "on_failure": "deny", "timeout_ms": 2_000 });
    let limit = json!({ "unit": "requests", "capacity": CAPACITY, "window": "month" });
    let patch = json!({
        "counters": { "engine": "redis", "redis": redis },
        "tiers": { "starter": { "context_tokens": 1000, "limits": [limit] } },
    });
    Service::start(&dir, &patch).await.unwrap()
}

async fn client(service: &Service) -> RateLimitServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", service.grpc())).unwrap();
    RateLimitServiceClient::new(channel.connect_lazy())
}

/// Whether the call is admitted.
async fn ask(client: &mut RateLimitServiceClient<Channel>, id: &str) -> Result<bool, tonic::Status> {
    let (domain, tenant, tier) = ("tollgate", "acme", "starter");
    let asked =
        AdmissionRequest { domain, tenant, tier, model: None, api: None, input_tokens: 1, output_tokens: Some(1) };
    let mut request = Request::new(prost::Message::decode(asked.encode().as_slice()).unwrap());
    request.metadata_mut().insert(RESERVATION_ID_METADATA, id.parse().unwrap());
    let response = client.should_rate_limit(request).await?.into_inner();
    Ok(response.overall_code() == Code::Ok)
}

async fn metric(service: &Service, name: &str) -> anyhow::Result<u64> {
    let text = http::Request::get(service.rest(), "/metrics").send().await?.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.unwrap_or("0").parse()?)
}

#[tokio::test]
async fn replicas_admit_together_what_there_is_though_one_is_killed() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let mut replicas = [start(&dir, "a", &redis.url()).await, start(&dir, "b", &redis.url()).await];
    let admitted = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, admitted) = (client(&replicas[number % 2]).await, admitted.clone());
        clients.spawn(async move {
            let mut lost = 0;
            for call in 0.. {
                match ask(&mut client, &format!("{number}-{call}")).await {
                    Ok(true) => drop(admitted.fetch_add(1, Ordering::SeqCst)),
                    Ok(false) => break,
                    // The replica is gone, and this call may have been taken.
                    Err(_) => {
                        lost += 1;
                        break;
                    }
                }
            }
            lost
        });
    }
    eventually("a part of the calls", PATIENCE, async || {
        ensure!(admitted.load(Ordering::SeqCst) >= CAPACITY / 3, "too few yet");
        Ok(())
    })
    .await
    .unwrap();
    replicas[0].end(End::Kill).await.unwrap();
    let lost: usize = clients.join_all().await.iter().sum();
    let sum = admitted.load(Ordering::SeqCst);
    assert!(sum <= CAPACITY && sum + lost >= CAPACITY, "{sum} of {CAPACITY} admitted, {lost} not known");
    replicas[0].start_again().await.unwrap();
    assert!(!ask(&mut client(&replicas[0]).await, "after").await.unwrap(), "it knows what the other admitted");
}

#[tokio::test]
async fn a_service_goes_on_without_redis_and_finds_it_again() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::start(dir.path()).await.unwrap();
    let service = start(&dir, "a", &redis.url()).await;
    let mut client = client(&service).await;
    let failures = "tollgate_counters_failures_total{policy=\"deny\"}";
    assert!(ask(&mut client, "1").await.unwrap());
    assert_eq!(metric(&service, "tollgate_counters_up").await.unwrap(), 1);
    redis.end(End::Kill).await.unwrap();
    let before = metric(&service, failures).await.unwrap();
    assert!(!ask(&mut client, "2").await.unwrap());
    assert_eq!(metric(&service, failures).await.unwrap(), before + 1);
    assert_eq!(metric(&service, "tollgate_counters_up").await.unwrap(), 0);
    redis.start_again().await.unwrap();
    eventually("Redis's word", PATIENCE, async || {
        ensure!(ask(&mut client, "3").await?, "the policy decides");
        Ok(())
    })
    .await
    .unwrap();
}
