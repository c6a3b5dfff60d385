//! What is SQLite's own: files of earlier versions, what stands in the way of changes, and how questions are answered.

use rusqlite::Connection;
use tempfile::TempDir;
use tollgate_wire::usage_event::{TokenCounts, UsageSource};

use super::*;
use crate::database::migrations_for_tests;
use crate::ledger::{Grain, Usage};

const DAY_MS: u64 = 86_400_000;

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

/// A file that a program of an earlier version has left, which kept its version in a table.
fn left_by_version(version: usize, statements: &[String]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(folder.path().join("ledger.db")).unwrap();
    connection
        .execute_batch("CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN NOT NULL)")
        .unwrap();
    for (number, sql) in (1..=version).zip(migrations_for_tests()) {
        connection.execute_batch(sql).unwrap();
        connection.execute("INSERT INTO _sqlx_migrations VALUES (?, TRUE)", [number as i64]).unwrap();
    }
    statements.iter().for_each(|statement| connection.execute_batch(statement).unwrap());
    folder
}

fn insert(columns: &str, row: &str) -> String {
    format!("INSERT INTO usage_events ({columns}) VALUES ({row})")
}

async fn open(folder: &TempDir) -> SqliteLedger {
    SqliteLedger::open(&folder.path().join("ledger.db")).await.unwrap()
}

fn connect(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("ledger.db")).unwrap()
}

async fn days(ledger: &SqliteLedger) -> Vec<(u64, Usage)> {
    let series = Series { tenant: "acme", grain: Grain::Day, from_ms: 0, to_ms: u64::MAX, by: None };
    let points = ledger.series(&series).await.unwrap();
    points.into_iter().map(|point| (point.start_ms / DAY_MS, point.usage)).collect()
}

fn event(id: &str, source: UsageSource) -> UsageEvent {
    UsageEvent {
        event_id: id.to_owned(),
        tenant: "acme".to_owned(),
        tier: "pro".to_owned(),
        started_at_ms: DAY_MS,
        duration_ms: 40,
        status: 200,
        tokens: TokenCounts { input: 10, output: 3, ..TokenCounts::default() },
        usage_source: source,
        ..UsageEvent::default()
    }
}

async fn append(ledger: &SqliteLedger, events: &[UsageEvent]) -> Vec<bool> {
    ledger.append(events.to_vec().into()).await.unwrap()
}

#[tokio::test]
async fn files_of_earlier_versions_keep_their_data_and_count_on() {
    use UsageSource::{Reported, Unsettled};
    let rows = [row("e1", 10, "reported"), row("e2", 5, "reported"), row("e3", 0, "none")];
    let inserts: Vec<_> = rows.iter().map(|row| insert(COLUMNS, row)).collect();
    for version in 1..=3 {
        let folder = left_by_version(version, &inserts);
        let ledger = open(&folder).await;
        let [(1, kept)] = &days(&ledger).await[..] else { panic!("one day") };
        let expected = (3, 3, 15, 3, 2, 1, 120, 3);
        let Usage { requests, succeeded, input_tokens, output_tokens, duration_ms, .. } = *kept;
        let by_source = (kept.requests_reported, kept.requests_none);
        assert_eq!(
            (
                requests,
                succeeded,
                input_tokens,
                output_tokens,
                by_source.0,
                by_source.1,
                duration_ms,
                kept.requests_streaming
            ),
            expected
        );
        assert_eq!(kept.durations.counts(), [(crate::ledger::bucket(40), 3)]);
        assert_eq!(ledger.last_tier("acme").await.unwrap().as_deref(), Some("pro"));
        assert_eq!(ledger.differences(0, 9 * DAY_MS).await.unwrap(), []);

        let again = [event("e1", Unsettled), event("e4", Unsettled), event("e2", Reported)];
        assert_eq!(append(&ledger, &again).await, [false, true, false]);
        assert_eq!(days(&ledger).await[0].1.requests, 4);
        assert_eq!(append(&ledger, &[event("e4", Reported)]).await, [true]);
        let [(1, now)] = &days(&ledger).await[..] else { panic!("one day") };
        assert_eq!((now.requests, now.requests_unsettled, now.input_tokens), (4, 0, 25));
        assert_eq!(ledger.differences(0, 9 * DAY_MS).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_a_third_version_had_corrected_stays_so() {
    let statements = [
        format!("INSERT INTO unsettled_events VALUES ('u1', 'acme', 'pro', {DAY_MS}, NULL, 'm', 7, 8)"),
        format!("INSERT INTO unsettled_events VALUES ('u2', 'acme', 'pro', {DAY_MS}, NULL, 'm', 70, 80)"),
        insert(COLUMNS, &row("u1", 3, "reported")),
    ];
    let folder = left_by_version(3, &statements);
    let ledger = open(&folder).await;
    let [(1, kept)] = &days(&ledger).await[..] else { panic!("one day") };
    assert_eq!((kept.requests, kept.requests_unsettled, kept.input_tokens), (2, 1, 73));
    assert_eq!(append(&ledger, &[event("u2", UsageSource::Reported)]).await, [true]);
    assert_eq!(days(&ledger).await[0].1.input_tokens, 13);
    assert_eq!(ledger.differences(0, 9 * DAY_MS).await.unwrap(), []);
}

#[tokio::test]
async fn a_file_from_before_images_were_counted_keeps_its_data_and_counts_them() {
    use UsageSource::{Reported, Unsettled};
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder).await;
    append(&ledger, &[event("e1", Reported), event("u1", Unsettled), event("u2", Unsettled), event("u2", Reported)])
        .await;
    let before = days(&ledger).await;
    ledger.close().await;
    // As the version before left it.
    let connection = connect(&folder);
    for table in ["usage_events", "unsettled_events", "corrections", "usage_sums"] {
        connection.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN images")).unwrap();
    }
    connection.execute_batch("DROP INDEX usage_events_unpriced").unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    drop(connection);

    let ledger = open(&folder).await;
    assert_eq!(days(&ledger).await, before);
    let drawn = |id: &str, source, images| {
        let event = event(id, source);
        UsageEvent { tokens: TokenCounts { images, ..event.tokens }, ..event }
    };
    append(&ledger, &[drawn("e2", Reported, 2), drawn("u1", Reported, 1), drawn("u3", Unsettled, 4)]).await;
    let [(1, now)] = &days(&ledger).await[..] else { panic!("one day") };
    assert_eq!((now.requests, now.requests_unsettled, now.images), (5, 1, 7));
    append(&ledger, &[drawn("u3", Reported, 1)]).await;
    assert_eq!(days(&ledger).await[0].1.images, 4, "an estimate of images goes out of the sums");
    assert_eq!(ledger.differences(0, 40 * DAY_MS).await.unwrap(), []);
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await.close().await;
    connect(&folder).pragma_update(None, "user_version", 1000).unwrap();
    let Err(error) = SqliteLedger::open(&folder.path().join("ledger.db")).await else { panic!("it was opened") };
    assert!(format!("{error:#}").contains("it is of version 1000, made by a later release"), "{error:#}");
}

#[tokio::test]
async fn nothing_is_changed_or_deleted_behind_the_ledgers_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder).await;
    append(&ledger, &[event("u1", UsageSource::Unsettled), event("u2", UsageSource::Unsettled)]).await;
    append(&ledger, &[event("u1", UsageSource::Reported)]).await;
    let connection = connect(&folder);
    for table in ["usage_events", "unsettled_events", "corrections"] {
        for statement in [format!("UPDATE {table} SET tenant = 'x'"), format!("DELETE FROM {table}")] {
            let refused = connection.execute(&statement, []).unwrap_err();
            assert!(refused.to_string().contains(&format!("{table} is append-only")), "{statement}: {refused}");
        }
    }
    assert_eq!(ledger.purge("acme").await.unwrap(), 3);
    let left: i64 = connection.query_row("SELECT count(*) FROM purging", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_fails_changes_nothing_and_the_ledger_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder).await;
    let connection = connect(&folder);
    let fail = "CREATE TRIGGER full BEFORE INSERT ON usage_sums BEGIN SELECT raise(ABORT, 'no room'); END";
    connection.execute_batch(fail).unwrap();
    let failed = ledger.append(vec![event("e1", UsageSource::Reported)].into()).await.unwrap_err();
    assert!(failed.to_string().ends_with("ledger.db: no room"), "{failed}");
    connection.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(append(&ledger, &[event("e1", UsageSource::Reported)]).await, [true]);
    assert_eq!(days(&ledger).await[0].1.requests, 1);
}

