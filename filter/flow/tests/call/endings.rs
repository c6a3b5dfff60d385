//! However a call ends it gives one event, and says how its tokens are known.

use tollgate_flow::{Counter, Next};
use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

use crate::admission::BODY;
use crate::scene::{Code, Map, Pairs, Scene, answer, asks};

const SSE: &[u8] = b"text/event-stream";
const JSON: &[u8] = b"application/json";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"A tollgate counts every car that passes.\"}}]}\n\n";
const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ERROR: &str = "data: {\"error\":{\"type\":\"server_error\",\"message\":\"overloaded\"}}\n\n";
const STARTED: &str = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
const ANTHROPIC_TEXT: &str = "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"A tollgate counts every car.\"}}\n\n";

/// A chat call whose response is `parts`, ended as Envoy says in `details`.
fn ended(status: &'static [u8], content_type: &'static [u8], parts: &[&str], details: &str) -> UsageEvent {
    let mut scene = Scene::new(r#"{"request_body":{"read":"always"},"stream_usage":"leave"}"#);
    scene.request(&[("x-tenant-id", b"acme")], true);
    let body = br#"{"messages":[{"role":"user","content":"How does a tollgate count?"}]}"#;
    asks(scene.send(body, true));
    scene.answer(Some(&answer(Code::Ok, 1)));
    scene.respond(status, content_type, parts.concat().as_bytes());
    let event = scene.end(details).unwrap();
    assert_eq!(scene.end(details), None, "once");
    event
}

#[test]
fn every_way_to_end_has_its_name() {
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
        assert_eq!(ended(b"200", SSE, &[ROLE], details).finish, finish, "{details}");
    }
}

#[test]
fn what_was_generated_but_not_reported_is_estimated() {
    for details in ["via_upstream", "downstream_remote_disconnect", "upstream_reset_after_response_started{x}"] {
        let event = ended(b"200", SSE, &[ROLE, TEXT, TEXT], details);
        assert_eq!(event.usage_source, UsageSource::Estimated, "{details}");
        assert!((10..30).contains(&event.tokens.output), "{details}: {:?}", event.tokens);
        assert_eq!(Some(event.tokens.input), event.input_estimate, "{details}");
        assert!(event.tokens.input > 0);
    }
}

#[test]
fn what_was_reported_before_the_end_is_completed_by_what_passed() {
    let event = ended(b"200", SSE, &[STARTED, ANTHROPIC_TEXT], "downstream_remote_disconnect");
    assert_eq!((event.usage_source, event.tokens.input), (UsageSource::Partial, 25));
    assert!((5..15).contains(&event.tokens.output), "{:?}", event.tokens);
    let event = ended(b"200", SSE, &[STARTED], "downstream_remote_disconnect");
    assert_eq!((event.usage_source, event.tokens.input, event.tokens.output), (UsageSource::Partial, 25, 1));
}

#[test]
fn where_nothing_was_generated_nothing_is_counted() {
    let none: &[(&'static [u8], &[&str], &str, Finish)] = &[
        (b"200", &[], "downstream_remote_disconnect", Finish::ClientGone),
        (b"200", &[ROLE], "downstream_remote_disconnect", Finish::ClientGone),
        (b"200", &[ROLE, ERROR], "via_upstream", Finish::UpstreamError),
        (b"429", &[ERROR], "via_upstream", Finish::UpstreamError),
        (b"500", &["oops"], "via_upstream", Finish::UpstreamError),
        (b"504", &["upstream request timeout"], "upstream_response_timeout", Finish::UpstreamTimeout),
        (b"503", &[], "upstream_reset_before_response_started{connection_failure}", Finish::UpstreamReset),
    ];
    for (status, parts, details, finish) in none {
        let event = ended(status, SSE, parts, details);
        assert_eq!((event.usage_source, event.finish), (UsageSource::None, *finish), "{details} {parts:?}");
        assert_eq!(event.tokens.total(), 0);
    }
}

#[test]
fn an_error_inside_a_stream_is_told() {
    let event = ended(b"200", SSE, &[ROLE, TEXT, ERROR, DONE], "via_upstream");
    assert_eq!((event.finish, event.error_type.as_deref()), (Finish::UpstreamError, Some("server_error")));
    assert_eq!(event.usage_source, UsageSource::Estimated);
    let event = ended(b"502", SSE, &["<html>"], "via_upstream");
    assert_eq!((event.finish, event.error_type.as_deref()), (Finish::UpstreamError, Some("502")));
}

#[test]
fn a_client_that_leaves_in_the_last_chunk_is_charged_what_was_reported() {
    for (has_ended, finish) in [(true, Finish::Complete), (false, Finish::ClientGone)] {
        let mut scene = Scene::new("");
        scene.admit();
        scene.respond_until(b"200", JSON, BODY, has_ended);
        let event = scene.end("downstream_remote_disconnect").unwrap();
        assert_eq!((event.finish, event.usage_source), (finish, UsageSource::Reported));
        assert_eq!((event.tokens.input, event.tokens.output), (7, 3));
    }
}

#[test]
fn an_answer_that_cant_be_read_is_estimated_by_its_length_and_marked() {
    let mut scene = Scene::new("");
    scene.admit();
    let headers = [(":status", b"200".as_slice()), ("content-type", JSON), ("content-encoding", b"br")];
    scene.call.on_response_headers(&Map(headers.to_vec()));
    scene.receive(&[0x8b; 400], true);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.usage_source, event.tokens.output), (UsageSource::Estimated, 100));
    assert!(event.unreadable.is_some());
    assert_eq!(scene.counts.of(Counter::ResponsesUnreadable), 1);
}

