//! Usage, limits and checks over REST.

use hyper::Request;
use serde_json::{Value, json};
use tollgate_wire::admission::{AdmissionRequest, RESERVATION_ID_METADATA};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use crate::harness::{Answer, Folder, Service, event, now_ms};

async fn check(service: &Service, question: Value) -> Answer {
    service.post("/api/v1/usage/check", question.to_string()).await
}

#[tokio::test]
async fn usage_is_the_sum_of_a_tenants_calls() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let tokens = TokenCounts {
        input: 1000,
        output: 500,
        cache_read: 30,
        cache_creation: 20,
        cache_creation_5m: 11,
        cache_creation_1h: 12,
        reasoning: 10,
        audio_input: 13,
        audio_output: 14,
        extra_input: 15,
        extra_output: 16,
        billed_input: 17,
        billed_output: 18,
        tool_requests: 19,
        images: 20,
    };
    let usage_source = UsageSource::Reported;
    let begun = UsageEvent { tokens, usage_source, duration_ms: 100, ..event("e1", "acme", 0, 0) };
    let usage_source = UsageSource::Partial;
    let client_gone =
        UsageEvent { finish: Finish::ClientGone, usage_source, duration_ms: 50, ..event("e2", "acme", 1, 1) };
    let broken = UsageEvent { finish: Finish::UpstreamReset, duration_ms: 0, ..event("e3", "acme", 1, 1) };
    let failed = UsageEvent { status: 500, tier: "large".into(), duration_ms: 0, ..event("e4", "acme", 0, 0) };
    service.export(&[begun, client_gone, broken, failed, event("e5", "other", 7, 7)]).await;

    let (status, usage) = service.get("/api/v1/usage/acme?period=day").await;
    assert_eq!(status.as_u16(), 200);
    for (field, value) in [
        ("tenant_id", json!("acme")),
        ("period", json!("day")),
        ("plan_tier", json!("large")),
        ("requests", json!(4)),
        ("input_tokens", json!(1002)),
        ("output_tokens", json!(502)),
        ("total_tokens", json!(1504)),
        ("cache_read_tokens", json!(30)),
        ("cache_creation_tokens", json!(20)),
        ("cache_creation_5m_tokens", json!(11)),
        ("cache_creation_1h_tokens", json!(12)),
        ("reasoning_tokens", json!(10)),
        ("audio_input_tokens", json!(13)),
        ("audio_output_tokens", json!(14)),
        ("extra_input_tokens", json!(15)),
        ("extra_output_tokens", json!(16)),
        ("billed_input_tokens", json!(17)),
        ("billed_output_tokens", json!(18)),
        ("tool_requests", json!(19)),
        ("images", json!(20)),
        ("requests_by_usage_source", json!({"reported": 1, "partial": 1, "estimated": 0, "unsettled": 0, "none": 2})),
        ("avg_latency_ms", json!(37.5)),
        ("success_rate", json!(0.5)),
        ("last_7_days_tokens", json!(1504)),
        ("last_30_days_tokens", json!(1504)),
        ("token_limit", json!(20000)),
        // With the passes that the totals leave out: 1535 of 20000.
        ("limit_used_percent", json!(7.675)),
        ("overage_tokens", json!(0)),
    ] {
        assert_eq!(usage[field], value, "{field}");
    }
    let start = usage["period_start"].as_str().unwrap();
    let start: jiff::Timestamp = start.parse().unwrap();
    let end: jiff::Timestamp = usage["period_end"].as_str().unwrap().parse().unwrap();
    assert_eq!(end.as_millisecond() - start.as_millisecond(), 86_400_000);
    assert!(start.as_millisecond() as u64 <= now_ms());
}

#[tokio::test]
async fn a_tenant_never_seen_has_used_nothing() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let (status, usage) = service.get("/api/v1/usage/nobody%2Fhere").await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!((&usage["tenant_id"], &usage["plan_tier"]), (&json!("nobody/here"), &json!("small")));
    assert_eq!((&usage["total_tokens"], &usage["success_rate"]), (&json!(0), &json!(0.0)));
    let (_, daily) = service.get("/api/v1/usage/nobody/daily").await;
    let days = daily["days"].as_array().unwrap();
    assert_eq!(days.len(), 30);
    assert!(days.is_sorted_by_key(|day| day["date"].as_str()));
    assert!(days.iter().all(|day| day["requests"] == 0));
}

