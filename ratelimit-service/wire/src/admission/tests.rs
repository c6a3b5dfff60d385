use super::*;
use crate::proto::envoy::config::core::v3::HeaderValue;
use crate::proto::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry};
use rate_limit_response::{Code, DescriptorStatus, RateLimit};

fn request() -> AdmissionRequest<'static> {
    AdmissionRequest {
        requests: Some(1),
        domain: "tollgate",
        tenant: "acme",
        tier: "pro",
        model: Some("gpt-4o"),
        api: None,
        key: Some("ci"),
        input_tokens: Some(12),
        output_tokens: Some(0),
        images: None,
    }
}

#[test]
fn a_request_reads_back_as_one_demand_for_each_unit() {
    let message = RateLimitRequest::decode(request().encode().as_slice()).unwrap();
    let demands: Vec<_> = (0..3).map(|index| Demand::read(&message, index).unwrap()).collect();
    assert_eq!(
        demands.iter().map(|demand| (demand.unit, demand.amount)).collect::<Vec<_>>(),
        [(Unit::Requests, 1), (Unit::InputTokens, 12), (Unit::OutputTokens, 0)]
    );
    for demand in demands {
        assert_eq!((demand.tenant, demand.tier, demand.model, demand.api), ("acme", Some("pro"), Some("gpt-4o"), None));
        assert_eq!(demand.key, Some("ci"));
    }
    assert_eq!(Demand::read(&message, 3), None);
}

#[test]
fn images_are_asked_for_last() {
    let request = AdmissionRequest { images: Some(2), ..request() };
    let message = RateLimitRequest::decode(request.encode().as_slice()).unwrap();
    let units: Vec<_> =
        (0..message.descriptors.len()).map(|index| Demand::read(&message, index).unwrap().unit).collect();
    assert_eq!(units, Unit::ALL);
    assert_eq!(Demand::read(&message, 3).unwrap().amount, 2);
}

#[test]
fn what_asks_for_one_amount_tells_it_at_both_places() {
    let report = |input_tokens| AdmissionRequest { requests: None, input_tokens, output_tokens: None, ..request() };
    let read = |request: &AdmissionRequest<'_>| RateLimitRequest::decode(request.encode().as_slice()).unwrap();
    let one = read(&report(Some(7)));
    assert_eq!((one.hits_addend, one.descriptors[0].hits_addend, one.descriptors.len()), (7, Some(7), 1));
    assert_eq!(read(&report(Some(u64::MAX))).hits_addend, u32::MAX);
    assert_eq!(read(&request()).hits_addend, 0);
}

#[test]
fn a_descriptor_without_unit_and_addend_asks_for_one_request() {
    let entries = vec![Entry { key: "tenant".into(), value: "acme".into() }];
    let descriptor = RateLimitDescriptor { entries, ..Default::default() };
    let mut message = RateLimitRequest { descriptors: vec![descriptor], ..Default::default() };
    let demand = Demand::read(&message, 0).unwrap();
    assert_eq!((demand.unit, demand.amount, demand.tier), (Unit::Requests, 1, None));
    message.hits_addend = 5;
    assert_eq!(Demand::read(&message, 0).unwrap().amount, 5);
    message.descriptors[0].hits_addend = Some(0);
    assert_eq!(Demand::read(&message, 0).unwrap().amount, 0);
    message.descriptors[0].entries[0].key = "remote_address".into();
    assert_eq!(Demand::read(&message, 0), None);
}

#[test]
fn statuses_take_their_unit_from_their_place() {
    let status = |code: Code, name: &str| DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit { requests_per_unit: 60, unit: WindowUnit::Minute.into(), name: name.into() }),
        limit_remaining: 7,
        duration_until_reset: Some(prost_types::Duration { seconds: 1, nanos: 1 }),
        quota: None,
    };
    let no_limit = DescriptorStatus { code: Code::Ok.into(), ..Default::default() };
    let response = RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        statuses: vec![status(Code::OverLimit, "requests"), no_limit, status(Code::Ok, "tokens")],
        ..Default::default()
    };
    let answer = AdmissionResponse::decode(&response.encode_to_vec()).unwrap();
    assert_eq!(answer.decision, Decision::Denied);
    let seen: Vec<_> = answer.limits.iter().map(|limit| (limit.unit, limit.decision, limit.reset_ms)).collect();
    assert_eq!(
        seen,
        [(Unit::Requests, Decision::Denied, Some(1001)), (Unit::OutputTokens, Decision::Admitted, Some(1001))]
    );
}

