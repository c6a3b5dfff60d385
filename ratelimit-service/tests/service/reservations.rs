//! Calls that are reserved before and settled after.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision, RESERVATION_ID_METADATA};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::harness::{Folder, Service, event};

/// Short of time, so that what nobody settles runs out while a test waits.
const CONFIG: &str = "
grpc: { listen: 127.0.0.1:0 }
rest: { listen: 127.0.0.1:0 }
log: { format: json, filter: info }
ledger: { sqlite: LEDGER }
limiter: { default_tier: free, reservation_timeout_s: TIMEOUT, unknown_answer_tokens: 200 }
tiers:
  free:
    context_tokens: 100000
    limits:
      - { unit: tokens, capacity: 1000, window: month }
      - { unit: concurrency, capacity: 2 }
  wide:
    context_tokens: 100000
    limits:
      - { unit: tokens, capacity: 1000, window: month, action: warn }
      - { unit: cost, capacity: 0.002, window: day }
prices:
  - { model: gpt-4o, input: 1.00, output: 2.00 }
";

async fn start(folder: &Folder, timeout_s: u64) -> Service {
    let ledger = folder.ledger().display().to_string();
    let config = CONFIG.replace("LEDGER", &ledger).replace("TIMEOUT", &timeout_s.to_string());
    Service::start_with(&folder.write("config.yaml", &config))
}

/// What the filter asks for a call of this id.
fn call(id: &str, tier: &str, input_tokens: u64, output_tokens: u64) -> tonic::Request<RateLimitRequest> {
    let model = Some("gpt-4o");
    let asked = AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant: "acme",
        tier,
        model,
        api: None,
        key: None,
        input_tokens: Some(input_tokens),
        output_tokens: Some(output_tokens),
        images: None,
    };
    let mut request = tonic::Request::new(prost::Message::decode(asked.encode().as_slice()).unwrap());
    request.metadata_mut().insert(RESERVATION_ID_METADATA, id.parse().unwrap());
    request
}

async fn admit(service: &Service, request: tonic::Request<RateLimitRequest>) -> AdmissionResponse {
    let answer = service.limiter().await.should_rate_limit(request).await.unwrap().into_inner();
    AdmissionResponse::decode(&prost::Message::encode_to_vec(&answer)).unwrap()
}

fn settling(id: &str, input: u64, output: u64) -> UsageEvent {
    let (reservation_id, request_model) = (Some(id.to_owned()), Some("gpt-4o".to_owned()));
    UsageEvent {
        reservation_id,
        request_model,
        tier: "free".into(),
        usage_source: UsageSource::Reported,
        ..event(id, "acme", input, output)
    }
}

/// Of the tenant's limits the one with this name: used, reserved, remaining.
async fn standing(service: &Service, name: &str) -> [Value; 3] {
    let (_, limits) = service.get("/api/v1/usage/acme/limit?plan_tier=free").await;
    let limit = limits["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == name).unwrap().clone();
    ["used", "reserved", "remaining"].map(|field| limit[field].clone())
}

#[tokio::test]
async fn a_call_holds_what_it_may_use_until_its_event_tells_what_it_used() {
    let folder = Folder::new();
    let service = start(&folder, 600).await;
    let tokens = async || standing(&service, "tokens_per_month").await.map(|amount| amount.as_u64().unwrap());
    assert_eq!(admit(&service, call("a", "free", 100, 300)).await.decision, Decision::Admitted);
    // The same id again is the same call.
    assert_eq!(admit(&service, call("a", "free", 100, 300)).await.decision, Decision::Admitted);
    assert_eq!(tokens().await, [400, 400, 600]);
    // Without a cap, an answer is taken to be as long as is configured.
    assert_eq!(admit(&service, call("b", "free", 50, 0)).await.decision, Decision::Admitted);
    assert_eq!(tokens().await, [650, 650, 350]);
    let denied = admit(&service, call("c", "free", 0, 10)).await;
    assert_eq!((denied.decision, denied.limits[0].name.as_str()), (Decision::Denied, "concurrency"));
    assert_eq!(standing(&service, "concurrency").await, [json!(2), json!(2), json!(0)]);

    service.export(&[settling("a", 110, 20)]).await;
    assert_eq!(tokens().await, [380, 250, 620]);
    // Nothing was generated: nothing is taken. An overage is taken whole.
    let void = UsageEvent { usage_source: UsageSource::None, ..settling("b", 0, 0) };
    service.export(&[void, settling("a", 110, 20)]).await;
    assert_eq!(tokens().await, [130, 0, 870]);
    service.export(&[settling("never-asked", 500, 500)]).await;
    assert_eq!(tokens().await, [1130, 0, 0]);
    assert_eq!(admit(&service, call("never-asked", "free", 0, 10)).await.decision, Decision::Admitted);
    assert_eq!(
        (tokens().await, admit(&service, call("d", "free", 0, 1)).await.decision),
        ([1130, 0, 0], Decision::Denied)
    );
    assert_eq!(standing(&service, "concurrency").await, [json!(0), json!(0), json!(2)]);
}

#[tokio::test]
async fn answers_without_a_cap_reserve_what_answers_were_long_lately() {
    let folder = Folder::new();
    let service = start(&folder, 600).await;
    let answers: Vec<_> = (0..10).map(|number| settling(&format!("e{number}"), 0, 10)).collect();
    service.export(&answers).await;
    assert_eq!(admit(&service, call("a", "free", 0, 0)).await.decision, Decision::Admitted);
    // Known to within half an octave.
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(112), json!(12), json!(888)]);
}

