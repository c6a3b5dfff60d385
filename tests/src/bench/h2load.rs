//! The load generator for gRPC: h2load.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::artifacts;

/// How many connections call, as the workers of an Envoy do.
const CONNECTIONS: u32 = 8;
/// How many calls each connection has under way at once.
const STREAMS: u32 = 8;

/// What is called, and how often.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub(super) addr: SocketAddr,
    /// `:path`.
    pub(super) path: String,
    /// The file with the request's body.
    pub(super) body: &'a Path,
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
    /// From the first call to the last answer.
    pub(super) duration: Duration,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Where h2load is.
#[derive(Debug)]
pub(super) struct H2load(PathBuf);

impl H2load {
    /// h2load, as [`artifacts::tool`] finds it.
    pub(super) fn find() -> anyhow::Result<H2load> {
        artifacts::tool("h2load").map(H2load)
    }

    /// Makes the calls, with its log in `dir`.
    pub(super) fn run(&self, load: &Load<'_>, dir: &Path) -> anyhow::Result<LoadResult> {
        let log = dir.join("h2load.log");
        let mut command = Command::new(&self.0);
        command.args(["--threads=1", &format!("--clients={CONNECTIONS}")]);
        command.arg(format!("--max-concurrent-streams={STREAMS}"));
        command.arg(format!("--duration={}", load.time.as_secs()));
        command.args(["--header=content-type: application/grpc", "--header=te: trailers"]);
        command.arg("--data").arg(load.body);
        command.arg(format!("--log-file={}", log.display()));
        if let Pace::Limited { rps } = load.pace {
            command.arg(format!("--rps={:.1}", rps / f64::from(CONNECTIONS)));
        }
        command.arg(format!("http://{}{}", load.addr, load.path));
        let output = command.output().context("running h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complete = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "h2load ended with {}:\n{}", output.status, complete());
        ensure!(text.contains(" 0 failed, 0 errored, 0 timeout"), "calls failed:\n{}", complete());
        let calls = fs::read_to_string(&log).context("h2load's log")?;
        fs::remove_file(&log)?;
        summary(&calls).with_context(|| format!("h2load's log, after:\n{}", complete()))
    }
}

/// Reads a log of a line for each call: when it began in microseconds, its status, and how many microseconds it took.
fn summary(log: &str) -> anyhow::Result<LoadResult> {
    let mut took_us = Vec::new();
    let (mut begin_us, mut end_us) = (u64::MAX, 0);
    for line in log.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [began_us, status, us] = fields[..] else { anyhow::bail!("unknown line {line}") };
        ensure!(status.starts_with('2'), "an answer of status {status}");
        let (began_us, us): (u64, u64) = (began_us.parse()?, us.parse()?);
        (begin_us, end_us) = (begin_us.min(began_us), end_us.max(began_us + us));
        took_us.push(us);
    }
    took_us.sort_unstable();
    let at = |hundredths: usize| took_us.get(took_us.len() * hundredths / 100).copied().context("no answer came");
    Ok(LoadResult {
        requests: took_us.len() as u64,
        p50_us: at(50)? as f64,
        p99_us: at(99)? as f64,
        duration: Duration::from_micros(end_us.saturating_sub(begin_us)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_count_time_and_percentiles() {
        let log: String = (0..200).map(|i| format!("{}\t200\t{}\n", 1_000_000 + i * 10, i + 1)).collect();
        let LoadResult { requests, duration, p50_us, p99_us } = summary(&log).unwrap();
        assert_eq!((requests, duration.as_micros(), p50_us, p99_us), (200, 199 * 10 + 200, 101.0, 199.0));
        assert!(summary("").is_err());
        assert!(summary("1000000\t503\t5\n").is_err());
        assert!(summary("1000000\t200\n").is_err());
    }
}
