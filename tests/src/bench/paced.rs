//! What a path adds to a call's time while the machine is not busy: calls at a steady pace on one connection.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use super::Path;
use super::report::Latency;
use crate::harness::envoy::Envoy;
use crate::harness::wait::patiently;

/// Calls a second.
const RATE: u32 = 300;

/// What the filter may add with leases, to the half and to all but one in a hundred.
const LEASED_BARS_US: [f64; 2] = [40.0, 150.0];

/// What is asked for; `tests/bench/chat.lua` has the same.
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"Answer in one sentence."},{"role":"user","content":"How does a tollgate count what passes through it?"}]}"#;

/// What was measured, by path and round.
#[derive(Debug, Default)]
pub(super) struct Paced {
    rounds: BTreeMap<Path, Vec<Latency>>,
}

impl Paced {
    /// Calls through `envoy` for `time`.
    pub(super) async fn measure(&mut self, path: Path, envoy: &Envoy, time: Duration) -> anyhow::Result<()> {
        let latency = call_steadily(envoy.listener(), time).await.with_context(|| format!("steady calls, {path:?}"))?;
        self.rounds.entry(path).or_default().push(latency);
        Ok(())
    }

    /// The medians over the rounds.
    fn of(&self, path: Path) -> Option<Latency> {
        self.rounds.get(&path).map(|rounds| Latency::medians(rounds))
    }

    /// What `path` has beyond plain Envoy.
    fn added(&self, path: Path) -> Option<Latency> {
        let (plain, with) = (self.of(Path::Plain)?, self.of(path)?);
        Some(Latency { p50_us: with.p50_us - plain.p50_us, p99_us: with.p99_us - plain.p99_us })
    }

    pub(super) fn json(&self) -> Value {
        let row = |path: Path| {
            let Latency { p50_us, p99_us } = self.of(path)?;
            Some(json!({"path": path.name(), "rate": RATE, "p50_us": p50_us.round(), "p99_us": p99_us.round()}))
        };
        Path::ALL.into_iter().filter_map(row).collect()
    }
}

pub(super) async fn call_steadily(addr: SocketAddr, time: Duration) -> anyhow::Result<Latency> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut took_us, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < time {
        ticks.tick().await;
        let sent = Instant::now();
        patiently("an answer", call(addr, &mut sender)).await??;
        took_us.push(sent.elapsed().as_nanos() as f64 / 1e3);
    }
    Latency::of(took_us)
}

async fn call(addr: SocketAddr, sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    let request = Request::post("/v1/chat/completions")
        .header("host", addr.to_string())
        .header("content-type", "application/json")
        .header("x-tenant-id", "bench")
        .header("x-plan-tier", "bench")
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    answer.into_body().collect().await?;
    Ok(())
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rounds.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{RATE} requests/s on one connection: p50 and p99, and what is added to plain Envoy's")?;
        for path in Path::ALL {
            let (Some(all), Some(added)) = (self.of(path), self.added(path)) else { continue };
            let Latency { p50_us, p99_us } = all;
            write!(f, "{:<13} {p50_us:>6.0} µs {p99_us:>6.0} µs", path.name())?;
            writeln!(f, "   {:>+6.0} µs {:>+6.0} µs", added.p50_us, added.p99_us)?;
        }
        if let (Some(native), Some(filter)) = (self.added(Path::Native), self.added(Path::Filter)) {
            let verdict = if filter.p99_us < native.p99_us { "meets" } else { "MISSES" };
            writeln!(f, "the filter {verdict} the bar of an added p99 below the native filter's")?;
        }
        if let Some(Latency { p50_us, p99_us }) = self.added(Path::Leased) {
            let [p50, p99] = LEASED_BARS_US;
            let verdict = if p50_us < p50 && p99_us < p99 { "meets" } else { "MISSES" };
            writeln!(
                f,
                "with leases the filter {verdict} the bar of an added p50 below {p50} µs and p99 below {p99} µs"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_stated_with_its_verdict() {
        let latency = |p99_us| vec![Latency { p50_us: 100.0, p99_us }];
        let text = |filter| {
            let rounds = [(Path::Plain, 200.0), (Path::Native, 500.0), (Path::Filter, filter)];
            Paced { rounds: rounds.map(|(path, p99_us)| (path, latency(p99_us))).into() }.to_string()
        };
        assert!(text(499.0).contains("+299 µs") && text(499.0).contains("meets"), "{}", text(499.0));
        assert!(text(500.0).contains("MISSES"), "{}", text(500.0));
        assert_eq!(Paced::default().to_string(), "");
    }
}
