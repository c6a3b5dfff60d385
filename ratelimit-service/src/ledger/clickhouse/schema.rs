//! The tables, at the version of this program.
//!
//! Migrations go forward only. Each may run again from its beginning: ClickHouse has no transaction over one.

use anyhow::{Context, ensure};
use clickhouse::Row;
use serde::Deserialize;

use super::ClickHouseSettings;
use super::database::Database;

/// Each version's statements, from version 1 on.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/clickhouse/0001_ledger.sql"),
    include_str!("../../../migrations/clickhouse/0002_images.sql"),
];

/// The tables with a time to live, the column that it counts from, and whether they hold entries.
const AGING: &[(&str, &str, bool)] = &[
    ("usage_events", "started_at_ms", true),
    ("tracked_events", "at_ms", true),
    ("entry_ids", "at_ms", false),
    ("usage_hours", "start_ms", false),
    ("usage_days", "start_ms", false),
    ("usage_months", "start_ms", false),
    ("tracked_days", "start_ms", false),
];

/// Later times age from this one, the year 2065, in seconds since the Unix epoch: the sum of it and the longest time to live is a
/// `DateTime` yet.
const LATEST_S: u64 = 3_000_000_000;

#[derive(Row, Deserialize)]
struct Number {
    number: u64,
}

#[derive(Row, Deserialize)]
struct TableEngine {
    name: String,
    engine: String,
}

/// Creates the database where it is missing, brings its tables to this program's version, and sets how long rows live.
pub(super) async fn prepare(database: &Database, settings: &ClickHouseSettings) -> anyhow::Result<()> {
    create_database(database, &settings.database).await?;
    migrate(database).await?;
    set_lifetimes(database, settings).await
}

async fn create_database(database: &Database, name: &str) -> anyhow::Result<()> {
    let server = database.server();
    // Who may not create databases may use one that is there.
    let found = server.query("SELECT count() AS number FROM system.databases WHERE name = ?").bind(name);
    let Number { number } = server.row(found).await?;
    if number == 0 {
        let create = server.query("CREATE DATABASE IF NOT EXISTS ?").bind(clickhouse::sql::Identifier(name));
        server.change(create).await.with_context(|| format!("creating the database {name}"))?;
    }
    Ok(())
}

/// Looks whether the tables are of this program's version.
pub(super) async fn check(database: &Database, settings: &ClickHouseSettings) -> anyhow::Result<()> {
    let found = "SELECT count() AS number FROM system.tables WHERE database = ? AND name = 'ledger_migrations'";
    let server = database.server();
    let Number { number } = server.row(server.query(found).bind(&settings.database)).await?;
    ensure!(number > 0, "the database {} in ClickHouse has no ledger: a service makes it", settings.database);
    let (applied, known) = (version(database).await?, MIGRATIONS.len() as u64);
    ensure!(
        applied == known,
        "the ledger's tables in ClickHouse are of version {applied}, and this program is of {known}: a service of the same \
         version of Tollgate brings older ones up to date"
    );
    Ok(())
}

async fn version(database: &Database) -> anyhow::Result<u64> {
    let applied = "SELECT toUInt64(max(version)) AS number FROM ledger_migrations";
    let Number { number } = database.row(database.query(applied)).await?;
    Ok(number)
}

async fn migrate(database: &Database) -> anyhow::Result<()> {
    let table = "CREATE TABLE IF NOT EXISTS ledger_migrations (version UInt64, applied_at DateTime DEFAULT now()) \
                 ENGINE = MergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1";
    database.change(database.query(table)).await?;
    let (applied, known) = (version(database).await?, MIGRATIONS.len() as u64);
    ensure!(
        applied <= known,
        "the ledger's tables in ClickHouse are of version {applied}, and this program knows them up to {known}: \
         run the version of Tollgate that made them, or a newer one"
    );
    for (version, migration) in (1_u64..).zip(MIGRATIONS).skip(usize::try_from(applied)?) {
        for statement in statements(migration) {
            let change = database.change(database.query(statement)).await;
            change.with_context(|| format!("migration {version} of the ledger's tables in ClickHouse"))?;
        }
        let note = database.query("INSERT INTO ledger_migrations (version) SELECT ?").bind(version);
        database.change(note).await?;
        tracing::info!(version, "the ledger's tables in ClickHouse were brought to a new version");
    }
    Ok(())
}

/// They end with `;` at a line's end.
fn statements(migration: &str) -> impl Iterator<Item = &str> {
    migration
        .split_inclusive(";\n")
        .map(|text| text.trim_end().trim_end_matches(';').trim())
        .filter(|statement| !statement.is_empty())
}

async fn set_lifetimes(database: &Database, settings: &ClickHouseSettings) -> anyhow::Result<()> {
    let engines = "SELECT name, engine_full AS engine FROM system.tables WHERE database = currentDatabase()";
    let engines: Vec<TableEngine> = database.rows(database.query(engines)).await?;
    for (table, column, holds_entries) in AGING {
        let months = if *holds_entries { settings.retention_months } else { settings.sums_retention_months };
        let is_set =
            |found: &TableEngine| found.name == *table && found.engine.contains(&format!("toIntervalMonth({months})"));
        if !engines.iter().any(is_set) {
            let lifetime = format!(
                "ALTER TABLE {table} MODIFY TTL \
                 toDateTime(least(intDiv({column}, 1000), {LATEST_S}), 'UTC') + toIntervalMonth({months})"
            );
            // Rows that are there learn of it in the background.
            database
                .alter(database.query(&lifetime))
                .await
                .with_context(|| format!("setting how long rows of {table} live"))?;
        }
    }
    Ok(())
}
