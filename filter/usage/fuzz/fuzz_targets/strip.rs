//! Of any bytes only usage chunks and `"usage":null` go, and the same ones however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_usage::Strip;
use tollgate_usage_fuzz::Input;

#[path = "../../tests/strip/removable.rs"]
mod removable;

fuzz_target!(|bytes: &[u8]| {
    let Some(input) = Input::new(bytes) else { return };
    let whole = strip(&[input.body]);
    assert!(strip(&input.pieces()) == whole, "in pieces");
    assert!(strip(&input.bytes()) == whole, "byte by byte");
    assert!(removable::is_input_without_removable(input.body, &whole), "lost, changed or added");
});

fn strip(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut strip, mut out) = (Strip::new(), Vec::new());
    pieces.iter().for_each(|piece| strip.feed(piece, &mut out));
    strip.finish(&mut out);
    out
}
