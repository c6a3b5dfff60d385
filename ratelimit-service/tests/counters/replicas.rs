//! Two running services on one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;
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
const FAILURES: &str = "tollgate_counters_failures_total{policy=\"deny\"}";
const LIMIT: &str = "/api/v1/usage/acme/limit?plan_tier=starter";

async fn start(dir: &RunDir, name: &str, url: &str) -> Service {
    start_with(dir, name, url, "deny").await
}

async fn start_with(dir: &RunDir, name: &str, url: &str, on_failure: &str) -> Service {
    let dir = dir.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    let redis = json!({ "url": url, "on_failure": on_failure, "timeout_ms": 2_000 });
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
    let asked = AdmissionRequest {
        requests: Some(1),
        domain,
        tenant,
        tier,
        model: None,
        api: None,
        key: None,
        input_tokens: Some(1),
        output_tokens: Some(1),
        images: None,
    };
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

/// What one client was told until it was denied, or lost its replica.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    admitted: usize,
    /// Calls that may have been taken.
    lost: usize,
}

/// Clients of the replicas in turn, who call until they are denied, and how many calls were admitted so far.
async fn clients(replicas: &[Service; 2], round: usize) -> (JoinSet<Told>, Arc<AtomicUsize>) {
    let admitted = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, admitted) = (client(&replicas[number % 2]).await, admitted.clone());
        clients.spawn(async move {
            let mut told = Told::default();
            for call in 0.. {
                match ask(&mut client, &format!("{round}-{number}-{call}")).await {
                    Ok(true) => {
                        told.admitted += 1;
                        admitted.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(false) => break,
                    Err(_) => {
                        told.lost += 1;
                        break;
                    }
                }
            }
            told
        });
    }
    (clients, admitted)
}

async fn wait_for(admitted: &AtomicUsize, enough: usize) {
    eventually("a part of the calls", PATIENCE, async || {
        ensure!(admitted.load(Ordering::SeqCst) >= enough, "too few yet");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until Redis decides, by calls that take nothing.
async fn decided_by_redis(service: &Service) {
    eventually("Redis's word", PATIENCE, async || {
        let answer = http::Request::get(service.rest(), LIMIT).send().await?;
        ensure!(answer.status == StatusCode::OK, "the policy decides");
        Ok(())
    })
    .await
    .unwrap();
}

/// How much is used of the one limit, as a service says.
async fn used(service: &Service) -> u64 {
    let answer = http::Request::get(service.rest(), LIMIT).send().await.unwrap();
    answer.json().unwrap()["limits"][0]["used"].as_u64().unwrap()
}

#[tokio::test]
async fn replicas_admit_together_what_there_is_though_one_is_killed() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let mut replicas = [start(&dir, "a", &redis.url()).await, start(&dir, "b", &redis.url()).await];
    let (clients, admitted) = clients(&replicas, 0).await;
    wait_for(&admitted, CAPACITY / 3).await;
    replicas[0].end(End::Kill).await.unwrap();
    let told = clients.join_all().await;
    let (sum, lost) = (admitted.load(Ordering::SeqCst), told.iter().map(|told| told.lost).sum::<usize>());
    assert!(sum <= CAPACITY && sum + lost >= CAPACITY, "{sum} of {CAPACITY} admitted, {lost} not known");
    replicas[0].start_again().await.unwrap();
    assert!(!ask(&mut client(&replicas[0]).await, "after").await.unwrap(), "it knows what the other admitted");
}

#[tokio::test]
async fn replicas_admit_together_what_there_is_though_one_stands_still() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let replicas = [start(&dir, "a", &redis.url()).await, start(&dir, "b", &redis.url()).await];
    let (mut clients, admitted) = clients(&replicas, 0).await;
    wait_for(&admitted, CAPACITY / 3).await;
    replicas[0].process().unwrap().freeze().unwrap();
    // The other one's clients come to their end without it.
    let mut told = Vec::new();
    while told.len() < CLIENTS / 2 {
        told.push(timeout(PATIENCE, clients.join_next()).await.unwrap().unwrap().unwrap());
    }
    replicas[0].process().unwrap().thaw().unwrap();
    told.extend(clients.join_all().await);
    assert!(told.iter().all(|told| told.lost == 0), "{told:?}");
    // What was on its way to the one that stood still was decided once, and it may have been too late for Redis's answer.
    let (sum, failures) = (admitted.load(Ordering::SeqCst), metric(&replicas[0], FAILURES).await.unwrap() as usize);
    assert!(sum <= CAPACITY && sum + failures >= CAPACITY, "{sum} of {CAPACITY} admitted, {failures} not by Redis");
    for replica in &replicas {
        assert_eq!(used(replica).await, CAPACITY as u64);
    }
}

#[tokio::test]
async fn replicas_admit_together_what_there_is_though_redis_stands_still_and_is_killed() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    redis.set_config("appendfsync", "always").await.unwrap();
    let replicas = [start(&dir, "a", &redis.url()).await, start(&dir, "b", &redis.url()).await];
    let mut sum = 0;
    for (round, kill) in [false, true].into_iter().enumerate() {
        for replica in &replicas {
            decided_by_redis(replica).await;
        }
        let (clients, admitted) = clients(&replicas, round).await;
        wait_for(&admitted, CAPACITY / 6).await;
        redis.process().unwrap().freeze().unwrap();
        // The policy denies them all.
        let told = timeout(PATIENCE, clients.join_all()).await.unwrap();
        sum += told.iter().map(|told| told.admitted).sum::<usize>();
        match kill {
            false => redis.process().unwrap().thaw().unwrap(),
            true => {
                redis.end(End::Kill).await.unwrap();
                redis.start_again().await.unwrap();
            }
        }
    }
    for replica in &replicas {
        decided_by_redis(replica).await;
    }
    let (clients, _) = clients(&replicas, 2).await;
    sum += clients.join_all().await.iter().map(|told| told.admitted).sum::<usize>();
    assert!(sum <= CAPACITY, "{sum} of {CAPACITY} admitted");
    assert_eq!(used(&replicas[0]).await, CAPACITY as u64);
    // Each client had one call at once that may have been taken though the policy denied it.
    assert!(sum + 2 * CLIENTS >= CAPACITY, "{sum} of {CAPACITY} admitted");
}

