//! A running Envoy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use hyper::StatusCode;

use super::artifacts;
use super::bootstrap::Bootstrap;
use super::http::Request;
use super::process::{End, Process};
use super::wait::{PATIENCE, eventually};

/// An Envoy with one worker. It is killed when it is dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    listener: SocketAddr,
}

impl Envoy {
    /// Starts Envoy, with `dir/NAME.json` and `dir/NAME.log`, and waits until it takes requests.
    ///
    /// # Errors
    /// When Envoy refuses the bootstrap or does not come up; the error has the end of its log.
    pub async fn start(name: &str, dir: &Path, bootstrap: &Bootstrap) -> anyhow::Result<Envoy> {
        let config = dir.join(format!("{name}.json"));
        bootstrap.write(&config)?;
        let admin_file = dir.join(format!("{name}.admin"));
        let args = [
            "--config-path".as_ref(),
            config.as_os_str(),
            "--admin-address-path".as_ref(),
            admin_file.as_os_str(),
            "--concurrency".as_ref(),
            "1".as_ref(),
            "--log-level".as_ref(),
            "warning".as_ref(),
            // No shared memory, so that Envoys do not meet in it.
            "--disable-hot-restart".as_ref(),
        ];
        let mut process = Process::spawn(name, &artifacts::envoy()?, args, dir)?;
        match started(&mut process, &admin_file).await {
            Ok((admin, listener)) => Ok(Envoy { process, admin, listener }),
            Err(error) => {
                Err(error.context(format!("{name} did not come up; the end of its log:\n{}", process.log_tail())))
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where clients call it.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Its admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The sum of all series of the counter or gauge `name` in `/stats/prometheus`; 0 when there is none yet.
    ///
    /// # Errors
    /// When the admin interface does not answer.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let text = Request::get(self.admin, "/stats/prometheus").send().await?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<u64>().ok()
        });
        Ok(values.sum())
    }

    /// Waits until the metric `name` stands at `expected`: the filter hands its counts over every 100 ms.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn stat_reaches(&self, name: &str, expected: u64) -> anyhow::Result<()> {
        eventually(name, PATIENCE, async || {
            let value = self.stat(name).await?;
            ensure!(value == expected, "{name} stands at {value}, not at {expected}");
            Ok(())
        })
        .await
    }

    /// Kills it, as a crash does.
    ///
    /// # Errors
    /// When the operating system does not do so.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().map(drop)
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not end well and in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.end(End::Stop).await
    }
}

async fn started(process: &mut Process, admin_file: &Path) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    // A process that has ended will not come up any more: that ends the wait, and is no reason to try again.
    let attempt = async || match process.check_running() {
        Err(ended) => Ok(Err(ended)),
        Ok(()) => ready(admin_file).await.map(Ok),
    };
    eventually("Envoy's readiness", PATIENCE, attempt).await?
}

async fn ready(admin_file: &Path) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let admin: SocketAddr = fs::read_to_string(admin_file)?.trim().parse().context("admin address")?;
    let ready = Request::get(admin, "/ready").send().await?;
    ensure!(ready.status == StatusCode::OK, "/ready: {}", ready.text());
    let listeners = Request::get(admin, "/listeners?format=json").send().await?.json()?;
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let Some(port) = address["port_value"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
        bail!("no listener yet: {listeners}");
    };
    let ip = address["address"].as_str().and_then(|ip| ip.parse().ok()).context("the listener's address")?;
    Ok((admin, SocketAddr::new(ip, port)))
}

/// The processor time that Envoy's workers have taken so far, in nanoseconds. Requests, and what filters do beside them,
/// run on workers; the admin interface does not.
///
/// # Errors
/// When the process is gone.
pub fn worker_cpu_ns(envoy: &Envoy) -> anyhow::Result<u64> {
    let mut total_ns = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", envoy.id()))? {
        let thread = thread?.path();
        if !fs::read_to_string(thread.join("comm"))?.starts_with("wrk:worker") {
            continue;
        }
        let schedstat = fs::read_to_string(thread.join("schedstat"))?;
        let on_cpu = schedstat.split(' ').next().context("schedstat is empty")?;
        total_ns += on_cpu.parse::<u64>().with_context(|| format!("schedstat: {schedstat}"))?;
    }
    ensure!(total_ns > 0, "Envoy has no worker thread by the name that is known here");
    Ok(total_ns)
}
