//! The tables: their versions, and how long rows live.

use tollgate::entry::{Batch, Entry};
use tollgate::ledger::{ClickHouseLedger, Grain, Ledger, MAX_RETENTION_MONTHS, Page, Series, Usage};
use tollgate::secret::Secret;

use crate::setup::{DAY_MS, START_MS, Setup, TENANTS, append, entries, real};

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let setup = Setup::new().await;
    setup.open().await.close().await;
    setup.clickhouse.query("INSERT INTO ledger_migrations (version) VALUES (99)").unwrap();
    let refusal = setup.refusal(&setup.settings()).await;
    assert!(refusal.contains("of version 99, and this program knows them up to 2"), "{refusal}");
}

#[tokio::test]
async fn a_migration_that_broke_off_is_finished() {
    let setup = Setup::new().await;
    let ledger = setup.open().await;
    append(&ledger, entries(0..10)).await;
    ledger.close().await;
    for undo in ["DROP TABLE tracked_days_view", "TRUNCATE TABLE ledger_migrations", "TRUNCATE TABLE tracked_days"] {
        setup.clickhouse.query(undo).unwrap();
    }
    let ledger = setup.open().await;
    assert_eq!(
        setup.clickhouse.query("SELECT arraySort(groupArray(version)) FROM ledger_migrations").unwrap(),
        "[1,2]"
    );
    append(&ledger, entries(10..20)).await;
    let page = Page { tenant: "acme", from_ms: 0, to_ms: u64::MAX, after: None, limit: 100 };
    let days: u64 = ledger.tracked("acme", 0, u64::MAX).await.unwrap().iter().map(|sum| sum.events).sum();
    let events = ledger.tracked_events(&page).await.unwrap();
    assert_eq!(days, events.iter().filter(|event| event.quantity_micros >= 10 * 500_000).count() as u64);
    assert!(days > 0);
}

#[tokio::test]
async fn tables_from_before_images_were_counted_keep_their_data_and_count_them() {
    let setup = Setup::new().await;
    setup.open().await.close().await;
    // As the version before left it, with one call.
    let sums = ["hours", "days", "months"];
    let views = sums.map(|sums| format!("DROP TABLE usage_{sums}_view"));
    let tables = sums.map(|sums| format!("usage_{sums}")).into_iter().chain(["usage_events".to_owned()]);
    let columns = tables.map(|table| format!("ALTER TABLE {table} DROP COLUMN images"));
    let first = include_str!("../../migrations/clickhouse/0001_ledger.sql");
    let first = first.split_inclusive(";\n").map(|statement| statement.trim_end().trim_end_matches(';').to_owned());
    let version = ["TRUNCATE TABLE ledger_migrations", "INSERT INTO ledger_migrations (version) SELECT 1"];
    let call = format!(
        "INSERT INTO usage_events (event_id, tenant, started_at_ms, status, input_tokens, usage_source, finish, kind, sign) \
         SELECT 'old', 'acme', {START_MS}, 200, 7, 'reported', 'complete', 'real', 1"
    );
    for statement in views.into_iter().chain(columns).chain(first).chain(version.map(String::from)).chain([call]) {
        setup.clickhouse.query(&statement).unwrap();
    }

    let images = async |ledger: &ClickHouseLedger| {
        let mut found = Vec::new();
        for grain in [Grain::Hour, Grain::Day, Grain::Month] {
            let series = Series { tenant: "acme", grain, from_ms: 0, to_ms: u64::MAX, by: None };
            let points = ledger.series(&series).await.unwrap();
            let usage: Usage = points.iter().map(|point| &point.usage).sum();
            found.push((usage.requests, usage.input_tokens, usage.images));
        }
        found
    };
    let ledger = setup.open().await;
    assert_eq!(images(&ledger).await, [(1, 7, 0); 3]);
    let mut drawn = real(0);
    (drawn.event_id, drawn.tokens.images, drawn.tokens.input) = ("new".to_owned(), 3, 0);
    append(&ledger, vec![Entry::Usage(drawn.clone())]).await;
    assert_eq!(images(&ledger).await, [(2, 7, 3); 3]);
    let page = Page { tenant: "acme", from_ms: 0, to_ms: u64::MAX, after: None, limit: 9 };
    let found: Vec<_> = ledger.events(&page).await.unwrap().into_iter().map(|event| event.tokens.images).collect();
    assert_eq!(found, [3, 0], "by their ids");
    assert_eq!(ledger.differences(0, u64::MAX).await.unwrap(), []);
    ledger.close().await;

    // As one that broke off before it was noted.
    setup.clickhouse.query(version[0]).unwrap();
    let ledger = setup.open().await;
    assert_eq!(images(&ledger).await, [(2, 7, 3); 3]);
    assert_eq!(
        setup.clickhouse.query("SELECT arraySort(groupArray(version)) FROM ledger_migrations").unwrap(),
        "[1,2]"
    );
}

