//! The load generator: wrk, with `tests/bench/chat.lua`.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
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
#[derive(Debug)]
pub(super) struct Wrk {
    program: PathBuf,
    libraries: Option<PathBuf>,
}

impl Wrk {
    /// wrk on the `PATH`, else the one in `.tools`.
    pub(super) fn find() -> anyhow::Result<Wrk> {
        let path = env::var_os("PATH").unwrap_or_default();
        if let Some(program) = env::split_paths(&path).map(|dir| dir.join("wrk")).find(|program| program.exists()) {
            return Ok(Wrk { program, libraries: None });
        }
        let usr = artifacts::repository().join(".tools/wrk/usr");
        let program = usr.join("bin/wrk");
        if !program.exists() {
            bail!("wrk is neither on the PATH nor at {}: `make tools` puts it there", program.display());
        }
        Ok(Wrk { program, libraries: Some(multiarch(&usr.join("lib"))?) })
    }

    /// Calls `addr` for `time`.
    pub(super) fn run(&self, load: &Load, addr: SocketAddr, time: Duration) -> anyhow::Result<LoadResult> {
        let mut command = Command::new(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(["--threads", "1", "--connections", &load.connections.to_string()]);
        command.args(["--duration", &format!("{}s", time.as_secs()), "--script"]);
        command.arg(artifacts::repository().join("tests/bench/chat.lua"));
        command.args([&format!("http://{addr}/v1/chat/completions"), "--", load.answer]);
        let output = command.output().context("running wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complete = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "wrk ended with {}:\n{}", output.status, complete());
        let result = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let result = result.with_context(|| format!("wrk told no result:\n{}", complete()))?;
        serde_json::from_str(result).context("wrk's result")
    }
}

/// The folder below `lib` that a Debian package keeps its libraries in, as `x86_64-linux-gnu`.
fn multiarch(lib: &Path) -> anyhow::Result<PathBuf> {
    let linux = |name: OsString| name.to_string_lossy().ends_with("-linux-gnu");
    let mut entries = lib.read_dir().with_context(|| lib.display().to_string())?.filter_map(Result::ok);
    let entry = entries.find(|entry| linux(entry.file_name()));
    Ok(entry.with_context(|| format!("{} has no libraries: `make tools` puts them there", lib.display()))?.path())
}
