//! Invoices, from events that come in to what is paid.

use anyhow::ensure;
use hyper::Request;
use serde_json::{Value, json};
use tollgate_domain::{Period, Span};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::harness::{Answer, Folder, Service, event, now_ms};
use crate::receiver::{Got, Receiver};

/// A dollar for a thousand input tokens.
const BILLED: &str = "
prices: [{ model: 'gpt-4o', input: 1000 }]
billing: { seller: { name: Gateway & Sons }, note: Please pay soon. }
";

/// A year and a month.
type Month = (i64, i64);

/// The month that the moment lies in, in UTC.
fn month(at_ms: u64) -> Month {
    let first = Period::around(Span::Month, at_ms).first.to_string();
    (first[..4].parse().unwrap(), first[5..7].parse().unwrap())
}

/// The last day of the month before this one.
fn last_month_ms() -> u64 {
    Period::around(Span::Month, now_ms()).first.start_ms() - 86_400_000
}

fn id(tenant: &str, (year, month): Month) -> String {
    format!("{tenant}-{year:04}-{month:02}")
}

fn call(id: &str, at_ms: u64, input: u64) -> UsageEvent {
    UsageEvent {
        started_at_ms: at_ms,
        request_model: Some("gpt-4o".to_owned()),
        usage_source: UsageSource::Reported,
        ..event(id, "acme", input, 0)
    }
}

async fn generate(service: &Service, tenant: &str, (year, month): Month) -> Answer {
    let request = json!({ "tenant_id": tenant, "year": year, "month": month });
    service.post("/api/v1/invoices/generate", request.to_string()).await
}

async fn step(service: &Service, id: &str, step: &str) -> Answer {
    service.post(&format!("/api/v1/invoices/{id}/{step}"), "").await
}

async fn get(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.http(request.body(String::new()).unwrap()).await
}

#[tokio::test]
async fn a_month_is_drafted_finalised_adjusted_voided_and_billed_again() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, BILLED);
    let (last, present) = (month(last_month_ms()), month(now_ms()));
    service.export(&[call("a", last_month_ms(), 1000)]).await;
    let draft = generate(&service, "acme", last).await;
    assert_eq!(draft.status, 200, "{}", draft.body);
    let first = id("acme", last);
    assert_eq!((&draft.json()["id"], &draft.json()["status"]), (&json!(first), &json!("draft")));
    assert_eq!((&draft.json()["total"], &draft.json()["currency"]), (&json!("1.00"), &json!("USD")));
    assert_eq!(generate(&service, "acme", last).await.json(), draft.json(), "nothing has changed");

    let paid = step(&service, &first, "pay").await;
    assert_eq!((paid.status.as_u16(), paid.json()["status"].as_u64()), (409, Some(409)));
    let done = step(&service, &first, "finalise").await;
    assert_eq!((done.status.as_u16(), &done.json()["status"]), (200, &json!("final")), "{}", done.body);
    assert_eq!(generate(&service, "acme", last).await.status, 409);

    service.export(&[call("late", last_month_ms(), 250), call("b", now_ms(), 2000)]).await;
    let (_, reconciled) = service.get(&format!("/api/v1/admin/reconcile?period={:04}-{:02}", last.0, last.1)).await;
    let difference = &reconciled["differences"][0];
    assert_eq!((&difference["place"], &difference["tenant"]), (&json!("invoice"), &json!("acme")), "{reconciled}");
    let next = generate(&service, "acme", present).await.json();
    assert_eq!(
        (&next["usage"], &next["adjustments"], &next["total"]),
        (&json!("2.00"), &json!("0.25"), &json!("2.25"))
    );
    let (_, reconciled) = service.get(&format!("/api/v1/admin/reconcile?period={:04}-{:02}", last.0, last.1)).await;
    assert_eq!(reconciled["differences"], json!([]), "a draft has it");
    assert_eq!(step(&service, &id("acme", present), "finalise").await.status, 409, "its month is not over");

    assert_eq!(step(&service, &first, "void").await.json()["status"], "void");
    let again = generate(&service, "acme", last).await.json();
    let second = format!("{first}-2");
    assert_eq!((&again["id"], &again["total"]), (&json!(second), &json!("1.25")));
    assert_eq!(generate(&service, "acme", present).await.json()["adjustments"], "0.00");
    assert_eq!(step(&service, &second, "finalise").await.status, 200);
    assert_eq!(step(&service, &second, "pay").await.json()["status"], "paid");
    assert_eq!(step(&service, &second, "void").await.status, 409);

    // What was done is kept.
    assert!(service.terminate().await.success());
    let service = Service::start_with_config(&folder, BILLED);
    let (_, page) = service.get("/api/v1/invoices?tenant=acme").await;
    let statuses: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| &item["status"]).collect();
    let mut expected = [(first, "void"), (second, "paid"), (id("acme", present), "draft")];
    expected.sort();
    assert_eq!(statuses, expected.iter().map(|(_, status)| status).collect::<Vec<_>>());
}

