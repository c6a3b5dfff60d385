//! The audit log: who did what to whose limits, for good.

use std::collections::HashMap;

use serde_json::Value;

use crate::ledger::LedgerError;

/// The most entries that one question is answered with.
pub const MAX_ENTRIES: usize = 1000;

/// The action by which a tenant's limits were forgiven.
pub const RESET: &str = "reset";

/// The action by which a tenant's entries were erased.
pub const PURGE: &str = "purge";

/// What somebody did.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who, by the name under which they are known to the service.
    pub actor: String,
    /// What, by a stable name: [`RESET`], [`PURGE`], …
    pub action: String,
    /// The tenant that it concerned; `None` when it concerned no single one.
    pub tenant: Option<String>,
    /// What else there is to know. Its writer keeps it short.
    pub detail: Value,
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Greater than that of every earlier entry, and at least 1: the cursor of [`Audit::entries`].
    pub id: u64,
    /// What was done.
    pub entry: Entry,
}

/// An append-only log.
#[tonic::async_trait]
pub trait Audit: Send + Sync {
    /// Keeps an entry, and gives its id. It is durable when this returns; dropping the future does not take it back.
    ///
    /// # Errors
    /// When it was not kept: too much is waiting, or the database failed.
    async fn record(&self, entry: Entry) -> Result<u64, LedgerError>;

    /// The latest entries of one tenant or all, newest first: at most `limit`, and at most [`MAX_ENTRIES`]. `before` is the
    /// last id of the page before; `None` starts at the newest.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn entries(
        &self,
        tenant: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, LedgerError>;

    /// Tenants that were reset at or after `from_ms`, each with when that was last.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn last_resets(&self, from_ms: u64) -> Result<HashMap<String, u64>, LedgerError>;
}
