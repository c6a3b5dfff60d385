//! Usage over REST: by time, and by what it was used for.

use serde_json::{Value, json};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::harness::{Folder, Service, event};

const PRICES: &str = "prices:\n  - { model: \"gpt-4o*\", input: 2, output: 10 }\n";

/// 2026-03-20T10:30:00Z
const AT_MS: u64 = 1_774_002_600_000;
const HOUR_MS: u64 = 3_600_000;

fn call(id: &str, model: Option<&str>, at_ms: u64, tokens: u64) -> UsageEvent {
    UsageEvent {
        request_model: model.map(str::to_owned),
        started_at_ms: at_ms,
        usage_source: UsageSource::Reported,
        time_to_first_token_ms: Some(5),
        ..event(id, "acme", tokens, 0)
    }
}

/// Calls of some models on two days.
async fn service(folder: &Folder) -> Service {
    let service = Service::start_with_config(folder, PRICES);
    let failed = UsageEvent { status: 500, ..call("e4", Some("other"), AT_MS + 24 * HOUR_MS, 10) };
    let streamed = UsageEvent {
        streaming: true,
        key: Some("app".into()),
        ..call("e3", Some("gpt-4o-mini"), AT_MS + HOUR_MS, 300)
    };
    let calls = [
        call("e1", Some("gpt-4o"), AT_MS, 100),
        call("e2", Some("gpt-4o"), AT_MS, 50),
        streamed,
        failed,
        call("e5", None, AT_MS + 24 * HOUR_MS, 1),
    ];
    service.export(&calls).await;
    service
}

fn told<'a>(parts: &'a Value, fields: &[&str]) -> Vec<Vec<&'a Value>> {
    parts.as_array().unwrap().iter().map(|part| fields.iter().map(|field| &part[*field]).collect()).collect()
}

#[tokio::test]
async fn a_series_has_every_part_of_the_time() {
    let folder = Folder::new();
    let service = service(&folder).await;
    let path = "/api/v1/usage/acme/series?grain=hour&from=2026-03-20T10:00:00Z&to=2026-03-20T13:00:00Z";
    let (status, series) = service.get(path).await;
    assert_eq!((status.as_u16(), &series["by"]), (200, &json!(null)));
    let expected = [
        json!(["2026-03-20T10:00:00Z", 150, 2, "0.0003"]),
        json!(["2026-03-20T11:00:00Z", 300, 1, "0.0006"]),
        json!(["2026-03-20T12:00:00Z", 0, 0, "0"]),
    ];
    let fields = ["start", "total_tokens", "requests", "cost_usd"];
    assert_eq!(json!(told(&series["points"], &fields)), json!(expected));
    assert_eq!(series["points"][0].get("label"), None);

    let (_, days) = service.get("/api/v1/usage/acme/series?from=2026-03-19&to=2026-03-22").await;
    let tokens: Vec<_> = told(&days["points"], &["total_tokens"]).concat();
    assert_eq!(tokens, [&json!(0), &json!(450), &json!(11)]);
    let (_, months) = service.get("/api/v1/usage/acme/series?grain=month&from=2026-01-01&to=2027-01-01").await;
    let tokens: Vec<_> = told(&months["points"], &["total_tokens"]).concat();
    assert_eq!((tokens.len(), tokens[2]), (12, &json!(461)));
}

#[tokio::test]
async fn a_series_by_a_dimension_has_where_it_was_used() {
    let folder = Folder::new();
    let service = service(&folder).await;
    let by = async |dimension: &str| {
        let path = format!("/api/v1/usage/acme/series?from=2026-03-20&to=2026-03-22&by={dimension}");
        let (_, series) = service.get(&path).await;
        json!(told(&series["points"], &["start", "label", "total_tokens"]))
    };
    let (first, second) = ("2026-03-20T00:00:00Z", "2026-03-21T00:00:00Z");
    let models = json!([[first, "gpt-4o", 150], [first, "gpt-4o-mini", 300], [second, null, 1], [second, "other", 10]]);
    assert_eq!(by("model").await, models);
    assert_eq!(by("status").await, json!([[first, "200", 450], [second, "200", 1], [second, "500", 10]]));
    assert_eq!(by("streaming").await, json!([[first, "false", 150], [first, "true", 300], [second, "false", 11]]));
    assert_eq!(by("key").await, json!([[first, null, 150], [first, "app", 300], [second, null, 11]]));
    assert_eq!(by("tier").await, json!([[first, "small", 450], [second, "small", 11]]));
}

