//! What the filter costs, beside plain Envoy and beside Envoy's own rate limit filter; how fast the service decides when it
//! is asked directly, with its counters in memory and in Redis; and what a decision costs by how many tenants there are.
//!
//! One Envoy for each [`Path`], all with one worker, the same stand-in and the same service; the paths take turns within
//! each round, so that what the machine does meanwhile meets all of them alike; the figures are medians over the rounds.
//! A measurement counts only if each call was answered well, each was admitted by the limiter, and each event delivered:
//! what is left out would look fast.

mod curve;
mod events;
mod flood;
mod h2load;
mod ledger;
mod limiter;
mod memory;
mod paced;
mod redis;
mod report;
mod wrk;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::harness::artifacts;
use crate::harness::bootstrap::Bootstrap;
use crate::harness::envoy::{Envoy, worker_cpu_ns};
use crate::harness::process::End;
use crate::harness::run_dir::RunDir;
use crate::harness::service::Service;
use crate::harness::wait::{PATIENCE, eventually};
use crate::local;
use report::{Figures, Report};
use wrk::{Load, Wrk};

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How many times each case is measured on each path; the figures are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// What is measured; all when left out.
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Where the figures go, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/latest.json")]
    output: PathBuf,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Calls through Envoy.
    Calls,
    /// The service alone.
    Limiter,
    /// The service alone, with its counters in Redis.
    Redis,
    /// The embedded counters alone.
    Curve,
    /// Events that come in, and are stored in SQLite.
    Ingest,
    /// Questions about long histories.
    Questions,
}

/// What stands between the client and the stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    /// Envoy that only forwards.
    Plain,
    /// Envoy's own rate limit filter.
    Native,
    /// A proxy-wasm filter that does nothing.
    Empty,
    /// Ours, asking about each call.
    Filter,
    /// Ours, with leases.
    Leased,
    /// Ours with admission off: it only reads the answers and tells their usage.
    Meter,
}

impl Path {
    const ALL: [Path; 6] = [Path::Plain, Path::Native, Path::Empty, Path::Filter, Path::Leased, Path::Meter];

    fn name(self) -> &'static str {
        match self {
            Path::Plain => "plain",
            Path::Native => "native",
            Path::Empty => "empty",
            Path::Filter => "filter",
            Path::Leased => "filter-leased",
            Path::Meter => "meter",
        }
    }
}

/// The tenant that never meets a limit, and its tier.
const BENCH: &str = "bench";

/// The calls that are made.
const CASES: [Load; 4] = [
    Load { name: "json-c1", answer: "json", connections: 1, tenant: BENCH },
    Load { name: "json-c32", answer: "json", connections: 32, tenant: BENCH },
    Load { name: "sse50-c1", answer: "sse50", connections: 1, tenant: BENCH },
    Load { name: "sse50-c32", answer: "sse50", connections: 32, tenant: BENCH },
];

/// How long each path is warmed up.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures all, prints the table and writes the figures.
///
/// # Errors
/// When something is missing or does not come up, or a measurement does not count.
pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let is_wanted = |part| plan.part.is_none_or(|wanted| wanted == part);
    let time = Duration::from_secs(plan.seconds.into());
    let dir = RunDir::create()?;
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).map(|()| folder)
    };
    let mut report = Report::default();
    if is_wanted(Part::Curve) {
        report.curve = curve::measure()?;
    }
    if is_wanted(Part::Limiter) {
        report.limiter = limiter::measure(&folder("limiter")?, plan.rounds, time, &unlimited()).await?;
    }
    if is_wanted(Part::Redis) {
        report.redis = redis::measure(&folder("redis")?, plan.rounds, time, &unlimited()).await?;
    }
    if is_wanted(Part::Ingest) {
        report.ingest = ledger::ingest(&folder("ingest")?, time, &unlimited()).await?;
    }
    if is_wanted(Part::Questions) {
        report.questions = ledger::questions(&folder("questions")?, &unlimited()).await?;
    }
    if is_wanted(Part::Calls) {
        calls(plan, dir.path(), &mut report).await?;
    }
    eprintln!();
    print!("{report}");
    write(&plan.output, &report)
}

