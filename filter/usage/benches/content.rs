//! How fast content passes: gigabytes a second over the chunks of a stream, and how many times faster that is than to parse
//! each event with `serde_json`. Prints medians; asserts nothing about time.

use std::hint::black_box;
use std::time::Instant;

use tollgate_usage::{Hints, Reader};

const EVENTS: usize = 2000;
const ROUNDS: usize = 31;

/// What varies between providers: how an event looks that carries a few letters of content.
const STREAMS: &[(&str, &str)] = &[(
    "openai-chat",
    r#"data: {"id":"chatcmpl-CfXq7bYw0ePjuCTwM2iU0zR3yY3aK","object":"chat.completion.chunk","created":1763500000,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_b1442291a8","choices":[{"index":0,"delta":{"content":" Berlin"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Xb3kQp0"}"#,
)];

fn main() {
    println!("{:<20}{:>14}{:>14}{:>16}", "content chunks", "GB/s", "ns/event", "x serde_json");
    for (name, event) in STREAMS {
        let stream = format!("{event}\n\n").repeat(EVENTS);
        let chunk_bytes = event.len() + 2;
        let ours = median_ns(|| read(stream.as_bytes(), chunk_bytes));
        let theirs = median_ns(|| parse(&stream));
        println!("{name:<20}{:>14.2}{:>14.0}{:>16.1}", stream.len() as f64 / ours, ours / EVENTS as f64, theirs / ours);
    }
}

/// One event a chunk, as proxies mostly see them.
fn read(stream: &[u8], chunk_bytes: usize) {
    let mut reader = Reader::new(Hints::default());
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

fn median_ns(run: impl Fn()) -> f64 {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2] as f64
}