#[test]
fn a_limit_counts_what_its_name_says_or_else_its_place() {
    for (unit, name, counts) in [
        (Unit::Requests, "concurrency", LimitUnit::Concurrency),
        (Unit::OutputTokens, "cost_per_day", LimitUnit::Cost),
        (Unit::InputTokens, "tokens_per_minute", LimitUnit::Tokens),
        (Unit::InputTokens, "theirs", LimitUnit::InputTokens),
        (Unit::Requests, "", LimitUnit::Requests),
    ] {
        assert_eq!(LimitStatus { name: name.into(), ..refusing(unit, "") }.counts(), counts, "{name}");
    }
}

#[test]
fn the_headers_to_add_are_read() {
    let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into() };
    let response = RateLimitResponse {
        overall_code: Code::Ok.into(),
        response_headers_to_add: vec![header("x-tollgate-warning", "tokens_per_day"), header("connection", "x")],
        ..Default::default()
    };
    let answer = AdmissionResponse::decode(&response.encode_to_vec()).unwrap();
    assert_eq!(answer.response_headers, [("x-tollgate-warning".to_owned(), "tokens_per_day".to_owned())]);
}

fn refusing(unit: Unit, name: &str) -> LimitStatus {
    LimitStatus {
        unit,
        decision: Decision::Denied,
        name: name.into(),
        capacity: 4096,
        window: WindowUnit::Unknown,
        remaining: 0,
        reset_ms: None,
    }
}

fn response(decision: Decision, limit: LimitStatus) -> AdmissionResponse {
    AdmissionResponse { decision, limits: vec![limit], response_headers: Vec::new(), lease: None, denial: None }
}

#[test]
fn an_unknown_tier_is_told_from_a_limit() {
    let unknown = refusing(Unit::Requests, UNKNOWN_TIER);
    assert!(response(Decision::Denied, unknown.clone()).is_tier_unknown());
    assert!(!response(Decision::Admitted, unknown.clone()).is_tier_unknown());
    for other in [
        LimitStatus { unit: Unit::InputTokens, ..unknown.clone() },
        LimitStatus { decision: Decision::Admitted, ..unknown.clone() },
        LimitStatus { name: "requests_per_minute".into(), ..unknown.clone() },
        LimitStatus { window: WindowUnit::Minute, ..unknown },
    ] {
        assert!(!response(Decision::Denied, other.clone()).is_tier_unknown(), "{other:?}");
    }
}

#[test]
fn a_denial_by_the_context_is_told_from_one_by_a_limit() {
    let too_long = refusing(Unit::InputTokens, CONTEXT_LIMIT);
    let told = |decision, limit| response(decision, limit).context_exceeded();
    assert_eq!(told(Decision::Denied, too_long.clone()), Some(4096));
    assert_eq!(told(Decision::Admitted, too_long.clone()), None);
    for other in [
        LimitStatus { unit: Unit::OutputTokens, ..too_long.clone() },
        LimitStatus { decision: Decision::Admitted, ..too_long.clone() },
        LimitStatus { name: "tokens_per_minute".into(), ..too_long.clone() },
        LimitStatus { window: WindowUnit::Minute, ..too_long },
    ] {
        assert_eq!(told(Decision::Denied, other.clone()), None, "{other:?}");
    }
}

#[test]
fn the_unknown_code_admits_and_other_bytes_are_an_error() {
    assert_eq!(AdmissionResponse::decode(&[]).unwrap().decision, Decision::Admitted);
    assert!(AdmissionResponse::decode(&[0xff]).is_err());
}

#[test]
fn a_negative_reset_counts_as_now() {
    assert_eq!(duration_ms(&prost_types::Duration { seconds: -1, nanos: -1 }), 0);
}
