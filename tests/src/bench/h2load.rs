//! The load generator for gRPC: h2load.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::report::Latency;
use crate::harness::artifacts;

/// How many connections call, as the workers of an Envoy do.
pub(super) const CONNECTIONS: u32 = 8;
/// How many calls each connection has under way at once.
pub(super) const STREAMS: u32 = 8;

/// What is called, and how often.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) addr: SocketAddr,
    /// `:path`.
    pub(super) path: String,
    /// The file with the request's body.
    pub(super) body: PathBuf,
    pub(super) pace: Pace,
    pub(super) time: Duration,
}

/// When the next call is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When one before it has ended.
    Full,
    /// So often a second over all connections, in bursts some milliseconds apart.
    Limited {
        /// Calls a second.
        rps: f64,
    },
}

/// What happened.
#[derive(Debug)]
pub(super) struct LoadResult {
    /// Answers of status 2xx. There are no others.
    pub(super) requests: u64,
    /// Answers a second.
    pub(super) rps: f64,
    /// Where it is looked at: to note each call's would take a part of the time at full pace.
    pub(super) latency: Option<Latency>,
}

/// Where h2load is.
#[derive(Debug)]
pub(super) struct H2load(PathBuf);

impl H2load {
    /// h2load, as [`artifacts::tool`] finds it.
    pub(super) fn find() -> anyhow::Result<H2load> {
        artifacts::tool("h2load").map(H2load)
    }

    /// Makes the calls, with a log of them in `dir`.
    pub(super) fn run(&self, load: &Load, dir: &Path) -> anyhow::Result<LoadResult> {
        let log = dir.join("h2load.log");
        let mut command = Command::new(&self.0);
        command.args(["--threads=1", &format!("--clients={CONNECTIONS}")]);
        command.arg(format!("--max-concurrent-streams={STREAMS}"));
        command.arg(format!("--duration={}", load.time.as_secs()));
        command.args(["--header=content-type: application/grpc", "--header=te: trailers"]);
        command.arg("--data").arg(&load.body);
        if let Pace::Limited { rps } = load.pace {
            command.arg(format!("--rps={:.1}", rps / f64::from(CONNECTIONS)));
            command.arg(format!("--log-file={}", log.display()));
        }
        command.arg(format!("http://{}{}", load.addr, load.path));
        let output = command.output().context("running h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complete = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "h2load ended with {}:\n{}", output.status, complete());
        let (requests, rps) = summary(&text).with_context(|| format!("h2load's summary:\n{}", complete()))?;
        let latency = match load.pace {
            Pace::Full => None,
            Pace::Limited { .. } => Some(latency(&fs::read_to_string(&log)?).context("h2load's log")?),
        };
        Ok(LoadResult { requests, rps, latency })
    }
}

/// How many answers came, and how many a second, when all of them were good.
fn summary(text: &str) -> anyhow::Result<(u64, f64)> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).context("it is not complete");
    let rps = line("finished in ")?.split(' ').nth(1).context("it tells no rate")?.parse()?;
    let count = |what: &str| -> anyhow::Result<u64> {
        let counts = line("requests: ")?;
        let count = counts.split(", ").find_map(|count| count.strip_suffix(what)).context("a count is missing")?;
        Ok(count.parse()?)
    };
    let (done, succeeded) = (count(" done")?, count(" succeeded")?);
    ensure!(done == succeeded && done > 0, "{succeeded} of {done} calls succeeded");
    Ok((done, rps))
}

/// Reads a log of a line for each call: when it began, its status, and how many microseconds it took.
fn latency(log: &str) -> anyhow::Result<Latency> {
    let took_us = log.lines().map(|line| line.rsplit('\t').next().unwrap_or_default().parse());
    Latency::of(took_us.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_percentiles() {
        let log: String = (0..200).map(|i| format!("{}\t200\t{}\n", 1_000_000 + i * 10, i + 1)).collect();
        assert_eq!(latency(&log).unwrap(), Latency { p50_us: 101.0, p99_us: 199.0 });
        assert!(latency("").is_err());
        assert!(latency("1000000\t200\t\n").is_err());
    }

    #[test]
    fn a_summary_counts_when_all_calls_succeeded() {
        let text = |succeeded: u32| {
            format!(
                "finished in 3.02s, 6430.50 req/s, 1.02MB/s\n\
                 requests: 19290 total, 19354 started, 19290 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout\n"
            )
        };
        assert_eq!(summary(&text(19290)).unwrap(), (19290, 6430.5));
        assert!(summary(&text(19289)).is_err());
        assert!(summary("finished in 3.02s, 6430.00 req/s, 1.02MB/s\n").is_err());
    }
}
