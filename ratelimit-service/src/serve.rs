//! The running service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tollgate_domain::{Overlap, Tenants};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tollgate_wire::{admission, proto, usage_event};
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::alerts::{AlertMetrics, Alerts};
use crate::audit::{Audit, SqliteAudit};
use crate::billing::{Billing, BillingMetrics, Sources};
use crate::collector::{Collector, Drain, Intake, Settling};
use crate::config::Config;
use crate::database::Database;
use crate::ledger::{self, Ledger};
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::policies::{Agreed, Policies, PolicyMetrics};
use crate::reconcile::{self, Watched};
use crate::reload::{self, Reloader, Status};
use crate::rest::{self, Clients, Guesses, Shared};
use crate::rls::Rls;
use crate::sinks::{self, Pace, SinkMetrics};
use crate::spool::{Consumer, Lag, Spool};
use crate::tls::{Certificates, Incoming, Protocol, TlsMetrics, TlsSettings};
use crate::usage_metrics::UsageMetrics;
use crate::webhooks::{WebhookMetrics, Webhooks};
use crate::{accounts, clock, counters};

/// How long calls in flight may take to end after a signal to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the ledger's consumer of the spool.
const LEDGER: &str = "ledger";

/// How often reservations that ran out are looked for.
const POSTING_INTERVAL: Duration = Duration::from_secs(1);

