//! The ledger: every usage event once, and daily sums of them.

mod sqlite;
mod usage;

use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::UsageEvent;

pub use sqlite::{MAX_QUEUED_EXPORTS, SqliteLedger};
pub use usage::Usage;

/// A store of usage events.
#[tonic::async_trait]
pub trait Ledger: Send + Sync {
    /// Stores events that are not stored yet, all of them or none, and gives those back, in order. They are durable when
    /// this returns; dropping the future does not take them back.
    async fn append(&self, events: Vec<UsageEvent>) -> Result<Vec<UsageEvent>, LedgerError>;

    /// A tenant's days in `period` that have usage, oldest first.
    async fn days(&self, tenant: &str, period: Period) -> Result<Vec<(Day, Usage)>, LedgerError>;

    /// What each tenant used in `period`.
    async fn by_tenant(&self, period: Period) -> Result<Vec<(String, Usage)>, LedgerError>;

    /// The tier of a tenant's latest call.
    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError>;

    /// Whether it answers.
    async fn ping(&self) -> Result<(), LedgerError>;

    /// Stores what is waiting, and closes.
    async fn close(&self);
}

/// Why the ledger did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// More exports are waiting than it queues.
    #[error("{MAX_QUEUED_EXPORTS} exports are waiting for the ledger already")]
    Busy,
    /// It is closing.
    #[error("the ledger is closed")]
    Closed,
    /// The database said no; one message for all exports of a transaction.
    #[error("the ledger failed: {0}")]
    Database(String),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> LedgerError {
        LedgerError::Database(error.to_string())
    }
}
