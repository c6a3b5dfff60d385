//! One compressed stream, DEFLATE (RFC 1951) or zlib (RFC 1950) around it.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{Progress, Unreadable};

/// How far back a stream may refer, which is all that has to be kept of what came out of it.
const WINDOW_BYTES: usize = 32 * 1024;

/// What stands around the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// Nothing.
    None,
    /// A header that tells the window, and the Adler-32 of what comes out, which is checked.
    Zlib,
}

/// Inflates one stream.
pub(super) struct Inflate {
    wrapper: Wrapper,
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Where in the window the next byte goes: less than its length.
    at: usize,
}

impl fmt::Debug for Inflate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inflate").field("wrapper", &self.wrapper).finish_non_exhaustive()
    }
}

impl Inflate {
    pub(super) fn new(wrapper: Wrapper) -> Inflate {
        let window = vec![0; WINDOW_BYTES].into_boxed_slice();
        Inflate { wrapper, state: Box::new(DecompressorOxide::new()), window, at: 0 }
    }

    /// Makes ready for another stream.
    pub(super) fn reset(&mut self) {
        self.state.init();
        self.at = 0;
    }

    /// Takes the next bytes, and returns how many of them belonged to the stream: all, unless it has ended.
    pub(super) fn inflate(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Unreadable>,
    ) -> Result<(usize, Progress), Unreadable> {
        let flags = TINFL_FLAG_HAS_MORE_INPUT
            | match self.wrapper {
                Wrapper::None => 0,
                Wrapper::Zlib => TINFL_FLAG_PARSE_ZLIB_HEADER,
            };
        let mut rest = bytes;
        loop {
            let (status, read, written) = decompress(&mut self.state, rest, &mut self.window, self.at, flags);
            rest = rest.get(read..).unwrap_or_default();
            let decoded = self.window.get(self.at..).and_then(|room| room.get(..written)).unwrap_or_default();
            if !decoded.is_empty() {
                take(decoded)?;
            }
            self.at = (self.at + written) % WINDOW_BYTES;
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok((bytes.len(), Progress::Open)),
                TINFLStatus::Done => return Ok((bytes.len() - rest.len(), Progress::Ended)),
                _ => return Err(Unreadable::Corrupt),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::Decoder;

    #[test]
    fn an_open_stream_takes_less_than_64_kib() {
        let bytes = size_of::<Decoder>() + size_of::<DecompressorOxide>() + WINDOW_BYTES;
        assert!(bytes < 64 * 1024, "{bytes}");
    }
}
