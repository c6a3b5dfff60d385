//! What comes in beside the filter's events: OTLP over HTTP, other billable events, and entries that are brought again.

use hyper::Request;
use serde_json::{Value, json};
use tollgate::entry::{Entry, EntryRecord};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource};

use crate::harness::{Answer, Folder, Service, event, now_ms};

/// An export of one call, by a resource.
fn export(resource: Value, attributes: &[(&str, Value)]) -> String {
    let pair = |(key, value): &(&str, Value)| json!({"key": key, "value": value});
    let record = json!({
        "observedTimeUnixNano": (now_ms() * 1_000_000).to_string(),
        "eventName": "gen_ai.client.inference.operation.details",
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "attributes": attributes.iter().map(pair).collect::<Vec<_>>(),
    });
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}).to_string()
}

#[tokio::test]
async fn an_instrumentations_calls_are_counted_once_for_the_tenant_of_its_resource() {
    let folder = Folder::new();
    let rejected = folder.path("letters/rejected.jsonl");
    let more = format!(
        "collector: {{ tenant_attributes: [customer.id], dead_letters: {{ file: {}, max_mib: 1 }} }}\n",
        rejected.display()
    );
    let service = Service::start_with_config(&folder, &more);
    let resource = json!({"attributes": [{"key": "customer.id", "value": {"stringValue": "acme"}}]});
    let attributes = [
        ("gen_ai.system", json!({"stringValue": "openai"})),
        ("gen_ai.request.model", json!({"stringValue": "gpt-4o"})),
        ("gen_ai.usage.prompt_tokens", json!({"intValue": "70"})),
        ("gen_ai.usage.completion_tokens", json!({"intValue": 30})),
        ("gen_ai.prompt", json!({"stringValue": "a secret"})),
    ];
    for _ in 0..2 {
        let answer = service.post("/v1/logs", export(resource.clone(), &attributes)).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
    }
    service.drained().await;
    let (_, usage) = service.get("/api/v1/usage/acme").await;
    assert_eq!(
        (&usage["requests"], &usage["total_tokens"], &usage["success_rate"]),
        (&json!(1), &json!(100), &json!(1.0))
    );
    assert_eq!(usage["requests_by_usage_source"]["reported"], 1);

    let nobody = service.post("/v1/logs", export(json!({}), &attributes)).await;
    assert_eq!(nobody.json()["partialSuccess"]["errorMessage"], "record 0: tollgate.tenant is missing or empty");
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_usage_records_rejected_total{reason=\"missing\"} 1"), "{metrics}");
    assert!(service.terminate().await.success());
    let letter: Value = serde_json::from_str(&std::fs::read_to_string(rejected).unwrap()).unwrap();
    assert_eq!(
        (&letter["class"], &letter["attributes"]["gen_ai.provider.name"]),
        (&json!("missing"), &json!("openai"))
    );
    assert!(!letter.to_string().contains("secret"));
}

async fn track(service: &Service, key: Option<&str>, body: impl ToString) -> Answer {
    let request = Request::post("/api/v1/track").header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    service.http(request.body(body.to_string()).unwrap()).await
}

