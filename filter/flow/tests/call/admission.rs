//! Who is asked, what for, and what becomes of the answer.

use std::borrow::Cow;

use prost::Message;
use tollgate_flow::{Counter, Haste, Next, Reply};
use tollgate_wire::admission::{Demand, UNKNOWN_TIER, Unit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::usage_event::{Finish, UsageSource};

use crate::scene::{Code, Map, Pairs, RateLimit, START_MS, Scene, answer, answer_by, answer_with, asks};

pub(crate) const BODY: &[u8] = br#"{"id":"c1","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

#[test]
fn an_admitted_call_gives_one_event_with_all_that_was_seen() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 59))).next, Next::Continue);
    let upstream: Pairs<'_> = &[
        (":status", b"200"),
        ("content-type", b"application/json"),
        ("x-ratelimit-remaining-tokens", b"149984"),
        ("anthropic-ratelimit-requests-limit", b"50"),
    ];
    let set = scene.call.on_response_headers(&Map(upstream.to_vec()));
    scene.receive(BODY, true);
    assert!(set.contains(&("x-ratelimit-remaining-requests".into(), Some("59".to_owned()))), "{set:?}");
    assert!(set.contains(&("x-ratelimit-remaining-tokens".into(), None)), "the upstream's own is taken off: {set:?}");
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.event_id.as_str(), event.reservation_id.as_deref()), ("id-1", Some("id-1")));
    assert_eq!((event.tenant.as_str(), event.tier.as_str()), ("acme", "pro"));
    assert_eq!(event.request_id.as_deref(), Some("r1"));
    assert_eq!((event.started_at_ms, event.duration_ms), (START_MS, 10));
    assert_eq!((event.time_to_first_token_ms, event.status, event.streaming), (Some(10), 200, false));
    assert_eq!((event.tokens.input, event.tokens.output), (7, 3));
    assert_eq!((event.usage_source, event.finish), (UsageSource::Reported, Finish::Complete));
    assert_eq!((event.api.as_deref(), event.operation.as_deref()), (Some("openai-chat"), Some("chat")));
    assert_eq!((event.response_model.as_deref(), event.response_id.as_deref()), (Some("m-1"), Some("c1")));
    assert_eq!((event.request_bytes, event.response_bytes), (0, BODY.len() as u64));
    let theirs = ["x-ratelimit-remaining-tokens: 149984", "anthropic-ratelimit-requests-limit: 50"];
    assert_eq!(event.upstream_limits, theirs);
    assert_eq!(event.provider.as_deref(), Some("openai"));
    assert_eq!(scene.end("via_upstream"), None, "once");
    assert_eq!(scene.counts.of(Counter::CallsAdmitted), 1);
    assert_eq!((scene.counts.of(Counter::InputTokens), scene.counts.of(Counter::OutputTokens)), (7, 3));
}

