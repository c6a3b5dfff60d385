//! The accounts: tenants, plans, budgets, keys, webhooks, prices and invoices, in a SQLite file or in PostgreSQL.
//!
//! Invariants:
//! - A change names the version that it was made from, and is refused when the record has another one by now.
//! - A change, its audit record and the new revision are one transaction; nothing of it is there without the rest.
//!   Revisions have no gaps and are in the order in which changes became visible, so that who has read up to one has
//!   missed nothing.
//! - [`Accounts::for_tenant`] sees and changes one tenant's records alone. Every query keeps to that; in PostgreSQL
//!   row-level security does so too.
//! - What is secret is no part of a record's JSON, and so of no audit record.
//!
//! One kind of record differs from another in a [`Kind`] alone, and one database from the other in [`engine::Engine`].

mod api_key;
mod change;
mod engine;
mod error;
mod idempotency;
mod invoice;
mod journal;
mod kinds;
mod leader;
mod postgres;
mod record;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use sqlx::migrate::MigrateError;
use tokio::sync::watch;

use crate::config::Config;
use engine::{Access, Engine, Row, Scope, Transaction, Value};
use postgres::PostgresEngine;
use sqlite::SqliteEngine;

pub use api_key::{ApiKey, KEY_RANDOM_BYTES, KeyHash, KeyRefused, KeyRole, MAX_SCOPES, NewKey, ShownKey};
pub use change::By;
pub use error::{AccountsError, Invalid};
pub use idempotency::{Answer, Begun, IDEMPOTENCY_KEPT_MS, MAX_ANSWER_BYTES, TAKEN_OVER_AFTER_MS};
pub use invoice::{Invoice, InvoiceStatus};
pub use journal::{Action, Change};
pub use kinds::{
    Budget, Enforcement, LimitOverrides, MAX_EVENT_KINDS, MAX_MARKUP_PPM, MAX_THRESHOLD_PERCENT, MAX_URL_BYTES,
    MAX_WEBHOOKS_OF_ONE, Plan, PriceRow, Tenant, TenantStatus, WebhookEndpoint,
};
pub use postgres::PostgresSettings;
pub use record::{Json, Kind, MAX_DOCUMENT_BYTES, MAX_METADATA_BYTES, Record};

/// The most records of a page.
pub const MAX_PAGE: usize = 1000;

/// How often a key's last use is written down at most, in milliseconds.
pub const USE_NOTED_EVERY_MS: u64 = 60_000;

/// Where accounts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountsSettings {
    /// In this SQLite file, of one service.
    Sqlite(PathBuf),
    /// In PostgreSQL, for several replicas.
    Postgres(Box<PostgresSettings>),
}

/// The accounts that are configured.
///
/// # Errors
/// When they cannot be opened; the error names the config's key.
pub async fn open(config: &Config) -> anyhow::Result<Accounts> {
    let key = match &config.accounts {
        AccountsSettings::Sqlite(_) => "accounts.sqlite",
        AccountsSettings::Postgres(_) => "accounts.postgres",
    };
    Accounts::open(&config.accounts).await.context(key)
}

/// The accounts, as the operator or one tenant sees them. Its clones share connections.
#[derive(Clone)]
pub struct Accounts {
    shared: Arc<Shared>,
    scope: Scope,
}

struct Shared {
    engine: Box<dyn Engine>,
    revision: watch::Sender<u64>,
}

/// A part of the records of a kind, in the order of their ids' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page<'a> {
    /// This tenant's alone; `None`: all that may be seen.
    pub tenant: Option<&'a str>,
    /// Those after this id.
    pub after: Option<&'a str>,
    /// So many at most, and at most [`MAX_PAGE`]; 0 is [`MAX_PAGE`].
    pub limit: usize,
}

impl Accounts {
    /// Opens them, and brings their tables up to date.
    ///
    /// # Errors
    /// When the database cannot be opened, or was made by a later release.
    pub async fn open(settings: &AccountsSettings) -> anyhow::Result<Accounts> {
        let revision = watch::Sender::new(0);
        let engine: Box<dyn Engine> = match settings {
            AccountsSettings::Sqlite(file) => Box::new(SqliteEngine::open(file).await?),
            AccountsSettings::Postgres(settings) => Box::new(PostgresEngine::open(settings, revision.clone()).await?),
        };
        let accounts = Accounts { shared: Arc::new(Shared { engine, revision }), scope: Scope::Operator };
        accounts.revision().await?;
        Ok(accounts)
    }

