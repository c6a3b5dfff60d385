//! A call's way through the state machine, event by event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use prost::Message;
use tollgate_flow::{AnswerAction, Call, Config, Counter, Gauge, Headers, Histogram, Recorder, Reply, RequestAction};
use tollgate_wire::admission::Demand;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response};
use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

use rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit};

const START_MS: u64 = 1_700_000_000_000;

struct Map(Vec<(&'static str, &'static [u8])>);

impl Headers for Map {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

#[derive(Default)]
struct Counts(RefCell<BTreeMap<&'static str, u64>>);

impl Recorder for Counts {
    fn add(&self, counter: Counter, amount: u64) {
        *self.0.borrow_mut().entry(counter.name()).or_default() += amount;
    }
    fn observe(&self, histogram: Histogram, value: u64) {
        self.0.borrow_mut().insert(histogram.name(), value);
    }
    fn shift(&self, _: Gauge, _: i64) {}
}

impl Counts {
    fn of(&self, counter: Counter) -> u64 {
        self.0.borrow().get(counter.name()).copied().unwrap_or(0)
    }
}

struct Scene {
    call: Call,
    counts: Counts,
}

impl Scene {
    fn new(config: &str) -> Scene {
        Scene { call: Call::new(Rc::new(Config::parse(config.as_bytes()).unwrap())), counts: Counts::default() }
    }

    fn request(&mut self, headers: &[(&'static str, &'static [u8])]) -> RequestAction {
        let mut all = vec![(":method", b"POST".as_slice()), (":path", b"/v1/chat/completions")];
        all.extend_from_slice(headers);
        self.call.on_request_headers(&Map(all), START_MS, || "id-1".to_owned(), &self.counts)
    }

    fn ask(&mut self) {
        let action = self.request(&[("x-tenant-id", b"acme"), ("x-plan-tier", b"pro"), ("x-request-id", b"r1")]);
        assert!(matches!(action, RequestAction::Ask(_)), "{action:?}");
    }

    fn answer(&mut self, answer: Option<&[u8]>) -> AnswerAction {
        self.answer_after(5, answer)
    }

    fn answer_after(&mut self, ms: u64, answer: Option<&[u8]>) -> AnswerAction {
        self.call.on_answer(answer, START_MS + ms, &self.counts)
    }

    fn respond(&mut self, status: &'static [u8], body: &[u8]) -> Vec<(&'static str, Option<String>)> {
        let headers = Map(vec![(":status", status), ("content-type", b"application/json")]);
        let set = self.call.on_response_headers(&headers);
        self.call.on_response_body(body, || START_MS + 10, &self.counts);
        set
    }

    fn end(&mut self, details: &str) -> Option<UsageEvent> {
        self.call.on_end(details, START_MS + 20, &self.counts)
    }
}

fn answer(code: Code, remaining: u32) -> Vec<u8> {
    let limit = RateLimit { requests_per_unit: 60, unit: Unit::Minute.into(), name: "requests".into() };
    let status = DescriptorStatus {
        code: code.into(),
        current_limit: Some(limit),
        limit_remaining: remaining,
        duration_until_reset: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        quota: None,
    };
    RateLimitResponse { overall_code: code.into(), statuses: vec![status], ..Default::default() }.encode_to_vec()
}

const BODY: &[u8] = br#"{"id":"c1","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

#[test]
fn an_admitted_call_gives_one_event_with_all_that_was_seen() {
    let mut scene = Scene::new("");
    scene.ask();
    scene.call.on_request_body(11);
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 59))), AnswerAction::Forward);
    let set = scene.respond(b"200", BODY);
    assert!(set.contains(&("x-ratelimit-remaining-requests", Some("59".to_owned()))), "{set:?}");
    assert!(set.contains(&("x-ratelimit-remaining-tokens", None)), "the upstream's own is taken off: {set:?}");
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.event_id.as_str(), event.reservation_id.as_deref()), ("id-1", Some("id-1")));
    assert_eq!((event.tenant.as_str(), event.tier.as_str()), ("acme", "pro"));
    assert_eq!(event.request_id.as_deref(), Some("r1"));
    assert_eq!((event.started_at_ms, event.duration_ms), (START_MS, 20));
    assert_eq!((event.time_to_first_token_ms, event.status, event.streaming), (Some(10), 200, false));
    assert_eq!((event.tokens.input, event.tokens.output), (7, 3));
    assert_eq!((event.usage_source, event.finish), (UsageSource::Reported, Finish::Complete));
    assert_eq!((event.api.as_deref(), event.operation.as_deref()), (Some("openai-chat"), Some("chat")));
    assert_eq!((event.response_model.as_deref(), event.response_id.as_deref()), (Some("m-1"), Some("c1")));
    assert_eq!((event.request_bytes, event.response_bytes), (11, BODY.len() as u64));
    assert_eq!(scene.end("via_upstream"), None, "once");
    assert_eq!(scene.counts.of(Counter::CallsAdmitted), 1);
    assert_eq!((scene.counts.of(Counter::InputTokens), scene.counts.of(Counter::OutputTokens)), (7, 3));
}

#[test]
fn the_limiter_is_asked_for_the_tenant_and_tier_of_the_headers() {
    let mut scene = Scene::new("");
    let RequestAction::Ask(ask) = scene.request(&[("x-tenant-id", b"acme")]) else { panic!("asks") };
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    let demand = Demand::read(&message, 0).unwrap();
    assert_eq!((message.domain.as_str(), demand.tenant, demand.tier), ("tollgate", "acme", Some("starter")));
    assert_eq!(ask.reservation_id, "id-1");
}