/// A service whose ports are bound and whose ledger is open, and that serves once it [runs](Service::run).
pub struct Service {
    grpc: Incoming,
    rest: Incoming,
    rls: Rls,
    shared: Shared,
    database: Arc<Database>,
    spool: Arc<Spool>,
    drain: Drain,
    /// Each ends when the spool is closed and all is sent.
    sinks: Vec<BoxFuture<'static, ()>>,
    /// What goes on beside, and ends when it is dropped.
    background: Vec<BoxFuture<'static, ()>>,
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
        let (metrics, mut registry) = Metrics::new();
        let mut bound = Bound { tls_metrics: TlsMetrics::new(&mut registry), renewals: Vec::new() };
        let grpc = bound
            .bind(("grpc", "grpc.listen", "grpc.tls"), config.grpc_listen, config.grpc_tls.clone(), Protocol::Http2)
            .await?;
        let rest = bound
            .bind(("rest", "rest.listen", "rest.tls"), config.rest_listen, config.rest_tls.clone(), Protocol::Http1)
            .await?;
        let database = Arc::new(Database::open(&config.sqlite).await.context("ledger.sqlite")?);
        let ledger = ledger::open(&config, &database, &metrics).await?;
        let audit: Arc<dyn Audit> = Arc::new(SqliteAudit::new(database.clone()));
        let counters = counters::start(&config.counters, &metrics, &mut registry);
        let accounts = accounts::open(&config).await?;
        let agreed = Agreed::read(&accounts).await.context("accounts")?;
        let limiter = Arc::new(Limiter::new(config.policy.clone(), counters, metrics.clone()));
        let policy_metrics = PolicyMetrics::new(&mut registry);
        let webhooks = webhooks(&config, &database, &mut registry)?;
        let policies = Policies::new(
            limiter.clone(),
            webhooks.clone(),
            accounts.clone(),
            config.policy.clone(),
            agreed,
            policy_metrics,
        );
        let policies = Arc::new(policies);
        let alerts = alerts(&config, &limiter, &database, &webhooks, &mut registry);
        let billing = Billing::new(
            config.billing.clone(),
            Sources {
                accounts: accounts.clone(),
                ledger: ledger.clone(),
                limiter: limiter.clone(),
                database: database.clone(),
                webhooks: webhooks.clone(),
            },
            clock::system(),
            BillingMetrics::new(&mut registry),
        );
        let billing = Arc::new(billing);
        let (spool, consumer, sinks) = spool(&config, &metrics, &mut registry)?;
        let intake = Intake::open(config.intake.clone(), &metrics).context("collector.dead_letters.file")?;
        let (usage, usage_registry) = UsageMetrics::new(config.label_caps);
        let collector = Collector::new(spool.clone(), limiter.clone(), metrics.clone())
            .with_intake(intake)
            .with_usage_metrics(usage)
            .with_alerts(alerts.clone());
        let mut drain = Drain::new(consumer, ledger.clone(), collector.clone());
        if !limiter.outlives() {
            drain.catch_up(Settling::Never).await.context("ledger")?;
            limiter
                .restore(ledger.as_ref(), audit.as_ref(), &Tenants::All, Overlap::Nothing)
                .await
                .context("ledger")?;
            limiter.restore_expired(ledger.as_ref()).await.context("ledger")?;
        }
        let (status, open_to) = (Arc::new(Status::new()), config.rest_open_to);
        let clients = Clients::new(config.rest_rate, &mut registry);
        let rls = Rls::new(config.domain.clone(), limiter.clone(), metrics.clone());
        let watched = Watched {
            ledger: ledger.clone(),
            limiter: limiter.clone(),
            audit: audit.clone(),
            billing: billing.clone(),
        };
        let books = reconcile::watch(watched, config.reconcile_every, metrics.clone());
        let mut background = bound.renewals;
        background.extend([
            post_unsettled(collector.clone()).boxed(),
            books.boxed(),
            watch_limits(alerts, ledger.clone()).boxed(),
            webhooks.clone().run().boxed(),
            billing.clone().run().boxed(),
            follow(policies.clone()).boxed(),
            count_what_was(policies.clone(), ledger.clone(), audit.clone(), drain.caught_up()).boxed(),
            watch_file(config, source, hangups, policies, metrics, status.clone()).boxed(),
        ]);
        let registries = [registry, usage_registry];
        let shared = Shared {
            limiter,
            ledger,
            accounts,
            billing,
            webhooks,
            audit,
            collector,
            clients,
            config: status,
            registries,
            open_to,
            guesses: Guesses::default(),
        };
        Ok(Service { grpc, rest, rls, shared, database, spool, drain, sinks, background })
    }

    /// Where gRPC listens: the configured address, with the port that was given for 0.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.address()
    }

    /// Where REST listens, likewise.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn rest_address(&self) -> std::io::Result<SocketAddr> {
        self.rest.address()
    }

    /// Serves until `stop` resolves, then ends the calls in flight, for [`STOP_TIMEOUT`] at most, and closes the ledger.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Service { grpc, rest, rls, shared, database, spool, drain, sinks, background } = self;
        let (ledger, collector, accounts) = (shared.ledger.clone(), shared.collector.clone(), shared.accounts.clone());
        let billing = shared.billing.clone();
        let (stopping, stopped) = watch::channel(());
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
            .serve_with_incoming_shutdown(grpc.streams(), until(stopped.clone()));
        let mut background: JoinSet<()> = background.into_iter().collect();
        let mut consumers: JoinSet<()> = sinks.into_iter().collect();
        consumers.spawn(drain.run());
        let routes = rest::router(shared).into_make_service_with_connect_info::<SocketAddr>();
        // Of a listener that it has not wrapped, axum can't tell routes who connects.
        let rest = axum::serve(rest.tap_io(|_| ()), routes).with_graceful_shutdown(until(stopped));
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
        billing.resign().await;
        spool.close().await;
        if tokio::time::timeout(STOP_TIMEOUT, async { while consumers.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("not all that waits in the spool was taken further; it will be after the next start");
            consumers.shutdown().await;
        }
        ledger.close().await;
        accounts.close().await;
        database.close().await;
        tracing::info!("stopped");
        served
    }
}