#[tokio::test]
async fn webhooks_are_told_of_each_step_once_also_over_restarts() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (folder, receiver) = (Folder::new(), Receiver::start().await);
    let webhook = format!("{{ url: '{}', secret: {SECRET}, allow_private_addresses: true }}", receiver.url);
    let config = format!("{BILLED}webhooks: [{webhook}]\n");
    let start = || Service::start_with_config(&folder, &config);
    let (last, first) = (month(last_month_ms()), id("acme", month(last_month_ms())));

    let service = start();
    service.export(&[call("a", last_month_ms(), 1000)]).await;
    receiver.answer(500);
    assert_eq!(generate(&service, "acme", last).await.status, 200);
    receiver.wait_for(1).await;
    // What was not taken waits on disk.
    service.kill();
    receiver.answer(204);
    let service = start();
    receiver.wait_for_taken(1).await;
    assert_eq!(generate(&service, "acme", last).await.status, 200, "nothing has changed");
    assert_eq!(step(&service, &first, "finalise").await.status, 200);
    receiver.wait_for_taken(2).await;
    assert!(service.terminate().await.success());
    let service = start();
    assert_eq!(step(&service, &first, "pay").await.status, 200);
    receiver.wait_for_taken(3).await;
    // Another's: had anything been told again, it would have come before.
    service.kill();
    let service = start();
    assert_eq!(generate(&service, "bolt", last).await.status, 200);
    let got = receiver.wait_for_taken(4).await;

    let told: Vec<_> = got.iter().map(|one| (one.kind(), one.body["data"]["tenant_id"].as_str().unwrap())).collect();
    let acme = ["invoice.created", "invoice.finalized", "invoice.paid"].map(|kind| (kind, "acme"));
    assert_eq!(told, [&acme[..], &[("invoice.created", "bolt")]].concat());
    assert!(receiver.got().iter().all(|one| one.is_signed(SECRET)));
    let data = |one: &Got| one.body["data"].clone();
    assert!(got[..3].iter().all(|one| data(one) == data(&got[0])), "each tells of the same invoice: {got:?}");
    assert_eq!(
        (&got[0].body["data"]["invoice_id"], &got[0].body["data"]["total"], &got[0].body["data"]["currency"]),
        (&json!(first), &json!("1.00"), &json!("USD"))
    );
    assert_eq!(receiver.got()[0].id, got[0].id, "all attempts have one id");
}

#[tokio::test]
async fn who_starts_after_an_orderly_stop_bills_at_once() {
    let folder = Folder::new();
    let billed = async |service: &Service| {
        eventually("the tenants are gone through", PATIENCE, async || {
            let metrics = service.metrics().await;
            ensure!(metrics.contains("tollgate_billing_runs_total 1\n"), "{metrics}");
            Ok(())
        })
        .await
        .unwrap();
    };
    let service = Service::start(&folder);
    billed(&service).await;
    assert!(service.terminate().await.success());
    // Who leads does so for longer than is waited for here.
    billed(&Service::start(&folder)).await;
}

