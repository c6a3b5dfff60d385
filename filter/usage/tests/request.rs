//! Requests of all providers, read and edited at every cut.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use tollgate_usage::{Endpoint, RequestFacts, RequestReader, apply};

const CHAT: &str = "/v1/chat/completions";

fn read(path: &str, pieces: &[&[u8]]) -> (RequestReader, Vec<u8>) {
    let mut reader = RequestReader::new(Endpoint::of(path, None).as_ref());
    let (mut edited, mut offset) = (Vec::new(), 0);
    for piece in pieces {
        let edits = reader.feed(piece);
        edited.extend(apply(&edits, piece, offset));
        offset += piece.len() as u64;
    }
    (reader, edited)
}

fn whole(path: &str, body: &str) -> (RequestReader, String) {
    let (reader, edited) = read(path, &[body.as_bytes()]);
    (reader, String::from_utf8(edited).unwrap())
}

fn facts(path: &str, body: &str) -> RequestFacts {
    whole(path, body).0.facts()
}

fn fixtures() -> impl Iterator<Item = (Vec<String>, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requests");
    let expected = fs::read_to_string(dir.join("expected.csv")).unwrap();
    let rows: Vec<Vec<String>> =
        expected.lines().skip(1).map(|row| row.split(',').map(str::to_owned).collect()).collect();
    assert_eq!(
        rows.len() + 1,
        fs::read_dir(&dir).unwrap().count(),
        "each fixture has a row, and the table is one file"
    );
    rows.into_iter().map(move |row| {
        let body = fs::read_to_string(dir.join(&row[0])).unwrap();
        (row, body)
    })
}

#[test]
fn each_providers_requests_are_read() {
    for (row, body) in fixtures() {
        let (reader, edited) = whole(&row[1], &body);
        let facts = reader.facts();
        let shown = |value: Option<String>| value.unwrap_or_default();
        assert_eq!(
            [
                shown(facts.model),
                shown(facts.stream.map(|stream| stream.to_string())),
                shown(facts.output_cap.map(|cap| cap.to_string())),
                facts.choices.to_string()
            ],
            row[2..6],
            "{}",
            row[0]
        );
        let (from, to) = (row[6].parse().unwrap(), row[7].parse().unwrap());
        assert!((from..=to).contains(&facts.input_estimate), "{}: {}", row[0], facts.input_estimate);
        assert!(facts.complete, "{}", row[0]);
        assert_eq!(if reader.usage_is_ours() { "ours" } else { "" }, row[8], "{}", row[0]);
        assert_eq!(edited != body, reader.usage_is_ours(), "{}", row[0]);
    }
}

#[test]
fn fixtures_read_the_same_at_every_cut() {
    for (row, body) in fixtures() {
        let (expected, edited) = whole(&row[1], &body);
        for at in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(at);
            let (reader, cut) = read(&row[1], &[first, second]);
            assert_eq!((reader.facts(), cut), (expected.facts(), edited.clone().into_bytes()), "{} at {at}", row[0]);
        }
        let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
        let (reader, cut) = read(&row[1], &bytes);
        assert_eq!((reader.facts(), cut), (expected.facts(), edited.into_bytes()), "{}", row[0]);
    }
}

#[test]
fn any_format_is_read_where_the_endpoint_is_not_known() {
    for (row, body) in fixtures() {
        let mut reader = RequestReader::new(None);
        assert_eq!(reader.feed(body.as_bytes()), []);
        let cap = reader.facts().output_cap.map(|cap| cap.to_string()).unwrap_or_default();
        assert!(row[4] == cap || row[4] == "0", "{}", row[0]);
        assert!(reader.facts().input_estimate > 0, "{}", row[0]);
    }
}

