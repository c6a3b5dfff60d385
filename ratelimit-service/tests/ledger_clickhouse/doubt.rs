//! Inserts of which we do not hear whether they succeeded.

use tollgate::entry::Batch;
use tollgate::ledger::{ClickHouseLedger, Ledger, LedgerError};
use tollgate::metrics::Metrics;

use crate::proxy::{Fault, Proxy};
use crate::setup::{Setup, append, assert_holds, entries, estimates};

/// Within the head of an insert's request, within its rows, and after its end.
const FAULTS: [Fault; 4] =
    [Fault::CutRequest(200), Fault::CutRequest(3_000), Fault::CutRequest(9_000), Fault::CutAnswer];

#[tokio::test]
async fn what_is_appended_again_counts_once_and_is_told_of_as_new() {
    for fault in FAULTS {
        let setup = Setup::new().await;
        let proxy = Proxy::start(setup.clickhouse.addr()).await;
        let mut settings = setup.settings();
        settings.url = proxy.url();
        let (metrics, _) = Metrics::new();
        let ledger = ClickHouseLedger::open(&settings, &setup.state(), &metrics).await.unwrap();
        append(&ledger, estimates(0..90)).await;
        // The second is met when the first is made again.
        proxy.inject(&[Fault::CutAnswer, fault]);
        for _ in 0..2 {
            let failed = ledger.append(Batch::from(entries(0..90))).await.unwrap_err();
            assert!(matches!(&failed, LedgerError::Database(text) if text.contains("ClickHouse")), "{failed}");
            assert!(setup.intent().exists());
        }
        assert_eq!((proxy.pending(), metrics.ledger_inserts_in_doubt.get()), (0, 1), "{fault:?}");
        // Regrouped: the first part alone makes it known of both.
        let mut all = entries(0..90);
        let rest = all.split_off(40);
        assert!(!append(&ledger, all).await.contains(&false), "{fault:?}");
        assert!(!append(&ledger, rest).await.contains(&false), "{fault:?}");
        assert!(!setup.intent().exists());
        assert!(!append(&ledger, entries(0..90)).await.contains(&true), "{fault:?}");
        assert_holds(&ledger, 0..90).await;
    }
}

#[tokio::test]
async fn what_was_under_way_when_we_died_is_finished_at_the_next_start() {
    for fault in FAULTS {
        let setup = Setup::new().await;
        let proxy = Proxy::start(setup.clickhouse.addr()).await;
        let mut settings = setup.settings();
        settings.url = proxy.url();
        let ledger = setup.open_with(&settings).await;
        append(&ledger, estimates(0..90)).await;
        proxy.inject(&[fault]);
        ledger.append(Batch::from(entries(0..90))).await.unwrap_err();
        drop(ledger);
        let ledger = setup.open().await;
        assert_holds(&ledger, 0..90).await;
        assert!(!append(&ledger, entries(0..90)).await.contains(&false), "{fault:?}");
        assert!(!append(&ledger, entries(0..90)).await.contains(&true), "{fault:?}");
        assert_holds(&ledger, 0..90).await;
    }
}

/// As a server leaves it that was killed between a part's rename and the note of its token, or before its views were served.
#[tokio::test]
async fn what_a_server_kept_in_part_or_twice_is_made_whole() {
    let of_insert = "kind != 'unsettled' AND toUInt32(substring(event_id, 6)) < 60";
    let twice = format!("INSERT INTO usage_events SELECT * FROM usage_events WHERE tenant = 'acme' AND {of_insert}");
    let lost =
        |table: &str, which: &str| format!("ALTER TABLE {table} DELETE WHERE {which} SETTINGS mutations_sync = 2");
    let ids = "kind = 'real' AND toUInt32(substring(id, 6)) < 60";
    for damages in [
        vec![twice.clone()],
        vec![
            "INSERT INTO tracked_events SELECT * FROM tracked_events WHERE toUInt32(substring(id, 7)) < 60".to_owned(),
        ],
        vec![lost("usage_events", of_insert)],
        vec![lost("entry_ids", ids)],
        vec![lost("usage_days", "tenant = 'acme'")],
        vec!["INSERT INTO usage_months SELECT * FROM usage_months".to_owned()],
        vec!["TRUNCATE TABLE tracked_days".to_owned(), "TRUNCATE TABLE usage_hours".to_owned(), twice.clone()],
    ] {
        let setup = Setup::new().await;
        let proxy = Proxy::start(setup.clickhouse.addr()).await;
        let mut settings = setup.settings();
        settings.url = proxy.url();
        let ledger = setup.open_with(&settings).await;
        append(&ledger, estimates(0..60)).await;
        append(&ledger, entries(60..90)).await;
        // The insert into the second table is made, and not heard of.
        proxy.inject(&[Fault::CutAnswer, Fault::CutRequest(usize::MAX)]);
        ledger.append(Batch::from(entries(0..60))).await.unwrap_err();
        for damage in &damages {
            setup.clickhouse.query(damage).unwrap();
        }
        assert!(!append(&ledger, entries(0..60)).await.contains(&false), "{damages:?}");
        assert_holds(&ledger, 0..90).await;
        assert!(!setup.intent().exists());
    }
}