#[tokio::test]
async fn an_invoice_is_written_as_it_is_asked_for() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, BILLED);
    let last = month(last_month_ms());
    service.export(&[call("a", last_month_ms(), 1000)]).await;
    assert_eq!(generate(&service, "acme", last).await.status, 200);
    let path = format!("/api/v1/invoices/{}", id("acme", last));
    for (format, media_type, part) in [
        ("json", "application/json; charset=utf-8", "\"total_usd\": \"1.00\""),
        ("csv", "text/csv; charset=utf-8", ",1.00,USD"),
        ("html", "text/html; charset=utf-8", "Sons"),
        ("pdf", "application/pdf", "%PDF-"),
    ] {
        let asked = get(&service, &format!("{path}?format={format}"), &[]).await;
        assert_eq!((asked.status.as_u16(), asked.content_type.as_deref()), (200, Some(media_type)), "{}", asked.body);
        assert!(asked.body.contains(part), "{}", asked.body);
        let accepted = media_type.split(';').next().unwrap();
        assert_eq!(get(&service, &path, &[("accept", accepted)]).await.body, asked.body);
    }
    assert_eq!(get(&service, &path, &[("accept", "image/png")]).await.status, 406);
    assert_eq!(get(&service, &format!("{path}?format=png"), &[]).await.status, 400);
    assert_eq!(get(&service, "/api/v1/invoices/none", &[]).await.status, 404);
}

#[tokio::test]
async fn a_tenants_key_sees_its_final_invoices_and_changes_none() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, BILLED);
    let last = month(last_month_ms());
    let mut other = call("b", last_month_ms(), 1000);
    other.tenant = "other".to_owned();
    service.export(&[call("a", last_month_ms(), 1000), other]).await;
    let tenant = Request::put("/api/v1/tenants/acme").header("content-type", "application/json");
    let tenant = tenant.body(json!({ "display_name": "Acme Inc." }).to_string()).unwrap();
    assert_eq!(service.http(tenant).await.status, 201);
    let key =
        service.post("/api/v1/keys", json!({ "tenant": "acme", "name": "ours", "role": "admin" }).to_string()).await;
    let key = format!("Bearer {}", key.json()["key"].as_str().unwrap());
    let shown = [("authorization", key.as_str())];
    for tenant in ["acme", "other"] {
        assert_eq!(generate(&service, tenant, last).await.status, 200);
    }
    let of = |tenant| format!("/api/v1/invoices/{}", id(tenant, last));
    let listed = async || get(&service, "/api/v1/invoices", &shown).await.json()["items"].as_array().unwrap().len();
    assert_eq!((get(&service, &of("acme"), &shown).await.status.as_u16(), listed().await), (404, 0), "a draft");
    for tenant in ["acme", "other"] {
        assert_eq!(step(&service, &id(tenant, last), "finalise").await.status, 200);
    }
    let own = get(&service, &of("acme"), &shown).await;
    assert_eq!((own.status.as_u16(), &own.json()["buyer"]["name"]), (200, &json!("Acme Inc.")), "{}", own.body);
    assert_eq!((get(&service, &of("other"), &shown).await.status.as_u16(), listed().await), (404, 1));
    let pay = Request::post(format!("{}/pay", of("acme"))).header("authorization", &key);
    assert_eq!(service.http(pay.body(String::new()).unwrap()).await.status, 403);
}

#[tokio::test]
async fn what_cannot_be_billed_is_refused_with_the_field() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, BILLED);
    let plan = json!({ "context_tokens": 100, "billing": { "events": { "image": "-1" } } });
    let put = Request::put("/api/v1/plans/small").header("content-type", "application/json");
    let refused = service.http(put.body(plan.to_string()).unwrap()).await;
    assert_eq!(refused.status, 400);
    let detail: Value = refused.json()["detail"].clone();
    assert!(detail.as_str().unwrap().starts_with("billing: events.image: is from 0"), "{detail}");
    for request in [json!({}), json!({ "tenant_id": "acme", "year": 2026, "month": 1, "day": 1 })] {
        assert_eq!(service.post("/api/v1/invoices/generate", request.to_string()).await.status, 422);
    }
    for wrong in [(2026, 13), (9000, 1), (-1, 1)] {
        assert_eq!(generate(&service, "acme", wrong).await.status, 400, "{wrong:?}");
    }
    let unknown = generate(&service, "nobody", month(last_month_ms())).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["total"]), (200, &json!("0.00")));
}
