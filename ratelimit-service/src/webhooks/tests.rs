//! Webhooks against a real receiver, a real database, and a clock of their own.

mod agreed;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prometheus_client::registry::Registry;
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::http::Reach;
use crate::secret::Secret;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BEGIN_MS: u64 = 1_774_008_000_000;

/// What a receiver does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer(u16),
    AskForSeconds(u64),
    Redirect,
    Hang,
    Endless,
}

/// A request as it came, its signature checked.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    id: String,
    timestamp_s: u64,
    body: Value,
}

/// Does what it is told, and then answers with 204.
#[derive(Default)]
struct Receiver {
    acts: Mutex<VecDeque<Act>>,
    got: Mutex<Vec<Got>>,
    redirected: AtomicU64,
}

impl Receiver {
    async fn start(acts: &[Act]) -> (Arc<Receiver>, String) {
        let receiver = Arc::new(Receiver::default());
        receiver.acts.lock().unwrap().extend(acts);
        let (hook, elsewhere) = (receiver.clone(), receiver.clone());
        let router = Router::new()
            .route(
                "/hook",
                post(move |headers: HeaderMap, body: String| async move { hook.take(&headers, &body).await }),
            )
            .route(
                "/elsewhere",
                post(move || async move {
                    elsewhere.redirected.fetch_add(1, Ordering::SeqCst);
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/hook", listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    async fn take(&self, headers: &HeaderMap, body: &str) -> Response<Body> {
        let header = |name: &str| headers[name].to_str().unwrap();
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(&SECRET["whsec_".len()..]).unwrap());
        let tag = BASE64_STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, format!("{id}.{timestamp}.{body}").as_bytes(), &tag).expect("it is signed");
        assert_eq!(header("content-type"), "application/json");
        let got = Got {
            id: id.to_owned(),
            timestamp_s: timestamp.parse().unwrap(),
            body: serde_json::from_str(body).unwrap(),
        };
        self.got.lock().unwrap().push(got);
        let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Answer(204));
        let answer = Response::builder();
        let answer = match act {
            Act::Answer(status) => answer.status(status),
            Act::AskForSeconds(seconds) => answer.status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds),
            Act::Redirect => answer.status(StatusCode::TEMPORARY_REDIRECT).header("location", "/elsewhere"),
            Act::Hang => return std::future::pending().await,
            Act::Endless => {
                let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("more and more"));
                return answer.body(Body::from_stream(endless)).unwrap();
            }
        };
        answer.body(Body::empty()).unwrap()
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

/// A database that outlives any number of services, and the time.
struct World {
    folder: TempDir,
    now_ms: Arc<AtomicU64>,
}

impl World {
    fn new() -> World {
        World { folder: tempfile::tempdir().unwrap(), now_ms: Arc::new(AtomicU64::new(BEGIN_MS)) }
    }

    /// As after a start.
    async fn start(&self, urls: &[&str]) -> Arc<Webhooks> {
        let endpoint = |url: &&str| EndpointSettings::new(url, Secret::new(SECRET), Reach::Any).unwrap();
        self.start_with(&urls.iter().map(endpoint).collect::<Vec<_>>()).await
    }

    async fn start_with(&self, endpoints: &[EndpointSettings]) -> Arc<Webhooks> {
        let webhooks = self.open(endpoints).await;
        let told = webhooks.endpoints.borrow().clone();
        webhooks.prepare(&told).await.unwrap();
        webhooks
    }

    /// As before a start: what the accounts have is not known yet.
    async fn open(&self, endpoints: &[EndpointSettings]) -> Arc<Webhooks> {
        let database = Arc::new(Database::open(&self.folder.path().join("tollgate.db")).await.unwrap());
        let now_ms = self.now_ms.clone();
        let clock: Clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        let metrics = WebhookMetrics::new(&mut Registry::default());
        Arc::new(Webhooks::new(endpoints, database, clock, metrics).unwrap())
    }

