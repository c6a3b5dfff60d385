//! The ledger: every entry once, and sums of them by hour, day and month.

mod clickhouse;
mod histogram;
mod pages;
mod sqlite;
mod usage;

use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tollgate_domain::{Period, Span};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};
use utoipa::ToSchema;

use crate::config::Config;
use crate::database::Database;
use crate::entry::{Batch, TrackedEvent};
use crate::metrics::Metrics;

pub use clickhouse::{ClickHouseLedger, ClickHouseSettings, MAX_RETENTION_MONTHS};
pub use histogram::{Histogram, bucket};
pub use pages::Page;
pub(crate) use pages::Pages;
pub use sqlite::SqliteLedger;
pub(crate) use sqlite::sum_all;
pub use usage::Usage;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The largest count that is summed, of an event or an estimate: sums of such stay far from the end of the databases' integers.
/// A larger one is stored as this.
pub const MAX_COUNT: u64 = 1_000_000_000_000;

/// The largest cost that is summed, a million US dollars.
pub const MAX_COST_NANOUSD: u64 = 1_000_000_000_000_000;

/// The ledger that is configured; the embedded one is in `database`.
///
/// # Errors
/// When it cannot be opened; the error names the config's key.
pub async fn open(config: &Config, database: &Arc<Database>, metrics: &Metrics) -> anyhow::Result<Arc<dyn Ledger>> {
    let Some(settings) = &config.clickhouse else { return Ok(Arc::new(SqliteLedger::new(database.clone()))) };
    // Beside the database: what is under way is this service's own.
    let state = config.sqlite.with_extension("clickhouse");
    let ledger = ClickHouseLedger::open(settings, &state, metrics).await.context("ledger.clickhouse")?;
    Ok(Arc::new(ledger))
}

/// The ledger that is configured, to be read while the service may be running.
///
/// # Errors
/// When it cannot be opened; the error names the config's key.
pub async fn open_to_read(config: &Config) -> anyhow::Result<Arc<dyn Ledger>> {
    Ok(match &config.clickhouse {
        None => Arc::new(SqliteLedger::open(&config.sqlite).await.context("ledger.sqlite")?),
        Some(settings) => Arc::new(ClickHouseLedger::connect(settings).await.context("ledger.clickhouse")?),
    })
}

/// A store of entries.
///
/// A call whose reservation expired stands there with what was reserved (an unsettled event, whose id is the
/// reservation's), until its real event comes: then the call counts as that event alone, in whatever order the two came.
#[tonic::async_trait]
pub trait Ledger: Send + Sync {
    /// Stores the entries that are not stored yet, all of them or none, and tells of each whether it was new, in order. They
    /// are durable when this returns; dropping the future does not take them back. Whatever is appended again, whole or
    /// regrouped, however late, counts once; one service appends at a time.
    ///
    /// An unsettled event is new when nothing is stored under its id, and a real one when no real one is: it takes the
    /// unsettled one's place in all sums. Of an unsettled event are kept its ids, tenant, tier, time, API, requested model,
    /// cost, and its input and output tokens. A tracked event's id counts for its tenant.
    ///
    /// # Errors
    /// When nothing is known to be stored: the database failed or does not answer. The same batch may be appended again.
    async fn append(&self, batch: Batch) -> Result<Vec<bool>, LedgerError>;

    /// Sums over a tenant's calls, by time and, where asked for, one dimension; oldest first, then by label. Where nothing
    /// was used there is no point. Reads as much as the period has, however long the history is.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn series(&self, series: &Series<'_>) -> Result<Vec<Point>, LedgerError>;

    /// Sums over a tenant's tracked events by day and type, oldest first, of the days that begin in `from_ms..to_ms`.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn tracked(&self, tenant: &str, from_ms: u64, to_ms: u64) -> Result<Vec<TrackedSum>, LedgerError>;

    /// The tenants that have entries in the UTC days that begin in `from_ms..to_ms`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn tenants(&self, from_ms: u64, to_ms: u64) -> Result<Vec<String>, LedgerError>;

    /// A tenant's calls that count, unsettled ones too, and that began in `page.from_ms..page.to_ms`: by time, then id.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn events(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError>;

    /// Of [`Ledger::events`] those that used something for whose model there was no price.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn unpriced(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError>;

    /// A tenant's tracked events, likewise.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn tracked_events(&self, page: &Page<'_>) -> Result<Vec<TrackedEvent>, LedgerError>;

    /// What the calls that began at or after `from_ms` (milliseconds since the Unix epoch) used, of one tenant or all, in
    /// no order. Reads these calls alone, however long the history before them is.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Result<Vec<Spent>, LedgerError>;

    /// Calls that began at or after `from_ms` and expired, and whose event has not come: the latest ones, at most `limit`,
    /// each as far as [`Ledger::append`] keeps it.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn unsettled_since(&self, from_ms: u64, limit: usize) -> Result<Vec<UsageEvent>, LedgerError>;

    /// The real event of this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn real(&self, event_id: &str) -> Result<Option<UsageEvent>, LedgerError>;

    /// The tier of a tenant's latest call.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError>;