#[test]
fn a_stream_is_made_to_report_usage() {
    for (body, edited) in [
        (r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ("{ \"stream\": true \n}\n", "{ \"stream\": true \n,\"stream_options\":{\"include_usage\":true}}\n"),
        (r#"{"stream":true,"stream_options":{}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (
            r#"{"stream_options":{ "a": [1] },"stream":true}"#,
            r#"{"stream_options":{ "a": [1] ,"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":false,"a":1},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"a":1},"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_usage": null },"stream":true}"#,
            r#"{"stream_options":{"include_usage": true },"stream":true}"#,
        ),
        (r#"{"stream":true,"stream_options":null}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (
            r#"{"stream_options":null,"stream":true}"#,
            r#"{"stream_options":null,"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_us\u0061ge":false}}"#,
            r#"{"stream":true,"stream_options":{"include_us\u0061ge":true}}"#,
        ),
        (
            r#"{"stream":1,"stream_options":{"include_usage":0}}"#,
            r#"{"stream":1,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":"True","stream_options":{"include_usage": "fal\"se" ,"a":1}}"#,
            r#"{"stream":"True","stream_options":{"include_usage": true ,"a":1}}"#,
        ),
        (r#"{"stream":"\u0074rue"}"#, r#"{"stream":"\u0074rue","stream_options":{"include_usage":true}}"#),
        (
            r#"{"stream":false,"stream":true,"messages":[{"stream_options":1}]}"#,
            r#"{"stream":false,"stream":true,"messages":[{"stream_options":1}],"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let (reader, ours) = whole(CHAT, body);
        assert_eq!(ours, edited);
        assert!(reader.usage_is_ours(), "{body}");
    }
}

#[test]
fn what_asks_for_usage_does_not_stream_or_is_refused_stays() {
    for body in [
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":false},"stream_options":{"include_usage":true}}"#,
        r#"{"stream":false}"#,
        r#"{"stream":null}"#,
        r#"{"stream":"false"}"#,
        r#"{"stream":"maybe"}"#,
        r#"{"stream":0}"#,
        r#"{"stream":[true]}"#,
        r#"{"stream":true,"stream_options":{"include_usage":[]}}"#,
        r#"{"stream_options":null}"#,
        r#"{"stream":true,"stream_options":"yes"}"#,
        r#"{"stream":true"#,
        r#"{"stream":true}}"#,
        r#"[{"stream":true}]"#,
        r#"{"messages":[{"stream":true}]}"#,
    ] {
        let (reader, edited) = whole(CHAT, body);
        assert!(!reader.usage_is_ours(), "{body}");
        let harmless = body.contains("\"include_usage\":false") || body.ends_with("}}");
        assert!(edited == body || harmless, "{body} {edited}");
    }
    for path in ["/v1/responses", "/v1/messages", "/v2/chat", "/api/chat", "/v1/embeddings", "/elsewhere"] {
        let body = r#"{"stream":true,"stream_options":{"include_usage":false}}"#;
        let (reader, edited) = whole(path, body);
        assert_eq!((reader.usage_is_ours(), edited.as_str()), (false, body), "{path}");
    }
    let mut reader = RequestReader::new(Endpoint::of(CHAT, Some("api.mistral.ai")).as_ref());
    assert_eq!(reader.feed(b"{\"stream\":true}"), []);
}

#[test]
fn keys_are_known_in_any_spelling() {
    let plain = r#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"Hello there"}]}"#;
    let odd = r#"{"\u006dodel":"m","\u0073trea\u006D":true,"max\u005ftokens":9,"\u006dessages":[{"rol\u0065":"user","c\u006fntent":"Hello there"}]}"#;
    let expected = facts(CHAT, plain);
    assert_eq!((expected.stream, expected.output_cap), (Some(true), Some(9)));
    for body in [
        odd.to_owned(),
        plain.replace("messages", "Messages").replace("stream", "STREAM").replace("model", "mOdeL"),
        plain.replace("messages", "me\u{17f}\\u017fages").replace("max_tokens", "max_to\u{212a}ens"),
    ] {
        let (whole, edited) = whole(CHAT, &body);
        assert_eq!(whole.facts(), expected, "{body}");
        assert!(whole.usage_is_ours() && edited.ends_with(r#","stream_options":{"include_usage":true}}"#), "{edited}");
        for at in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(at);
            let (reader, cut) = read(CHAT, &[first, second]);
            assert_eq!((reader.facts(), cut), (expected.clone(), edited.clone().into_bytes()), "{body} at {at}");
        }
    }
    for (key, is_known) in
        [("\\u006dodel", true), ("model\\u0000", false), ("m\\u006", false), ("models", false), ("", false)]
    {
        assert_eq!(facts(CHAT, &format!("{{\"{key}\":\"m\"}}")).model.is_some(), is_known, "{key}");
    }
    let long = format!("{{\"{}\":\"m\"}}", "\\u006d".repeat(999));
    assert_eq!(facts(CHAT, &long).model, None);
}

#[test]
fn a_byte_order_mark_is_passed_over_and_utf_16_is_not_read() {
    let body = "\u{feff}{\"stream\":true,\"stream_options\":{\"include_usage\":false}}";
    let edited = body.replace("false", "true");
    for at in 0..=body.len() {
        let (first, second) = body.as_bytes().split_at(at);
        let (reader, cut) = read(CHAT, &[first, second]);
        assert!(reader.usage_is_ours(), "{at}");
        assert_eq!(String::from_utf8(cut).unwrap(), edited, "{at}");
    }
    let utf_16 = |encode: fn(u16) -> [u8; 2]| "\u{feff}{\"n\":2}".encode_utf16().flat_map(encode).collect::<Vec<u8>>();
    let broken =
        [utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes), b"\xef\xbb{}".to_vec(), b" \xef\xbb\xbf{}".to_vec()];
    for body in broken {
        let pieces: Vec<_> = body.chunks(1).collect();
        assert!(!read(CHAT, &pieces).0.facts().complete, "{body:?}");
        assert!(!read(CHAT, &[&body]).0.facts().complete, "{body:?}");
    }
}

const AZURE_CHAT: &str = "/openai/deployments/d/chat/completions?api-version=2024-10-21";

#[test]
fn a_call_that_works_is_not_broken() {
    for (path, body) in [
        ("/openai/deployments/d/chat/completions?api-version=2024-06-01", r#"{"stream":true}"#),
        ("/openai/deployments/d/chat/completions?api-version=2024-06-01", r#"{"stream":true,"stream_options":null}"#),
        (AZURE_CHAT, r#"{"stream":true,"data_sources":[{"type":"azure_search"}]}"#),
        (AZURE_CHAT, r#"{"data_sources":[],"stream":true,"stream_options":null}"#),
        (AZURE_CHAT, r#"{"stream":true,"stream_options":null,"data_sources":[{}]}"#),
    ] {
        let (reader, edited) = whole(path, body);
        assert_eq!((edited.as_str(), reader.usage_is_ours()), (body, false), "{path}");
        let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
        assert_eq!(read(path, &bytes).1, body.as_bytes(), "{path}");
    }
    for (path, body) in [
        (AZURE_CHAT, r#"{"stream":true,"stream_options":null}"#),
        (AZURE_CHAT, r#"{"stream":true,"data_sources":null}"#),
        (AZURE_CHAT, r#"{"stream":true,"messages":[{"data_sources":[]}]}"#),
        (CHAT, r#"{"data_sources":[],"stream":true}"#),
    ] {
        let (reader, edited) = whole(path, body);
        assert!(reader.usage_is_ours() && upstream(&edited)["stream_options"]["include_usage"] == true, "{edited}");
        let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
        assert_eq!(read(path, &bytes).1, edited.into_bytes(), "{path}");
    }
    let body = r#"{"stream":true,"stream_options":{"include_usage":false}}"#;
    let mut reader = RequestReader::without_edits(Endpoint::of(CHAT, None).as_ref());
    assert_eq!((reader.feed(body.as_bytes()), reader.usage_is_ours()), (vec![], false));
    assert_eq!(reader.facts(), facts(CHAT, body));
}

#[test]
fn answers_that_are_only_begun_are_told() {
    for (path, body, expected) in [
        ("/v1/responses", r#"{"background":true}"#, true),
        ("/v1/responses", r#"{"background":1,"stream":true}"#, true),
        ("/v1beta/interactions", r#"{"background":true}"#, true),
        ("/elsewhere", r#"{"background":true}"#, true),
        ("/v1/responses", r#"{"background":true,"background":false}"#, false),
        ("/v1/responses", r#"{"background":null}"#, false),
        ("/v1/responses", r#"{"input":[{"background":true}]}"#, false),
        (CHAT, r#"{"background":true}"#, false),
    ] {
        assert_eq!(facts(path, body).background, expected, "{path} {body}");
    }
}

#[test]
fn images_are_asked_for_where_nothing_else_is_made() {
    let imagen = "/v1beta/models/imagen-4.0-generate-001:predict";
    for (path, body, images) in [
        ("/v1/images/generations", r#"{"model":"dall-e-3","prompt":"a"}"#, 1),
        ("/v1/images/generations", r#"{"model":"dall-e-2","prompt":"a","n":3}"#, 3),
        ("/v1/images/generations", r#"{"n":0}"#, 1),
        ("/v1/images/generations", r#"{"n":"7"}"#, 1),
        ("/v1/images/edits", r#"{"model":"gpt-image-1","images":[{"image_url":"https://a"}],"prompt":"a","n":2}"#, 2),
        (imagen, r#"{"instances":[{"prompt":"a"}],"parameters":{"sampleCount":1}}"#, 1),
        (imagen, r#"{"instances":[{"prompt":"a"}]}"#, 4),
        (CHAT, r#"{"model":"m","n":3}"#, 0),
    ] {
        assert_eq!(facts(path, body).images, images, "{path} {body}");
    }
    assert_eq!(RequestReader::new(None).facts().images, 0);
}

#[test]
fn the_greatest_bound_and_number_of_choices_count() {
    let of = |body| {
        let facts = facts(CHAT, body);
        (facts.output_cap, facts.choices)
    };
    assert_eq!(of(r#"{"max_tokens":5,"max_completion_tokens":9,"max_tokens":1}"#), (Some(9), 1));
    assert_eq!(of(r#"{"n":3,"best_of":5,"n":0}"#), (None, 5));
    assert_eq!(of(r#"{"n":null,"max_tokens":null}"#), (None, 1));
    assert_eq!(of(r#"{"n":-3,"max_tokens":-1}"#), (None, 1));
    assert_eq!(of(r#"{"max_tokens":1e3,"n":99999999999999999999999}"#), (Some(1000), 1));
    assert_eq!(of(r#"{"messages":[{"n":3,"max_tokens":7}],"tools":[{"n":3}]}"#), (None, 1));
}

#[test]
fn only_the_bounds_of_the_endpoints_format_count() {
    let body = json!({
        "max_tokens": 1, "max_completion_tokens": 2, "max_output_tokens": 3, "max_gen_len": 4, "max_tokens_to_sample": 5,
        "textGenerationConfig": {"maxTokenCount": 6}, "inferenceConfig": {"max_new_tokens": 7, "maxTokens": 8},
        "generationConfig": {"maxOutputTokens": 9}, "generation_config": {"max_output_tokens": 10}, "options": {"num_predict": 11}
    });
    for (path, cap) in [
        (CHAT, 2),
        ("/v1/completions", 1),
        ("/v1/responses", 3),
        ("/v1/messages", 1),
        ("/v1beta/models/m:generateContent", 10),
        ("/v1beta/interactions", 10),
        ("/model/m/converse", 8),
        ("/model/m/invoke", 8),
        ("/v1/chat", 1),
        ("/v2/chat", 1),
        ("/api/chat", 11),
        ("/elsewhere", 11),
    ] {
        assert_eq!(facts(path, &body.to_string()).output_cap, Some(cap), "{path}");
    }
    assert_eq!(facts(CHAT, r#"{"options":{"num_predict":5},"max_gen_len":7}"#).output_cap, None);
}

#[test]
fn media_count_by_what_they_are_and_never_as_text() {
    let estimate = |source: Json| {
        let body = json!({"messages": [{"content": [{"type": "x", "source": source}]}]});
        facts("/v1/messages", &body.to_string()).input_estimate
    };
    let around = estimate(json!({}));
    let long = "AAAA".repeat(100_000);
    for (start, tokens) in [
        ("/9j/", 1600),
        ("iVBORw0KGgo", 1600),
        ("data:image/webp;base64,", 1600),
        ("UklGRgAAAABXRUJQ", 1600),
        ("UklGRgAAAABXQVZF", 600),
        ("data:audio/mp3;base64,", 600),
        ("JVBERi0xLjQK", 12_000),
        ("AAAAIGZ0eXBpc29t", 360),
        ("data:text/plain;base64,", 75_003),
    ] {
        assert_eq!(estimate(json!({"data": format!("{start}{long}")})) - around, tokens, "{start}");
    }
    assert_eq!(estimate(json!({"url": "https://example.com/a"})) - around, 1600);
    assert_eq!(estimate(json!({"data": format!("JVBERi0{}", long.repeat(100))})) - around, 200_000);
    for text in ["Short text", "A text that is longer than the first bytes by which media are told, says \"x\"."] {
        let as_text = json!({"messages": [{"content": text}]}).to_string();
        assert_eq!(estimate(json!({"data": text})), facts("/v1/messages", &as_text).input_estimate);
    }
}

#[test]
fn nothing_is_too_deep_or_broken() {
    let deep = format!("{{\"messages\":{}\"x\"{},\"model\":\"m\"}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(facts(CHAT, &deep).model.as_deref(), Some("m"));
    let cut = facts(CHAT, &"{\"messages\":[".repeat(100_000));
    assert!(!cut.complete);
    for body in ["", " ", "null", "[]", "\"text\"", "{", "}", "{\"model\":\"m\"} x", "\u{feff}{}", "{\"stream\":tru"] {
        let facts = facts(CHAT, body);
        assert_eq!((facts.stream, facts.choices, facts.input_estimate), (None, 1, 0), "{body}");
    }
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hello"}],!"stream":true}"#;
    let (reader, edited) = whole(CHAT, body);
    assert_eq!((reader.facts().complete, edited.as_str()), (false, body));
}

#[test]
fn a_body_with_20_mib_of_images_is_read_in_passing() {
    let part = format!(
        "{{\"type\":\"image_url\",\"image_url\":{{\"url\":\"data:image/png;base64,{}\"}}}},",
        "QUJD".repeat(1 << 18)
    );
    let chunk = |bytes: &[u8], reader: &mut RequestReader| {
        for piece in bytes.chunks(16 * 1024) {
            assert_eq!(reader.feed(piece), []);
        }
    };
    let mut reader = RequestReader::new(Endpoint::of(CHAT, None).as_ref());
    chunk(b"{\"messages\":[{\"role\":\"user\",\"content\":[", &mut reader);
    (0..20).for_each(|_| chunk(part.as_bytes(), &mut reader));
    chunk(b"{\"type\":\"text\",\"text\":\"What is this?\"}]}],\"model\":\"gpt-4o\"", &mut reader);
    chunk(b"}", &mut reader);
    let facts = reader.facts();
    assert!(facts.complete);
    assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
    assert!((20 * 765 + 8..20 * 765 + 16).contains(&facts.input_estimate), "{}", facts.input_estimate);
}

#[test]
fn a_reader_is_small_and_edits_are_few() {
    assert!(size_of::<RequestReader>() < 2048, "{}", size_of::<RequestReader>());
    let body = format!("{{\"stream\":true{}}}", ",\"stream_options\":{}".repeat(9999));
    let mut reader = RequestReader::new(Endpoint::of(CHAT, None).as_ref());
    assert_eq!(reader.feed(body.as_bytes()).len(), 17);
    assert!(reader.usage_is_ours());
    let added = r#","stream_options":{"include_usage":true}}"#;
    for (options, are_edited) in [
        ("{}", true),
        (r#"{"include_usage":false}"#, true),
        (r#"{"include_usage":"no"}"#, true),
        (r#"{"include_usage":true}"#, false),
    ] {
        for count in 14..19 {
            let body = format!("{{\"stream\":true{}}}", format!(",\"stream_options\":{options}").repeat(count));
            let (reader, edited) = whole(CHAT, &body);
            let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
            let (cut, cut_edited) = read(CHAT, &bytes);
            assert_eq!((cut.usage_is_ours(), cut_edited), (reader.usage_is_ours(), edited.clone().into_bytes()));
            assert_eq!(
                (reader.usage_is_ours(), upstream(&edited)["stream_options"]["include_usage"] == true),
                (are_edited, true)
            );
            assert_eq!(edited.matches("include_usage\":true").count(), if are_edited { count.min(17) } else { count });
            assert!(edited.ends_with(added));
        }
    }
    // Options past the most edits that ask by themselves need none.
    let body = format!("{{\"stream\":true{}{added}", ",\"stream_options\":{}".repeat(20));
    let (reader, edited) = whole(CHAT, &body);
    assert!(!reader.usage_is_ours() && edited.ends_with(&format!("{{}}{added}")), "{edited}");
}

/// Bodies that are about stream options, in any order and number, with members around.
fn bodies() -> impl Strategy<Value = String> {
    let scalar =
        prop_oneof![Just("true"), Just("false"), Just("null"), Just("1"), Just("\"x\""), Just("\"true\""), Just("[1]")];
    let option = prop_oneof![
        4 => scalar.clone().prop_map(|value| format!("\"include_usage\": {value}")),
        1 => Just("\"include_obfuscation\":false".to_owned()),
        1 => Just("\"a\" : {\"b\":[\"}\",{}]}".to_owned()),
    ];
    let options = prop_oneof![
        4 => prop::collection::vec(option, 0..3).prop_map(|members| format!("{{ {}}}", members.join(" ,"))),
        2 => Just("null".to_owned()),
        1 => scalar.clone().prop_map(str::to_owned),
    ];
    let member = prop_oneof![
        3 => scalar.prop_map(|value| format!("\"stream\":{value}")),
        3 => options.prop_map(|value| format!("\"stream_options\": {value}")),
        1 => Just("\"messages\":[{\"role\":\"user\",\"content\":\"\\\"stream\\\":true é\"}]".to_owned()),
        1 => Just("\"\":[]".to_owned()),
    ];
    (prop::collection::vec(member, 0..5), "[ \n]{0,2}")
        .prop_map(|(members, end)| format!("{end}{{{}{end}}}{end}", members.join(", ")))
}

/// What an upstream that takes the last of duplicate members makes of it.
fn upstream(body: &str) -> serde_json::Map<String, Json> {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// What a lenient upstream takes for true, of what stands in these bodies.
fn is_true(value: &Json) -> bool {
    [json!(true), json!(1), json!("true")].contains(value)
}

proptest! {
    #[test]
    fn a_body_is_the_same_and_its_stream_reports_usage(body in bodies()) {
        let (reader, edited) = whole(CHAT, &body);
        prop_assert!(reader.facts().complete);
        let (before, mut after) = (upstream(&body), upstream(&edited));
        let options = |body: &serde_json::Map<String, Json>| body.get("stream_options").cloned().unwrap_or(Json::Null);
        let asks = |options: &Json| is_true(&options["include_usage"]);
        let streams = before.get("stream").is_some_and(is_true);
        let can_be_asked = match &options(&before) {
            Json::Null => true,
            Json::Object(members) => members.get("include_usage").is_none_or(|asked| !asked.is_object() && !asked.is_array()),
            _ => false,
        };
        prop_assert_eq!(reader.usage_is_ours(), streams && can_be_asked && !asks(&options(&before)));
        if streams && can_be_asked {
            prop_assert_eq!(&options(&after)["include_usage"], true);
        }
        // All else stays.
        if let (Some(Json::Object(after)), Some(Json::Object(before))) = (after.get_mut("stream_options"), before.get("stream_options")) {
            match before.get("include_usage") {
                Some(asked) => after.insert("include_usage".to_owned(), asked.clone()),
                None => after.remove("include_usage"),
            };
        } else {
            match before.get("stream_options") {
                Some(options) => after.insert("stream_options".to_owned(), options.clone()),
                None => after.remove("stream_options"),
            };
        }
        prop_assert_eq!(after, before);
    }

    #[test]
    fn edits_are_the_same_at_every_cut(body in bodies(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let (expected, edited) = whole(CHAT, &body);
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
        at.sort_unstable();
        let pieces: Vec<_> = at.windows(2).map(|ends| &body.as_bytes()[ends[0]..ends[1]]).collect();
        let (reader, cut) = read(CHAT, &pieces);
        prop_assert_eq!(String::from_utf8(cut).unwrap(), edited.clone());
        prop_assert_eq!((reader.facts(), reader.usage_is_ours()), (expected.facts(), expected.usage_is_ours()));
        let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
        prop_assert_eq!(String::from_utf8(read(CHAT, &bytes).1).unwrap(), edited);
    }

    #[test]
    fn any_bytes_have_a_result(pieces in prop::collection::vec(prop_oneof!["\\PC{0,9}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..9), bodies().prop_map(String::into_bytes)], 0..4)) {
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        let (reader, _) = read(CHAT, &pieces);
        let (again, _) = read(CHAT, &[&pieces.concat()]);
        prop_assert_eq!(reader.facts(), again.facts());
    }
}
