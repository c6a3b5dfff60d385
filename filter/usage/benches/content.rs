//! How fast content passes: gigabytes a second over the chunks of a stream, and how many times faster that is than to parse
//! each event with `serde_json`. Prints medians; asserts nothing about time.

use std::hint::black_box;
use std::time::Instant;

use tollgate_usage::{Hints, Reader};

const EVENTS: usize = 2000;
const ROUNDS: usize = 31;

/// Events that carry a few letters of content.
const STREAMS: &[(&str, &str)] = &[
    (
        "openai-chat",
        r#"data: {"id":"chatcmpl-CfXq7bYw0ePjuCTwM2iU0zR3yY3aK","object":"chat.completion.chunk","created":1763500000,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_b1442291a8","choices":[{"index":0,"delta":{"content":" Berlin"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Xb3kQp0"}"#,
    ),
    (
        "openai-responses",
        r#"data: {"type":"response.output_text.delta","sequence_number":14,"item_id":"msg_68c9a1f2b3d4819c8f0a","output_index":0,"content_index":0,"delta":" Berlin","logprobs":[],"obfuscation":"Xb3kQp0Wz"}"#,
    ),
    (
        "anthropic",
        r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" Berlin is the capital of Germany"}}"#,
    ),
    (
        "gemini",
        r#"data: {"candidates": [{"content": {"parts": [{"text": " Berlin is the capital of Germany, and its largest city by population and by area."}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 12,"candidatesTokenCount": 18,"totalTokenCount": 30,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 12}]},"modelVersion": "gemini-2.5-flash","responseId": "4TTZaY7hO-2Vg8UP1MXMiQw"}"#,
    ),
];
/// The event by which a stream's format is known, where content alone does not tell.
const OPENINGS: &[(&str, &str)] = &[
    ("openai-responses", "data: {\"response\":{\"id\":\"r\",\"model\":\"m\",\"output\":[],\"usage\":null}}\n\n"),
    ("anthropic", "data: {\"message\":{\"id\":\"i\",\"model\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\n"),
];

/// What fits in a packet: events are cut anywhere.
const PACKET_BYTES: usize = 1400;

fn main() {
    println!("{:<34}{:>10}{:>14}{:>16}", "content chunks", "GB/s", "ns/event", "x serde_json");
    for (name, event) in STREAMS {
        let stream = format!("{event}\n\n").repeat(EVENTS);
        let opening = OPENINGS.iter().find(|(of, _)| of == name).map_or("", |(_, opening)| opening);
        for (cut, chunk_bytes) in [("an event each", event.len() + 2), ("packets", PACKET_BYTES)] {
            let (ours, theirs) = medians_ns(|| read(opening, stream.as_bytes(), chunk_bytes), || parse(&stream));
            let (gigabytes, each) = (stream.len() as f64 / ours, ours / EVENTS as f64);
            println!("{:<34}{gigabytes:>10.2}{each:>14.0}{:>16.1}", format!("{name}, {cut}"), theirs / ours);
        }
    }
}

fn read(opening: &str, stream: &[u8], chunk_bytes: usize) {
    let mut reader = Reader::new(Hints::default());
    reader.feed(opening.as_bytes());
    for chunk in stream.chunks(chunk_bytes) {
        reader.feed(black_box(chunk));
    }
    black_box(reader.finish());
}

fn parse(stream: &str) {
    for event in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
        black_box(serde_json::from_str::<serde_json::Value>(black_box(event)).ok());
    }
}

/// Both in turns, so that what else the machine does slows both.
fn medians_ns(ours: impl Fn(), theirs: impl Fn()) -> (f64, f64) {
    let time_ns = |run: &dyn Fn()| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos()
    };
    let (mut our_times, mut their_times): (Vec<_>, Vec<_>) =
        (0..ROUNDS).map(|_| (time_ns(&ours), time_ns(&theirs))).unzip();
    our_times.sort_unstable();
    their_times.sort_unstable();
    (our_times[ROUNDS / 2] as f64, their_times[ROUNDS / 2] as f64)
}
