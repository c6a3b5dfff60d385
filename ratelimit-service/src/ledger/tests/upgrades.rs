//! Databases of earlier versions.

use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor};

use super::super::sqlite::migrations;
use super::*;

/// A ledger that a program of an earlier version has left, with `rows` of usage events.
async fn left_by_version(version: usize, columns: &str, rows: &[String]) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let mut database = SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
    let earlier = migrations().iter().take(version).cloned().collect();
    Migrator::with_migrations(earlier).run(&mut database).await.unwrap();
    for row in rows {
        let insert = format!("INSERT INTO usage_events ({columns}) VALUES ({row})");
        database.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
    }
    database.close().await.unwrap();
    let ledger = SqliteLedger::open(&file, Metrics::new().0).await.unwrap();
    Opened { ledger, folder }
}

/// What every version's events must have.
const COLUMNS: &str = "event_id, tenant, tier, started_at_ms, duration_ms, finish_reasons, streaming, status, input_tokens, \
    output_tokens, cache_read_tokens, cache_creation_tokens, reasoning_tokens, usage_source, finish, request_bytes, \
    response_bytes";

fn row(id: &str, input_tokens: u64, source: &str) -> String {
    format!(
        "'{id}', 'acme', 'pro', {DAY_MS}, 40, '[\"stop\"]', 1, 200, {input_tokens}, 1, 0, 0, 0, '{source}', \
         'complete', 0, 0"
    )
}

/// The same data, whatever the version, counts on in the same way.
async fn counts_on(opened: &Opened) {
    let kept = Usage {
        requests: 3,
        succeeded: 3,
        input_tokens: 15,
        output_tokens: 3,
        requests_reported: 2,
        requests_none: 1,
        duration_ms: 120,
        ..Usage::default()
    };
    assert_eq!(opened.days("acme").await, [(1, kept)]);
    let spent =
        Spent { tenant: "acme".to_owned(), tier: "pro".to_owned(), model: None, api: None, usage: kept, refused: 0 };
    assert_eq!(opened.spent_since(DAY_MS, None).await, [spent]);
    assert_eq!(opened.spent_since(DAY_MS + 1, None).await, []);
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("pro"));

    assert_eq!(opened.append(&[unsettled("e1"), unsettled("e4"), real("e2")]).await, [unsettled("e4")]);
    assert_eq!(opened.days("acme").await, [(1, [kept, unsettled_sum()].into_iter().sum())]);
    assert_eq!(opened.append(&[real("e4")]).await, [real("e4")]);
    assert_eq!(opened.days("acme").await, [(1, [kept, real_sum()].into_iter().sum())]);
}

#[tokio::test]
async fn a_ledger_of_the_first_version_keeps_its_data_and_counts_on() {
    let rows = [row("e1", 10, "reported"), row("e2", 5, "reported"), row("e3", 0, "none")];
    counts_on(&left_by_version(1, COLUMNS, &rows).await).await;
}

#[tokio::test]
async fn a_ledger_of_the_second_version_keeps_its_data_and_counts_on() {
    let rows = [row("e1", 10, "reported"), row("e2", 5, "reported"), row("e3", 0, "none")];
    counts_on(&left_by_version(2, COLUMNS, &rows).await).await;
}

/// Version 2 had no place of its own for such events; only a foreign sender made them.
#[tokio::test]
async fn an_unsettled_event_of_the_second_version_stays_what_it_was() {
    let columns = format!("{COLUMNS}, tool_requests");
    let opened = left_by_version(2, &columns, &[format!("{}, 6", row("e1", 10, "unsettled"))]).await;
    let kept = Usage {
        requests: 1,
        succeeded: 1,
        input_tokens: 10,
        output_tokens: 1,
        tool_requests: 6,
        requests_unsettled: 1,
        duration_ms: 40,
        ..Usage::default()
    };
    assert_eq!(opened.append(&[unsettled("e1"), real("e1")]).await, []);
    assert_eq!(opened.days("acme").await, [(1, kept)]);
    assert_eq!(opened.spent_since(0, None).await.iter().map(|spent| spent.usage).collect::<Vec<_>>(), [kept]);
}