#[tokio::test]
async fn limits_tell_what_is_left() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    service.export(&[event("e1", "acme", 6000, 1)]).await;
    let (_, standings) = service.get("/api/v1/usage/acme/limit").await;
    assert_eq!((&standings["plan_tier"], &standings["context_tokens"]), (&json!("small"), &json!(100)));
    let month = &standings["limits"][2];
    let expected = json!({
        "name": "tokens_per_month", "unit": "tokens", "window": "month", "capacity": 5000, "used": 6001, "remaining": 0,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&month[field], value, "{field}");
    }
    let reset: jiff::Timestamp = month["reset_at"].as_str().unwrap().parse().unwrap();
    assert!(reset.as_millisecond() as u64 > now_ms());
    let (_, usage) = service.get("/api/v1/usage/acme").await;
    assert_eq!((&usage["overage_tokens"], &usage["limit_used_percent"]), (&json!(1001), &json!(120.02)));
    let (_, standings) = service.get("/api/v1/usage/acme/limit?plan_tier=large").await;
    assert_eq!(standings["limits"][1]["remaining"], 13_999);
}

#[tokio::test]
async fn usage_stands_against_the_month_as_its_limit_counts_it() {
    let folder = Folder::new();
    // The month began a minute ago, and an hour before that it was another one.
    let begun_ms = now_ms() - 60_000;
    let anchor = jiff::Timestamp::from_millisecond(begun_ms as i64).unwrap();
    let text = format!(
        "
grpc: {{ listen: 127.0.0.1:0 }}
rest: {{ listen: 127.0.0.1:0 }}
log: {{ format: json, filter: info }}
ledger: {{ sqlite: {} }}
limiter: {{ default_tier: paid }}
tiers:
  paid:
    context_tokens: 1000
    limits:
      - {{ unit: tokens, capacity: 1000, window: month, weights: {{ output: 3 }} }}
  open: {{ context_tokens: 1000, limits: [] }}
tenants:
  acme: {{ billing_anchor: {anchor} }}
  free: {{ tier: open }}
",
        folder.ledger().display()
    );
    let service = Service::start_with(&folder.write("weighed.yaml", &text));
    let before = UsageEvent { started_at_ms: begun_ms - 3_600_000, ..event("e1", "acme", 5000, 5000) };
    service.export(&[before, event("e2", "acme", 500, 200), event("e3", "free", 500, 200)]).await;
    let told = async |tenant: &str| {
        let (_, usage) = service.get(&format!("/api/v1/usage/{tenant}")).await;
        ["plan_tier", "token_limit", "limit_used_percent", "overage_tokens"].map(|field| usage[field].clone())
    };
    assert_eq!(told("acme").await, [json!("paid"), json!(1000), json!(110.0), json!(100)]);
    assert_eq!(told("free").await, [json!("open"), json!(null), json!(null), json!(0)]);
}

#[tokio::test]
async fn a_check_says_whether_a_call_would_pass_and_takes_nothing() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for _ in 0..5 {
        let answer = check(&service, json!({"tenant_id": "acme", "estimated_tokens": 125})).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["allowed"]), (200, &json!(true)));
        assert_eq!((&body["limits"][0]["remaining"], &body["total_tokens"]), (&json!(3), &json!(0)));
        assert_eq!(body.get("reason"), None);
    }
    let long = check(&service, json!({"tenant_id": "acme", "estimated_tokens": 126})).await;
    assert_eq!((long.status.as_u16(), long.retry_after.as_deref()), (429, None));
    assert_eq!(long.json()["reason"], "context_length_exceeded");
    assert_eq!(
        check(&service, json!({"tenant_id": "acme", "plan_tier": "large", "estimated_tokens": 126})).await.status,
        200
    );

    service.export(&[event("e1", "acme", 1000, 0)]).await;
    let denied = check(&service, json!({"tenant_id": "acme"})).await;
    let body = denied.json();
    assert_eq!((denied.status.as_u16(), &body["allowed"]), (429, &json!(false)));
    assert_eq!((&body["reason"], &body["limit"]), (&json!("rate_limit_exceeded"), &json!("tokens_per_hour")));
    // A thousand tokens an hour: one in 3.6 seconds.
    let seconds: u64 = denied.retry_after.as_deref().unwrap().parse().unwrap();
    assert!((1..=4).contains(&seconds), "{seconds}");
    assert_eq!(body["retry_after_s"], seconds);

    service.export(&[event("e2", "acme", 19_000, 0)]).await;
    let spent = check(&service, json!({"tenant_id": "acme", "plan_tier": "large"})).await;
    assert_eq!((spent.status.as_u16(), spent.retry_after.as_deref()), (429, None));
    let body = spent.json();
    assert_eq!((&body["reason"], &body["limit"]), (&json!("quota_exceeded"), &json!("tokens_per_month")));
    assert_eq!(body["limit_used_percent"], 100.0);
}

