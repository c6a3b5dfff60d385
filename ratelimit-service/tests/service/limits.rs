//! Limits over Envoy's rate limit service.

use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision, LimitStatus, Unit, WindowUnit};
use tollgate_wire::proto::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor::Entry,
};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use crate::harness::{Folder, Service, event};

/// What our filter asks, decoded from the bytes that it sends.
fn call(tenant: &str, tier: &str, input_tokens: u64, output_tokens: u64) -> RateLimitRequest {
    let request = AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant,
        tier,
        model: Some("gpt-4o"),
        api: None,
        key: None,
        input_tokens: Some(input_tokens),
        output_tokens: Some(output_tokens),
        images: None,
    };
    prost::Message::decode(request.encode().as_slice()).unwrap()
}

/// What Envoy's own rate limit filter asks: entries, and neither unit nor addend.
fn native(entries: &[(&str, &str)]) -> RateLimitRequest {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    let descriptor = RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() };
    RateLimitRequest { domain: "tollgate".to_owned(), descriptors: vec![descriptor], hits_addend: 0 }
}

async fn ask(service: &Service, request: RateLimitRequest) -> RateLimitResponse {
    service.limiter().await.should_rate_limit(request).await.unwrap().into_inner()
}

fn read(response: &RateLimitResponse) -> AdmissionResponse {
    AdmissionResponse::decode(&prost::Message::encode_to_vec(response)).unwrap()
}

#[tokio::test]
async fn a_call_past_the_limit_is_denied_and_another_tenant_is_not() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for left in [2, 1, 0] {
        let answer = read(&ask(&service, call("acme", "small", 10, 5)).await);
        assert_eq!(answer.decision, Decision::Admitted);
        assert_eq!(answer.limits.iter().map(|limit| limit.unit).collect::<Vec<_>>(), Unit::ALL[..3]);
        let LimitStatus { decision, name, capacity, window, remaining, reset_ms, .. } = &answer.limits[0];
        assert_eq!((*decision, name.as_str(), *capacity), (Decision::Admitted, "requests_per_hour", 3));
        assert_eq!((*window, *remaining), (WindowUnit::Hour, left));
        assert!(reset_ms.is_some_and(|ms| ms > 0 && ms <= 3_600_000), "{reset_ms:?}");
    }
    let denied = read(&ask(&service, call("acme", "small", 10, 5)).await);
    assert_eq!(denied.decision, Decision::Denied);
    let told: Vec<_> = denied.limits.iter().map(|limit| (limit.decision, limit.remaining)).collect();
    assert_eq!(told, [(Decision::Denied, 0), (Decision::Admitted, 955), (Decision::Admitted, 955)]);
    // A third of an hour for one request, less what has passed.
    assert!(denied.limits[0].reset_ms.is_some_and(|ms| ms > 1_000_000 && ms <= 1_200_000), "{denied:?}");

    assert_eq!(read(&ask(&service, call("other", "small", 10, 5)).await).decision, Decision::Admitted);
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_rls_decisions_total{outcome=\"denied\"} 1"), "{metrics}");
    assert!(metrics.contains("tollgate_limiter_tenants 2"), "{metrics}");
}

#[tokio::test]
async fn an_estimate_that_does_not_fit_takes_no_request() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let denied = ask(&service, call("acme", "small", 100, 901)).await;
    assert_eq!(denied.overall_code(), Code::OverLimit);
    assert_eq!(denied.statuses[0].limit_remaining, 3);
    // More than the limit ever holds: no time is named.
    assert_eq!((denied.statuses[1].code(), denied.statuses[1].duration_until_reset), (Code::OverLimit, None));
}

#[tokio::test]
async fn a_prompt_that_is_too_long_for_the_plan_is_denied_before_any_limit_is_asked() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    // The context is 100, and an estimate may be a quarter above.
    for _ in 0..4 {
        let denied = ask(&service, call("acme", "small", 126, 0)).await;
        let codes: Vec<_> = denied.statuses.iter().map(|status| status.code()).collect();
        assert_eq!((denied.overall_code(), codes), (Code::OverLimit, vec![Code::Ok, Code::OverLimit, Code::Ok]));
        let denied = read(&denied);
        assert_eq!(denied.context_exceeded(), Some(100));
        let [LimitStatus { unit, name, capacity, window, remaining, reset_ms, .. }] = denied.limits.as_slice() else {
            panic!("{denied:?}")
        };
        assert_eq!((*unit, name.as_str(), *capacity), (Unit::InputTokens, "context_tokens", 100));
        assert_eq!((*window, *remaining, *reset_ms), (WindowUnit::Unknown, 0, None));
    }
    for left in [2, 1, 0] {
        let admitted = read(&ask(&service, call("acme", "small", 125, 0)).await);
        assert_eq!((admitted.decision, admitted.limits[0].remaining), (Decision::Admitted, left));
    }
    // Where both hold, the context is told: no waiting helps against it.
    assert_eq!(read(&ask(&service, call("acme", "small", 126, 0)).await).context_exceeded(), Some(100));
    let spent = read(&ask(&service, call("acme", "small", 125, 0)).await);
    assert_eq!((spent.decision, spent.context_exceeded()), (Decision::Denied, None));
    assert_eq!(read(&ask(&service, call("other", "large", 126, 0)).await).decision, Decision::Admitted);

    let metrics = service.metrics().await;
    for counted in ["{outcome=\"context_length_exceeded\"} 5", "{outcome=\"denied\"} 1", "{outcome=\"admitted\"} 4"] {
        assert!(metrics.contains(&format!("tollgate_rls_decisions_total{counted}")), "{metrics}");
    }
}