    /// Where the sums of the UTC days that begin in `from_ms..to_ms` are not those of the entries: nowhere, or there is a
    /// defect. Of each tenant, grain and sum the total over the period.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn differences(&self, from_ms: u64, to_ms: u64) -> Result<Vec<Difference>, LedgerError>;

    /// Erases all of a tenant's entries and sums, and tells how many entries that were. Their ids are forgotten too.
    ///
    /// # Errors
    /// When not all is known to be erased; it can be done again.
    async fn purge(&self, tenant: &str) -> Result<u64, LedgerError>;

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), LedgerError>;

    /// Stores what is waiting, and closes.
    async fn close(&self);
}

/// How long the parts of a series are. All are of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    /// Hours.
    Hour,
    /// Days.
    #[default]
    Day,
    /// Calendar months.
    Month,
}

impl Grain {
    /// When the part begins that a moment lies in; both in milliseconds since the Unix epoch.
    pub fn start_ms(self, at_ms: u64) -> u64 {
        match self {
            Grain::Hour => at_ms - at_ms % HOUR_MS,
            Grain::Day => at_ms - at_ms % DAY_MS,
            Grain::Month => Period::around(Span::Month, at_ms).first.start_ms(),
        }
    }

    /// When the next part begins.
    pub fn end_ms(self, at_ms: u64) -> u64 {
        match self {
            Grain::Hour => (at_ms / HOUR_MS + 1) * HOUR_MS,
            Grain::Day => (at_ms / DAY_MS + 1) * DAY_MS,
            Grain::Month => Period::around(Span::Month, at_ms).end.start_ms(),
        }
    }
}

/// What sums are kept apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The model asked for, or else the one that answered.
    Model,
    /// [`UsageEvent::provider`]
    Provider,
    /// [`UsageEvent::api`]
    Api,
    /// [`UsageEvent::key`]
    Key,
    /// [`UsageEvent::tier`]
    Tier,
    /// `true` or `false`.
    Streaming,
    /// The HTTP status, as a number; 0 where there was none.
    Status,
}

impl Dimension {
    /// Under which label a call is summed; `None` where it has none.
    pub fn label(self, event: &UsageEvent) -> Option<String> {
        match self {
            Dimension::Model => event.model().map(str::to_owned),
            Dimension::Provider => event.provider.clone(),
            Dimension::Api => event.api.clone(),
            Dimension::Key => event.key.clone(),
            Dimension::Tier => Some(event.tier.clone()).filter(|tier| !tier.is_empty()),
            Dimension::Streaming => Some(event.streaming.to_string()),
            Dimension::Status => Some(event.status.to_string()),
        }
    }
}

/// An unsettled event, as far as a ledger keeps it: see [`Ledger::append`].
fn kept(event: &UsageEvent) -> UsageEvent {
    UsageEvent {
        event_id: event.event_id.clone(),
        reservation_id: Some(event.event_id.clone()),
        tenant: event.tenant.clone(),
        tier: event.tier.clone(),
        started_at_ms: event.started_at_ms,
        api: event.api.clone(),
        key: event.key.clone(),
        request_model: event.model().map(str::to_owned),
        tokens: TokenCounts {
            input: event.tokens.input,
            output: event.tokens.output,
            images: event.tokens.images,
            ..TokenCounts::default()
        },
        cost_nanousd: event.cost_nanousd,
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..UsageEvent::default()
    }
}

/// A question for sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// By which parts of time.
    pub grain: Grain,
    /// Those parts that begin at or after this time, milliseconds since the Unix epoch,
    pub from_ms: u64,
    /// and before this.
    pub to_ms: u64,
    /// All of a part together, or by this.
    pub by: Option<Dimension>,
}

/// A part of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// When it begins, milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// The dimension's value; `None` where calls had none, or no dimension is asked for.
    pub label: Option<String>,
    /// What was used.
    pub usage: Usage,
}

/// A sum over tracked events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedSum {
    /// When its day begins.
    pub start_ms: u64,
    /// Their type.
    pub event_type: String,
    /// How many.
    pub events: u64,
    /// Their quantities together, in millionths.
    pub quantity_micros: u128,
}

/// A sum that is not what its entries come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose.
    pub tenant: String,
    /// Where: a grain, or `entries` for ids that are there more than once.
    pub place: String,
    /// The sum's name.
    pub sum: String,
    /// What the entries come to.
    pub entries: u128,
    /// What the sums have.
    pub sums: u128,
}

/// A sum over the calls of a tenant that share what limits and prices depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Who pays.
    pub tenant: String,
    /// The plan's name, as the calls named it.
    pub tier: String,
    /// The model that was asked for; `None` when the requests named none.
    pub model: Option<String>,
    /// The answers' format, as `tollgate-usage` names it; `None` when none was recognised.
    pub api: Option<String>,
    /// Which of the tenant's keys the callers showed; `None` when they showed none.
    pub key: Option<String>,
    /// What they used. The histograms may be left empty.
    pub usage: Usage,
}

/// Why the ledger did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is closing.
    #[error("the ledger is closed")]
    Closed,
    /// The database said no, or did not answer.
    #[error("the ledger failed: {0}")]
    Database(String),
}