/// Limits of all kinds, for some calls.
fn kinds(folder: &Folder) -> Service {
    let text = "
grpc: { listen: 127.0.0.1:0 }
rest: { listen: 127.0.0.1:0 }
log: { format: json, filter: info }
ledger: { sqlite: LEDGER }
limiter: { default_tier: paid, unknown_tier: deny }
tiers:
  paid:
    context_tokens: 100000
    limits:
      - { unit: requests, capacity: 100, window: hour, burst: 50 }
      - { unit: cost, capacity: 0.3, window: day }
      - { unit: tokens, capacity: 1000, window: day, match: { models: [o1*], apis: [openai-chat] } }
      - { unit: tokens, capacity: 2000, window: month, action: warn }
  one:
    context_tokens: 100000
    limits: [{ unit: concurrency, capacity: 1 }]
prices:
  - { model: \"*\", input: 100, output: 200 }
";
    let text = text.replace("LEDGER", &folder.ledger().display().to_string());
    Service::start_with(&folder.write("kinds.yaml", &text))
}

#[tokio::test]
async fn a_check_knows_cost_scopes_warnings_and_unknown_tiers() {
    let folder = Folder::new();
    let service = kinds(&folder);
    let ask = async |fields: Value| {
        let mut question = json!({"tenant_id": "acme", "plan_tier": "paid"});
        question.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = check(&service, question).await;
        (answer.status.as_u16(), answer.json())
    };
    // 1000 tokens of input and 1000 of output are 30 cents.
    let (status, body) = ask(json!({"estimated_tokens": 1000, "estimated_output_tokens": 1000})).await;
    assert_eq!((status, &body["allowed"], &body["warnings"]), (200, &json!(true), &json!([])));
    assert_eq!((&body["limits"][1]["capacity"], &body["limits"][0]["burst"]), (&json!(0.3), &json!(50)));
    let (status, body) = ask(json!({"estimated_tokens": 1001, "estimated_output_tokens": 1000})).await;
    assert_eq!((status, &body["reason"], &body["limit"]), (429, &json!("quota_exceeded"), &json!("cost_per_day")));

    let scoped = "tokens_per_day{model=o1*;api=openai-chat}";
    let (status, body) = ask(json!({"model": "o1-mini", "api": "openai-chat", "estimated_tokens": 1001})).await;
    assert_eq!((status, &body["reason"], &body["limit"]), (429, &json!("quota_exceeded"), &json!(scoped)));
    assert_eq!(ask(json!({"model": "o1-mini", "api": "anthropic", "estimated_tokens": 1001})).await.0, 200);

    let event = UsageEvent { tier: "paid".into(), usage_source: UsageSource::Reported, ..event("e1", "acme", 2400, 0) };
    service.export(&[event]).await;
    let (status, body) = ask(json!({})).await;
    assert_eq!(
        (status, &body["warnings"], &body["nearest"]),
        (200, &json!(["tokens_per_month"]), &json!("cost_per_day"))
    );
    assert_eq!((&body["limits"][1]["used"], &body["limits"][1]["remaining"]), (&json!(0.24), &json!(0.06)));

    let (status, body) = ask(json!({"plan_tier": "gold"})).await;
    assert_eq!((status, &body["reason"], &body["plan_tier"]), (429, &json!("unknown_tier"), &json!("paid")));
}

#[tokio::test]
async fn a_check_is_denied_while_every_slot_is_taken() {
    let folder = Folder::new();
    let service = kinds(&folder);
    let asked = AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant: "acme",
        tier: "one",
        model: None,
        api: None,
        key: None,
        input_tokens: Some(1),
        output_tokens: Some(1),
        images: None,
    };
    let decoded: RateLimitRequest = prost::Message::decode(asked.encode().as_slice()).unwrap();
    let mut request = tonic::Request::new(decoded);
    request.metadata_mut().insert(RESERVATION_ID_METADATA, "r1".parse().unwrap());
    service.limiter().await.should_rate_limit(request).await.unwrap();
    let denied = check(&service, json!({"tenant_id": "acme", "plan_tier": "one"})).await;
    let body = denied.json();
    assert_eq!((denied.status.as_u16(), denied.retry_after.as_deref()), (429, Some("1")));
    assert_eq!((&body["reason"], &body["limit"]), (&json!("concurrency_exceeded"), &json!("concurrency")));
    assert_eq!((&body["limits"][0]["reserved"], body["limits"][0].get("window")), (&json!(1), None));
}