    fn later(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

async fn put(webhooks: &Arc<Webhooks>, number: u64) -> String {
    let message = Message::new(Event::LimitThreshold, Some("acme"), (webhooks.clock)(), &json!({ "number": number }));
    let id = message.id.clone();
    let putting = webhooks.clone();
    webhooks.database.write(move |transaction| putting.put(transaction, &message)).await.unwrap();
    webhooks.count().await.unwrap();
    webhooks.wake();
    id
}

/// Tries what is due for the first endpoint.
async fn deliver(webhooks: &Webhooks) -> usize {
    let endpoint = webhooks.endpoints.borrow()[&webhooks.configured[0].id].clone();
    webhooks.deliver_due(&endpoint).await.unwrap()
}

#[tokio::test]
async fn a_message_arrives_signed_and_once() {
    let (receiver, url) = Receiver::start(&[Act::Endless]).await;
    let world = World::new();
    let webhooks = world.start(&[&url]).await;
    let id = put(&webhooks, 7).await;
    assert_eq!(webhooks.metrics.waiting.get(), 1);
    assert_eq!((deliver(&webhooks).await, deliver(&webhooks).await), (1, 0));
    let body =
        json!({ "type": "limit.threshold_reached", "timestamp": "2026-03-20T12:00:00Z", "data": { "number": 7 } });
    assert_eq!(receiver.got(), [Got { id, timestamp_s: BEGIN_MS / 1000, body }]);
    assert_eq!((webhooks.metrics.delivered.get(), webhooks.metrics.waiting.get()), (1, 0));
}

#[tokio::test]
async fn a_message_is_tried_on_schedule_over_restarts_and_given_up_at_last() {
    let acts: Vec<_> = [400, 404, 500, 503, 301, 429, 200].map(Act::Answer).to_vec();
    let failing = [&acts[..6], &[Act::Redirect, Act::Answer(500), Act::Answer(500), Act::Answer(500)]].concat();
    let (receiver, url) = Receiver::start(&failing).await;
    let world = World::new();
    let id = put(&world.start(&[&url]).await, 1).await;
    let mut waits_ms = vec![0];
    waits_ms.extend((1..).map_while(|attempts| schedule::wait_ms(attempts, None, 0)));
    for (attempt, wait_ms) in waits_ms.iter().enumerate() {
        let webhooks = world.start(&[&url]).await;
        world.later(wait_ms * 4 / 5 - u64::from(*wait_ms > 0));
        assert_eq!(deliver(&webhooks).await, usize::from(attempt == 0), "attempt {attempt} is not due yet");
        if attempt > 0 {
            world.later(wait_ms / 5 + 1);
            assert_eq!(deliver(&webhooks).await, 1, "attempt {attempt} is due");
        }
        let is_last = attempt + 1 == waits_ms.len();
        assert_eq!((webhooks.metrics.failed.get(), webhooks.metrics.given_up.get()), (1, u64::from(is_last)));
        assert_eq!(webhooks.metrics.waiting.get(), i64::from(!is_last));
    }
    let got = receiver.got();
    assert_eq!(got.len(), MAX_ATTEMPTS as usize);
    assert!(got.iter().all(|one| one.id == id && one.body == got[0].body));
    assert!(got.windows(2).all(|pair| pair[0].timestamp_s < pair[1].timestamp_s), "each is signed anew");
    assert_eq!(receiver.redirected.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let (receiver, url) = Receiver::start(&[Act::AskForSeconds(3600)]).await;
    let world = World::new();
    let webhooks = world.start(&[&url]).await;
    put(&webhooks, 1).await;
    assert_eq!(deliver(&webhooks).await, 1);
    world.later(3_599_999);
    assert_eq!(deliver(&webhooks).await, 0);
    world.later(1);
    assert_eq!((deliver(&webhooks).await, receiver.got().len()), (1, 2));
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left_alone_until_it_was_left_out_once() {
    let (receiver, url) = Receiver::start(&[Act::Answer(500), Act::Answer(410)]).await;
    let world = World::new();
    let webhooks = world.start(&[&url]).await;
    put(&webhooks, 1).await;
    assert_eq!(deliver(&webhooks).await, 1);
    put(&webhooks, 2).await;
    assert_eq!(deliver(&webhooks).await, 1);
    put(&webhooks, 3).await;
    assert_eq!((webhooks.metrics.waiting.get(), webhooks.metrics.disabled.get()), (0, 1));
    assert_eq!(webhooks.metrics.void.get(), 3);
    let webhooks = world.start(&[&url]).await;
    put(&webhooks, 4).await;
    assert_eq!((webhooks.metrics.waiting.get(), webhooks.metrics.disabled.get()), (0, 1), "also after a restart");
    assert_eq!(receiver.got().len(), 2);

    world.start(&[]).await;
    let webhooks = world.start(&[&url]).await;
    put(&webhooks, 5).await;
    assert_eq!((deliver(&webhooks).await, webhooks.metrics.disabled.get()), (1, 0));
    assert_eq!(receiver.got()[2].body["data"]["number"], 5);
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other() {
    let (hanging, hanging_url) = Receiver::start(&[Act::Hang; 8]).await;
    let (receiver, url) = Receiver::start(&[]).await;
    let world = World::new();
    let webhooks = world.start(&[&hanging_url, &url]).await;
    let running = tokio::spawn(webhooks.clone().run());
    for number in 0..20 {
        put(&webhooks, number).await;
    }
    let arrived = async {
        while receiver.got().len() < 20 || hanging.got().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("all arrive");
    running.abort();
    let mut numbers: Vec<_> = receiver.got().iter().map(|got| got.body["data"]["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..20));
}

#[tokio::test]
async fn a_crash_in_an_attempt_costs_that_attempt() {
    let (receiver, url) = Receiver::start(&[Act::Hang]).await;
    let world = World::new();
    let webhooks = world.start(&[&url]).await;
    let id = put(&webhooks, 1).await;
    let running = {
        let webhooks = webhooks.clone();
        tokio::spawn(async move { deliver(&webhooks).await })
    };
    let arrived = async {
        while receiver.got().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("it is tried");
    running.abort();
    let webhooks = world.start(&[&url]).await;
    assert_eq!(deliver(&webhooks).await, 0, "who tried may be at it still");
    world.later(CLAIM_MS);
    assert_eq!((deliver(&webhooks).await, webhooks.metrics.delivered.get()), (1, 1));
    assert!(receiver.got().iter().all(|got| got.id == id));
}

#[tokio::test]
async fn a_name_of_a_private_address_is_not_told() {
    let (receiver, url) = Receiver::start(&[]).await;
    let endpoint = EndpointSettings::new(&url, Secret::new(SECRET), Reach::Public).unwrap();
    let world = World::new();
    let webhooks = world.start_with(&[endpoint]).await;
    put(&webhooks, 1).await;
    assert_eq!(deliver(&webhooks).await, 1);
    assert_eq!((receiver.got().len(), webhooks.metrics.failed.get(), webhooks.metrics.waiting.get()), (0, 1, 1));
}

#[tokio::test]
async fn what_waits_is_bounded_for_each_endpoint() {
    let (_receiver, url) = Receiver::start(&[]).await;
    let world = World::new();
    let webhooks = world.start(&[&url, "http://127.0.0.1:9/other"]).await;
    let (id, most) = (webhooks.configured[0].id.clone(), MAX_WAITING);
    let filling = move |transaction: &Transaction<'_>| {
        transaction.execute(
            "INSERT INTO webhook_deliveries (message_id, endpoint, body, created_at_ms, attempts, next_at_ms)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)
             SELECT n, ?1, '{}', 0, 0, 0 FROM numbers",
            rusqlite::params![id, i64::try_from(most - 1).unwrap()],
        )
    };
    webhooks.database.write(filling).await.unwrap();
    put(&webhooks, 1).await;
    put(&webhooks, 2).await;
    assert_eq!(webhooks.metrics.dropped.get(), 1, "the second one to the full endpoint, and none to the other");
    assert_eq!(webhooks.metrics.waiting.get(), i64::try_from(MAX_WAITING).unwrap() + 2);
}

#[tokio::test]
async fn endpoints_that_are_no_longer_configured_are_forgotten() {
    let (receiver, url) = Receiver::start(&[]).await;
    let world = World::new();
    put(&world.start(&[&url, "http://127.0.0.1:9/"]).await, 1).await;
    let webhooks = world.start(&[&url]).await;
    assert_eq!((webhooks.metrics.waiting.get(), webhooks.metrics.void.get()), (1, 1));
    assert_eq!((deliver(&webhooks).await, receiver.got().len()), (1, 1));
}
