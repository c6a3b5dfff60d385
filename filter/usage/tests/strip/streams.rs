//! OpenAI streams: recorded, with usage put into them, and broken.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use crate::removable::is_usage_chunk;

/// A recorded stream.
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Our own fixtures, and those of the corpus where it lies beside the checkout.
pub(crate) fn recorded() -> Vec<Stream> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let mut streams = Vec::new();
    for folder in [own, corpus] {
        let Ok(table) = fs::read_to_string(folder.join("expected.csv")) else { continue };
        for row in table.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()) {
            if row[1].starts_with("text/event-stream") && ["openai-chat", "openai-completions"].contains(&row[2]) {
                let bytes = fs::read(folder.join(row[0])).unwrap();
                // One fixture has documents of several lines, which the naive way below does not know.
                if !row[0].contains("lines") {
                    streams.push(Stream { name: row[0].to_owned(), bytes });
                }
            }
        }
    }
    assert!(!streams.is_empty());
    streams
}

impl Stream {
    /// Without usage chunks and nulls, the naive way.
    pub(crate) fn without_usage(&self) -> Vec<u8> {
        let text = String::from_utf8(self.bytes.clone()).unwrap();
        let gap = ["\r\n\r\n", "\n\n", "\r\r"].into_iter().find(|gap| text.contains(gap)).unwrap();
        let mut without = String::new();
        for event in text.split_inclusive(gap) {
            match document(event) {
                _ if data(event).is_some_and(|data| is_usage_chunk(data.as_bytes())) => {}
                Some(Value::Object(mut members)) if members.get("usage") == Some(&Value::Null) => {
                    members.remove("usage");
                    let event = event.replacen(",\"usage\":null", "", 1).replacen(", \"usage\": null", "", 1);
                    assert_eq!(document(&event), Some(Value::Object(members)), "{event}");
                    without.push_str(&event);
                }
                _ => without.push_str(event),
            }
        }
        without.into_bytes()
    }
}

fn data(event: &str) -> Option<&str> {
    event.split(['\n', '\r']).find_map(|line| line.strip_prefix("data:"))
}

fn document(event: &str) -> Option<Value> {
    serde_json::from_str(data(event)?).ok()
}

/// A stream as its provider sends it when it was asked for usage, and the same without, both with these line ends. The seed
/// chooses where what is put in stands, and how it is written.
pub(crate) fn with_usage(stream: &[u8], seed: usize, line_end: &str) -> (Vec<u8>, Vec<u8>) {
    let text = String::from_utf8(stream.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let usage = [
        "data: {\"id\":\"i\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"details\":{\"a\":[]}}}\n\n",
        "data:{\"usage\": {}, \"choices\": [ ], \"created\": 1}\n\n",
        "event: message\nid: 7\ndata: {\"choices\":[],\ndata:\ndata: \"usage\":{\"prompt_tokens\":1}}\n\n",
    ];
    let (events, mut with) = (text.split_inclusive("\n\n").collect::<Vec<_>>(), String::new());
    let place = match seed % 3 {
        0 => 0,
        // Before `[DONE]`, where they are.
        1 => events.len().saturating_sub(1),
        _ => seed % (events.len() + 1),
    };
    for (at, event) in events.iter().enumerate() {
        // Not behind an event that has no end.
        if at == place {
            with.push_str(usage[seed % usage.len()]);
        }
        match document(event) {
            Some(Value::Object(members)) if !members.contains_key("usage") => {
                with.push_str(&with_null(event, seed + at))
            }
            _ => with.push_str(event),
        }
    }
    (with.replace('\n', line_end).into_bytes(), text.replace('\n', line_end).into_bytes())
}

fn with_null(event: &str, seed: usize) -> String {
    let places = top_level_places(event);
    let place = places[seed % places.len()];
    let null = match (place == places[0], seed % 3) {
        (true, 0) => "\"usage\":null,",
        (true, _) => "\"usage\" : null , ",
        (false, 0) => ",\"usage\":null",
        (false, 1) => ", \"usage\": null",
        (false, _) => ",\t\"usage\"\t:\tnull",
    };
    format!("{}{null}{}", &event[..place], &event[place..])
}

/// Where a member may be put into an event's object: before its first key, its commas and its end.
fn top_level_places(event: &str) -> Vec<usize> {
    let start = event.find('{').unwrap();
    let mut places = vec![start + event[start..].find('"').unwrap()];
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for (at, byte) in event.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b',' | b'}' if depth == 1 => {
                places.push(at);
                depth -= i32::from(byte == b'}');
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    places
}

/// What may stand in a broken stream: parts that steer the machine, so that random bytes go deep.
const PARTS: &[&str] = &[
    "data:",
    "data: ",
    "data: {",
    "event: x",
    "id",
    "retry:",
    ": c",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\r\r",
    "\r\n\r\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    " ",
    "\t",
    "\"usage\"",
    "\"usage\":null",
    ",\"usage\":null",
    "\"usage\":{}",
    "null",
    "\"choices\":[]",
    "\"choices\":[{}]",
    "\"choices\"",
    "[]",
    "{}",
    "\"a\":1",
    "\"a\":\"b\"",
    "\"error\":{}",
    "[DONE]",
    "\u{feff}",
    "data: {\"choices\":[],\"usage\":{}}\n\n",
    "data: {\"choices\":[],\"usage\":{}",
    "n",
    "nul",
    "é",
    "1",
];

pub(crate) fn broken_stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        9 => prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}
