//! What was put into a stream because usage was asked for in the client's stead goes again, and nothing else does.

mod removable;
mod streams;
mod waiting;

use proptest::prelude::*;
use proptest::sample::Index;
use tollgate_usage::{MAX_HELD_BYTES, Strip};

use removable::is_input_without_removable;
use streams::{broken_stream, recorded, with_usage};

fn strip<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut strip, mut out) = (Strip::new(), Vec::new());
    pieces.into_iter().for_each(|piece| strip.feed(piece, &mut out));
    strip.finish(&mut out);
    out
}

/// As it is what the client must get, a difference is shown as text.
#[track_caller]
fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    if got != expected {
        let (got, expected) = (String::from_utf8_lossy(got), String::from_utf8_lossy(expected));
        panic!("{what}\n--- got\n{got}\n--- expected\n{expected}");
    }
}

#[test]
fn recorded_streams_come_out_as_without_usage() {
    let mut with_nulls_and_chunk = 0;
    for stream in recorded() {
        let without = stream.without_usage();
        with_nulls_and_chunk += usize::from(without != stream.bytes);
        for chunk_bytes in [1, 7, 1400, usize::MAX] {
            let got = strip(stream.bytes.chunks(chunk_bytes));
            assert_same(&got, &without, &format!("{} in chunks of {chunk_bytes}", stream.name));
        }
    }
    assert!(with_nulls_and_chunk > 0);
}

#[test]
fn every_single_cut_comes_out_the_same() {
    for stream in recorded().iter().filter(|stream| stream.bytes.len() < 4096) {
        let without = stream.without_usage();
        for (seed, line_end) in ["\n", "\r\n", "\r"].into_iter().enumerate() {
            let (with, expected) = with_usage(&without, seed, line_end);
            for cut in 0..=with.len() {
                let (before, after) = with.split_at(cut);
                assert_same(&strip([before, after]), &expected, &format!("{} cut at {cut}", stream.name));
            }
            assert_same(&strip(with.chunks(1)), &expected, &stream.name);
        }
    }
}

#[test]
fn what_waits_is_bounded() {
    let (opening, ending) = ("data: {\"id\":\"", "\",\"choices\":[],\"usage\":{}}\n\n");
    for (id_bytes, goes) in [(MAX_HELD_BYTES - opening.len() - ending.len(), true), (MAX_HELD_BYTES, false)] {
        let event = format!("{opening}{}{ending}", "x".repeat(id_bytes));
        for chunk_bytes in [1, 1000, usize::MAX] {
            let (mut strip, mut out, mut fed) = (Strip::new(), Vec::new(), 0);
            for chunk in event.as_bytes().chunks(chunk_bytes) {
                strip.feed(chunk, &mut out);
                fed += chunk.len();
                assert!(fed - out.len() < MAX_HELD_BYTES || goes);
            }
            assert_eq!(out.is_empty(), goes);
            strip.finish(&mut out);
            assert!(out == if goes { "" } else { &event }.as_bytes());
        }
    }
    // The same for a member, and what comes behind is looked at again.
    let space = " ".repeat(MAX_HELD_BYTES);
    let event = |null: &str| format!("data: {{\"choices\":[{{}}],{space}\"usage\":null{null},\"a\":0}}\n\n");
    for chunk_bytes in [1, 1000, usize::MAX] {
        let got = strip(event(",\"usage\":null").as_bytes().chunks(chunk_bytes));
        assert!(got == event("").as_bytes());
    }
}

proptest! {
    #[test]
    fn random_cuts_come_out_the_same(
        which in any::<Index>(),
        seed in any::<usize>(),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let streams = recorded();
        let (with, expected) = with_usage(&which.get(&streams).without_usage(), seed, line_end);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(with.len() + 1)).chain([0, with.len()]).collect();
        cuts.sort_unstable();
        assert_same(&strip(cuts.windows(2).map(|ends| &with[ends[0]..ends[1]])), &expected, "cut");
    }

    #[test]
    fn of_any_bytes_only_what_may_go_goes(bytes in broken_stream(), chunk_bytes in 1..40usize) {
        let out = strip([&bytes[..]]);
        prop_assert!(is_input_without_removable(&bytes, &out), "{:?}", String::from_utf8_lossy(&out));
        prop_assert_eq!(&strip(bytes.chunks(1)), &out);
        prop_assert_eq!(&strip(bytes.chunks(chunk_bytes)), &out);
    }
}