    /// What `tenant` may see and change of them: what is its own. Of another tenant's that is nothing.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Accounts {
        let may_see = self.tenant().is_none_or(|own| own == tenant);
        // No record is of the tenant without a name.
        let tenant = if may_see { tenant } else { "" };
        Accounts { shared: self.shared.clone(), scope: Scope::Tenant(tenant.to_owned()) }
    }

    /// A record; `None` where there is none, or none that may be seen.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn get<T: Kind>(&self, id: &str) -> Result<Option<Record<T>>, AccountsError> {
        let mut transaction = self.begin(Access::Read).await?;
        self.find(transaction.as_mut(), id).await
    }

    /// A page of records.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list<T: Kind>(&self, page: &Page<'_>) -> Result<Vec<Record<T>>, AccountsError> {
        let limit = if page.limit == 0 { MAX_PAGE } else { page.limit.min(MAX_PAGE) };
        if page.tenant.is_some_and(is_no_name) {
            return Ok(Vec::new());
        }
        // What comes after a name and a NUL comes after the name.
        let after = page.after.unwrap_or_default().split(NUL).next();
        let mut query = format!("{} WHERE id > $1", select::<T>());
        let mut values = vec![Value::from(after.unwrap_or_default())];
        for tenant in [self.tenant(), page.tenant].into_iter().flatten() {
            values.push(tenant.into());
            query += &format!(" AND tenant = ${}", values.len());
        }
        query += &format!(" ORDER BY id LIMIT {limit}");
        let mut transaction = self.begin(Access::Read).await?;
        transaction.rows(&query, &values).await?.into_iter().map(read).collect()
    }

    /// All records of a kind that may be seen, in the order of their ids. Whoever keeps them asks for the revision
    /// before, and again after changes since.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all<T: Kind>(&self) -> Result<Vec<Record<T>>, AccountsError> {
        let mut all: Vec<Record<T>> = Vec::new();
        loop {
            let after = all.last().map(|record| record.id.clone());
            let page = self.list(&Page { after: after.as_deref(), ..Page::default() }).await?;
            let is_last = page.len() < MAX_PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The record of a key that somebody shows. It is not noted as a use: see [`Accounts::note_use`].
    ///
    /// # Errors
    /// When the database cannot be read. A key that is refused is no error of the accounts.
    pub async fn authenticate(
        &self,
        key: &str,
        now_ms: u64,
    ) -> Result<Result<Record<ApiKey>, KeyRefused>, AccountsError> {
        let shown = match ShownKey::parse(key) {
            Ok(shown) => shown,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(record) = self.get::<ApiKey>(&shown.id).await? else { return Ok(Err(KeyRefused::Unknown)) };
        Ok(shown.check(&record.value, now_ms).map(|()| record))
    }

    /// Remembers that a key was used, at most every [`USE_NOTED_EVERY_MS`]. That is no change of the key.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn note_use(&self, id: &str, now_ms: u64) -> Result<(), AccountsError> {
        let note = format!(
            "INSERT INTO api_key_uses (id, tenant, at_ms) SELECT id, tenant, $2 FROM api_keys WHERE id = $1{} \
             ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms WHERE api_key_uses.at_ms <= $3",
            self.of_tenant(4)
        );
        let latest = now_ms.saturating_sub(USE_NOTED_EVERY_MS);
        let mut transaction = self.begin(Access::Write).await?;
        transaction.execute(&note, &self.and_tenant(vec![id.into(), now_ms.into(), latest.into()])).await?;
        Ok(transaction.commit().await?)
    }

    /// When keys whose ids lie in `first..=last` were used last, by id, milliseconds since the Unix epoch: of a page,
    /// say. Keys that never were are not among them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_uses(&self, first: &str, last: &str) -> Result<Vec<(String, u64)>, AccountsError> {
        let query = format!(
            "SELECT id, at_ms FROM api_key_uses WHERE id >= $1 AND id <= $2{} ORDER BY id LIMIT {MAX_PAGE}",
            self.of_tenant(3)
        );
        let mut transaction = self.begin(Access::Read).await?;
        let rows = transaction.rows(&query, &self.and_tenant(vec![first.into(), last.into()])).await?;
        rows.into_iter().map(|mut row| Ok((row.text()?, row.integer()?))).collect()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), AccountsError> {
        self.begin(Access::Read).await.map(drop)
    }

    /// Waits for what is under way, and closes. Clones are closed too.
    pub async fn close(&self) {
        self.shared.engine.close().await;
    }

    async fn begin(&self, access: Access) -> Result<Box<dyn Transaction>, AccountsError> {
        Ok(self.shared.engine.begin(access, &self.scope).await?)
    }

    async fn find<T: Kind>(
        &self,
        transaction: &mut dyn Transaction,
        id: &str,
    ) -> Result<Option<Record<T>>, AccountsError> {
        if is_no_name(id) {
            return Ok(None);
        }
        let query = format!("{} WHERE id = $1{}", select::<T>(), self.of_tenant(2));
        let found = transaction.rows(&query, &self.and_tenant(vec![id.into()])).await?;
        found.into_iter().next().map(read).transpose()
    }

    /// Whose these are; `None`: the operator's.
    fn tenant(&self) -> Option<&str> {
        match &self.scope {
            Scope::Operator => None,
            Scope::Tenant(tenant) => Some(tenant),
        }
    }

    /// What a query's conditions end with, where value `number` is the one that [`Accounts::and_tenant`] adds.
    fn of_tenant(&self, number: usize) -> String {
        self.tenant().map(|_| format!(" AND tenant = ${number}")).unwrap_or_default()
    }

    fn and_tenant(&self, mut values: Vec<Value>) -> Vec<Value> {
        values.extend(self.tenant().map(Value::from));
        values
    }

    fn check_operator(&self) -> Result<(), AccountsError> {
        match self.scope {
            Scope::Operator => Ok(()),
            Scope::Tenant(_) => Err(AccountsError::OutOfScope),
        }
    }
}

