//! Calls that are lent to proxies' workers over RLS, and given back among usage events.

use prost::Message;
use tollgate_wire::admission::{
    AdmissionRequest, AdmissionResponse, Decision, Denial, DeniedCalls, LEASE_METADATA, Lease, LeaseRequest,
    RESERVATION_ID_METADATA,
};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use tollgate_wire::usage_event::{LeaseReturned, encode_export};

use crate::harness::{Folder, Service, event};

const CONFIG: &str = "
grpc: { listen: 127.0.0.1:0 }
rest: { listen: 127.0.0.1:0 }
ledger: { sqlite: LEDGER }
log: { format: json }
limiter: { default_tier: free, reservation_timeout_s: TIMEOUT, unknown_answer_tokens: 200 }
tiers:
  free:
    context_tokens: 10000
    limits:
      - { unit: requests, capacity: 1000, window: day }
      - { unit: tokens, capacity: 1000000, window: day }
  busy:
    context_tokens: 10000
    limits:
      - { unit: requests, capacity: 1, window: day }
";

const NOW_MS: u64 = 1_700_000_000_000;

fn start(folder: &Folder, timeout_s: u64) -> Service {
    let ledger = folder.ledger().display().to_string();
    let config = CONFIG.replace("LEDGER", &ledger).replace("TIMEOUT", &timeout_s.to_string());
    Service::start_with(&folder.write("config.yaml", &config))
}

/// A question of so many requests of a worker that would take a lease.
async fn ask(service: &Service, tier: &str, requests: u64, calls_per_s: u64) -> AdmissionResponse {
    let asked = AdmissionRequest {
        requests: Some(requests),
        domain: "tollgate",
        tenant: "acme",
        tier,
        model: Some("gpt-4o"),
        api: None,
        key: None,
        input_tokens: Some(0),
        output_tokens: Some(0),
        images: None,
    };
    let mut request = tonic::Request::new(Message::decode(asked.encode().as_slice()).unwrap());
    let wanted = LeaseRequest { now_ms: NOW_MS, calls_per_s, input_tokens: 10, output_tokens: 50, has_uncapped: true };
    request.metadata_mut().insert(LEASE_METADATA, wanted.encode().parse().unwrap());
    if requests > 0 {
        request.metadata_mut().insert(RESERVATION_ID_METADATA, format!("call {requests}").parse().unwrap());
    }
    let answer = service.limiter().await.should_rate_limit(request).await.unwrap().into_inner();
    AdmissionResponse::decode(&answer.encode_to_vec()).unwrap()
}

async fn give_back(service: &Service, lease: &Lease, used: u32) {
    let (tenant, tier, model) = ("acme".into(), "free".into(), Some("gpt-4o".into()));
    let returned =
        LeaseReturned { id: lease.id.clone(), tenant, tier, model, api: None, key: None, calls: lease.calls, used };
    let export = encode_export("test", [&returned.encode(NOW_MS)]);
    let export = ExportLogsServiceRequest::decode(export.as_slice()).unwrap();
    let answer = service.collector().await.export(export).await.unwrap().into_inner();
    assert_eq!(answer.partial_success, None);
}

/// Of the tenant's limits the one with this name: used and reserved.
async fn standing(service: &Service, name: &str) -> (u64, u64) {
    let (_, limits) = service.get("/api/v1/usage/acme/limit?plan_tier=free").await;
    let limit = limits["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == name).unwrap().clone();
    (limit["used"].as_u64().unwrap(), limit["reserved"].as_u64().unwrap())
}

#[tokio::test]
async fn what_is_lent_counts_as_taken_and_what_is_not_used_comes_back() {
    let folder = Folder::new();
    let service = start(&folder, 600);
    let lease = ask(&service, "free", 0, 20).await.lease.unwrap();
    assert_eq!((lease.calls, lease.expires_at_ms), (25, NOW_MS + 1_000));
    assert_eq!((lease.input_tokens, lease.output_tokens), (10, 200), "as much as a call without a cap asks for");
    assert_eq!(standing(&service, "requests_per_day").await, (25, 0));
    assert_eq!(standing(&service, "tokens_per_day").await, (25 * 210, 25 * 210));

    let id = Lease::call_id(&lease.id, 0);
    let used = tollgate_wire::usage_event::UsageEvent {
        reservation_id: Some(id.clone()),
        tier: "free".into(),
        request_model: Some("gpt-4o".into()),
        ..event(&id, "acme", 7, 13)
    };
    service.export(&[used]).await;
    for _ in 0..2 {
        give_back(&service, &lease, 1).await;
        assert_eq!(standing(&service, "requests_per_day").await, (1, 0));
        assert_eq!(standing(&service, "tokens_per_day").await, (20, 0));
    }
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_limiter_calls_lent_total 25"), "{metrics}");
    assert!(metrics.contains("tollgate_limiter_settlements_total{reservation=\"open\"} 1"), "{metrics}");
}

#[tokio::test]
async fn no_more_is_lent_than_the_share_of_a_limit() {
    let folder = Folder::new();
    let service = start(&folder, 600);
    assert_eq!(ask(&service, "free", 0, 40).await.lease.unwrap().calls, 50);
    // The share is with a worker: others get what they use in a fraction of a second.
    let second = ask(&service, "free", 0, 40).await.lease.unwrap();
    assert_eq!((second.calls, second.expires_at_ms), (13, NOW_MS + 250));
}

#[tokio::test]
async fn a_call_takes_no_lease_along_and_a_denial_tells_how_long_it_holds() {
    let folder = Folder::new();
    let service = start(&folder, 600);
    let admitted = ask(&service, "busy", 1, 20).await;
    assert_eq!((admitted.decision, admitted.lease), (Decision::Admitted, None));
    for requests in [0, 2] {
        let denied = ask(&service, "busy", requests, 20).await;
        assert_eq!((denied.decision, denied.lease), (Decision::Denied, None));
        assert_eq!(denied.denial, Some(Denial { until_ms: NOW_MS + 1_000, calls: DeniedCalls::All }));
    }
}
