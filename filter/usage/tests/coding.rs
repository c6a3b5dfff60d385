//! A coded body is read as a plain one, however it is cut; and what is no such body ends in a reason.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc, GzBuilder};
use proptest::prelude::*;
use proptest::sample::Index;
use tollgate_usage::{Decoder, End, Hints, MAX_DECODED_BYTES, Reader, Unreadable};

type Outcome = (Vec<u8>, Result<End, Unreadable>);

fn decode<'a>(coding: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut decoder, mut decoded) = (Decoder::new(Some(coding)), Vec::new());
    pieces.into_iter().for_each(|piece| decoder.decode(piece, &mut |plain| decoded.extend_from_slice(plain)));
    (decoded, decoder.finish())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// As a server sends a stream: each event at once.
fn gzip_flushed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for event in plain.split_inclusive(|byte| *byte == b'\n') {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// Every fixture in every coding.
fn coded_fixtures() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut coded = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let plain = fs::read(entry.path()).unwrap();
        for (coding, encode) in [
            ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
            ("x-gzip", gzip_flushed),
            ("deflate", zlib),
            ("Deflate", raw_deflate),
        ] {
            coded.push((coding, encode(&plain), plain.clone()));
        }
    }
    assert!(!coded.is_empty());
    coded
}

#[test]
fn every_single_cut_decodes_the_same() {
    for (coding, coded, plain) in coded_fixtures() {
        let expected = (plain, Ok(End::Complete));
        for cut in 0..=coded.len() {
            let (before, after) = coded.split_at(cut);
            assert!(decode(coding, [before, after]) == expected, "{coding} cut at {cut}");
        }
        assert!(decode(coding, coded.chunks(1)) == expected, "{coding} byte by byte");
    }
}

#[test]
fn a_truncated_body_gives_what_was_there() {
    for (coding, coded, plain) in coded_fixtures() {
        let mut decoded_bytes = 0;
        for end in 0..coded.len() {
            let (decoded, outcome) = decode(coding, [&coded[..end]]);
            assert_eq!(outcome, Ok(End::Cut), "{coding} truncated at {end}");
            assert!(plain.starts_with(&decoded) && decoded.len() >= decoded_bytes, "{coding} truncated at {end}");
            decoded_bytes = decoded.len();
        }
    }
}

#[test]
fn a_reader_reads_a_coded_body_as_a_plain_one() {
    for (coding, coded, plain) in coded_fixtures() {
        let read = |coding, pieces: Vec<&[u8]>| {
            let mut reader = Reader::new(Hints { content_encoding: coding, ..Hints::default() });
            pieces.into_iter().for_each(|piece| reader.feed(piece));
            reader.finish()
        };
        let expected = read(None, vec![&plain]);
        assert_eq!(read(Some(coding), vec![&coded]), expected);
        assert_eq!(read(Some(coding), coded.chunks(1).collect()), expected);
        let truncated = &coded[..coded.len() - 1];
        let (decoded, _) = decode(coding, [truncated]);
        let mut expected = read(None, vec![&decoded]);
        expected.end = End::Cut;
        assert_eq!(read(Some(coding), vec![truncated]), expected);
    }
}

#[test]
fn a_reader_tells_why_it_could_not_read() {
    let plain = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    let read = |coding, body: &[u8]| {
        let mut reader = Reader::new(Hints { content_encoding: Some(coding), ..Hints::default() });
        reader.feed(body);
        reader.finish()
    };
    let mut corrupt = gzip_flushed(plain);
    *corrupt.last_mut().unwrap() ^= 1;
    let report = read("gzip", &corrupt);
    assert_eq!((report.unreadable, report.end), (Some(Unreadable::Corrupt), End::Cut));
    assert_eq!(report.usage, read("identity", plain).usage);
    let report = read("br", plain);
    assert_eq!((report.unreadable, report.usage), (Some(Unreadable::Brotli), None));
}

#[test]
fn content_encoding_names_what_is_decoded() {
    let (plain, gzipped) = (&b"plain"[..], gzip(b"plain"));
    for identity in ["", "identity", " Identity , identity", ","] {
        assert_eq!(decode(identity, [plain]), (plain.to_vec(), Ok(End::Complete)), "{identity:?}");
    }
    for coding in ["gzip", "GZIP", "x-gzip", "gzip, identity", " identity ,gzip "] {
        assert_eq!(decode(coding, [&gzipped[..]]), (plain.to_vec(), Ok(End::Complete)), "{coding:?}");
    }
    for (coding, reason) in [
        ("br", Unreadable::Brotli),
        ("zstd", Unreadable::Zstandard),
        ("compress", Unreadable::UnknownCoding),
        ("gzip, gzip", Unreadable::UnknownCoding),
        ("deflate, br", Unreadable::UnknownCoding),
        ("gzip;q=1", Unreadable::UnknownCoding),
    ] {
        assert_eq!(decode(coding, [&gzipped[..]]), (vec![], Err(reason)), "{coding:?}");
    }
}

