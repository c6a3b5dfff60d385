//! Two services as replicas: they share PostgreSQL, and what else the test is about, as in production. Each has its own spool and
//! its own database of what waits for webhooks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use futures_util::future::join_all;
use hyper::Request;
use serde_json::{Value, json};
use tollgate_domain::{Period, Span};
use tollgate_e2e::harness::clickhouse::ClickHouse;
use tollgate_e2e::harness::postgres::Postgres;
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::admission::Decision;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::accounts::{ask, holds, made, put};
use crate::harness::{Answer, Folder, Service, event, now_ms};
use crate::receiver::Receiver;

/// What a replica is configured with, but for what it shares. A dollar for a thousand tokens.
fn config(folder: &Folder, accounts: &str, more: &str) -> String {
    let sqlite = folder.ledger().display().to_string();
    format!(
        "grpc: {{ listen: 127.0.0.1:0 }}\nrest: {{ listen: 127.0.0.1:0 }}\nlog: {{ format: json }}\n\
         prices: [{{ model: m, input: 1000, output: 1000 }}]\n\
         accounts: {accounts}\nledger:\n  sqlite: {sqlite}\n{more}\n"
    )
}

fn in_postgres(url: &str) -> String {
    format!("{{ postgres: {{ url: '{url}' }} }}")
}

fn start(folder: &Folder, config: &str) -> Service {
    Service::start_with(&folder.write("config.yaml", config))
}

fn requests(capacity: u64) -> Value {
    json!({ "context_tokens": 5000, "limits": [{ "unit": "requests", "capacity": capacity, "window": "day" }] })
}

