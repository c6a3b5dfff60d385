//! The answer passes as the upstream sent it: every byte, and none later than it came.

use std::fs;

use serde_json::json;
use tollgate_e2e::harness::artifacts;
use tollgate_e2e::harness::http::Answer;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::PATIENCE;

/// A recorded answer, and the usage that it reports.
struct Fixture {
    name: &'static str,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    reasoning_tokens: u64,
}

const FIXTURES: [Fixture; 3] = [
    Fixture { name: "unicode.sse", input_tokens: 31, output_tokens: 9, cache_read_tokens: 16, reasoning_tokens: 2 },
    Fixture { name: "odd-lines.sse", input_tokens: 12, output_tokens: 3, cache_read_tokens: 0, reasoning_tokens: 0 },
    Fixture {
        name: "indented.json",
        input_tokens: 1200,
        output_tokens: 345,
        cache_read_tokens: 1024,
        reasoning_tokens: 64,
    },
];

#[tokio::test]
async fn recorded_answers_pass_byte_for_byte_and_are_counted_however_they_are_cut() {
    let stack = Stack::builder().start().await.unwrap();
    let cuts = ["1", "2", "3", "7", "61", "1000000"];
    for fixture in &FIXTURES {
        let recorded = fs::read(artifacts::repository().join("tests/fixtures").join(fixture.name)).unwrap();
        for cut in cuts {
            let request = stack.chat_stream(fixture.name).header("x-standin-replay", fixture.name);
            let reply = request.header("x-standin-cut", cut).send().await.unwrap();
            assert_eq!(reply.status, 200);
            assert_eq!(reply.text(), String::from_utf8_lossy(&recorded), "{} in pieces of {cut}", fixture.name);
            assert_eq!(reply.body, recorded);
        }
    }
    let calls = cuts.len() as u64;
    for fixture in &FIXTURES {
        let usage = stack.usage_after(fixture.name, calls, PATIENCE).await.unwrap();
        let counted = ["input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"].map(|key| &usage[key]);
        let reported =
            [fixture.input_tokens, fixture.output_tokens, fixture.cache_read_tokens, fixture.reasoning_tokens];
        assert_eq!(counted.map(|count| count.as_u64()), reported.map(|count| Some(count * calls)), "{}", fixture.name);
    }
}

#[tokio::test]
async fn a_stream_holds_what_the_client_asked_for_and_nothing_else() {
    let stack = Stack::builder().start().await.unwrap();
    for request in [stack.chat_stream("acme"), stack.chat("acme")] {
        let reply = request.send().await.unwrap();
        let sent = stack.standin.recent_calls().pop().unwrap();
        assert_eq!((reply.status, reply.text()), (sent.status, String::from_utf8_lossy(&sent.body).into_owned()));
    }
}

#[tokio::test]
async fn the_upstream_gets_the_request_as_the_client_sent_it() {
    let limits = json!([{"unit": "requests", "capacity": 60, "window": "minute"}]);
    let roomy = json!({
        "limiter": {"default_tier": "roomy"},
        "tiers": {"roomy": {"context_tokens": 1_000_000, "limits": limits}},
    });
    let stack = Stack::builder().service_config(roomy).start().await.unwrap();
    // Larger than one read of a socket, so that the filter sees it in parts.
    let long = "word ".repeat(100_000);
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": long}]});
    let reply = stack.chat("acme").header("x-plan-tier", "roomy").json(&body).send().await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json().unwrap()["usage"]["prompt_tokens"], 3 + 4 + 100_000);
}

#[tokio::test]
async fn no_event_of_a_stream_waits_for_the_next() {
    let stack = Stack::builder().start().await.unwrap();
    let request = stack.chat_stream("acme").header("x-standin-chunks", "20");
    // The role, 20 tokens, the end, the usage, [DONE].
    let events = 1 + 20 + 1 + 1 + 1;
    let mut answer = request.header("x-standin-gate", "events").start().await.unwrap();
    let mut received = Vec::new();
    for event in 1..=events {
        while received.windows(2).filter(|pair| pair == b"\n\n").count() < event {
            receive(&mut answer, &mut received).await;
        }
        if event < events {
            stack.standin.gates().confirm("events").unwrap();
        }
    }
    assert_eq!(answer.next_bytes().await.unwrap(), None);
    assert_eq!(received, stack.standin.recent_calls().pop().unwrap().body);
}

#[tokio::test]
async fn no_byte_waits_for_the_rest_of_its_event_or_body() {
    let stack = Stack::builder().start().await.unwrap();
    for request in [stack.chat_stream("acme"), stack.chat("acme")] {
        let request = request.header("x-standin-chunks", "2").header("x-standin-cut", "50");
        let mut answer = request.header("x-standin-gate", "bytes").start().await.unwrap();
        let sent = stack.standin.recent_calls().pop().unwrap().body;
        let mut received = Vec::new();
        for arrived in (0..sent.len()).step_by(50).skip(1) {
            while received.len() < arrived {
                receive(&mut answer, &mut received).await;
            }
            stack.standin.gates().confirm("bytes").unwrap();
        }
        received.extend_from_slice(&answer.finish().await.unwrap().body);
        assert_eq!(received, sent);
    }
}

async fn receive(answer: &mut Answer, received: &mut Vec<u8>) {
    let bytes = answer.next_bytes().await.expect("a byte waits for what comes after it");
    received.extend_from_slice(&bytes.expect("the answer ended too early"));
}
