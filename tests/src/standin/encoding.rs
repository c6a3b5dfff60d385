//! Content codings: each piece of a body is flushed, so that it can be read when it arrives.

use std::io::{self, Write};
use std::str::FromStr;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// A content coding (RFC 9110, section 8.4.1; `br` is RFC 7932's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `gzip`
    Gzip,
    /// `deflate`, which is zlib's format
    Deflate,
    /// `br`
    Brotli,
}

impl FromStr for Encoding {
    type Err = ();

    fn from_str(name: &str) -> Result<Encoding, ()> {
        [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli]
            .into_iter()
            .find(|encoding| encoding.as_str() == name)
            .ok_or(())
    }
}

impl Encoding {
    /// Its name in `content-encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Brotli => "br",
        }
    }

    /// As many pieces as there were, which are one compressed body together.
    pub(super) fn encode(self, pieces: &[Bytes]) -> Vec<Bytes> {
        let encoded = match self {
            Encoding::Gzip => {
                let encoder = GzEncoder::new(Vec::new(), Compression::default());
                each(pieces, encoder, GzEncoder::get_mut, GzEncoder::finish)
            }
            Encoding::Deflate => {
                let encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                each(pieces, encoder, ZlibEncoder::get_mut, ZlibEncoder::finish)
            }
            Encoding::Brotli => {
                let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
                each(pieces, encoder, brotli::CompressorWriter::get_mut, |encoder| Ok(encoder.into_inner()))
            }
        };
        // Writing to memory does not fail.
        encoded.unwrap_or_default()
    }
}

fn each<E: Write>(
    pieces: &[Bytes],
    mut encoder: E,
    written: fn(&mut E) -> &mut Vec<u8>,
    finish: fn(E) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<Bytes>> {
    let mut encoded = Vec::with_capacity(pieces.len());
    for piece in pieces {
        encoder.write_all(piece)?;
        encoder.flush()?;
        encoded.push(std::mem::take(written(&mut encoder)));
    }
    let end = finish(encoder)?;
    if let Some(last) = encoded.last_mut() {
        last.extend_from_slice(&end);
    }
    Ok(encoded.into_iter().map(Bytes::from).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn each_piece_can_be_read_when_it_arrives() {
        let pieces = ["data: one\n\n", "data: two\n\n", "data: [DONE]\n\n"].map(Bytes::from);
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli] {
            let encoded = encoding.encode(&pieces);
            assert_eq!(encoded.len(), pieces.len());
            for arrived in 1..=pieces.len() {
                let bytes = encoded[..arrived].concat();
                let mut text = Vec::new();
                let read = match encoding {
                    Encoding::Gzip => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text),
                    Encoding::Deflate => flate2::read::ZlibDecoder::new(&bytes[..]).read_to_end(&mut text),
                    Encoding::Brotli => brotli::Decompressor::new(&bytes[..], 4096).read_to_end(&mut text),
                };
                assert_eq!(read.is_ok(), arrived == pieces.len(), "{encoding:?}");
                assert_eq!(text, pieces[..arrived].concat(), "{encoding:?}");
            }
            assert_eq!(encoding.as_str().parse(), Ok(encoding));
        }
    }
}
