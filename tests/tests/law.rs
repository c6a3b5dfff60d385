//! The law of the whole: admitted = settled + unsettled + in flight, each id once, whatever is restarted in the middle.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tollgate_e2e::harness::bootstrap::Bootstrap;
use tollgate_e2e::harness::envoy::Envoy;
use tollgate_e2e::harness::http::{Answer, Request};
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::service::Service;
use tollgate_e2e::harness::wait::{PATIENCE, eventually, patiently};
use tollgate_e2e::standin::{Options, Recording, Standin};

const TENANT: &str = "acme";

/// How many clients call at once.
const CLIENTS: usize = 6;

/// How many calls come to their end between two restarts.
const CALLS_BETWEEN: u64 = 40;

/// Streams that are open when Envoy dies: nobody tells what they used.
const LOST_STREAMS: usize = 5;

/// How long the last reservations may take to run out, and be billed.
const SETTLING: Duration = Duration::from_secs(90);

/// What the clients share.
struct Clients {
    envoy: Mutex<SocketAddr>,
    /// Calls that were answered as a whole.
    completed: AtomicU64,
    /// Calls that were refused.
    refused: AtomicU64,
    is_over: AtomicBool,
}

impl Clients {
    fn chat(&self) -> Request {
        let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How does it count?"}]});
        Request::post(*self.envoy.lock().unwrap(), "/v1/chat/completions", &body).header("x-tenant-id", TENANT)
    }

    async fn call_until_it_is_over(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            match patiently("an answer", self.chat().send()).await {
                Ok(Ok(reply)) if reply.status == 200 => self.completed.fetch_add(1, Ordering::Relaxed),
                Ok(Ok(_)) => self.refused.fetch_add(1, Ordering::Relaxed),
                // Envoy is not there.
                _ => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
        }
    }

    /// A stream that has begun, and goes no further.
    async fn stream(&self, gate: &str) -> anyhow::Result<Answer> {
        let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Go on."}], "stream": true});
        eventually("an admitted stream", PATIENCE, async || {
            let mut answer = self.chat().json(&body).header("x-standin-gate", gate).start().await?;
            if answer.status != 200 {
                self.refused.fetch_add(1, Ordering::Relaxed);
                bail!("it was refused with {}", answer.status);
            }
            answer.next_bytes().await?;
            Ok(answer)
        })
        .await
    }