#[test]
fn the_limiter_is_asked_for_the_tenant_and_tier_of_the_headers() {
    let mut scene = Scene::new("");
    let ask = asks(scene.request(&[("x-tenant-id", b"acme")], false));
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    let demand = Demand::read(&message, 0).unwrap();
    assert_eq!((message.domain.as_str(), demand.tenant, demand.tier), ("tollgate", "acme", None));
    assert_eq!(ask.reservation_id.as_deref(), Some("id-1"));
    let mut scene = Scene::new(r#"{"identity":{"default_tier":"trial"}}"#);
    let ask = asks(scene.request(&[("x-tenant-id", b"acme")], false));
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    assert_eq!(Demand::read(&message, 0).unwrap().tier, Some("trial"));
}

#[test]
fn embeddings_ask_for_no_output_and_a_chat_without_a_cap_for_an_unknown_one() {
    let asked = |path: &'static [u8], body: &str| {
        let mut scene = Scene::new(r#"{"request_body":{"read":"always"}}"#);
        scene.path = path;
        scene.request(&[("x-tenant-id", b"acme"), ("content-type", b"application/json")], true);
        let ask = asks(scene.send(body.as_bytes(), true));
        let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
        let demands = (0..message.descriptors.len()).map(|index| Demand::read(&message, index).unwrap());
        demands.skip(2).map(|demand| (demand.unit, demand.amount)).collect::<Vec<_>>()
    };
    assert_eq!(asked(b"/v1/embeddings", r#"{"model":"m","input":"a b c"}"#), []);
    let chat = |cap: &str| format!(r#"{{"model":"m",{cap}"messages":[{{"role":"user","content":"a"}}]}}"#);
    assert_eq!(asked(b"/v1/chat/completions", &chat("")), [(Unit::OutputTokens, 0)]);
    assert_eq!(asked(b"/v1/chat/completions", &chat(r#""max_tokens":0,"#)), [(Unit::OutputTokens, 0)]);
    assert_eq!(asked(b"/v1/chat/completions", &chat(r#""max_tokens":7,"#)), [(Unit::OutputTokens, 7)]);
}

#[test]
fn the_event_of_a_call_that_had_a_scarce_slot_is_sent_soon() {
    let slots = RateLimit { requests_per_unit: 5, unit: 0, name: "concurrency".into() };
    for (answer, haste) in [(answer_by(Code::Ok, slots, 4, &[]), Haste::Soon), (answer(Code::Ok, 59), Haste::Batched)] {
        let mut scene = Scene::new("");
        scene.ask();
        scene.answer(Some(&answer));
        scene.respond(b"200", b"application/json", b"{}");
        assert_eq!(scene.end_in_haste("via_upstream").map(|(_, haste)| haste), Some(haste));
    }
}

#[test]
fn a_denied_call_is_answered_and_gives_no_event() {
    let mut scene = Scene::new("");
    scene.ask();
    let Next::Reply(reply) = scene.answer(Some(&answer(Code::OverLimit, 0))).next else { panic!("replies") };
    assert_eq!(reply.status, 429);
    assert_eq!(scene.respond(b"429", b"application/json", b"{}"), [], "our own reply is left as it is");
    assert_eq!(scene.end("tollgate"), None);
    assert_eq!(scene.counts.of(Counter::CallsDenied), 1);
}

#[test]
fn without_an_answer_the_configured_policy_holds() {
    for (ms, counter) in [(100, Counter::AdmissionTimeouts), (5, Counter::AdmissionErrors)] {
        let mut open = Scene::new(r#"{"admission":{"on_failure":"allow"}}"#);
        open.ask();
        assert_eq!(open.answer_after(ms, None).next, Next::Continue);
        let set = open.respond(b"200", b"application/json", BODY);
        assert!(set.iter().all(|(_, value)| value.is_none()), "no limits are known: {set:?}");
        let event = open.end("via_upstream").unwrap();
        assert_eq!(event.reservation_id.as_deref(), Some("id-1"), "the limiter may have reserved all the same");
        assert_eq!(event.tokens.input, 7, "unlimited, but metered");
        assert_eq!((open.counts.of(counter), open.counts.of(Counter::CallsFailedOpen)), (1, 1));

        let mut closed = Scene::new(r#"{"admission":{"on_failure":"deny"}}"#);
        closed.ask();
        let Next::Reply(Reply { status: 503, body, .. }) = closed.answer_after(ms, None).next else { panic!("503") };
        assert!(body.contains("limiter_unavailable"), "{body}");
        let event = closed.end("tollgate").unwrap();
        assert_eq!(event.reservation_id.as_deref(), Some("id-1"), "what may be reserved is to be given back");
        assert_eq!((event.status, event.finish), (503, Finish::LocalReply));
        assert_eq!((event.usage_source, event.tokens.total()), (UsageSource::None, 0));
        assert_eq!(closed.end("tollgate"), None, "once");
        assert_eq!((closed.counts.of(counter), closed.counts.of(Counter::CallsFailedClosed)), (1, 1));
    }
}

#[test]
fn what_was_never_asked_for_is_not_reserved() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.call.on_unasked(START_MS, &scene.counts).next, Next::Continue);
    assert_eq!(scene.end("via_upstream").unwrap().reservation_id, None);

    let mut closed = Scene::new(r#"{"admission":{"on_failure":"deny"}}"#);
    closed.ask();
    assert!(matches!(closed.call.on_unasked(START_MS, &closed.counts).next, Next::Reply(Reply { status: 503, .. })));
    assert_eq!(closed.end("tollgate"), None, "there is nothing to give back");
}

const WARNING: (&str, &str) = ("x-tollgate-warning", "tokens_per_day");

fn warning() -> (Cow<'static, str>, Option<String>) {
    (WARNING.0.into(), Some(WARNING.1.to_owned()))
}

#[test]
fn a_warning_reaches_the_client_of_an_admitted_call() {
    let mut scene = Scene::new("");
    scene.ask();
    scene.answer(Some(&answer_with(
        Code::Ok,
        59,
        &[WARNING, ("x-ratelimit-limit", "theirs"), ("content-length", "3")],
    )));
    let set = scene.respond(b"200", b"application/json", BODY);
    assert_eq!(set.iter().filter(|edit| **edit == warning()).count(), 1, "{set:?}");
    let limit = set.iter().rfind(|(name, _)| name == "x-ratelimit-limit");
    assert_eq!(limit.and_then(|(_, value)| value.as_deref()), Some("theirs"), "the limiter's own word is the last");
    assert!(set.iter().all(|(name, _)| name != "content-length"), "{set:?}");
}

#[test]
fn a_warning_reaches_the_client_of_a_denied_call() {
    let mut scene = Scene::new("");
    scene.ask();
    let step = scene.answer(Some(&answer_with(Code::OverLimit, 0, &[WARNING])));
    assert!(matches!(step.next, Next::Reply(Reply { status: 429, .. })));
    assert_eq!(scene.respond(b"429", b"application/json", b"{}"), [warning()]);
    assert_eq!(scene.end("tollgate"), None);
}

#[test]
fn a_plan_that_nobody_knows_is_refused_in_the_clients_dialect() {
    let mut scene = Scene::new("");
    scene.path = b"/v1/messages";
    scene.ask();
    let limit = RateLimit { name: UNKNOWN_TIER.into(), ..RateLimit::default() };
    let Next::Reply(reply) = scene.answer(Some(&answer_by(Code::OverLimit, limit, 0, &[]))).next else { panic!() };
    assert_eq!(reply.status, 403);
    let expected = r#"{"error":{"message":"The plan `pro` is not known.","type":"permission_error"},"type":"error"}"#;
    assert_eq!(reply.body, expected);
    let names: Vec<_> = reply.headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["content-type", "x-tollgate-error"], "nothing to wait for, no limits");
    assert_eq!(scene.end("tollgate"), None);
}

#[test]
fn an_answer_that_cant_be_read_is_an_error() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.answer(Some(b"\xff")).next, Next::Continue);
    assert_eq!(scene.counts.of(Counter::AdmissionErrors), 1);
}

#[test]
fn a_call_needs_a_tenant() {
    let status = |config: &str, headers: Pairs<'_>| match Scene::new(config).request(headers, false).next {
        Next::Reply(reply) => reply.status,
        Next::Ask(_) => 0,
        next => panic!("metered: {next:?}"),
    };
    assert_eq!(status("", &[]), 401);
    assert_eq!(status("", &[("x-tenant-id", b"")]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"\xff")]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a\nb")]), 400);
    assert_eq!(status("", &[("x-tenant-id", &[b'x'; 257])]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a"), ("x-plan-tier", b"\x01")]), 400);
    assert_eq!(status("", &[("x-tenant-id", b"a")]), 0);
    assert_eq!(status(r#"{"identity":{"default_tenant":"anyone"}}"#, &[]), 0);
    assert_eq!(status(r#"{"identity":{"tenant":[{"header":"x-org"}]}}"#, &[("x-org", b"a")]), 0);
}

#[test]
fn the_key_is_recorded_and_refuses_no_call() {
    let key = |config: &str, headers: Pairs<'_>| {
        let mut scene = Scene::new(config);
        let ask = asks(scene.request(&[&[("x-tenant-id", b"acme".as_slice())], headers].concat(), false));
        let asked = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
        let key = Demand::read(&asked, 0).unwrap().key.map(str::to_owned);
        scene.answer(Some(&answer(Code::Ok, 59)));
        let event = scene.end("via_upstream").unwrap();
        assert_eq!(event.key, key, "the limiter is told of it, too");
        (key, scene.counts.of(Counter::KeysInvalid))
    };
    let config = r#"{"identity":{"key":[{"header":"x-client","match":"^app-(.*)$"},{"header":"x-user"}]}}"#;
    assert_eq!(key(config, &[("x-client", b"app-chat"), ("x-user", b"ada")]), (Some("chat".to_owned()), 0));
    assert_eq!(key(config, &[("x-client", b"other"), ("x-user", b"ada")]), (Some("ada".to_owned()), 0));
    assert_eq!(key(config, &[]), (None, 0));
    assert_eq!(key("", &[("x-client", b"app-chat")]), (None, 0), "nowhere, unless it is said where");
    for value in [b"".as_slice(), b"a\nb", b"\xff", &[b'x'; 257]] {
        assert_eq!(key(config, &[("x-user", value)]), (None, 1), "{value:?}");
    }
}

#[test]
fn what_is_not_metered_is_left_alone() {
    let mut scene = Scene::new("");
    let headers = Map(vec![(":method", b"GET"), (":path", b"/v1/models")]);
    let step = scene.call.on_request_headers(&headers, false, START_MS, || panic!("needs no id"), &scene.counts);
    assert_eq!(step, Next::Continue.into());
    assert_eq!(scene.respond(b"200", b"application/json", BODY), []);
    assert!(!scene.call.reads_response());
    assert_eq!(scene.end("via_upstream"), None);
    assert_eq!(scene.counts.of(Counter::CallsUnmetered), 1);
}

#[test]
fn headers_that_must_not_go_up_are_taken_off_every_request() {
    let mut scene = Scene::new(r#"{"metered_paths":["/v1/"],"identity":{"remove_headers":["x-tenant-id","x-no"]}}"#);
    let step = scene.request(&[("x-tenant-id", b"acme")], false);
    assert_eq!(step.headers, [("x-tenant-id".into(), None)]);
    asks(step);
    scene.path = b"/v2/unmetered";
    scene.next_call();
    let step = scene.request(&[("x-tenant-id", b"acme")], false);
    assert_eq!((step.headers, step.next), (vec![("x-tenant-id".into(), None)], Next::Continue));
}

#[test]
fn endpoints_that_no_format_claims_are_counted_and_stopped_where_the_operator_wants_it() {
    for (policy, is_stopped) in [("pass", false), ("estimate", false), ("deny", true)] {
        let mut scene = Scene::new(&format!(r#"{{"unclaimed_endpoints":"{policy}"}}"#));
        scene.path = b"/v1/audio/speech";
        let step = scene.request(&[("x-tenant-id", b"acme")], false);
        match step.next {
            Next::Reply(Reply { status: 403, body, .. }) if is_stopped => assert!(body.contains("endpoint_unclaimed")),
            Next::Ask(_) if !is_stopped => {}
            next => panic!("{policy}: {next:?}"),
        }
        assert_eq!(scene.counts.of(Counter::CallsUnclaimed), 1);
    }
}

#[test]
fn without_admission_calls_are_only_metered() {
    let mut scene = Scene::new(r#"{"admission":{"enabled":false}}"#);
    assert_eq!(scene.request(&[("x-tenant-id", b"acme")], true).next, Next::Continue);
    assert_eq!(scene.send(b"{}", true).next, Next::Continue);
    scene.respond(b"200", b"application/json", BODY);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.reservation_id, event.tokens.input), (None, 7));
}