#[tokio::test]
async fn a_breakdown_tells_the_most_used_first() {
    let folder = Folder::new();
    let service = service(&folder).await;
    let (_, breakdown) = service.get("/api/v1/usage/acme/breakdown?by=model&from=2026-03-01&to=2026-04-01").await;
    let fields = ["label", "total_tokens", "share_percent", "requests_without_cost", "success_rate"];
    let expected = json!([
        ["gpt-4o-mini", 300, 65.0759, 0, 1.0],
        ["gpt-4o", 150, 32.538, 0, 1.0],
        ["other", 10, 2.1692, 1, 0.0],
        [null, 1, 0.2169, 1, 1.0],
    ]);
    assert_eq!(json!(told(&breakdown["parts"], &fields)), expected);
    assert_eq!(breakdown["others"], json!(null));
    // Nothing is of this month, unless the test's clock is wrong.
    let (_, breakdown) = service.get("/api/v1/usage/acme/breakdown?by=model&period=day").await;
    assert_eq!(breakdown["parts"], json!([]));
}

#[tokio::test]
async fn the_summary_tells_what_calls_cost_and_how_long_they_took() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, PRICES);
    let calls: Vec<_> = (0..4)
        .map(|at| UsageEvent {
            request_model: Some(if at == 0 { "unknown" } else { "gpt-4o" }.to_owned()),
            duration_ms: 100 * (at + 1),
            time_to_first_token_ms: (at < 2).then_some(20),
            streaming: at < 2,
            usage_source: UsageSource::Reported,
            ..event(&format!("e{at}"), "acme", 1_000, 100)
        })
        .collect();
    service.export(&calls).await;
    let (_, usage) = service.get("/api/v1/usage/acme").await;
    // Three calls, each of a thousand tokens at 2 dollars and a hundred at 10 for a million.
    let expected = [
        ("cost_usd", json!("0.009")),
        ("requests_without_cost", json!(1)),
        ("requests_streaming", json!(2)),
        ("requests_succeeded", json!(4)),
        ("avg_latency_ms", json!(250.0)),
        ("avg_time_to_first_token_ms", json!(20.0)),
        ("last_7_days_tokens", json!(4400)),
        ("limit_used_percent", json!(88.0)),
        ("overage_tokens", json!(0)),
    ];
    for (field, value) in expected {
        assert_eq!(usage[field], value, "{field}");
    }
    let near = |field: &str, exact: u64| {
        let told = usage[field].as_u64().unwrap();
        assert!(told.abs_diff(exact) * 16 <= exact, "{field}: {told}");
    };
    near("p50_latency_ms", 200);
    near("p99_latency_ms", 400);
    near("p95_time_to_first_token_ms", 20);
    let metrics = service.metrics().await;
    for line in [
        "tollgate_tenant_requests_total{tenant=\"acme\"} 4",
        "tollgate_tenant_tokens_total{tenant=\"acme\",type=\"input\"} 4000",
        "gen_ai_client_token_usage_count{gen_ai_operation_name=\"\",gen_ai_provider_name=\"\",gen_ai_request_model=\"gpt-4o\",gen_ai_token_type=\"output\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(metrics.matches("# EOF").count(), 1);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for (path, detail) in [
        ("series?grain=year", "grain: unknown variant `year`, expected one of `hour`, `day`, `month`"),
        ("series?by=tenant", "by: unknown variant `tenant`"),
        ("series?from=monday", "from: `monday` is no moment such as 2026-11-25T10:00:00Z and no day such as"),
        ("series?from=2026-03-02&to=2026-03-02", "to: 2026-03-02T00:00:00Z is not after from, 2026-03-02T00:00:00Z"),
        ("series?grain=hour&from=2026-01-01&to=2026-06-01", "more than 1000 parts"),
        ("breakdown", "missing field `by`"),
        ("breakdown?by=model&period=year", "period: unknown variant `year`"),
        ("tracked?from=2020-01-01&to=2026-01-01", "more than 1000 parts"),
    ] {
        let (status, problem) = service.get(&format!("/api/v1/usage/acme/{path}")).await;
        assert_eq!(status.as_u16(), 400, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {problem}");
    }
}
