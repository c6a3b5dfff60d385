//! Tenants, plans, budgets and prices over REST, and what they change at admission.

use anyhow::ensure;
use hyper::Request;
use serde_json::{Value, json};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision, RESERVATION_ID_METADATA};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::harness::{Answer, Folder, Service, event};

pub(crate) async fn put(service: &Service, path: &str, version: Option<&str>, body: &Value) -> Answer {
    let mut request = Request::put(path).header("content-type", "application/json");
    if let Some(version) = version {
        request = request.header("if-match", version);
    }
    service.http(request.body(body.to_string()).unwrap()).await
}

/// Makes a record.
pub(crate) async fn made(service: &Service, path: &str, body: Value) -> Value {
    let answer = put(service, path, None, &body).await;
    assert_eq!((answer.status.as_u16(), answer.etag.as_deref()), (201, Some("\"1\"")), "{}", answer.body);
    answer.json()
}

/// Asks as the filter does, under this id.
pub(crate) async fn ask(service: &Service, tenant: &str, id: &str, output_tokens: u64) -> AdmissionResponse {
    ask_by_key(service, tenant, None, id, output_tokens).await
}

async fn ask_by_key(
    service: &Service,
    tenant: &str,
    key: Option<&str>,
    id: &str,
    output_tokens: u64,
) -> AdmissionResponse {
    let asked = AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant,
        tier: "small",
        model: Some("m"),
        api: None,
        key,
        input_tokens: Some(0),
        output_tokens: Some(output_tokens),
        images: None,
    };
    let message: RateLimitRequest = prost::Message::decode(asked.encode().as_slice()).unwrap();
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(RESERVATION_ID_METADATA, id.parse().unwrap());
    let answer = service.limiter().await.should_rate_limit(request).await.unwrap().into_inner();
    AdmissionResponse::decode(&prost::Message::encode_to_vec(&answer)).unwrap()
}

/// Waits until what was changed is gone by.
pub(crate) async fn holds(service: &Service, tenant: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut limits = Value::Null;
    eventually("the change holds", PATIENCE, async || {
        limits = service.get(&format!("/api/v1/usage/{tenant}/limit")).await.1;
        ensure!(is_so(&limits), "{limits}");
        Ok(())
    })
    .await
    .unwrap();
    limits
}

#[tokio::test]
async fn a_record_is_made_changed_by_its_version_listed_and_deleted() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let acme = made(&service, "/api/v1/tenants/acme", json!({"tier": "large"})).await;
    assert_eq!((&acme["id"], &acme["status"], &acme["time_zone"]), (&json!("acme"), &json!("active"), &json!("UTC")));
    assert_eq!(put(&service, "/api/v1/tenants/acme", None, &json!({})).await.status, 409);
    let changed = put(&service, "/api/v1/tenants/acme", Some("\"1\""), &json!({"display_name": "Acme & Sons"})).await;
    assert_eq!((changed.status.as_u16(), changed.etag.as_deref()), (200, Some("\"2\"")), "{}", changed.body);
    let stale = put(&service, "/api/v1/tenants/acme", Some("\"1\""), &json!({})).await;
    assert_eq!(stale.status, 412, "{}", stale.body);
    made(&service, "/api/v1/tenants/bolt", json!({})).await;
    let (_, first) = service.get("/api/v1/tenants?limit=1").await;
    assert_eq!((&first["items"][0]["display_name"], &first["next_cursor"]), (&json!("Acme & Sons"), &json!("acme")));
    let (_, second) = service.get("/api/v1/tenants?limit=1&cursor=acme").await;
    assert_eq!(second["items"][0]["id"], "bolt");

    let delete = async |version: Option<&str>| {
        let request = Request::delete("/api/v1/tenants/acme");
        let request = version.into_iter().fold(request, |request, version| request.header("if-match", version));
        service.http(request.body(String::new()).unwrap()).await.status.as_u16()
    };
    assert_eq!([delete(None).await, delete(Some("\"1\"")).await, delete(Some("\"2\"")).await], [428, 412, 204]);
    assert_eq!(service.get("/api/v1/tenants/acme").await.0, 404);
}

