//! Accounts in PostgreSQL, for several replicas.
//!
//! Invariants:
//! - Row-level security holds for every transaction: it says at its beginning for whom it is, and one that did not
//!   would see nothing. The service therefore refuses to run as a user whom the policies do not bind.
//! - Every replica hears of a change at once. One that was cut off for a while looks what the revision is by now.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{PgPool, Postgres};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::warn;

use super::engine::{Access, Engine, Failure, Row, Scope, TIMEOUT, Transaction, Value, in_time, row, transaction};
use super::migrated;
use crate::http::check_certificates;
use crate::secret::Secret;

/// The channel that tells of changes; the migrations name it too.
const CHANNEL: &str = "tollgate_accounts";

/// How long a free connection is waited for: that it is lost is not noticed sooner while the server is away.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long after a lost connection another one is tried.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Where PostgreSQL is, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// As libpq takes it: `postgres://user:password@host:port/database?sslmode=…`.
    pub url: Secret,
    /// The most connections, beside one that listens; at least 1.
    pub connections: u32,
    /// The authorities whose certificates are trusted, as PEM. With them the server has to prove its name.
    pub ca: Option<Vec<u8>>,
    /// How often the revision is looked at besides.
    pub poll: Duration,
}

impl PostgresSettings {
    /// # Errors
    /// What is wrong with the URL, or with how it and the authorities fit, without quoting either.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        self.options().map(drop)
    }

    fn options(&self) -> Result<PgConnectOptions, &'static str> {
        const NO_URL: &str = "is no URL of PostgreSQL: write postgres://user:password@host:5432/database";
        let url = self.url.expose();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(NO_URL);
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| NO_URL)?;
        let options = options.application_name("tollgate");
        let Some(ca) = &self.ca else { return Ok(options) };
        match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => Err("is of no use with the URL's sslmode, which turns TLS off"),
            _ if check_certificates(ca).is_err() => Err("holds no certificate, as PEM"),
            PgSslMode::VerifyCa => Ok(options.ssl_root_cert_from_pem(ca.clone())),
            _ => Ok(options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(ca.clone())),
        }
    }
}

pub(super) struct PostgresEngine {
    pool: PgPool,
    listener: AbortHandle,
}

impl PostgresEngine {
    /// Connects, brings the tables up to date, and from then on raises `revision` whenever anybody changes anything.
    pub(super) async fn open(
        settings: &PostgresSettings,
        revision: watch::Sender<u64>,
    ) -> anyhow::Result<PostgresEngine> {
        let options = settings.options().map_err(|error| anyhow::anyhow!("url {error}"))?;
        let pool =
            PgPoolOptions::new().max_connections(settings.connections.max(1)).acquire_timeout(CONNECTION_TIMEOUT);
        let pool = pool.connect_with(options.clone()).await.context("cannot connect")?;
        let bound = "SELECT NOT (rolsuper OR rolbypassrls) FROM pg_roles WHERE rolname = current_user";
        let is_bound: bool = sqlx::query_scalar(bound).fetch_one(&pool).await?;
        ensure!(
            is_bound,
            "row-level security does not bind user {}: use one without SUPERUSER and BYPASSRLS",
            options.get_username()
        );
        migrated(sqlx::migrate!("migrations/accounts/postgres").run(&pool).await)?;
        let listener = tokio::spawn(listen(options, pool.clone(), settings.poll, revision)).abort_handle();
        Ok(PostgresEngine { pool, listener })
    }
}

#[tonic::async_trait]
impl Engine for PostgresEngine {
    async fn begin(&self, access: Access, scope: &Scope) -> Result<Box<dyn Transaction>, Failure> {
        let begin = match access {
            Access::Read => "BEGIN READ ONLY",
            Access::Write => "BEGIN",
        };
        let (role, tenant) = match scope {
            Scope::Operator => ("operator", ""),
            Scope::Tenant(tenant) => ("tenant", tenant.as_str()),
        };
        let mut transaction = in_time(self.pool.begin_with(begin)).await?;
        // The last two are for a server that no longer hears us: one who changes something has all others wait.
        let told = "SELECT set_config('tollgate.role', $1, true), set_config('tollgate.tenant', $2, true), \
                    set_config('statement_timeout', $3, true), \
                    set_config('idle_in_transaction_session_timeout', $3, true)";
        let timeout_ms = TIMEOUT.as_millis().to_string();
        transaction.rows(told, &[role.into(), tenant.into(), timeout_ms.into()]).await?;
        Ok(Box::new(transaction))
    }

    async fn close(&self) {
        self.listener.abort();
        self.pool.close().await;
    }
}

impl Drop for PostgresEngine {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

transaction!(Postgres);

/// Raises `revision` with every change, for good.
async fn listen(options: PgConnectOptions, pool: PgPool, poll: Duration, revision: watch::Sender<u64>) {
    loop {
        if let Err(error) = listen_once(&options, &pool, poll, &revision).await {
            warn!(%error, "accounts: no word of changes from PostgreSQL; trying again");
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// As [`listen`], until the connection fails.
async fn listen_once(
    options: &PgConnectOptions,
    pool: &PgPool,
    poll: Duration,
    revision: &watch::Sender<u64>,
) -> Result<(), sqlx::Error> {
    // One of its own, that is kept for as long as it holds.
    let alone = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECTION_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None);
    let mut listener = PgListener::connect_with(&alone.connect_with(options.clone()).await?).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // Only once it listens: what changes after this is told.
        let now: i64 = sqlx::query_scalar("SELECT value FROM revision").fetch_one(pool).await?;
        super::raise(revision, u64::try_from(now).unwrap_or(0));
        // A connection that was lost is made anew by the listener, which listens again before it says so.
        if let Ok(heard) = tokio::time::timeout(poll, listener.try_recv()).await {
            heard?;
        }
    }
}
