//! However a call ends, one event comes of it, and says how it ended and how its tokens are known.

use anyhow::ensure;
use serde_json::{Value, json};
use tollgate_e2e::harness::http::{Answer, Request};
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use Ask::{Body, Stream, StreamWithUsage};
use Client::{LeavesAfterPieces, LeavesBeforeHeaders, Stays};

/// How the client behaves.
#[derive(Clone, Copy)]
enum Client {
    /// It reads the answer to its end, whatever that is.
    Stays,
    /// It leaves while it waits for the answer's headers.
    LeavesBeforeHeaders,
    /// It leaves when it has got so many pieces of the answer's body; the next ones are kept back.
    LeavesAfterPieces(usize),
}

/// What is to be asked for.
#[derive(Clone, Copy)]
enum Ask {
    Body,
    /// Without its usage, as most clients do.
    Stream,
    StreamWithUsage,
}

struct Ending {
    name: &'static str,
    ask: Ask,
    headers: &'static [(&'static str, &'static str)],
    client: Client,
    finish: &'static str,
    /// Tokens are counted, unless it is `none`.
    usage_source: &'static str,
}

const fn ending(
    name: &'static str,
    ask: Ask,
    headers: &'static [(&'static str, &'static str)],
    client: Client,
    finish: &'static str,
    usage_source: &'static str,
) -> Ending {
    Ending { name, ask, headers, client, finish, usage_source }
}

const ENDINGS: &[Ending] = &[
    ending("a body that is complete", Body, &[], Stays, "complete", "reported"),
    ending("a stream that is complete", Stream, &[], Stays, "complete", "reported"),
    ending(
        "a client that leaves before the headers",
        Stream,
        &[("x-standin-hang-after-bytes", "0")],
        LeavesBeforeHeaders,
        "client_gone",
        "none",
    ),
    ending(
        "a client that leaves before the first word",
        Stream,
        &[("x-standin-gate", "first")],
        LeavesAfterPieces(1),
        "client_gone",
        "none",
    ),
    ending(
        "a client that leaves in the middle of a stream",
        Stream,
        &[("x-standin-gate", "middle"), ("x-standin-chunks", "20")],
        LeavesAfterPieces(10),
        "client_gone",
        "estimated",
    ),
    // The role, 3 words, the end and the usage have come, [DONE] has not.
    ending(
        "a client that leaves in the last chunk",
        StreamWithUsage,
        &[("x-standin-gate", "last"), ("x-standin-chunks", "3")],
        LeavesAfterPieces(6),
        "client_gone",
        "reported",
    ),
    ending(
        "an upstream that resets before the headers",
        Stream,
        &[("x-standin-reset-after-bytes", "0")],
        Stays,
        "upstream_reset",
        "none",
    ),
    ending(
        "an upstream that resets in the middle of a stream",
        Stream,
        &[("x-standin-reset-after-bytes", "1800"), ("x-standin-chunks", "20")],
        Stays,
        "upstream_reset",
        "estimated",
    ),
    ending("an upstream that answers 400", Body, &[("x-standin-status", "400")], Stays, "upstream_error", "none"),
    ending("an upstream that answers 500", Stream, &[("x-standin-status", "500")], Stays, "upstream_error", "none"),
    ending(
        "an error inside a stream, behind some text",
        Stream,
        &[("x-standin-replay", "openai-error.sse")],
        Stays,
        "upstream_error",
        "estimated",
    ),
    ending(
        "an error inside a stream, at once",
        Stream,
        &[("x-standin-replay", "error-at-once.sse")],
        Stays,
        "upstream_error",
        "none",
    ),
    ending(
        "an answer by another filter",
        Body,
        &[("x-envoy-fault-abort-request", "503")],
        Stays,
        "local_reply",
        "none",
    ),
    ending("a body without usage", Body, &[("x-standin-replay", "no-usage.json")], Stays, "complete", "estimated"),
    ending("a stream without usage", Stream, &[("x-standin-replay", "no-usage.sse")], Stays, "complete", "estimated"),
    ending(
        "a compressed body",
        Body,
        &[("x-standin-encoding", "gzip"), ("accept-encoding", "gzip")],
        Stays,
        "complete",
        "reported",
    ),
    ending(
        "a body that is compressed in a way that can't be read",
        Body,
        &[("x-standin-encoding", "br"), ("accept-encoding", "br")],
        Stays,
        "complete",
        "estimated",
    ),
];

