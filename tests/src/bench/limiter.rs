//! How fast the service decides when it is asked over gRPC alone, with nothing between it and the load generator.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision, METHOD, SERVICE};

use super::h2load::{H2load, Load, LoadResult, Pace};
use super::report::{Latency, median};
use crate::harness::http;
use crate::harness::process::{End, Process};
use crate::harness::service::Service;
use crate::harness::wait::patiently;

/// How many decisions a second the service has to make with the load generator beside it on two cores.
const RPS_BAR: f64 = 100_000.0;
/// What all but one in a hundred decisions may take at half of the load that it can bear.
const P99_BAR_US: f64 = 1000.0;

/// What each call asks for.
pub(super) const INPUT_TOKENS: u64 = 24;
/// What each call asks for.
pub(super) const OUTPUT_TOKENS: u64 = 256;

/// How long it is warmed up.
const WARM_UP: Duration = Duration::from_secs(1);

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    /// Decisions a second.
    pub(super) rps: f64,
    latency: Option<Latency>,
    /// The processor time of the service for each, in all its threads.
    cpu_us: f64,
}

/// The medians, over all rounds, of what was measured at each pace.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    rows: Vec<(&'static str, Figures)>,
}

/// Measures a service that does nothing else, as fast as it can and then at half of that, in turns.
pub(super) async fn measure(dir: &Path, rounds: u32, time: Duration, config: &Value) -> anyhow::Result<Limiter> {
    let h2load = H2load::find()?;
    let mut service = Service::start(dir, config).await?;
    let load = load(&service, dir).await?;
    h2load.run(&load(Pace::Full, WARM_UP), dir)?;
    let (mut full, mut half) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: the limiter alone");
        let figures = measure_once(&h2load, &service, &load(Pace::Full, time), dir).await?;
        full.push(figures);
        half.push(measure_once(&h2load, &service, &load(Pace::Limited { rps: figures.rps / 2.0 }, time), dir).await?);
    }
    service.end(End::Stop).await?;
    Ok(Limiter { rows: vec![("full", medians(&full)), ("half", medians(&half))] })
}

/// The calls that a service in `dir` is measured with, once one of them was answered well.
pub(super) async fn load(service: &Service, dir: &Path) -> anyhow::Result<impl Fn(Pace, Duration) -> Load + use<>> {
    let body = dir.join("admission.grpc");
    fs::write(&body, grpc(&admission()))?;
    check_answer(service).await?;
    let addr = service.grpc();
    Ok(move |pace, time| Load { addr, path: path(), body: body.clone(), pace, time })
}

/// Calls once, and looks that each was decided.
pub(super) async fn measure_once(
    h2load: &H2load,
    service: &Service,
    load: &Load,
    dir: &Path,
) -> anyhow::Result<Figures> {
    let (before, cpu_before_ns) = (admitted(service).await?, service.process()?.cpu_ns()?);
    let LoadResult { requests, rps, latency } = h2load.run(load, dir)?;
    let cpu_us = (service.process()?.cpu_ns()? - cpu_before_ns) as f64 / 1e3;
    let decided = admitted(service).await? - before;
    // Those that were on their way at the end are decided too.
    ensure!(decided >= requests, "{requests} answers, but only {decided} calls were admitted");
    Ok(Figures { rps, latency, cpu_us: cpu_us / decided as f64 })
}

fn medians(rounds: &[Figures]) -> Figures {
    let latencies: Option<Vec<_>> = rounds.iter().map(|figures| figures.latency).collect();
    Figures {
        rps: median(rounds.iter().map(|figures| figures.rps)),
        latency: latencies.map(|latencies| Latency::medians(&latencies)),
        cpu_us: median(rounds.iter().map(|figures| figures.cpu_us)),
    }
}

fn path() -> String {
    format!("/{SERVICE}/{METHOD}")
}

/// What the filter asks with, but for the reservation's id, which a load generator can't make anew for each call: what is
/// asked for is taken for good.
fn admission() -> Vec<u8> {
    let (domain, tenant, tier) = ("tollgate", "bench", "bench");
    let (model, api, key) = (Some("gpt-4o-mini"), Some("openai_chat"), None);
    let (input_tokens, output_tokens) = (Some(INPUT_TOKENS), Some(OUTPUT_TOKENS));
    let (requests, images) = (Some(1), None);
    AdmissionRequest { requests, domain, tenant, tier, model, api, key, input_tokens, output_tokens, images }.encode()
}

