//! Usage events by the thousand.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tollgate_wire::usage_event::{METHOD, SERVICE, TokenCounts, UsageEvent, UsageSource, encode_export};

use super::limiter::grpc;

/// How many tenants they are of.
pub(super) const TENANTS: u64 = 200;

const MODELS: [&str; 4] = ["gpt-4o-mini", "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-flash"];

const DAY_MS: u64 = 86_400_000;

pub(super) fn tenant(number: u64) -> String {
    format!("tenant-{number:04}")
}

/// An id as the filter makes them, ordered by number; of less than 48 bits.
fn id(number: u64) -> String {
    format!("{:08x}-{:04x}-7abc-8def-0123456789ab", number >> 16, number & 0xffff)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A call as the filter tells it. Each tenant uses two models, and streams mostly.
fn event(number: u64, started_at_ms: u64) -> UsageEvent {
    let of_tenant = number % TENANTS;
    let model = MODELS[((of_tenant + number / TENANTS % 2) % MODELS.len() as u64) as usize].to_owned();
    UsageEvent {
        event_id: id(number),
        reservation_id: Some(id(number)),
        tenant: tenant(of_tenant),
        tier: "bench".to_owned(),
        started_at_ms,
        duration_ms: 400 + number % 2_000,
        time_to_first_token_ms: Some(80 + number % 300),
        api: Some("openai-chat".to_owned()),
        operation: Some("chat".to_owned()),
        provider: Some("openai".to_owned()),
        request_model: Some(model.clone()),
        output_cap: Some(1024),
        input_estimate: Some(20 + number % 500),
        response_model: Some(model),
        response_id: Some(format!("chatcmpl-{number:024}")),
        finish_reasons: vec!["stop".to_owned()],
        streaming: !number.is_multiple_of(4),
        status: if number.is_multiple_of(100) { 500 } else { 200 },
        tokens: TokenCounts { input: 20 + number % 500, output: 10 + number % 900, ..TokenCounts::default() },
        usage_source: UsageSource::Reported,
        request_bytes: 900,
        response_bytes: 4_000,
        ..UsageEvent::default()
    }
}

/// So many events, evenly over the days up to now.
pub(super) fn history(events: u64, days: u64) -> impl Iterator<Item = UsageEvent> {
    let from_ms = now_ms() - days * DAY_MS;
    let step =
        move |number: u64| from_ms + (u128::from(number) * u128::from(days * DAY_MS) / u128::from(events)) as u64;
    // A number does not tell the tenant of a day.
    (0..events).map(move |number| event(number, step(number)))
}

/// Exports of new events, made by changing ids alone: to make them costs little of what is measured.
pub(super) struct Events {
    export: Vec<u8>,
    /// Where the ids of each event stand.
    ids: Vec<Vec<usize>>,
    next: u64,
}

impl Events {
    /// Exports of so many events each.
    pub(super) fn new(events: usize) -> Events {
        let first = 1 << 40;
        let encoded: Vec<_> = (0..events as u64).map(|at| event(first + at, now_ms()).encode()).collect();
        let export = encode_export("bench", &encoded);
        let places = |at: u64| {
            let id = id(first + at);
            memchr::memmem::find_iter(&export, id.as_bytes()).collect()
        };
        let ids = (0..events as u64).map(places).collect();
        // Another generator of the same run begins elsewhere.
        Events { ids, export, next: (now_ms() & 0xf_ffff) << 24 }
    }

    /// The next export, as gRPC frames it.
    pub(super) fn export(&mut self) -> Bytes {
        for places in &self.ids {
            let id = id(self.next);
            self.next += 1;
            for place in places {
                self.export[*place..*place + id.len()].copy_from_slice(id.as_bytes());
            }
        }
        grpc(&self.export)
    }
}

/// A connection to the collector.
pub(super) struct Collector {
    addr: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Collector {
    pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Collector> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Collector { addr, sender })
    }

    /// Sends an export, and waits until it is acknowledged as a whole.
    pub(super) fn export(&self, message: Bytes) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (mut sender, addr) = (self.sender.clone(), self.addr);
        async move {
            let request = Request::post(format!("http://{addr}/{SERVICE}/{METHOD}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(message))?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            // What is refused at once has no trailers.
            ensure!(!head.headers.contains_key("grpc-status"), "the export was refused: {:?}", head.headers);
            let answer = body.collect().await?;
            let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
            ensure!(status.as_ref().is_some_and(|status| status == "0"), "the export's grpc-status is {status:?}");
            // An empty message: nothing was rejected.
            ensure!(answer.to_bytes().len() == 5, "events were rejected");
            Ok(())
        }
    }
}
