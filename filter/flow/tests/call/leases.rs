//! Calls that go on by a lease, and denials that hold for a while.

use prost::Message;
use tollgate_flow::{Counter, Gauge, Next};
use tollgate_wire::admission::{Denial, DeniedCalls, LEASE_METADATA, Lease, LeaseRequest, Unit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::Quota;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::LeaseReturned;

use crate::scene::{Code, Pairs, START_MS, Scene, answer, asks};

const HEADERS: Pairs<'_> = &[("x-tenant-id", b"acme"), ("x-plan-tier", b"pro")];

fn lease(calls: u32) -> Lease {
    let id = Lease::id_of("019ac0de-1234-7abc-8def-0123456789ab").unwrap();
    Lease { id, calls, input_tokens: 0, output_tokens: 100, expires_at_ms: START_MS + 1_000 }
}

/// The answer of [`answer`], with these quotas.
fn with_quotas(code: Code, remaining: u32, quotas: impl Fn(Unit) -> Option<Quota>) -> Vec<u8> {
    let mut response = RateLimitResponse::decode(answer(code, remaining).as_slice()).unwrap();
    response.statuses.resize_with(3, Default::default);
    for (unit, status) in Unit::ALL.into_iter().zip(&mut response.statuses) {
        status.quota = quotas(unit);
    }
    response.encode_to_vec()
}

/// A denial that holds for 400 ms.
fn denial(calls: DeniedCalls) -> Vec<u8> {
    let quota = Denial { until_ms: START_MS + 400, calls }.quota();
    with_quotas(Code::OverLimit, 0, |unit| (unit == Unit::Requests).then(|| quota.clone()))
}

/// A worker whose kind of calls was called often, up to the question for a lease.
fn hot(config: &str) -> (Scene, tollgate_flow::LeaseAsk) {
    let mut scene = Scene::new(config);
    for _ in 0..10 {
        assert!(scene.shared.lease_asks(START_MS).is_empty(), "it is not called often yet");
        scene.admit();
        scene.next_call();
    }
    let mut asks = scene.shared.lease_asks(START_MS);
    assert_eq!(asks.len(), 1);
    assert!(scene.shared.lease_asks(START_MS).is_empty(), "one question at a time");
    (scene, asks.remove(0))
}

#[test]
fn a_lease_is_asked_for_by_a_question_that_takes_nothing_itself() {
    let (_, ask) = hot("{}");
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    assert_eq!(message.descriptors.iter().map(|descriptor| descriptor.hits_addend).collect::<Vec<_>>(), [Some(0); 3]);
    let wanted = LeaseRequest::parse(&ask.lease).unwrap();
    assert_eq!((wanted.now_ms, wanted.calls_per_s, wanted.has_uncapped), (START_MS, 10, true));
    assert_eq!(LEASE_METADATA, "x-tollgate-lease");
}

#[test]
fn its_calls_go_on_without_asking_each_under_an_id_of_its_own_and_the_rest_goes_back() {
    let (mut scene, ask) = hot("{}");
    let granted = with_quotas(Code::Ok, 50, |unit| Some(lease(3).quota(unit)));
    scene.shared.on_lease_answer(&ask.kind, Some(&granted), START_MS, &scene.counts);
    for index in 0..2 {
        assert_eq!(scene.request(HEADERS, false).next, Next::Continue);
        let headers = scene.respond(b"200", b"application/json", b"{}");
        assert!(headers.iter().any(|(name, _)| name == "x-ratelimit-remaining"), "{headers:?}");
        let event = scene.end("via_upstream").unwrap();
        assert_eq!(event.event_id, Lease::call_id(&lease(3).id, index));
        assert_eq!(event.reservation_id.as_deref(), Some(event.event_id.as_str()));
        scene.next_call();
    }
    assert_eq!(scene.counts.of(Counter::CallsLeased), 2);
    assert!(scene.shared.returned_leases(START_MS, &scene.counts).is_empty());
    assert_eq!(scene.counts.of_gauge(Gauge::CallsStranded), 1);
    assert_eq!(scene.shared.lease_asks(START_MS + 1_000).len(), 1, "the next one");
    let returned = scene.shared.returned_leases(START_MS + 1_000, &scene.counts);
    assert_eq!(scene.counts.of_gauge(Gauge::CallsStranded), 0);
    let record = LogRecord::decode(returned[0].as_slice()).unwrap();
    let returned = LeaseReturned::read(&record).unwrap().unwrap();
    assert_eq!((returned.id.as_str(), returned.calls, returned.used), (lease(3).id.as_str(), 3, 2));
    assert_eq!((returned.tenant.as_str(), returned.tier.as_str()), ("acme", "pro"));
    assert_eq!((scene.counts.of(Counter::CallsLent), scene.counts.of(Counter::CallsReturned)), (3, 1));
}

#[test]
fn a_call_that_asks_for_more_or_is_of_another_kind_asks_for_itself() {
    let (mut scene, ask) = hot("{}");
    let granted = with_quotas(Code::Ok, 50, |unit| Some(lease(3).quota(unit)));
    scene.shared.on_lease_answer(&ask.kind, Some(&granted), START_MS, &scene.counts);
    asks(scene.request(&[("x-tenant-id", b"acme"), ("x-plan-tier", b"other")], false));
    scene.next_call();
    asks(scene.request(&[("x-tenant-id", b"other"), ("x-plan-tier", b"pro")], false));
    assert_eq!(scene.counts.of(Counter::CallsLeased), 0);
}

#[test]
fn an_answer_that_nobody_waits_for_is_given_back_as_a_whole() {
    let (scene, ask) = hot("{}");
    scene.shared.on_lease_answer(&ask.kind, None, START_MS, &scene.counts);
    let granted = with_quotas(Code::Ok, 50, |unit| Some(lease(3).quota(unit)));
    scene.shared.on_lease_answer(&ask.kind, Some(&granted), START_MS, &scene.counts);
    assert_eq!(scene.shared.returned_leases(START_MS, &scene.counts).len(), 1);
}

#[test]
fn a_denial_holds_as_long_as_it_says_and_no_event_is_due() {
    let mut scene = Scene::new("{}");
    let ask = scene.ask();
    assert_eq!(LeaseRequest::parse(ask.lease.as_deref().unwrap()).unwrap().calls_per_s, 1);
    let denied = denial(DeniedCalls::Alike);
    assert!(matches!(scene.answer_after(0, Some(&denied)).next, Next::Reply(reply) if reply.status == 429));
    let replies = [0, 0, 399].map(|ms| {
        scene.next_call();
        let Next::Reply(reply) = scene.request_at(START_MS + ms, HEADERS, false).next else { panic!("it goes on") };
        assert_eq!(reply.status, 429);
        assert_eq!(scene.end("local_reply"), None);
        reply
    });
    assert_eq!(replies[0], replies[1]);
    assert_ne!(replies[0], replies[2], "what is left to wait is told as it is then");
    assert_eq!(scene.counts.of(Counter::CallsDeniedFromCache), 3);
    assert_eq!(scene.counts.of(Counter::CallsDenied), 4);
    scene.next_call();
    asks(scene.request_at(START_MS + 400, HEADERS, false));
}

/// With a body, whose model is seen only when that has come.
const WITH_BODY: Pairs<'_> = &[
    ("x-tenant-id", b"acme"),
    ("x-plan-tier", b"pro"),
    ("content-type", b"application/json"),
    ("content-length", b"20"),
];

