//! The cut does not matter, for sound responses and for broken ones.

use proptest::prelude::*;
use proptest::sample::Index;
use tollgate_usage::Report;

use crate::recordings::{Recording, fixtures};

/// Reads bytes cut at these places.
fn read_cut(recording: &Recording, bytes: &[u8], mut cuts: Vec<usize>) -> Report {
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    recording.read(cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]))
}

#[test]
fn every_single_cut_reads_the_same() {
    for recording in fixtures() {
        let bytes = recording.bytes();
        let whole = recording.read([&bytes[..]]);
        for cut in 0..=bytes.len() {
            assert_eq!(read_cut(&recording, &bytes, vec![cut]), whole, "{} cut at {cut}", recording.path.display());
        }
    }
}

/// What may stand in a broken response: parts that steer the parser, so that random bytes go deep.
const PARTS: &[&str] = &[
    "data:",
    "data: ",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u00",
    "\"usage\"",
    "null",
    "true",
    "\"prompt_tokens\":",
    "\"completion_tokens\":",
    "\"choices\":[{",
    "\"delta\":{}",
    "\"finish_reason\":\"stop\"",
    "\"model\":\"m\"",
    "\"id\":\"\"",
    "-1",
    "1.5",
    "1e9",
    "18446744073709551616",
    "\"usageMetadata\":{\"promptTokenCount\":",
    "\"message\":{\"usage\":{",
    "\"done\":true",
    "[DONE]",
    "\u{feff}",
    "é",
    " ",
    "{\"usage\":{\"prompt_tokens\":7}}",
];

pub(crate) fn broken_response() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        9 => prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn random_cuts_read_the_same(which in any::<Index>(), cuts in prop::collection::vec(any::<Index>(), 0..20)) {
        let recordings = fixtures();
        let recording = which.get(&recordings);
        let bytes = recording.bytes();
        let cuts = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        prop_assert_eq!(read_cut(recording, &bytes, cuts), recording.read([&bytes[..]]));
    }

    #[test]
    fn a_changed_response_reads_the_same_byte_by_byte(
        which in any::<Index>(),
        at in any::<Index>(),
        removed in 0..9usize,
        added in broken_response(),
    ) {
        let recordings = fixtures();
        let recording = which.get(&recordings);
        let mut bytes = recording.bytes();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + removed).min(bytes.len()), added);
        prop_assert_eq!(recording.read(bytes.chunks(1)), recording.read([&bytes[..]]));
    }

    #[test]
    fn a_broken_response_reads_the_same_byte_by_byte(which in any::<Index>(), bytes in broken_response()) {
        let recordings = fixtures();
        let recording = which.get(&recordings);
        prop_assert_eq!(recording.read(bytes.chunks(1)), recording.read([&bytes[..]]));
    }
}
