//! How fast the service decides with its counters in Redis, beside what Redis itself makes of the same script.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate::clock;
use tollgate::config::Config;
use tollgate::counters::benchmark_command;
use tollgate_domain::{Call, Quantities, Take, Tokens};

use super::h2load::{CONNECTIONS, H2load, Pace, STREAMS};
use super::limiter::{self, INPUT_TOKENS, OUTPUT_TOKENS};
use super::report::median;
use crate::harness::process::End;
use crate::harness::redis::Redis;
use crate::harness::service::Service;
use crate::harness::{artifacts, merge};

/// How much of Redis's own figure the service has to reach.
const BAR: f64 = 0.7;

/// How many calls tell how many more fill the time.
const FIRST_CALLS: u64 = 20_000;

/// The figures of each round.
#[derive(Debug, Default)]
pub(super) struct InRedis {
    /// Decisions a second over gRPC.
    service_rps: Vec<f64>,
    /// The same script by `redis-benchmark`, as many at once.
    script_rps: Vec<f64>,
}

/// Measures the service and `redis-benchmark` in turns, on the same Redis.
pub(super) async fn measure(dir: &Path, rounds: u32, time: Duration, config: &Value) -> anyhow::Result<InRedis> {
    let redis = Redis::start(dir).await?;
    let mut config = config.clone();
    let counters = json!({"engine": "redis", "redis": {"url": redis.url(), "on_failure": "deny", "timeout_ms": 1000}});
    merge(&mut config, &json!({ "counters": counters }));
    let mut service = Service::start(dir, &config).await?;
    let (h2load, load) = (H2load::find()?, limiter::load(&service, dir).await?);
    let script = Script::load(&redis, &config).await?;
    let calls = (script.run(FIRST_CALLS)? * time.as_secs_f64()) as u64;
    let mut figures = InRedis::default();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: the limiter alone, with Redis");
        figures.service_rps.push(limiter::measure_once(&h2load, &service, &load(Pace::Full, time), dir).await?.rps);
        figures.script_rps.push(script.run(calls)?);
    }
    service.end(End::Stop).await?;
    Ok(figures)
}

/// The decision that the service makes for each call, as `redis-benchmark` takes it.
struct Script {
    addr: SocketAddr,
    command: Vec<String>,
}

impl Script {
    async fn load(redis: &Redis, config: &Value) -> anyhow::Result<Script> {
        let plans = Config::parse(&config.to_string(), "the bench's configuration")?.policy.plans;
        let plan = plans.plan("bench", None).ok().context("the default tier has no plan")?.plan;
        let tokens = Tokens::plain(INPUT_TOKENS, OUTPUT_TOKENS);
        let quantities = Quantities { requests: 1, slots: 1, tokens, cost_nanousd: 0 };
        let asks = plan.asks(&Call::default(), &quantities, clock::system()());
        let (text, command) = benchmark_command("script", "bench", &asks, Take::ForGood);
        redis.cli(&["SCRIPT", "LOAD", &text]).await?;
        let command_text: Vec<_> = command.iter().map(String::as_str).collect();
        redis.cli(&command_text).await.context("the script's first call")?;
        Ok(Script { addr: redis.addr(), command })
    }

    /// So many calls; gives how many there were a second.
    fn run(&self, calls: u64) -> anyhow::Result<f64> {
        let mut command = Command::new(artifacts::tool("redis-benchmark")?);
        command.args(["-h", &self.addr.ip().to_string(), "-p", &self.addr.port().to_string(), "--csv", "-e"]);
        command.args(["-c", &CONNECTIONS.to_string(), "-P", &STREAMS.to_string(), "-n", &calls.to_string()]);
        let output = command.args(&self.command).output().context("running redis-benchmark")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complete = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && !text.contains("rror"), "redis-benchmark: {}", complete());
        rate(&text).with_context(|| format!("what redis-benchmark says:\n{}", complete()))
    }
}

/// The second column of the last line.
fn rate(csv: &str) -> anyhow::Result<f64> {
    let line = csv.lines().last().context("it says nothing")?;
    // Seen from the end, as the first column is the command, which may have quotes and commas.
    let rate = line.rsplit("\",\"").nth(6).context("a column is missing")?;
    rate.parse().with_context(|| format!("no rate in {line:?}"))
}

impl InRedis {
    pub(super) fn json(&self) -> Value {
        if self.service_rps.is_empty() {
            return Value::Null;
        }
        let [service, script] = self.medians();
        json!({"rps": service.round(), "redis_benchmark_rps": script.round()})
    }

    fn medians(&self) -> [f64; 2] {
        [&self.service_rps, &self.script_rps].map(|rounds| median(rounds.iter().copied()))
    }
}

impl fmt::Display for InRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.service_rps.is_empty() {
            return Ok(());
        }
        let [service, script] = self.medians();
        let ratio = service / script;
        let verdict = if ratio >= BAR { "meets" } else { "MISSES" };
        writeln!(
            f,
            "\nwith Redis the limiter alone makes {service:.0} decisions/s, and redis-benchmark {script:.0} of the"
        )?;
        writeln!(f, "same script: {ratio:.2} of it ({verdict} the bar of {BAR})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_behind_a_command_with_commas() {
        let head = r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#;
        let line = r#""EVALSHA a "x","y" b","51413.88","0.500","0.100","0.503","0.600","0.700","1.000""#;
        assert_eq!(rate(&format!("{head}\n{line}\n")).unwrap(), 51413.88);
        assert!(rate(head).is_err() && rate("").is_err());
    }

    #[test]
    fn the_ratio_is_stated_with_its_verdict() {
        let text = |service| InRedis { service_rps: vec![service], script_rps: vec![100.0] }.to_string();
        assert!(text(70.0).contains("meets") && text(69.0).contains("MISSES"), "{}", text(69.0));
    }
}