#[tokio::test]
async fn envoys_own_filter_is_limited_also_by_tokens() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let request = || native(&[("tenant", "acme"), ("tier", "small")]);
    let admitted = ask(&service, request()).await;
    assert_eq!((admitted.overall_code(), admitted.statuses[0].limit_remaining), (Code::Ok, 2));
    service.export(&[event("e1", "acme", 900, 300)]).await;
    let denied = ask(&service, request()).await;
    let [status] = denied.statuses.as_slice() else { panic!("{denied:?}") };
    assert_eq!((denied.overall_code(), status.code()), (Code::OverLimit, Code::OverLimit));
    assert_eq!(status.current_limit.as_ref().unwrap().name, "tokens_per_hour");
}

#[tokio::test]
async fn what_is_not_ours_is_not_limited() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let foreign = RateLimitRequest { domain: "other".to_owned(), ..call("acme", "small", 5000, 0) };
    let unknown_unit = native(&[("tenant", "acme"), ("unit", "bananas")]);
    for (request, statuses) in
        [(foreign, 3), (native(&[("remote_address", "10.0.0.1")]), 1), (unknown_unit, 1), (native(&[]), 1)]
    {
        for _ in 0..5 {
            let answer = ask(&service, request.clone()).await;
            assert_eq!(answer.overall_code(), Code::Ok);
            assert_eq!(answer.statuses.len(), statuses);
            assert!(answer.statuses.iter().all(|status| status.code() == Code::Ok && status.current_limit.is_none()));
        }
    }
    assert!(service.metrics().await.contains("tollgate_rls_decisions_total{outcome=\"unknown_domain\"} 5"));
}

#[tokio::test]
async fn a_tier_that_is_missing_or_unknown_is_the_default_one() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for (request, capacity) in [
        (native(&[("tenant", "a")]), 3),
        (native(&[("tenant", "b"), ("tier", "gold")]), 3),
        (native(&[("tenant", "c"), ("tier", "large")]), 10_000),
    ] {
        let answer = ask(&service, request).await;
        assert_eq!(answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit, capacity);
    }
    assert!(service.metrics().await.contains("tollgate_unknown_tiers_total 1"));
}

#[tokio::test]
async fn each_tenant_of_a_request_is_decided_by_itself() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let mut request = call("acme", "small", 0, 0);
    request.descriptors.splice(1..1, native(&[("tenant", "other")]).descriptors);
    for _ in 0..3 {
        assert_eq!(ask(&service, request.clone()).await.overall_code(), Code::Ok);
    }
    ask(&service, native(&[("tenant", "third")])).await;
    request.descriptors.extend(native(&[("tenant", "third")]).descriptors);
    let answer = ask(&service, request).await;
    let codes: Vec<_> = answer.statuses.iter().map(|status| status.code()).collect();
    assert_eq!(codes, [Code::OverLimit, Code::OverLimit, Code::Ok, Code::Ok, Code::Ok]);
    assert_eq!(answer.statuses[4].limit_remaining, 1);
}

#[tokio::test]
async fn asking_for_nothing_takes_nothing() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let mut request = native(&[("tenant", "acme")]);
    request.descriptors[0].hits_addend = Some(0);
    for _ in 0..5 {
        assert_eq!(ask(&service, request.clone()).await.statuses[0].limit_remaining, 3);
    }
    request.descriptors[0].hits_addend = Some(3);
    assert_eq!(ask(&service, request.clone()).await.overall_code(), Code::Ok);
    request.descriptors[0].hits_addend = Some(0);
    assert_eq!(ask(&service, request).await.overall_code(), Code::OverLimit);
}

#[tokio::test]
async fn unbounded_requests_are_refused() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let mut many = native(&[("tenant", "acme")]);
    many.descriptors = vec![many.descriptors[0].clone(); 33];
    let long = native(&[("tenant", &"x".repeat(257))]);
    for (request, message) in
        [(many, "33 descriptors; at most 32 are taken"), (long, "descriptor 0: a tenant is at most 256 bytes long")]
    {
        let refused = service.limiter().await.should_rate_limit(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, message));
    }
}

#[tokio::test]
async fn parallel_calls_take_no_more_than_there_is() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let limiter = service.limiter().await;
    let calls = (0..64).map(|_| {
        let mut limiter = limiter.clone();
        tokio::spawn(async move { limiter.should_rate_limit(call("acme", "small", 0, 0)).await.unwrap().into_inner() })
    });
    let mut admitted = 0;
    for answer in calls.collect::<Vec<_>>() {
        if answer.await.unwrap().overall_code() == Code::Ok {
            admitted += 1;
        }
    }
    assert_eq!(admitted, 3);
}
