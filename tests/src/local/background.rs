//! `make up` and `make down`: everything in the background.
//!
//! `up` leaves one process running that holds all others and stops them when it is told to; its id lies in
//! `.run/pid`.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Local, Ports};
use crate::harness::artifacts;
use crate::harness::wait::{PATIENCE, eventually};

/// How long `down` waits: each of the three processes has its own bound within.
const STOP_PATIENCE: Duration = Duration::from_secs(100);

/// `TOLLGATE_RUN_DIR`, else `.run` in the repository.
fn run_dir() -> PathBuf {
    env::var_os("TOLLGATE_RUN_DIR").map_or_else(|| artifacts::repository().join(".run"), PathBuf::from)
}

/// Starts everything in the background and says how to use it.
///
/// # Errors
/// When it runs already, a port is busy, or a piece does not come up.
pub async fn up(ports: Ports) -> anyhow::Result<()> {
    let dir = run_dir();
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    if let Some(pid) = running(&dir)? {
        bail!("it is up already (process {}): `make down` stops it", pid.as_raw_nonzero());
    }
    for (port, what, variable) in [
        (ports.envoy, "Envoy", "ENVOY_PORT"),
        (ports.admin, "Envoy's admin interface", "ADMIN_PORT"),
        (ports.rest, "the REST API", "REST_PORT"),
        (ports.grpc, "the service's gRPC port", "GRPC_PORT"),
        (ports.standin, "the LLM stand-in", "STANDIN_PORT"),
    ] {
        check_free(port, what, variable)?;
    }
    let log = dir.join("up.log");
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    let mut holder = Command::new(env::current_exe()?)
        .arg("hold")
        .args(arguments(ports))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Not the terminal's group: its Ctrl-C is not meant for it.
        .process_group(0)
        .spawn()?;
    let attempt = async || match holder.try_wait()? {
        Some(_) => Ok(Err(anyhow::anyhow!("it did not come up: {}", fs::read_to_string(&log)?.trim()))),
        None => running(&dir)?.context("not up yet").map(Ok),
    };
    eventually("the start of everything", PATIENCE * 3, attempt).await??;
    println!("{}", usage(ports, &dir));
    Ok(())
}

/// Holds everything until it is told to stop. Runs in the background.
///
/// # Errors
/// When a piece does not come up, or does not end well.
pub async fn hold(ports: Ports) -> anyhow::Result<()> {
    let dir = run_dir();
    let mut terminate = signal(SignalKind::terminate())?;
    let local = Local::start(&dir, ports, &json!({}), |_| {}).await?;
    fs::write(dir.join("pid"), std::process::id().to_string())?;
    terminate.recv().await;
    local.stop().await?;
    Ok(fs::remove_file(dir.join("pid"))?)
}

/// Stops what [`up`] started.
///
/// # Errors
/// When it does not stop in time.
pub async fn down() -> anyhow::Result<()> {
    let dir = run_dir();
    let Some(pid) = running(&dir)? else {
        println!("Nothing is up.");
        return Ok(());
    };
    kill_process(pid, Signal::TERM)?;
    eventually("the stop of everything", STOP_PATIENCE, async || {
        ensure!(running(&dir)?.is_none(), "process {} still runs", pid.as_raw_nonzero());
        Ok(())
    })
    .await?;
    println!("All stopped.");
    Ok(())
}

/// The process that holds everything. A file that a killed one left behind names none.
fn running(dir: &Path) -> anyhow::Result<Option<Pid>> {
    let pid = match fs::read_to_string(dir.join("pid")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?.parse()?,
    };
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Ok(Pid::from_raw(pid).filter(|_| arguments.contains("tollgate-local\0hold")))
}

fn check_free(port: u16, what: &str, variable: &str) -> anyhow::Result<()> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} for {what} can't be used ({error}). Stop what listens there, or choose another one: \
             make up {variable}=…"
        ),
    }
}

fn arguments(ports: Ports) -> [String; 5] {
    [
        format!("--envoy-port={}", ports.envoy),
        format!("--admin-port={}", ports.admin),
        format!("--rest-port={}", ports.rest),
        format!("--grpc-port={}", ports.grpc),
        format!("--standin-port={}", ports.standin),
    ]
}

fn usage(ports: Ports, dir: &Path) -> String {
    let Ports { envoy, admin, rest, .. } = ports;
    format!(
        r#"Tollgate is up. Try:

# a metered call, streamed
curl -iN http://127.0.0.1:{envoy}/v1/chat/completions -H 'content-type: application/json' \
  -H 'x-tenant-id: acme' -H 'x-plan-tier: starter' \
  -d '{{"model":"gpt-4o-mini","stream":true,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"Hello"}}]}}'

# what was recorded, a second later
curl -s 'http://127.0.0.1:{rest}/api/v1/usage/acme?period=month'
curl -s 'http://127.0.0.1:{rest}/api/v1/usage/acme/limit'

# what the filter and the service count
curl -s http://127.0.0.1:{admin}/stats/prometheus | grep ^tollgate
curl -s http://127.0.0.1:{rest}/metrics

Logs and the ledger are in {dir}; `make down` stops everything."#,
        dir = dir.display()
    )
}