#[tokio::test]
async fn a_reset_forgives_what_is_spent_and_is_in_the_audit_log() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    service.export(&[event("e1", "acme", 5000, 1), event("e2", "other", 5000, 1)]).await;
    assert_eq!(check(&service, json!({"tenant_id": "acme"})).await.status, 429);

    let reset = Request::post("/api/v1/admin/tenants/acme/reset").header("content-type", "application/json");
    let reset = reset.header("x-tollgate-actor", "ada").body(json!({"reason": "agreed"}).to_string()).unwrap();
    let answer = service.http(reset).await;
    let body = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &body["tenant_id"], &body["limits"][2]["used"]),
        (200, &json!("acme"), &json!(0))
    );
    assert_eq!(check(&service, json!({"tenant_id": "acme"})).await.status, 200);
    assert_eq!(check(&service, json!({"tenant_id": "other"})).await.status, 429);
    // What was used stays used.
    assert_eq!(service.get("/api/v1/usage/acme").await.1["total_tokens"], 5001);

    let bare = Request::post("/api/v1/admin/tenants/other/reset").body(String::new()).unwrap();
    assert_eq!(service.http(bare).await.status, 200);
    let (_, log) = service.get("/api/v1/admin/audit").await;
    let told: Vec<_> =
        log["entries"].as_array().unwrap().iter().map(|entry| (&entry["actor"], &entry["tenant_id"])).collect();
    assert_eq!(told, [(&json!("anonymous"), &json!("other")), (&json!("ada"), &json!("acme"))]);
    let (_, log) = service.get("/api/v1/admin/audit?tenant=acme&limit=1").await;
    let entry = &log["entries"][0];
    assert_eq!((&entry["action"], &entry["detail"]), (&json!("reset"), &json!({"reason": "agreed"})));
    let (_, before) = service.get(&format!("/api/v1/admin/audit?before={}", entry["id"])).await;
    assert_eq!(before, json!({"entries": []}));
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_point() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let estimated = async |tokens: &str| {
        let question = format!(r#"{{"tenant_id": "acme", "estimated_output_tokens": {tokens}}}"#);
        service.post("/api/v1/usage/check", question).await.status.as_u16()
    };
    assert_eq!(estimated("10.0").await, 200);
    for tokens in ["1e15", "2009380393893229.0", "18446744073709551615"] {
        assert_eq!(estimated(tokens).await, 429, "{tokens}");
    }
    for tokens in ["0.5", "-1", "18446744073709551616", "\"1\""] {
        assert_eq!(estimated(tokens).await, 422, "{tokens}");
    }
}

#[tokio::test]
async fn an_error_says_what_is_wrong() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let get = |path: &str| Request::get(path).body(String::new()).unwrap();
    let post = |body: &str| {
        let request = Request::post("/api/v1/usage/check").header("content-type", "application/json");
        request.body(body.to_owned()).unwrap()
    };
    let cases = [
        (get("/nope"), 404, "nothing is served at /nope"),
        (Request::delete("/health").body(String::new()).unwrap(), 405, "/health does not take DELETE"),
        (
            get("/api/v1/usage/acme?period=year"),
            400,
            "period: unknown variant `year`, expected one of `day`, `week`, `month`",
        ),
        (get("/api/v1/usage/acme?perid=day"), 400, "unknown field `perid`, expected `period`"),
        (get("/api/v1/usage/acme/daily?days=0"), 400, "days: 0 is not between 1 and 366"),
        (get("/api/v1/usage/acme/daily?days=x"), 400, "days: invalid digit found in string"),
        (get("/api/v1/usage/%ff"), 400, "Invalid UTF-8 in `tenant`"),
        (post("{"), 400, "EOF while parsing an object at line 1 column 1"),
        (post("{\"tenant\": \"acme\"}"), 422, "unknown field `tenant`, expected one of `tenant_id`"),
        (post("{\"tenant_id\": \"\"}"), 400, "tenant_id: is empty"),
        (
            post("{\"tenant_id\": \"a\", \"estimated_tokens\": -1}"),
            422,
            "estimated_tokens: `-1` is no whole number from 0 to 18446744073709551615",
        ),
        (post(&" ".repeat(70_000)), 413, "length limit exceeded"),
        (post(&json!({"tenant_id": "a".repeat(257)}).to_string()), 400, "tenant_id: 257 bytes; a name has 256 at most"),
        (get("/api/v1/admin/audit?limit=1001"), 400, "limit: 1001 is not between 1 and 1000"),
        (
            Request::post("/api/v1/admin/tenants/a/reset").header("x-tollgate-actor", "").body(String::new()).unwrap(),
            400,
            "x-tollgate-actor: 1 to 256 visible ASCII characters",
        ),
        (
            Request::post("/api/v1/admin/events").header("x-tollgate-actor", "a\tb").body(String::new()).unwrap(),
            400,
            "x-tollgate-actor: 1 to 256 visible ASCII characters",
        ),
        (get(&format!("/api/v1/usage/{}", "a".repeat(257))), 400, "tenant: 257 bytes; a name has 256 at most"),
    ];
    for (request, status, detail) in cases {
        let asked = format!("{} {}", request.method(), request.uri());
        let answer = service.http(request).await;
        assert_eq!(answer.status.as_u16(), status, "{asked}: {answer:?}");
        assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"), "{asked}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{asked}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{asked}: {problem}");
    }
}