/// Measures all cases on all paths, and the memory of the filter's VM.
async fn calls(plan: &Plan, dir: &std::path::Path, report: &mut Report) -> anyhow::Result<()> {
    let wrk = Wrk::find()?;
    let (standin, standin_addr) = local::start_standin(dir, 0).await?;
    let mut service = Service::start(dir, &unlimited()).await?;
    let empty = dir.join("empty.wasm");
    fs::write(&empty, wat::parse_file(artifacts::repository().join("tests/bench/empty.wat"))?)?;
    let mut envoys = Vec::new();
    for path in Path::ALL {
        let mut bootstrap = Bootstrap::reference()?;
        bootstrap.cluster("llm", standin_addr)?;
        bootstrap.cluster("tollgate", service.grpc())?;
        // All asks are answered, however busy the machine: a timeout would make a call cheaper.
        let leases = if path == Path::Leased { "auto" } else { "off" };
        let enabled = path != Path::Meter;
        let mut admission = json!({"timeout_ms": 10_000, "on_failure": "deny", "enabled": enabled, "leases": leases});
        // Clients are told of limits by the same headers as by Envoy's filter.
        admission["limit_headers"] = json!(["x-ratelimit"]);
        // And all events are delivered: a full queue would make a call cheaper too.
        bootstrap.configure_filter(&json!({"admission": admission, "usage": {"max_queued_events": 100_000}}))?;
        match path {
            Path::Plain => bootstrap.remove_filter()?,
            Path::Native => bootstrap.use_native_ratelimit()?,
            Path::Empty => bootstrap.use_module(&empty)?,
            Path::Filter | Path::Leased | Path::Meter => {}
        }
        envoys.push((path, Envoy::start(&format!("envoy-{}", path.name()), dir, &bootstrap).await?));
    }

    let filter = envoys.iter().find(|(path, _)| *path == Path::Filter).map(|(_, envoy)| envoy);
    report.memory = memory::measure(filter.context("the filter's Envoy")?).await?;
    for (path, envoy) in &envoys {
        measure(&wrk, *path, envoy, &service, &CASES[1], WARM_UP).await?;
    }
    let time = Duration::from_secs(plan.seconds.into());
    let mut rounds: BTreeMap<(usize, Path), Vec<Figures>> = BTreeMap::new();
    for round in 1..=plan.rounds {
        for (index, load) in CASES.iter().enumerate() {
            eprintln!("round {round} of {}: {}", plan.rounds, load.name);
            for (path, envoy) in &envoys {
                let figures = measure(&wrk, *path, envoy, &service, load, time).await?;
                rounds.entry((index, *path)).or_default().push(figures);
            }
        }
        eprintln!("round {round} of {}: steady calls", plan.rounds);
        for (path, envoy) in &envoys {
            report.paced.measure(*path, envoy, time).await?;
        }
        eprintln!("round {round} of {}: a flood", plan.rounds);
        let of = |wanted| envoys.iter().find(|(path, _)| *path == wanted).map(|(_, envoy)| envoy);
        if let (Some(plain), Some(leased)) = (of(Path::Plain), of(Path::Leased)) {
            report.flood.measure(&wrk, plain, leased, &service, time).await?;
        }
    }
    for (_, envoy) in envoys {
        envoy.stop().await?;
    }
    service.end(End::Stop).await?;
    standin.end(End::Stop).await?;
    let medians = rounds.into_iter().map(|((case, path), rounds)| (CASES[case].name, path, Figures::medians(&rounds)));
    report.calls = medians.collect();
    Ok(())
}

/// A tier that never denies.
fn unlimited() -> serde_json::Value {
    let limit = |unit: &str, window: &str| json!({"unit": unit, "capacity": 1_000_000_000_000_u64, "window": window});
    let limits = [limit("requests", "minute"), limit("tokens", "minute"), limit("tokens", "month")];
    json!({
        "limiter": {"default_tier": "bench"},
        "tiers": {
            BENCH: {"context_tokens": 1_000_000, "limits": limits},
            flood::TENANT: {"context_tokens": 1_000_000, "limits": [
                {"unit": "requests", "capacity": flood::ADMITTED_PER_S, "window": "second"},
            ]},
        },
        "log": {"filter": "warn,tollgate=info"},
    })
}

async fn measure(
    wrk: &Wrk,
    path: Path,
    envoy: &Envoy,
    service: &Service,
    load: &Load,
    time: Duration,
) -> anyhow::Result<Figures> {
    let what = || format!("{} on {}", load.name, path.name());
    let before = Counts::read(path, envoy).await?;
    let cpu_before_ns = (worker_cpu_ns(envoy)?, service.process()?.cpu_ns()?);
    let result = wrk.run(load, envoy.listener(), time).with_context(what)?;
    ensure!(result.requests > 0 && result.status_errors + result.io_errors == 0, "{}: {result:?}", what());
    // What follows the calls belongs to them: the delivery of their events takes time of Envoy's too.
    eventually(&format!("{}: an admission and an event for each call", what()), PATIENCE, async || {
        let after = Counts::read(path, envoy).await?;
        let is_asked = matches!(path, Path::Native | Path::Filter | Path::Leased);
        let is_told = matches!(path, Path::Filter | Path::Leased | Path::Meter);
        ensure!(!is_asked || after.admitted - before.admitted >= result.requests, "{after:?}");
        ensure!(!is_told || after.delivered - before.delivered >= result.requests, "{after:?}");
        ensure!(after.queued == 0, "{after:?}");
        Ok(())
    })
    .await?;
    let cpu_ns = (worker_cpu_ns(envoy)? - cpu_before_ns.0, service.process()?.cpu_ns()? - cpu_before_ns.1);
    let us_per_call = |ns: u64| ns as f64 / 1e3 / result.requests as f64;
    Ok(Figures {
        rps: result.requests as f64 / (result.duration_us as f64 / 1e6),
        p50_us: result.p50_us,
        p99_us: result.p99_us,
        envoy_cpu_us: us_per_call(cpu_ns.0),
        service_cpu_us: us_per_call(cpu_ns.1),
    })
}

/// What Envoy has counted so far.
#[derive(Debug)]
struct Counts {
    /// Calls that the limiter admitted, or reserved for ahead.
    admitted: u64,
    /// Events that the collector took.
    delivered: u64,
    /// Events that wait for it.
    queued: u64,
}

impl Counts {
    async fn read(path: Path, envoy: &Envoy) -> anyhow::Result<Counts> {
        let admitted: &[&str] = match path {
            Path::Plain | Path::Native | Path::Empty => &["envoy_cluster_ratelimit_ok"],
            Path::Filter | Path::Leased | Path::Meter => {
                &["tollgate_filter_calls_admitted_total", "tollgate_filter_calls_leased_total"]
            }
        };
        let mut sum = 0;
        for stat in admitted {
            sum += envoy.stat(stat).await?;
        }
        Ok(Counts {
            admitted: sum,
            delivered: envoy.stat("tollgate_filter_events_delivered_total").await?,
            queued: envoy.stat("tollgate_filter_events_queued").await?,
        })
    }
}

fn write(file: &std::path::Path, report: &Report) -> anyhow::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::write(file, serde_json::to_string_pretty(&report.json())? + "\n").with_context(|| file.display().to_string())
}
