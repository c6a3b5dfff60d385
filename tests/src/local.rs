//! Tollgate on one machine: what `make demo`, `make up` and `make down` run.

pub mod background;
pub mod demo;
mod screen;

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::harness::artifacts;
use crate::harness::bootstrap::Bootstrap;
use crate::harness::envoy::Envoy;
use crate::harness::process::{End, Process};
use crate::harness::service::Service;
use crate::harness::wait::{PATIENCE, eventually};

/// Where everything listens on 127.0.0.1; 0, the value of [`Ports::default`], lets the kernel choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Ports {
    /// Envoy, which clients call in the provider's place.
    #[arg(long = "envoy-port", env = "ENVOY_PORT", default_value = "10000")]
    pub envoy: u16,
    /// Envoy's admin interface.
    #[arg(long = "admin-port", env = "ADMIN_PORT", default_value = "9901")]
    pub admin: u16,
    /// The service's REST API.
    #[arg(long = "rest-port", env = "REST_PORT", default_value = "8080")]
    pub rest: u16,
    /// The service's gRPC port.
    #[arg(long = "grpc-port", env = "GRPC_PORT", default_value = "8081")]
    pub grpc: u16,
    /// The LLM stand-in.
    #[arg(long = "standin-port", env = "STANDIN_PORT", default_value = "9000")]
    pub standin: u16,
}

/// All pieces, each a process. They stop when it is dropped.
#[derive(Debug)]
pub struct Local {
    /// The proxy.
    pub envoy: Envoy,
    /// The limiter and collector.
    pub service: Service,
    standin: Process,
}

impl Local {
    /// Starts everything with its files in `dir`, and waits until it takes requests. `filter_config` is merged into the
    /// filter's; `progress` is told what begins.
    ///
    /// # Errors
    /// When a piece does not come up; the error has the end of its log.
    pub async fn start(
        dir: &Path,
        ports: Ports,
        filter_config: &Value,
        mut progress: impl FnMut(&str),
    ) -> anyhow::Result<Local> {
        progress("LLM stand-in");
        let (standin, standin_addr) = start_standin(dir, ports.standin).await?;
        progress("tollgate service");
        let listen = |port: u16| json!({ "listen": format!("127.0.0.1:{port}") });
        let service = Service::start(dir, &json!({ "grpc": listen(ports.grpc), "rest": listen(ports.rest) })).await?;
        progress("Envoy with the filter");
        let mut bootstrap = Bootstrap::reference()?;
        bootstrap.listen(ports.envoy)?;
        bootstrap.admin(ports.admin)?;
        bootstrap.cluster("llm", standin_addr)?;
        bootstrap.cluster("tollgate", service.grpc())?;
        bootstrap.configure_filter(filter_config)?;
        let envoy = Envoy::start("envoy", dir, &bootstrap).await?;
        Ok(Local { envoy, service, standin })
    }

    /// Waits until all usage is delivered and stops everything.
    ///
    /// # Errors
    /// When a piece does not end well; the others are stopped all the same.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let delivered = self.envoy.stat_reaches("tollgate_filter_events_queued", 0).await;
        let envoy = self.envoy.stop().await;
        let service = self.service.end(End::Stop).await;
        let standin = self.standin.end(End::Stop).await;
        delivered.and(envoy).and(service).and(standin)
    }
}

pub(crate) async fn start_standin(dir: &Path, port: u16) -> anyhow::Result<(Process, std::net::SocketAddr)> {
    let args = ["--listen".to_owned(), format!("127.0.0.1:{port}")];
    let mut process = Process::spawn("llm-standin", &artifacts::program("llm-standin")?, args, dir)?;
    let attempt = async || match process.check_running() {
        Err(ended) => Ok(Err(ended)),
        Ok(()) => {
            let log = process.log();
            let addr = log.lines().find_map(|line| line.strip_prefix("listening on ")).context("it is silent")?;
            Ok(Ok(addr.parse().context("the stand-in's address")?))
        }
    };
    let addr = eventually("the stand-in's start", PATIENCE, attempt).await??;
    Ok((process, addr))
}
