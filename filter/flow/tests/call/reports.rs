//! What calls used, told by questions to a rate limit service that reads no events.

use prost::Message;
use tollgate_flow::Counter;
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;

use crate::scene::Scene;

const ANSWER: &[u8] =
    br#"{"object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":13}}"#;

/// The units and amounts that a question asks for.
fn asked(message: &[u8]) -> Vec<(String, Option<u64>)> {
    let request = RateLimitRequest::decode(message).unwrap();
    let unit = |descriptor: &tollgate_wire::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor| {
        let entry = descriptor.entries.iter().find(|entry| entry.key == "unit").unwrap();
        (entry.value.clone(), descriptor.hits_addend)
    };
    request.descriptors.iter().map(unit).collect()
}

fn call(scene: &mut Scene) {
    scene.admit();
    scene.respond(b"200", b"application/json", ANSWER);
    scene.end("via_upstream").unwrap();
    scene.next_call();
}

#[test]
fn calls_of_a_kind_are_told_together_after_they_asked_for_no_tokens() {
    let mut scene = Scene::new(r#"{"admission": {"settle": "rls"}}"#);
    let unit = |unit: &str, amount| (unit.to_owned(), Some(amount));
    assert_eq!(asked(&scene.ask().message), [unit("requests", 1), unit("input_tokens", 0), unit("output_tokens", 0)]);
    scene.next_call();
    call(&mut scene);
    call(&mut scene);
    let told = |reports: &[(tollgate_flow::Report, Vec<u8>)]| {
        reports.iter().flat_map(|(_, message)| asked(message)).collect::<Vec<_>>()
    };
    let mut reports = scene.shared.reports();
    assert_eq!(told(&reports), [unit("input_tokens", 14), unit("output_tokens", 26)]);
    assert!(scene.shared.reports().is_empty());

    let (output, _) = reports.pop().unwrap();
    scene.shared.on_report_failed(output, &scene.counts);
    call(&mut scene);
    assert_eq!(told(&scene.shared.reports()), [unit("input_tokens", 7), unit("output_tokens", 39)]);
    assert_eq!(scene.counts.of(Counter::ReportFailures), 1);
}

#[test]
fn ours_is_told_by_events_alone() {
    let mut scene = Scene::new("{}");
    call(&mut scene);
    assert!(scene.shared.reports().is_empty());
}