/// The message as gRPC frames it: not compressed, and its length.
pub(super) fn grpc(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// The load generator counts answers; this looks into one.
async fn check_answer(service: &Service) -> anyhow::Result<()> {
    let addr = service.grpc();
    let request = Request::post(format!("http://{addr}{}", path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(grpc(&admission())))?;
    let answer = patiently("a decision", async {
        let io = TokioIo::new(TcpStream::connect(addr).await?);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        anyhow::Ok(sender.send_request(request).await?.into_body().collect().await?)
    })
    .await??;
    let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    ensure!(status.as_ref().is_some_and(|status| status == "0"), "the decision's grpc-status is {status:?}");
    let message = answer.to_bytes();
    let decision = AdmissionResponse::decode(message.get(5..).context("the decision is empty")?)?;
    ensure!(decision.decision == Decision::Admitted && !decision.limits.is_empty(), "{decision:?}");
    Ok(())
}

/// How many calls the service has admitted so far.
async fn admitted(service: &Service) -> anyhow::Result<u64> {
    const METRIC: &str = r#"tollgate_rls_decisions_total{outcome="admitted"} "#;
    let metrics = http::Request::get(service.rest(), "/metrics").send().await?.text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
    Ok(value.with_context(|| format!("the service has no metric {METRIC}"))?.parse()?)
}

impl Process {
    /// The processor time that its threads have had so far, in nanoseconds; that of threads which have ended is left out.
    pub(super) fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut total_ns = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            // A thread may end while this looks.
            let Ok(schedstat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let on_cpu = schedstat.split(' ').next().context("schedstat is empty")?;
            total_ns += on_cpu.parse::<u64>().with_context(|| format!("schedstat: {schedstat}"))?;
        }
        Ok(total_ns)
    }
}

impl Limiter {
    pub(super) fn json(&self) -> Value {
        let row = |(pace, Figures { rps, latency, cpu_us }): &(&str, Figures)| {
            let (p50_us, p99_us) = latency.map(|Latency { p50_us, p99_us }| (p50_us, p99_us)).unzip();
            let cpu_us = (cpu_us * 10.0).round() / 10.0;
            json!({"pace": pace, "rps": rps.round(), "p50_us": p50_us, "p99_us": p99_us, "service_cpu_us": cpu_us})
        };
        self.rows.iter().map(row).collect()
    }
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(_, full), (_, half)] = self.rows.as_slice() else { return Ok(()) };
        writeln!(f, "\n{:<8} {:>11} {:>8} {:>8} {:>14}", "limiter", "decisions/s", "p50 µs", "p99 µs", "its CPU µs")?;
        for (pace, Figures { rps, latency, cpu_us }) in &self.rows {
            let us = |of: fn(&Latency) -> f64| latency.as_ref().map_or("-".to_owned(), |it| format!("{:.0}", of(it)));
            let (p50_us, p99_us) = (us(|it| it.p50_us), us(|it| it.p99_us));
            writeln!(f, "{pace:<8} {rps:>11.0} {p50_us:>8} {p99_us:>8} {cpu_us:>14.1}")?;
        }
        let verdict = |is_met| if is_met { "meets" } else { "MISSES" };
        let (rps, p99) =
            (verdict(full.rps >= RPS_BAR), verdict(half.latency.is_some_and(|latency| latency.p99_us < P99_BAR_US)));
        writeln!(f, "\nthe limiter alone {rps} the bar of {RPS_BAR} decisions/s")?;
        writeln!(f, "and at half of its load {p99} the bar of a p99 below {P99_BAR_US} µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bars_are_stated_with_their_verdicts() {
        let figures = |rps, latency| Figures { rps, latency, cpu_us: 2.0 };
        let latency = |p99_us| Some(Latency { p50_us: 1.0, p99_us });
        let rows = |rps, p99_us| vec![("full", figures(rps, None)), ("half", figures(1.0, latency(p99_us)))];
        let text = |rps, p99_us| Limiter { rows: rows(rps, p99_us) }.to_string();
        let (good, bad) = (text(100_000.0, 999.0), text(99_999.0, 1000.0));
        assert_eq!((good.matches("meets").count(), good.matches("MISSES").count()), (2, 0), "{good}");
        assert_eq!((bad.matches("meets").count(), bad.matches("MISSES").count()), (0, 2), "{bad}");
        assert_eq!(Limiter::default().to_string(), "");
    }
}
