//! Content codings, decoded on the side: the client gets the bytes as they came, the reader gets what they mean.
//!
//! - **The cut does not matter**: the same bytes are handed over, and the end is the same, however the body is cut.
//! - **Bounded**: an open stream takes less than 64 KiB ([`inflate::Inflate`] is nearly all of it), and no more than
//!   [`MAX_DECODED_BYTES`] come out of it, however small it is.
//! - **Total**: bytes that are not what their header says end in a reason, and what came before them was handed over.

mod accept;
mod deflate;
mod gzip;
mod inflate;

use std::fmt;

use crate::reader::End;
use deflate::Deflate;
use gzip::Gzip;

pub use accept::readable_codings;

/// The most that is decoded of one body; a body of more is [`Unreadable::TooLarge`]. The longest answers (128 000 tokens,
/// an event of 350 bytes each) are a third of it. It is an amount and not a ratio, for an answer that repeats itself is
/// compressed as well as a bomb is, and so that the cut does not matter.
pub const MAX_DECODED_BYTES: u64 = 128 * 1024 * 1024;

/// Decodes one body as its bytes pass.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// How many decoded bytes may still come.
    left: u64,
}

/// Why a body could not be read, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Its coding is Brotli (RFC 7932), which needs more memory than there is: a window of up to 16 MiB.
    Brotli,
    /// Its coding is Zstandard (RFC 8878), which needs more memory than there is: a window of up to 8 MiB.
    Zstandard,
    /// Its coding is another one that is not known here, or several, one around the other.
    UnknownCoding,
    /// Its bytes are not what its header says, or a checksum or a length among them.
    Corrupt,
    /// It has more than [`MAX_DECODED_BYTES`].
    TooLarge,
}

#[derive(Debug)]
enum State {
    Identity,
    Deflate(Deflate),
    Gzip(Gzip),
    Unreadable(Unreadable),
}

/// Whether a coded stream has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Not yet: it wants more.
    Open,
    /// All of it was there.
    Ended,
}

impl Unreadable {
    /// The reason as it is reported: `encoding_…`.
    pub fn as_str(self) -> &'static str {
        match self {
            Unreadable::Brotli => "encoding_br",
            Unreadable::Zstandard => "encoding_zstd",
            Unreadable::UnknownCoding => "encoding_unknown",
            Unreadable::Corrupt => "encoding_corrupt",
            Unreadable::TooLarge => "encoding_too_large",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Decoder {
    /// A decoder for a body with this `content-encoding`; without one, or with `identity`, it hands over what it gets. The
    /// names are those of RFC 9110, section 8.4.1.
    pub fn new(content_encoding: Option<&str>) -> Decoder {
        let is_coding = |name: &&str| !name.is_empty() && !name.eq_ignore_ascii_case("identity");
        let mut codings = content_encoding.unwrap_or_default().split(',').map(str::trim).filter(is_coding);
        let state = match (codings.next(), codings.next()) {
            (None, _) => State::Identity,
            (Some(coding), None) => State::of(coding),
            (Some(_), Some(_)) => State::Unreadable(Unreadable::UnknownCoding),
        };
        Decoder { state, left: MAX_DECODED_BYTES }
    }

    /// Takes the next bytes of the body, cut anywhere, and hands over what they decode to, in pieces of at most 32 KiB
    /// where there is a coding. After an [`Unreadable`] nothing is handed over.
    pub fn decode(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) {
        let left = &mut self.left;
        let mut take_bounded = |decoded: &[u8]| {
            let within = usize::try_from(*left).ok().and_then(|room| decoded.get(..room)).unwrap_or(decoded);
            *left -= within.len() as u64;
            take(within);
            if within.len() < decoded.len() { Err(Unreadable::TooLarge) } else { Ok(()) }
        };
        let result = match &mut self.state {
            State::Identity => return take(bytes),
            State::Deflate(deflate) => deflate.decode(bytes, &mut take_bounded),
            State::Gzip(gzip) => gzip.decode(bytes, &mut take_bounded),
            State::Unreadable(reason) => Err(*reason),
        };
        if let Err(reason) = result {
            self.state = State::Unreadable(reason);
        }
    }

    /// Whether the bytes so far were the whole body, as far as the coding can tell, or why they are not readable.
    ///
    /// # Errors
    ///
    /// Why nothing more was handed over.
    pub fn finish(&self) -> Result<End, Unreadable> {
        let progress = match &self.state {
            State::Identity => Progress::Ended,
            State::Deflate(deflate) => deflate.progress(),
            State::Gzip(gzip) => gzip.progress(),
            State::Unreadable(reason) => return Err(*reason),
        };
        Ok(match progress {
            Progress::Ended => End::Complete,
            Progress::Open => End::Cut,
        })
    }
}

impl State {
    fn of(coding: &str) -> State {
        let is = |name: &str| coding.eq_ignore_ascii_case(name);
        if is("gzip") || is("x-gzip") {
            State::Gzip(Gzip::new())
        } else if is("deflate") {
            State::Deflate(Deflate::new())
        } else if is("br") {
            State::Unreadable(Unreadable::Brotli)
        } else if is("zstd") {
            State::Unreadable(Unreadable::Zstandard)
        } else {
            State::Unreadable(Unreadable::UnknownCoding)
        }
    }
}
