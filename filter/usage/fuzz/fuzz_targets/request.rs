//! A request reads and is edited the same, however it is cut, and its edits change nothing but what they are for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate_usage::{Endpoint, RequestFacts, RequestReader, apply};
use tollgate_usage_fuzz::Input;

const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
    "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    "/model/anthropic.claude-sonnet-4/converse",
    "/v2/chat",
    "/api/chat",
];

fuzz_target!(|bytes: &[u8]| {
    let Some(mut input) = Input::new(bytes) else { return };
    let endpoint = Endpoint::of(input.choose(PATHS), None);
    let whole = read(endpoint.as_ref(), &[input.body]);
    let cut = [read(endpoint.as_ref(), &input.pieces()), read(endpoint.as_ref(), &input.bytes())];
    for cut in &cut {
        assert_eq!(cut.facts, whole.facts);
        assert_eq!(cut.usage_is_ours, whole.usage_is_ours);
    }
    // The edits of what is no JSON do no harm, but whether `fa` will be `false` depends on where it is cut.
    if let Ok(before) = serde_json::from_slice(input.body) {
        let after = serde_json::from_slice(&whole.edited).expect("JSON stays JSON");
        assert_eq!(without_options(after), without_options(before));
        assert!(cut.iter().all(|cut| cut.edited == whole.edited), "edits depend on the cut");
    }
});

struct Outcome {
    edited: Vec<u8>,
    facts: RequestFacts,
    usage_is_ours: bool,
}

fn read(endpoint: Option<&Endpoint>, pieces: &[&[u8]]) -> Outcome {
    let (mut reader, mut edited, mut offset) = (RequestReader::new(endpoint), Vec::new(), 0);
    for piece in pieces {
        let edits = reader.feed(piece);
        edited.extend(apply(&edits, piece, offset));
        offset += piece.len() as u64;
    }
    Outcome { edited, facts: reader.facts(), usage_is_ours: reader.usage_is_ours() }
}

fn without_options(mut request: Value) -> Value {
    if let Some(members) = request.as_object_mut() {
        // In any spelling that is read and edited.
        members.retain(|key, _| key.to_uppercase() != "STREAM_OPTIONS");
    }
    request
}
