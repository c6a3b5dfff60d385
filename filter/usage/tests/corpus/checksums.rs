//! What a frame tells counts once its checksum has shown that it came whole and as it was sent.

use tollgate_usage::{End, Report, Unreadable};

use crate::recordings::{Recording, fixtures};

fn streams() -> Vec<Recording> {
    fixtures().into_iter().filter(|recording| recording.content_type.ends_with("eventstream")).collect()
}

/// Where the frames begin, and the end of the last.
fn frame_ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(length) = stream[ends[ends.len() - 1]..].first_chunk() {
        ends.push(ends[ends.len() - 1] + u32::from_be_bytes(*length) as usize);
    }
    ends
}

/// The report, but for the text that passed, which is estimated whatever came of its frame.
fn told(recording: &Recording, stream: &[u8]) -> Report {
    Report { output_estimate: 0, ..recording.read([stream]) }
}

#[test]
fn a_frame_with_a_changed_byte_tells_nothing() {
    for recording in streams() {
        let stream = recording.bytes();
        for ends in frame_ends(&stream).windows(2) {
            let before = told(&recording, &stream[..ends[0]]);
            let expected = Report { end: End::Cut, unreadable: Some(Unreadable::Corrupt), ..before };
            // By the first byte of all it is known what follows.
            for at in ends[0].max(1)..ends[1] {
                let mut changed = stream.clone();
                changed[at] ^= 1;
                assert_eq!(told(&recording, &changed), expected, "byte {at} of {}", recording.path.display());
            }
        }
    }
}

#[test]
fn a_frame_that_is_cut_tells_nothing() {
    for recording in streams() {
        let stream = recording.bytes();
        for ends in frame_ends(&stream).windows(2) {
            let expected = told(&recording, &stream[..ends[0]]);
            for cut in ends[0]..ends[1] {
                let got = told(&recording, &stream[..cut]);
                assert_eq!(got, expected, "{} cut at {cut}", recording.path.display());
            }
        }
    }
}
