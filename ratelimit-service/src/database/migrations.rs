//! What brings a file from each version to the next. One that has landed is never changed.

use anyhow::{Context, ensure};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::ledger;

/// What each version brings.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_ledger.sql"),
    include_str!("../../migrations/0002_usage_details.sql"),
    include_str!("../../migrations/0003_corrections.sql"),
    include_str!("../../migrations/0004_sums.sql"),
    include_str!("../../migrations/0005_alerts.sql"),
    include_str!("../../migrations/0006_invoice_events.sql"),
    include_str!("../../migrations/0007_unsettled_keys.sql"),
    include_str!("../../migrations/0008_images.sql"),
    include_str!("../../migrations/0009_unpriced.sql"),
];

/// The first version with sums of all calls. Those of an earlier one's are made once its tables are of the latest.
const SUMS_SINCE: usize = 4;

/// The statements of each version.
#[cfg(test)]
pub(crate) fn statements() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().copied()
}

/// Brings the file to the latest version.
///
/// # Errors
/// When it is of a later one, or a statement fails; then it stays as it is.
pub(super) fn run(connection: &mut Connection) -> anyhow::Result<()> {
    // Another process may be about to do the same.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&transaction)?;
    ensure!(
        version <= MIGRATIONS.len(),
        "it is of version {version}, made by a later release; this one knows versions up to {}",
        MIGRATIONS.len()
    );
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        transaction.execute_batch(migration).with_context(|| format!("cannot bring it to version {}", index + 1))?;
    }
    if version < SUMS_SINCE {
        ledger::sum_all(&transaction).context("cannot sum its calls")?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(transaction.commit()?)
}

/// How many migrations were run.
fn version(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // The first releases kept it in a table.
    let is_kept_there = transaction.table_exists(None, "_sqlx_migrations")?;
    if version > 0 || !is_kept_there {
        return Ok(usize::try_from(version).unwrap_or(0));
    }
    let last = "SELECT ifnull(max(version), 0) FROM _sqlx_migrations WHERE success";
    let version: i64 = transaction.query_row(last, [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(0))
}
