//! How fast requests pass: gigabytes a second over bodies of text and of images, and for the estimate of a text alone. Prints
//! medians; asserts nothing about time.

use std::hint::black_box;
use std::time::Instant;

use tollgate_usage::{Endpoint, RequestReader, TextEstimate};

const ROUNDS: usize = 31;
const MIB: usize = 1 << 20;
/// What proxies mostly hand over at once.
const CHUNK_BYTES: usize = 16 * 1024;

const ENGLISH: &str = "The quick brown fox, who was 7 years old, didn't jump over \\\"the lazy dog\\\" today.\\n\\n";
const CODE: &str = "    for (let i = 0; i < items.length; i++) {\\n        total += items[i].price * rate;\\n    }\\n";
const GERMAN: &str = "Die Straßenbahn fährt heute wegen Überschwemmungen nur bis zum Hauptbahnhof. ";
const CHINESE: &str = "请把下面这段文字翻译成英文，并保留原来的格式和标点符号。";
const JAPANESE: &str = "この文章を英語に翻訳して、元の書式と句読点をそのまま残してください。";

fn main() {
    println!("{:<28}{:>10}{:>14}", "requests", "GB/s", "µs/MiB");
    for (name, text) in
        [("english", ENGLISH), ("code", CODE), ("german", GERMAN), ("chinese", CHINESE), ("japanese", JAPANESE)]
    {
        let text = text.repeat(MIB / text.len());
        row(&format!("estimate, {name}"), text.len(), || {
            let mut estimate = TextEstimate::default();
            estimate.feed(black_box(text.as_bytes()));
            black_box(estimate.tokens());
        });
    }
    let endpoint = Endpoint::of("/v1/chat/completions", None);
    let image = "/9j/4AAQSkZJRgABAQ".repeat(MIB / 18);
    let part = format!("{{\"type\":\"image_url\",\"image_url\":{{\"url\":\"data:image/jpeg;base64,{image}\"}}}}");
    let text = format!("{{\"role\":\"user\",\"content\":\"{}\"}}", ENGLISH.repeat(5));
    for (name, body) in [
        ("20 MiB of images", body(&format!("{{\"role\":\"user\",\"content\":[{}]}}", vec![part; 20].join(",")))),
        ("1 MiB of messages", body(&vec![text.as_str(); MIB / text.len()].join(","))),
        ("one short message", body("{\"role\":\"user\",\"content\":\"Hello\"}")),
    ] {
        row(name, body.len(), || {
            let mut reader = RequestReader::new(endpoint.as_ref());
            for chunk in body.as_bytes().chunks(CHUNK_BYTES) {
                black_box(reader.feed(black_box(chunk)));
            }
            assert!(black_box(reader.facts()).complete);
        });
    }
}

fn body(messages: &str) -> String {
    format!("{{\"model\":\"gpt-4o\",\"stream\":true,\"messages\":[{messages}],\"max_tokens\":100}}")
}

fn row(name: &str, bytes: usize, run: impl Fn()) {
    let mut times_ns: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos()
        })
        .collect();
    times_ns.sort_unstable();
    let ns = times_ns[ROUNDS / 2] as f64;
    println!("{name:<28}{:>10.2}{:>14.0}", bytes as f64 / ns, ns / 1000.0 * MIB as f64 / bytes as f64);
}
