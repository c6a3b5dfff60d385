//! A byte waits only while it can still be part of what is removed: whenever some wait, there is a way for the stream to go on
//! by which they go.

use super::strip;
use tollgate_usage::Strip;

const STREAM: &str = concat!(
    ": comment\n\nevent: x\nretry: 10\ndata: {\"id\":\"a\\\"b\",\"created\":12,\"e\":[{\"f\":[null]}],\"choices\":[{\"a\":0}],",
    "\"usage\" : null,\"use\":1, \"usage\":{\"a\":null},\"usa\\\"ge\":null}\n\n",
    "data: {\"usage\":null , \"usage\":nul}\n\ndata: {\"choices\":[ ],\ndata\ndata:\"usage\" :{ \"a\":{}} , \"error\":{}}\n\n",
    "data: {\"usage\":\"\",\"choices\":{}}\r\n\r\ndata: [DONE]\n\ndata: {\"error\":null,\"choices\":[],\"usage\":{}}\n\nother\n",
);

#[test]
fn a_byte_waits_only_while_it_may_go() {
    let (mut reader, mut out, mut waited) = (Strip::new(), Vec::new(), 0);
    for end in 1..=STREAM.len() {
        let fed = &STREAM[..end];
        reader.feed(&fed.as_bytes()[end - 1..], &mut out);
        let waits = strip([fed.as_bytes()]) != out;
        waited += usize::from(waits);
        assert!(!waits || may_go(fed, &out), "waits: {:?}", fed.get(out.len()..));
    }
    assert!(waited > 100, "{waited}");
    for passed in [
        "data: {\"choices\":[{",
        "data: {\"choices\":[],\"usage\":n",
        "data: {\"usage\":1",
        "data: [",
        "dot",
        "ids",
        ":c",
    ] {
        let (mut reader, mut out) = (Strip::new(), Vec::new());
        reader.feed(passed.as_bytes(), &mut out);
        let kept = if passed.ends_with('n') { ",\"usage\":n".len() } else { 0 };
        assert_eq!(out.len(), passed.len() - kept, "{passed}");
    }
}

/// Whether the stream may go on so that nothing of it but what is out already, and a known rest, comes out.
fn may_go(fed: &str, out: &[u8]) -> bool {
    let comes_out =
        |rest: &str, known: &str| strip([format!("{fed}{rest}").as_bytes()]) == [out, known.as_bytes()].concat();
    let suffixes = |of: &'static str| (0..=of.len()).map(move |at| &of[at..]);
    let null_goes = suffixes(",\"usage\":null}").any(|rest| comes_out(rest, "}"))
        || suffixes("\"usage\":null,\"b\":1}").any(|rest| comes_out(rest, "\"b\":1}"));
    let lines = ["event: x\n", "retry: 1\n", "id: 1\n", "data: \n", "x\n", "\n"];
    let whole = "data: {\"choices\":[],\"usage\":{}}\n\n";
    null_goes
        || suffixes("data: {\"choices\":[],\"usage\":{}}\n\n").any(|rest| comes_out(rest, ""))
        || lines.into_iter().any(|line| suffixes(line).any(|rest| comes_out(&format!("{rest}{whole}"), "")))
        || document_endings(fed).iter().any(|rest| comes_out(rest, ""))
}

/// Ways to end the document that is open, as a usage chunk's.
fn document_endings(fed: &str) -> Vec<String> {
    let event = fed.rfind("\n\n").map_or(fed, |at| &fed[at + 2..]);
    let (mut open, mut in_text, mut escaped) = (Vec::new(), false, false);
    for byte in event.bytes().skip_while(|byte| *byte != b'{') {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' => open.push('}'),
            b'[' => open.push(']'),
            b'}' | b']' => _ = open.pop(),
            _ => {}
        }
    }
    let line = fed.rsplit(['\n', '\r']).next().unwrap_or_default();
    let field = if "data:".starts_with(line) { &"data:"[line.len()..] } else { "" };
    let closed: String = open.iter().skip(1).rev().collect();
    let text_end = ["", "\"", "x\""];
    let value_end = ["", ":0", ":null", ":{}", "0", "null", "ull", "ll", "l", "{}", "\"a\":0", "\"\":0"];
    let members = [
        "",
        "}",
        ",\"choices\":[],\"usage\":{}}",
        ",\"choices\":[]}",
        ",\"usage\":{}}",
        "\"choices\":[],\"usage\":{}}",
        "\"choices\":[]}",
        "\"usage\":{}}",
    ];
    let mut endings = Vec::new();
    for text in text_end {
        for value in value_end {
            endings.extend(members.iter().map(|members| format!("{field}{text}{value}{closed}{members}\n\n")));
        }
    }
    endings
}
