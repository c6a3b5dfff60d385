//! A running `tollgate serve`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::process::{End, Process};
use super::stores::Stores;
use super::wait::{PATIENCE, eventually};
use super::{artifacts, ledger, merge};

/// The ledger's file name.
const LEDGER: &str = "ledger.db";

/// The service, which can be ended and started again on the same ports and ledger. It is killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    dir: PathBuf,
    config: Value,
    stores: Option<Stores>,
    starts: u32,
    process: Option<Process>,
    addrs: Addrs,
}

/// Where the service listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addrs {
    grpc: SocketAddr,
    rest: SocketAddr,
}

impl Service {
    /// Starts the service with its files in `dir`, and waits until it serves. `patch` is merged into a config of free
    /// ports and a ledger in `dir`, or the stores that the environment names.
    ///
    /// # Errors
    /// When it does not come up; the error has the end of its log.
    pub async fn start(dir: &Path, patch: &Value) -> anyhow::Result<Service> {
        let mut config = json!({
            "grpc": { "listen": "127.0.0.1:0" },
            "rest": { "listen": "127.0.0.1:0" },
            "ledger": { "sqlite": dir.join(LEDGER) },
            "log": { "format": "json", "filter": "info" },
        });
        let stores = Stores::of_environment(dir).await?;
        if let Some(stores) = &stores {
            merge(&mut config, stores.config());
        }
        merge(&mut config, patch);
        let (process, addrs) = launch(dir, &config, 1).await?;
        merge(&mut config, &json!({"grpc": {"listen": addrs.grpc}, "rest": {"listen": addrs.rest}}));
        Ok(Service { dir: dir.to_owned(), config, stores, starts: 1, process: Some(process), addrs })
    }

    /// Changes the configuration of the running service, which takes it over by itself. `patch` is merged into it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn reconfigure(&mut self, patch: &Value) -> anyhow::Result<()> {
        merge(&mut self.config, patch);
        write_config(&self.dir, &self.config).map(drop)
    }

    /// Where it answers gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.addrs.grpc
    }

    /// Where it answers REST.
    pub fn rest(&self) -> SocketAddr {
        self.addrs.rest
    }

    /// Where its ledger is.
    pub fn ledger_file(&self) -> PathBuf {
        self.dir.join(LEDGER)
    }

    /// A tenant's events, oldest first, as the ledger has them: each an object with the columns of `usage_events`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn events(&self, tenant: &str) -> anyhow::Result<Vec<Value>> {
        match &self.stores {
            None => ledger::events(&self.ledger_file(), tenant),
            Some(stores) => ledger::events_in_clickhouse(&stores.clickhouse, tenant),
        }
    }

    /// The running process.
    ///
    /// # Errors
    /// When the service was ended.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the service does not run")
    }

    /// Ends the running service.
    ///
    /// # Errors
    /// When it does not run, or does not end well and in time.
    pub async fn end(&mut self, how: End) -> anyhow::Result<()> {
        self.process.take().context("the service does not run")?.end(how).await
    }

    /// Starts the ended service again, as it was.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let (process, addrs) = launch(&self.dir, &self.config, self.starts).await?;
        self.process = Some(process);
        self.addrs = addrs;
        Ok(())
    }
}

async fn launch(dir: &Path, config: &Value, start: u32) -> anyhow::Result<(Process, Addrs)> {
    let config_file = write_config(dir, config)?;
    let args = ["serve".as_ref(), "--config".as_ref(), config_file.as_os_str()];
    let mut process = Process::spawn(&format!("tollgate-{start}"), &artifacts::program("tollgate")?, args, dir)?;
    let attempt = async || match process.check_running() {
        Err(ended) => Ok(Err(ended)),
        Ok(()) => process.log().lines().find_map(serving).map(Ok).context("it does not say that it serves"),
    };
    let addrs = eventually("the service's start", PATIENCE, attempt)
        .await?
        .with_context(|| format!("the service did not come up; the end of its log:\n{}", process.log_tail()))?;
    Ok((process, addrs))
}

fn write_config(dir: &Path, config: &Value) -> anyhow::Result<PathBuf> {
    // JSON is YAML too.
    let file = dir.join("tollgate.yaml");
    fs::write(&file, serde_json::to_string_pretty(config)?)?;
    Ok(file)
}

/// The addresses, when `line` is the one that tells them.
fn serving(line: &str) -> Option<Addrs> {
    let line: Value = serde_json::from_str(line).ok()?;
    let addr = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "serving").then_some(())?;
    Some(Addrs { grpc: addr("grpc")?, rest: addr("rest")? })
}
