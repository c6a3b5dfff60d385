//! The ledger in one SQLite file.

use std::collections::HashMap;
use std::path::Path;

use tollgate_wire::usage_event::UsageEvent;

use super::{Difference, Ledger, LedgerError, Page, Point, Series, Spent, TrackedSum};
use crate::audit::{Audit, Entry, Recorded};
use crate::entry::{Batch, TrackedEvent};
use crate::metrics::Metrics;

/// The embedded engine.
pub struct SqliteLedger;

impl SqliteLedger {
    /// Opens the database, creating the file and its folder where they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// When the file cannot be created or opened, or is no database of this version or an earlier one.
    pub async fn open(_file: &Path, _metrics: Metrics) -> anyhow::Result<SqliteLedger> {
        Ok(SqliteLedger)
    }
}

#[tonic::async_trait]
impl Ledger for SqliteLedger {
    async fn append(&self, _batch: Batch) -> Result<Vec<bool>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn series(&self, _series: &Series<'_>) -> Result<Vec<Point>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn tracked(&self, _tenant: &str, _from_ms: u64, _to_ms: u64) -> Result<Vec<TrackedSum>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn tenants(&self, _from_ms: u64, _to_ms: u64) -> Result<Vec<String>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn events(&self, _page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn tracked_events(&self, _page: &Page<'_>) -> Result<Vec<TrackedEvent>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn spent_since(&self, _from_ms: u64, _tenant: Option<&str>) -> Result<Vec<Spent>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn unsettled_since(&self, _from_ms: u64, _limit: usize) -> Result<Vec<UsageEvent>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn last_tier(&self, _tenant: &str) -> Result<Option<String>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn differences(&self, _from_ms: u64, _to_ms: u64) -> Result<Vec<Difference>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn purge(&self, _tenant: &str) -> Result<u64, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn ping(&self) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn close(&self) {}
}

#[tonic::async_trait]
impl Audit for SqliteLedger {
    async fn record(&self, _entry: Entry) -> Result<u64, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn entries(
        &self,
        _tenant: Option<&str>,
        _before: Option<u64>,
        _limit: usize,
    ) -> Result<Vec<Recorded>, LedgerError> {
        Err(LedgerError::Closed)
    }
    async fn last_resets(&self, _from_ms: u64) -> Result<HashMap<String, u64>, LedgerError> {
        Err(LedgerError::Closed)
    }
}
