//! The ledger: every usage event once, and daily sums of them.

mod sqlite;

use tollgate_domain::{Day, Period};
use tollgate_wire::usage_event::UsageEvent;

pub use sqlite::{MAX_QUEUED_EXPORTS, SqliteLedger};

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

/// A sum over calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls.
    pub requests: u64,
    /// Of them, those that were answered 2xx and not broken off by the upstream.
    pub succeeded: u64,
    /// As in [`tollgate_wire::usage_event::TokenCounts`], like the other tokens.
    pub input_tokens: u64,
    /// All output.
    pub output_tokens: u64,
    /// Of the input.
    pub cache_read_tokens: u64,
    /// Of the input.
    pub cache_creation_tokens: u64,
    /// Of the output.
    pub reasoning_tokens: u64,
    /// The calls' durations together.
    pub duration_ms: u64,
}

impl Usage {
    /// Input and output together.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
        usages.fold(Usage::default(), |sum, usage| Usage {
            requests: sum.requests.saturating_add(usage.requests),
            succeeded: sum.succeeded.saturating_add(usage.succeeded),
            input_tokens: sum.input_tokens.saturating_add(usage.input_tokens),
            output_tokens: sum.output_tokens.saturating_add(usage.output_tokens),
            cache_read_tokens: sum.cache_read_tokens.saturating_add(usage.cache_read_tokens),
            cache_creation_tokens: sum.cache_creation_tokens.saturating_add(usage.cache_creation_tokens),
            reasoning_tokens: sum.reasoning_tokens.saturating_add(usage.reasoning_tokens),
            duration_ms: sum.duration_ms.saturating_add(usage.duration_ms),
        })
    }
}