/// A call of `path` with this body, answered with JSON and ended well.
fn answered(path: &'static [u8], headers: Pairs<'_>, request: &[u8], body: &str) -> UsageEvent {
    let mut scene = Scene::new(r#"{"request_body":{"read":"always"}}"#);
    scene.path = path;
    let step = scene.request(&[&[("x-tenant-id", b"acme".as_slice())], headers].concat(), true);
    let asked = scene.send(request, true);
    assert!(matches!(step.next, Next::Ask(_)) || matches!(asked.next, Next::Ask(_)));
    scene.answer(Some(&answer(Code::Ok, 1)));
    scene.respond(b"200", JSON, body.as_bytes());
    scene.end("via_upstream").unwrap()
}

const SILENT: &str = r#"{"choices":[{"message":{"content":"A tollgate counts every car that passes."}}]}"#;

#[test]
fn vectors_are_no_output_and_a_cap_is_no_excuse() {
    let embedding = r#"{"data":[{"embedding":[0.123456789,0.987654321,0.55555555]}]}"#;
    let event = answered(b"/v1/embeddings", &[], br#"{"input":"A tollgate."}"#, embedding);
    assert_eq!((event.usage_source, event.tokens.output), (UsageSource::Estimated, 0));
    assert!(event.tokens.input > 0);
    // An upstream that does not know the cap does not keep it.
    let event = answered(b"/v1/chat/completions", &[], br#"{"messages":[{"content":"How?"}],"max_tokens":0}"#, SILENT);
    assert!(event.tokens.output > 5, "{:?}", event.tokens);
}

#[test]
fn a_prompt_that_cant_be_read_costs_by_its_bytes() {
    let gzip: Pairs<'_> = &[("content-encoding", b"gzip")];
    assert_eq!(answered(b"/v1/chat/completions", gzip, &[0x1f; 400], SILENT).tokens.input, 100);
    assert_eq!(answered(b"/v1/chat/completions", &[], &[b'x'; 400], SILENT).tokens.input, 100);
    let form: Pairs<'_> = &[("content-type", b"application/x-www-form-urlencoded")];
    let event = answered(b"/api/chat", form, br#"{"model":"llama3","messages":[{"content":"How?"}]}"#, SILENT);
    assert_eq!(event.request_model.as_deref(), Some("llama3"), "as curl sends it");
}

#[test]
fn usage_may_stand_in_the_headers() {
    let mut scene = Scene::new("");
    scene.path = b"/model/amazon.titan-embed-text-v2:0/invoke";
    scene.admit();
    let headers = [(":status", b"200".as_slice()), ("x-amzn-bedrock-input-token-count", b"12")];
    scene.call.on_response_headers(&Map(headers.to_vec()));
    scene.receive(br#"{"embedding":[0.1,0.2]}"#, true);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.usage_source, event.tokens.input, event.tokens.output), (UsageSource::Reported, 12, 0));
}

#[test]
fn an_answer_that_another_filter_gives_costs_nothing() {
    let event = ended(b"200", JSON, &[r#"{"status":"ok"}"#], "direct_response");
    assert_eq!((event.finish, event.usage_source), (Finish::LocalReply, UsageSource::None));
}

#[test]
fn a_call_that_is_stopped_late_gives_an_event() {
    let mut scene = released(r#"{"request_body":{"max_bytes":10}}"#);
    let Next::Reply(_) = scene.answer(Some(&answer(Code::OverLimit, 0))).next else { panic!("stopped") };
    assert_eq!(scene.respond(b"429", JSON, b"{}"), []);
    let event = scene.end("tollgate").unwrap();
    assert_eq!((event.finish, event.usage_source), (Finish::LocalReply, UsageSource::None));
    assert_eq!((event.status, event.reservation_id), (429, None), "a denial takes nothing");
}

/// A call that is too long to be held, on its way up while the limiter is asked.
fn released(config: &str) -> Scene {
    let mut scene = Scene::new(config);
    asks(scene.request(&[("x-tenant-id", b"acme"), ("content-length", b"100")], true));
    assert_eq!(scene.send(&[b' '; 99], false).next, Next::Continue);
    assert_eq!(scene.send(b"{", true).next, Next::Continue);
    scene
}

#[test]
fn a_call_that_is_stopped_late_for_want_of_an_answer_may_be_reserved() {
    let mut scene = released(r#"{"request_body":{"max_bytes":10},"admission":{"on_failure":"deny"}}"#);
    let Next::Reply(_) = scene.answer(None).next else { panic!("stopped") };
    let event = scene.end("tollgate").unwrap();
    assert_eq!((event.status, event.reservation_id.as_deref()), (503, Some("id-1")));
}

#[test]
fn a_denial_that_comes_too_late_has_reserved_nothing_but_the_call_is_counted() {
    let mut scene = released(r#"{"request_body":{"max_bytes":10}}"#);
    scene.respond(b"200", JSON, BODY);
    assert_eq!(scene.answer(Some(&answer(Code::OverLimit, 0))).next, Next::Wait);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.reservation_id, event.tokens.input), (None, 7));
    assert_eq!(scene.counts.of(Counter::DenialsTooLate), 1);
}

#[test]
fn an_answer_that_was_counted_before_is_not_counted_again() {
    let mut scene = Scene::new("");
    scene.path = b"/v1/chat/completions/chatcmpl-1";
    scene.admit();
    scene.respond(b"200", JSON, BODY);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.usage_source, event.status), (UsageSource::None, 200));
    assert_eq!(scene.counts.of(Counter::CallsUnclaimed), 1);
}

#[test]
fn an_answer_that_is_fetched_later_is_unclaimed() {
    for (policy, is_stopped) in [("pass", false), ("deny", true)] {
        let config = format!(r#"{{"unclaimed_endpoints":"{policy}","request_body":{{"read":"always"}}}}"#);
        let mut scene = Scene::new(&config);
        scene.path = b"/v1/responses";
        scene.request(&[("x-tenant-id", b"acme")], true);
        let step = scene.send(br#"{"model":"m","input":"How?","background":true}"#, true);
        match step.next {
            Next::Reply(reply) if is_stopped => assert_eq!(reply.status, 403),
            Next::Ask(_) if !is_stopped => _ = scene.end("via_upstream").unwrap(),
            next => panic!("{policy}: {next:?}"),
        }
        assert_eq!(scene.counts.of(Counter::CallsUnclaimed), 1);
    }
}

#[test]
fn the_status_that_envoy_itself_gave_is_told() {
    let mut scene = Scene::new("");
    scene.ask();
    assert_eq!(scene.respond(b"504", JSON, b""), []);
    let event = scene.end("request_overall_timeout").unwrap();
    assert_eq!((event.status, event.finish), (504, Finish::UpstreamTimeout));
}

#[test]
fn an_unclaimed_endpoint_counts_what_it_reports_and_else_what_the_policy_says() {
    let tokens = |policy: &str, body: &[u8]| {
        let mut scene = Scene::new(&format!(r#"{{"unclaimed_endpoints":"{policy}"}}"#));
        scene.path = b"/v1/custom";
        scene.admit();
        scene.respond(b"200", JSON, body);
        let event = scene.end("via_upstream").unwrap();
        (event.usage_source, event.tokens.output)
    };
    assert_eq!(tokens("pass", BODY), (UsageSource::Reported, 3));
    assert_eq!(tokens("pass", br#"{"result":"some answer"}"#), (UsageSource::None, 0));
    assert_eq!(tokens("estimate", br#"{"result":"some answer"}"#), (UsageSource::Estimated, 6));
}

#[test]
fn a_client_that_leaves_while_the_limiter_is_asked_gives_an_event() {
    let mut scene = Scene::new("");
    scene.ask();
    let event = scene.end("downstream_remote_disconnect").unwrap();
    assert_eq!((event.finish, event.status, event.tokens.total()), (Finish::ClientGone, 0, 0));
    assert_eq!(event.usage_source, UsageSource::None);
    assert_eq!(scene.answer(Some(&answer(Code::Ok, 1))).next, Next::Wait);
}