#[tokio::test]
async fn a_changed_retention_is_taken_over_and_sums_outlive_entries() {
    let setup = Setup::new().await;
    let mut settings = setup.settings();
    (settings.retention_months, settings.sums_retention_months) = (MAX_RETENTION_MONTHS, MAX_RETENTION_MONTHS);
    let ledger = setup.open_with(&settings).await;
    append(&ledger, entries(0..30)).await;
    let (from_ms, to_ms) = (0, u64::MAX);
    let series = Series { tenant: "acme", grain: Grain::Month, from_ms, to_ms, by: None };
    let before = ledger.series(&series).await.unwrap();
    assert!(before.len() > 1 && before[0].start_ms < START_MS);
    ledger.close().await;
    // All are past one month by now.
    settings.retention_months = 1;
    let ledger = setup.open_with(&settings).await;
    let lifetimes = "SELECT name, extractAll(engine_full, 'toIntervalMonth\\\\((\\\\d+)\\\\)') FROM system.tables \
                     WHERE database = currentDatabase() AND name IN ('usage_events', 'entry_ids') ORDER BY name";
    assert_eq!(setup.clickhouse.query(lifetimes).unwrap(), "entry_ids\t['480']\nusage_events\t['1']");
    setup.clickhouse.query("OPTIMIZE TABLE usage_events FINAL").unwrap();
    assert_eq!(setup.clickhouse.query("SELECT count() FROM usage_events").unwrap(), "0");
    assert_eq!(ledger.series(&series).await.unwrap(), before);
    assert_eq!(ledger.differences(from_ms, to_ms).await.unwrap(), []);
    assert!(!append(&ledger, entries(0..30)).await.contains(&true), "ids are kept as long as sums");
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let setup = Setup::new().await;
    let mut settings = setup.settings();
    settings.password = Secret::new("wr0ng");
    let refusal = setup.refusal(&settings).await;
    assert!(refusal.contains("AUTHENTICATION_FAILED") && !refusal.contains("wr0ng"), "{refusal}");
}

#[tokio::test]
async fn a_batch_of_more_months_than_the_server_likes_is_one_insert() {
    let setup = Setup::new().await;
    let ledger = setup.open().await;
    let far = |number: u64| {
        let mut event = real(number);
        event.started_at_ms = START_MS - number * 31 * DAY_MS;
        Entry::Usage(event)
    };
    let all: Vec<_> = (0..120).map(far).collect();
    assert!(!append(&ledger, all.clone()).await.contains(&false));
    assert!(!ledger.append(Batch::from(all)).await.unwrap().contains(&true));
    assert_eq!(setup.clickhouse.query("SELECT uniqExact(_partition_id) > 100 FROM usage_events").unwrap(), "1");
    let months = Series { tenant: TENANTS[2], grain: Grain::Month, from_ms: 0, to_ms: u64::MAX, by: None };
    assert_eq!(ledger.series(&months).await.unwrap().iter().map(|point| point.usage.requests).sum::<u64>(), 40);
}
