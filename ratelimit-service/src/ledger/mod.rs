//! The ledger: every usage event once, and daily sums of them.
//!
//! A call whose reservation expired stands there with what was reserved ([`UsageSource::Unsettled`]), until its real event
//! comes: then the call counts as that event alone, in whatever order the two came.
//!
//! [`UsageSource::Unsettled`]: tollgate_wire::usage_event::UsageSource::Unsettled

mod sqlite;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::UsageEvent;

pub use sqlite::{MAX_QUEUED_WRITES, SqliteLedger};
pub use usage::Usage;

/// The largest count that is summed, of an event or an estimate: sums of such stay far from the end of SQLite's integers.
/// A larger one is stored as this.
pub const MAX_COUNT: u64 = 1_000_000_000_000;

/// A store of usage events.
#[tonic::async_trait]
pub trait Ledger: Send + Sync {
    /// Stores events that are not stored yet, all of them or none, and gives those back, in order. They are durable when
    /// this returns; dropping the future does not take them back.
    ///
    /// An unsettled event (`event_id` is its reservation's id) is new when nothing is stored under its id, and a real one
    /// when no real one is: it takes the unsettled one's place in all sums. Of an unsettled event are kept its ids, tenant,
    /// tier, time, API, requested model, and its input and output tokens.
    ///
    /// # Errors
    /// When nothing was stored: too much is waiting, or the database failed.
    async fn append(&self, events: Vec<UsageEvent>) -> Result<Vec<UsageEvent>, LedgerError>;

    /// A tenant's days in `period` that have usage, oldest first.
    async fn days(&self, tenant: &str, period: Period) -> Result<Vec<(Day, Usage)>, LedgerError>;

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

    /// The tier of a tenant's latest call.
    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError>;

    /// Whether it answers.
    async fn ping(&self) -> Result<(), LedgerError>;

    /// Stores what is waiting, and closes.
    async fn close(&self);
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
    /// What they used.
    pub usage: Usage,
    /// Of the requests, those that were refused before anything was made of them: no limit counts these.
    pub refused: u64,
}

/// Why the ledger did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// More is waiting than it queues.
    #[error("{MAX_QUEUED_WRITES} writes are waiting for the ledger already")]
    Busy,
    /// It is closing.
    #[error("the ledger is closed")]
    Closed,
    /// The database said no; one message for all writes of a transaction.
    #[error("the ledger failed: {0}")]
    Database(String),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> LedgerError {
        LedgerError::Database(error.to_string())
    }
}
