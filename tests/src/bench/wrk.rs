//! The load generator: wrk, with `tests/bench/chat.lua`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::harness::artifacts;

/// What is asked for, and by how many at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// The case's name.
    pub(super) name: &'static str,
    /// Which answer the script asks for.
    pub(super) answer: &'static str,
    /// How many connections call, each one call after the other.
    pub(super) connections: u32,
    /// Who calls, and by which tier.
    pub(super) tenant: &'static str,
}

/// What the script tells at the end.
#[derive(Debug, Deserialize)]
pub(super) struct LoadResult {
    pub(super) requests: u64,
    pub(super) duration_us: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    /// Answers of status 400 and above.
    pub(super) status_errors: u64,
    /// Connections that failed, and answers that broke off or did not come.
    pub(super) io_errors: u64,
}

/// Where wrk is.
#[derive(Debug, Clone)]
pub(super) struct Wrk(PathBuf);

impl Wrk {
    /// wrk, as [`artifacts::tool`] finds it.
    pub(super) fn find() -> anyhow::Result<Wrk> {
        artifacts::tool("wrk").map(Wrk)
    }

    /// Calls `addr` for `time`.
    pub(super) fn run(&self, load: &Load, addr: SocketAddr, time: Duration) -> anyhow::Result<LoadResult> {
        let mut command = Command::new(&self.0);
        command.args(["--threads", "1", "--connections", &load.connections.to_string()]);
        command.args(["--duration", &format!("{}s", time.as_secs()), "--script"]);
        command.arg(artifacts::repository().join("tests/bench/chat.lua"));
        command.args([&format!("http://{addr}/v1/chat/completions"), "--", load.answer, load.tenant]);
        let output = command.output().context("running wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complete = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "wrk ended with {}:\n{}", output.status, complete());
        let result = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let result = result.with_context(|| format!("wrk told no result:\n{}", complete()))?;
        serde_json::from_str(result).context("wrk's result")
    }
}