#[test]
fn a_denied_call_is_answered_and_gives_no_event() {
    let mut scene = Scene::new("");
    scene.ask();
    let AnswerAction::Reply(reply) = scene.answer(Some(&answer(Code::OverLimit, 0))) else { panic!("replies") };
    assert_eq!(reply.status, 429);
    assert_eq!(scene.respond(b"429", b"{}"), [], "our own reply is left as it is");
    assert_eq!(scene.end("tollgate"), None);
    assert_eq!(scene.counts.of(Counter::CallsDenied), 1);
}

#[test]
fn without_an_answer_the_configured_policy_holds() {
    for (ms, counter) in [(100, Counter::AdmissionTimeouts), (5, Counter::AdmissionErrors)] {
        let mut open = Scene::new(r#"{"admission":{"on_failure":"allow"}}"#);
        open.ask();
        assert_eq!(open.answer_after(ms, None), AnswerAction::Forward);
        let set = open.respond(b"200", BODY);
        assert!(set.iter().all(|(_, value)| value.is_none()), "no limits are known: {set:?}");
        let event = open.end("via_upstream").unwrap();
        assert_eq!(event.reservation_id.as_deref(), Some("id-1"), "the limiter may have reserved all the same");
        assert_eq!(event.tokens.input, 7, "unlimited, but metered");
        assert_eq!((open.counts.of(counter), open.counts.of(Counter::CallsFailedOpen)), (1, 1));

        let mut closed = Scene::new(r#"{"admission":{"on_failure":"deny"}}"#);
        closed.ask();
        let AnswerAction::Reply(Reply { status: 503, body, .. }) = closed.answer_after(ms, None) else { panic!("503") };
        assert!(body.contains("limiter_unavailable"), "{body}");
        assert_eq!(closed.end("tollgate"), None);
        assert_eq!((closed.counts.of(counter), closed.counts.of(Counter::CallsFailedClosed)), (1, 1));
    }
}

#[test]
fn what_was_never_asked_for_is_not_reserved() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.call.on_unasked(START_MS, &scene.counts), AnswerAction::Forward);
    assert_eq!(scene.end("via_upstream").unwrap().reservation_id, None);
}

#[test]
fn an_answer_that_cant_be_read_is_an_error() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.answer(Some(b"\xff")), AnswerAction::Forward);
    assert_eq!(scene.counts.of(Counter::AdmissionErrors), 1);
}

#[test]
fn a_call_needs_a_tenant() {
    let status = |config: &str, headers: &[(&'static str, &'static [u8])]| match Scene::new(config).request(headers) {
        RequestAction::Reply(reply) => reply.status,
        RequestAction::Ask(_) => 0,
        RequestAction::Pass => panic!("metered"),
    };
    assert_eq!(status("", &[]), 401);
    assert_eq!(status("", &[("x-tenant-id", b"")]), 401);
    assert_eq!(status("", &[("x-tenant-id", b"\xff")]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a\nb")]), 400);
    assert_eq!(status("", &[("x-tenant-id", &[b'x'; 257])]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a"), ("x-plan-tier", b"\x01")]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a")]), 0);
    assert_eq!(status(r#"{"identity":{"default_tenant":"anyone"}}"#, &[]), 0);
    assert_eq!(status(r#"{"identity":{"tenant_header":"x-org"}}"#, &[("x-org", b"a")]), 0);
}

#[test]
fn what_is_not_metered_is_left_alone() {
    let mut scene = Scene::new("");
    let headers = Map(vec![(":method", b"GET"), (":path", b"/v1/models")]);
    let action = scene.call.on_request_headers(&headers, START_MS, || panic!("needs no id"), &scene.counts);
    assert_eq!(action, RequestAction::Pass);
    assert_eq!(scene.respond(b"200", BODY), []);
    assert!(!scene.call.reads_response());
    assert_eq!(scene.end("via_upstream"), None);
    assert_eq!(scene.counts.of(Counter::CallsUnmetered), 1);
}

#[test]
fn every_end_gives_one_event() {
    let ends = [
        ("via_upstream", Finish::Complete),
        ("downstream_remote_disconnect", Finish::ClientGone),
        ("http2.remote_reset", Finish::ClientGone),
        ("", Finish::ClientGone),
        ("upstream_reset_after_response_started{connection_termination}", Finish::UpstreamReset),
        ("upstream_reset_before_response_started{connection_failure}", Finish::UpstreamReset),
        ("upstream_response_timeout", Finish::UpstreamTimeout),
        ("stream_idle_timeout", Finish::UpstreamTimeout),
        ("no_healthy_upstream", Finish::LocalReply),
    ];
    for (details, finish) in ends {
        let mut scene = Scene::new("");
        scene.ask();
        scene.answer(Some(&answer(Code::Ok, 1)));
        scene.respond(b"200", &BODY[..30]);
        let event = scene.end(details).unwrap();
        assert_eq!((event.finish, event.usage_source), (finish, UsageSource::None), "{details}");
        assert_eq!(scene.counts.of(Counter::UsageMissing), 1);
    }
}

#[test]
fn a_client_that_leaves_while_the_limiter_is_asked_gives_an_event() {
    let mut scene = Scene::new("");
    scene.ask();
    let event = scene.end("downstream_remote_disconnect").unwrap();
    assert_eq!((event.finish, event.status, event.tokens.total()), (Finish::ClientGone, 0, 0));
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 1))), AnswerAction::Ignore);
}
