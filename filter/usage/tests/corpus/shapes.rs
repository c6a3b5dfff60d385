//! An event that is like one before is read without a scan: what it tells must be what a scan tells. An event that comes in two
//! pieces is always scanned, so the same stream is read both ways.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tollgate_usage::{Hints, Reader, Report};

/// Events by which a stream's format is known, and events that follow with places for values.
const STREAMS: &[(&str, &[&str])] = &[
    (
        r#"{"id":"i","model":"m","choices":[{"delta":{"role":"assistant"}}]}"#,
        &[
            r#"{"id":TEXT,"created":NUMBER,"choices":[{"index":NUMBER,"delta":{"content":TEXT},"finish_reason":null}],"usage":null}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":TEXT}}]},"finish_reason":TEXT}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":NUMBER,"completion_tokens":NUMBER,"completion_tokens_details":{"audio_tokens":NUMBER}},"x":TEXT}"#,
            r#"{"error":{"type":TEXT,"code":NUMBER},"choices":[{"delta":{"reasoning":TEXT},"x":[TEXT,{"usage":NUMBER}]}]}"#,
        ],
    ),
    (
        r#"{"message":{"id":"i","model":"m","usage":{"input_tokens":9}}}"#,
        &[
            r#"{"type": "content_block_delta", "index": NUMBER, "delta": {"type": "text_delta", "text": TEXT}}"#,
            r#"{"type":TEXT,"usage":{"output_tokens":NUMBER,"iterations":[{"input_tokens":NUMBER},{"output_tokens":NUMBER}]},"delta":{"stop_reason":TEXT}}"#,
            r#"{"delta":{"partial_json":TEXT},"usage":TEXT}"#,
        ],
    ),
    (
        r#"{"candidates":[{"content":{}}],"responseId":"r"}"#,
        &[
            r#"{"candidates":[{"content":{"parts":[{"text":TEXT}]},"index":NUMBER}],"usageMetadata":{"promptTokenCount":NUMBER,"candidatesTokenCount":NUMBER,"promptTokensDetails":[{"modality":TEXT,"tokenCount":NUMBER}]},"modelVersion":TEXT}"#,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":{TEXT:TEXT,"a":[NUMBER,TEXT]}}}]},"finishReason":TEXT}]}"#,
        ],
    ),
];

/// What may stand where a stream has a string: strings, and what only looks like one.
const TEXTS: &[&str] = &[
    r#""""#,
    r#"" Berlin""#,
    r#""a much longer text than the one before, of many words""#,
    r#""AUDIO""#,
    r#""\"usage\":{\"prompt_tokens\":7}""#,
    r#""\\""#,
    r#""\u00e9\n\\\"""#,
    r#""é你🌍""#,
    r#""stop""#,
    "\"tab\there\"",
    r#""not closed"#,
    r#""closed" early""#,
    r#""","usage":{"prompt_tokens":5},"x":""#,
    "null",
    "true",
    "7",
    "{}",
    "[\"a\"]",
];
const NUMBERS: &[&str] = &[
    "0",
    "7",
    "7",
    "18",
    "12345",
    "-1",
    "1.5",
    "1e3",
    "99999999999999999999",
    "1x",
    "-",
    "null",
    "\"7\"",
    "{}",
    "",
    "7 ",
    "+1",
];

/// Fills the places of an event, one after the other.
fn fill(event: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .cycle()
        .take(event.len())
        .fold(event.to_owned(), |event, (text, number)| event.replacen("TEXT", text, 1).replacen("NUMBER", number, 1))
}

/// Mostly sound values, the same event again and again.
fn values() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let texts = prop_oneof![4 => select(&TEXTS[..9]), 1 => select(TEXTS)];
    let numbers = prop_oneof![4 => select(&NUMBERS[..6]), 1 => select(NUMBERS)];
    prop::collection::vec((texts, numbers), 1..9)
}

fn report(pieces: impl IntoIterator<Item = String>) -> Report {
    let mut reader = Reader::new(Hints::default());
    pieces.into_iter().for_each(|piece| reader.feed(piece.as_bytes()));
    reader.finish()
}

/// Each document in one piece, and each in two.
fn both_ways(documents: &[String], framed: impl Fn(&str) -> String) -> (Report, Report) {
    let whole = report(documents.iter().map(|document| framed(document)));
    let halves = documents.iter().flat_map(|document| {
        let (framed, half) = (framed(document), document.len() / 2);
        let cut = (half..).find(|at| framed.is_char_boundary(*at)).unwrap_or(half);
        [framed[..cut].to_owned(), framed[cut..].to_owned()]
    });
    (whole, report(halves))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn reading_by_shape_is_reading(
        which in select(STREAMS),
        events in prop::collection::vec((any::<Index>(), values()), 1..12),
        gap in select(vec!["\n\n", "\r\n\r\n", "\n", "\r\r"]),
    ) {
        let (opening, templates) = which;
        let mut documents = vec![opening.to_owned()];
        documents.extend(events.iter().map(|(event, values)| fill(templates[event.index(templates.len())], values)));
        let (whole, halves) = both_ways(&documents, |document| format!("data: {document}{gap}"));
        prop_assert_eq!(whole, halves, "{:?}", documents);
    }

    #[test]
    fn a_byte_that_differs_or_an_end_that_is_missing_is_seen(
        which in select(STREAMS),
        values in values(),
        at in any::<Index>(),
        byte in select(&b"\"\\{}[],: 7-ax\t\n\xc3"[..]),
    ) {
        let (opening, templates) = which;
        for event in templates {
            let sound = fill(event, &values);
            let mut changed = sound.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let events = [opening.as_bytes(), sound.as_bytes(), &changed, sound.as_bytes(), &sound.as_bytes()[..at], sound.as_bytes()];
            let stream = events.map(|event| [b"data: ", event, b"\n\n"].concat()).concat();
            let read = |chunk_bytes: usize| {
                let mut reader = Reader::new(Hints::default());
                stream.chunks(chunk_bytes).for_each(|chunk| reader.feed(chunk));
                reader.finish()
            };
            prop_assert_eq!(read(usize::MAX), read(1), "{}", String::from_utf8_lossy(&changed));
        }
    }
}

#[test]
fn what_is_too_large_for_a_shape_is_read_as_well() {
    let event = |text_bytes: usize, items: usize| {
        let items = vec!["\"x\""; items].join(",");
        format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}],"x":[{items}]}}"#, "a".repeat(text_bytes))
    };
    let opening = r#"{"id":"i","model":"m","choices":[{"delta":{}}]}"#.to_owned();
    let documents = [opening, event(9, 9), event(900, 9), event(99_000, 9), event(9, 99), event(9, 9), event(2000, 99)];
    let (whole, halves) = both_ways(&documents, |document| format!("data: {document}\n\n"));
    assert_eq!(whole, halves);
    assert!(whole.output_estimate > 1000);
}

#[test]
fn an_event_from_before_the_format_was_known_is_no_shape() {
    let event = |tokens: u32| {
        format!(
            "{{\"choices\":[{{\"delta\":{{}}}}],\"usage\":{{\"prompt_tokens\":{tokens},\"completion_tokens\":1}},\
             \"usageMetadata\":{{\"promptTokenCount\":{}}}}}",
            tokens + 100
        )
    };
    let (whole, halves) = both_ways(&[event(1), event(2), event(3)], |document| format!("data: {document}\n\n"));
    assert_eq!(whole, halves);
    assert_eq!(whole.usage.map(|usage| usage.input), Some(3));
}