#[tokio::test]
async fn a_service_goes_on_without_redis_and_finds_it_again() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::start(dir.path()).await.unwrap();
    let service = start(&dir, "a", &redis.url()).await;
    let mut client = client(&service).await;
    assert!(ask(&mut client, "1").await.unwrap());
    assert_eq!(metric(&service, "tollgate_counters_up").await.unwrap(), 1);
    redis.end(End::Kill).await.unwrap();
    let before = metric(&service, FAILURES).await.unwrap();
    assert!(!ask(&mut client, "2").await.unwrap());
    assert_eq!(metric(&service, FAILURES).await.unwrap(), before + 1);
    assert_eq!(metric(&service, "tollgate_counters_up").await.unwrap(), 0);
    redis.start_again().await.unwrap();
    eventually("Redis's word", PATIENCE, async || {
        ensure!(ask(&mut client, "3").await?, "the policy decides");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn questions_have_no_answer_without_redis_whatever_the_policy() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::start(dir.path()).await.unwrap();
    let services =
        [start_with(&dir, "allow", &redis.url(), "allow").await, start_with(&dir, "deny", &redis.url(), "deny").await];
    for service in &services {
        decided_by_redis(service).await;
    }
    redis.end(End::Kill).await.unwrap();
    for (service, policy) in services.iter().zip(["allow", "deny"]) {
        let asked = json!({ "tenant_id": "acme", "plan_tier": "starter" });
        let checked = http::Request::post(service.rest(), "/api/v1/usage/check", &asked).send().await.unwrap();
        let limits = http::Request::get(service.rest(), LIMIT).send().await.unwrap();
        assert_eq!([checked.status, limits.status], [StatusCode::SERVICE_UNAVAILABLE; 2], "{policy}");
        let usage = http::Request::get(service.rest(), "/api/v1/usage/acme").send().await.unwrap().json().unwrap();
        assert_eq!((&usage["requests"], &usage["limit_used_percent"]), (&json!(0), &json!(null)), "{usage}");
        let failures = format!("tollgate_counters_failures_total{{policy=\"{policy}\"}}");
        assert_eq!(metric(service, &failures).await.unwrap(), 0);
    }
}