#[tokio::test]
async fn a_guess_denies_no_call_for_good() {
    let folder = Folder::new();
    let config = CONFIG.replace("unknown_answer_tokens: 200", "unknown_answer_tokens: 5000");
    let config = config.replace("LEDGER", &folder.ledger().display().to_string()).replace("TIMEOUT", "600");
    let service = Service::start_with(&folder.write("config.yaml", &config));
    // More than the month ever holds: it is cut to what is left beside the prompt.
    assert_eq!(admit(&service, call("a", "free", 30, 0)).await.decision, Decision::Admitted);
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(1000), json!(1000), json!(0)]);
    assert_eq!(admit(&service, call("b", "free", 30, 0)).await.decision, Decision::Denied);
    service.export(&[settling("a", 30, 40)]).await;
    // The next is taken to be twice as long as the only one that is known.
    assert_eq!(admit(&service, call("b", "free", 30, 0)).await.decision, Decision::Admitted);
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(70 + 30 + 96), json!(126), json!(804)]);
    // A cap is the client's word.
    let denied = admit(&service, call("c", "free", 30, 5000)).await;
    let limit = denied.limits.iter().find(|limit| limit.name == "tokens_per_month").unwrap();
    assert_eq!((denied.decision, limit.reset_ms), (Decision::Denied, None));
}

#[tokio::test]
async fn what_nobody_settles_runs_out_is_billed_as_unsettled_and_corrected_by_a_late_event() {
    let folder = Folder::new();
    let service = start(&folder, 1).await;
    for id in ["a", "b"] {
        assert_eq!(admit(&service, call(id, "free", 100, 200)).await.decision, Decision::Admitted);
    }
    let month = async || service.get("/api/v1/usage/acme?period=month").await.1;
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while month().await["requests_by_usage_source"]["unsettled"] != 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap();
    assert_eq!((&month().await["requests"], &month().await["total_tokens"]), (&json!(2), &json!(600)));
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(600), json!(0), json!(400)]);
    assert_eq!(standing(&service, "concurrency").await[0], json!(0), "the slots are free");

    service.export(&[settling("a", 90, 10)]).await;
    let usage = month().await;
    assert_eq!((&usage["requests"], &usage["total_tokens"]), (&json!(2), &json!(400)));
    assert_eq!(usage["requests_by_usage_source"]["unsettled"], 1);
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(400), json!(0), json!(600)]);
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_limiter_settlements_total{reservation=\"expired\"} 1"), "{metrics}");

    // A restart counts the month from the ledger, unsettled calls too.
    assert!(service.terminate().await.success());
    let service = start(&folder, 1).await;
    assert_eq!(standing(&service, "tokens_per_month").await, [json!(400), json!(0), json!(600)]);
}

#[tokio::test]
async fn of_64_calls_at_once_one_is_admitted_where_there_is_room_for_one() {
    let folder = Folder::new();
    let service = start(&folder, 600).await;
    let limiter = service.limiter().await;
    let calls = (0..64).map(|number| {
        let mut limiter = limiter.clone();
        let request = call(&format!("call-{number}"), "free", 400, 600);
        tokio::spawn(async move { limiter.should_rate_limit(request).await.unwrap().into_inner() })
    });
    let mut admitted = 0;
    for answer in calls.collect::<Vec<_>>() {
        let answer = AdmissionResponse::decode(&prost::Message::encode_to_vec(&answer.await.unwrap())).unwrap();
        admitted += u32::from(answer.decision == Decision::Admitted);
    }
    assert_eq!(admitted, 1);
}

#[tokio::test]
async fn money_denies_and_a_limit_that_warns_says_so() {
    let folder = Folder::new();
    let service = start(&folder, 600).await;
    // 1000 + 2 × 450 millionths of a dollar, of 2000.
    let admitted = admit(&service, call("a", "wide", 1000, 450)).await;
    assert_eq!(admitted.decision, Decision::Admitted);
    assert_eq!(admitted.response_headers, [("x-tollgate-warning".to_owned(), "tokens_per_month".to_owned())]);
    let denied = admit(&service, call("b", "wide", 101, 0)).await;
    let told: Vec<_> =
        denied.limits.iter().map(|limit| (limit.name.as_str(), limit.capacity, limit.remaining)).collect();
    assert_eq!((denied.decision, told), (Decision::Denied, vec![("cost_per_day", 2000, 100)]));
}
