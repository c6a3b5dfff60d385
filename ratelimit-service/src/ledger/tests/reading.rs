//! What a restart reads, and the audit log.

use serde_json::json;
use sqlx::{Executor, Row};

use super::super::sqlite::spent_query;
use super::*;
use crate::audit::{Audit, Entry, Recorded};
use crate::ledger::LedgerError;

fn spent(tenant: &str, tier: &str, model: Option<&str>, usage: Usage) -> Spent {
    let (tenant, tier, model) = (tenant.to_owned(), tier.to_owned(), model.map(str::to_owned));
    Spent { tenant, tier, model, api: Some("openai-chat".to_owned()), usage, refused: 0 }
}

#[tokio::test]
async fn what_was_spent_is_told_by_what_limits_and_prices_depend_on() {
    let opened = Opened::new().await;
    let call = |id: &str, tenant: &str, tier: &str, model: Option<&str>| UsageEvent {
        tenant: tenant.to_owned(),
        tier: tier.to_owned(),
        request_model: model.map(str::to_owned),
        ..real(id)
    };
    let at = |at_ms: u64, event: UsageEvent| UsageEvent { started_at_ms: at_ms, ..event };
    opened
        .append(&[
            at(999, call("too-early", "acme", "pro", Some("a"))),
            at(1000, call("e1", "acme", "pro", Some("a"))),
            at(2000, call("e2", "acme", "pro", Some("a"))),
            at(2000, call("e3", "acme", "pro", None)),
            at(2000, call("e4", "acme", "small", Some("a"))),
            at(2000, call("e5", "zeta", "pro", Some("a"))),
            at(2000, UsageEvent { request_model: Some("a".to_owned()), ..unsettled("e6") }),
            at(2000, unsettled("e7")),
            at(999, unsettled("e8")),
        ])
        .await;
    opened.append(&[at(999, real("e7"))]).await;
    let acme = [
        spent("acme", "pro", None, real_sum()),
        spent("acme", "pro", Some("a"), [real_sum(), real_sum(), unsettled_sum()].into_iter().sum()),
        spent("acme", "small", Some("a"), real_sum()),
    ];
    let all: Vec<_> = acme.iter().cloned().chain([spent("zeta", "pro", Some("a"), real_sum())]).collect();
    assert_eq!(opened.spent_since(1000, None).await, all);
    assert_eq!(opened.spent_since(1000, Some("acme")).await, acme);
    assert_eq!(opened.spent_since(2001, None).await, []);
    assert_eq!(opened.spent_since(u64::MAX, None).await, []);
}

#[tokio::test]
async fn refused_calls_are_told_from_those_that_used_nothing() {
    let opened = Opened::new().await;
    let void = |id: &str, finish, usage_source| UsageEvent {
        finish,
        usage_source,
        tokens: TokenCounts::default(),
        ..real(id)
    };
    opened
        .append(&[
            void("e1", Finish::LocalReply, UsageSource::None),
            void("e2", Finish::UpstreamReset, UsageSource::None),
            void("e3", Finish::LocalReply, UsageSource::Estimated),
            unsettled("e4"),
        ])
        .await;
    let [spent] = &opened.spent_since(0, None).await[..] else { panic!("one tenant") };
    assert_eq!((spent.refused, spent.usage.requests, spent.usage.requests_none), (1, 4, 2));
}

#[tokio::test]
async fn a_restart_reads_nothing_of_the_history_before() {
    let opened = Opened::new().await;
    let mut database = opened.database().await;
    for tenant in [None, Some("acme")] {
        let query = spent_query(1000, tenant);
        let explained = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
        let mut plan = sqlx::query(sqlx::AssertSqlSafe(explained)).bind(1000_i64);
        if let Some(tenant) = tenant {
            plan = plan.bind(tenant);
        }
        let steps = plan.fetch_all(&mut database).await.unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
        for table in ["usage_events", "unsettled_events"] {
            let sought = format!("SEARCH {table} USING INDEX ");
            assert!(
                steps.iter().any(|step| step.starts_with(&sought) && step.contains("started_at_ms>?")),
                "{steps:?}"
            );
            assert!(!steps.iter().any(|step| step.starts_with(&format!("SCAN {table}"))), "{steps:?}");
        }
    }
}

fn audited(at_ms: u64, tenant: Option<&str>) -> Entry {
    Entry {
        at_ms,
        actor: "alice".to_owned(),
        action: "reset".to_owned(),
        tenant: tenant.map(str::to_owned),
        detail: json!({ "reason": "\"quoted\", é", "limits": [1, null] }),
    }
}

#[tokio::test]
async fn audit_entries_are_kept_and_read_newest_first_page_by_page() {
    let opened = Opened::new().await;
    let entries = [audited(5, Some("acme")), audited(3, None), audited(9, Some("zeta")), audited(1, Some("acme"))];
    let mut ids = Vec::new();
    for entry in &entries {
        ids.push(opened.ledger.record(entry.clone()).await.unwrap());
    }
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
    let recorded = |at: usize| Recorded { id: ids[at], entry: entries[at].clone() };
    let read = async |tenant, before, limit| opened.ledger.entries(tenant, before, limit).await.unwrap();
    assert_eq!(read(None, None, 100).await, [recorded(3), recorded(2), recorded(1), recorded(0)]);
    assert_eq!(read(None, None, 2).await, [recorded(3), recorded(2)]);
    assert_eq!(read(None, Some(ids[2]), 2).await, [recorded(1), recorded(0)]);
    assert_eq!(read(Some("acme"), None, 100).await, [recorded(3), recorded(0)]);
    assert_eq!(read(Some("acme"), Some(ids[3]), 100).await, [recorded(0)]);
    assert_eq!(read(Some("acme"), Some(ids[0]), 100).await, []);
    assert_eq!(read(None, Some(u64::MAX), 1).await, [recorded(3)]);
}

#[tokio::test]
async fn audit_entries_outlive_the_process_and_are_never_changed() {
    let opened = Opened::new().await;
    opened.ledger.record(audited(1, Some("acme"))).await.unwrap();
    // Another process reads it while the ledger goes on: it is in the file.
    let mut database = opened.database().await;
    let actor: String = sqlx::query_scalar("SELECT actor FROM audit_log").fetch_one(&mut database).await.unwrap();
    assert_eq!(actor, "alice");
    for statement in ["UPDATE audit_log SET actor = 'mallory'", "DELETE FROM audit_log"] {
        let refused = database.execute(statement).await.unwrap_err();
        assert!(refused.to_string().contains("audit_log is append-only"), "{refused}");
    }
    opened.ledger.close().await;
    let closed = opened.ledger.record(audited(2, None)).await.unwrap_err();
    assert!(matches!(closed, LedgerError::Closed), "{closed}");
}

#[tokio::test]
async fn an_audit_entry_that_cannot_be_kept_is_an_error() {
    let opened = Opened::new().await;
    let mut database = opened.database().await;
    database
        .execute("CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT raise(ABORT, 'no room'); END")
        .await
        .unwrap();
    let failed = opened.ledger.record(audited(1, None)).await.unwrap_err();
    assert!(matches!(&failed, LedgerError::Database(message) if message.contains("no room")), "{failed}");
    assert_eq!(opened.append(&[real("e1")]).await, [real("e1")], "the writer goes on");
}
