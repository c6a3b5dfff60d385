//! The running service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tollgate_wire::{admission, proto, usage_event};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use crate::audit::{Audit, SqliteAudit};
use crate::collector::{Collector, Drain, Intake, Settling};
use crate::config::Config;
use crate::counters;
use crate::database::Database;
use crate::ledger::{Ledger, SqliteLedger};
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::reconcile;
use crate::reload::{self, Reloader, Status};
use crate::rest::{self, Shared};
use crate::rls::Rls;
use crate::spool::{Lag, Spool};
use crate::usage_metrics::UsageMetrics;

/// How long calls in flight may take to end after a signal to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the ledger's consumer of the spool.
const LEDGER: &str = "ledger";

/// How often reservations that ran out are looked for.
const POSTING_INTERVAL: Duration = Duration::from_secs(1);

/// A service whose ports are bound and whose ledger is open, and that serves once it [runs](Service::run).
pub struct Service {
    grpc: TcpListener,
    rest: TcpListener,
    domain: String,
    limiter: Arc<Limiter>,
    ledger: Arc<dyn Ledger>,
    audit: Arc<dyn Audit>,
    database: Arc<Database>,
    spool: Arc<Spool>,
    collector: Collector,
    drain: Drain,
    metrics: Metrics,
    registry: Registry,
    usage_registry: Registry,
    config: Arc<Status>,
    reloader: Option<Reloader>,
    hangups: Signal,
    reconcile_every: Duration,
}

impl Service {
    /// Binds the ports, opens the ledger and restores the counters from it. `source` is the file that the configuration
    /// was read from, to be watched, and its text.
    ///
    /// # Errors
    /// When a port is taken or the ledger cannot be opened; the error names the config's key.
    pub async fn start(config: Config, source: Option<(PathBuf, String)>) -> anyhow::Result<Service> {
        // From here on: before, the signal ends the process.
        let hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let grpc = bind("grpc.listen", config.grpc_listen).await?;
        let rest = bind("rest.listen", config.rest_listen).await?;
        let (metrics, mut registry) = Metrics::new();
        let database = Arc::new(Database::open(&config.sqlite).await.context("ledger.sqlite")?);
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::new(database.clone()));
        let audit: Arc<dyn Audit> = Arc::new(SqliteAudit::new(database.clone()));
        let counters = counters::start(&config.counters, &metrics, &mut registry);
        let outlives = counters.outlives();
        let limiter = Limiter::new(config.policy.clone(), counters, metrics.clone());
        let (limiter, status) = (Arc::new(limiter), Arc::new(Status::new()));
        let consumers = [(LEDGER.to_owned(), Lag::Wait)];
        let (spool, mut consumers) = Spool::open(&config.spool, &consumers, &metrics).context("spool.folder")?;
        let spool = Arc::new(spool);
        let intake = Intake::open(config.intake.clone(), &metrics).context("collector.dead_letters.file")?;
        let (usage, usage_registry) = UsageMetrics::new(config.label_caps);
        let collector = Collector::new(spool.clone(), limiter.clone(), metrics.clone());
        let collector = collector.with_intake(intake).with_usage_metrics(usage);
        let consumer = consumers.remove(0);
        let mut drain = Drain { consumer, ledger: ledger.clone(), collector: collector.clone() };
        if !outlives {
            drain.catch_up(Settling::Never).await.context("ledger")?;
            limiter.restore(ledger.as_ref(), audit.as_ref()).await.context("ledger")?;
        }
        let (domain, reconcile_every) = (config.domain.clone(), config.reconcile_every);
        let source = source.filter(|(file, _)| reload::is_watchable(file));
        let reloader =
            source.map(|source| Reloader::new(source, config, limiter.clone(), metrics.clone(), status.clone()));
        Ok(Service {
            grpc,
            rest,
            domain,
            limiter,
            ledger,
            audit,
            database,
            spool,
            collector,
            drain,
            metrics,
            registry,
            usage_registry,
            config: status,
            reloader,
            hangups,
            reconcile_every,
        })
    }

    /// Where gRPC listens: the configured address, with the port that was given for 0.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where REST listens, likewise.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn rest_address(&self) -> std::io::Result<SocketAddr> {
        self.rest.local_addr()
    }

    /// Serves until `stop` resolves, then ends the calls in flight, for [`STOP_TIMEOUT`] at most, and closes the ledger.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Service {
            grpc,
            rest,
            domain,
            limiter,
            ledger,
            audit,
            database,
            spool,
            collector,
            drain,
            metrics,
            registry,
            usage_registry,
            config,
            reloader,
            hangups,
            reconcile_every,
        } = self;
        let (stopping, stopped) = watch::channel(());
        let rls = Rls::new(domain, limiter.clone(), metrics.clone());
        let (health_reporter, health) = tonic_health::server::health_reporter();
        for service in [admission::SERVICE, usage_event::SERVICE] {
            health_reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let grpc = Server::builder()
            .add_service(RateLimitServiceServer::new(rls))
            .add_service(collector.service())
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming_shutdown(TcpIncoming::from(grpc).with_nodelay(Some(true)), until(stopped.clone()));
        let mut background = JoinSet::new();
        background.spawn(post_unsettled(collector.clone()));
        let drained = tokio::spawn(drain.run());
        background.spawn(reconcile::watch(
            ledger.clone(),
            limiter.clone(),
            audit.clone(),
            reconcile_every,
            metrics.clone(),
        ));
        match reloader {
            Some(reloader) => background.spawn(reloader.run(hangups)),
            None => background.spawn(reload::run_without_file(hangups, metrics)),
        };
        let registries = [registry, usage_registry];
        let shared = Shared { limiter, ledger: ledger.clone(), audit, collector, config, registries };
        let routes = rest::router(shared).into_make_service_with_connect_info::<SocketAddr>();
        let rest = axum::serve(rest, routes).with_graceful_shutdown(until(stopped));
        let mut servers = std::pin::pin!(async {
            tokio::try_join!(async { grpc.await.context("the gRPC server failed") }, async {
                rest.await.context("the REST server failed")
            },)
        });

        let served = tokio::select! {
            served = &mut servers => served.map(drop),
            () = stop => {
                tracing::info!("stopping");
                drop(stopping);
                match tokio::time::timeout(STOP_TIMEOUT, servers).await {
                    Ok(served) => served.map(drop),
                    Err(_) => {
                        tracing::warn!(timeout_s = STOP_TIMEOUT.as_secs(), "calls in flight were cut off");
                        Ok(())
                    }
                }
            }
        };
        background.shutdown().await;
        spool.close().await;
        if tokio::time::timeout(STOP_TIMEOUT, drained).await.is_err() {
            tracing::warn!("the ledger did not store all that waits in the spool; it will after the next start");
        }
        ledger.close().await;
        database.close().await;
        tracing::info!("stopped");
        served
    }
}

/// Posts reservations that ran out, until it is aborted: what is not posted then is offered again.
async fn post_unsettled(collector: Collector) {
    let mut due = tokio::time::interval(POSTING_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Err(error) = collector.post_unsettled().await {
            tracing::warn!(%error, "reservations that ran out were not posted; they will be again");
        }
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Resolves when the sender is gone.
async fn until(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