#[tokio::test]
async fn what_may_not_be_so_is_refused_with_its_path() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let refused = [
        ("tenants/a", json!({"tier": "gold"}), "tier: no plan is called `gold`"),
        ("tenants/a", json!({"time_zone": "Mars/Olympus"}), "time_zone: `Mars/Olympus` is not known"),
        ("tenants/a", json!({"colour": 1}), "colour: unknown field"),
        ("plans/p", json!({"context_tokens": 0}), "context_tokens: is zero"),
        (
            "plans/p",
            json!({"context_tokens": 1, "limits": [{"unit": "requests", "capacity": 1, "window": "year"}]}),
            "limits[0].window: unknown variant `year`",
        ),
        ("budgets/b", json!({"tenant": "a", "amount_nanousd": 1, "enforcement": "hard"}), "there is no tenant `a`"),
    ];
    for (path, body, what) in refused {
        let answer = put(&service, &format!("/api/v1/{path}"), None, &body).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{path}: {answer:?}");
        assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(what), "{}", answer.body);
    }
    assert_eq!(service.get("/api/v1/tenants").await.1, json!({"items": []}));
}

#[tokio::test]
async fn plans_overrides_and_suspensions_hold_at_admission() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let requests = |capacity| json!([{"unit": "requests", "capacity": capacity, "window": "day"}]);
    made(&service, "/api/v1/plans/gold", json!({"context_tokens": 50, "limits": requests(7)})).await;
    // Its tier is checked against the plans that the limiter goes by.
    eventually("the plan is known", PATIENCE, async || {
        let answer = put(&service, "/api/v1/tenants/acme", None, &json!({"tier": "gold"})).await;
        ensure!(answer.status == 201, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    let limits = holds(&service, "acme", |limits| limits["plan_tier"] == "gold").await;
    assert_eq!((&limits["context_tokens"], &limits["limits"][0]["capacity"]), (&json!(50), &json!(7)));
    made(&service, "/api/v1/limit-overrides/acme", json!({"limits": requests(2)})).await;
    holds(&service, "acme", |limits| limits["limits"][0]["capacity"] == 2).await;
    assert_eq!(ask(&service, "acme", "one", 1).await.decision, Decision::Admitted);

    let suspended = json!({"tier": "gold", "status": "suspended"});
    assert_eq!(put(&service, "/api/v1/tenants/acme", Some("1"), &suspended).await.status, 200);
    eventually("the suspension", PATIENCE, async || {
        let answer = ask(&service, "acme", "two", 1).await;
        ensure!(answer.is_suspended(), "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(ask(&service, "bolt", "three", 1).await.decision, Decision::Admitted);
}

#[tokio::test]
async fn parallel_calls_do_not_overspend_a_hard_budget() {
    const CALL_NANOUSD: u64 = 1_000_000;
    let folder = Folder::new();
    // A dollar for a thousand tokens.
    let service = Service::start_with_config(&folder, "prices: [{ model: m, output: 1000 }]\n");
    made(&service, "/api/v1/tenants/acme", json!({"tier": "large"})).await;
    let budget = json!({"tenant": "acme", "amount_nanousd": 10 * CALL_NANOUSD + 1, "enforcement": "hard"});
    made(&service, "/api/v1/budgets/acme-monthly", budget).await;
    holds(&service, "acme", |limits| has_limit(limits, "cost_per_month")).await;
    let ids: Vec<_> = (0..40).map(|call| format!("call-{call}")).collect();
    let calls = ids.iter().map(|id| ask(&service, "acme", id, 1));
    let answers = futures_util::future::join_all(calls).await;
    let admitted = answers.iter().filter(|answer| answer.decision == Decision::Admitted).count();
    assert_eq!(admitted, 10, "each call reserves a tenth of the budget");
}

fn has_limit(limits: &Value, name: &str) -> bool {
    limits["limits"].as_array().is_some_and(|limits| limits.iter().any(|limit| limit["name"] == name))
}

#[tokio::test]
async fn a_keys_budget_holds_for_that_key_alone() {
    const CALL_NANOUSD: u64 = 1_000_000;
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, "prices: [{ model: m, output: 1000 }]\n");
    made(&service, "/api/v1/tenants/acme", json!({"tier": "large"})).await;
    let budget = |key: &str, calls: u64| json!({"tenant": "acme", "key": key, "amount_nanousd": calls * CALL_NANOUSD, "enforcement": "hard"});
    made(&service, "/api/v1/budgets/ci", budget("ci", 3)).await;
    made(&service, "/api/v1/budgets/ci-wider", budget("ci", 30)).await;
    made(&service, "/api/v1/budgets/odd", budget("a,b", 1)).await;
    holds(&service, "acme", |limits| {
        has_limit(limits, "cost_per_month{key=ci}") && has_limit(limits, "cost_per_month{key=a\\,b}")
    })
    .await;
    let mut admitted = Vec::new();
    for (key, calls) in [(Some("ci"), 5), (Some("a,b"), 2), (Some("chat"), 5), (None, 5)] {
        let mut count = 0;
        for call in 0..calls {
            let answer = ask_by_key(&service, "acme", key, &format!("{key:?}-{call}"), 1).await;
            count += u32::from(answer.decision == Decision::Admitted);
        }
        admitted.push(count);
    }
    assert_eq!(admitted, [3, 1, 5, 5]);
    // What was reserved is settled to what was used, of this key too.
    let used = UsageEvent {
        event_id: "Some(\"ci\")-0".to_owned(),
        reservation_id: Some("Some(\"ci\")-0".to_owned()),
        key: Some("ci".to_owned()),
        request_model: Some("m".to_owned()),
        usage_source: UsageSource::None,
        ..event("", "acme", 0, 0)
    };
    service.export(&[used]).await;
    eventually("its room comes back", PATIENCE, async || {
        let check = json!({"tenant_id": "acme", "key": "ci", "model": "m", "estimated_output_tokens": 1});
        let answer = service.post("/api/v1/usage/check", check.to_string()).await;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_budget_that_is_made_later_knows_what_was_spent() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, "prices: [{ model: m, output: 1000 }]\n");
    made(&service, "/api/v1/tenants/acme", json!({"tier": "large"})).await;
    let spent = |id: &str, key: &str, output| UsageEvent {
        key: Some(key.to_owned()),
        request_model: Some("m".to_owned()),
        usage_source: UsageSource::Reported,
        ..event(id, "acme", 0, output)
    };
    service.export(&[spent("a", "ci", 700), spent("b", "chat", 300)]).await;
    let budget = |nanousd: u64| json!({"tenant": "acme", "amount_nanousd": nanousd, "enforcement": "hard"});
    made(&service, "/api/v1/budgets/all", budget(2_000_000_000)).await;
    let mut of_ci = budget(700_000_000);
    of_ci["key"] = json!("ci");
    made(&service, "/api/v1/budgets/ci", of_ci).await;
    let used = |limits: &Value, name: &str| {
        let limits = limits["limits"].as_array().cloned().unwrap_or_default();
        limits.iter().find(|limit| limit["name"] == name).map(|limit| limit["used"].clone())
    };
    let limits = holds(&service, "acme", |limits| {
        used(limits, "cost_per_month") == Some(json!(1.0)) && used(limits, "cost_per_month{key=ci}") == Some(json!(0.7))
    })
    .await;
    assert_eq!(used(&limits, "requests_per_minute"), None, "{limits}");
    assert_eq!(ask_by_key(&service, "acme", Some("ci"), "one", 1).await.decision, Decision::Denied);
    assert_eq!(ask_by_key(&service, "acme", Some("chat"), "two", 1).await.decision, Decision::Admitted);
}

#[tokio::test]
async fn a_budget_knows_of_calls_whose_price_came_later() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    made(&service, "/api/v1/tenants/acme", json!({"tier": "large"})).await;
    let budget = json!({"tenant": "acme", "amount_nanousd": 2_000_000_000, "enforcement": "hard"});
    made(&service, "/api/v1/budgets/all", budget).await;
    let used = |limits: &Value, usd: f64| {
        let limits = limits["limits"].as_array().cloned().unwrap_or_default();
        limits.iter().any(|limit| limit["name"] == "cost_per_month" && limit["used"] == json!(usd))
    };
    let call = UsageEvent {
        request_model: Some("mystery".to_owned()),
        usage_source: UsageSource::Reported,
        ..event("a", "acme", 0, 700)
    };
    service.export(&[call]).await;
    holds(&service, "acme", |limits| used(limits, 0.0)).await;
    made(&service, "/api/v1/price-rows/mystery", json!({"price": {"model": "mystery", "output": "1000"}})).await;
    holds(&service, "acme", |limits| used(limits, 0.7)).await;
}

#[tokio::test]
async fn what_was_changed_outlives_a_restart_and_is_told() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    made(&service, "/api/v1/plans/gold", json!({"context_tokens": 50})).await;
    service.kill();
    let service = Service::start(&folder);
    assert_eq!(service.get("/api/v1/plans/gold").await.1["context_tokens"], 50);
    assert!(service.metrics().await.contains("tollgate_accounts_revision 1\n"));
}
