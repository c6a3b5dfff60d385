//! Coded bytes decode the same, however they are cut; what was encoded comes out again, and what another decoder accepts
//! comes out as from that.
#![no_main]

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use libfuzzer_sys::fuzz_target;
use tollgate_usage::{Decoder, End, Unreadable, readable_codings};
use tollgate_usage_fuzz::Input;

#[derive(Clone, Copy, PartialEq)]
enum Coding {
    Gzip,
    Zlib,
    Raw,
}

impl Coding {
    fn name(self) -> &'static str {
        if self == Coding::Gzip { "gzip" } else { "deflate" }
    }
}

#[derive(Clone, Copy)]
enum Body {
    Coded,
    Plain,
}

fuzz_target!(|bytes: &[u8]| {
    let Some(mut input) = Input::new(bytes) else { return };
    let coding = input.choose([Coding::Gzip, Coding::Zlib, Coding::Raw]);
    match input.choose([Body::Coded, Body::Plain]) {
        Body::Coded => {
            let whole = decode(coding, &[input.body]);
            assert!(decode(coding, &input.pieces()) == whole, "in pieces");
            assert!(decode(coding, &input.bytes()) == whole, "byte by byte");
            if let (Some(plain), Ok(End::Complete)) = (decoded_by_another(coding, input.body), whole.1) {
                assert!(whole.0 == plain, "another decoder");
            }
        }
        Body::Plain => {
            let coded = encode(coding, &input.pieces());
            assert!(decode(coding, &[&coded]) == (input.body.to_vec(), Ok(End::Complete)), "encoded");
        }
    }
    if let Ok(header) = str::from_utf8(input.body)
        && let Some(readable) = readable_codings(header)
    {
        assert_eq!(readable_codings(&readable).as_ref(), Some(&readable), "narrowed twice");
    }
});

fn decode(coding: Coding, pieces: &[&[u8]]) -> (Vec<u8>, Result<End, Unreadable>) {
    let (mut decoder, mut decoded) = (Decoder::new(Some(coding.name())), Vec::new());
    pieces.iter().for_each(|piece| decoder.decode(piece, &mut |plain| decoded.extend_from_slice(plain)));
    (decoded, decoder.finish())
}

fn decoded_by_another(coding: Coding, coded: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let read = match coding {
        Coding::Gzip => MultiGzDecoder::new(coded).read_to_end(&mut plain),
        Coding::Zlib => ZlibDecoder::new(coded).read_to_end(&mut plain),
        Coding::Raw => DeflateDecoder::new(coded).read_to_end(&mut plain),
    };
    read.ok().map(|_| plain)
}

/// Each piece is flushed, as servers do with the events of a stream.
fn encode(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
    fn write(mut to: impl Write, pieces: &[&[u8]]) {
        for piece in pieces {
            to.write_all(piece).and_then(|()| to.flush()).expect("memory takes it");
        }
    }
    let mut coded = Vec::new();
    match coding {
        Coding::Gzip => write(GzEncoder::new(&mut coded, Compression::fast()), pieces),
        Coding::Zlib => write(ZlibEncoder::new(&mut coded, Compression::default()), pieces),
        Coding::Raw => write(DeflateEncoder::new(&mut coded, Compression::default()), pieces),
    }
    coded
}
