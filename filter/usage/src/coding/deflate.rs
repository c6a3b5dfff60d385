//! The coding `deflate`: zlib (RFC 1950) by RFC 9110, section 8.4.1.2, which adds that some send the stream without it. The
//! first two bytes tell: no encoder begins a bare stream with what is a zlib header.

use super::inflate::{Inflate, Wrapper};
use super::{Progress, Unreadable};

/// Where in the body the bytes stand.
#[derive(Debug)]
pub(super) enum Deflate {
    /// Before its second byte. The first, if it has come.
    Start(Option<u8>),
    Stream(Inflate),
    Ended,
}

impl Deflate {
    pub(super) fn new() -> Deflate {
        Deflate::Start(None)
    }

    pub(super) fn progress(&self) -> Progress {
        match self {
            Deflate::Start(_) | Deflate::Stream(_) => Progress::Open,
            Deflate::Ended => Progress::Ended,
        }
    }

    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        match (&mut *self, bytes) {
            (_, []) => Ok(()),
            (Deflate::Start(first @ None), [byte, rest @ ..]) => {
                *first = Some(*byte);
                self.decode(rest, take)
            }
            (Deflate::Start(Some(first)), [second, ..]) => {
                let first = *first;
                let wrapper = if is_zlib_header(first, *second) { Wrapper::Zlib } else { Wrapper::None };
                *self = Deflate::Stream(Inflate::new(wrapper));
                self.decode(&[first], take)?;
                self.decode(bytes, take)
            }
            (Deflate::Stream(inflate), _) => {
                let (taken, progress) = inflate.inflate(bytes, take)?;
                if progress == Progress::Ended {
                    *self = Deflate::Ended;
                }
                self.decode(bytes.get(taken..).unwrap_or_default(), take)
            }
            (Deflate::Ended, _) => Err(Unreadable::Corrupt),
        }
    }
}

/// Method 8, a window of at most 32 KiB, no preset dictionary, and a checksum over the two.
fn is_zlib_header(first: u8, second: u8) -> bool {
    let is_checked = u16::from_be_bytes([first, second]).is_multiple_of(31);
    first & 0x0F == 8 && first >> 4 <= 7 && second & 0x20 == 0 && is_checked
}
