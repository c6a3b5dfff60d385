//! A request that is a form reads the same, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_usage::{Endpoint, RequestFacts, RequestReader};
use tollgate_usage_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut input) = Input::new(bytes) else { return };
    let endpoint = Endpoint::of(input.choose(["/v1/images/edits", "/v1/images/variations"]), None);
    let whole = read(endpoint.as_ref(), &[input.body]);
    assert_eq!(read(endpoint.as_ref(), &input.pieces()), whole, "in pieces");
    assert_eq!(read(endpoint.as_ref(), &input.bytes()), whole, "byte by byte");
    if let Ok(content_type) = str::from_utf8(input.body)
        && let Some(mut reader) = RequestReader::of_form(endpoint.as_ref(), content_type)
    {
        reader.feed(input.body);
    }
});

fn read(endpoint: Option<&Endpoint>, pieces: &[&[u8]]) -> RequestFacts {
    let mut reader = RequestReader::of_form(endpoint, "multipart/form-data; boundary=x").expect("it is a form");
    pieces.iter().for_each(|piece| assert!(reader.feed(piece).is_empty(), "a form is not edited"));
    reader.facts()
}