/// A member with every optional part, its header's checksum included.
fn member_with_all_parts(plain: &[u8]) -> Vec<u8> {
    let builder = GzBuilder::new().extra(vec![1; 300]).filename("name").comment("comment").mtime(1);
    let mut encoder = builder.write(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    let mut member = encoder.finish().unwrap();
    member[3] |= 2;
    let header_bytes = 10 + 2 + 300 + "name\0comment\0".len();
    let mut crc = Crc::new();
    crc.update(&member[..header_bytes]);
    member.splice(header_bytes..header_bytes, (crc.sum() as u16).to_le_bytes());
    member
}

#[test]
fn gzip_members_follow_each_other_with_any_header() {
    let members = [member_with_all_parts(b"one "), gzip(b""), gzip(b"two "), member_with_all_parts(b"three")].concat();
    let expected = (b"one two three".to_vec(), Ok(End::Complete));
    for chunk_bytes in [1, 2, 7, members.len()] {
        assert_eq!(decode("gzip", members.chunks(chunk_bytes)), expected, "in chunks of {chunk_bytes}");
    }
    let first_bytes = member_with_all_parts(b"one ").len();
    assert_eq!(decode("gzip", [&members[..first_bytes + 1]]), (b"one ".to_vec(), Ok(End::Cut)));
}

#[test]
fn a_gzip_member_is_checked() {
    let member = member_with_all_parts(b"plain");
    let (time_and_system, trailer) = (4..10, member.len() - 8..member.len());
    for at in (0..10 + 2 + 300 + 13 + 2).chain(trailer) {
        let mut changed = member.clone();
        changed[at] ^= 1;
        assert_eq!(decode("gzip", [&changed[..]]).1, Err(Unreadable::Corrupt), "byte {at} changed");
    }
    let mut unchecked = gzip(b"plain");
    for at in time_and_system {
        unchecked[at] ^= 1;
    }
    assert_eq!(decode("gzip", [&unchecked[..]]), (b"plain".to_vec(), Ok(End::Complete)));
    unchecked[3] |= 0x20;
    assert_eq!(decode("gzip", [&unchecked[..]]), (vec![], Err(Unreadable::Corrupt)));
}

#[test]
fn what_follows_the_end_is_corrupt() {
    for (coding, mut coded) in
        [("gzip", gzip(b"plain")), ("deflate", zlib(b"plain")), ("deflate", raw_deflate(b"plain"))]
    {
        coded.push(b'x');
        assert_eq!(decode(coding, coded.chunks(1)), (b"plain".to_vec(), Err(Unreadable::Corrupt)), "{coding}");
        coded.extend(gzip(b"more"));
        assert_eq!(decode(coding, [&coded[..]]), (b"plain".to_vec(), Err(Unreadable::Corrupt)), "{coding}");
    }
    let mut wrong_adler = zlib(b"plain");
    *wrong_adler.last_mut().unwrap() ^= 1;
    assert_eq!(decode("deflate", [&wrong_adler[..]]), (b"plain".to_vec(), Err(Unreadable::Corrupt)));
}

#[test]
fn a_bomb_is_decoded_up_to_the_bound() {
    const MIB: usize = 1024 * 1024;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    (0..1024).for_each(|_| encoder.write_all(&[b' '; MIB]).unwrap());
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 2 * MIB);
    for chunk_bytes in [16 * 1024, bomb.len()] {
        let (mut decoder, mut decoded_bytes) = (Decoder::new(Some("gzip")), 0);
        bomb.chunks(chunk_bytes)
            .for_each(|chunk| decoder.decode(chunk, &mut |plain| decoded_bytes += plain.len() as u64));
        assert_eq!((decoded_bytes, decoder.finish()), (MAX_DECODED_BYTES, Err(Unreadable::TooLarge)));
    }
}

proptest! {
    #[test]
    fn random_bytes_decode_the_same_however_cut(
        coding in prop::sample::select(vec!["gzip", "deflate"]),
        header in prop::sample::select(vec![&[][..], &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0], &[0x78, 0x9C], &[0x05]]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        chunk_bytes in 1..9usize,
    ) {
        let bytes = [header, &bytes].concat();
        prop_assert_eq!(decode(coding, bytes.chunks(chunk_bytes)), decode(coding, [&bytes[..]]));
    }

    #[test]
    fn a_changed_body_decodes_the_same_however_cut(
        plain in prop::collection::vec(prop::sample::select(b"data: {}\n\"a".to_vec()), 1..2000),
        (coding, encode) in prop::sample::select(vec![
            ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
            ("gzip", member_with_all_parts),
            ("deflate", zlib),
            ("deflate", raw_deflate),
        ]),
        at in any::<Index>(),
        removed in 0..3usize,
        added in prop::collection::vec(any::<u8>(), 0..3),
        cuts in prop::collection::vec(any::<Index>(), 0..5),
    ) {
        let mut coded = encode(&plain);
        let at = at.index(coded.len());
        coded.splice(at..(at + removed).min(coded.len()), added);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(coded.len() + 1)).chain([0, coded.len()]).collect();
        cuts.sort_unstable();
        let whole = decode(coding, [&coded[..]]);
        prop_assert_eq!(&decode(coding, cuts.windows(2).map(|ends| &coded[ends[0]..ends[1]])), &whole);
        prop_assert_eq!(&decode(coding, coded.chunks(1)), &whole);
    }
}
