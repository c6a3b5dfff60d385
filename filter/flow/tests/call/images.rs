//! Calls that make images.

use prost::Message;
use tollgate_wire::admission::{Demand, Unit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

use crate::scene::*;

const CONFIG: &str = r#"{"request_body": {"read": "always"}, "admission": {"leases": "on"}}"#;

const TWO: &[u8] = br#"{"model":"gpt-image-1","prompt":"a boat","n":2}"#;

/// A call that is asked about with this body.
fn asked(path: &'static [u8], content_type: &'static [u8], body: &[u8]) -> (Scene, Vec<(Unit, u64)>) {
    let mut scene = Scene::new(CONFIG);
    scene.path = path;
    let headers: Pairs<'_> = &[("x-tenant-id", b"acme"), ("x-plan-tier", b"pro"), ("content-type", content_type)];
    let step = scene.request(headers, true);
    let ask = match step.next {
        tollgate_flow::Next::Wait => asks(scene.send(body, true)),
        _ => asks(step),
    };
    let message = RateLimitRequest::decode(ask.message.as_slice()).unwrap();
    let demands = (0..message.descriptors.len()).map(|index| Demand::read(&message, index).unwrap());
    let amounts: Vec<_> = demands.map(|demand| (demand.unit, demand.amount)).collect();
    assert!(ask.lease.is_none() || amounts.len() < Unit::ALL.len(), "no lease is for such calls");
    (scene, amounts)
}

/// The event of a call for two images that is answered so.
fn event(content_type: &'static [u8], body: &[u8], is_last: bool, details: &str) -> UsageEvent {
    let (mut scene, _) = asked(b"/v1/images/generations", b"application/json", TWO);
    scene.answer(Some(&answer(Code::Ok, 59)));
    scene.respond_until(b"200", content_type, body, is_last);
    scene.end(details).unwrap()
}

#[test]
fn the_limiter_is_told_how_many_images_are_asked_for() {
    let (mut scene, amounts) = asked(b"/v1/images/generations", b"application/json", TWO);
    assert_eq!(amounts.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), Unit::ALL);
    assert_eq!(amounts[3], (Unit::Images, 2));
    scene.answer(Some(&answer(Code::Ok, 59)));
    scene.respond(b"200", b"application/json", br#"{"data":[{"url":"https://a"},{"url":"https://b"}]}"#);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.tokens.images, event.tokens.total(), event.usage_source), (2, 0, UsageSource::Reported));
    assert_eq!(event.request_model.as_deref(), Some("gpt-image-1"));
    assert_eq!((event.api.as_deref(), event.operation.as_deref()), (Some("openai-images"), Some("image_generation")));

    let (_, chat) = asked(b"/v1/chat/completions", b"application/json", br#"{"model":"m","n":2}"#);
    assert_eq!(chat.len(), 3, "other calls are asked about as before");
}

#[test]
fn pictures_that_are_sent_are_no_prompt() {
    let field = |name: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes();
    let picture = [field("image"), vec![b'x'; 9_000], b"\r\n".to_vec()].concat();
    let form = [picture, field("n"), b"2\r\n".to_vec(), field("model"), b"dall-e-2\r\n--b--".to_vec()].concat();
    let asks_for =
        |images| [(Unit::Requests, 1), (Unit::InputTokens, 0), (Unit::OutputTokens, 0), (Unit::Images, images)];
    let (_, unread) = asked(b"/v1/images/variations", b"multipart/form-data", &form);
    assert_eq!(unread, asks_for(1));
    let (mut scene, amounts) = asked(b"/v1/images/variations", b"multipart/form-data; boundary=b", &form);
    assert_eq!(amounts, asks_for(2));
    scene.answer(Some(&answer(Code::Ok, 59)));
    scene.respond(b"200", b"application/json", br#"{"data":[{"b64_json":"iVBO"},{"b64_json":"iVBO"}]}"#);
    let event = scene.end("via_upstream").unwrap();
    assert_eq!((event.tokens.images, event.tokens.total(), event.usage_source), (2, 0, UsageSource::Reported));
    assert_eq!(event.request_model.as_deref(), Some("dall-e-2"));
}

#[test]
fn what_broke_off_has_the_images_that_were_asked_for() {
    const JSON: &[u8] = b"application/json";
    const SSE: &[u8] = b"text/event-stream";
    const COMPLETED: &str = "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"iVBO\",\
        \"usage\":{\"input_tokens\":5,\"output_tokens\":7}}\n\n";
    const PARTIAL: &str = "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"iVBO\"}\n\n";
    const ERROR: &str = "data: {\"type\":\"error\",\"error\":{\"type\":\"server_error\"}}\n\n";
    use UsageSource::{Estimated, None, Partial, Reported};
    let both = format!("{COMPLETED}{PARTIAL}{COMPLETED}");
    let failed = format!("{COMPLETED}{ERROR}");
    for (content_type, body, details, images, source) in [
        (JSON, r#"{"data":[{"b64_json":"iVBO"},{"b64_json":"iV"#, "", 2, Partial),
        (JSON, r#"{"data":[{"b64_json":"iV"#, "", 2, Partial),
        (JSON, "", "", 0, None),
        (JSON, "<html>", "via_upstream", 2, Estimated),
        (SSE, COMPLETED, "", 2, Partial),
        (SSE, PARTIAL, "", 2, Estimated),
        (SSE, &both, "", 2, Reported),
        (SSE, &failed, "via_upstream", 1, Reported),
        (SSE, ERROR, "via_upstream", 0, None),
    ] {
        let event = event(content_type, body.as_bytes(), details == "via_upstream", details);
        assert_eq!((event.tokens.images, event.usage_source), (images, source), "{body}");
    }
    let told = event(SSE, COMPLETED.as_bytes(), true, "via_upstream");
    assert_eq!((told.tokens.images, told.finish, told.tokens.output), (1, Finish::Complete, 7), "as many as came");
}