/// Where Envoy gives up soon, and tries again.
const ENDINGS_IN_HASTE: &[Ending] = &[
    ending(
        "an upstream that takes too long to begin",
        Body,
        &[("x-standin-hang-after-bytes", "0")],
        Stays,
        "upstream_timeout",
        "none",
    ),
    ending(
        "an upstream that takes too long to go on",
        Stream,
        &[("x-standin-hang-after-bytes", "1800"), ("x-standin-chunks", "20")],
        Stays,
        "upstream_timeout",
        "estimated",
    ),
    ending(
        "a call that Envoy tries again",
        Body,
        &[("x-standin-fail-attempts", "2"), ("x-request-id", "tried-again")],
        Stays,
        "complete",
        "reported",
    ),
];

/// The filter's config: events don't wait for each other.
fn soon() -> Value {
    json!({"usage": {"flush_interval_ms": 1}})
}

fn silent_stream() -> Value {
    let messages = json!([{"role": "user", "content": "How does a tollgate count?"}]);
    json!({"model": "gpt-4o-mini", "messages": messages, "stream": true})
}

/// Answers in Envoy's place when a header says so.
fn fault() -> Value {
    json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"header_abort": {}, "percentage": {"numerator": 100}},
        },
    })
}

#[tokio::test]
async fn every_ending_gives_one_event_that_tells_it() {
    let stack = Stack::builder().filter_config(soon()).filter_behind(fault()).start().await.unwrap();
    play_all(&stack, ENDINGS).await;
}

#[tokio::test]
async fn timeouts_and_attempts_give_one_event_too() {
    let haste = json!({"timeout": "1s", "retry_policy": {"retry_on": "5xx", "num_retries": 3}});
    let stack = Stack::builder().filter_config(soon()).route(haste).start().await.unwrap();
    play_all(&stack, ENDINGS_IN_HASTE).await;
    assert_eq!(stack.standin.call_count(), 2 + 3, "the last call was tried three times");
}

async fn play_all(stack: &Stack, endings: &[Ending]) {
    for (index, ending) in endings.iter().enumerate() {
        let tenant = format!("tenant-{index}");
        let request = match ending.ask {
            Body => stack.chat(&tenant),
            Stream => stack.chat(&tenant).json(&silent_stream()),
            StreamWithUsage => stack.chat_stream(&tenant),
        };
        let request = request.header("x-plan-tier", "enterprise");
        let request = ending.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let gate = ending.headers.iter().find(|(name, _)| *name == "x-standin-gate").map(|(_, gate)| *gate);
        play(stack, request, ending.client, gate).await;
        let event =
            stack.events(&tenant, 1).await.unwrap_or_else(|error| panic!("{}: {error:#}", ending.name)).remove(0);
        assert_eq!(
            (&event["finish"], &event["usage_source"]),
            (&json!(ending.finish), &json!(ending.usage_source)),
            "{}: {event}",
            ending.name
        );
        let counted = ["input_tokens", "output_tokens"].map(|tokens| event[tokens].as_u64().unwrap() > 0);
        assert_eq!(counted, [ending.usage_source != "none"; 2], "{}: {event}", ending.name);
    }
    assert_eq!(stack.envoy.stat("tollgate_filter_events_dropped_total").await.unwrap(), 0);
}