#[tokio::test]
async fn a_change_through_one_replica_holds_on_the_other() {
    const CALL_NANOUSD: u64 = 1_000_000;
    let (postgres, folders) = (Postgres::start().await.unwrap(), [Folder::new(), Folder::new()]);
    let url = postgres.database("accounts").await.unwrap();
    let redis = Redis::start(&folders[0].path("")).await.unwrap();
    let counters = format!("counters: {{ engine: redis, redis: {{ url: '{}', timeout_ms: 10000 }} }}", redis.url());
    let [one, two] = folders.each_ref().map(|folder| start(folder, &config(folder, &in_postgres(&url), &counters)));

    // A plan, which the other has to know for a tenant to be on it.
    made(&one, "/api/v1/plans/gold", requests(1000)).await;
    let tenant = json!({ "tier": "gold" });
    eventually("the plan is known there", PATIENCE, async || {
        let answer = put(&two, "/api/v1/tenants/acme", None, &tenant).await;
        ensure!(answer.status == 201, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    let is = |capacity: u64| move |limits: &Value| limits["limits"][0]["capacity"] == capacity;
    holds(&one, "acme", is(1000)).await;
    assert_eq!(put(&two, "/api/v1/plans/gold", Some("1"), &requests(2000)).await.status, 200);
    for service in [&one, &two] {
        holds(service, "acme", is(2000)).await;
    }
    assert_eq!(put(&one, "/api/v1/plans/gold", Some("1"), &requests(1)).await.status, 412, "it was changed there");

    // A key.
    let key = one.post("/api/v1/keys", json!({ "name": "reports" }).to_string()).await.json();
    let shown = async |service: &Service| {
        let authorization = format!("Bearer {}", key["key"].as_str().unwrap());
        let request = Request::get("/api/v1/usage/acme").header("authorization", authorization);
        service.http(request.body(String::new()).unwrap()).await.status.as_u16()
    };
    assert_eq!([shown(&one).await, shown(&two).await], [200, 200]);
    let revoked = two.post(&format!("/api/v1/keys/{}/revoke", key["id"].as_str().unwrap()), "").await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    eventually("the key is refused", PATIENCE, async || {
        ensure!([shown(&one).await, shown(&two).await] == [401, 401], "it is not yet");
        Ok(())
    })
    .await
    .unwrap();

    // A budget, which calls by both have together.
    let budget = json!({ "tenant": "acme", "amount_nanousd": 10 * CALL_NANOUSD + 1, "enforcement": "hard" });
    made(&one, "/api/v1/budgets/acme-monthly", budget).await;
    for service in [&one, &two] {
        let limits_cost = |limits: &Value| limits["limits"].to_string().contains("cost_per_month");
        holds(service, "acme", limits_cost).await;
    }
    let ids: Vec<_> = (0..40).map(|call| format!("call-{call}")).collect();
    let calls = ids.iter().enumerate().map(|(at, id)| ask(if at % 2 == 0 { &one } else { &two }, "acme", id, 1));
    let answers = join_all(calls).await;
    let admitted = answers.iter().filter(|answer| answer.decision == Decision::Admitted).count();
    assert_eq!(admitted, 10, "each call reserves a tenth of the budget");

    // A suspension.
    let suspended = json!({ "tier": "gold", "status": "suspended" });
    assert_eq!(put(&two, "/api/v1/tenants/acme", Some("1"), &suspended).await.status, 200);
    for (service, id) in [(&one, "last-1"), (&two, "last-2")] {
        eventually("the suspension holds", PATIENCE, async || {
            let answer = ask(service, "acme", id, 1).await;
            ensure!(answer.is_suspended(), "{answer:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The first day of the month that is so many before this one, as an invoice's id and its request name it.
fn month_before(months: u32) -> (u64, i64, i64) {
    let mut first_ms = Period::around(Span::Month, now_ms()).first.start_ms();
    for _ in 0..months {
        first_ms = Period::around(Span::Month, first_ms - 1).first.start_ms();
    }
    let name = Period::around(Span::Month, first_ms).first.to_string();
    (first_ms, name[..4].parse().unwrap(), name[5..7].parse().unwrap())
}

fn call(tenant: &str, at_ms: u64, input: u64) -> UsageEvent {
    UsageEvent {
        started_at_ms: at_ms,
        request_model: Some("m".to_owned()),
        usage_source: UsageSource::Reported,
        ..event(&format!("call-{tenant}"), tenant, input, 0)
    }
}

/// All invoices that a replica sees: by tenant, each with its status and total.
async fn invoices(service: &Service) -> BTreeMap<String, Vec<(String, String)>> {
    let (status, page) = service.get("/api/v1/invoices").await;
    assert_eq!(status, 200, "{page}");
    let mut invoices = BTreeMap::<_, Vec<_>>::new();
    for item in page["items"].as_array().unwrap() {
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        invoices.entry(text("tenant_id")).or_default().push((text("status"), text("total")));
    }
    invoices
}

#[tokio::test]
async fn replicas_close_each_month_once() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (postgres, receiver) = (Postgres::start().await.unwrap(), Receiver::start().await);
    let url = postgres.database("accounts").await.unwrap();
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    // One ledger for all: an invoice is made of all that was used.
    let clickhouse = ClickHouse::start(&folders[0].path("")).await.unwrap();
    let (at, database, user) = (clickhouse.url(), clickhouse.database(), clickhouse.user());
    let password = folders[0].write("password", clickhouse.password()).display().to_string();
    let ledger =
        format!("  clickhouse: {{ url: '{at}', database: {database}, user: '{user}', password_file: {password} }}\n");

    // Usage of months that are over. The scheduler looks at two of them; earlier ones are closed by hand.
    let ((last_ms, ..), (long_ago_ms, year, month)) = (month_before(1), month_before(6));
    let [scheduled, by_hand]: [Vec<_>; 2] =
        ["auto", "hand"].map(|kind| (1..=4).map(|n| format!("{kind}-{n}")).collect());
    let (of_scheduled, of_hand) = (scheduled.iter().zip(1..), by_hand.iter().zip(1..));
    let events: Vec<_> = of_scheduled
        .map(|(tenant, dollars)| call(tenant, last_ms, dollars * 1000))
        .chain(of_hand.map(|(tenant, dollars)| call(tenant, long_ago_ms, dollars * 1000)))
        .collect();
    // By a service with accounts of its own, which bills nobody here.
    let accounts = format!("{{ sqlite: {} }}", folders[2].path("own.db").display());
    let before = start(&folders[2], &config(&folders[2], &accounts, &ledger));
    before.export(&events).await;
    assert!(before.terminate().await.success());

    let webhook = format!("{{ url: '{}', secret: {SECRET}, allow_private_addresses: true }}", receiver.url);
    let more = format!("{ledger}billing: {{ auto_finalise: true, grace_h: 0 }}\nwebhooks: [{webhook}]");
    let configs = [0, 1].map(|at| config(&folders[at], &in_postgres(&url), &more));
    let [one, two] = [0, 1].map(|at| start(&folders[at], &configs[at]));
    let both = [&one, &two];
    // Everybody at once, by both.
    let request = |tenant: &str| json!({ "tenant_id": tenant, "year": year, "month": month }).to_string();
    let number = format!("{year:04}-{month:02}");
    for tenant in &by_hand {
        let generate = async |service: &Service| service.post("/api/v1/invoices/generate", request(tenant)).await;
        let drafted = join_all((0..6).map(|at| generate(both[at % 2]))).await;
        assert!(drafted.iter().all(|answer| matches!(answer.status.as_u16(), 200 | 409)), "{drafted:?}");
        assert!(drafted.iter().any(|answer| answer.status == 200), "{drafted:?}");
        let path = format!("/api/v1/invoices/{tenant}-{number}/finalise");
        let finalised: Vec<Answer> = join_all((0..6).map(|at| both[at % 2].post(&path, ""))).await;
        let made = finalised.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(made, 1, "{finalised:?}");
    }
    let expected: BTreeMap<_, _> = scheduled
        .iter()
        .zip(1..)
        .chain(by_hand.iter().zip(1..))
        .map(|(tenant, dollars)| (tenant.clone(), vec![("final".to_owned(), format!("{dollars}.00"))]))
        .collect();
    for service in both {
        eventually("all months are closed", PATIENCE, async || {
            let found = invoices(service).await;
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    let sum = async |metric: &str| {
        let mut sum = 0;
        for service in both {
            let metrics = service.metrics().await;
            sum += metrics.lines().find_map(|line| line.strip_prefix(metric)).unwrap().trim().parse::<u64>().unwrap();
        }
        sum
    };
    eventually("one of them has gone through all", PATIENCE, async || {
        ensure!(sum("tollgate_billing_runs_total").await == 1, "it has not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(sum("tollgate_billing_invoices_finalised_total").await, 8, "each was closed by one");
    let got = receiver.wait_for(16).await;
    let told: BTreeSet<_> =
        got.iter().map(|one| (one.kind(), one.body["data"]["tenant_id"].as_str().unwrap())).collect();
    let ids: BTreeSet<_> = got.iter().map(|one| &one.id).collect();
    assert_eq!((told.len(), ids.len()), (16, 16), "each is drafted once and closed once; copies have one id: {got:?}");
}

#[tokio::test]
async fn admission_goes_on_while_postgresql_is_away_and_changes_hold_once_it_is_back() {
    let (mut postgres, folder) = (Postgres::start().await.unwrap(), Folder::new());
    let url = postgres.database("accounts").await.unwrap();
    let service = start(&folder, &config(&folder, &in_postgres(&url), ""));
    made(&service, "/api/v1/plans/gold", requests(3)).await;
    eventually("the plan is known", PATIENCE, async || {
        let answer = put(&service, "/api/v1/tenants/acme", None, &json!({ "tier": "gold" })).await;
        ensure!(answer.status == 201, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    holds(&service, "acme", |limits| limits["plan_tier"] == "gold").await;

    postgres.end().await.unwrap();
    let refused = put(&service, "/api/v1/tenants/bolt", None, &json!({})).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.content_type.as_deref(), Some("application/problem+json"));
    assert_eq!(service.get("/api/v1/tenants/acme").await.0, 503);
    // By its copy, which is the plan's and not the default one's.
    let mut decisions = Vec::new();
    for id in ["one", "two", "three", "four"] {
        decisions.push(ask(&service, "acme", id, 1).await.decision);
    }
    assert_eq!(decisions[..3], [Decision::Admitted; 3]);
    assert_ne!(decisions[3], Decision::Admitted, "it still knows the plan's limit");
    service.export(&[event("one", "acme", 5, 1)]).await;
    assert_eq!(service.get("/api/v1/usage/acme").await.1["requests"], 1, "usage is counted meanwhile");
    assert_eq!(service.get("/health").await.0, 200);

    postgres.start_again().await.unwrap();
    eventually("a change is made", PATIENCE, async || {
        let answer = put(&service, "/api/v1/plans/gold", Some("1"), &requests(5)).await;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    holds(&service, "acme", |limits| limits["limits"][0]["capacity"] == 5).await;
    assert_eq!(ask(&service, "acme", "five", 1).await.decision, Decision::Admitted);
}
