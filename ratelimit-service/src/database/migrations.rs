//! What brings a file from each version to the next. One that has landed is never changed.

use anyhow::{Context, ensure};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::ledger;

/// What one version brings: statements, and what only code can do.
struct Migration {
    sql: &'static str,
    then: fn(&Transaction<'_>) -> rusqlite::Result<()>,
}

const fn sql(sql: &'static str) -> Migration {
    Migration { sql, then: |_| Ok(()) }
}

const MIGRATIONS: &[Migration] = &[
    sql(include_str!("../../migrations/0001_ledger.sql")),
    sql(include_str!("../../migrations/0002_usage_details.sql")),
    sql(include_str!("../../migrations/0003_corrections.sql")),
    Migration { sql: include_str!("../../migrations/0004_sums.sql"), then: ledger::sum_all },
    sql(include_str!("../../migrations/0005_alerts.sql")),
    sql(include_str!("../../migrations/0006_invoice_events.sql")),
    sql(include_str!("../../migrations/0007_unsettled_keys.sql")),
    sql(include_str!("../../migrations/0008_unpriced.sql")),
];

/// The statements of each version.
#[cfg(test)]
pub(crate) fn statements() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().map(|migration| migration.sql)
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
        let upgrading = || format!("cannot bring it to version {}", index + 1);
        transaction.execute_batch(migration.sql).with_context(upgrading)?;
        (migration.then)(&transaction).with_context(upgrading)?;
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
