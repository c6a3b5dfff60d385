//! Requests' bodies: waited for where they come, read, and changed where their answer would not tell its usage.

use prost::Message;
use tollgate_flow::{Counter, HeaderEdit, Next};
use tollgate_wire::admission::{Demand, Unit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;

use crate::scene::{Code, Pairs, Scene, answer, asks};

const ALWAYS: &str = r#"{"request_body":{"read":"always","max_bytes":200}}"#;
const CALL: Pairs<'_> = &[("x-tenant-id", b"acme"), ("content-type", b"application/json")];
const BODY: &[u8] =
    br#"{"model":"gpt-4o","messages":[{"role":"user","content":"How does a tollgate count?"}],"max_tokens":50}"#;
const STREAM: &[u8] = br#"{"model":"gpt-4o","messages":[],"stream":true}"#;
const STREAM_ASKING: &[u8] =
    br#"{"model":"gpt-4o","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;

fn with_length(length: &'static str) -> Vec<(&'static str, &'static [u8])> {
    [CALL, &[("content-length", length.as_bytes()), ("accept-encoding", b"gzip, br")]].concat()
}

fn edit(name: &'static str, value: Option<&str>) -> HeaderEdit {
    (name.into(), value.map(str::to_owned))
}

#[test]
fn a_call_waits_for_its_body_and_asks_for_what_it_says() {
    let mut scene = Scene::new(ALWAYS);
    assert_eq!(scene.request(CALL, true), Next::Wait.into());
    let (first, rest) = BODY.split_at(40);
    assert_eq!(scene.send(first, false), Next::Wait.into());
    assert_eq!(scene.call.held_bytes(), 40);
    let ask = asks(scene.send(rest, true));
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    let demands: Vec<_> = (0..3).map(|at| Demand::read(&message, at).unwrap()).collect();
    assert!(demands.iter().all(|demand| (demand.model, demand.api) == (Some("gpt-4o"), Some("openai-chat"))));
    let amount = |unit| demands.iter().find(|demand| demand.unit == unit).unwrap().amount;
    assert_eq!((amount(Unit::Requests), amount(Unit::OutputTokens)), (1, 50));
    assert!((6..30).contains(&amount(Unit::InputTokens)), "{}", amount(Unit::InputTokens));
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 1))).next, Next::Continue);
    assert_eq!(scene.call.held_bytes(), 0);
    let event = scene.end("downstream_remote_disconnect").unwrap();
    assert_eq!((event.request_model.as_deref(), event.output_cap), (Some("gpt-4o"), Some(50)));
    assert_eq!(event.input_estimate, Some(amount(Unit::InputTokens)));
    assert_eq!(event.request_bytes, BODY.len() as u64);
}

#[test]
fn bodies_that_cant_be_read_or_held_are_not_waited_for() {
    let cases: &[Pairs<'_>] = &[
        &[("x-tenant-id", b"acme"), ("content-type", b"multipart/form-data; boundary=x")],
        &[("x-tenant-id", b"acme"), ("content-encoding", b"gzip")],
        &[("x-tenant-id", b"acme"), ("content-encoding", b"Br")],
        &[("x-tenant-id", b"acme"), ("content-length", b"201")],
    ];
    for headers in cases {
        asks(Scene::new(ALWAYS).request(headers, true));
    }
    asks(Scene::new(ALWAYS).request(CALL, false));
    asks(Scene::new(r#"{"request_body":{"read":"never"}}"#).request(CALL, true));
}

#[test]
fn until_a_body_has_come_while_its_headers_were_held_none_is_waited_for() {
    let mut scene = Scene::new("");
    let announced = with_length("46");
    asks(scene.request(&announced, true));
    assert_eq!(scene.send(BODY, true).next, Next::Wait);
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 1))).next, Next::Continue);
    scene.next_call();
    assert_eq!(scene.request(&announced, true).next, Next::Wait);
    scene.next_call();
    asks(scene.request(CALL, true));
    assert_eq!(scene.send(b"{", false).next, Next::Continue, "nobody knows how long it is");

    // Where they come only afterwards, headers are all there is.
    let mut scene = Scene::new("");
    for _ in 0..2 {
        asks(scene.request(CALL, true));
        assert_eq!(scene.answer(Some(&answer(Code::Ok, 1))).next, Next::Continue);
        assert_eq!(scene.send(BODY, true), Next::Continue.into());
        assert_eq!(scene.end("via_upstream").unwrap().request_model.as_deref(), Some("gpt-4o"));
        scene.next_call();
    }
}

