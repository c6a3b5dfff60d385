//! A response body that leaves piece by piece, at the pace that its script sets.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

use super::gates::Passage;
use super::script::{Break, Place, Script};

/// The stand-in breaks the answer off, as its script says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off, as told")
    }
}

impl std::error::Error for Broken {}

/// What stands before a piece, or before the broken end.
enum Pause {
    /// hyper writes what it has, so that the piece leaves in a write of its own.
    Flush,
    /// So does this, and it takes its time.
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
}

pub(super) struct PacedBody {
    pieces: std::vec::IntoIter<Bytes>,
    /// What `content-length` says, where one is sent.
    announced_bytes: Option<u64>,
    end: End,
    delay: Option<Duration>,
    gate: Option<Passage>,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Broken(Break),
}

impl PacedBody {
    /// `sized` announces the body's length; without it the body is sent in HTTP/1.1's chunks.
    pub(super) fn new(pieces: Vec<Bytes>, sized: bool, script: &Script, gate: Option<Passage>) -> PacedBody {
        let announced_bytes = sized.then(|| pieces.iter().map(|piece| piece.len() as u64).sum());
        let (pieces, end) = shape(pieces, script);
        PacedBody {
            pieces: pieces.into_iter(),
            announced_bytes,
            end,
            delay: script.delay,
            gate,
            pause: script.delay.map(|delay| Pause::Wait(Box::pin(tokio::time::sleep(delay)))),
        }
    }

    fn next_pause(&self) -> Pause {
        let (delay, gate) = (self.delay, self.gate.as_ref().map(Passage::next));
        if delay.is_none() && gate.is_none() {
            return Pause::Flush;
        }
        Pause::Wait(Box::pin(async move {
            if let Some(gate) = gate {
                gate.await;
            }
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
        }))
    }
}

/// Cuts `pieces` and breaks them off as the script says.
fn shape(pieces: Vec<Bytes>, script: &Script) -> (Vec<Bytes>, End) {
    let (break_after, end) = match script.failure.breaks {
        Some((how, Place::AfterBytes(bytes))) => (Some(bytes.get()), End::Broken(how)),
        Some((_, Place::BeforeHeaders)) | None => (None, End::Complete),
    };
    if script.cut_bytes.is_none() && break_after.is_none() {
        return (pieces, end);
    }
    let mut rest = pieces.iter().fold(BytesMut::new(), |mut whole, piece| {
        whole.extend_from_slice(piece);
        whole
    });
    rest.truncate(break_after.unwrap_or(usize::MAX));
    let mut rest = rest.freeze();
    let cut_bytes = script.cut_bytes.map_or(usize::MAX, |bytes| bytes.get());
    let mut cut = Vec::with_capacity(rest.len().div_ceil(cut_bytes));
    while !rest.is_empty() {
        cut.push(rest.split_to(cut_bytes.min(rest.len())));
    }
    (cut, end)
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.pause {
            Some(Pause::Flush) => {
                self.pause = None;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Pause::Wait(pause)) => {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            None => {}
        }
        match self.pieces.next() {
            Some(piece) => {
                if !self.is_end_stream() {
                    self.pause = Some(self.next_pause());
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None => match self.end {
                End::Complete => Poll::Ready(None),
                End::Broken(Break::Reset) => Poll::Ready(Some(Err(Broken))),
                // Nothing will wake this: it ends when the client leaves.
                End::Broken(Break::Hang) => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.len() == 0 && self.end == End::Complete
    }

    fn size_hint(&self) -> SizeHint {
        self.announced_bytes.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderMap, HeaderValue};

    fn shaped(headers: &[(&'static str, &'static str)]) -> (Vec<Bytes>, bool) {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let pieces = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        let (pieces, end) = shape(pieces, &Script::read(&headers).unwrap());
        (pieces, end != End::Complete)
    }

    #[test]
    fn pieces_are_cut_across_their_ends() {
        assert_eq!(shaped(&[]), (vec!["abc".into(), "defg".into()], false));
        assert_eq!(shaped(&[("x-standin-cut", "2")]), (vec!["ab".into(), "cd".into(), "ef".into(), "g".into()], false));
        assert_eq!(shaped(&[("x-standin-cut", "100")]), (vec!["abcdefg".into()], false));
    }

    #[test]
    fn a_break_leaves_what_came_before_it() {
        assert_eq!(shaped(&[("x-standin-hang-after-bytes", "4")]), (vec!["abcd".into()], true));
        assert_eq!(shaped(&[("x-standin-reset-after-bytes", "4")]), (vec!["abcd".into()], true));
        assert_eq!(
            shaped(&[("x-standin-reset-after-bytes", "3"), ("x-standin-cut", "2")]),
            (vec!["ab".into(), "c".into()], true)
        );
    }
}