/// The spool, the ledger's consumer of it, and the sinks.
fn spool(
    config: &Config,
    metrics: &Metrics,
    registry: &mut Registry,
) -> anyhow::Result<(Arc<Spool>, Consumer, Vec<BoxFuture<'static, ()>>)> {
    let of_sinks = config.sinks.keys().map(|name| (format!("sink-{name}"), Lag::Drop));
    let names: Vec<_> = std::iter::once((LEDGER.to_owned(), Lag::Wait)).chain(of_sinks).collect();
    let (spool, consumers) = Spool::open(&config.spool, &names, metrics).context("spool.folder")?;
    let mut consumers = consumers.into_iter();
    let ledger = consumers.next().context("the spool has no consumer")?;
    let sink_metrics = SinkMetrics::new(registry);
    let mut sinks = Vec::new();
    for ((name, settings), consumer) in config.sinks.iter().zip(consumers) {
        let sink = settings.clone().open().map_err(|error| anyhow::anyhow!("sinks.{name}.{error}"))?;
        sinks.push(sinks::run(consumer, sink, Pace::default(), sink_metrics.of(name)).boxed());
    }
    Ok((Arc::new(spool), ledger, sinks))
}

fn webhooks(config: &Config, database: &Arc<Database>, registry: &mut Registry) -> anyhow::Result<Arc<Webhooks>> {
    let metrics = WebhookMetrics::new(registry);
    let webhooks = Webhooks::new(&config.webhooks, database.clone(), clock::system(), metrics);
    Ok(Arc::new(webhooks.map_err(|error| anyhow::anyhow!("webhooks: {error}"))?))
}

fn alerts(
    config: &Config,
    limiter: &Arc<Limiter>,
    database: &Arc<Database>,
    webhooks: &Arc<Webhooks>,
    registry: &mut Registry,
) -> Arc<Alerts> {
    let metrics = AlertMetrics::new(registry);
    let (thresholds, limiter) = (config.alert_thresholds.clone(), limiter.clone());
    Arc::new(Alerts::new(thresholds, limiter, database.clone(), webhooks.clone(), clock::system(), metrics))
}

/// Gives alerts, first those that were due when the service ended.
async fn watch_limits(alerts: Arc<Alerts>, ledger: Arc<dyn Ledger>) {
    if let Err(error) = alerts.look_at_known(ledger.as_ref()).await {
        tracing::warn!(%error, "alerts that were due at the start are given when their tenants call again");
    }
    alerts.run(ledger).await;
}

/// Takes over what changes in the accounts.
async fn follow(policies: Arc<Policies>) {
    policies.follow().await;
}

/// Has new limits know what was used before.
async fn count_what_was(
    policies: Arc<Policies>,
    ledger: Arc<dyn Ledger>,
    audit: Arc<dyn Audit>,
    caught_up: Arc<Notify>,
) {
    policies.count_what_was(ledger.as_ref(), audit.as_ref(), &caught_up).await;
}

/// Takes over what the configuration's file says.
async fn watch_file(
    config: Config,
    source: Option<(PathBuf, String)>,
    hangups: Signal,
    policies: Arc<Policies>,
    metrics: Metrics,
    status: Arc<Status>,
) {
    match source.filter(|(file, _)| reload::is_watchable(file)) {
        Some((file, text)) => Reloader::new(file, config, policies, metrics, status).run(text, hangups).await,
        None => reload::run_without_file(hangups, metrics).await,
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

/// Ports that are bound, and what renews what is served there.
struct Bound {
    tls_metrics: TlsMetrics,
    renewals: Vec<BoxFuture<'static, ()>>,
}

impl Bound {
    /// The port of a listener, by its name and the configuration's keys for its address and certificates.
    async fn bind(
        &mut self,
        (name, listen, tls): (&'static str, &str, &'static str),
        address: SocketAddr,
        settings: Option<TlsSettings>,
        protocol: Protocol,
    ) -> anyhow::Result<Incoming> {
        let certificates = match settings {
            None => None,
            Some(settings) => {
                let hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
                let (certificates, renewal) = Certificates::open(tls, settings, protocol, self.tls_metrics.of(name))?;
                self.renewals.push(renewal.run(hangups).boxed());
                Some(certificates)
            }
        };
        let tcp = TcpListener::bind(address).await.with_context(|| format!("{listen}: cannot listen on {address}"))?;
        Ok(Incoming::new(tcp, certificates))
    }
}

/// Resolves when the sender is gone.
async fn until(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