#[test]
fn what_gets_too_long_goes_on_while_the_limiter_is_asked() {
    let mut scene = Scene::new(ALWAYS);
    assert_eq!(scene.request(CALL, true).next, Next::Wait);
    let Next::AskAndContinue(_) = scene.send(&[b' '; 201], false).next else { panic!("asks and goes on") };
    assert_eq!(scene.call.held_bytes(), 0);
    assert_eq!(scene.send(b"{}", true).next, Next::Continue);
    let Next::Reply(reply) = scene.answer(Some(&answer(Code::OverLimit, 0))).next else { panic!("stopped late") };
    assert_eq!(reply.status, 429);

    // What is announced to be too long is asked for at once, and goes on as it comes.
    let mut scene = Scene::new(ALWAYS);
    asks(scene.request(&with_length("1000"), true));
    let step = scene.send(&[b' '; 1], false);
    assert_eq!(step.next, Next::Continue);
    assert_eq!(step.headers, [edit("content-length", None), edit("accept-encoding", None)]);
    scene.respond(b"200", b"application/json", b"{}");
    assert_eq!(scene.answer(Some(&answer(Code::OverLimit, 0))).next, Next::Wait, "the answer has begun");
    assert_eq!(scene.counts.of(Counter::DenialsTooLate), 1);
    assert!(scene.end("via_upstream").is_some());
}

#[test]
fn a_stream_is_asked_for_its_usage() {
    let mut scene = Scene::new(ALWAYS);
    scene.request(&with_length("46"), true);
    let step = scene.send(STREAM, true);
    assert_eq!(step.body.as_deref(), Some(STREAM_ASKING));
    asks(step);
    let step = scene.answer(Some(&answer(Code::Ok, 1)));
    let length = STREAM_ASKING.len().to_string();
    assert_eq!(step.headers, [edit("content-length", Some(&length)), edit("accept-encoding", None)]);

    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]USAGE}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    let answered = format!("{}{usage}data: [DONE]\n\n", chunk.replace("USAGE", ",\"usage\":null"));
    scene.respond(b"200", b"text/event-stream", b"");
    let mut received = scene.receive(&answered.as_bytes()[..60], false);
    received.extend(scene.receive(&answered.as_bytes()[60..], true));
    let expected = format!("{}data: [DONE]\n\n", chunk.replace("USAGE", ""));
    assert_eq!(String::from_utf8_lossy(&received), expected, "as the client would have got it");
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.tokens.input, event.tokens.output, event.streaming), (1, 2, true));
    assert_eq!(event.request_bytes, STREAM.len() as u64);
}

#[test]
fn a_stream_is_asked_for_its_usage_while_it_passes_too() {
    let mut scene = Scene::new(r#"{"request_body":{"read":"never"}}"#);
    asks(scene.request(&with_length("46"), true));
    let step = scene.answer(Some(&answer(Code::Ok, 1)));
    assert_eq!(step.headers, [edit("content-length", None), edit("accept-encoding", None)]);
    let mut sent = Vec::new();
    for (at, byte) in STREAM.iter().enumerate() {
        let step = scene.send(&[*byte], at + 1 == STREAM.len());
        sent.extend(step.body.unwrap_or(vec![*byte]));
    }
    assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(STREAM_ASKING));
}

#[test]
fn requests_stay_as_they_are_where_nothing_is_to_be_asked() {
    let kept = |config: &str, path: &'static [u8], body: &'static [u8]| {
        let mut scene = Scene::new(config);
        scene.path = path;
        scene.request(&with_length("46"), true);
        let step = scene.send(body, true);
        assert_eq!(step.body, None);
        scene.answer(Some(&answer(Code::Ok, 1))).headers
    };
    let narrowed = [edit("accept-encoding", Some("gzip"))];
    let chat = b"/v1/chat/completions";
    assert_eq!(kept(ALWAYS, chat, BODY), narrowed);
    assert_eq!(kept(ALWAYS, chat, STREAM_ASKING), narrowed);
    assert_eq!(kept(ALWAYS, b"/v1/messages", STREAM), narrowed);
    let leave = r#"{"request_body":{"read":"always"},"stream_usage":"leave","accept_encoding":"leave"}"#;
    assert_eq!(kept(leave, chat, STREAM), []);
}

#[test]
fn bytes_that_are_signed_stay() {
    for signature in
        [("authorization", b"AWS4-HMAC-SHA256 Credential=x".as_slice()), ("content-digest", b"sha-256=:x:")]
    {
        let mut scene = Scene::new(ALWAYS);
        scene.request(&[CALL, &[signature]].concat(), true);
        assert_eq!(scene.send(STREAM, true).body, None);
    }
}

#[test]
fn a_body_is_held_without_admission_too() {
    let mut scene = Scene::new(r#"{"admission":{"enabled":false},"request_body":{"read":"always"}}"#);
    assert_eq!(scene.request(&with_length("46"), true).next, Next::Wait);
    let step = scene.send(STREAM, true);
    let length = STREAM_ASKING.len().to_string();
    assert_eq!((step.next, step.body.as_deref()), (Next::Continue, Some(STREAM_ASKING)));
    assert_eq!(step.headers, [edit("content-length", Some(&length)), edit("accept-encoding", None)]);
}
