//! A response reads the same, however it is cut, whatever is known about it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_usage::{Format, Hints, Reader, Report};
use tollgate_usage_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut input) = Input::new(bytes) else { return };
    let hints = Hints {
        content_type: input.choose([None, Some("application/x-ndjson")]),
        format: input.choose([None, Some(Format::Anthropic), Some(Format::OpenAiResponses), Some(Format::CohereV2)]),
        content_encoding: input.choose([None, Some("gzip"), Some("deflate")]),
    };
    let whole = read(hints, &[input.body]);
    assert_eq!(read(hints, &input.pieces()), whole, "in pieces");
    assert_eq!(read(hints, &input.bytes()), whole, "byte by byte");
});

fn read(hints: Hints<'_>, pieces: &[&[u8]]) -> Report {
    let mut reader = Reader::new(hints);
    pieces.iter().for_each(|piece| reader.feed(piece));
    reader.finish()
}
