//! More than one at the same ledger.

use tollgate::entry::Batch;
use tollgate::ledger::{ClickHouseLedger, Difference, Ledger};

use crate::setup::{DAY_MS, START_MS, Setup, append, assert_holds, entries};

#[tokio::test]
async fn beside_the_service_it_is_read_and_purged_and_not_appended_to() {
    let setup = Setup::new().await;
    let none = ClickHouseLedger::connect(&setup.settings()).await.err().unwrap().to_string();
    assert!(none.contains("has no ledger"), "{none}");
    let ledger = setup.open().await;
    append(&ledger, entries(0..30)).await;
    let beside = ClickHouseLedger::connect(&setup.settings()).await.unwrap();
    assert_holds(&beside, 0..30).await;
    let error = beside.append(Batch::from(entries(30..40))).await.unwrap_err().to_string();
    assert!(error.contains("opened beside the service"), "{error}");
    assert_holds(&ledger, 0..30).await;
    for tenant in ledger.tenants(0, START_MS + 400 * DAY_MS).await.unwrap() {
        assert!(beside.purge(&tenant).await.unwrap() > 0, "{tenant}");
    }
    assert_holds(&ledger, 0..0).await;
    // What is erased is not known of.
    assert!(!append(&ledger, entries(0..30)).await.contains(&false));
    assert_holds(&ledger, 0..30).await;
}

/// Two services look an id up before either has stored it.
#[tokio::test]
async fn what_two_services_stored_at_a_time_is_found() {
    let setup = Setup::new().await;
    let ledger = setup.open().await;
    append(&ledger, entries(0..30)).await;
    for (table, id) in [("usage_events", "event_id = 'call-3'"), ("tracked_events", "id = 'event-0'")] {
        setup.clickhouse.query(&format!("INSERT INTO {table} SELECT * FROM {table} WHERE {id}")).unwrap();
    }
    let found = ledger.differences(0, START_MS + 400 * DAY_MS).await.unwrap();
    let twice = Difference {
        tenant: "acme".to_owned(),
        place: "entries".to_owned(),
        sum: "repeated".to_owned(),
        entries: 4,
        sums: 2,
    };
    assert_eq!(found, [twice]);
    let forget = "ALTER TABLE entry_ids DELETE WHERE id = 'call-4' SETTINGS mutations_sync = 2";
    setup.clickhouse.query(forget).unwrap();
    let found = ledger.differences(0, START_MS + 400 * DAY_MS).await.unwrap();
    let unknown: Vec<_> = found.iter().filter(|one| one.sum == "ids").collect();
    assert_eq!(unknown.iter().map(|one| one.entries - one.sums).collect::<Vec<_>>(), [1], "{found:?}");
}

#[tokio::test]
async fn sums_that_differ_are_found() {
    let setup = Setup::new().await;
    let ledger = setup.open().await;
    append(&ledger, entries(0..30)).await;
    let change = "ALTER TABLE usage_days DELETE WHERE tenant = 'globex' SETTINGS mutations_sync = 2";
    setup.clickhouse.query(change).unwrap();
    for ledger in [&ledger, &ClickHouseLedger::connect(&setup.settings()).await.unwrap()] {
        let found = ledger.differences(0, START_MS + 400 * DAY_MS).await.unwrap();
        assert!(found.iter().all(|one| (one.tenant.as_str(), one.place.as_str()) == ("globex", "day")), "{found:?}");
        let requests: Vec<_> = found.iter().filter(|one| one.sum == "requests").collect();
        assert_eq!(requests.iter().map(|one| one.entries).sum::<u128>(), 10, "{found:?}");
        assert!(requests.iter().all(|one| one.sums == 0), "{found:?}");
    }
}