#[test]
fn where_all_calls_are_denied_no_more_than_headers_is_read_and_the_answer_waits_for_the_end() {
    let mut scene = Scene::new(r#"{"request_body": {"read": "always"}}"#);
    scene.ask();
    scene.answer_after(0, Some(&denial(DeniedCalls::All)));
    // What is denied once more is known to be denied as a whole.
    scene.next_call();
    assert!(matches!(scene.request(HEADERS, false).next, Next::Reply(_)));
    for model in [r#"{"model":"a"}"#, r#"{"model":"b"}"#] {
        scene.next_call();
        assert_eq!(scene.request(WITH_BODY, true).next, Next::Wait);
        assert_eq!(scene.call.held_bytes(), usize::MAX, "none of the body is wanted");
        assert_eq!(scene.send(&[], false).next, Next::Wait);
        assert!(matches!(scene.send(&[], true).next, Next::Reply(reply) if reply.status == 429), "{model}");
        assert_eq!(scene.end("local_reply"), None);
    }
    // Another API's clients are spoken to in its own words.
    scene.path = b"/v1/messages";
    scene.next_call();
    let Next::Reply(reply) = scene.request(HEADERS, false).next else { panic!("it goes on") };
    assert!(reply.body.contains(r#""type":"rate_limit_error""#), "{}", reply.body);
    assert_eq!(scene.counts.of(Counter::CallsDeniedFromCache), 4);

    // Nobody else's, and no longer.
    scene.next_call();
    asks(scene.request(&[("x-tenant-id", b"acme"), ("x-plan-tier", b"other")], false));
    scene.next_call();
    asks(scene.request_at(START_MS + 400, HEADERS, false));
}

#[test]
fn a_body_of_unknown_length_is_read_though_all_calls_are_denied() {
    let mut scene = Scene::new(r#"{"request_body": {"read": "always"}}"#);
    for _ in 0..2 {
        scene.next_call();
        if let Next::Ask(_) = scene.request(HEADERS, false).next {
            scene.answer_after(0, Some(&denial(DeniedCalls::All)));
        }
    }
    scene.next_call();
    assert_eq!(scene.request(&[HEADERS, &[("content-type", b"application/json")]].concat(), true).next, Next::Wait);
    assert_eq!(scene.call.held_bytes(), 0);
    asks(scene.send(br#"{"model":"a"}"#, true));
}

#[test]
fn what_is_lent_is_used_though_all_other_calls_are_denied() {
    let (mut scene, ask) = hot("{}");
    let quota = |unit| Some(lease(2).quota(unit));
    let mut granted = RateLimitResponse::decode(with_quotas(Code::Ok, 0, quota).as_slice()).unwrap();
    granted.quota = Some(Denial { until_ms: START_MS + 1_000, calls: DeniedCalls::All }.quota());
    scene.shared.on_lease_answer(&ask.kind, Some(&granted.encode_to_vec()), START_MS, &scene.counts);
    // One of another kind is denied, and no other by that: some are lent.
    scene.path = b"/v1/messages";
    scene.ask();
    scene.answer_after(0, Some(&denial(DeniedCalls::All)));
    scene.next_call();
    assert!(matches!(scene.request(HEADERS, false).next, Next::Reply(_)));
    scene.path = b"/v1/chat/completions";
    for _ in 0..2 {
        scene.next_call();
        assert_eq!(scene.request(HEADERS, false).next, Next::Continue);
    }
    for _ in 0..3 {
        scene.next_call();
        assert!(matches!(scene.request(HEADERS, false).next, Next::Reply(reply) if reply.status == 429));
    }
    assert_eq!(scene.counts.of(Counter::CallsLeased), 2);
    // A lease of any kind opens the way again.
    let asked = scene.shared.lease_asks(START_MS + 950);
    let later =
        with_quotas(Code::Ok, 9, |unit| Some(Lease { expires_at_ms: START_MS + 2_000, ..lease(1) }.quota(unit)));
    scene.shared.on_lease_answer(&asked[0].kind, Some(&later), START_MS + 950, &scene.counts);
    scene.next_call();
    assert_eq!(scene.request_at(START_MS + 950, HEADERS, false).next, Next::Continue);
}

#[test]
fn a_server_that_tells_of_no_lease_is_asked_about_each_call() {
    let (mut scene, ask) = hot("{}");
    scene.shared.on_lease_answer(&ask.kind, Some(&answer(Code::Ok, 50)), START_MS, &scene.counts);
    scene.ask();
    scene.answer_after(0, Some(&answer(Code::OverLimit, 0)));
    scene.next_call();
    scene.ask();
    assert_eq!(scene.counts.of(Counter::CallsDeniedFromCache), 0);
}

#[test]
fn with_leases_off_nothing_is_said_of_them() {
    let mut scene = Scene::new(r#"{"admission": {"leases": "off"}}"#);
    for _ in 0..20 {
        assert_eq!(scene.ask().lease, None);
        scene.answer(Some(&answer(Code::Ok, 59)));
        scene.next_call();
    }
    assert!(scene.shared.lease_asks(START_MS).is_empty());
}
