//! The ledger in the service's SQLite file.
//!
//! Invariants:
//! - Whether an event is new is the primary keys' word. Entries, corrections and all sums change in one transaction.
//! - Sums are those of [`Usage::of`] over the entries, by hour, day and month; [`Ledger::differences`] looks whether they are.
//! - Nothing is changed or deleted but by [`Ledger::purge`]; triggers see to that.

mod append;
mod check;
mod read;
mod sums;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use tollgate_wire::usage_event::UsageEvent;

use super::{Difference, Ledger, LedgerError, Page, Point, Series, Spent, TrackedSum};
use crate::database::{Database, DatabaseError};
use crate::entry::{Batch, TrackedEvent};

pub(crate) use sums::sum_all;

/// The embedded engine.
pub struct SqliteLedger {
    database: Arc<Database>,
}

impl SqliteLedger {
    /// In this file.
    pub fn new(database: Arc<Database>) -> SqliteLedger {
        SqliteLedger { database }
    }

    /// In a file of its own, which is created where it is missing.
    ///
    /// # Errors
    /// Those of [`Database::open`].
    pub async fn open(file: &Path) -> anyhow::Result<SqliteLedger> {
        Ok(SqliteLedger::new(Arc::new(Database::open(file).await?)))
    }
}

impl From<DatabaseError> for LedgerError {
    fn from(error: DatabaseError) -> LedgerError {
        match error {
            DatabaseError::Closed => LedgerError::Closed,
            error => LedgerError::Database(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Ledger for SqliteLedger {
    async fn append(&self, batch: Batch) -> Result<Vec<bool>, LedgerError> {
        Ok(self.database.write(move |transaction| append::append(transaction, &batch)).await?)
    }

    async fn series(&self, series: &Series<'_>) -> Result<Vec<Point>, LedgerError> {
        let (tenant, Series { grain, from_ms, to_ms, by, .. }) = (series.tenant.to_owned(), *series);
        let read = move |transaction: &rusqlite::Transaction<'_>| {
            read::series(transaction, &Series { tenant: &tenant, grain, from_ms, to_ms, by })
        };
        Ok(self.database.read(read).await?)
    }

    async fn tracked(&self, tenant: &str, from_ms: u64, to_ms: u64) -> Result<Vec<TrackedSum>, LedgerError> {
        let tenant = tenant.to_owned();
        Ok(self.database.read(move |transaction| read::tracked(transaction, &tenant, from_ms, to_ms)).await?)
    }

    async fn tenants(&self, from_ms: u64, to_ms: u64) -> Result<Vec<String>, LedgerError> {
        Ok(self.database.read(move |transaction| read::tenants(transaction, from_ms, to_ms)).await?)
    }

    async fn events(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError> {
        let page = read::OwnedPage::from(page);
        Ok(self.database.read(move |transaction| read::events(transaction, &page)).await?)
    }

    async fn unpriced(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError> {
        let page = read::OwnedPage::from(page);
        Ok(self.database.read(move |transaction| read::unpriced(transaction, &page)).await?)
    }

    async fn tracked_events(&self, page: &Page<'_>) -> Result<Vec<TrackedEvent>, LedgerError> {
        let page = read::OwnedPage::from(page);
        Ok(self.database.read(move |transaction| read::tracked_events(transaction, &page)).await?)
    }

    async fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Result<Vec<Spent>, LedgerError> {
        let tenant = tenant.map(str::to_owned);
        Ok(self.database.read(move |transaction| read::spent_since(transaction, from_ms, tenant.as_deref())).await?)
    }

    async fn unsettled_since(&self, from_ms: u64, limit: usize) -> Result<Vec<UsageEvent>, LedgerError> {
        Ok(self.database.read(move |transaction| read::unsettled_since(transaction, from_ms, limit)).await?)
    }

    async fn real(&self, event_id: &str) -> Result<Option<UsageEvent>, LedgerError> {
        let event_id = event_id.to_owned();
        Ok(self.database.read(move |transaction| read::real(transaction, &event_id)).await?)
    }

    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError> {
        let tenant = tenant.to_owned();
        Ok(self.database.read(move |transaction| read::last_tier(transaction, &tenant)).await?)
    }

    async fn differences(&self, from_ms: u64, to_ms: u64) -> Result<Vec<Difference>, LedgerError> {
        let mut differences = Vec::new();
        // One at a time, so that none holds up what waits to be folded into the file for long.
        for tenant in self.tenants(from_ms, to_ms).await? {
            let look =
                move |transaction: &rusqlite::Transaction<'_>| check::differences(transaction, &tenant, from_ms, to_ms);
            differences.extend(self.database.read(look).await?);
        }
        Ok(differences)
    }

    async fn purge(&self, tenant: &str) -> Result<u64, LedgerError> {
        let tenant = tenant.to_owned();
        Ok(self.database.write(move |transaction| append::purge(transaction, &tenant)).await?)
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        Ok(self.database.ping().await?)
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