    /// Waits until more calls came to their end.
    async fn go_on(&self) -> anyhow::Result<()> {
        let until = self.completed.load(Ordering::Relaxed) + CALLS_BETWEEN;
        eventually("calls between restarts", PATIENCE, async || {
            let completed = self.completed.load(Ordering::Relaxed);
            ensure!(completed >= until, "{completed} of {until}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_admitted_call_is_billed_once_whatever_is_restarted_in_the_middle() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    let standin = Standin::start(Options { replay_dir: None, recording: Recording::Off }).await.unwrap();
    let limit = |unit: &str| json!({"unit": unit, "capacity": 1_000_000_000, "window": "month"});
    let limits = [limit("requests"), limit("tokens"), json!({"unit": "concurrency", "capacity": 10_000})];
    let config = json!({
        "counters": {"engine": "redis", "redis": {"url": redis.url(), "on_failure": "deny"}},
        "limiter": {"default_tier": "law", "reservation_timeout_s": 3},
        "tiers": {"law": {"context_tokens": 1_000_000, "limits": limits}},
    });
    let mut service = Service::start(dir.path(), &config).await.unwrap();
    let mut bootstrap = Bootstrap::reference().unwrap();
    bootstrap.cluster("llm", standin.addr()).unwrap();
    bootstrap.cluster("tollgate", service.grpc()).unwrap();
    bootstrap.configure_filter(&json!({"admission": {"timeout_ms": 5_000, "on_failure": "deny"}})).unwrap();
    let mut envoy = Envoy::start("envoy-1", dir.path(), &bootstrap).await.unwrap();
    let clients = Arc::new(Clients {
        envoy: Mutex::new(envoy.listener()),
        completed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    });
    let calling: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let clients = Arc::clone(&clients);
            tokio::spawn(async move { clients.call_until_it_is_over().await })
        })
        .collect();

    clients.go_on().await.unwrap();
    service.end(End::Kill).await.unwrap();
    service.start_again().await.unwrap();
    clients.go_on().await.unwrap();
    redis.end(End::Kill).await.unwrap();
    redis.start_again().await.unwrap();
    clients.go_on().await.unwrap();
    let mut lost = Vec::new();
    for number in 0..LOST_STREAMS {
        lost.push(clients.stream(&format!("lost-{number}")).await.unwrap());
    }
    envoy.kill().unwrap();
    envoy = Envoy::start("envoy-2", dir.path(), &bootstrap).await.unwrap();
    *clients.envoy.lock().unwrap() = envoy.listener();
    clients.go_on().await.unwrap();
    service.end(End::Stop).await.unwrap();
    service.start_again().await.unwrap();
    clients.go_on().await.unwrap();
    service.end(End::Kill).await.unwrap();
    redis.end(End::Kill).await.unwrap();
    redis.start_again().await.unwrap();
    service.start_again().await.unwrap();
    clients.go_on().await.unwrap();
    clients.is_over.store(true, Ordering::Relaxed);
    for client in calling {
        client.await.unwrap();
    }

    let books = eventually("the law", SETTLING, async || {
        let books = law(&service, &clients).await?;
        // Slots are free when reservations run out, and these are posted a moment later.
        ensure!(books.unsettled >= LOST_STREAMS as u64, "{books:?}");
        Ok(books)
    });
    let books = books.await.unwrap();
    eprintln!("{books:?}");
}

/// What the books say.
#[derive(Debug)]
#[allow(dead_code)] // It is shown.
struct Books {
    admitted: u64,
    settled: u64,
    unsettled: u64,
    void: u64,
    completed: u64,
    refused: u64,
}

/// Looks whether the law holds, once nothing is in flight.
async fn law(service: &Service, clients: &Clients) -> anyhow::Result<Books> {
    let get = async |path: String| -> anyhow::Result<Value> {
        let reply = Request::get(service.rest(), &path).send().await?;
        ensure!(reply.status == 200, "{path}: {}", reply.text());
        reply.json()
    };
    let standings = get(format!("/api/v1/usage/{TENANT}/limit")).await?;
    let used = |name: &str| {
        let limits = standings["limits"].as_array()?;
        limits.iter().find(|limit| limit["name"] == name)?["used"].as_u64()
    };
    let in_flight = used("concurrency").context("no concurrency")?;
    ensure!(in_flight == 0, "{in_flight} calls are in flight");
    let usage = get(format!("/api/v1/usage/{TENANT}")).await?;
    let unsettled = usage["requests_by_usage_source"]["unsettled"].as_u64().context("no unsettled")?;
    let events = service.events(TENANT)?;
    // Refused before the limiter was known to have admitted it: it may or may not have.
    let is_void = |event: &&Value| event["usage_source"] == "none" && event["finish"] == "local_reply";
    let (completed, refused) = (clients.completed.load(Ordering::Relaxed), clients.refused.load(Ordering::Relaxed));
    let void = events.iter().filter(is_void).count() as u64;
    let settled = events.len() as u64 - void;
    let admitted = used("requests_per_month").context("no requests")?;
    let books = Books { admitted, settled, unsettled, void, completed, refused };
    ensure!(usage["requests"] == settled + unsettled + void, "the sums are not the entries': {books:?}, {usage}");
    ensure!(settled + unsettled >= completed, "an answer was not billed: {books:?}");
    // What the limiter took beyond what is billed was refused to the client, in doubt.
    ensure!((settled + unsettled..=settled + unsettled + refused).contains(&admitted), "{books:?}");
    let reconciled = get("/api/v1/admin/reconcile".to_owned()).await?;
    ensure!(reconciled["differences"] == json!([]), "{books:?}: {reconciled}");
    Ok(books)
}