/// Makes the call as the client would.
async fn play(stack: &Stack, request: Request, client: Client, gate: Option<&str>) {
    match client {
        // The answer may break off: that is the ending.
        Stays => drop(request.send().await),
        LeavesBeforeHeaders => {
            let calls = stack.standin.call_count();
            let call = tokio::spawn(request.start());
            let arrived = async || {
                ensure!(stack.standin.call_count() > calls);
                Ok(())
            };
            eventually("the call's arrival", PATIENCE, arrived).await.unwrap();
            call.abort();
        }
        LeavesAfterPieces(pieces) => {
            let gate = gate.expect("a client that leaves early has a gate");
            let mut answer = request.start().await.unwrap();
            receive(&mut answer, 1).await;
            for piece in 2..=pieces {
                stack.standin.gates().confirm(gate).unwrap();
                receive(&mut answer, piece).await;
            }
        }
    }
}

async fn receive(answer: &mut Answer, piece: usize) {
    let bytes = answer.next_bytes().await.unwrap();
    assert!(bytes.is_some_and(|bytes| !bytes.is_empty()), "piece {piece}");
}

#[tokio::test]
async fn what_a_provider_reported_before_it_failed_is_completed_by_what_passed() {
    let stack = Stack::builder().start().await.unwrap();
    let messages = json!([{"role": "user", "content": "How does a tollgate count?"}]);
    let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": messages, "stream": true});
    let request = Request::post(stack.envoy.listener(), "/v1/messages", &body).header("x-tenant-id", "acme");
    let reply = request.header("x-standin-replay", "anthropic-overloaded.sse").send().await.unwrap();
    assert_eq!(reply.status, 200);
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!((&event["finish"], &event["usage_source"]), (&json!("upstream_error"), &json!("partial")), "{event}");
    assert_eq!(
        (&event["error_type"], &event["provider"]),
        (&json!("overloaded_error"), &json!("anthropic")),
        "{event}"
    );
}

#[tokio::test]
async fn a_stream_that_envoy_drains_under_is_counted_whole() {
    let stack = Stack::builder().start().await.unwrap();
    let mut answer = stack.chat_stream("acme").header("x-standin-gate", "drain").start().await.unwrap();
    receive(&mut answer, 1).await;
    let drained = Request::new(hyper::Method::POST, stack.envoy.admin(), "/drain_listeners?graceful");
    assert_eq!(drained.send().await.unwrap().status, 200);
    (0..64).for_each(|_| stack.standin.gates().confirm("drain").unwrap());
    answer.finish().await.unwrap();
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!((&event["finish"], &event["usage_source"]), (&json!("complete"), &json!("reported")), "{event}");
}

#[tokio::test]
async fn the_upstreams_own_limits_stand_in_the_event() {
    let stack = Stack::builder().start().await.unwrap();
    let request = stack.chat("acme").header("x-standin-header-x-ratelimit-remaining-tokens", "149984");
    let reply = request.header("x-standin-header-anthropic-ratelimit-requests-limit", "50").send().await.unwrap();
    assert_ne!(reply.header("x-ratelimit-remaining-tokens"), Some("149984"), "ours, or none");
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    let told: Vec<String> = serde_json::from_str(event["upstream_limits"].as_str().unwrap()).unwrap();
    assert!(told.contains(&"x-ratelimit-remaining-tokens: 149984".to_owned()), "{told:?}");
    assert!(told.contains(&"anthropic-ratelimit-requests-limit: 50".to_owned()), "{told:?}");
}

#[tokio::test]
async fn an_event_tells_what_was_asked_and_answered() {
    let stack = Stack::builder().start().await.unwrap();
    stack.chat_stream("acme").send().await.unwrap();
    let event = stack.events("acme", 1).await.unwrap().remove(0);
    assert_eq!((&event["request_model"], &event["provider"]), (&json!("gpt-4o-mini"), &json!("openai")), "{event}");
    assert_eq!((&event["streaming"], &event["status"]), (&json!(1), &json!(200)), "{event}");
    assert_eq!(event["finish_reasons"], "[\"stop\"]");
    for told in ["response_model", "response_id", "time_to_first_token_ms", "duration_ms", "input_estimate"] {
        assert!(!event[told].is_null(), "{told}: {event}");
    }
    for bytes in ["request_bytes", "response_bytes"] {
        assert!(event[bytes].as_u64().unwrap() > 50, "{event}");
    }
}