#[tokio::test]
async fn sums_that_are_not_those_of_the_entries_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder).await;
    append(&ledger, &[event("e1", UsageSource::Reported)]).await;
    let connection = connect(&folder);
    connection.execute("UPDATE usage_sums SET output_tokens = 4 WHERE grain = 1", []).unwrap();
    connection.execute("UPDATE usage_sums SET durations = x'0101' WHERE grain = 0", []).unwrap();
    connection.execute("DELETE FROM usage_sums WHERE grain = 2", []).unwrap();
    let differences = ledger.differences(0, 40 * DAY_MS).await.unwrap();
    let told: Vec<_> = differences.iter().map(|found| (found.place.as_str(), found.sum.as_str())).collect();
    assert!(told.contains(&("day", "output_tokens")) && told.contains(&("hour", "durations")), "{told:?}");
    assert!(told.contains(&("month", "requests")), "{told:?}");
    let found = differences.iter().find(|found| found.place == "day").unwrap();
    assert_eq!((found.entries, found.sums), (3, 4));
}

/// How SQLite goes about a question.
fn plan(connection: &Connection, query: &str) -> Vec<String> {
    let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    explained.query_map([], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn questions_read_what_they_ask_for_and_nothing_of_the_history_before() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await.close().await;
    let connection = connect(&folder);
    for (query, sought) in [
        (
            "SELECT * FROM usage_sums WHERE grain = 1 AND tenant = 'a' AND start_ms >= 5 AND start_ms < 9",
            "SEARCH usage_sums USING PRIMARY KEY (grain=? AND tenant=? AND start_ms>? AND start_ms<?)",
        ),
        (
            "SELECT tenant, sum(requests) FROM usage_sums WHERE grain = 1 AND start_ms >= 5 GROUP BY tenant, tier",
            "SEARCH usage_sums USING INDEX usage_sums_by_time (grain=? AND start_ms>?)",
        ),
        (
            "SELECT * FROM usage_events WHERE tenant = 'a' AND started_at_ms >= 5 AND started_at_ms < 9 \
          AND (started_at_ms, event_id) > (5, 'x') ORDER BY started_at_ms, event_id LIMIT 5",
            "SEARCH usage_events USING INDEX usage_events_by_tenant (tenant=? AND started_at_ms>? AND started_at_ms<?)",
        ),
    ] {
        let steps = plan(&connection, query);
        assert!(steps.iter().any(|step| step == sought), "{query}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:?}");
    }
}
