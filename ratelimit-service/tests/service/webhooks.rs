//! Webhooks of the accounts: who is told, over REST and to real receivers.

use anyhow::ensure;
use hyper::Request;
use serde_json::{Value, json};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::accounts::{holds, made};
use crate::harness::{Answer, Folder, Service, event};
use crate::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn send(service: &Service, method: &str, path: &str, key: Option<&str>, version: u64, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = if version > 0 { request.header("if-match", version.to_string()) } else { request };
    let request =
        key.into_iter().fold(request, |request, key| request.header("authorization", format!("Bearer {key}")));
    service.http(request.body(body.to_string()).unwrap()).await
}

async fn make(service: &Service, body: Value) -> Value {
    let answer = service.post("/api/v1/webhooks", body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

async fn make_tenant(service: &Service, tenant: &str) {
    let made = send(service, "PUT", &format!("/api/v1/tenants/{tenant}"), None, 0, &json!({})).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

fn id(webhook: &Value) -> &str {
    webhook["id"].as_str().unwrap()
}

/// Tries it out, and gives the message's id.
async fn try_out(service: &Service, webhook: &Value) -> String {
    let answer = service.post(&format!("/api/v1/webhooks/{}/test", id(webhook)), "").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()["message_id"].as_str().unwrap().to_owned()
}

/// Waits until the metric says so.
async fn metric(service: &Service, line: &str) {
    eventually(line, PATIENCE, async || {
        let metrics = service.metrics().await;
        ensure!(metrics.lines().any(|found| found == line), "it is not so yet");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_webhook_is_made_told_changed_and_deleted_without_a_restart() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let receiver = Receiver::start().await;
    let wanted =
        json!({ "url": receiver.url, "allow_private_addresses": true, "event_kinds": ["limit.threshold_reached"] });
    let made = make(&service, wanted).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(
        secret.starts_with("whsec_") && made["origin"].as_str().unwrap().starts_with("http://127.0.0.1:"),
        "{made}"
    );
    // Neither is shown again, nor is the URL at all.
    let path = format!("/api/v1/webhooks/{}", id(&made));
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(service.get(&path).await.1, shown);
    assert_eq!(service.get("/api/v1/webhooks").await.1["items"], json!([shown]));
    assert!(!shown.to_string().contains("s3cret"), "{shown}");

    let message = try_out(&service, &made).await;
    let got = receiver.wait_for(1).await;
    assert_eq!((&got[0].id, got[0].kind(), got[0].is_signed(secret)), (&message, "webhook.test", true));
    // 4250 of the month's 5000 tokens.
    service.export(&[event("e1", "acme", 4000, 250)]).await;
    let got = receiver.wait_for(2).await;
    assert_eq!((got[1].kind(), &got[1].body["data"]["tenant_id"]), ("limit.threshold_reached", &json!("acme")));

    let changes = json!({ "event_kinds": ["invoice.paid"], "secret": SECRET });
    assert_eq!(send(&service, "PATCH", &path, None, 0, &changes).await.status, 428);
    assert_eq!(send(&service, "PATCH", &path, None, 7, &changes).await.status, 412);
    let changed = send(&service, "PATCH", &path, None, 1, &changes).await;
    assert_eq!((changed.status.as_u16(), changed.etag.as_deref()), (200, Some("\"2\"")), "{}", changed.body);
    assert!(!changed.body.contains("whsec_") && !changed.body.contains("s3cret"), "{}", changed.body);
    metric(&service, "tollgate_accounts_revision 2").await;
    service.export(&[event("e2", "acme", 500, 0)]).await;
    metric(&service, "tollgate_alerts_total{threshold=\"95\"} 1").await;
    try_out(&service, &made).await;
    let got = receiver.wait_for(3).await;
    assert!(
        got[2].kind() == "webhook.test" && got[2].is_signed(SECRET),
        "what it did not ask for is not told: {got:?}"
    );

    // What waits for it goes with it.
    receiver.answer(500);
    try_out(&service, &made).await;
    receiver.wait_for(4).await;
    metric(&service, "tollgate_webhook_deliveries_waiting 1").await;
    assert_eq!(send(&service, "DELETE", &path, None, 2, &json!({})).await.status, 204);
    metric(&service, "tollgate_webhook_deliveries_waiting 0").await;
    assert_eq!(service.post(&format!("{path}/test"), "").await.status, 404);
    assert_eq!(receiver.got().len(), 4);
}

#[tokio::test]
async fn each_budget_is_told_of_at_its_own_thresholds() {
    let folder = Folder::new();
    // A dollar for a thousand input tokens.
    let service = Service::start_with_config(&folder, "prices: [{ model: m, input: 1000 }]\n");
    let receiver = Receiver::start().await;
    let kinds = ["budget.threshold_reached"];
    make(&service, json!({ "url": receiver.url, "allow_private_addresses": true, "event_kinds": kinds })).await;
    make_tenant(&service, "acme").await;
    let budget = async |id: &str, cents: u64, enforcement: &str, thresholds: &[u16]| {
        let amount_nanousd = cents * 10_000_000;
        let budget = json!({
            "tenant": "acme", "amount_nanousd": amount_nanousd, "enforcement": enforcement, "thresholds": thresholds,
        });
        made(&service, &format!("/api/v1/budgets/{id}"), budget).await;
    };
    budget("soft", 100, "soft", &[50]).await;
    budget("hard", 200, "hard", &[]).await;
    // The hard one is the limit.
    holds(&service, "acme", |limits| {
        let mut limits = limits["limits"].as_array().unwrap().iter();
        limits.any(|limit| limit["name"] == "cost_per_month" && limit["capacity"] == 2.0)
    })
    .await;
    metric(&service, "tollgate_accounts_revision 4").await;
    let call = |id: &str, input: u64| UsageEvent {
        request_model: Some("m".to_owned()),
        usage_source: UsageSource::Reported,
        ..event(id, "acme", input, 0)
    };
    let told = async |number: usize| {
        let last = receiver.wait_for(number).await.pop().unwrap();
        let data = &last.body["data"];
        json!([data["budget_id"], data["threshold_percent"], data["used"], data["capacity"]])
    };
    service.export(&[call("e1", 600)]).await;
    assert_eq!(told(1).await, json!(["soft", 50, 0.6, 1.0]));
    service.export(&[call("e2", 1100)]).await;
    assert_eq!(told(2).await, json!(["hard", 80, 1.7, 2.0]), "at the thresholds that are configured");
    // It is passed when it is made, and no call touches it.
    budget("late", 150, "soft", &[100]).await;
    assert_eq!(told(3).await, json!(["late", 100, 1.7, 1.5]));
}

#[tokio::test]
async fn one_that_answers_410_is_not_called_until_it_is_changed() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let receiver = Receiver::start().await;
    let made = make(&service, json!({ "url": receiver.url, "allow_private_addresses": true, "secret": SECRET })).await;
    assert_eq!(made["secret"], SECRET);
    receiver.answer(410);
    try_out(&service, &made).await;
    metric(&service, "tollgate_webhook_endpoints_disabled 1").await;
    let path = format!("/api/v1/webhooks/{}", id(&made));
    let refused = service.post(&format!("{path}/test"), "").await;
    assert_eq!((refused.status.as_u16(), refused.content_type.as_deref()), (409, Some("application/problem+json")));
    receiver.answer(204);
    assert_eq!(send(&service, "PATCH", &path, None, 1, &json!({})).await.status, 200);
    metric(&service, "tollgate_webhook_endpoints_disabled 0").await;
    try_out(&service, &made).await;
    receiver.wait_for(2).await;
    // It outlives a restart, with its secret.
    assert!(service.terminate().await.success());
    let service = Service::start(&folder);
    try_out(&service, &made).await;
    let got = receiver.wait_for(3).await;
    assert!(got.iter().all(|one| one.is_signed(SECRET)), "{got:?}");
}

#[tokio::test]
async fn a_tenant_has_webhooks_of_its_own_at_public_addresses_alone() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for tenant in ["acme", "bolt"] {
        make_tenant(&service, tenant).await;
    }
    let key = json!({ "tenant": "acme", "name": "ours", "role": "admin" }).to_string();
    let key = service.post("/api/v1/keys", key).await.json()["key"].as_str().unwrap().to_owned();
    let receiver = Receiver::start().await;
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let by_acme = async |body: Value| send(&service, "POST", "/api/v1/webhooks", Some(&key), 0, &body).await;
    for (body, status, what) in [
        (json!({ "url": receiver.url }), 400, "url: 127.0.0.1 is no public address"),
        (json!({ "url": format!("http://[::ffff:7f00:1]:{port}") }), 400, "url: "),
        (json!({ "url": "http://169.254.169.254/latest" }), 400, "url: 169.254.169.254 is no public address"),
        (json!({ "url": receiver.url, "allow_private_addresses": true }), 400, "url: 127.0.0.1 is no public"),
        (json!({ "url": "https://hooks.example", "allow_private_addresses": true }), 400, "allow_private_addresses: "),
        (json!({ "url": "https://hooks.example", "event_kinds": ["invoice.created"] }), 400, "event_kinds: "),
        (json!({ "url": "https://hooks.example", "event_kinds": ["paid"] }), 400, "event_kinds: `paid` is none of"),
        (json!({ "url": "https://hooks.example", "secret": "s3cret" }), 400, "secret: is no secret of Standard"),
        (json!({ "url": "https://hooks.example", "tenant": "bolt" }), 403, "that is not this tenant's"),
        (json!({ "event_kinds": [] }), 422, "missing field `url`"),
    ] {
        let answer = by_acme(body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(what), "{}", answer.body);
        assert!(!answer.body.contains("s3cret"), "{}", answer.body);
    }
    // A name is looked up when it is called, and what it leads to is not.
    let named = by_acme(json!({ "url": format!("http://localhost:{port}") })).await;
    assert_eq!((named.status.as_u16(), &named.json()["tenant"]), (201, &json!("acme")), "{}", named.body);
    try_out(&service, &named.json()).await;
    metric(&service, "tollgate_webhook_deliveries_total{result=\"failed\"} 1").await;
    assert!(receiver.got().is_empty());

    let others = make(&service, json!({ "url": "https://hooks.example", "tenant": "bolt" })).await;
    let operators = make(&service, json!({ "url": receiver.url, "allow_private_addresses": true })).await;
    let listed = send(&service, "GET", "/api/v1/webhooks", Some(&key), 0, &json!({})).await.json();
    let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(ids, [id(&named.json())], "it sees its own alone");
    for other in [&others, &operators] {
        let path = format!("/api/v1/webhooks/{}", id(other));
        for (method, path) in
            [("GET", path.clone()), ("DELETE", path.clone()), ("PATCH", path.clone()), ("POST", path + "/test")]
        {
            assert_eq!(send(&service, method, &path, Some(&key), 1, &json!({})).await.status, 404, "{method} {path}");
        }
    }
    // As many as one may have.
    let mut statuses = Vec::new();
    for _ in 0..16 {
        statuses.push(by_acme(json!({ "url": "https://hooks.example" })).await.status.as_u16());
    }
    assert_eq!(statuses, [[201; 15].as_slice(), &[409]].concat());
}