/// The names of a kind's own columns, to follow those that all have.
fn columns<T: Kind>() -> String {
    T::COLUMNS.iter().map(|column| format!(", {column}")).collect()
}

/// PostgreSQL takes no text with it, also to look for.
const NUL: char = '\0';

/// Whether nothing can be called so.
fn is_no_name(text: &str) -> bool {
    text.contains(NUL)
}

/// A query for records, without its conditions.
fn select<T: Kind>() -> String {
    format!("SELECT id, version, created_at_ms, updated_at_ms, document{} FROM {}", columns::<T>(), T::TABLE)
}

/// What [`select`] found.
fn read<T: Kind>(mut row: Row) -> Result<Record<T>, AccountsError> {
    let (id, version, created_at_ms, updated_at_ms) = (row.text()?, row.integer()?, row.integer()?, row.integer()?);
    let document = row.text()?;
    let unreadable = |error| AccountsError::Database(format!("{} `{id}` cannot be read: {error}", T::NAME));
    let mut value: T = serde_json::from_str(&document).map_err(unreadable)?;
    value.restore(T::COLUMNS.iter().map(|_| row.text()).collect::<Result<_, _>>()?);
    Ok(Record { id, version, created_at_ms, updated_at_ms, value })
}

/// Lets `known` be at least `revision`, and tells who waits for that.
fn raise(known: &watch::Sender<u64>, revision: u64) {
    known.send_if_modified(|known| {
        let is_later = *known < revision;
        *known = revision.max(*known);
        is_later
    });
}

/// What came of bringing tables up to date, so that one knows what to do.
fn migrated(result: Result<(), MigrateError>) -> anyhow::Result<()> {
    result.map_err(|error| match error {
        MigrateError::VersionMissing(version) => anyhow!(
            "the tables are of version {version}, made by a later release: run that one, or restore a backup from before \
             it"
        ),
        MigrateError::VersionMismatch(version) => {
            anyhow!("the tables' version {version} was made by another program than a release of this one")
        }
        error => anyhow!(error).context("cannot bring the tables up to date"),
    })
}