#[tokio::test]
async fn other_events_are_kept_once_and_summed_exactly() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let search = json!({
        "tenant_id": "tenant_acme", "event_type": "query", "quantity": 1, "metadata": {"endpoint": "/api/search"}
    });
    for key in ["k1", "\"k1\"", "k2"] {
        let answer = track(&service, Some(key), &search).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({"ids": [key.trim_matches('"')]})));
    }
    let answer = track(&service, None, &search).await;
    let id = answer.json()["ids"][0].as_str().unwrap().to_owned();
    assert_eq!((answer.status.as_u16(), id.len(), &id[14..15]), (202, 36, "7"), "a UUIDv7");

    let stored = |id: &str, quantity: Value| json!({"tenant_id": "tenant_acme", "event_type": "storage_gb", "quantity": quantity, "id": id});
    let many = json!([stored("s1", json!("0.1")), stored("s2", json!("0.200000")), stored("s1", json!(9)), search]);
    let answer = track(&service, Some("batch"), many).await;
    assert_eq!(answer.json(), json!({"ids": ["s1", "s2", "s1", "batch:3"]}));
    let other = r#"{"tenant_id":"other","event_type":"storage_gb","quantity":123456789.000001,"id":"s1"}"#;
    assert_eq!(track(&service, None, other).await.status, 202);
    service.drained().await;

    let (_, tracked) = service.get("/api/v1/usage/tenant_acme/tracked").await;
    let totals = json!([
        {"event_type": "query", "events": 4, "quantity": "4"},
        {"event_type": "storage_gb", "events": 2, "quantity": "0.3"},
    ]);
    assert_eq!(tracked["totals"], totals);
    assert_eq!(tracked["days"].as_array().unwrap().len(), 2);
    let (_, tracked) = service.get("/api/v1/usage/other/tracked?period=day").await;
    assert_eq!(tracked["totals"][0]["quantity"], "123456789.000001");
    let (_, tracked) = service.get("/api/v1/usage/other/tracked?from=2020-01-01&to=2020-01-02").await;
    assert_eq!((&tracked["totals"], &tracked["days"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn what_is_wrong_with_an_event_is_named_and_nothing_is_kept() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let fine = json!({"tenant_id": "a", "event_type": "q", "quantity": 1});
    let with = |field: &str, value: Value| {
        let mut event = fine.clone();
        event[field] = value;
        event.to_string()
    };
    let cases = [
        ("{".to_owned(), 400, "EOF while parsing"),
        ("[]".to_owned(), 400, "0 events; 1 to 1000 are taken at once"),
        (with("price", json!(1)), 422, "unknown field `price`"),
        (json!({"tenant_id": "a", "event_type": "q"}).to_string(), 422, "missing field `quantity`"),
        (with("tenant_id", json!(5)), 422, "tenant_id: invalid type: integer `5`"),
        (with("quantity", json!(-1)), 400, "quantity: is no number from 0 to 1000000000 with at most 6 decimals"),
        (with("quantity", json!("0.0000001")), 400, "quantity: is no number"),
        (with("id", json!("other")), 400, "id: is not what idempotency-key says"),
        (with("timestamp", json!("2999-01-01T00:00:00Z")), 400, "timestamp: is more than a day ahead"),
        (format!("[{fine},{}]", with("metadata", json!("x"))), 400, "[1].metadata: is no object"),
        (format!("[{fine},{}]", with("id", json!(1))), 422, "[1].id: invalid type: integer `1`"),
        (json!(vec![&fine; 1001]).to_string(), 400, "1001 events; 1 to 1000 are taken at once"),
        (" ".repeat((4 << 20) + 1), 413, "length limit exceeded"),
    ];
    for (body, status, detail) in cases {
        let answer = track(&service, Some("key"), &body).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{answer:?}");
    }
    let plain = Request::post("/api/v1/track").body(fine.to_string()).unwrap();
    assert_eq!(service.http(plain).await.status, 415);
    let answer = track(&service, Some(""), &fine).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    service.drained().await;
    assert_eq!(service.get("/api/v1/usage/a/tracked").await.1["totals"], json!([]));
}

#[tokio::test]
async fn entries_are_brought_again_as_they_were_and_all_or_none() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let priced = UsageEvent {
        cost_nanousd: Some(1_500_000_000),
        usage_source: UsageSource::Reported,
        ..event("e1", "acme", 10, 0)
    };
    let unsettled = UsageEvent { usage_source: UsageSource::Unsettled, ..event("e2", "acme", 5, 0) };
    let tracked = r#"{"type":"tracked","id":"t1","tenant":"acme","event_type":"q","at_ms":AT,"quantity_micros":1500000,"metadata":"{}"}"#;
    let tracked = tracked.replace("AT", &now_ms().to_string());
    let line = |event: &UsageEvent| serde_json::to_string(&EntryRecord::from(&Entry::Usage(event.clone()))).unwrap();
    let lines = [line(&priced), String::new(), line(&unsettled), tracked.clone()];
    let bring = async |lines: &[String]| {
        let request = Request::post("/api/v1/admin/events").header("content-type", "application/x-ndjson");
        service.http(request.header("x-tollgate-actor", "ada").body(lines.join("\n")).unwrap()).await
    };
    for _ in 0..2 {
        let answer = bring(&lines).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"entries": 3})));
    }
    service.drained().await;
    let (_, usage) = service.get("/api/v1/usage/acme").await;
    assert_eq!((&usage["requests"], &usage["cost_usd"]), (&json!(2), &json!("1.5")));
    assert_eq!(usage["requests_by_usage_source"]["unsettled"], 1);
    assert_eq!(service.get("/api/v1/usage/acme/tracked").await.1["totals"][0]["quantity"], "1.5");
    let (_, log) = service.get("/api/v1/admin/audit").await;
    let entry = &log["entries"][0];
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("replay"), &json!("ada")));
    assert_eq!((&entry["detail"], log["entries"].as_array().unwrap().len()), (&json!({"entries": 3}), 2));

    let new = event("e3", "acme", 100, 0);
    let long = UsageEvent { tier: "x".repeat(257), ..new.clone() };
    let far = UsageEvent { started_at_ms: now_ms() + 2 * 86_400_000, ..new.clone() };
    let counted = UsageEvent { tokens: TokenCounts::default(), ..event("", "acme", 0, 0) };
    for (bad, detail) in [
        ("{".to_owned(), "line 3: EOF while parsing"),
        (r#"{"type":"usage","evnt_id":"x"}"#.to_owned(), "line 3: unknown field `evnt_id`"),
        (r#"{"type":"other"}"#.to_owned(), "line 3: unknown variant `other`"),
        (line(&counted), "line 3: event_id: is missing or empty"),
        (line(&long), "line 3: tier: is longer than 256 bytes"),
        (line(&far), "line 3: is more than a day ahead of the clock here"),
        (tracked.replace("{}", "[]"), "line 3: metadata: is no JSON object"),
    ] {
        let answer = bring(&[line(&new), String::new(), bad]).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(detail), "{detail}: {answer:?}");
    }
    service.drained().await;
    assert_eq!(service.get("/api/v1/usage/acme").await.1["requests"], 2, "of none of these a line was taken");
}
