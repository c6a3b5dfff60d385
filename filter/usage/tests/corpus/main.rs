//! Recorded responses come out exactly, whole and in pieces: our own fixtures always, and a larger corpus of real
//! responses where it lies beside the checkout.

mod answers;
mod checksums;
mod cuts;
mod recordings;
mod shapes;

use std::path::Path;

use recordings::{Recording, fixtures, listed_in};

fn assert_exact(recordings: &[Recording]) {
    let mut failures = Vec::new();
    for recording in recordings {
        let bytes = recording.bytes();
        let whole = recording.read([&bytes[..]]);
        let format = whole.format.map_or("", |format| format.as_str());
        let error = whole.error.as_deref().unwrap_or_default();
        let counts = recording.counts_of(&whole);
        if (format, error, &counts) != (&recording.format, &recording.error, &recording.counts) {
            let (path, expected) = (recording.path.display(), &recording.counts);
            failures.push(format!("{path}: expected {} {expected:?}, read {counts:?} in {whole:?}", recording.format));
        }
        for chunk_bytes in [1, 7, 1400] {
            let cut = recording.read(bytes.chunks(chunk_bytes));
            if cut != whole {
                failures.push(format!("{}: in pieces of {chunk_bytes} bytes {cut:?}", recording.path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "of {} recordings:\n{}", recordings.len(), failures.join("\n"));
}

#[test]
fn fixtures_come_out_exactly() {
    assert_exact(&fixtures());
}

#[test]
fn the_corpus_beside_the_checkout_comes_out_exactly() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if !folder.join("expected.csv").exists() {
        eprintln!("no corpus beside the checkout: only our own fixtures are read");
        return;
    }
    let recordings = listed_in(&folder);
    assert_exact(&recordings);
    eprintln!("{} recordings of the corpus beside the checkout came out exactly", recordings.len());
}
